"""Environments stepped together: chunks are played open loop, and processes change nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from conftest import DATASET
from evor.envs import vector as worlds_of
from evor.envs.randomness import own_generator
from evor.envs.vector import Step, _step, environments, trim
from evor.errors import EvorError
from evor.rollouts.evaluate import evaluate
from evor.rollouts.play import _wave, play
from evor.search.extraction import Prior


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
        worlds = environments(DATASET, 1, count=3, workers=workers)
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
        environments(DATASET, 9, count=2, workers=2)
    worlds = environments(DATASET, 2, count=2, workers=2)
    assert len(worlds.reset([np.zeros(3, np.uint32)] * 2)) == 2  # and it goes on
    worlds_of._started[0].kill()  # as a system without memory does
    with pytest.raises(EvorError, match=r"was killed.* num_envs \(--parallel\) plays fewer"):
        worlds.step({0: np.zeros((1, 2)), 1: np.zeros((1, 2))})
    assert worlds_of._started == []  # none is left with an answer that the next call would take for its own


def test_a_time_limit_ends_the_episode_too():
    ended = SimpleNamespace(step=lambda action: (np.zeros(1), 0.0, False, True, {"success": 0.0}))
    assert _step(ended, np.zeros((1, 1))).ended


class Drawing:
    """An environment that draws from numpy's global generator whenever it can, as OGBench's do."""

    made, closed = 0, 0

    def __init__(self, *_):
        Drawing.made += 1
        self.action_space = SimpleNamespace(seed=lambda seed: None)

    def reset(self, seed):
        return np.random.normal(size=1), {}

    def step(self, action):
        action += 1  # it may do with it what it likes
        return np.random.normal(size=1), 0.0, False, False, {}

    def close(self):
        Drawing.closed += 1


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.setattr(worlds_of, "make_environment", Drawing)
    monkeypatch.setattr(worlds_of, "_worlds", {})
    monkeypatch.setattr(Drawing, "made", 0)
    monkeypatch.setattr(Drawing, "closed", 0)


def test_an_environment_draws_the_same_beside_any_others(drawing):
    """Mazes that teleport draw at every step."""
    states = [np.array([index, 0, 0], np.uint32) for index in range(3)]
    chunk = np.zeros((1, 1))

    def played(chosen):
        with own_generator():
            worlds = environments("any", 1, count=len(chosen), workers=1)
            seen = [[first.item()] for first in worlds.reset([states[index] for index in chosen])]
            for _ in range(4):
                for place, step in worlds.step(dict.fromkeys(range(len(chosen)), chunk)).items():
                    seen[place].append(step.observations[0].item())
            return dict(zip(chosen, seen, strict=True))

    together = played([0, 1, 2])
    assert len({tuple(seen) for seen in together.values()}) == 3
    for index in range(3):
        assert played([index])[index] == together[index]


def test_environments_without_use_are_closed(drawing, monkeypatch):
    environments("any", 1, count=5, workers=1)
    environments("any", 1, count=3, workers=1)
    assert (Drawing.made, Drawing.closed) == (5, 2)
    environments("any", 1, count=4, workers=1)
    assert (Drawing.made, Drawing.closed) == (6, 2)
    environments("any", 2, count=1, workers=1)
    assert (Drawing.made, Drawing.closed) == (7, 6)
    trim()
    assert Drawing.closed == 6  # few are kept for the next call
    monkeypatch.setattr(worlds_of, "KEPT_MIB", 0)
    trim()
    assert Drawing.closed == Drawing.made


@pytest.mark.slow
def test_the_hosts_generator_stays_as_it_was(tiny_run, tmp_path):
    """Whatever it is, with the normal draw that it has in store."""
    import shutil

    from evor.data.scripted.generate import generate
    from evor.policies.load import load

    policy = load(tiny_run, 1, seed=0)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    np.random.seed(7)
    np.random.normal()
    before = np.random.get_state(legacy=False)
    play(policy, DATASET, task=1, extraction=Prior(), episodes=1, evaluation_seed=0)
    evaluate(run, episodes=1, tasks=(1,), seeds=(0,))
    generate(DATASET, 1000, seed=0, folder=tmp_path / "data")
    after = np.random.get_state(legacy=False)
    assert before["has_gauss"] == 1
    np.testing.assert_equal(after, before)


def test_actions_are_the_environments_own():
    """Writable, and what one environment does with them reaches no other."""
    seen = []

    class Taking:
        def reset(self, states):
            return [np.zeros(2) for _ in states]

        def step(self, chunks):
            for index, chunk in chunks.items():
                seen.append(chunk.copy())
                chunk[:] = np.nan
                assert index in (0, 1)
            return {
                index: Step(observations=[np.zeros(2)], rewards=[0.0], ended=len(seen) > 2, success=0.0)
                for index in chunks
            }

    actions = np.arange(4.0, dtype=np.float32).reshape(2, 2)
    actions.flags.writeable = False
    policy = SimpleNamespace(_act_with_keys=lambda *_, **__: actions, spec=SimpleNamespace(action_dim=2))
    _wave(
        policy,
        Taking(),
        seeds=[np.zeros(3, np.uint32)] * 2,
        extraction=Prior(),
        size=2,
        ended=lambda *_: None,
        max_episode_steps=np.inf,
    )
    np.testing.assert_array_equal(np.concatenate(seen), [[0, 1], [2, 3], [0, 1], [2, 3]])
