"""A disk that fills at any write of any verb: one sentence, nothing half-written, nothing finished is lost, and the same
command ends later as if nothing had been.
"""

import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import evor
from conftest import DATASET, episodes_cut_after, user_arrays
from evor.cli.main import main
from evor.data.scripted import generate
from evor.errors import EvorError
from evor.experiments.bench import plan as bench
from evor.experiments.bench import timings
from evor.experiments.reproduce.matrices import PAPER, Part, Plan
from evor.experiments.reproduce.scales import SCALES, Scale
from evor.experiments.verify import runner as verify
from evor.runtime import progress
from evor.types import Spec
from faults import Disk, filling_disk

pytestmark = pytest.mark.slow

SEED = os.environ.get("EVOR_TEST_SEED", "0")
MOST = 40  # writes of a verb that are tried; drawn where there are more
REMEDY = re.compile("free some space|make room|choose another", re.IGNORECASE)
LOGS = ("metrics.jsonl", "timings.jsonl")  # grow line by line, as evaluations do
TIMES = (
    "timings.jsonl",
    "summary.json",
    "bench.json",
    "timings.csv",
    "results.md",
    "proposals.json",
)  # differ from run to run
Contents = dict[str, bytes]

TRAIN = "--agent.hidden 8 8 --agent.batch-size 8 --checkpoint-every 2 --log-every 1 --out run"
SEARCH = "--episodes 2 --extraction softmax-of --num-candidates 2"


class Verb(NamedTuple):
    """A command, what is there before, and what the same command needs to go on."""

    start: str
    words: str
    again: str = ""
    most: int = MOST


