"""The frame of a study: rows of a CSV that are kept as its jobs end, and a page that is made from them."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.report.statistics import estimate, interquartile_mean
from evor.runtime.files import read_json, write_csv, write_json, write_text
from evor.runtime.parallel import Local, default_workers, parallel_map
from evor.runtime.progress import progress_bar
from evor.runtime.provenance import provenance

Row = dict[str, Any]
ORIGIN = ("commit", "processor")  # columns of text that tell where a row is from


class Study(NamedTuple):
    """The file of a study's rows, and how its page is written. Beside the CSV lie a JSON of its origin and the page."""

    results: Path
    words: tuple[str, ...]  # columns of text that name a job; the others are numbers, but for those of `ORIGIN`
    page: Callable[[list[Row], Row], str]

    def finished(self) -> list[Row]:
        """The stored rows, numbers parsed and whole ones as integers; none where there is no file."""
        if not self.results.exists():
            return []
        texts = (*self.words, *ORIGIN)
        with open(self.results, newline="") as file:
            return [
                {name: text if name in texts else _number(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]

    def write_page(self) -> None:
        """Write the page from the stored numbers."""
        origin = read_json(self.results.with_suffix(".json"))
        write_text(self.results.with_suffix(".md"), self.page(self.finished(), origin))

    def carry_out(self, run: Callable[..., list[Row]], jobs: list[tuple], *, done: int = 0, unit: str = "jobs") -> None:
        """Run the jobs side by side, and keep the rows of each as it ends. So many were `done` before."""
        with progress_bar("study", done + len(jobs), done=done, unit=unit) as advance:
            for new in parallel_map(run, jobs, Local(default_workers(), pin_cores=True)):
                rows = self.finished() + new  # others may have written
                write_csv(self.results, list(new[0]), rows=rows)
                write_json(self.results.with_suffix(".json"), provenance())
                self.write_page()
                advance(1, ", ".join(new[0][name] for name in self.words))


def of(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def table(rows: Iterable[Row], column: str = "success") -> np.ndarray:
    """Mean of one column of the rows [T, S], by task and seed."""
    cells: dict[tuple[Any, Any], list[float]] = {}
    for row in rows:
        cells.setdefault((row["task"], row["seed"]), []).append(float(row[column]))
    tasks, seeds = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    return np.array([[np.mean(cells[task, seed]) for seed in seeds] for task in tasks])


def interquartile(scores: np.ndarray) -> str:
    """Interquartile mean of [T, S] scores, with its interval where there is one."""
    if np.ptp(scores) == 0 or scores.shape[1] == 1:
        return f"{interquartile_mean(scores):.3f}"
    found = estimate(interquartile_mean, scores)
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
