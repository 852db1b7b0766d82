"""The paper's experiment as a matrix of cells: trained, played and tabulated by one command that resumes anywhere.

A cell is one data set, agent and seed (all its tasks in one run folder, so that they share the base policy). An evaluation
leaves its rows in the cell's folder, whole or not at all; results.csv gathers them all, sorted. It is also what says that an
evaluation is done, so that a reproduction goes on from its CSV files alone: on another machine, or with the cells removed.
"""

import csv
import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.generate import generatable, generate_once, is_ant
from evor.data.ogbench import OFFICIAL_FOLDER, REWARD_RULE
from evor.errors import EvorError, at_least
from evor.evaluate import file_name, play_all, settings
from evor.extract import Extraction
from evor.files import check_ours, read_json, read_json_lines, write_csv, write_json
from evor.matrix import SCALES, Cell, Scale, cells, evaluations, protocol, run_config, search
from evor.parallel import default_workers, spread
from evor.progress import console, progress_bar
from evor.provenance import commit, hardware, versions
from evor.report_paper import write_paper_report
from evor.run import Run, open_run
from evor.train import Training

COLUMNS = (
    "suite", "dataset", "task", "agent", "seed", "updates", "extraction", "num_candidates", "return_temperature",
    "action_temperature", "reading", "flow_steps", "episodes", "success", "return", "length", "data", "protocol",
    "reward_rule", "ogbench", "mujoco", "evor", "jax", "python", "hardware", "commit",
)  # fmt: skip
ORDER = COLUMNS[:12]
TIMES = ("cell", "evaluation", "seconds", "seconds_per_update")


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
    if workers is not None:
        at_least(1, workers=workers)
    deadline = time.monotonic() + 3600 * hours
    matrix = cells(suite, scale, only, seeds)
    _claim(out, scale)
    collect(out)  # what a killed run had played
    known = _gathered(out / "results.csv", COLUMNS, ORDER)
    open_cells = [cell for cell in matrix if _left(cell, suite, scale, known)]
    folders = {cell.dataset: _find_data(cell.dataset, data, SCALES[scale], deadline, expert) for cell in open_cells}
    jobs = [
        (out, cell, suite, scale, folder, deadline)
        for cell in open_cells
        if (folder := folders[cell.dataset]) is not None
    ]
    done = len(matrix) - len(open_cells)
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


def _find_data(dataset: str, data: Path, scale: Scale, deadline: float, expert: Path | None) -> Path | None:
    """The folder with this data set: `data`, OGBench's own, or one that is generated now; None, said why, where there is none."""
    generated = data / f"{scale.transitions}-seed0"
    for folder in (data, generated, OFFICIAL_FOLDER.expanduser()):
        if (folder / f"{dataset}.npz").is_file():
            return folder
        if (folder / dataset).is_dir():  # of shards
            return folder / dataset
    needed, why = expert if is_ant(dataset) else None, ""
    if dataset not in generatable():
        why = "It can't be generated; put its files into --data."
    elif is_ant(dataset) and needed is None:
        why = "Give the ant's walker with --expert FILE.npz to generate it."
    elif time.monotonic() > deadline:
        why = "The time was over; run again to generate it."
    if why:
        console.print(f"no data for {dataset}: its cells stay empty. {why}", highlight=False)
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
    for updates, wanted in _left(cell, suite, scale, _gathered(out / "results.csv", COLUMNS, ORDER)):
        training = training or Training(config, folder, resume=True)
        if training.step > updates:
            raise EvorError(f"{folder} has passed {updates} updates without their evaluation; remove it to start anew.")
        if not training.advance(updates, deadline):
            return cell.name, False
        run = open_run(folder)
        for extraction in wanted:
            if time.monotonic() > deadline:
                return cell.name, False
            _play(folder, run, cell, scale, extraction, data)
    return cell.name, True


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
    rows = []
    for head in _heads(cell, scale, run.step, extraction):
        policy = run.select(head["task"], head["seed"])
        episodes = play_all(policy, cell.dataset, head["task"], extraction, SCALES[scale].episodes, 0)
        scores = {
            "episodes": len(episodes),
            "success": float(np.mean([episode.success for episode in episodes])),
            "return": float(np.mean([episode.total_reward for episode in episodes])),
            "length": float(np.mean([episode.length for episode in episodes])),
        }
        rows.append(head | scores | origin)
    path = folder / "rows" / f"{run.step:09d}_{file_name(extraction)}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path.with_suffix(".seconds.json"), {"seconds": time.monotonic() - started})
    write_json(path, rows)


def _heads(cell: Cell, scale: str, updates: int, extraction: Extraction) -> list[dict[str, Any]]:
    """What tells the rows of an evaluation from all others: the columns of ORDER, for every task and seed."""
    suite = "paper" if extraction == search(cell.agent, run_config(cell, scale, Path()).agent) else "ablations"
    return [
        {"suite": suite, "dataset": cell.dataset, "task": task, "agent": cell.agent, "seed": seed, "updates": updates}
        | settings(extraction)
        for task in cell.tasks
        for seed in cell.seeds
    ]


def _left(cell: Cell, suite: str, scale: str, known: dict[tuple, dict[str, Any]]) -> list[tuple[int, list[Extraction]]]:
    """The evaluations of a cell that have not all their rows among the known ones."""
    found = [
        (
            updates,
            [e for e in wanted if any(_key(head, ORDER) not in known for head in _heads(cell, scale, updates, e))],
        )
        for updates, wanted in evaluations(cell, suite, scale)
    ]
    return [(updates, wanted) for updates, wanted in found if wanted]


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
    rows = _gathered(out / "results.csv", COLUMNS, ORDER)
    timings = _gathered(out / "timings.csv", TIMES, TIMES[:2])
    for path in sorted((out / "cells").glob("*/*/*/rows/*.json")):
        if path.name.endswith(".seconds.json"):
            continue
        rows |= {_key(row, ORDER): {name: str(row[name]) for name in COLUMNS} for row in read_json(path)}
        cell = path.parents[1]
        time_taken = {
            "cell": str(cell.relative_to(out / "cells")),
            "evaluation": path.stem,
            "seconds": round(read_json(path.with_suffix(".seconds.json"))["seconds"], 1),
            "seconds_per_update": seconds_per_update(cell),
        }
        timings[_key(time_taken, TIMES[:2])] = time_taken
    ordered = [rows[key] for key in sorted(rows)]
    write_csv(out / "results.csv", COLUMNS, ordered)
    write_csv(out / "timings.csv", TIMES, [timings[key] for key in sorted(timings)])
    return ordered


def _gathered(path: Path, columns: tuple[str, ...], key: tuple[str, ...]) -> dict[tuple, dict[str, Any]]:
    """The rows of a CSV file that `collect` wrote, none where there is no file."""
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != columns:
            raise EvorError(f"{path} has other columns than this version of evor writes; choose another --out.")
        return {_key(row, key): row for row in reader}


def _key(row: dict[str, Any], columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in columns)


def seconds_per_update(run: Path) -> float:
    """Median over the intervals of a run's log: compilation and resumes stand aside."""
    lines = read_json_lines(run / "timings.jsonl")
    rates = [
        (later["seconds"] - earlier["seconds"]) / (later["step"] - earlier["step"])
        for earlier, later in itertools.pairwise(lines)
        if later["seconds"] > earlier["seconds"] and later["step"] > earlier["step"]
    ]
    return float(np.median(rates)) if rates else math.nan
