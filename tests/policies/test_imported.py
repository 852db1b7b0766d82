"""Runs on imported data: labels are told, dicts of the same keys are observations, and actions are in their own units."""

import json

import numpy as np
import pytest

import evor
import recordings
from conftest import TINY
from evor.cli.main import main
from evor.envs.observations import flat_observation
from evor.errors import EvorError


def test_keys_are_put_side_by_side_in_the_order_of_the_data():
    keys = (("a/b", 1), ("a/t/_index_1", 2), ("z", 3))
    given = {"z": [1, 2, 3], "a": {"t": (None, [4, 5]), "b": 6.0}, "image": None}
    np.testing.assert_array_equal(flat_observation(given, keys), [6, 4, 5, 1, 2, 3])
    batch = {"a/b": np.ones((7, 1)), "a/t/_index_1": np.ones((7, 2)), "z": np.zeros((7, 3))}
    assert flat_observation(batch, keys).shape == (7, 6)
    pair = (("_index_0", 2), ("_index_1/a", 1))
    np.testing.assert_array_equal(flat_observation(([1, 2], {"a": 3.0}), pair), [1, 2, 3])
    for flat in (np.zeros(6), (0.1, 0.2), [0.1, 0.2]):
        assert flat_observation(flat, keys) is flat


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a Minari dataset of a Dict space."""
    folder = tmp_path_factory.mktemp("imported")
    recordings.minari(folder / "reach-v0", "hdf5")
    assert main(["data", "import", str(folder / "reach-v0"), "--out", str(folder / "data"), "--quiet"]) == 0
    return evor.train(folder / "data", out=folder / "run", updates=2, agent=TINY, quiet=True)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_column_of_one_number_has_a_batch_of_one_too(rows):
    keys = (("grip", 1), ("state", 2))
    state = np.arange(2.0 * rows).reshape(rows, 2)
    wanted = np.concatenate([np.full((rows, 1), 9), state], axis=1)
    for grip in (np.full(rows, 9), np.full((rows, 1), 9)):
        np.testing.assert_array_equal(flat_observation({"grip": grip, "state": state}, keys), wanted)
    for other in (np.zeros(3), np.zeros((3, 1)), np.zeros((1, 1, 1))):
        with pytest.raises(EvorError, match=r"the columns of observation have different shapes \(grip \[.*, state \["):
            flat_observation({"grip": other, "state": state}, keys)


@pytest.mark.slow
def test_a_dict_of_the_same_keys_is_the_flat_vector(run, tmp_path):
    run.policy().export(tmp_path / "policy")
    generator = np.random.default_rng(0)
    goal, state = generator.normal(size=(4, 2)), generator.normal(size=(4, 3))
    flat = np.concatenate([goal, state], axis=1)
    for policy in (run.policy(), evor.load(tmp_path / "policy")):
        np.testing.assert_array_equal(policy.act({"state": state, "goal": goal, "image": None}, 3), policy.act(flat, 3))
        actions = policy.act(flat, 3)
        assert 1 < np.abs(actions).max() <= 90
        np.testing.assert_array_equal(
            policy.value({"goal": goal, "state": state}, actions), policy.value(flat, actions)
        )
        controller = evor.Controller(policy)
        action = controller.act({"goal": goal[0], "state": state[0]})
        controller.reset()
        np.testing.assert_array_equal(action, controller.act(flat[0]))


@pytest.mark.slow
def test_dicts_that_do_not_fit(run):
    policy = run.policy()
    with pytest.raises(EvorError, match=r"observation has no key 'goal' \(it has state\)"):
        policy.act({"state": np.zeros(3)})
    with pytest.raises(EvorError, match=r"observation\['goal'\] has shape \[3\]; \[2\] or \[B, 2\] is needed"):
        policy.act({"state": np.zeros(3), "goal": np.zeros(3)})
    policy.observation_keys = ()
    with pytest.raises(EvorError, match="but a dict, and the data of this policy named no keys"):
        policy.act({"state": np.zeros(3)})


@pytest.mark.slow
def test_a_run_tells_its_labels_and_units(run, tmp_path, capsys):
    run.policy().export(tmp_path / "policy")
    for folder in (run.folder, tmp_path / "policy"):
        assert main(["show", str(folder), "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["data"]["labels"].endswith("terminations: the recording's own terminations")
        assert content["data"]["observations"] == [["goal", 2], ["state", 3]]
        assert content["action_bounds"] == [[-90, 90], [-90, 90]]
        assert main(["show", str(folder)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "goal [2], state [3]" in said
        assert "[-90, 90]" in said
