"""The ledge: what is exact about it, and the practical methods there."""

import numpy as np
import pytest

from evor.imitation import ledge
from evor.imitation.ledge import BEAM, BRIDGE, EDGE, GUST, HORIZON, Ledge, demonstrated, middle


def test_the_expert_crosses_at_full_speed():
    shown = demonstrated("ledge", episodes=40, tremble=0.0)
    assert shown.rewards == pytest.approx(np.ones(len(shown)))  # 0.1 a step, 10 for each unit
    falls = int(shown.terminations.sum())
    assert falls <= 4  # only five gusts in a row are too many: chance 0.02 in an episode
    assert shown.truncations.sum() == 40 - falls
    assert (shown.elapsed[shown.truncations] == HORIZON - 1).all()
    assert shown.lived(HORIZON) > 0.9
    assert np.abs(shown.observations[shown.observations[:, 3] == 0, 1]).max() <= BEAM + 1e-6


def test_the_bridge_is_slower_and_has_no_gusts():
    shown = demonstrated("ledge-bridge", episodes=2, tremble=0.0)
    assert not shown.terminations.any()
    assert 90 < shown.rewards.sum() / 2 < 108  # 0.07 a step beyond the platform
    beyond = shown.states[shown.states[:, 0] >= EDGE]
    assert np.abs(beyond[:, 1] - middle(beyond[:, 0])).max() <= BRIDGE


def test_executed_actions_are_stored():
    """The agent that trembles falls now and then; repeating its stored actions from a stored state ends where it did."""
    shown = demonstrated("ledge-bridge", episodes=6, tremble=0.3)
    assert shown.terminations.any()
    world = Ledge(1)
    (start,) = np.flatnonzero(shown.ends)[:1]
    for row in range(int(start)):
        world.restore(np.array([0]), shown.states[row : row + 1], observations=shown.observations[row : row + 1])
        after = world.step(shown.actions[row : row + 1].astype(np.float64), np.random.default_rng(0))
        assert after.observations == pytest.approx(shown.observations[row + 1 : row + 2], abs=1e-6)


def test_a_gust_blows_on_the_beam_alone():
    world = Ledge(3)
    places = np.array([[0.5, 0.0, GUST], [2.0, 0.0, GUST], [2.0, middle(np.array(2.0)), GUST]])
    world.restore(np.arange(3), places, observations=np.zeros((3, 4), np.float32))
    seen = world.observations()
    ended = world.step(np.zeros((3, 2)), np.random.default_rng(0)).terminated
    assert ended.tolist() == [False, True, False]  # 0.15 * 1.2 leads off a beam of half-width 0.15
    assert seen[1].tolist() == pytest.approx([-0.6, 0, np.sin(1.5), 0], abs=1e-6)  # the gust is not seen


def test_states_are_restored_exactly():
    world, generator = Ledge(4), np.random.default_rng(0)
    before = world.reset(np.arange(4), generator)
    actions = generator.uniform(-1, 1, (20, 4, 2))
    for action in actions[:10]:
        before = world.step(action, generator).observations
    states, later = world.states(), []
    for _ in range(2):
        other = Ledge(4)
        other.restore(np.arange(4), states, observations=before)
        drawn = np.random.default_rng(1)
        later.append(np.stack([other.step(action, drawn).observations for action in actions[10:]]))
    assert np.array_equal(*later)


def test_falls_are_off_the_platform_the_beam_and_the_bridge():
    assert middle(np.array(EDGE)) + BRIDGE < ledge.SIDE  # the bridge begins on the platform
    world = Ledge(2)
    world.restore(
        np.arange(2), np.array([[0.0, 2.95, 0.0], [0.99, 1.0, 0.0]]), observations=np.zeros((2, 4), np.float32)
    )
    ended = world.step(np.array([[-1.0, 1.0], [1.0, 0.0]]), np.random.default_rng(0)).terminated
    assert ended.tolist() == [True, True]
