"""The paper's experiment as a matrix of cells: trained, played and tabulated by one command that resumes anywhere.

A cell is one dataset, agent and seed (all its tasks in one run folder, so that they share the base policy).
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from evor.envs.ogbench import check_installed
from evor.errors import EvorError, above, at_least
from evor.experiments.reproduce.datasets import NO_DATA, NO_TIME, Source
from evor.experiments.reproduce.folder import collect, locked, open_reproduction, read_notes, remaining, write_notes
from evor.experiments.reproduce.job import CellResult, Job, run_job, run_quietly
from evor.experiments.reproduce.page import write_paper_report
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import read_reproduction
from evor.experiments.reproduce.suite import Cell, Suite, cells
from evor.runtime.parallel import TRIES, Local, default_workers, parallel_map
from evor.runtime.progress import console, progress_bar


def reproduce(
    suite: Suite,
    scale: Scale,
    *,
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
    matrix, scale, protocol or recipe, and at the end where a cell failed.
    """
    above(0, hours=hours)
    if workers is not None:
        at_least(1, workers=workers)
    if memory_gb is not None:
        above(0, memory_gb=memory_gb)
    check_installed()
    deadline = time.monotonic() + 3600 * hours
    matrix = cells(suite, scale, only=only, seeds=seeds)
    source = Source(data=data, transitions=scale.transitions, expert=expert, deadline=deadline)
    source.check()
    number = workers or (1 if scale.together else default_workers())
    job_of = functools.partial(
        Job, out=out, suite=suite, scale=scale, deadline=deadline, memory_gb=memory_gb, processes=number
    )
    with locked(out):
        open_reproduction(out, suite, scale=scale)
        done = collect(out)  # what a killed run had played too
        read_reproduction(out).scores()  # fail before hours of work
        pending = [cell for cell in matrix if remaining(cell, suite, scale=scale, rows=done)]
        write_notes(out, {cell.name: "" for cell in matrix if cell not in pending})
        ledger = Ledger(out)
        jobs = _jobs(pending, source, job_of=job_of, ledger=ledger)
        try:
            if number == 1:
                _run_here(jobs, ledger, pending=pending)
            else:
                with progress_bar(
                    f"reproduce {suite.name}", len(matrix), done=len(matrix) - len(pending), unit="cells"
                ) as advance:
                    _run_in_processes(jobs, ledger, number=number, advance=advance)
        finally:  # of what Ctrl-C leaves, too
            done = collect(out)
            if done:
                console.print(f"wrote {write_paper_report(out)}")
        unfinished = [cell.name for cell in matrix if remaining(cell, suite, scale=scale, rows=done)]
        _conclude(matrix, unfinished, ledger=ledger)
    return list(done.values())


class Ledger:
    """Records of finished cells: reasons go into the manifest, rows into results.csv."""

    def __init__(self, out: Path):
        self.out = out
        self.failed: list[str] = []

    def enter(self, result: CellResult) -> None:
        """Keep what became of a cell."""
        if result.failed:
            self.failed.append(f"{result.cell}: {result.why}")
            console.print(f"failed: {self.failed[-1]}", style="yellow")
        if result.finished or result.why:  # where only time was short, what stopped it before still holds
            write_notes(self.out, {result.cell: result.why})
        collect(self.out)


def _jobs(pending: list[Cell], source: Source, *, job_of: Callable[..., Job], ledger: Ledger) -> Iterator[Job]:
    """A job for every cell whose dataset is there; the others get their reason."""
    find = functools.cache(source.find)
    for cell in pending:
        folder = find(cell.dataset)
        if read_notes(ledger.out).get(cell.name, "").startswith(NO_DATA):
            write_notes(ledger.out, {cell.name: ""})
        if isinstance(folder, str):
            ledger.enter(CellResult(cell=cell.name, finished=False, why=folder))
        else:
            yield job_of(cell=cell, data=folder)


def _run_here(jobs: Iterator[Job], ledger: Ledger, *, pending: list[Cell]) -> None:
    """Run one job after the other: training shows bars of its own, and datasets are made when they are needed."""
    for job in jobs:
        position = f"cell {pending.index(job.cell) + 1} of {len(pending)}"
        console.print(f"{position}: {job.cell.name}")
        ledger.enter(run_job(job))


def _run_in_processes(jobs: Iterator[Job], ledger: Ledger, *, number: int, advance: Callable[[int, str], None]) -> None:
    """Run the jobs in so many processes."""
    machines = Local(number, pin_cores=True)
    for result in parallel_map(run_quietly, ((job,) for job in jobs), machines, lost=_lost):
        advance(int(result.finished), result.cell)
        ledger.enter(result)


def _lost(why: str, job: Job) -> CellResult:
    """Result of a cell whose process died every time."""
    why = f"its process died {TRIES} times ({why}); is there memory for so many? --workers 1 needs least"
    return CellResult(cell=job.cell.name, finished=False, why=why, failed=True)


def _conclude(matrix: list[Cell], unfinished: list[str], *, ledger: Ledger) -> None:
    """Say what is left to do. Raises EvorError where a cell failed."""
    finished = f"{len(matrix) - len(unfinished)} of {len(matrix)} cells are finished"
    if ledger.failed:
        raise EvorError(
            f"{len(ledger.failed)} of {len(matrix)} cells failed; the others are kept. First: {ledger.failed[0]}"
        )
    if unfinished:
        notes = read_notes(ledger.out)
        reasons = [notes.get(name, NO_TIME) for name in unfinished]
        stuck = all(why.startswith(NO_DATA) and why != NO_TIME for why in reasons)
        remedy = "the others lack data, as told above" if stuck else "the same command goes on"
        console.print(f"{finished}; {remedy}.")
