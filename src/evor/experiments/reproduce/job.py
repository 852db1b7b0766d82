"""One cell of the matrix as a job of a process: it trains in laps and plays after each.

An evaluation is left as a file of one row below the cell's run folder, beside one of what it took.
"""

import itertools
import math
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.agents.environments import told
from evor.envs.ogbench import REWARD_RULE
from evor.envs.vector import fitting
from evor.errors import EvorError
from evor.experiments.reproduce.datasets import describe
from evor.experiments.reproduce.folder import Remaining, read_stored_rows, recipe_name, remaining
from evor.experiments.reproduce.matrices import ENTRIES, protocol
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import check_coming
from evor.experiments.reproduce.suite import Cell, Suite, run_config
from evor.policies.load import open_run
from evor.rollouts.evaluate import file_name
from evor.rollouts.play import Episode, play
from evor.runtime.files import read_json, read_json_lines, write_json
from evor.runtime.progress import console
from evor.runtime.provenance import commit, forget_peak_memory, hardware, peak_memory_mib, versions
from evor.training.train import Training


class Job(NamedTuple):
    """Work of one process: one cell, and how it is done."""

    out: Path
    cell: Cell
    suite: Suite
    scale: Scale
    data: Path
    deadline: float
    memory_gb: float | None
    processes: int  # that share the memory

    @property
    def folder(self) -> Path:
        """The run folder of the cell."""
        return self.out / "cells" / self.cell.name


class CellResult(NamedTuple):
    """Result of a cell. `why` tells the reason where it is not finished, "" where it is or only time was short."""

    cell: str
    finished: bool
    why: str = ""
    failed: bool = False


def run_quietly(job: Job) -> CellResult:
    """Run a job in a process of its own."""
    console.quiet = True  # the bar of the whole belongs to the parent process
    return run_job(job)


def run_job(job: Job) -> CellResult:
    """Train in laps and play after each. What goes wrong with this cell is in the outcome, whatever it is."""
    forget_peak_memory()
    try:
        return CellResult(cell=job.cell.name, finished=_train_and_play(job))
    except EvorError as error:
        why = str(error)
    except Exception as error:  # a GPU out of memory, a full disk: the other cells may fit
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = next(iter(str(error).splitlines()), "")
        why = f"{type(error).__name__}: {first} ({Path(frame.filename).name}:{frame.lineno})"
    return CellResult(cell=job.cell.name, finished=False, why=why, failed=True)


def _train_and_play(job: Job) -> bool:
    """Whether there was time for all of it."""
    stored = read_stored_rows(job.out)
    pending = remaining(job.cell, job.suite, scale=job.scale, rows=stored)
    if not pending or time.monotonic() > job.deadline:
        return not pending
    origin = _origin(job)
    coming = {"dataset": job.cell.dataset, "agent": job.cell.agent} | origin
    check_coming(coming, stored.values(), path=job.out / "results.csv")
    config = run_config(job.cell, job.scale, data=job.data, memory_gb=job.memory_gb)
    if note := told(ENTRIES[job.cell.agent], job.cell.dataset, config=config.agent):
        console.print(f"note: {note}")
    with Training.open(config, job.folder, resume=True) as training:
        return _play_remaining(job, training, pending=pending, origin=origin)


def _play_remaining(job: Job, training: Training, *, pending: Remaining, origin: dict[str, Any]) -> bool:
    """Whether there was time to train to every evaluation and to play it."""
    longest = 0.0  # seconds of playing so far: what the next is expected to take
    for updates, wanted in pending:
        if training.step > updates:
            raise EvorError(
                f"{job.folder} has passed {updates} updates without their evaluation; remove it to start anew."
            )
        if not training.advance(updates, job.deadline):
            return False
        run = open_run(job.folder)
        for extraction, head in wanted:
            started = time.monotonic()
            if started + longest > job.deadline:
                return False
            policy = run.policy(head["task"], head["seed"])
            played = play(
                policy,
                job.cell.dataset,
                task=head["task"],
                extraction=extraction,
                episodes=job.scale.episodes,
                evaluation_seed=0,
                max_episode_steps=job.scale.max_episode_steps,
                parallel=fitting(job.cell.dataset, job.processes),
            )
            seconds = time.monotonic() - started
            longest = max(longest, seconds)
            name = f"{updates:09d}_{file_name(extraction)}_task{head['task']}-seed{head['seed']}"
            _write_evaluation(job, name, row=head | _means(played) | origin, seconds=seconds)
    return True


def _means(episodes: list[Episode]) -> dict[str, Any]:
    """Means over the episodes of a row."""
    return {
        "episodes": len(episodes),
        "success": float(np.mean([episode.success for episode in episodes])),
        "return": float(np.mean([episode.total_reward for episode in episodes])),
        "length": float(np.mean([episode.length for episode in episodes])),
    }


def _origin(job: Job) -> dict[str, Any]:
    """Provenance of every row of a cell."""
    installed, machine = versions(), hardware()
    recipes = read_json(job.out / "manifest.json", recipes=dict)["recipes"]
    share = f", {job.memory_gb:g} GB of it at a time" if job.memory_gb is not None else ""
    return {
        "data": describe(job.cell.dataset, job.data) + share,
        "protocol": protocol(job.suite.matrix, job.scale),
        "recipe": recipe_name(job.cell.agent, job.scale, dataset=job.cell.dataset, recipes=recipes),
        "reward_rule": REWARD_RULE,
        **{name: installed[name] for name in ("ogbench", "mujoco", "evor", "jax", "python")},
        "hardware": machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}",
        "commit": commit() or "",
    }


def _write_evaluation(job: Job, name: str, *, row: dict[str, Any], seconds: float) -> None:
    """An evaluation as a file of one row, and one of what it took."""
    path = job.folder / "rows" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    taken = {
        "cell": job.cell.name,
        "evaluation": name,
        "seconds": round(seconds, 1),
        "seconds_per_update": seconds_per_update(job.folder),
        "peak_mib": round(peak_memory_mib()),
        "resumes": _resumes(job.folder),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path.with_suffix(".times.json"), taken)
    write_json(path, row)


def seconds_per_update(run: Path, quantile: float = 0.5) -> float:
    """Median (or another quantile) over the intervals of a run's log: compilation and resumes stand aside."""
    lines = read_json_lines(run / "timings.jsonl")
    rates = [
        (later["seconds"] - earlier["seconds"]) / (later["step"] - earlier["step"])
        for earlier, later in itertools.pairwise(lines)
        if later["seconds"] > earlier["seconds"] and later["step"] > earlier["step"]
    ]
    return float(np.quantile(rates, quantile)) if rates else math.nan


def _resumes(run: Path) -> int:
    """Number of times that a run was resumed, by its clock."""
    lines = read_json_lines(run / "timings.jsonl")
    return sum(later["seconds"] < earlier["seconds"] for earlier, later in itertools.pairwise(lines))
