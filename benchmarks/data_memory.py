"""Memory that a row of a dataset takes while the data are opened, without a cap.

`make data-memory` opens random data of two sizes, each in a process of its own, and takes the difference of their peaks: so
what the program itself takes does not count. It writes docs/results/data-memory.json and data-memory.md. Minutes.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from evor.agents.evor import Evor
from evor.agents.registry import AGENTS
from evor.data.columns import bytes_per_row
from evor.data.source import NpzData, open_columns
from evor.data.summary import Reading
from evor.nn.objectives import MonteCarlo
from evor.runtime.files import write_json, write_text
from evor.runtime.parallel import Local, parallel_map
from evor.runtime.progress import console
from evor.runtime.provenance import peak_memory_mib, provenance
from evor.types import Spec

RESULTS = Path("docs/results")
LENGTH = 1000  # rows of an episode
FILES = {"one": 1, "ten": 10}
CASES = [  # sizes of an observation and of an action, tasks, files, and the agent
    (2, 2, 1, "one", "default"),
    (37, 5, 1, "one", "default"),
    (37, 5, 5, "one", "default"),
    (37, 5, 5, "ten", "default"),
    (37, 5, 5, "one", "monte-carlo"),
]
AGENTS_BY_NAME = {"default": Evor(), "monte-carlo": Evor(MonteCarlo())}


class SeveralTasks(NpzData):
    """Data of one's own whose rewards are labelled for several tasks, as those of OGBench are."""

    def read(self, file: Path) -> Reading:
        reading = super().read(file)
        episodes, tasks = reading.episodes, len(self.tasks)
        several = episodes._replace(
            rewards=np.repeat(episodes.rewards, tasks, axis=0),
            masks=np.repeat(episodes.masks, tasks, axis=0),
            tasks=self.tasks,
        )
        return reading._replace(episodes=several)


def write(folder: Path, *, rows: int, widths: tuple[int, int], files: int) -> None:
    """Write random episodes into so many files."""
    generator = np.random.default_rng(0)
    last = np.arange(rows // files) % LENGTH == LENGTH - 1
    for index in range(files):
        arrays = {
            "observations": generator.normal(size=(len(last), widths[0])).astype(np.float32),
            "actions": generator.uniform(-1, 1, (len(last), widths[1])).astype(np.float32),
            "rewards": generator.normal(size=len(last)).astype(np.float32),
            "terminations": np.zeros(len(last), bool),
            "truncations": last,
        }
        np.savez(folder / f"{index}.npz", **arrays)


def peak(folder: Path, tasks: int, agent: str) -> dict[str, float]:
    """Open the data of a folder; the peak of resident memory beyond that before, and what it took."""
    console.quiet = True
    jax.block_until_ready(jax.numpy.zeros(1))
    config: Any = AGENTS_BY_NAME[agent]
    before, started = peak_memory_mib(), time.monotonic()
    data = open_columns(
        SeveralTasks(folder, tasks=tuple(range(1, tasks + 1))),
        AGENTS[type(config)].data_spec(config),
        batch_size=256,
        seed=0,
    )
    assert data.num_rows
    return {"peak_mib": peak_memory_mib() - before, "seconds": time.monotonic() - started}


def measure(rows: int) -> list[dict[str, Any]]:
    """Bytes of a row at the peak, case by case."""
    measured = []
    for observation, action, tasks, files, agent in CASES:
        found = []
        for size in (rows, 2 * rows):
            with TemporaryDirectory() as folder:
                write(Path(folder), rows=size, widths=(observation, action), files=FILES[files])
                found += parallel_map(peak, [(Path(folder), tasks, agent)], Local(1, pin_cores=True))
        config: Any = AGENTS_BY_NAME[agent]
        spec = AGENTS[type(config)].data_spec(config)
        measured.append(
            {
                "observation": observation,
                "action": action,
                "tasks": tasks,
                "files": FILES[files],
                "agent": agent,
                "columns": bytes_per_row(Spec(observation, action), spec, num_tasks=tasks),
                "peak": (found[1]["peak_mib"] - found[0]["peak_mib"]) * 2**20 / rows,
                "seconds": found[1]["seconds"],
            }
        )
        console.print(f"{observation} {action} {tasks} {files} {agent}: {measured[-1]['peak']:.0f} bytes a row")
    return measured


def page(report: dict[str, Any]) -> str:
    """The page, from what data-memory.json holds."""
    lines = [
        "# Memory of a row",
        "",
        "How much host memory does a row take while data are opened without a cap? `make data-memory` opens random data of "
        f"{report['rows']:,} rows and of twice as many. The difference of the peaks, divided by the difference of the rows, is what "
        "a row takes.",
        "",
        "| observation | action | tasks | files | objective | trained on, bytes | peak, bytes | peak / trained on |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in report["cases"]:
        objective = "Monte Carlo" if case["agent"] == "monte-carlo" else "of the default"
        lines.append(
            f"| {case['observation']} | {case['action']} | {case['tasks']} | {case['files']} | {objective} | {case['columns']} "
            f"| {case['peak']:.0f} | {case['peak'] / case['columns']:.1f} |"
        )
    lines += [
        "",
        "What is trained on are the columns of a row, in float32. The peak holds the rows as they are read, too.",
        "",
        f"Machine: {report['hardware']['cpu']}, commit {report['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the smaller one")
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    path = RESULTS / "data-memory.json"
    if not arguments.page_only:
        write_json(path, {"rows": arguments.rows, "cases": measure(arguments.rows), **provenance()})
    write_text(RESULTS / "data-memory.md", page(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