VERBS = {
    "train": Verb("data", f"train --data mine.npz --updates 4 {TRAIN}", "--resume"),
    "train, resumed": Verb("trained", f"train --data mine.npz --updates 8 --resume {TRAIN}"),
    "train, under a cap": Verb("data", f"train --data shards --memory-gb 0.00002 --updates 4 {TRAIN}", "--resume"),
    "data generate": Verb("data", f"data generate {DATASET} --transitions 1000 --workers 1 --out made"),
    "evaluate": Verb("maze", f"evaluate run {SEARCH}", "--resume"),
    "evaluate, another task": Verb("played", f"evaluate run {SEARCH} --tasks 4", "--resume", 20),
    "sweep": Verb("maze", "sweep run --episodes 1 --tasks 1 --num-candidates 1 2", "--resume", 20),
    "report": Verb("played", "report run"),
    "report of a run on data": Verb("trained", "report run"),
    "verify": Verb(
        "data", "verify --problems coin --methods monte-carlo --episodes 200 --updates 4 --hidden 8 --out verified", "", 20
    ),
    "bench": Verb("data", "bench --parts networks files --sizes demo --presets default --repeats 1 --seconds 0 --out timed", "--resume", 20),
    "reproduce": Verb("maze", "reproduce paper --scale tiny --data made --workers 1 --out reproduced", "", 20),
    "demo": Verb("data", "demo --transitions 1000 --updates 2 --episodes 1 --num-candidates 2 --data made --out demo", "", 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def short_episodes():
    with episodes_cut_after(5):
        yield


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All in this process, and little to time."""
    monkeypatch.setattr(verify, "parallel_map", lambda function, jobs, *_, **__: (function(*job) for job in jobs))
    monkeypatch.setattr(generate, "default_workers", lambda: 1)
    monkeypatch.setitem(timings.SIZES, "demo", timings.Size(Spec(2, 2), (16, 16)))
    monkeypatch.setattr(timings, "SYNTHETIC_ROWS", 1000)
    monkeypatch.setattr(bench, "NETWORKS", {2: (2, 1)})
    scale = Scale(
        name="tiny",
        seeds=1,
        updates=4,
        evaluate_every=2,
        episodes=1,
        hidden=(8, 8),
        transitions=1000,
        batch_size=8,
    )
    monkeypatch.setitem(SCALES, "tiny", scale)
    monkeypatch.setitem(PAPER.plans, "tiny", Plan((Part(DATASET, (1,), ("bc",)),)))
    quiet = progress.console.quiet
    yield
    progress.console.quiet = quiet  # as a worker of verify sets it


@pytest.fixture(scope="module")
def starts(tmp_path_factory, short_episodes) -> Path:
    """Folders to start from, each with what the one before it holds."""
    root, here = tmp_path_factory.mktemp("starts"), Path.cwd()
    steps = {
        "data": [],
        "trained": [f"train --data mine.npz --updates 4 {TRAIN}"],
        "maze": [
            f"data generate {DATASET} --transitions 1000 --workers 1 --out made",
            f"train {DATASET} --data made --tasks 1 4 --updates 4 {TRAIN}",
        ],
        "played": [f"evaluate run {SEARCH} --tasks 1", "evaluate run --episodes 2 --tasks 1 --extraction prior"],
    }
    for name, commands in steps.items():
        folder = root / name
        if name == "played":
            shutil.copytree(root / "maze", folder)
        else:
            (folder / "shards").mkdir(parents=True)
            for file in ("mine", "shards/0", "shards/1"):
                np.savez(folder / f"{file}.npz", **user_arrays())
        os.chdir(folder)
        assert [main(words.split()) for words in commands] == [0] * len(commands)
    os.chdir(here)
    return root


@pytest.mark.parametrize("name", VERBS)
def test_a_verb(name, starts, tmp_path, monkeypatch, capsys):
    verb = VERBS[name]

    def run(again: bool) -> int:
        return main([*verb.words.split(), *(verb.again.split() if again else ())])

    fill(run, starts / verb.start, verb.most, tmp_path, monkeypatch, capsys)


def test_an_export(starts, tmp_path, monkeypatch, capsys):
    def run(again: bool) -> int:
        try:
            evor.load("run").export("exported")
        except EvorError as error:
            sys.stderr.write(f"evor: {error}\n")
            return 2
        return 0

    fill(run, starts / "trained", MOST, tmp_path, monkeypatch, capsys)


def fill(run: Callable[[bool], int], start: Path, most: int, tmp_path: Path, monkeypatch, capsys) -> None:
    """Run in copies of `start` on disks that fill at each write in turn, then again on one that has room."""

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(start, folder)
        monkeypatch.chdir(folder)
        return folder

    whole = fresh("whole")
    with filling_disk(whole) as reference:
        assert run(False) == 0
    before, finished = contents(start), contents(whole)
    assert whole.joinpath("shards", ".evor").exists() == ("cap" in whole.parent.name)  # of a cap that is one
    numbers = range(1, reference.events + 1)
    if len(numbers) > most:
        numbers = sorted({1, len(numbers), *random.Random(SEED).sample(numbers, most - 2)})
    for number in numbers:
        folder = fresh(str(number))
        capsys.readouterr()
        with filling_disk(folder, number) as disk:
            code = run(False)
        if disk.events < number:  # it wrote less than the reference did
            continue
        where = f"write {number} of {reference.events} (seed {SEED})"
        check_words(code, capsys.readouterr().err, where)
        check_files(before, contents(folder), finished, reference, where)
        capsys.readouterr()
        assert run(True) == 0, (where, capsys.readouterr().err)
        check_end(contents(folder), finished, where)
        shutil.rmtree(folder)


def check_words(code: int, said: str, where: str) -> None:
    """One sentence that says what to do. What only a report would draw may be left out with a note."""
    assert "Traceback" not in said, (where, said)
    sentences = [line for line in said.splitlines() if line.startswith("evor: ") or "are missing: " in line]
    assert sentences, (where, code, said)
    assert all(REMEDY.search(line) for line in sentences), (where, said)
    if code != 0:
        assert (code, [line for line in sentences if line.startswith("evor: ")]) == (2, [said.splitlines()[-1]]), (
            where,
            said,
        )


def check_files(before: Contents, found: Contents, finished: Contents, reference: Disk, where: str) -> None:
    """What was there is there, but for draws that do not fit any more, and every file that goes by its final name is whole."""
    gone = [name for name in before if name in finished and name not in found]
    assert [name for name in gone if "proposals" not in Path(name).parts] == [], where  # other draws go before new ones
    for name, content in found.items():
        path = Path(name)
        if any(part.startswith(".") and part != ".evor" for part in path.parts):
            continue
        if path.name in LOGS or path.suffix == ".csv":
            *lines, _ = content.split(b"\n")
            whole = [line for line in lines if timed(path) or line in finished[name] + before.get(name, b"")]
            assert whole == lines, (where, name)
        elif timed(path):
            assert content.endswith(b"\n"), (where, name)
        elif "proposals" in path.parts:  # they grow by rows
            assert finished[name].startswith(content) or content == before.get(name), (where, name)
        else:
            assert content in (before.get(name), finished.get(name), *reference.versions[name]), (where, name)


def check_end(found: Contents, finished: Contents, where: str) -> None:
    """The same files, hidden ones too."""
    assert found.keys() == finished.keys(), where
    different = [name for name in finished if found[name] != finished[name] and not timed(Path(name))]
    assert different == [], where


def timed(path: Path) -> bool:
    return path.name in TIMES or path.name.endswith((".times.json", "log.txt"))


def contents(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
