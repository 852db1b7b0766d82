"""One cell of the matrix as jobs of processes: one trains it, and one plays each of its checkpoints.

An evaluation is left as a file of one row below the cell's run folder, beside one of what it took.
"""

import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.agents.environments import told
from evor.envs.ogbench import REWARD_RULE
from evor.envs.vector import fitting
from evor.errors import EvorError
from evor.experiments.reproduce.datasets import describe
from evor.experiments.reproduce.folder import Remaining, recipe_name, remaining
from evor.experiments.reproduce.matrices import ENTRIES, SPARSE, protocol
from evor.experiments.reproduce.rows import read_stored_rows, rows_for
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import check_coming
from evor.experiments.reproduce.suite import Cell, Suite, run_config
from evor.experiments.reproduce.timing import resumes, whole_seconds_per_update
from evor.nn.engine import keep_programs
from evor.policies.load import open_run
from evor.rollouts.evaluate import file_name
from evor.rollouts.play import Episode, play
from evor.runtime.files import listed, read_json, stamps, write_json
from evor.runtime.locks import waited_for
from evor.runtime.parallel import neighbours, one_thread
from evor.runtime.progress import console, logged, progress_bar
from evor.runtime.provenance import commit, forget_peak_memory, hardware, peak_memory_mib, versions
from evor.search.extraction import Extraction
from evor.training import checkpoint
from evor.training.config import RunConfig
from evor.training.data import dataset_of
from evor.training.folder import CHECKPOINTS
from evor.training.train import Training

PEAK = "training.times.json"  # memory of the training, in a cell's folder


class Job(NamedTuple):
    """Work of one process: one cell that is trained, and how it is done. It may travel to another machine."""

    here: Path  # the driver's working folder
    out: Path
    cell: Cell
    suite: Suite
    scale: Scale
    data: Path  # as the config of the run names it
    deadline: float  # of time.time()
    memory_gb: float | None
    processes: int | None  # that share the memory; None: as many as the machine has cores for

    @property
    def job(self) -> "Job":
        """This job; an evaluation has one, too."""
        return self

    @property
    def located(self) -> Path:
        """The data, from whichever folder this process works in."""
        return self.here / self.data

    @property
    def folder(self) -> Path:
        """The run folder of the cell."""
        return self.here / self.out / "cells" / self.cell.name

    @property
    def log(self) -> Path:
        """The file for messages of a process of its own."""
        return self.folder / "log.txt"

    def late(self, seconds: float = 0.0) -> bool:
        """Whether the deadline comes before so many seconds."""
        return time.time() + seconds > self.deadline


class Evaluation(NamedTuple):
    """Work of one process: a checkpoint that is played. An accelerator trains the next cell meanwhile."""

    job: Job
    updates: int

    @property
    def log(self) -> Path:
        """The file for messages of a process of its own."""
        return self.job.folder / "rows" / f"{self.updates:09d}.log.txt"


class JobResult(NamedTuple):
    """Result of a job. `why` tells the reason where it failed, "" where it did not or only time was short."""

    cell: str
    why: str = ""
    then: tuple[Evaluation, ...] = ()  # what can be played now

    @property
    def failed(self) -> bool:
        """Whether the job failed."""
        return bool(self.why)


def run_logged(work: Job | Evaluation) -> JobResult:
    """Run a job in a process of its own: the bar of the whole belongs to the driver."""
    with logged(work.log):
        return run_job(work)


def run_job(work: Job | Evaluation) -> JobResult:
    """Train or play. What goes wrong with this cell is in the result, whatever it is."""
    one_thread()
    forget_peak_memory()
    why, then = "", ()
    try:
        keep_programs(work.job.here / work.job.out / ".compiled")
        if isinstance(work, Evaluation):
            _play_checkpoint(work)
        else:
            then = _train_cell(work)
    except EvorError as error:
        why = str(error)
    except Exception as error:  # a GPU out of memory, a full disk: the other cells may fit
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = next(iter(str(error).splitlines()), "")
        why = f"{type(error).__name__}: {first} ({Path(frame.filename).name}:{frame.lineno})"
    return JobResult(cell=work.job.cell.name, why=why, then=then)


def news_of(work: Job | Evaluation) -> list[tuple[int, int]]:
    """Stamps of what a job in a process of its own has written so far: it logs something every few seconds of work."""
    return stamps(work.log, work.job.folder / "timings.jsonl")


def _remaining(job: Job) -> Remaining:
    """Evaluations that are still to play, also by what an earlier try has left."""
    return remaining(job.cell, job.suite, scale=job.scale, rows=rows_for(job.here / job.out, job.folder))


def _config(job: Job) -> RunConfig:
    return run_config(job.cell, job.scale, data=job.data, memory_gb=job.memory_gb)


# Training.


