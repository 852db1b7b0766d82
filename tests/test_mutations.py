"""Files that anything may have happened to: read alike, or refused by one sentence. Nothing is unpickled, memory is bounded.

10 000 files in all. A failure names the kind of damage and its number; EVOR_TEST_SEED chooses other accidents.
"""

import functools
import math
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import evor
from conftest import DATASET, TINY, user_arrays
from evor.data.formats.npz import load_files
from evor.data.formats.ogbench import load_dataset
from evor.errors import EvorError
from evor.experiments.reproduce import rows as rows_of
from evor.experiments.reproduce.scores import Results, read_reproduction
from evor.policies import load as run
from evor.policies.load import Run, open_run
from evor.policies.policy import Policy
from evor.report import held_out, learning
from evor.report import run as report
from evor.report.evaluations import drawings, read_rows
from evor.runtime.files import read_csv, write_csv, write_npz
from evor.runtime.provenance import forget_peak_memory, peak_memory_mib
from evor.training import checkpoint
from evor.training import folder as of_run
from evor.training.config import NO_OTHER_RUN, RunConfig, to_json
from evor.training.data import open_data
from evor.training.train import Training, train
from evor.training.update import make_runner
from evor.types import Episodes
from forgeries import NPZ, SAFETENSORS, pickled
from mutators import BYTES, JSON, TEXT, Mutator, cut, insert, replace_by_noise

pytestmark = pytest.mark.slow

SEED = os.environ.get("EVOR_TEST_SEED", "0")
CAP = 1e-5  # GiB: less than the data have
MEMORY = 64 * 2**20  # bytes that reading a file of some kilobytes may take
REAL_RESULTS = Path(__file__).parents[1] / "docs" / "results" / "paper-small"


class Target(NamedTuple):
    """A file to damage, how it is read, and what counts as read alike."""

    path: Path
    read: Callable[[], Any]
    alike: Callable[[Any], bool]


def damage(target: Target, mutators: list[Mutator], count: int) -> None:
    """Read the file after each of `count` accidents. Fails with what went wrong, by kind and number."""
    content, faults = target.path.read_bytes(), []
    for number in range(count):
        mutate = mutators[number % len(mutators)]
        generator = random.Random(f"{SEED} {target.path.name} {number}")
        replace(target.path, mutate(content, generator))
        if told := outcome(target):
            faults.append(f"{mutate.__name__} {number} (seed {SEED}) of {target.path.name}: {told}")
    replace(target.path, content)
    assert target.alike(target.read())  # what it is compared with is still so
    assert not faults, "\n".join([f"{len(faults)} faults", *faults])


def replace(path: Path, content: bytes) -> None:
    """Another file of this name: who has the old one mapped into memory keeps it."""
    path.unlink()
    path.write_bytes(content)


