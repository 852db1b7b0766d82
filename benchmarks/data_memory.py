"""Memory that a row of a dataset takes while the data are opened without a cap, and while they are preprocessed under one.

`make data-memory` opens random data of two sizes, each in a process of its own, and takes the difference of their peaks: so
what the program itself takes does not count. Then it preprocesses them, as training under a cap does. It writes docs/results/data-memory.json and data-memory.md. Minutes.
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
from evor.data.source import NpzData, lay_out, open_columns
from evor.data.store import CACHE
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
        np.savez(folder / f"{index}.npz", allow_pickle=False, **arrays)


def peak(folder: Path, tasks: int, agent: str, is_capped: bool) -> dict[str, float]:
    """Open the data of a folder, or preprocess them: the peak of resident memory beyond that before, and seconds of the CPU."""
    console.quiet = True
    jax.block_until_ready(jax.numpy.zeros(1))
    dataset, config = SeveralTasks(folder, tasks=tuple(range(1, tasks + 1))), AGENTS_BY_NAME[agent]
    data_spec = AGENTS[type(config)].data_spec(config)
    before, started = peak_memory_mib(), time.process_time()
    if is_capped:
        lay_out(dataset, data_spec, memory_gb=1e-3, machines=Local(1))
    else:
        assert open_columns(dataset, data_spec, batch_size=256, seed=0).num_rows
    taken = {"peak_mib": peak_memory_mib() - before, "seconds": time.process_time() - started}
    return taken | {"stored": sum(file.stat().st_size for file in folder.glob(f"{CACHE}/*/*.npy"))}


def measure(rows: int) -> list[dict[str, Any]]:
    """Bytes of a row at the peak, case by case."""
    measured = []
    for observation, action, tasks, files, agent in CASES:
        found = {False: [], True: []}
        for size in (rows, 2 * rows):
            with TemporaryDirectory() as folder:
                write(Path(folder), rows=size, widths=(observation, action), files=FILES[files])
                for is_capped, taken in found.items():
                    taken += parallel_map(peak, [(Path(folder), tasks, agent, is_capped)], Local(1, pin_cores=True))
        (less, more), (capped_less, capped_more) = found.values()
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
                "peak": (more["peak_mib"] - less["peak_mib"]) * 2**20 / rows,
                "capped_peak": (capped_more["peak_mib"] - capped_less["peak_mib"]) * 2**20 / rows,
                "stored": capped_more["stored"] / (2 * rows),
                "microseconds": 1e6 * (capped_more["seconds"] - capped_less["seconds"]) / rows,
            }
        )
        console.print(f"{observation} {action} {tasks} {files} {agent}: {measured[-1]['peak']:.0f} bytes a row")
    return measured


def page(report: dict[str, Any]) -> str:
    """The page, from what data-memory.json holds."""
    lines = [
        "# Memory of a row",
        "",
        "How much host memory does a row take while data are opened without a cap, and while they are preprocessed under one? `make data-memory` opens random data of "
        f"{report['rows']:,} rows and of twice as many. The difference of the peaks, divided by the difference of the rows, is what "
        "a row takes.",
        "",
        "| observation | action | tasks | files | objective | trained on, bytes | peak, bytes | peak / trained on "
        "| preprocessing: peak, bytes | on disk, bytes | CPU, µs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in report["cases"]:
        objective = "Monte Carlo" if case["agent"] == "monte-carlo" else "of the default"
        lines.append(
            f"| {case['observation']} | {case['action']} | {case['tasks']} | {case['files']} | {objective} | {case['columns']} "
            f"| {case['peak']:.0f} | {case['peak'] / case['columns']:.1f} "
            f"| {case['capped_peak']:.0f} | {case['stored']:.0f} | {case['microseconds']:.1f} |"
        )
    lines += [
        "",
        "What is trained on are the columns of a row, in float32. The peak holds the rows as they are read, too.",
        "",
        "Preprocessing is what training under a cap does first. It holds one file at a time, so of ten files a tenth of the rows. Its "
        "peak counts mapped pages of what was written, too, which the system may drop. Sums lie on disk in float64, in the units of "
        "the data. The time is that of reading random data, checking them, laying them out and writing them. Labels of OGBench's "
        "tasks come on top.",
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
