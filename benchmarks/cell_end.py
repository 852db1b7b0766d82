"""Cost of the end of a job for the driver of `evor reproduce`, by the rows that there are already.

    python benchmarks/cell_end.py [--rows 1000 10000 50000] [--out FILE.json]

Rows are made up; the files are those of a reproduction. Every end reads one cell with 15 new rows (five tasks, three seeds),
appends them to results.csv and timings.csv, and looks into the manifest of 1 000 cells. The page is written at the end of a call, and not timed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evor.experiments.reproduce.job import JobResult
from evor.experiments.reproduce.ledger import Ledger
from evor.experiments.reproduce.rows import RESULT_COLUMNS, TIMES
from evor.runtime.files import write_csv, write_json
from evor.runtime.progress import screen
from evor.runtime.provenance import provenance

CELLS = 1000  # of the manifest
NEW = [(task, seed) for task in range(1, 6) for seed in range(3)]
ENDS = 20
BOUND = 50  # milliseconds, at 50 000 rows


def row(cell: int, updates: int, *, task: int, seed: int) -> dict[str, Any]:
    """A made up row of results.csv."""
    values = dict.fromkeys(RESULT_COLUMNS, "something that is ten words long, as some columns are")
    return values | {
        "dataset": f"d{cell}",
        "agent": "a",
        "task": task,
        "seed": seed,
        "updates": updates,
        "success": 0.5,
    }


def taken(cell: str, evaluation: str) -> dict[str, Any]:
    """A made up row of timings.csv."""
    return dict.fromkeys(TIMES, 1.0) | {"cell": cell, "evaluation": evaluation}


def fill(out: Path, count: int) -> None:
    """Files with so many rows."""
    keys = [(index // 150, index // 15 % 10, index % 15) for index in range(count)]
    rows = [row(cell, updates, task=NEW[index][0], seed=NEW[index][1]) for cell, updates, index in keys]
    write_csv(out / "results.csv", RESULT_COLUMNS, rows=rows)
    times = [taken(f"d{cell}/a/tasks", f"{updates:09d}_{index}") for cell, updates, index in keys]
    write_csv(out / "timings.csv", TIMES, rows=times)
    cells = [{"name": f"d{index}/a/tasks12345-seed0", "dataset": f"d{index}", "agent": "a"} for index in range(CELLS)]
    write_json(out / "manifest.json", {"notes": {}, "cells": cells})


def play(cell: Path, name: str, *, updates: int) -> None:
    """The files of a checkpoint that was played."""
    (cell / "rows").mkdir(parents=True, exist_ok=True)
    for task, seed in NEW:
        path = cell / "rows" / f"{updates:09d}_search_task{task}-seed{seed}.json"
        write_json(path, row(10**6, updates, task=task, seed=seed))
        write_json(path.with_suffix(".times.json"), taken(name, path.stem))


def measure(count: int) -> dict[str, Any]:
    """Milliseconds of `ENDS` ends where there are `count` rows."""
    with tempfile.TemporaryDirectory() as folder:
        out, name, ends = Path(folder), "d/a/tasks12345-seed0", []
        fill(out, count)
        ledger = Ledger(out)
        for updates in range(ENDS):
            play(out / "cells" / name, name, updates=updates)
            started = time.perf_counter()
            ledger.enter(JobResult(name))
            ledger.note(name, "")  # as of a cell that is finished
            ends.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.quantile(ends, (0.1, 0.5, 0.9))
    return {"rows": count, "milliseconds": [round(float(value), 2) for value in (low, median, high)], "ends": ENDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    arguments = parser.parse_args()
    found = [measure(count) for count in arguments.rows]
    for result in found:
        low, median, high = result["milliseconds"]
        screen.print(
            f"{result['rows']:,} rows: {median:.1f} ms (quantiles 0.1 and 0.9: {low:.1f}, {high:.1f}), bound {BOUND}"
        )
    if arguments.out:
        write_json(arguments.out, {"results": found, "bound": BOUND, **provenance()})


if __name__ == "__main__":
    main()
