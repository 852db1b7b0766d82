"""The paper's experiment as a matrix of cells: trained, played and tabulated by one command that resumes anywhere.

A cell is one dataset, agent and seed, or all seeds at the scales full: a run folder with all tasks, which share the base policy.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from evor.envs.ogbench import check_installed
from evor.errors import EvorError, above, at_least
from evor.experiments.reproduce.datasets import NO_DATA, NO_TIME, Source
from evor.experiments.reproduce.folder import locked, open_reproduction, remaining
from evor.experiments.reproduce.job import Evaluation, Job, JobResult, news_of, run_job, run_logged
from evor.experiments.reproduce.ledger import Ledger
from evor.experiments.reproduce.page import write_paper_report
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import read_reproduction
from evor.experiments.reproduce.suite import Cell, Suite, cells, run_config
from evor.runtime.parallel import TRIES, Local, Ray, default_workers, parallel_map
from evor.runtime.progress import console, progress_bar
from evor.training.config import RunConfig
from evor.training.data import data_spec_of, lay_out


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
    machines: Local | Ray | None = None,
) -> list[dict[str, str]]:
    """Train and play every cell into `out`, then write results.csv, timings.csv and the page. Returns the rows of results.csv.

    Cells are shared out to `machines`: processes of this one, or a Ray cluster. Left out, it is a process per core. Scale full
    is for a GPU: of two processes, one trains while the other plays.
    Finished evaluations are kept, unfinished cells resume where they stopped; `hours` stops cleanly before its time is
    over. A cell that fails leaves its reason, and the others go on. Raises EvorError where `out` belongs to another
    matrix, scale, protocol or recipe, and at the end where a cell failed.
    """
    above(0, hours=hours)
    machines = machines or Local(scale.workers or default_workers())
    if isinstance(machines, Local):
        at_least(1, workers=machines.workers)
    if memory_gb is not None:
        above(0, memory_gb=memory_gb)
    check_installed()
    started = time.monotonic()
    matrix = cells(suite, scale, only=only, seeds=seeds)
    source = Source(data, scale.transitions, expert, deadline=started + 3600 * hours, machines=machines)
    source.check()
    job_of = functools.partial(
        Job,
        here=Path.cwd(),  # jobs may run elsewhere
        out=out,
        suite=suite,
        scale=scale,
        deadline=time.time() + 3600 * hours,
        memory_gb=memory_gb,
        processes=machines.workers if isinstance(machines, Local) else None,
    )
    with locked(out):
        ledger = Ledger(out)
        open_reproduction(out, suite, scale=scale, rows=ledger.rows)
        ledger.write()
        read_reproduction(out).scores()  # fail before hours of work
        progress = Progress(matrix, suite, scale=scale, ledger=ledger)
        try:
            jobs = _jobs(progress, source, job_of=job_of)
            if memory_gb is not None:
                jobs = _laid_out(list(jobs), machines)
            _run(progress, jobs, machines=machines, one_gpu=scale.together)
        finally:  # of what Ctrl-C leaves, too
            ledger.gather([out / "cells" / cell.name for cell in progress.pending])
            ledger.write()
            if ledger.rows:
                console.print(f"wrote {write_paper_report(out)}")
        _conclude(matrix, [cell.name for cell in progress.pending if progress.remains(cell)], ledger=ledger)
    return list(ledger.rows.values())


class Progress:
    """The cells of a call, and which of them are finished."""

    def __init__(self, matrix: list[Cell], suite: Suite, *, scale: Scale, ledger: Ledger):
        self._suite, self._scale, self.ledger = suite, scale, ledger
        self.matrix = matrix
        self.pending = [cell for cell in matrix if self.remains(cell)]
        self._by_name = {cell.name: cell for cell in self.pending}
        for cell in matrix:
            if cell not in self.pending:
                ledger.note(cell.name, "")

    def remains(self, cell: Cell) -> bool:
        """Whether something of a cell is still to be played."""
        return bool(remaining(cell, self._suite, scale=self._scale, rows=self.ledger.rows))

    def enter(self, result: JobResult) -> bool:
        """Keep what became of a job. Returns whether its cell is finished by it."""
        self.ledger.enter(result)
        finished = result.cell in self._by_name and not self.remains(self._by_name[result.cell])
        if finished:
            self.ledger.note(self._by_name.pop(result.cell).name, "")
        return finished

    @contextlib.contextmanager
    def bar(self) -> Generator[Callable[..., None]]:
        """Yield `advance` of a bar of all cells."""
        done = len(self.matrix) - len(self.pending)
        with progress_bar(f"reproduce {self._suite.name}", len(self.matrix), done=done, unit="cells") as advance:
            yield advance


def _run(progress: Progress, jobs: Iterable[Job], *, machines: Local | Ray, one_gpu: bool) -> None:
    """Run the jobs of all cells. A single process shows bars of its own."""
    reads: set[Path] = set()
    if alone := machines == Local(1):
        jobs = _told(jobs, progress.pending)
    elif isinstance(machines, Local):
        machines = Local(machines.workers, pin_cores=not one_gpu, one_gpu=one_gpu)
    else:
        jobs = list(jobs)
        reads = {job.located for job in jobs}
    results = parallel_map(
        run_job if alone else run_logged,
        ((job,) for job in jobs),
        machines,
        shared=progress.ledger.out,
        reads=reads,
        lost=_lost,
        follow=lambda result: [(evaluation,) for evaluation in result.then],
        news=news_of,
        light=lambda work: isinstance(work, Evaluation),
    )
    bar = contextlib.nullcontext(lambda count, note: None) if alone else progress.bar()
    with contextlib.closing(results), bar as advance:
        for result in results:
            advance(int(progress.enter(result)), result.cell)


def _jobs(progress: Progress, source: Source, *, job_of: Callable[..., Job]) -> Iterator[Job]:
    """A job for every cell whose dataset is there or can be made now; the others get their reason."""
    find = functools.cache(source.find)
    for cell in progress.pending:
        folder = find(cell.source)
        if isinstance(folder, str):
            progress.ledger.note(cell.name, folder)
            continue
        if progress.ledger.notes.get(cell.name, "").startswith(NO_DATA):
            progress.ledger.note(cell.name, "")
        yield job_of(cell=cell, data=folder)


def _laid_out(jobs: list[Job], machines: Local | Ray) -> list[Job]:
    """The same jobs, once data under their cap are laid out for all cells that train on them."""
    layouts: dict[Any, RunConfig] = {}
    for job in jobs:
        config = run_config(job.cell, job.scale, data=job.located, memory_gb=job.memory_gb)
        layouts.setdefault((config.data, config.dataset, config.sparse_rewards, data_spec_of(config)), config)
    for config in layouts.values():
        with contextlib.suppress(EvorError):  # it is told by its cells
            lay_out(config, machines)
    return jobs


def _told(jobs: Iterable[Job], pending: list[Cell]) -> Iterator[Job]:
    """The same jobs, each announced as it begins."""
    for job in jobs:
        console.print(f"cell {pending.index(job.cell) + 1} of {len(pending)}: {job.cell.name}")
        yield job


def _lost(why: str, work: Job | Evaluation) -> JobResult:
    """Result of a job that was lost every time."""
    why = f"its process was lost {TRIES} times ({why}); is there memory for so many? Fewer --workers, or larger --cpus, need less"
    return JobResult(cell=work.job.cell.name, why=why)


def _conclude(matrix: list[Cell], unfinished: list[str], *, ledger: Ledger) -> None:
    """Say what is left to do. Raises EvorError where a cell failed."""
    finished = f"{len(matrix) - len(unfinished)} of {len(matrix)} cells are finished"
    if ledger.failed:
        cell, why = next(iter(ledger.failed.items()))
        raise EvorError(
            f"{len(ledger.failed)} of {len(matrix)} cells failed; the others are kept. First: {cell}: {why}"
        )
    if unfinished:
        reasons = [ledger.notes.get(name, NO_TIME) for name in unfinished]
        stuck = all(why.startswith(NO_DATA) and why != NO_TIME for why in reasons)
        remedy = "the others lack data, as told above" if stuck else "the same command goes on"
        console.print(f"{finished}; {remedy}.")
