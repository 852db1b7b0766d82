"""One run folder: who may write into it, what a checkpoint knows, what a resume may change, and what it never erases."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import evor
from conftest import TINY
from evor.data.scripted.generate import generate
from evor.errors import EvorError
from evor.experiments.demo import MARK, demo
from evor.experiments.verify.runner import VerifySettings, verify
from evor.policies.load import open_run
from evor.runtime.files import read_json, read_json_lines, write_json
from evor.runtime.locks import hold, waited_for
from evor.runtime.parallel import Local
from evor.runtime.records import replace
from evor.training import checkpoint, folder
from evor.training.config import RunConfig
from evor.training.train import Training, train


@pytest.fixture
def config(user_file) -> RunConfig:
    return RunConfig(data=str(user_file()), updates=4, checkpoint_every=2, log_every=2, agent=TINY)


def changed(config: RunConfig, **changes) -> RunConfig:
    return dataclasses.replace(config, **changes)


def final(out) -> dict[str, np.ndarray]:
    return checkpoint.load_arrays(checkpoint.checkpoints(out / "checkpoints")[-1])[0]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


# Locks.


def test_a_lock_is_held_once_and_says_by_whom(tmp_path):
    with hold(tmp_path / ".lock", "evor train"):
        with pytest.raises(EvorError, match=rf"{tmp_path} is in use by evor train \(process \d+ on .+, since 20.+\)"):
            hold(tmp_path / ".lock", "evor demo")
        with hold(tmp_path / ".other", "evor demo"):
            pass
    assert not list(tmp_path.iterdir())  # it leaves nothing
    with hold(tmp_path / ".lock", "evor demo"):
        pass


def test_a_lock_that_says_nothing_is_still_a_lock(tmp_path):
    with hold(tmp_path / ".lock", "evor train"):
        (tmp_path / ".lock").write_text("not JSON")
        with pytest.raises(EvorError, match="in use by another process"):
            hold(tmp_path / ".lock", "evor train")


def test_a_brief_lock_can_be_taken_again_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="inside"), waited_for(tmp_path / ".lock"):
        raise ValueError("inside")
    with waited_for(tmp_path / ".lock"):
        pass


# Two processes.


def test_the_second_that_resumes_is_refused_and_the_first_goes_on(config, tmp_path):
    with Training.open(config, tmp_path / "run", resume=True) as first:
        first.advance(2)
        with pytest.raises(EvorError, match="in use by evor train"):
            Training.open(config, tmp_path / "run", resume=True)
        first.advance(4)
    assert [line["step"] for line in read_json_lines(tmp_path / "run" / "metrics.jsonl")] == [2, 4]
    train(config, tmp_path / "run", resume=True)  # the folder is free again


def test_two_that_start_at_once_leave_one_run(config, tmp_path, monkeypatch):
    """The second trains from beginning to end while the first still reads its data."""
    read, began = folder.open_data, []

    def slowly(*asked):
        if not began:
            began.append(1)
            train(changed(config, seed=2), tmp_path / "run")
        return read(*asked)

    monkeypatch.setattr(folder, "open_data", slowly)
    with pytest.raises(EvorError, match="already holds a run"):
        train(changed(config, seed=1), tmp_path / "run")
    assert evor.load(tmp_path / "run").origin["seed"] == 2
    assert len(read_json_lines(tmp_path / "run" / "metrics.jsonl")) == 2


def test_a_refused_request_leaves_the_folder_free(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(EvorError, match="started differently") as refusal:  # holds the frames that held the lock
        train(changed(config, seed=1), tmp_path / "run", resume=True)
    train(config, tmp_path / "run", resume=True)
    assert "seed: 0 -> 1" in str(refusal.value)


# What a checkpoint knows.


def test_a_checkpoint_of_another_config_is_refused(config, tmp_path):
    train(config, tmp_path / "one")
    train(changed(config, seed=1), tmp_path / "other")
    for path in checkpoint.checkpoints(tmp_path / "other" / "checkpoints"):
        shutil.copy(path, tmp_path / "one" / "checkpoints")
    for open_it in (lambda: evor.load(tmp_path / "one"), lambda: train(config, tmp_path / "one", resume=True)):
        with pytest.raises(EvorError, match=r"is another run's: what they say differs \(config\.seed: 1 -> 0\)"):
            open_it()


@pytest.mark.parametrize("options", ["those of the run", "those of the file"])
def test_an_edited_config_is_told_as_edited(options, config, tmp_path):
    """Not as a run that was started differently: it wasn't."""
    train(config, out := tmp_path / "run")
    stored = read_json(out / "config.json")
    stored["config"]["agent"] |= {"hidden": [8, 8], "batch_size": 16}
    write_json(out / "config.json", stored)
    edited = changed(config, agent=replace(TINY, hidden=(8, 8), batch_size=16))
    with pytest.raises(EvorError) as refusal:
        train(config if options == "those of the run" else edited, out, resume=True)
    assert str(refusal.value).startswith(
        f"{out / 'config.json'} was edited, or the checkpoint of 4 updates beside it is"
    )
    assert "(config.agent.hidden: [16, 16] -> [8, 8]; config.agent.batch_size: 32 -> 16)" in str(refusal.value)
    assert read_json(out / "config.json") == stored


