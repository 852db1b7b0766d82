"""Data under a cap are the data in memory: their rows, units, notes and refusals. The cache is whole or not there."""

import contextlib
import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from conftest import TINY, user_arrays
from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.cli.main import main
from evor.data import parts, store
from evor.data.blocks import Blocks
from evor.data.formats.npz import read_episodes
from evor.data.in_memory import InMemoryData
from evor.data.source import NpzData, lay_out
from evor.data.store import CACHE, open_store
from evor.errors import EvorError
from evor.nn.objectives import MonteCarlo, SampleBackup
from evor.policies.load import load
from evor.runtime.parallel import Local
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import data_spec_of, open_data
from evor.training.train import train

CAP = 2.5e-5  # holds 122 rows of these data at a time
PLAIN = Evor(SampleBackup(20), next_action=DatasetAction())
DATA_SPEC = data_spec_of(RunConfig(data="-", agent=PLAIN))


def config(folder, cap=None, **changes):
    return RunConfig(**({"data": str(folder), "memory_gb": cap, "updates": 4, "agent": TINY} | changes))


def episode(rows, finishes, seed=0, **changes):
    """One episode of -1 at every step, finished or cut at its last row."""
    last = np.arange(rows) == rows - 1
    flags = {"terminations": last & finishes, "truncations": last & (not finishes)}
    return user_arrays(rows, seed, rewards=np.full(rows, -1, np.float32), **flags, **changes)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of all kinds: of other lengths and dtypes, one of a single cut row, some with rows that don't follow."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for index in range(6):
        np.savez(folder / f"e{index}.npz", **episode([100, 40][index % 2], bool(index % 2), index))
    np.savez(folder / "row.npz", **episode(1, False))
    for index, breaks in enumerate((3, 6, 9, 12, 15)):
        arrays = user_arrays(60, 20 + index)
        following = np.roll(arrays["observations"], -1, axis=0).astype(np.float64)
        following[np.arange(breaks)] += 1
        np.savez(folder / f"n{index}.npz", **arrays, next_observations=following)
    return folder


def notes(data):
    """What is said of the data; where they are comes last."""
    return data.notes[:-1]


