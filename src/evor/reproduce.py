"""The paper's experiment as a matrix of cells: trained, played and tabulated by one command that resumes anywhere.

A cell is one data set, agent and seed (all its tasks in one run folder, so that they share the base policy). Its rows lie
in its own folder, one file per evaluation; results.csv is all of them, sorted.
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.config import AGENTS, PRESETS, AgentConfig, RunConfig
from evor.data.generate import generatable, generate_once, is_ant
from evor.data.ogbench import OFFICIAL_FOLDER, REWARD_RULE
from evor.errors import EvorError, at_least, nearest
from evor.evaluate import file_name, play_all, settings
from evor.extract import Extraction, SoftmaxOf
from evor.files import check_ours, read_json, write_csv, write_json
from evor.nets import Precision
from evor.parallel import default_workers, spread
from evor.policy import Run, open_run
from evor.progress import console, progress_bar
from evor.provenance import commit, hardware, versions
from evor.report_paper import SCORED, write_paper_report
from evor.train import Training
from evor.value import RandomSamples

# What there is to reproduce.

ENTRIES: dict[str, str] = {  # name in the tables -> preset
    "evor": "default",
    "evor-paper": "paper",
    "qc-1": "qc-1",
    "qc-5": "qc-5",
    "bc": "bc",
    "scalar": "scalar",
}
PAPER_SEARCH = SoftmaxOf(32, 1.0, 1e-3, RandomSamples(50))  # Tables 3-4
PAPER_DATASETS = (
    "antmaze-large-navigate-v0",
    "antmaze-large-stitch-v0",
    "cube-double-play-v0",
    "pointmaze-medium-navigate-v0",
    "scene-play-v0",
)
ALL_TASKS = (1, 2, 3, 4, 5)


class Part(NamedTuple):
    """A block of the matrix."""

    dataset: str
    tasks: tuple[int, ...]
    agents: tuple[str, ...]


class Scale(NamedTuple):
    """How large a suite is run."""

    parts: tuple[Part, ...]
    seeds: int
    updates: int
    evaluate_every: int
    episodes: int
    hidden: tuple[int, ...]
    transitions: int  # of generated data
    batch_size: int = 256
    precision: Precision = "float32"
    played: int = SCORED  # evaluations, the last ones
    together: bool = False  # the seeds of a cell as one vmapped run, for a machine with room for it


EVERYTHING = tuple(ENTRIES)
CHEAP = ("evor", "evor-paper", "bc", "scalar")
SCALES: dict[str, Scale] = {
    # The plumbing, in minutes.
    "smoke": Scale(
        tuple(
            Part(dataset, (1, 2), EVERYTHING)
            for dataset in (
                "antmaze-large-navigate-v0",
                "pointmaze-medium-navigate-v0",
                "cube-single-play-v0",
                "cube-double-play-v0",
                "scene-play-v0",
            )
        ),
        seeds=1,
        updates=30,
        evaluate_every=10,
        episodes=1,
        hidden=(32, 32),
        transitions=2000,
        batch_size=32,
    ),
    # Two cores and an afternoon. QC's best of 32 in its targets is the expensive part: two tasks of one maze.
    "small": Scale(
        (
            Part("pointmaze-medium-navigate-v0", ALL_TASKS, CHEAP),
            Part("cube-single-play-v0", (1, 2), CHEAP),
            Part("pointmaze-medium-navigate-v0", (1, 2), ("qc-1", "qc-5")),
        ),
        seeds=3,
        updates=10_000,
        evaluate_every=1_000,
        episodes=10,
        hidden=(256, 256, 256),
        transitions=300_000,
        precision="bfloat16",
    ),
    # Appendix E to the letter.
    "full": Scale(
        tuple(Part(dataset, ALL_TASKS, EVERYTHING) for dataset in PAPER_DATASETS),
        seeds=3,
        updates=1_000_000,
        evaluate_every=100_000,
        episodes=50,
        hidden=(512, 512, 512, 512),
        transitions=1_000_000,
        precision="bfloat16",
        played=10,
        together=True,
    ),
}
SUITES: dict[str, tuple[Extraction, ...]] = {
    "paper": (),
    # Figures 1-5: the last checkpoint of `evor` under other searches.
    "ablations": (
        *(SoftmaxOf(2**power) for power in range(8)),
        *(SoftmaxOf(32, temperature) for temperature in (0.0, 0.1, 0.3, 3.0, 10.0, math.inf)),
        *(SoftmaxOf(32, 1.0, temperature) for temperature in (0.0, 1e-2, 1e-1, 1.0, 10.0, math.inf)),
    ),
}


class Cell(NamedTuple):
    """One run folder of the matrix."""

    dataset: str
    tasks: tuple[int, ...]
    agent: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        tasks, seeds = "".join(map(str, self.tasks)), "-".join(map(str, self.seeds))
        return f"{self.dataset}/{self.agent}/tasks{tasks}-seed{seeds}"


COLUMNS = (
    "suite", "dataset", "task", "agent", "seed", "updates", "extraction", "num_candidates", "return_temperature",
    "action_temperature", "reading", "flow_steps", "episodes", "success", "return", "length", "data", "protocol",
    "reward_rule", "ogbench", "mujoco", "evor", "jax", "python", "hardware", "commit",
)  # fmt: skip
ORDER = COLUMNS[:12]


def cells(suite: str, scale: str, only: Iterable[str] = (), seeds: int | None = None) -> list[Cell]:
    """The matrix, seed by seed. `only` keeps the named data sets, agents and tasks ("task3").

    Raises EvorError on names that are not in it.
    """
    for name, known in ((suite, SUITES), (scale, SCALES)):
        if name not in known:
            raise EvorError(f"nothing to reproduce is called {name!r}; {nearest(name, known)}")
    size, only = SCALES[scale], set(only)
    parts = list(size.parts)
    if SUITES[suite]:
        parts = [part._replace(agents=("evor",)) for part in parts if "evor" in part.agents]
    axes = [
        {part.dataset for part in parts},
        {agent for part in parts for agent in part.agents},
        {f"task{task}" for part in parts for task in part.tasks},
    ]
    known = set().union(*axes)
    if unknown := sorted(only - known):
        raise EvorError(
            f"--only {unknown[0]!r} is in no cell of {suite} at scale {scale}; {nearest(unknown[0], known)}"
        )
    datasets, agents, tasks = (axis & only or axis for axis in axes)
    count = seeds if seeds is not None else size.seeds
    at_least(1, seeds=count)
    groups = [tuple(range(count))] if size.together else [(seed,) for seed in range(count)]
    found = [
        Cell(part.dataset, kept, agent, group)
        for group in groups
        for part in parts
        for agent in part.agents
        if part.dataset in datasets
        and agent in agents
        and (kept := tuple(task for task in part.tasks if f"task{task}" in tasks))
    ]
    if not found:
        raise EvorError(f"--only {' '.join(sorted(only))} leaves no cell of {suite} at scale {scale}.")
    return found


def reproduce(
    suite: str,
    scale: str,
    out: Path,
    data: Path,
    only: tuple[str, ...] = (),
    hours: float = math.inf,
    seeds: int | None = None,
    expert: Path | None = None,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Train and play every cell into `out`, then write results.csv and timings.csv. Returns the rows of results.csv.

    Finished cells are kept, unfinished ones resume where they stopped; `hours` stops cleanly before its time is over.
    Raises EvorError where `out` belongs to another scale or protocol.
    """
    if not hours > 0:
        raise EvorError(f"hours is {hours}; it must be above 0.")
    deadline = time.monotonic() + 3600 * hours
    matrix = cells(suite, scale, only, seeds)
    _claim(out, scale)
    open_cells = [cell for cell in matrix if not _finished(out, cell, suite, scale)]
    folders = {cell.dataset: _find_data(cell.dataset, data, SCALES[scale], deadline, expert) for cell in open_cells}
    for dataset in sorted(name for name, folder in folders.items() if folder is None):
        console.print(f"no data for {dataset}, and it can't be generated here: its cells stay empty", highlight=False)
    jobs = [
        (out, cell, suite, scale, folder, deadline)
        for cell in open_cells
        if (folder := folders[cell.dataset]) is not None
    ]
    done = len(matrix) - len(open_cells)
    if workers is not None:
        at_least(1, workers=workers)
    number = workers or (1 if SCALES[scale].together else default_workers())
    if number == 1:  # here, where training shows bars of its own
        for index, job in enumerate(jobs, 1):
            console.print(f"cell {index} of {len(jobs)}: {job[1].name}", highlight=False, markup=False)
            run_cell(*job)
            collect(out)
    else:
        with progress_bar(f"reproduce {suite}", len(matrix), done, "cells") as advance:
            for name, finished in spread(_run_quietly, jobs, number, one_core=True):
                advance(int(finished), name)
                collect(out)
    rows = collect(out)
    if rows:
        console.print(f"wrote {write_paper_report(out)}", highlight=False, markup=False)
    return rows


