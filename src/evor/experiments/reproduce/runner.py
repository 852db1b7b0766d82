"""The paper's experiment as a matrix of cells: trained, played and tabulated by one command that resumes anywhere.

A cell is one data set, agent and seed (all its tasks in one run folder, so that they share the base policy).
"""

import functools
import hashlib
import itertools
import math
import time
import traceback
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.formats.archive import contents
from evor.data.formats.ogbench import official_folders
from evor.data.scripted.generate import generatable, generate_once, is_ant
from evor.data.scripted.mazes import load_expert
from evor.envs.ogbench import REWARD_RULE, check_installed
from evor.envs.vector import fitting
from evor.errors import EvorError, above, at_least
from evor.experiments.reproduce.folder import Left, alone, claim, collect, known, left_of, recipe_name, write_notes
from evor.experiments.reproduce.page import write_paper_report
from evor.experiments.reproduce.scores import check_coming, read_reproduction
from evor.experiments.reproduce.suite import SCALES, Cell, Scale, cells, protocol, run_config
from evor.policies.load import open_run
from evor.rollouts.evaluate import file_name
from evor.rollouts.play import Episode, play
from evor.runtime.files import read_json, read_json_lines, write_json
from evor.runtime.parallel import default_workers, spread
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import commit, forget_peak_memory, hardware, peak_memory_mib, versions
from evor.training.train import Training

NO_DATA = "no data"  # begins the reason of a cell whose data set is not there
NO_TIME = f"{NO_DATA}: the time was over"


class Job(NamedTuple):
    """What a worker is told about one cell."""

    out: Path
    cell: Cell
    suite: str
    scale: str
    data: Path
    deadline: float
    memory_gb: float | None
    processes: int  # that share the memory

    @property
    def folder(self) -> Path:
        """Of the cell's run."""
        return self.out / "cells" / self.cell.name


class Outcome(NamedTuple):
    """What became of a cell; `why` it is not finished, "" where it is or only time was short."""

    cell: str
    finished: bool
    why: str = ""
    failed: bool = False


