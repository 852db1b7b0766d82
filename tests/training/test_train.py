"""Training as a real process: kills, resumes, damage, and what one run says about another."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import DATASET, TINY, ended
from evor.agents.sorl import Sorl
from evor.data.formats.ogbench import load_dataset
from evor.errors import EvorError
from evor.runtime.files import read_json_lines
from evor.runtime.records import replace
from evor.training import checkpoint, update
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.train import Training, train
from evor.training.update import initial_state, make_runner
from evor.types import Spec

STEPS = 900
# Enough updates that kills land between checkpoints, small enough to finish in seconds.
OPTIONS = f"--updates {STEPS} --checkpoint-every 100 --log-every 50 --agent.hidden 16 16 --agent.batch-size 32".split()


def start(data, out, *extra):
    command = [sys.executable, "-m", "evor.cli.main", "train", DATASET, "--data", str(data), "--out", str(out)]
    return subprocess.Popen([*command, *OPTIONS, *extra], stderr=subprocess.PIPE, text=True)


def finish(process):
    """Exit code and what it said."""
    error = process.communicate()[1]
    return process.returncode, error


def wait_for_checkpoint(out, process, beyond=0):
    while not ended(process):
        found = [int(path.stem.split("_")[1]) for path in (out / "checkpoints").glob("step_*")]
        if any(step > beyond for step in found):
            return


def final_arrays(out):
    return checkpoint.load_arrays(checkpoint.checkpoint_path(out / "checkpoints", STEPS))[0]


@pytest.mark.slow
def test_killed_and_interrupted_and_resumed_ends_bit_identical(tmp_path, data_folder):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert finish(start(data_folder, whole))[0] == 0
    beyond = 0
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        process = start(data_folder, out, "--resume")
        wait_for_checkpoint(out, process, beyond)
        process.send_signal(number)
        code, error = finish(process)
        if number == signal.SIGKILL:
            assert code == -number
        else:
            assert code == 128 + number, error
            assert "continue with --resume" in error
        beyond = checkpoint.newest(out / "checkpoints")[1]["step"]
        assert beyond < STEPS
    assert finish(start(data_folder, out, "--resume"))[0] == 0
    one, other = final_arrays(whole), final_arrays(out)
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert (whole / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()
    assert "seconds" not in (out / "metrics.jsonl").read_text()


def small(data_folder, **changes):
    defaults = {"dataset": DATASET, "data": str(data_folder), "updates": 6, "checkpoint_every": 2, "agent": TINY}
    return RunConfig(**(defaults | changes))


def test_a_checkpoint_cut_in_half_falls_back_to_the_one_before(tmp_path, data_folder, capsys):
    config = small(data_folder)
    train(config, tmp_path / "one")
    train(config, tmp_path / "two")
    newest = checkpoint.checkpoints(tmp_path / "two" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    capsys.readouterr()
    train(config, tmp_path / "two", resume=True)
    assert "Falling back" in capsys.readouterr().err
    one, two = (
        checkpoint.load_arrays(checkpoint.checkpoints(tmp_path / n / "checkpoints")[-1])[0] for n in ("one", "two")
    )
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_where_no_checkpoint_can_be_read_nothing_is_trained_over_them(tmp_path, data_folder):
    config, out = small(data_folder), tmp_path / "run"
    train(config, out)
    before = (out / "metrics.jsonl").read_bytes()
    for path in checkpoint.checkpoints(out / "checkpoints"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EvorError, match="none of the 3 checkpoints"):
        train(config, out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == before


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, data_folder):
    """A limit on file sizes makes the operating system refuse the write, as a full disk does."""
    config, folder = small(data_folder), tmp_path / "run" / "checkpoints"
    train(config, tmp_path / "run")
    for path in checkpoint.checkpoints(folder)[1:]:
        path.unlink()
    (before,) = checkpoint.checkpoints(folder)
    shutil.copytree(tmp_path / "run", tmp_path / "twin")
    train(config, tmp_path / "twin", resume=True)  # so that all is compiled: JAX would write programs into its cache
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before.stat().st_size // 2, hard))
    try:
        with pytest.raises(EvorError, match=r"could not be written .*--resume"):
            train(config, tmp_path / "run", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == [before]
    assert checkpoint.newest(folder)[1]["step"] == 2
    train(config, tmp_path / "run", resume=True)
    assert checkpoint.newest(folder)[1]["step"] == 6


def test_a_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save_arrays(path, {"x": np.arange(100.0)}, metadata={})
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(EvorError, match="digest"):
        checkpoint.load_arrays(path)


def test_resume_starts_where_there_is_nothing_or_half_a_folder(tmp_path, data_folder):
    config = small(data_folder)
    train(config, tmp_path / "missing", resume=True)
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    train(config, tmp_path / "half", resume=True)
    assert (tmp_path / "missing" / "metrics.jsonl").read_text() == (tmp_path / "half" / "metrics.jsonl").read_text()


def test_resuming_a_finished_run_says_so_and_changes_nothing(tmp_path, data_folder, capsys):
    config = small(data_folder)
    train(config, tmp_path / "run")
    before = {
        p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != "provenance.json"
    }
    train(config, tmp_path / "run", resume=True)
    assert "finished" in capsys.readouterr().err
    assert before == {
        p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != "provenance.json"
    }


def test_resuming_with_another_config_names_the_field(tmp_path, data_folder):
    config = small(data_folder)
    train(config, tmp_path / "run")
    changed = dataclasses.replace(config, agent=replace(TINY, learning_rate=1e-3))
    with pytest.raises(EvorError, match=r"agent\.learning_rate: 0\.0003 -> 0\.001"):
        train(changed, tmp_path / "run", resume=True)


def test_a_run_from_before_an_option_existed_goes_on(tmp_path, data_folder):
    config, out = small(data_folder), tmp_path / "run"
    train(config, out)
    path = out / "config.json"
    stored = json.loads(path.read_text())
    del stored["config"]["sparse_rewards"], stored["config"]["agent"]["precision"]
    path.write_text(json.dumps(stored))
    train(dataclasses.replace(config, updates=6), out, resume=True)
    assert json.loads(path.read_text())["config"]["sparse_rewards"] is False
    for changed in (
        dataclasses.replace(config, sparse_rewards=True),
        dataclasses.replace(config, agent=replace(TINY, precision="bfloat16")),
    ):
        path.write_text(json.dumps(stored))
        with pytest.raises(EvorError, match="was started differently"):
            train(changed, out, resume=True)


def test_half_written_lines_of_the_logs_are_mended(tmp_path, user_file):
    config = RunConfig(data=str(user_file()), updates=4, checkpoint_every=2, log_every=2, agent=TINY)
    Training.open(config, tmp_path / "run", resume=False).advance(2)
    for name in ("metrics", "timings"):
        with open(tmp_path / "run" / f"{name}.jsonl", "a") as log:
            log.write('{"step": 3, "sec')
    train(config, tmp_path / "run", resume=True)
    for name in ("metrics", "timings"):
        assert [line["step"] for line in read_json_lines(tmp_path / "run" / f"{name}.jsonl")] == [2, 4]


def test_resuming_with_data_that_moved(tmp_path, user_file):
    path = user_file()
    config = RunConfig(data=str(path), updates=2, checkpoint_every=1, agent=TINY)
    train(config, tmp_path / "run")
    moved = path.rename(tmp_path / "elsewhere.npz")
    train(dataclasses.replace(config, data=str(moved)), tmp_path / "run", resume=True)


def test_resuming_with_other_data_is_refused(tmp_path, user_file):
    config = RunConfig(data=str(user_file()), updates=2, agent=TINY)
    train(config, tmp_path / "run")
    user_file(seed=1)
    with pytest.raises(EvorError, match=r"was started differently .the data are not the same.; use the same data and"):
        train(config, tmp_path / "run", resume=True)


def test_an_existing_run_is_not_overwritten(tmp_path, data_folder):
    train(small(data_folder), tmp_path / "run")
    with pytest.raises(EvorError, match="already holds a run"):
        train(small(data_folder), tmp_path / "run")


# It has no base, and an actor for each task. tests/agents/test_sorl.py has its update alone.
SORL = replace(Sorl(finest_steps=2, trained_steps=2), hidden=(8, 8), batch_size=16)


@pytest.mark.parametrize("agent", [TINY, pytest.param(SORL, marks=pytest.mark.slow)])
def test_a_seed_and_a_task_inside_vmap_are_the_same_alone(agent, data_folder):
    """After ten float32 updates (1e-5), for both seeds and both tasks."""

    def ten_updates(tasks, seed, seeds):
        config = small(data_folder, tasks=tasks, seed=seed, num_seeds=seeds, agent=agent)
        episodes = load_dataset(DATASET, tasks, folder=data_folder)
        columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
        state, run = make_runner(config, columns, initial_state(config, episodes.spec))
        return run(state, columns, 10)

    together = ten_updates((1, 4), 3, 2)
    for (s, seed), (k, task) in (((0, 3), (1, 4)), ((1, 4), (0, 1))):
        alone = ten_updates((task,), seed, 1)
        pairs = ((alone.base, (0,), together.base, (s,)), (alone.head, (0, 0), together.head, (s, k)))
        for one, first, many, index in pairs:
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
                np.testing.assert_allclose(np.asarray(a)[first], np.asarray(b)[index], atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_training_in_one_call_or_in_many_is_the_same(data_folder, monkeypatch):
    """However far a base is ahead of its heads."""
    monkeypatch.setattr("evor.training.update.STEPS_AHEAD", 3)
    config = small(data_folder)
    episodes = load_dataset(DATASET, (1,), folder=data_folder)
    columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
    state, run = make_runner(config, columns, initial_state(config, episodes.spec))
    whole = run(jax.tree.map(jnp.copy, state), columns, 7)
    parts = run(run(run(state, columns, 1), columns, 4), columns, 2)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True))


@pytest.mark.slow
def test_runs_that_differ_elsewhere_share_what_is_compiled(data_folder):
    """Another seed, task, place of the data and pace of saving; another agent is compiled anew."""

    def compiled(**changes):
        config = small(data_folder, **changes)
        columns = jax.tree.map(jnp.asarray, prepare(config, load_dataset(DATASET, (1,), folder=data_folder))[0])
        state, run = make_runner(config, columns, initial_state(config, Spec(2, 2)))
        run(state, columns, 1)
        return update._compiled_run._cache_size(), update._compiled_state._cache_size()

    first = compiled()
    assert compiled(seed=5, tasks=(3,), data="elsewhere", log_every=2, checkpoint_every=3) == first
    assert compiled(agent=replace(TINY, batch_size=16)) > first


@pytest.mark.slow
def test_metrics_are_means_since_the_last_line(tmp_path, data_folder):
    train(small(data_folder, log_every=1), tmp_path / "each")
    train(small(data_folder, log_every=3), tmp_path / "third")
    each, third = (
        [json.loads(line)["value/loss"] for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("each", "third")
    )
    np.testing.assert_allclose(third, np.reshape(each, (2, 3)).mean(axis=1), rtol=1e-5)