@pytest.mark.slow
def test_a_checkpoint_of_version_0_1_0_knows_no_config_and_passes(config, tmp_path):
    """It also does not say when the last line was logged: on the last multiple of log_every."""
    out = tmp_path / "run"
    with Training.open(changed(config, updates=8, checkpoint_every=3, log_every=2), out, resume=False) as run:
        run.advance(3)
    path = checkpoint.checkpoint_path(out / "checkpoints", 3)
    arrays, metadata = checkpoint.load_arrays(path)
    assert set(metadata) == {"step", "logged", "identity"}
    checkpoint.save_arrays(path, arrays, metadata={"step": 3})
    (out / "saved.json").unlink()
    train(changed(config, updates=8, checkpoint_every=3, log_every=2), out, resume=True)
    train(changed(config, updates=8, checkpoint_every=3, log_every=2), tmp_path / "whole")
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert same(final(out), final(tmp_path / "whole"))


# Lost checkpoints.


@pytest.mark.parametrize("version", ["now", "0.1.0"])
def test_a_resume_without_its_checkpoints_stops_and_erases_nothing(version, config, tmp_path):
    out = tmp_path / "run"
    train(config, out)
    shutil.rmtree(out / "checkpoints")
    if version == "0.1.0":
        (out / "saved.json").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(EvorError, match=r"lost its checkpoints \(its last one was made after 4 updates\); restore"):
        train(config, out, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_run_killed_before_its_first_checkpoint_starts_over(config, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(self):
        raise Killed

    slow = changed(config, log_every=1, checkpoint_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_save", kill)
        with pytest.raises(Killed):
            train(slow, tmp_path / "run")
    assert len(read_json_lines(tmp_path / "run" / "metrics.jsonl")) == 4
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "se')
    train(slow, tmp_path / "run", resume=True)
    train(slow, tmp_path / "whole")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_one_lost_checkpoint_is_told_and_made_again(config, tmp_path, capsys):
    train(config, tmp_path / "run")
    before = final(tmp_path / "run")
    checkpoint.checkpoints(tmp_path / "run" / "checkpoints")[-1].unlink()
    train(config, tmp_path / "run", resume=True)
    assert "the checkpoint of 4 updates is gone; going on from 2." in capsys.readouterr().err
    assert same(final(tmp_path / "run"), before)


# What a resume may change.


@pytest.mark.slow
def test_another_pace_on_resume_changes_no_weight_and_no_mean(config, tmp_path):
    """Saved between two lines of the log: what was summed since the last line belongs to the next one."""
    even = changed(config, updates=12, checkpoint_every=12, log_every=1)
    train(even, tmp_path / "whole")
    with Training.open(changed(even, checkpoint_every=5, log_every=4), tmp_path / "run", resume=False) as run:
        run.advance(5)
    train(changed(even, checkpoint_every=2, log_every=6), tmp_path / "run", resume=True)
    assert same(final(tmp_path / "run"), final(tmp_path / "whole"))
    each = [line["value/loss"] for line in read_json_lines(tmp_path / "whole" / "metrics.jsonl")]
    lines = {line["step"]: line["value/loss"] for line in read_json_lines(tmp_path / "run" / "metrics.jsonl")}
    assert list(lines) == [4, 6, 12]
    for (start, step), mean in zip(((0, 4), (4, 6), (6, 12)), lines.values(), strict=True):
        np.testing.assert_allclose(mean, np.mean(each[start:step]), rtol=1e-5)
    stored = read_json(tmp_path / "run" / "config.json", "config")["config"]
    assert (stored["checkpoint_every"], stored["log_every"]) == (2, 6)


@pytest.mark.slow
def test_a_run_is_extended_and_says_what_becomes_of_the_learning_rate(config, tmp_path, capsys):
    """Kept at one rate, the extended run is the longer one; with the default's falling rate it is not, and is told."""
    level = changed(config, agent=replace(TINY, final_learning_rate=TINY.learning.learning_rate))
    train(level, tmp_path / "run")
    train(changed(level, updates=8), tmp_path / "run", resume=True)
    train(changed(level, updates=8), tmp_path / "whole")
    assert same(final(tmp_path / "run"), final(tmp_path / "whole"))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert read_json(tmp_path / "run" / "config.json", "extended")["extended"] == [{"at": 4, "from": 4, "to": 8}]
    assert open_run(tmp_path / "run").step == 8
    capsys.readouterr()
    falling = changed(config, agent=replace(TINY, learning_rate=4e-4, final_learning_rate=0.0))
    train(falling, tmp_path / "falling")
    Training.open(changed(falling, updates=8), tmp_path / "falling", resume=True).close()
    said = capsys.readouterr().err
    assert "The learning rate at update 4 is 0.0002 (before: 0); it goes to 0 at update 8." in said


def test_fewer_updates_than_a_run_was_started_with_are_refused(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(EvorError, match="was started for 4 updates, and 3 are fewer; train for 4 or more"):
        train(changed(config, updates=3), tmp_path / "run", resume=True)


# Numbers that are too large.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": 2**31 - 1, "num_seeds": 2}, r"seed is 2147483647 and num_seeds is 2"),
        ({"seed": -1}, "seed is -1"),
        ({"updates": 2**31}, r"updates is 2147483648; it must be below 2\^31"),
    ],
)
def test_numbers_beyond_int32_are_refused_before_anything_is_written(options, told):
    with pytest.raises(EvorError, match=told):
        RunConfig(data="mine.npz", agent=TINY, **options)


def test_the_largest_seed_trains(config, tmp_path):
    train(changed(config, seed=2**31 - 1), tmp_path / "run")
    assert evor.load(tmp_path / "run").origin["seed"] == 2**31 - 1


def test_a_damaged_marker_is_one_sentence(config, tmp_path):
    train(config, tmp_path / "run")
    write_json(tmp_path / "run" / "saved.json", {"step": "four"})
    with pytest.raises(EvorError, match=r"saved\.json is damaged"):
        train(config, tmp_path / "run", resume=True)
    (tmp_path / "run" / "saved.json").write_text(json.dumps({"step": 4}))
    train(config, tmp_path / "run", resume=True)


# Other verbs hold their folders too.


def test_a_second_generation_in_a_folder_is_refused_and_loses_nothing(tmp_path):
    """Of another seed: it would remove the pieces of the first, or be lost without a word."""
    name = "pointmaze-medium-navigate-v0"
    with hold(tmp_path / f".{name}.lock", "evor data generate"):
        piece = tmp_path / f".{name}-0123abcd.partial"
        piece.mkdir()
        with pytest.raises(EvorError, match=r"in use by evor data generate"):
            generate(name, 1000, seed=1, folder=tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {f".{name}.lock", piece.name}
        generate("pointmaze-medium-stitch-v0", 200, seed=0, folder=tmp_path)  # another dataset


def test_a_second_verification_or_demo_in_a_folder_is_refused(tmp_path):
    with hold(tmp_path / ".lock", "evor verify"), pytest.raises(EvorError, match="in use by evor verify"):
        verify(("coin",), ("default",), settings=VerifySettings(), machines=Local(1), out=tmp_path)
    (tmp_path / MARK).write_text("")
    (tmp_path / "summary.json").write_text("{}")
    for lock in (".demo.lock", ".lock"):  # another demo; a training in the folder of a demo
        with hold(tmp_path / lock, "evor train"), pytest.raises(EvorError, match="in use by evor train"):
            demo(tmp_path, tmp_path, seed=0, transitions=1000, updates=1, episodes=1, num_candidates=(2,))
        assert (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_an_interruption_costs_no_regular_checkpoint(config, tmp_path):
    """A run that stopped between two of them ends with the checkpoints of one that did not."""
    longer = changed(config, updates=8)
    train(longer, tmp_path / "whole")
    for stop in (3, 5, 7):
        with Training.open(longer, tmp_path / "run", resume=True) as run:
            run.advance(stop)
    train(longer, tmp_path / "run", resume=True)
    names = [[path.name for path in checkpoint.checkpoints(tmp_path / run / "checkpoints")] for run in ("whole", "run")]
    assert names[0] == names[1]
    assert same(final(tmp_path / "run"), final(tmp_path / "whole"))


def test_rewards_beyond_what_float32_can_learn_from_are_refused(user_file, tmp_path):
    data = user_file(rewards=np.full(60, 3e38, np.float32))
    with pytest.raises(EvorError, match=r"sums of rewards reach 3\.52e\+40, more than float32 can learn from; divide"):
        train(RunConfig(data=str(data), updates=2, agent=TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()