def test_a_cap_that_holds_everything_changes_nothing(tmp_path, folder):
    """Not a bit of the weights; and nothing is laid out."""
    train(config(folder), tmp_path / "whole")
    train(config(folder, 1.0), tmp_path / "capped")
    one, two = (load(tmp_path / run)._networks for run in ("whole", "capped"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (folder / CACHE).exists()


@pytest.mark.parametrize("agent", [TINY, dataclasses.replace(TINY, objective=MonteCarlo(), discount=0.5)])
def test_notes_and_units_are_those_in_memory(folder, agent):
    whole, capped = open_data(config(folder, agent=agent)), open_data(config(folder, CAP, agent=agent))
    assert isinstance(whole, InMemoryData)
    assert isinstance(capped, Blocks)
    assert len(capped.blocks) > 2
    assert capped.num_rows == whole.num_rows
    assert notes(capped) == notes(whole)
    for mine, theirs in zip(capped.scale, whole.scale, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def drawable(columns) -> np.ndarray:
    """What an update may draw, a line per row; with the state where its sum bootstraps."""
    rows = np.asarray(columns.sampled_rows)[: int(columns.count)]
    tasks = (columns.rewards, columns.discounts, columns.weights)
    found = [
        columns.observations[rows],
        columns.actions[rows],
        columns.observations[np.asarray(columns.bootstrap)[rows]],
    ]
    found += [
        columns.actions[np.asarray(columns.last_action_row)[rows]],
        *(np.asarray(column)[:, rows].T for column in tasks),
    ]
    return np.concatenate([np.asarray(part) for part in found], axis=1)


@pytest.mark.parametrize("part_bytes", [1, 6000, store.PART_BYTES])
def test_rows_are_those_in_memory_however_they_are_cut_into_parts(folder, part_bytes, monkeypatch):
    """Among the files are some that finish where others are cut, and one without a transition."""
    monkeypatch.setattr(store, "PART_BYTES", part_bytes)
    np.savez(folder / "e6.npz", **episode(100, True, 6))
    whole, capped = open_data(config(folder)), open_data(config(folder, CAP))
    assert notes(capped) == notes(whole)
    blocks = [capped._read(index) for index in range(len(capped.blocks))]
    np.testing.assert_allclose(
        np.concatenate([drawable(block) for block in blocks]), drawable(whole.all_columns), atol=1e-5
    )


def test_notes_name_files_and_equal_ones_are_one_line(folder):
    said = notes(open_data(config(folder, agent=PLAIN)))
    for line in (
        "n0.npz, n1.npz, n2.npz and 2 more files: next_observations converted from float64 to float32",
        "n0.npz: rows that are not followed by their next_observations: 3 (treated as cuts)",
        "n2.npz: rows that are not followed by their next_observations: 9 (treated as cuts)",
        "2 more files, together: rows that are not followed by their next_observations: 27 (treated as cuts)",
        "some episodes are shorter than n_steps (20): n-step returns stop at their end",
    ):
        assert line in said
    assert not any("n3.npz: rows" in line for line in said)


def test_check_prints_the_same_under_a_cap(folder, tmp_path, capsys):
    printed = []
    for cap in ((), ("--memory-gb", str(CAP), "--cache", str(tmp_path / "elsewhere"))):
        assert main(["data", "check", "--data", str(folder), *cap]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "next_observations: 27 (treated as cuts)" in " ".join(printed[0].split())
    assert any((tmp_path / "elsewhere").iterdir())
    assert not (folder / CACHE).exists()


def refusals(folder, capsys, *options, cap=CAP):
    """What `evor train` says without a cap and with one."""
    said = []
    for more in ((), ("--memory-gb", str(cap))):
        command = ["train", "--data", str(folder), "--out", str(folder.parent / "never"), *options, *more]
        assert main(command) == 2
        said.append(capsys.readouterr().err.splitlines()[-1])
    return said


def test_cut_and_finished_files_are_held_to_one_clock(tmp_path, capsys):
    """In files that are cut at 100 no return is complete at discount 0.99; the finished ones alone would be the fast."""
    (tmp_path / "mine").mkdir()
    for index in range(6):
        np.savez(tmp_path / "mine" / f"{index}.npz", **episode([100, 40][index % 2], bool(index % 2), index))
    whole, capped = refusals(tmp_path / "mine", capsys, "--agent.objective", "monte-carlo")
    assert "only the fast" in whole
    assert capped == whole
    one, two = (open_data(config(tmp_path / "mine", cap)).scale.return_std for cap in (None, CAP))
    np.testing.assert_allclose(two, one, rtol=1e-9)


def test_refusals_are_those_in_memory(tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    for index in range(3):
        np.savez(folder / f"{index}.npz", **episode(1, False, index))
    whole, capped = refusals(folder, capsys, cap=1e-8)
    assert "no transition" in whole
    assert capped == whole
    for name, arrays in (
        ("wide", user_arrays(observations=np.zeros((60, 5)))),
        ("nan", user_arrays(rewards=np.full(60, np.nan))),
    ):
        np.savez(folder / f"{name}.npz", **arrays)
        whole, capped = refusals(folder, capsys, cap=1e-8)
        assert f"{name}.npz" in whole
        assert capped == whole
    (folder / "broken.npz").write_bytes((folder / "0.npz").read_bytes()[:200])
    whole, capped = refusals(folder, capsys, cap=1e-8)
    assert "broken.npz is not an npz file" in whole
    assert capped == whole


def test_one_file_per_episode_makes_few_folders_and_full_blocks(tmp_path):
    for index in range(40):
        np.savez(tmp_path / f"{index:02}.npz", **episode([15, 60][index % 2], False, index))
    data = open_data(config(tmp_path, CAP))
    assert len([path for path in (tmp_path / CACHE).iterdir() if path.is_dir()]) == 1
    rows = np.array([block.end - block.start for block in data.blocks])
    assert rows.sum() == 20 * 75
    assert rows.min() > 60  # every block joins files


def test_a_block_smaller_than_a_batch_is_said(tmp_path):
    for index in range(4):
        np.savez(tmp_path / f"{index}.npz", **episode(60, False, index))
    assert (
        "fewer than a batch of 200" in open_data(config(tmp_path, CAP, agent=replace(PLAIN, batch_size=200))).notes[-1]
    )
    assert "fewer" not in open_data(config(tmp_path, CAP, agent=replace(PLAIN, batch_size=20))).notes[-1]


# The cache.


def opened(folder: Path, read=read_episodes, wanted=DATA_SPEC):
    return open_store(sorted(folder.glob("*.npz")), read, description={}, data_spec=wanted)


def test_two_at_once_lay_out_the_same_and_the_first_stays(folder, monkeypatch):
    """Without locks, as on some file systems. The other one begins and ends while this one writes its first array; a reader of it
    reads on.
    """
    save, inside = np.save, []

    def slow(*arguments, **options):
        if not inside:
            inside.append(None)
            inside[0] = Blocks(opened(folder), DATA_SPEC, memory_gb=CAP, batch_size=8, seed=0)
        return save(*arguments, **options)

    monkeypatch.setattr(store, "waited_for", lambda path: contextlib.nullcontext())
    monkeypatch.setattr(parts.np, "save", slow)
    late = Blocks(opened(folder), DATA_SPEC, memory_gb=CAP, batch_size=8, seed=0)
    for index in range(len(late.blocks)):
        for a, b in zip(late._read(index), inside[0]._read(index), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not list((folder / CACHE).glob(".*"))


def test_nothing_is_laid_out_twice(folder, monkeypatch):
    """The second one begins while the first one writes; it waits, and takes what is there."""
    monkeypatch.setattr(store, "PART_BYTES", 6000)
    write, written, found = store.write_part, [], []
    other = threading.Thread(target=lambda: found.append(opened(folder)))

    def slow(path, *arguments, **options):
        if not written:
            other.start()
        written.append(path)
        return write(path, *arguments, **options)

    monkeypatch.setattr(store, "write_part", slow)
    mine = opened(folder)
    other.join()
    assert len(mine.parts) > 3
    assert sorted(written) == sorted(part.folder for part in mine.parts)
    assert [part.folder for part in found[0].parts] == [part.folder for part in mine.parts]
    assert not list((folder / CACHE).glob(".*"))


@pytest.mark.slow
def test_a_job_per_part_lays_out_what_one_process_does(folder, monkeypatch):
    """Byte for byte; and training finds it."""
    monkeypatch.setattr(store, "PART_BYTES", 6000)
    one, two = folder.parent / "one", folder.parent / "two"
    dataset, wanted = NpzData(folder), data_spec_of(config(folder))
    lay_out(dataset, wanted, memory_gb=CAP, cache=one, machines=Local(1))
    lay_out(dataset, wanted, memory_gb=CAP, cache=two, machines=Local(2))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 30
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()
    monkeypatch.setattr(store, "write_part", None)
    open_data(config(folder, CAP, cache=str(two)))


def test_what_fits_under_the_cap_is_not_laid_out(folder):
    lay_out(NpzData(folder), DATA_SPEC, memory_gb=1.0, machines=Local(1))
    lay_out(NpzData(folder), DATA_SPEC, memory_gb=None, machines=Local(1))
    assert not (folder / CACHE).exists()


def test_what_is_standardised_names_no_folder(folder):
    """Nor does its having been one of the needs, `standardise`: what was laid out then is found."""
    for observations, returns in ((False, False), (False, True), (True, False), (True, True)):
        wanted = DATA_SPEC._replace(standardise_observations=observations, standardise_returns=returns)
        opened(folder, wanted=wanted)
        assert store._asked(wanted) == {
            "discount": 0.99,
            "num_steps": 20,
            "chunk_length": 1,
            "next_action_known": True,
            "whole_returns": False,
            "standardise": True,
            "range": True,
        }
    assert len([path for path in (folder / CACHE).iterdir() if path.is_dir()]) == 1


def test_a_folder_of_sums_shorter_than_a_chunk_is_not_taken_for_one_of_whole_chunks():
    """Earlier versions laid such sums out for every agent that asks for the dataset's next action."""
    for chunk_length, known, taken, whole in (
        (2, True, False, True),
        (2, True, True, False),
        (2, False, False, False),
        (1, True, False, False),
    ):
        wanted = DATA_SPEC._replace(chunk_length=chunk_length, next_action_known=known, next_action_taken=taken)
        assert ("whole_chunks" in store._asked(wanted)) == whole


def test_data_of_an_old_time_stamp_are_seen(tmp_path):
    def deviation(scale):
        arrays = user_arrays()
        np.savez(tmp_path / "mine.npz", **arrays | {"rewards": arrays["rewards"] * scale})
        os.utime(tmp_path / "mine.npz", (0, 0))  # as tar, cp -p and rsync -t leave it
        return open_data(config(tmp_path, 5e-6)).scale.return_std

    np.testing.assert_allclose(deviation(100), 100 * deviation(1), rtol=1e-5)


def test_files_are_known_by_what_they_hold(folder, monkeypatch):
    """A copy elsewhere, in the same cache, is not read again."""
    cache = folder.parent / "cache"
    first = open_data(config(folder, CAP, cache=str(cache)))
    shutil.copytree(folder, folder.parent / "copy")
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = open_data(config(folder.parent / "copy", CAP, cache=str(cache)))
    assert again.digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_single_file_is_read_once(tmp_path):
    np.savez(tmp_path / "mine.npz", **user_arrays())
    asked = []

    def read(path):
        asked.append(path)
        return read_episodes(path)

    opened(tmp_path, read)
    assert len(asked) == 1
    opened(tmp_path, read)
    assert len(asked) == 1


def test_a_file_that_changes_meanwhile_is_refused(folder):
    def read(path):
        found = read_episodes(path)
        np.savez(path, **episode(30, False, 99))
        return found

    with pytest.raises(EvorError, match=r"e0\.npz was changed while it was read"):
        opened(folder, read)


def test_a_place_that_cannot_be_written_is_told_with_the_remedy(folder):
    with pytest.raises(EvorError, match=r"/proc/nowhere can't be written .*--cache"):
        open_data(config(folder, CAP, cache="/proc/nowhere"))


@pytest.mark.parametrize("damage", ["facts", "rewards.npy", "truncated", "summary", "no JSON"])
def test_a_damaged_cache_is_one_sentence(folder, damage):
    open_data(config(folder, CAP))
    (part,) = (path for path in (folder / CACHE).iterdir() if path.is_dir())
    path = part / "shard.json"
    if damage == "summary":
        (path,) = (path for path in (folder / CACHE).glob("*.json") if "outliers" not in path.name)
    if damage in ("facts", "summary"):
        content = json.loads(path.read_text())
        del content[damage]
        path.write_text(json.dumps(content))
    elif damage == "no JSON":
        path.write_text("{")
    elif damage == "truncated":
        os.truncate(part / "rewards.npy", 500)
    else:
        (part / damage).unlink()
    with pytest.raises(EvorError, match=r"is damaged \(.*\); remove it, and it is made again\.$") as refused:
        open_data(config(folder, CAP))
    shutil.rmtree(part) if str(part) in str(refused.value) else path.unlink()
    open_data(config(folder, CAP))


def test_what_a_killed_process_left_is_removed_when_it_is_old(folder):
    (folder / CACHE).mkdir()
    old, new = folder / CACHE / ".a.partial", folder / CACHE / ".b.partial"
    for path in (old, new):
        path.mkdir()
        (path / "rows.npy").touch()
    os.utime(old, (0, 0))
    open_data(config(folder, CAP))
    assert not old.exists()
    assert new.exists()
