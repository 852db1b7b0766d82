"""Actions in their own units: bounds of a file, what networks see, and what a policy returns."""

import json

import numpy as np
import pytest

import evor
from conftest import TINY, learned, user_arrays
from evor.data.formats.npz import read_episodes
from evor.errors import EvorError
from evor.types import ActionBounds, digest

PENDULUM = {"action_low": np.full(2, -2.0), "action_high": np.full(2, 2.0)}


def test_scaling_is_exact_where_it_can_be_written_out():
    bounds = ActionBounds((-2.0, 0.0, 7.0), (2.0, 90.0, 7.0))
    own = np.array([[-2, 0, 7], [0, 45, 7], [1, 67.5, 7]], np.float32)
    scaled = np.array([[-1, -1, 0], [0, 0, 0], [0.5, 0.5, 0]], np.float32)
    np.testing.assert_array_equal(bounds.scale(own), scaled)
    np.testing.assert_array_equal(bounds.unscale(scaled), own)
    assert bounds.scale(own).dtype == bounds.unscale(scaled).dtype == np.float32


def test_the_bounds_are_never_left_by_rounding():
    generator = np.random.default_rng(0)
    low = generator.normal(0, 100, 50).astype(np.float32)
    high = low + generator.exponential(100, 50).astype(np.float32)
    bounds = ActionBounds.read(low, high)
    ends = bounds.unscale(np.array([[-1.0], [1.0]], np.float32).repeat(50, axis=1))
    assert (ends >= low).all()
    assert (ends <= high).all()
    scaled = bounds.scale(generator.uniform(low, high, (1000, 50)).astype(np.float32))
    assert np.abs(scaled).max() <= 1


def test_bounds_are_told_in_numbers_that_give_them_again():
    numbers = np.random.default_rng(0).normal(0, 100, (2, 50)).astype(np.float32)
    bounds = ActionBounds.read(numbers.min(axis=0), numbers.max(axis=0))
    told = [bounds.of_entry(entry).strip("[]").split(", ") for entry in range(50)]
    assert ActionBounds.read(*np.array(told, float).T) == bounds
    assert str(ActionBounds.read([-2, 0.1], [2, 90])) == "[-2, 2], [0.1, 90]"


def test_actions_in_one_change_no_bit():
    values = np.random.default_rng(0).uniform(-1, 1, (10_000, 3)).astype(np.float32)
    values[0] = [-0.0, 0.0, 1.0]
    bounds = ActionBounds.unit(3)
    assert bounds.scale(values).tobytes() == values.tobytes()
    assert bounds.unscale(values).tobytes() == values.tobytes()


def test_bounds_of_minus_one_and_one_are_the_same_data(user_file):
    plain = read_episodes(user_file()).episodes
    said = read_episodes(user_file("said.npz", action_low=-np.ones(2), action_high=np.ones(2))).episodes
    assert digest(said) == digest(plain)
    wide = read_episodes(user_file("wide.npz", **PENDULUM)).episodes
    assert digest(wide) != digest(plain)
    assert wide.action_bounds == ActionBounds((-2.0, -2.0), (2.0, 2.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action_low": -np.ones(2)}, "has action_low and no action_high; give both"),
        ({"action_low": -np.ones(3), "action_high": np.ones(3)}, "2 columns, action_low and action_high 3; give one"),
        ({"action_low": -np.ones((1, 2)), "action_high": np.ones((1, 2))}, "action_low has shape [1, 2]"),
        (
            {"action_low": np.array([-1, 3]), "action_high": np.array([1, 2])},
            "action_low[1] is 3, above action_high[1]",
        ),
        ({"action_low": np.array([-1, np.nan]), "action_high": np.ones(2)}, "action_low[1] is nan"),
        ({"action_low": -np.ones(2), "action_high": np.array([0.5, 1])}, "outside [-1, 0.5]; correct action_low"),
        ({"actions": np.full((60, 2), np.nan), **PENDULUM}, "actions[0, 0] is nan"),
    ],
)
def test_bounds_that_do_not_fit(user_file, changes, words):
    with pytest.raises(EvorError) as refused:
        read_episodes(user_file(**changes))
    assert words in str(refused.value)


