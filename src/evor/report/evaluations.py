"""Files of evaluations in a run: a row for every episode as it ends, trajectories, drawings of mazes. Imports no JAX.

Several processes may play one run at the same time. Each change is a short one under a lock, and keeps what others wrote.
"""

import contextlib
import csv
import errno
import io
import math
import os
import re
from collections.abc import Callable, Generator, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError
from evor.report.calibration import LEVELS
from evor.report.task_arrays import Arrays, Mark, TaskArrays
from evor.runtime.files import listed, read_csv, sweep, write_csv
from evor.runtime.locks import check_in_place, waited_for

REMEDY = "restore it, or remove it and evaluate that setting again."
KEPT = "The rows are kept. Make room, then --resume makes what is missing."
LONGEST = 160  # bytes of a stem: names of files have 255, and temporary ones name the machine, too
LARGEST = 2**53  # of a whole number that every spreadsheet keeps

BASE_POLICY = "Prior"  # as rows name it; a reader is told "base policy"

Row = dict[str, Any]


def search_name(extraction: str) -> str:
    """Kind of search that a row names, as tables and pages say it."""
    return "base policy" if extraction == BASE_POLICY else extraction


def _count(text: str) -> int:
    number = float(text)
    if not (0 <= number <= LARGEST and number == int(number)):
        raise ValueError(f"{text!r} is no whole number of at least 0")
    return int(number)


def _share(text: str) -> float:
    if text == "nan":  # of an environment that tells of no success
        return math.nan
    if (number := _count(text)) > 1:
        raise ValueError(f"success {text!r} is neither 0 nor 1")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text!r} is not finite")
    return number


def _prediction(text: str) -> float | str:
    return _finite(text) if text else ""


def _limit(text: str) -> int | str:
    return _count(text) if text else ""


def _setting(text: str) -> float | str:
    return float(text) if text else ""


SETTING: dict[str, Callable[[str], Any]] = {  # of a search: what each column holds; "" where the search has no such thing
    "extraction": str, "num_candidates": _count, "return_temperature": _setting, "action_temperature": _setting,
    "reading": str, "flow_steps": _count, "max_return": _setting, "guidance": str, "weight": _setting,
    "base": str,  # a base policy of the user's own; "" for the run's
}  # fmt: skip
YOUNGER = ("guidance", "weight", "base", "max_episode_steps")  # columns that older files lack
ORIGIN: dict[str, Callable[[str], Any]] = {"reward_rule": str, "ogbench": str, "mujoco": str, "commit": str}
RETURNS: dict[str, Callable[[str], Any]] = {  # of the episode from its start, and what the value said of it then; "" for none
    "discounted_return": _prediction, "predicted_mean": _prediction,
    **{f"predicted_q{100 * level:.0f}": _prediction for level in LEVELS},
}  # fmt: skip
COLUMNS: dict[str, Callable[[str], Any]] = {
    "dataset": str, "task": _count, "seed": _count, "updates": _count, "episode": _count, **SETTING, "success": _share,
    "return": _finite, **RETURNS, "length": _count, "max_episode_steps": _limit,  # "": the environment's own limit
    "evaluation_seed": _count, **ORIGIN,
}  # fmt: skip


class EvaluationCell(NamedTuple):
    """Episodes that are played together: of one task, by one seed's networks of one checkpoint."""

    dataset: str
    task: int
    seed: int
    updates: int
    evaluation_seed: int


def cell_of(row: Row) -> EvaluationCell:
    return EvaluationCell(*(row[name] for name in EvaluationCell._fields))


def stem_of(row: Row) -> str:
    """The stem of the files of a row's search: one per setting, and short enough for a name of a file."""
    text = "_".join(str(row[name]) for name in SETTING if row[name] != "")
    stem = re.sub(r"[^\w.+-]+", "-", text).lower()
    if len(stem.encode()) <= LONGEST:
        return stem
    return f"{stem.encode()[: LONGEST - 9].decode(errors='ignore')}-{sha256(text.encode()).hexdigest()[:8]}"


def read_rows(path: Path) -> list[Row]:
    """The episodes of a CSV file, sorted, numbers parsed; of an episode that was played twice the later one.

    Older files lack RETURNS and YOUNGER, which are "" then. A last line that is only half there is left out. Raises
    EvorError where the file is damaged or another's.
    """
    rows = {}
    read = read_csv(path, tuple(COLUMNS), remedy=REMEDY, younger=(*RETURNS, *YOUNGER), growing=True)
    for line, texts in enumerate(read, 2):
        try:
            row = {name: kind(texts[name]) for name, kind in COLUMNS.items()}
        except (ValueError, OverflowError) as error:
            raise EvorError(f"line {line} of {path} is damaged ({error}); {REMEDY}") from error
        rows[_key(row)] = row
    return [rows[key] for key in sorted(rows)]


def read_files(folder: Path) -> list[list[Row]]:
    """The rows of each CSV file of a folder; those that are in a copy, too, count once.

    Raises EvorError where two files say different things of an episode.
    """
    seen: dict[tuple[Any, ...], tuple[Row, Path]] = {}
    files = []
    for path in listed(folder, "*.csv"):
        rows = []
        for row in read_rows(path):
            there, first = seen.setdefault((*_key(row), stem_of(row), row["base"]), (row, path))
            if first == path:
                rows.append(row)
            elif there != row:
                raise EvorError(f"{first} and {path} contradict each other; remove the one that is not to be counted.")
        files.append(rows)
    return files


def _key(row: Row) -> tuple[Any, ...]:
    return (*cell_of(row), row["episode"])


