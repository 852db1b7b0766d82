"""Opening runs, earlier checkpoints and exports; writing an export."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evor
from conftest import DATASET
from evor.cli.main import main
from evor.errors import EvorError
from evor.policies import exports
from evor.policies.load import open_run
from evor.runtime.locks import hold

OBSERVATIONS = np.array([[0.0, 0.0], [4.0, 1.0], [12.0, 16.0], [20.0, 20.0]], np.float32)


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, task=4, seed=1)


@pytest.fixture
def robot(policy, tmp_path):
    """An export that a test may damage."""
    policy.export(tmp_path / "robot")
    return tmp_path / "robot"


def test_an_exported_policy_is_the_same_policy(policy, tmp_path):
    policy.export(tmp_path / "robot")
    assert sorted(path.name for path in (tmp_path / "robot").iterdir()) == ["policy.json", "policy.safetensors"]
    again = evor.load(tmp_path / "robot")
    np.testing.assert_array_equal(again.act(OBSERVATIONS, seed=5), policy.act(OBSERVATIONS, seed=5))
    assert again.origin == policy.origin == {"dataset": DATASET, "task": 4, "seed": 1, "updates": 20}
    with pytest.raises(evor.EvorError, match="already holds a policy"):
        policy.export(tmp_path / "robot")
    with pytest.raises(evor.EvorError, match="holds task 4, not 1"):
        evor.load(tmp_path / "robot", task=1)


def test_an_export_replaces_another_where_it_is_asked_to(tiny_run, robot, tmp_path, capsys):
    other = evor.load(tiny_run, task=1, seed=0)
    other.export(robot, overwrite=True)
    np.testing.assert_array_equal(evor.load(robot).act(OBSERVATIONS, seed=5), other.act(OBSERVATIONS, seed=5))
    assert main(["export", str(tiny_run), "--out", str(robot), "--task", "4", "--seed", "1", "--overwrite"]) == 0
    assert evor.load(robot).origin["task"] == 4
    with pytest.raises(evor.EvorError, match="holds a run; export into a folder of its own"):
        other.export(tiny_run, overwrite=True)


def test_a_replacement_that_fails_leaves_no_half(policy, robot, monkeypatch):
    def fail(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exports, "write_json", fail)
    with pytest.raises(evor.EvorError, match="could not be written"):
        policy.export(robot, overwrite=True)
    assert [path.name for path in robot.iterdir() if path.name.startswith("policy")] == []


def test_what_is_not_there_or_is_an_export_is_told_apart(robot, tmp_path):
    with pytest.raises(evor.EvorError, match="nope does not exist; give a run folder or an exported policy"):
        evor.load(tmp_path / "nope")
    with pytest.raises(evor.EvorError, match="nope does not exist; give a run folder, as `evor train`"):
        open_run(tmp_path / "nope")
    with pytest.raises(
        evor.EvorError, match=r"robot is an exported policy, and a run folder .* evor.evaluate plays it"
    ):
        open_run(robot)


def test_an_ambiguous_run_lists_what_there_is(tiny_run):
    with pytest.raises(evor.EvorError, match=r"several tasks: tasks \[1, 4\], seeds \[0, 1\]"):
        evor.load(tiny_run)
    with pytest.raises(evor.EvorError, match="several seeds"):
        evor.load(tiny_run, task=1)
    with pytest.raises(evor.EvorError, match="no task 2"):
        evor.load(tiny_run, task=2, seed=0)
    with pytest.raises(evor.EvorError, match="not a run"):
        evor.load(tiny_run / "checkpoints")


def test_a_run_without_checkpoint_is_refused(tiny_run, tmp_path):
    (tmp_path / "config.json").write_text((tiny_run / "config.json").read_text())
    with pytest.raises(evor.EvorError, match="has no checkpoint; resume its training, or restore"):
        open_run(tmp_path)


@pytest.mark.parametrize("name", ["task", "seed", "step"])
@pytest.mark.parametrize("given", ["1", 1.0, None.__class__, -1])
def test_what_is_no_whole_number_opens_nothing(tiny_run, name, given):
    with pytest.raises(EvorError, match=rf"{name} is .*; it must be at least 0, a whole number"):
        evor.load(tiny_run, **{"task": 1, "seed": 0, name: given})


def test_whole_numbers_of_any_type_open_a_policy_that_can_be_exported(tiny_run, tmp_path):
    policy = evor.load(str(tiny_run), task=np.int64(4), seed=np.array(1), step=np.int32(20))
    policy.export(tmp_path / "robot")
    assert evor.load(tmp_path / "robot", np.uint8(4)).origin == policy.origin


def test_an_earlier_checkpoint(tiny_run):
    early, late = (evor.load(tiny_run, 1, seed=0, step=step) for step in (10, 20))
    assert [p.origin["updates"] for p in (early, late)] == [10, 20]
    newest = evor.load(tiny_run, 1, seed=0)
    np.testing.assert_array_equal(late.act(OBSERVATIONS, 0), newest.act(OBSERVATIONS, 0))
    assert (early.act(OBSERVATIONS, 0) != newest.act(OBSERVATIONS, 0)).any()
    assert open_run(tiny_run, 10).step == 10
    with pytest.raises(EvorError, match=r"no checkpoint of 15 updates; there are those of 10, 20\."):
        evor.load(tiny_run, 1, seed=0, step=15)


def test_an_export_has_one_step(robot):
    assert evor.load(robot, step=20).origin["updates"] == 20
    with pytest.raises(EvorError, match="holds step 20, not 10"):
        evor.load(robot, step=10)


def test_a_tilde_is_the_home_folder(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    policy.export("~/robot")
    assert (tmp_path / "robot/policy.json").exists()
    assert evor.load("~/robot").origin == policy.origin


def test_a_user_without_a_home_folder(policy, monkeypatch):
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)  # what it does without HOME and without an entry of the user
    for call in (evor.load, policy.export):
        with pytest.raises(EvorError, match=r"~/robot: the system knows no such home folder; set HOME"):
            call("~/robot")
    monkeypatch.undo()
    for call in (evor.load, policy.export):
        with pytest.raises(EvorError, match=r"the path is None; give a str or a Path"):
            call(None)
        with pytest.raises(EvorError, match=r"the path x+\.\.\. can't be opened \(File name too long\)"):
            call("x" * 300)


DAMAGED = [
    {"spec": {"observation_dim": 2}},
    {"spec": {"observation_dim": 2, "action_dim": 2, "colour": 1}},
    {"spec": {"observation_dim": 3, "action_dim": 2}},
    {"spec": {"observation_dim": 10**30, "action_dim": 2}},
    {"spec": {"observation_dim": "2", "action_dim": 2}},
    {"spec": [2, 2]},
    {"origin": {}},
    {"origin": None},
    {"origin": {"dataset": DATASET, "task": "4", "seed": 1, "updates": 20}},
    {"config": {}},
    {"config": "Evor"},
    {"config": {"hidden": [16, 10**30]}},
    {"config": {"hidden": []}},
    {"config": {"precision": "float8"}},
    {"config": {"type": "Bc"}},
]
# Reads well where nothing is known of the description beside it, as in version 0.1.0.
ANOTHER = [
    {"origin": {"dataset": DATASET, "task": 5, "seed": 1, "updates": 20}},
    {"config": {"flow_steps": 7}},
]


@pytest.mark.parametrize(
    ("change", "age"),
    [(change, "today's") for change in DAMAGED + ANOTHER] + [(change, "0.1.0's") for change in DAMAGED],
    ids=repr,
)
def test_a_description_that_was_changed_is_refused(robot, change, age):
    if age == "0.1.0's":
        arrays, _ = exports.checkpoint.load_arrays(robot / exports.ARRAYS)
        exports.checkpoint.save_arrays(robot / exports.ARRAYS, arrays, metadata={})
    path = robot / "policy.json"
    content = json.loads(path.read_text())
    ((name, value),) = change.items()
    content[name] = content[name] | value if name == "config" and value and isinstance(value, dict) else value
    path.write_text(json.dumps(content))
    with pytest.raises(EvorError) as caught:
        evor.load(robot)
    assert len(str(caught.value)) < 500
    assert "robot" in str(caught.value) or "config" in str(caught.value)


def test_a_damaged_description_is_said(robot, policy):
    (robot / "policy.json").write_text('{"config": ')
    with pytest.raises(EvorError, match=r"policy\.json is damaged"):
        evor.load(robot)
    with pytest.raises(EvorError, match="is a file"):
        policy.export(robot / "policy.safetensors")


def test_exports_of_0_1_0_open(robot, policy):
    arrays, metadata = exports.checkpoint.load_arrays(robot / exports.ARRAYS)
    assert metadata["policy"]["origin"] == policy.origin
    exports.checkpoint.save_arrays(robot / exports.ARRAYS, arrays, metadata={})
    np.testing.assert_array_equal(evor.load(robot).act(OBSERVATIONS, 0), policy.act(OBSERVATIONS, 0))


def test_two_exports_into_one_folder(policy, tmp_path):
    (tmp_path / "robot").mkdir()
    with (
        hold(tmp_path / "robot" / exports.LOCK, "an export"),
        pytest.raises(EvorError, match=r"robot is in use by an export \(process"),
    ):
        policy.export(tmp_path / "robot")
    policy.export(tmp_path / "robot")


def test_a_full_disk_leaves_no_half_of_an_export(policy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exports, "write_json", full)
        with pytest.raises(EvorError, match="could not be written \\(No space left on device\\)"):
            policy.export(tmp_path / "robot")
    assert list((tmp_path / "robot").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(EvorError, match="could not be written"):
        policy.export(tmp_path / "file" / "robot")
    policy.export(tmp_path / "robot")


def test_a_config_of_other_seeds_than_the_checkpoint_s_is_refused(tmp_path):
    """Before anything is made for each of them. A checkpoint of version 0.1.0 knows no config."""
    shutil.copytree(Path(__file__).parents[1] / "version_0_1_0" / "run", tmp_path / "run")
    path = tmp_path / "run/config.json"
    content = json.loads(path.read_text())
    content["config"]["seeds"] = 2**30
    path.write_text(json.dumps(content))
    with pytest.raises(EvorError, match="names 1073741824 seeds"):
        open_run(tmp_path / "run")


FUTURE = [
    (
        lambda config: config["agent"].update(type="Dreamer"),
        "'Dreamer' is none of Evor, Scalar, Qc, Fql, Ifql, Iql, Rebrac, ValueFlows, Sorl, Bc",
    ),
    (lambda config: config["agent"].update(colour="red"), "colour"),
]


@pytest.mark.parametrize(("change", "sentence"), FUTURE)
def test_what_a_later_version_wrote_is_refused_by_one_sentence(change, sentence, tiny_run, tmp_path):
    """A run and an export, with an agent or a setting that this version does not know. It names both versions."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    evor.load(run, 1, seed=0).export(tmp_path / "export")
    for path, wrote in ((run / "config.json", run / "provenance.json"), (tmp_path / "export/policy.json",) * 2):
        versions = json.loads(wrote.read_text())
        versions["versions"]["evor"] = "9.1.0"
        wrote.write_text(json.dumps(versions))
        stored = json.loads(path.read_text())
        change(stored["config"] if "agent" in stored["config"] else {"agent": stored["config"]})  # an export's is bare
        path.write_text(json.dumps(stored))
        with pytest.raises(EvorError) as refused:
            evor.load(path.parent)
        said = str(refused.value)
        assert said.startswith(f"{path} does not fit this version of evor, {evor.__version__}: ")
        assert sentence in said
        assert said.endswith("; it was written by evor 9.1.0, open it with that version.")