def outcome(target: Target) -> str:
    """What is wrong with how a damaged file was taken, "" for nothing."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        found = target.read()
        told = "" if target.alike(found) else f"read as {str(found)[:300]}"
    except EvorError as error:
        told = "" if len(str(error).splitlines()) == 1 else f"not one line: {error}"
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
    taken = tracemalloc.get_traced_memory()[1] - before
    return told or (f"took {taken / 2**20:.0f} MiB" if taken > MEMORY else "")


@pytest.fixture(autouse=True)
def bounded_memory():
    """The whole process is looked at too: what is taken outside of Python is not traced."""
    forget_peak_memory()
    before = peak_memory_mib()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    assert peak_memory_mib() - before < 1000


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """Tracing takes a hundred times as long as reading, and asking git ten times; neither depends on a damaged file."""
    for module, *names in ((run, "state_shapes", "_network_shapes"), (of_run, "provenance", "open_data")):
        for name in names:
            monkeypatch.setattr(module, name, functools.cache(getattr(module, name)))
    made = []

    def make_once(*arguments: Any, **options: Any) -> Any:
        made[:] = made or [make_runner(*arguments, **options)]
        return made[0]

    monkeypatch.setattr(of_run, "make_runner", make_once)


def print_of(found: Any) -> Any:
    """Something to compare: arrays as their bytes."""
    if isinstance(found, Policy):
        return print_of([to_json(found.config), found.spec, found.origin, checkpoint.flatten(found._networks)])
    if isinstance(found, Run):
        config = {name: value for name, value in to_json(found.config).items() if name not in NO_OTHER_RUN}
        return print_of(
            [config, found.spec, found.step, checkpoint.flatten((found.base, found.head, found.standardisation))]
        )
    if isinstance(found, np.ndarray):
        return found.dtype.str, found.shape, found.tobytes()
    if isinstance(found, dict):
        return {name: print_of(value) for name, value in found.items()}
    return [print_of(part) for part in found] if isinstance(found, list | tuple) else found


def same_as(read: Callable[[], Any]) -> Callable[[Any], bool]:
    wanted = print_of(read())
    return lambda found: print_of(found) == wanted


# npz files.


@pytest.fixture
def data(tmp_path) -> Target:
    path = tmp_path / "mine.npz"
    np.savez(path, **user_arrays(next_observations=np.roll(user_arrays()["observations"], -1, axis=0)))

    def read() -> Episodes:
        return load_files(path)

    return Target(path, read, same_as(read))


def is_data(episodes: Episodes) -> bool:
    """What training can trust."""
    arrays = (episodes.observations, episodes.actions, episodes.rewards, episodes.masks)
    return all(a.dtype == np.float32 and np.isfinite(a).all() for a in arrays) and len(episodes.ends) < 1000


def test_damaged_data(data):
    damage(data, BYTES, 1200)


def test_compressed_data(data):
    np.savez_compressed(data.path, **user_arrays())
    damage(data._replace(alike=same_as(data.read)), BYTES, 800)


def test_data_that_only_a_program_writes(data, tmp_path):
    mutators = [*NPZ, pickled(str(tmp_path / "unpickled"))]
    damage(data._replace(alike=is_data), mutators, 1500)
    assert not (tmp_path / "unpickled").exists()


def test_data_sets_of_ogbench(tmp_path, data_folder):
    path = tmp_path / f"{DATASET}.npz"
    with np.load(data_folder / path.name) as stored:
        np.savez(path, **{name: array[:1000] for name, array in stored.items()})

    def read() -> Episodes:
        return load_dataset(DATASET, (1,), folder=tmp_path)

    damage(Target(path, read, same_as(read)), BYTES, 150)
    mutators = [*NPZ, pickled(str(tmp_path / "unpickled"))]
    damage(Target(path, read, lambda episodes: len(episodes.ends) == 1000), mutators, 150)
    assert not (tmp_path / "unpickled").exists()


def test_arrays_of_an_evaluation(tmp_path):
    path = tmp_path / "maze.npz"
    arrays = {"map": np.eye(5), "value": np.linspace(0, 1, 300, dtype=np.float32), "drawing": np.array([10, 4, 0])}
    write_npz(path, {f"1/{name}": array for name, array in arrays.items()})

    def read() -> dict[int, dict[str, np.ndarray]]:
        return drawings(tmp_path).read()

    damage(Target(path, read, same_as(read)), BYTES, 700)

    def small(by_task: dict[int, dict[str, np.ndarray]]) -> bool:
        found = [array for arrays in by_task.values() for array in arrays.values()]
        return sum(array.nbytes for array in found) < MEMORY and not any(array.dtype.hasobject for array in found)

    mutators = [*NPZ, pickled(str(tmp_path / "unpickled"))]
    damage(Target(path, read, small), mutators, 600)
    assert not (tmp_path / "unpickled").exists()


def test_held_out_predictions(tmp_path):
    rows = np.arange(3)
    values = (rows, rows / 2, np.zeros((3, 5)), rows / 3, rows > 1, rows[:2], np.ones((2, 64)))
    one = held_out.HeldOut(updates=10, seed=0, unseen=True, trajectories=[held_out.Trajectory(*values)] * 2)
    held_out.store(tmp_path, one)

    def read() -> held_out.HeldOut | None:
        return held_out.read(tmp_path)

    def right(found: held_out.HeldOut) -> bool:
        return all(one.quantiles.shape == (len(one.step), 5) for one in found.trajectories)

    damage(Target(held_out.place(tmp_path), read, right), [*BYTES, *NPZ], 600)


def test_the_cache_of_data_under_a_cap(tmp_path, user_file):
    """Its JSON files hold a digest, its columns their sizes alone: they are too large to be read at every start."""
    config = RunConfig(data=str(user_file()), memory_gb=CAP, agent=TINY)

    def read() -> Any:
        opened = open_data(config)
        return opened.digest, opened.num_rows, opened.columns(0).sampled_rows.shape

    assert read()[1] == 58
    paths = sorted(path for path in (tmp_path / ".evor").rglob("*") if path.is_file())
    assert {path.suffix for path in paths} == {".json", ".npy"}
    for path in paths:
        mutators = [*JSON, *TEXT, *BYTES] if path.suffix == ".json" else [cut, insert, replace_by_noise]
        damage(Target(path, read, same_as(read)), mutators, 40)


# Runs and exports.


@pytest.fixture
def folder(tmp_path, user_file) -> Path:
    """A run with one checkpoint, and an export of it in `export`."""
    out = tmp_path / "run"
    config = RunConfig(data=str(user_file()), num_seeds=2, updates=2, log_every=1, checkpoint_every=2, agent=TINY)
    train(config, out)
    evor.load(out, seed=1).export(tmp_path / "export")
    return out


def test_a_checkpoint(folder):
    (path,) = checkpoint.checkpoints(folder / "checkpoints")

    def read() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return checkpoint.load_arrays(path)

    damage(Target(path, read, same_as(read)), [*BYTES, *SAFETENSORS], 1000)

    def opened() -> Run:
        return open_run(folder)

    damage(Target(path, opened, same_as(opened)), [*BYTES, *SAFETENSORS], 400)


def test_the_config_of_a_run(folder):
    def read() -> Run:
        return open_run(folder)

    target = Target(folder / "config.json", read, same_as(read))
    damage(target, [*JSON, *BYTES, *TEXT], 1200)


def test_a_run_that_is_resumed(folder):
    """Nothing is trained: it is finished. What is refused stays as it is."""
    config = open_run(folder).config

    def read() -> int:
        shutil.copytree(folder, folder.parent / "copy", dirs_exist_ok=True)
        with Training.open(config, folder.parent / "copy", resume=True) as opened:
            return opened.step

    for name, mutators in {
        "config.json": [*JSON, *TEXT, *BYTES],
        "saved.json": [*JSON, *TEXT, *BYTES],
        "provenance.json": [*JSON, *TEXT],
        "metrics.jsonl": [*TEXT, *BYTES],
        "timings.jsonl": [*TEXT, *BYTES],
    }.items():
        damage(Target(folder / name, read, lambda step: step == 2), mutators, 50)


def test_an_export(folder):
    def read() -> Policy:
        return evor.load(folder.parent / "export")

    for name, mutators in {"policy.json": [*JSON, *TEXT], "policy.safetensors": SAFETENSORS}.items():
        target = Target(folder.parent / "export" / name, read, same_as(read))
        damage(target, [*mutators, *BYTES], 650)


def test_the_page_of_a_run(folder, monkeypatch):
    """Drawing is left out: it takes a hundred times as long as the rest."""
    monkeypatch.setattr(learning, "pictures_html", lambda pictures, caption: caption)

    def read() -> str:
        return report.write_report([folder]).read_text(encoding="utf-8")

    for name, mutators in {"config.json": JSON, "provenance.json": JSON, "metrics.jsonl": [*TEXT, *BYTES]}.items():
        assert read().startswith("<!doctype html>")
        damage(Target(folder / name, read, lambda page: len(page) < 10**6), [*mutators, *TEXT], 100)


# Tables.


def test_rows_of_an_evaluation(tmp_path):
    old = Path(__file__).parent / "version_0_1_0" / "run" / "evaluations"
    path = tmp_path / next(old.glob("*.csv")).name
    shutil.copy(old / path.name, path)

    def right(rows: list[dict[str, Any]]) -> bool:
        return all(isinstance(row["task"], int) and row["success"] in (0, 1) for row in rows)

    damage(Target(path, lambda: read_rows(path), right), [*TEXT, *BYTES], 600)


@pytest.mark.parametrize(("name", "count"), [("results.csv", 350), ("timings.csv", 250), ("manifest.json", 250)])
def test_a_reproduction(tmp_path, name, count):
    for each in ("results.csv", "timings.csv"):
        columns = rows_of.RESULT_COLUMNS if each == "results.csv" else rows_of.TIMES
        rows = read_csv(REAL_RESULTS / each, None, remedy="")
        write_csv(tmp_path / each, columns, rows=rows[::100])
    shutil.copy(REAL_RESULTS / "manifest.json", tmp_path)

    def read() -> tuple[Results, Any, Any]:
        found = read_reproduction(tmp_path)
        return found, found.scores(), rows_of.read_stored_rows(tmp_path)

    def right(found: tuple[Results, Any, Any]) -> bool:
        rows, times = found[0].rows, found[0].times
        return all(0 <= row["success"] <= 1 and type(row["task"]) is int for row in rows) and all(
            math.isfinite(row["seconds"]) for row in times
        )

    mutators = JSON if name == "manifest.json" else []
    damage(Target(tmp_path / name, read, right), [*mutators, *TEXT, *BYTES], count)