def _claim(out: Path, scale: str) -> None:
    """Make `out` a reproduction at this scale, or find that it is."""
    wanted, path = {"scale": scale, "protocol": protocol(scale)}, out / "manifest.json"
    check_ours(out, path, "reproduction")
    if path.exists():
        found = read_json(path)
        if {name: found.get(name) for name in wanted} != wanted:
            raise EvorError(
                f"{out} is a reproduction at scale {found.get('scale')} ({found.get('protocol')}); this one is at scale "
                f"{scale} ({wanted['protocol']}). Choose another --out."
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def protocol(scale: str) -> str:
    """What makes scores comparable, in one line of results.csv."""
    size = SCALES[scale]
    width = "x".join(map(str, size.hidden))
    return (
        f"{size.updates} updates, nets {width} in {size.precision}, {size.episodes} episodes every {size.evaluate_every}, "
        f"last {SCORED}"
    )


def _find_data(dataset: str, data: Path, scale: Scale, deadline: float, expert: Path | None) -> Path | None:
    """The folder with this data set: `data`, OGBench's own, or one that is generated now; None where there is none."""
    generated = data / f"{scale.transitions}-seed0"
    for folder in (data, generated, OFFICIAL_FOLDER.expanduser()):
        if (folder / f"{dataset}.npz").is_file():
            return folder
        if (folder / dataset).is_dir():  # of shards
            return folder / dataset
    needed = expert if is_ant(dataset) else None
    if dataset not in generatable() or (is_ant(dataset) and needed is None) or time.monotonic() > deadline:
        return None
    generate_once(dataset, scale.transitions, 0, generated, needed)
    return generated


# One cell.


def _run_quietly(*job: Any) -> tuple[str, bool]:
    console.quiet = True  # the bar of the whole belongs to the parent process
    return run_cell(*job)


def run_cell(out: Path, cell: Cell, suite: str, scale: str, data: Path, deadline: float) -> tuple[str, bool]:
    """Train in laps and play after each. Returns the cell's name and whether it is finished."""
    folder = out / "cells" / cell.name
    config = run_config(cell, scale, data)
    training = None
    for updates, wanted in evaluations(cell, suite, scale):
        left = [extraction for extraction in wanted if not _rows_path(folder, updates, extraction).exists()]
        if not left:
            continue
        training = training or Training(config, folder, resume=True)
        if training.step > updates:
            raise EvorError(f"{folder} has passed {updates} updates without their evaluation; remove it to start anew.")
        if not training.advance(updates, deadline):
            return cell.name, False
        run = open_run(folder)
        for extraction in left:
            if time.monotonic() > deadline:
                return cell.name, False
            _play(folder, run, cell, scale, extraction, data)
    return cell.name, True


def run_config(cell: Cell, scale: str, data: Path) -> RunConfig:
    """The training run of a cell."""
    size = SCALES[scale]
    agent = dataclasses.replace(
        PRESETS[ENTRIES[cell.agent]], hidden=size.hidden, batch_size=size.batch_size, precision=size.precision
    )
    return RunConfig(
        dataset=cell.dataset,
        data=str(data),
        tasks=cell.tasks,
        seed=cell.seeds[0],
        seeds=len(cell.seeds),
        steps=size.updates,
        checkpoint_every=size.evaluate_every,
        log_every=max(1, size.evaluate_every // 10),
        agent=agent,
    )


def evaluations(cell: Cell, suite: str, scale: str) -> list[tuple[int, list[Extraction]]]:
    """After how many updates a cell is played, and how; the last checkpoint also under the suite's other searches."""
    size = SCALES[scale]
    usual = search(cell.agent, run_config(cell, scale, Path()).agent)
    steps = range(size.evaluate_every, size.updates + 1, size.evaluate_every)[-size.played :]
    return [(step, [usual, *(SUITES[suite] if step == size.updates else ())]) for step in steps]


def search(agent: str, config: AgentConfig) -> Extraction:
    """How an agent of the tables acts."""
    if agent == "evor-paper":
        return PAPER_SEARCH
    return AGENTS[type(config)].default_search(config)


def _play(folder: Path, run: Run, cell: Cell, scale: str, extraction: Extraction, data: Path) -> None:
    """Every task and seed of a run's newest checkpoint; their rows appear together."""
    started = time.monotonic()
    installed = versions()
    origin = {
        "data": _describe_data(cell.dataset, data),
        "protocol": protocol(scale),
        "reward_rule": REWARD_RULE,
        **{name: installed[name] for name in ("ogbench", "mujoco", "evor", "jax", "python")},
        "hardware": _hardware(),
        "commit": commit() or "",
    }
    suite = "paper" if extraction == search(cell.agent, run.config.agent) else "ablations"
    rows = []
    for task in cell.tasks:
        for seed in cell.seeds:
            episodes = play_all(run.select(task, seed), cell.dataset, task, extraction, SCALES[scale].episodes, 0)
            rows.append(
                {
                    "suite": suite,
                    "dataset": cell.dataset,
                    "task": task,
                    "agent": cell.agent,
                    "seed": seed,
                    "updates": run.step,
                }
                | settings(extraction)
                | {
                    "episodes": len(episodes),
                    "success": float(np.mean([episode.success for episode in episodes])),
                    "return": float(np.mean([episode.total_reward for episode in episodes])),
                    "length": float(np.mean([episode.length for episode in episodes])),
                }
                | origin
            )
    path = _rows_path(folder, run.step, extraction)
    path.parent.mkdir(exist_ok=True)
    write_json(path.with_suffix(".seconds.json"), {"seconds": time.monotonic() - started})
    write_json(path, rows)


def _rows_path(folder: Path, updates: int, extraction: Extraction) -> Path:
    return folder / "rows" / f"{updates:09d}_{file_name(extraction)}.json"


def _finished(out: Path, cell: Cell, suite: str, scale: str) -> bool:
    """Whether every evaluation of a cell is on disk."""
    return all(
        _rows_path(out / "cells" / cell.name, updates, extraction).exists()
        for updates, wanted in evaluations(cell, suite, scale)
        for extraction in wanted
    )


def _describe_data(dataset: str, data: Path) -> str:
    """`generated, 300000 transitions, seed 0`, or a file whose origin nobody recorded."""
    note = data / f"{dataset}.json"
    if not note.exists():
        return "file" if data != OFFICIAL_FOLDER.expanduser() else "official file"
    made = read_json(note)
    return f"generated, {made['transitions']} transitions, seed {made['seed']}"


def _hardware() -> str:
    found = hardware()
    return found["cpu"] if found["device"] == "cpu" else f"{found['device']}, {found['cpu']}"


# All cells together.


def collect(out: Path) -> list[dict[str, Any]]:
    """Write results.csv and timings.csv from every evaluation on disk. Returns the rows of results.csv."""
    rows: dict[tuple, dict[str, Any]] = {}
    timings = []
    for path in sorted((out / "cells").glob("*/*/*/rows/*.json")):
        if path.name.endswith(".seconds.json"):
            continue
        for row in read_json(path):
            rows[tuple(str(row[name]) for name in ORDER)] = row
        cell = path.parents[1]
        timings.append(
            {
                "cell": str(cell.relative_to(out / "cells")),
                "evaluation": path.stem,
                "seconds": round(read_json(path.with_suffix(".seconds.json"))["seconds"], 1),
                "seconds_per_update": seconds_per_update(cell),
            }
        )
    ordered = [rows[key] for key in sorted(rows)]
    write_csv(out / "results.csv", COLUMNS, ordered)
    write_csv(out / "timings.csv", ("cell", "evaluation", "seconds", "seconds_per_update"), timings)
    return ordered


def seconds_per_update(run: Path) -> float:
    """Median over the intervals of a run's log: compilation and resumes stand aside."""
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    rates = [
        (later["seconds"] - earlier["seconds"]) / (later["step"] - earlier["step"])
        for earlier, later in itertools.pairwise(lines)
        if later["seconds"] > earlier["seconds"] and later["step"] > earlier["step"]
    ]
    return float(np.median(rates)) if rates else math.nan