def reproduce(
    suite: str,
    scale: str,
    out: Path,
    data: Path,
    only: tuple[str, ...] = (),
    hours: float = math.inf,
    seeds: int | None = None,
    expert: Path | None = None,
    memory_gb: float | None = None,
    workers: int | None = None,
) -> list[dict[str, str]]:
    """Train and play every cell into `out`, then write results.csv, timings.csv and the page. Returns the rows of results.csv.

    Finished evaluations are kept, unfinished cells resume where they stopped; `hours` stops cleanly before its time is
    over. A cell that fails leaves its reason, and the others go on. Raises EvorError where `out` belongs to another
    scale, protocol or recipe, and at the end where a cell failed.
    """
    above(0, hours=hours)
    if workers is not None:
        at_least(1, workers=workers)
    if memory_gb is not None:
        above(0, memory_gb=memory_gb)
    check_installed()
    deadline = time.monotonic() + 3600 * hours
    matrix = cells(suite, scale, only, seeds)
    if data.exists() and not data.is_dir():
        raise EvorError(f"--data {data} is a file; give the folder it lies in.")
    if expert is not None:
        load_expert(expert)  # a wrong one is told before hours of work
    with alone(out):
        claim(out, scale)
        done = collect(out)  # what a killed run had played too
        read_reproduction(out).scores()  # what the page could not be made of is told before hours of work
        left = [cell for cell in matrix if left_of(cell, suite, scale, done)]
        find = functools.cache(lambda dataset: _find_data(dataset, data, SCALES[scale], deadline, expert))
        failed, killed = [], False
        told = read_json(out / "manifest.json", notes=dict)["notes"]
        write_notes(out, {cell.name: "" for cell in matrix if cell not in left})

        def note(outcome: Outcome) -> None:
            if outcome.failed:
                failed.append(f"{outcome.cell}: {outcome.why}")
                console.print(f"failed: {failed[-1]}", style="yellow")
            if outcome.finished or outcome.why:  # where only time was short, what stopped it before still holds
                write_notes(out, {outcome.cell: outcome.why})
            collect(out)

        def jobs() -> Iterator[Job]:
            for cell in left:
                folder = find(cell.dataset)
                if told.get(cell.name, "").startswith(NO_DATA):
                    write_notes(out, {cell.name: ""})
                if isinstance(folder, str):
                    note(Outcome(cell.name, False, folder))
                else:
                    yield Job(out, cell, suite, scale, folder, deadline, memory_gb, number)

        number = workers or (1 if SCALES[scale].together else default_workers())
        try:
            if number == 1:  # here, where training shows bars of its own; data sets are made when they are needed
                for job in jobs():
                    place = f"cell {left.index(job.cell) + 1} of {len(left)}"
                    console.print(f"{place}: {job.cell.name}")
                    note(run_cell(job))
            else:
                with progress_bar(f"reproduce {suite}", len(matrix), len(matrix) - len(left), "cells") as advance:
                    for outcome in spread(_run_quietly, list(jobs()), number, one_core=True):
                        advance(int(outcome.finished), outcome.cell)
                        note(outcome)
        except BrokenProcessPool:
            killed = True
        finally:  # of what Ctrl-C leaves, too
            done = collect(out)
            if done:
                console.print(f"wrote {write_paper_report(out)}")
        unfinished = [cell.name for cell in matrix if left_of(cell, suite, scale, done)]
        finished = f"{len(matrix) - len(unfinished)} of {len(matrix)} cells are finished"
        if unfinished and not failed and not killed:
            notes = read_json(out / "manifest.json", notes=dict)["notes"]
            reasons = [notes.get(name, NO_TIME) for name in unfinished]
            stuck = all(why.startswith(NO_DATA) and why != NO_TIME for why in reasons)
            remedy = "the others lack data, as told above" if stuck else "the same command goes on"
            console.print(f"{finished}; {remedy}.")
    if killed:
        raise EvorError(
            f"{finished}, then a process was killed (is there memory for so many? --workers 1 needs least); the same "
            "command goes on."
        )
    if failed:
        raise EvorError(f"{len(failed)} of {len(matrix)} cells failed; the others are kept. First: {failed[0]}")
    return list(done.values())


def _find_data(dataset: str, data: Path, scale: Scale, deadline: float, expert: Path | None) -> Path | str:
    """The folder with this data set: `data`, OGBench's own, or one that is generated now; or why there is none."""
    generated = data / f"{scale.transitions}-seed0"
    for folder in (data, generated, *official_folders()):
        if (folder / f"{dataset}.npz").is_file():
            return folder
        if (folder / dataset).is_dir():  # of shards
            return folder / dataset
    if dataset not in generatable():
        why = "it can't be generated; put its files into --data"
    elif is_ant(dataset) and expert is None:
        why = "give the ant's walker with --expert FILE.npz to generate it"
    else:
        console.print(
            f"{dataset} is not in {data}: {scale.transitions} transitions are generated into {generated}.",
        )
        try:
            generate_once(dataset, scale.transitions, 0, generated, expert if is_ant(dataset) else None, deadline)
            return generated
        except TimeoutError:
            return NO_TIME
    console.print(f"no data for {dataset}, its cells stay empty: {why}.")
    return f"{NO_DATA}: {why}"


# One cell.


def _run_quietly(*job: Any) -> Outcome:
    console.quiet = True  # the bar of the whole belongs to the parent process
    return run_cell(Job(*job))


def run_cell(job: Job) -> Outcome:
    """Train in laps and play after each. What goes wrong with this cell is in the outcome, whatever it is."""
    forget_peak_memory()
    try:
        return Outcome(job.cell.name, _train_and_play(job))
    except EvorError as error:
        why = str(error)
    except Exception as error:  # a card out of memory, a full disk: the other cells may have room
        place = traceback.extract_tb(error.__traceback__)[-1]
        first = next(iter(str(error).splitlines()), "")
        why = f"{type(error).__name__}: {first} ({Path(place.filename).name}:{place.lineno})"
    return Outcome(job.cell.name, False, why, failed=True)


