"""Books of a reproduction while its jobs end: rows, and the reasons of cells that failed."""

import functools
from pathlib import Path

from evor.experiments.reproduce.folder import read_notes, write_notes
from evor.experiments.reproduce.job import JobResult
from evor.experiments.reproduce.rows import RowsByKey, cell_folders, results_of, times_of
from evor.runtime.progress import console


class Ledger:
    """Rows and reasons of a reproduction, in memory and on disk. The end of a job costs what that job wrote."""

    def __init__(self, out: Path):
        self.out, self._results, self._times = out, results_of(out), times_of(out)
        self.failed: dict[str, str] = {}  # cells of this call, and why
        self.gather(cell_folders(out))  # what a killed run had played, too

    @property
    def rows(self) -> RowsByKey:
        """The rows of results.csv by their keys."""
        return self._results.rows

    def gather(self, folders: list[Path]) -> None:
        """Take in what these cells have left since."""
        for file in (self._times, self._results):
            file.gather(folders)

    def write(self) -> None:
        """Write results.csv and timings.csv, in order."""
        for file in (self._times, self._results):
            file.write()

    def enter(self, result: JobResult) -> None:
        """Keep what became of a job."""
        name = result.cell
        if result.failed:
            if name not in self.failed:
                console.print(f"failed: {name}: {result.why}", style="yellow")
            self.failed.setdefault(name, result.why)
        for file in (self._times, self._results):
            file.append(self.out / "cells" / name)
        if result.why:  # where only time was short, what stopped it before still holds
            self.note(name, result.why)

    @functools.cached_property
    def notes(self) -> dict[str, str]:
        """Why cells are empty, by their names. The folder is locked: no other process writes them."""
        return read_notes(self.out)

    def note(self, cell: str, why: str) -> None:
        """Keep why a cell is empty, "" where it no longer is."""
        if self.notes.get(cell, "") != why:
            self.notes[cell] = why
            write_notes(self.out, {cell: why})