def test_the_files_of_a_folder_need_the_same_bounds(tmp_path):
    np.savez(tmp_path / "a.npz", **user_arrays())
    np.savez(tmp_path / "b.npz", **user_arrays(), **PENDULUM)
    with pytest.raises(EvorError, match=r"b.npz has actions in \[-2, 2\], .*a.npz in \[-1, 1\]"):
        evor.read_dataset(tmp_path)
    with pytest.raises(EvorError, match=r"b.npz has actions in \[-2, 2\]"):
        evor.train(tmp_path, out=tmp_path / "run", updates=2, memory_gb=1e-5, agent=TINY)


@pytest.mark.slow
def test_constant_entries_are_learned_and_played(tmp_path):
    arrays = user_arrays() | {"action_low": np.array([-1, 0.7]), "action_high": np.array([1, 0.7])}
    arrays["actions"][:, 1] = 0.7
    policy = evor.train(arrays, out=tmp_path / "run", updates=2, agent=TINY, quiet=True).policy()
    actions = policy.act(np.zeros((5, 3)))
    assert (actions[:, 1] == np.float32(0.7)).all()
    assert len(np.unique(actions[:, 0])) == 5


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Policies of data in [-2, 2] and of the same data scaled by hand."""
    folder = tmp_path_factory.mktemp("units")
    arrays = user_arrays()
    np.savez(folder / "scaled.npz", **arrays)
    np.savez(folder / "own.npz", **(arrays | {"actions": 2 * arrays["actions"]}), **PENDULUM)
    return learned(folder / "own.npz", TINY, 20), learned(folder / "scaled.npz", TINY, 20)


@pytest.mark.slow
def test_a_policy_of_other_units_is_that_of_the_data_scaled_by_hand(both):
    own, scaled = both
    observations = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    search = evor.SoftmaxOf(4)
    seeds = np.arange(16)
    actions, other = (policy.act(observations, seeds, extraction=search) for policy in both)
    np.testing.assert_allclose(actions, 2 * other, rtol=1e-6)
    assert np.abs(actions).max() > 1
    assert np.abs(actions).max() <= 2
    np.testing.assert_allclose(own.value(observations, actions), scaled.value(observations, other), rtol=1e-5)
    np.testing.assert_allclose(own.returns(observations, actions), scaled.returns(observations, other), rtol=1e-5)
    decided = own.decide(observations, seeds, extraction=search)
    chosen = own.choose(observations, decided.candidates, seed=seeds, extraction=search)
    np.testing.assert_array_equal(chosen.index, decided.index)
    np.testing.assert_allclose(chosen.scores, decided.scores, rtol=1e-5)


def test_a_policy_refuses_actions_beyond_its_bounds_and_takes_those_inside(both):
    own, _ = both
    assert np.isfinite(own.value(np.zeros(3), [1.9, -1.9]))
    with pytest.raises(EvorError, match=r"action holds 2.1; actions lie in \[-2, 2\]"):
        own.value(np.zeros(3), [0, 2.1])
    with pytest.raises(EvorError, match=r"candidates\[1\] holds -3; actions lie in \[-2, 2\]"):
        own.choose(np.zeros(3), [[0, 0], [0, -3]])


def test_an_export_keeps_the_units(both, tmp_path):
    own, _ = both
    own.export(tmp_path / "policy")
    opened = evor.load(tmp_path / "policy")
    assert opened.action_bounds == ActionBounds((-2.0, -2.0), (2.0, 2.0))
    np.testing.assert_array_equal(opened.act(np.zeros((4, 3))), own.act(np.zeros((4, 3)), np.arange(4)))


@pytest.mark.slow
def test_blocks_under_a_cap_train_in_the_same_units(tmp_path):
    arrays = user_arrays(rows=400) | PENDULUM
    for shard in range(2):
        np.savez(tmp_path / f"{shard}.npz", **arrays)
    run = evor.train(tmp_path, out=tmp_path / "run", updates=2, memory_gb=2e-5, agent=TINY, quiet=True)
    assert run.policy().action_bounds == ActionBounds((-2.0, -2.0), (2.0, 2.0))
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["spec"] == {"observation_dim": 3, "action_dim": 2}