def _train_cell(job: Job) -> tuple[Evaluation, ...]:
    """Train to the last evaluation that is to play, as far as there is time. Returns those that have their checkpoint.

    Where another process holds the cell, as one that outlived its machine does, wait for its end.
    """
    if job.late() or not _remaining(job):
        return ()
    out = job.here / job.out
    check_coming(_coming(job), read_stored_rows(out).values(), path=out / "results.csv")
    job.folder.mkdir(parents=True, exist_ok=True)
    with waited_for(job.folder / ".cell.lock"):
        wanted = [updates for updates, _ in _remaining(job)]
        there = set(_trained(job, wanted))
        if missing := [updates for updates in wanted if updates not in there]:
            _train(job, missing, keep=wanted)
        return tuple(Evaluation(job, updates) for updates in _trained(job, wanted))


def _trained(job: Job, wanted: list[int]) -> list[int]:
    folder = job.folder / CHECKPOINTS
    return [updates for updates in wanted if checkpoint.checkpoint_path(folder, updates).is_file()]


def _train(job: Job, missing: list[int], *, keep: list[int]) -> None:
    """Train until the missing checkpoints are there, or time is over."""
    config = _config(job)
    agent, sparse = config.agent, config.sparse_rewards
    if note := told(ENTRIES[job.cell.agent], job.cell.source, config=agent, sparse_rewards=sparse):
        console.print(f"note: {note}")
    dataset = dataset_of(replace(config, data=str(job.located)))
    with Training.open(config, job.folder, resume=True, dataset=dataset, keep=keep) as training:
        if training.step > missing[0]:
            raise EvorError(
                f"{job.folder} has passed {missing[0]} updates without their evaluation; remove it to start anew."
            )
        training.advance(missing[-1], time.monotonic() + job.deadline - time.time())
    write_json(job.folder / PEAK, {"peak_mib": round(peak_memory_mib())})


# Playing.


def _play_checkpoint(evaluation: Evaluation) -> None:
    """Play what is left to play of a checkpoint, as far as there is time; then drop checkpoints that nothing needs any more."""
    job, updates = evaluation
    (job.folder / "rows").mkdir(exist_ok=True)
    with waited_for(job.folder / "rows" / f".{updates:09d}.lock"):
        wanted = dict(_remaining(job)).get(updates, [])
        if wanted and not job.late():
            _play(evaluation, wanted)
    left = [later for later, _ in _remaining(job)]
    newest = max(checkpoint.steps(job.folder / CHECKPOINTS), default=0)
    checkpoint.prune(job.folder / CHECKPOINTS, _config(job).checkpoint_every, keep={newest, *left})


def _play(evaluation: Evaluation, wanted: list[tuple[Extraction, dict[str, Any]]]) -> None:
    """Play searches of tasks and seeds while each can be expected to end in time."""
    job, updates = evaluation
    origin, run = _origin(job), open_run(job.folder, updates)
    for extraction, head in wanted:
        if job.late(_longest(job)):
            return
        started = time.monotonic()
        title = f"play task {head['task']}, seed {head['seed']}, {updates} updates"
        with progress_bar(title, job.scale.episodes, unit="episodes") as advance:
            played = play(
                run.policy(head["task"], head["seed"]),
                job.cell.source,
                task=head["task"],
                extraction=extraction,
                episodes=job.scale.episodes,
                evaluation_seed=0,
                ended=lambda index, episode, advance=advance: advance(1),
                max_episode_steps=job.scale.max_episode_steps,
                parallel=fitting(job.cell.source, job.processes or neighbours()),
            )
        name = f"{updates:09d}_{file_name(extraction)}_task{head['task']}-seed{head['seed']}"
        _write_evaluation(job, name, row=head | _means(played) | origin, seconds=time.monotonic() - started)


def _longest(job: Job) -> float:
    """Seconds of the longest evaluation of the cell so far: what the next is expected to take."""
    times = (read_json(path, seconds=float) for path in listed(job.folder / "rows", "*.times.json"))
    return max((taken["seconds"] for taken in times), default=0.0)


def _means(episodes: list[Episode]) -> dict[str, Any]:
    """Means over the episodes of a row."""
    return {
        "episodes": len(episodes),
        "success": float(np.mean([episode.success for episode in episodes])),
        "return": float(np.mean([episode.total_reward for episode in episodes])),
        "length": float(np.mean([episode.length for episode in episodes])),
    }


def _coming(job: Job) -> dict[str, Any]:
    """Columns that all rows to come share."""
    return {"dataset": job.cell.dataset, "agent": job.cell.agent} | _origin(job)


def _origin(job: Job) -> dict[str, Any]:
    """Provenance of every row of a cell."""
    installed, machine = versions(), hardware()
    recipes = read_json(job.here / job.out / "manifest.json", recipes=dict)["recipes"]
    return {
        "data": describe(job.cell.source, job.located, sparse=job.cell.dataset in SPARSE, memory_gb=job.memory_gb),
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
    training = read_json(job.folder / PEAK, peak_mib=int)["peak_mib"] if (job.folder / PEAK).exists() else 0
    taken = {
        "cell": job.cell.name,
        "evaluation": name,
        "seconds": round(seconds, 1),
        "seconds_per_update": whole_seconds_per_update(job.folder, _config(job)),
        "peak_mib": max(training, round(peak_memory_mib())),
        "resumes": resumes(job.folder),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path.with_suffix(".times.json"), taken)
    write_json(path, row)