def _write(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows sorted, of an episode that is there twice the later one."""
    by_key = {_key(row): row for row in rows}
    write_csv(path, tuple(COLUMNS), rows=[by_key[key] for key in sorted(by_key)])


@contextlib.contextmanager
def changing(folder: Path, otherwise: str) -> Generator[None]:
    """Keep other processes from changing the folder inside. Raises EvorError, ending in `otherwise`, where it can't be written."""
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; remove it, for evaluations are written into a folder of that name.")
    check_in_place(folder)
    try:
        folder.mkdir(exist_ok=True)
        with waited_for(folder / ".lock"):
            yield
    except OSError as error:
        where = error.filename or folder
        raise EvorError(f"{where} can't be written ({error.strerror or error}). {otherwise}") from error


class SettingFiles:
    """NAME.csv and NAME.npz in a run's evaluations/: the episodes of one search."""

    def __init__(self, folder: Path, name: str, *, base: str = ""):
        self.folder, self.csv, self._base = folder, folder / f"{name}.csv", base
        self.added = 0  # rows, by this object
        self.drawn = TaskArrays(folder / f"{name}.npz", "played", rank=_lowest_seed)  # trajectories, marked by `_mark`

    def open(self) -> list[Row]:
        """Make or mend the files, and return the rows that are there.

        Raises EvorError where something can't be read or written, which would otherwise be found after hours of playing.
        """
        with changing(self.folder, "Nothing was played. Make room or make it writable, or copy the run."):
            rows = read_rows(self.csv)
            if odd := [row for row in rows if stem_of(row) != self.csv.stem]:
                raise EvorError(f"{self.csv} holds episodes of another search, {stem_of(odd[0])}; {REMEDY}")
            if others := [row["base"] for row in rows if row["base"] != self._base]:
                raise EvorError(
                    f"{self.csv} holds episodes over {others[0]!r}, and those over {self._base!r} would go by the same name; "
                    "rename one of the two policies, or remove that file."
                )
            sweep(self.folder)
            _write(self.csv, rows)
            self.drawn.mark_old(lambda task: _mark_of_old(rows, task))
        return rows

    def append(self, row: Row) -> None:
        """Add an episode's row to the file. Raises EvorError where there is no room for it."""
        otherwise = "Episodes that ended before are kept. Make room, then --resume plays the others."
        with changing(self.folder, otherwise), open(self.csv, "ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read(1) not in (b"\n", b""):  # half a line, of a process that was killed
                size = file.truncate(self.csv.read_bytes().rfind(b"\n") + 1)
            text = io.StringIO()
            writer = csv.DictWriter(text, tuple(COLUMNS), lineterminator="\n")
            if not size:
                writer.writeheader()
            writer.writerow(row)
            line = text.getvalue().encode()
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.csv))
        self.added += 1

    def settle(self, cell: EvaluationCell | None = None, rows: Iterable[Row] = ()) -> None:
        """Sort the file, each episode once; `rows` are all of the cell's episodes. A file without episodes is removed."""
        with changing(self.folder, "The rows are there, unsorted. Make room, then use --resume."):
            if kept := [*(row for row in read_rows(self.csv) if cell_of(row) != cell), *rows]:
                _write(self.csv, kept)
            else:
                self.csv.unlink(missing_ok=True)

    def keep_trajectories(self, cell: EvaluationCell, trajectories: list[np.ndarray]) -> None:
        """Store trajectories [T + 1, O] of a cell, unless those of a newer checkpoint or a lower seed are there."""
        arrays = {str(index): trajectory for index, trajectory in enumerate(trajectories)}
        with changing(self.folder, KEPT):
            self.drawn.keep({cell.task: arrays | {"played": np.array(_mark(cell))}})

    def trajectories(self, cell: EvaluationCell) -> list[np.ndarray]:
        """The stored trajectories of a cell, in their order; none where those of another are stored."""
        arrays = self.drawn.read().get(cell.task, {})
        return in_order(arrays) if _mark(cell) == tuple(arrays.get("played", ())) else []

    def lacks_trajectories(self, cell: EvaluationCell, count: int) -> bool:
        """Whether so many trajectories of a cell should be there and are not, since a process was killed before it stored them."""
        if self.drawn.mark(cell.task) == _mark(cell):
            return len(self.trajectories(cell)) < count
        return self.drawn.wants(cell.task, _mark(cell))


def in_order(arrays: Arrays) -> list[np.ndarray]:
    """A task's trajectories [T + 1, O], which are stored by their numbers."""
    return [arrays[name] for name in sorted(filter(str.isdecimal, arrays), key=int)]


def drawings(folder: Path) -> TaskArrays:
    """The file maze.npz: drawings of a maze's tasks, marked by (updates, candidates, seed). More candidates replace fewer."""
    return TaskArrays(folder / "maze.npz", "drawing", rank=_most_candidates)


def _most_candidates(mark: Mark) -> Mark:
    updates, candidates, *seed = mark  # version 0.1.0 wrote no seed
    return updates, candidates, -sum(seed)


def _lowest_seed(mark: Mark) -> Mark:
    updates, seed, evaluation_seed = mark
    return updates, -seed, -evaluation_seed


def _mark(cell: EvaluationCell) -> Mark:
    return cell.updates, cell.seed, cell.evaluation_seed


def _mark_of_old(rows: list[Row], task: int) -> Mark:
    """The mark of trajectories that version 0.1.0 wrote beside these rows, which were all of one checkpoint."""
    marks = [_mark(cell_of(row)) for row in rows if row["task"] == task]
    return max(marks, key=_lowest_seed, default=(0, 0, 0))
