"""Rows of a reproduction: files of one row each in the folder of their cell, and results.csv and timings.csv, which gather them.

results.csv also says that an evaluation is done, so that a reproduction goes on from its CSV files alone: on another
machine, or with the cells removed.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evor.errors import EvorError
from evor.runtime.files import append_text, listed, read_csv, read_json, write_csv

RESULT_COLUMNS = (
    "suite", "dataset", "task", "agent", "seed", "updates", "extraction", "num_candidates", "return_temperature",
    "action_temperature", "reading", "flow_steps", "max_return", "episodes", "success", "return", "length", "data",
    "protocol", "recipe", "reward_rule", "ogbench", "mujoco", "evor", "jax", "python", "hardware", "commit",
)  # fmt: skip
ORDER = RESULT_COLUMNS[:13]
TIMES = ("cell", "evaluation", "seconds", "seconds_per_update", "peak_mib", "resumes", "finished_at")
RESTORE = "restore it, or remove it: it is gathered again from cells/, and what is not there is run again."
Row = dict[str, Any]
RowsByKey = dict[tuple, Row]  # rows by their keys


class Gathered:
    """One of the two CSV files, with the rows of it and of the files below cells/.

    A row is appended when it comes, so that the file is out of order until `write`. A last line that was half written is
    passed over: its row is in its own file still, or it is run again.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, key: tuple[str, ...], pattern: str):
        self.path, self._columns, self._key, self._pattern = path, columns, key, pattern
        self.rows = _read_keyed_rows(path, columns, key=key)
        self._read: set[Path] = set()

    def gather(self, folders: Iterable[Path]) -> RowsByKey:
        """Take in what these cells' folders hold that was not read yet. Returns it."""
        new: RowsByKey = {}
        for path in sorted(path for folder in folders for path in listed(folder / "rows", self._pattern)):
            if path not in self._read:
                try:
                    row = {name: str(value) for name, value in read_json(path, *self._columns).items()}
                except EvorError as error:
                    raise EvorError(f"{error} Or remove it: a row that is not there is played again.") from error
                self._read.add(path)
                new[key_of(row, self._key)] = row
        self.rows |= new
        return new

    def append(self, folder: Path) -> None:
        """Take in what a cell's folder holds that was not read yet, and append it to the file."""
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(self.gather([folder]).values())
        append_text(self.path, text.getvalue())

    def write(self) -> None:
        """Write the whole file, in order."""
        self.rows = dict(sorted(self.rows.items()))
        write_csv(self.path, self._columns, rows=self.rows.values())


def results_of(out: Path) -> Gathered:
    """The rows of results.csv."""
    return Gathered(out / "results.csv", RESULT_COLUMNS, key=ORDER, pattern="*[0-9].json")


def times_of(out: Path) -> Gathered:
    """The rows of timings.csv: what each evaluation took."""
    return Gathered(out / "timings.csv", TIMES, key=TIMES[:2], pattern="*.times.json")


def cell_folders(out: Path) -> list[Path]:
    """The folders of all cells that were begun."""
    return sorted((out / "cells").glob("*/*/*"))


def rows_for(out: Path, cell: Path) -> RowsByKey:
    """The rows of results.csv, and those in a cell's own folder: an earlier try may have played since it was written."""
    results = results_of(out)
    results.gather([cell])
    return results.rows


def read_stored_rows(out: Path) -> RowsByKey:
    """The rows of results.csv, none where there is no file yet. Raises EvorError where another version wrote it."""
    return _read_keyed_rows(out / "results.csv", RESULT_COLUMNS, key=ORDER)


def key_of(row: Row, columns: tuple[str, ...] = ORDER) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in columns)


def _read_keyed_rows(path: Path, columns: tuple[str, ...], *, key: tuple[str, ...]) -> RowsByKey:
    """The rows of a CSV file that `Gathered` wrote, none where there is no file."""
    rows: RowsByKey = {}
    remedy = f"choose another --out, or {RESTORE}"
    for line, row in enumerate(read_csv(path, columns, remedy=remedy, growing=True), 2):
        if rows.setdefault(key_of(row, key), row) != row:
            raise EvorError(f"line {line} of {path} contradicts one before it; {RESTORE}")
    return rows