def _train_and_play(job: Job) -> bool:
    """Whether there was time for all of it."""
    stored = known(job.out)
    left = left_of(job.cell, job.suite, job.scale, stored)
    if not left or time.monotonic() > job.deadline:
        return not left
    origin = _origin(job)
    coming = {"dataset": job.cell.dataset, "agent": job.cell.agent} | origin
    check_coming(stored.values(), coming, job.out / "results.csv")
    with Training.open(run_config(job.cell, job.scale, job.data, job.memory_gb), job.folder, resume=True) as training:
        return _play_what_is_left(job, training, left, origin)


def _play_what_is_left(job: Job, training: Training, left: Left, origin: dict[str, Any]) -> bool:
    """Whether there was time to train to every evaluation and to play it."""
    size = SCALES[job.scale]
    longest = 0.0  # seconds of playing so far: what the next is expected to take
    for updates, wanted in left:
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
            policy = run.select(head["task"], head["seed"])
            played = play(
                policy,
                job.cell.dataset,
                head["task"],
                extraction,
                size.episodes,
                0,
                max_episode_steps=size.max_episode_steps,
                parallel=fitting(job.cell.dataset, job.processes),
            )
            seconds = time.monotonic() - started
            longest = max(longest, seconds)
            name = f"{updates:09d}_{file_name(extraction)}_task{head['task']}-seed{head['seed']}"
            _leave(job, name, head | _means(played) | origin, seconds)
    return True


def _means(episodes: list[Episode]) -> dict[str, Any]:
    """What a row tells of its episodes."""
    return {
        "episodes": len(episodes),
        "success": float(np.mean([episode.success for episode in episodes])),
        "return": float(np.mean([episode.total_reward for episode in episodes])),
        "length": float(np.mean([episode.length for episode in episodes])),
    }


def _origin(job: Job) -> dict[str, Any]:
    """What every row of a cell tells of where it came from."""
    installed, machine = versions(), hardware()
    share = f", {job.memory_gb:g} GB of it at a time" if job.memory_gb is not None else ""
    return {
        "data": _describe_data(job.cell.dataset, job.data) + share,
        "protocol": protocol(job.scale),
        "recipe": recipe_name(job.cell.agent, job.scale, read_json(job.out / "manifest.json", recipes=dict)["recipes"]),
        "reward_rule": REWARD_RULE,
        **{name: installed[name] for name in ("ogbench", "mujoco", "evor", "jax", "python")},
        "hardware": machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}",
        "commit": commit() or "",
    }


def _leave(job: Job, name: str, row: dict[str, Any], seconds: float) -> None:
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


@functools.cache  # a worker has several cells of a data set
def _describe_data(dataset: str, data: Path) -> str:
    """`generated, 300000 transitions, seed 0`, or of which files; equal texts are equal data."""
    note = data / f"{dataset}.json"
    if note.exists():
        made = read_json(note)
        walker = f", walker {made['expert'][:8]}" if "expert" in made else ""
        return f"generated, {made['transitions']} transitions, seed {made['seed']}{walker}"
    whole = data / f"{dataset}.npz"
    files = [whole] if whole.exists() else sorted(data.glob("*.npz"))
    kind = "official" if data in official_folders() else "own"
    digest = hashlib.sha256()
    for file in files:
        digest.update((file.name + contents(file, f"restore it or take it out of {data}").checksums).encode())
    return f"{kind}, {len(files)} files, digest {digest.hexdigest()[:8]}"


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
    """How often a run's clock began anew."""
    lines = read_json_lines(run / "timings.jsonl")
    return sum(later["seconds"] < earlier["seconds"] for earlier, later in itertools.pairwise(lines))
