"""Environments stepped together: chunks are played open loop, and processes change nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from conftest import DATASET
from evor.data.environments import _step, environments
from evor.errors import EvorError


class Counter:
    """Each step adds its action; the third ends the episode."""

    def __init__(self):
        self.taken = []

    def step(self, action):
        self.taken.append(float(action[0]))
        ended = len(self.taken) == 3
        return np.array([sum(self.taken)]), -1.0, ended, False, {"success": float(ended)}


def test_a_chunk_is_played_open_loop_until_the_episode_ends():
    environment = Counter()
    first = _step(environment, np.array([[1.0], [2.0]]))
    assert environment.taken == [1.0, 2.0]
    np.testing.assert_array_equal(first.observations, [[1], [3]])
    assert (first.reward, first.ended, first.success) == (-2.0, False, 0.0)
    second = _step(environment, np.array([[4.0], [8.0]]))
    assert environment.taken == [1.0, 2.0, 4.0]  # nothing is played after the end
    np.testing.assert_array_equal(second.observations, [[7]])
    assert (second.reward, second.ended, second.success) == (-1.0, True, 1.0)


def test_processes_change_nothing():
    """Three mazes, one of them idle now and then: in two processes as in this one."""
    generator = np.random.default_rng(0)
    states = [generator.integers(2**31, size=3, dtype=np.uint32) for _ in range(3)]
    chunks = [{i: generator.uniform(-1, 1, (2, 2)) for i in live} for live in ([0, 1, 2], [1, 2], [0, 2], [0, 1, 2])]
    played = []
    for workers in (1, 2):
        worlds = environments(DATASET, 1, 3, workers)
        played.append([worlds.reset(states), *(worlds.step(chunk) for chunk in chunks)])
    here, shared = played
    np.testing.assert_array_equal(here[0], shared[0])
    for one, other in zip(here[1:], shared[1:], strict=True):
        assert list(one) == list(other)
        for index, step in one.items():
            np.testing.assert_array_equal(step.observations, other[index].observations)
            assert step[1:] == other[index][1:]


def test_what_goes_wrong_in_a_process_is_told_here():
    with pytest.raises(EvorError, match=r"task 9"):
        environments(DATASET, 9, 2, 2)
    assert len(environments(DATASET, 2, 2, 2).reset([np.zeros(3, np.uint32)] * 2)) == 2  # and it goes on


def test_a_time_limit_ends_the_episode_too():
    ended = SimpleNamespace(step=lambda action: (np.zeros(1), 0.0, False, True, {"success": 0.0}))
    assert _step(ended, np.zeros((1, 1))).ended
