"""The same function on many jobs, in processes of this machine or on a Ray cluster; results as they end."""

import itertools
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from evor.errors import EvorError

TRIES = 3  # of a job whose process dies or falls silent, in all
GRACE = 60.0  # seconds in which interrupted jobs may save and end
SILENCE = 1800.0  # seconds without news after which a job is taken for hung
POLL = 30.0  # seconds between two looks for news
GPU_MEMORY = 0.9  # of a GPU, or of a share of it, for JAX: its driver needs the rest
MEMORY_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
CORES = "EVOR_CORES"  # a process's share of the machine's cores, where that is not all it may use


@dataclass(frozen=True)
class Local:
    """Processes of this machine. With `pin_cores` each keeps to one core; a single one that does not is this process.

    With `one_gpu` they share one: each may take its part of the memory, and one job at a time runs that is not light.
    """

    workers: int
    pin_cores: bool = False
    one_gpu: bool = False


@dataclass(frozen=True)
class Ray:
    """Machines of a Ray cluster that runs already, at `auto` or HOST:PORT. Every job takes so many GPUs and CPUs.

    Left out, a job takes three quarters of a GPU and four CPUs where the cluster has GPUs, else one CPU.
    """

    address: str
    gpus: float | None = None
    cpus: int | None = None


class Ended(NamedTuple):
    """A job that ended: with a result, with an exception, or (`died`) because its process died."""

    ticket: int
    result: Any = None
    error: BaseException | None = None
    died: str = ""


class RemoteTraceback(Exception):  # noqa: N818 - no error of its own
    """Traceback of an exception in a worker process, as text."""


class Pool(Protocol):
    """Processes that run jobs. A ticket is the number of a job."""

    def submit(self, ticket: int, job: tuple, *, after: int | None = None) -> None:
        """Run function(*job) as soon as there is room: where the pool can, next in the process of the ticket it comes `after`."""
        ...

    def full(self) -> bool:
        """Whether a job waits that follows none, so that the next need not be made yet."""
        ...

    def ended(self, seconds: float | None) -> list[Ended]:
        """Wait until a job ends, for so many seconds at most. Returns those that ended."""
        ...

    def kill(self, ticket: int, why: str) -> None:
        """End a job by force. It ends as one whose process died."""
        ...

    def close(self, *, interrupt: bool) -> None:
        """End every process. With `interrupt`, running jobs get SIGINT first, and GRACE seconds to save and end."""
        ...


def _refuse(why: str, *job: Any) -> Any:
    raise EvorError(
        f"a job was lost {TRIES} times ({why}). Where its process was killed, that is most likely for lack of memory: run the "
        "same command again with fewer --workers, or larger --cpus."
    )


def parallel_map(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    machines: Local | Ray,
    *,
    shared: Path = Path(),
    reads: Iterable[Path] = (),
    lost: Callable[..., Any] = _refuse,
    follow: Callable[[Any], Iterable[tuple]] = lambda result: (),
    news: Callable[..., Any] | None = None,
    light: Callable[..., bool] = lambda *job: False,
) -> Generator[Any]:
    """Yield function(*job) for every job, as each ends: in no order.

    `shared` is an existing folder that all machines must see (the working folder). They must see the paths `reads`, too.
    `follow(result)` gives further jobs. A job whose process dies is tried again, TRIES times in all. So is one that hangs:
    once `news(*job)` has changed, it must change again every SILENCE seconds. Then `lost(why, *job)` is its result; left
    out, it raises EvorError. A `light(*job)` takes a small share of a GPU at most. On this machine one job is taken from
    `jobs` ahead, on a cluster all are.

    An exception of `function` is raised here. Whatever ends this early, as Ctrl-C does, interrupts the jobs that run: each
    gets SIGINT, and GRACE seconds to save.
    """
    if isinstance(machines, Local) and machines.workers <= 1 and not machines.pin_cores:
        one_thread()
        yield from _here(function, jobs, follow=follow)
        return
    pool: Pool
    if isinstance(machines, Local):
        from evor.runtime.processes import Processes

        pool = Processes(function, machines, light=light)
    else:
        from evor.runtime.cluster import Cluster

        pool = Cluster(function, machines, shared=shared, reads=reads, light=light)
    try:
        yield from _results(pool, jobs, lost=lost, follow=follow, news=news)
    except BaseException:
        pool.close(interrupt=True)
        raise
    pool.close(interrupt=False)


def _here(
    function: Callable[..., Any], jobs: Iterable[tuple], *, follow: Callable[[Any], Iterable[tuple]]
) -> Generator[Any]:
    """Run one job after the other in this process, each with what follows it."""
    for job in jobs:
        waiting = deque([job])
        while waiting:
            result = function(*waiting.popleft())
            waiting.extend(follow(result))
            yield result


@dataclass
class _Try:
    """A job under way: how often it was tried, its latest news, and since when there were none (None: it waits)."""

    job: tuple
    count: int = 0
    latest: Any = None
    since: float | None = None


def _results(
    pool: Pool,
    jobs: Iterable[tuple],
    *,
    lost: Callable[..., Any],
    follow: Callable[[Any], Iterable[tuple]],
    news: Callable[..., Any] | None,
) -> Generator[Any]:
    """Submit all jobs, those that follow, and again those that were lost; yield what comes of them."""
    tries: dict[int, _Try] = {}
    tickets, coming = itertools.count(), iter(jobs)

    def submit(ticket: int, trial: _Try, *, after: int | None) -> None:
        tries[ticket] = trial
        trial.count, trial.since = trial.count + 1, None
        trial.latest = news(*trial.job) if news else None
        pool.submit(ticket, trial.job, after=after)

    def fill() -> bool:
        """Submit what there is room for. Returns whether anything is under way."""
        while not pool.full() and (job := next(coming, None)) is not None:
            submit(next(tickets), _Try(job), after=None)
        return bool(tries)

    looked = time.monotonic()
    while fill():
        for ended in pool.ended(POLL if news else None):
            trial = tries.pop(ended.ticket)
            if ended.error is not None:
                raise ended.error
            if ended.died and trial.count < TRIES:
                submit(ended.ticket, trial, after=ended.ticket)
                continue
            result = lost(ended.died, *trial.job) if ended.died else ended.result
            for job in follow(result):
                submit(next(tickets), _Try(job), after=ended.ticket)
            yield result
        if news and time.monotonic() - looked >= POLL:  # not at every end: there may be thousands
            looked = time.monotonic()
            for ticket, trial in tries.items():
                _watch(pool, ticket, trial=trial, latest=news(*trial.job))


def _watch(pool: Pool, ticket: int, *, trial: _Try, latest: Any) -> None:
    """Kill a job without news."""
    now = time.monotonic()
    if latest != trial.latest:
        trial.latest, trial.since = latest, now
    elif trial.since is not None and now - trial.since > SILENCE:
        trial.since = None
        pool.kill(ticket, f"no news for {SILENCE / 60:.0f} minutes")


# Threads and cores.


def one_thread() -> None:
    """Ask XLA for one thread on the CPU, unless PJRT_NPROC says otherwise; to be called before JAX's first computation.

    Networks of this size lose more by passing work between threads than they gain (docs/performance.md): what there is
    to do at once goes to processes.
    """
    os.environ.setdefault("PJRT_NPROC", "1")


def variables_of(machines: Local) -> dict[str, str]:
    """Environment of each of several processes: of a GPU its part of the memory, and the cores that the others leave."""
    if not machines.one_gpu:
        return {}
    fraction = os.environ.get(MEMORY_FRACTION, f"{GPU_MEMORY / machines.workers:.3f}")
    cores = (default_workers() - 1) // max(1, machines.workers - 1)  # the heavy job needs one
    return {MEMORY_FRACTION: fraction, CORES: str(max(1, cores))}


def default_workers() -> int:
    """One process per core this process may use, or of its share (EVOR_CORES)."""
    return int(os.environ.get(CORES) or len(usable_cores()))


def neighbours() -> int:
    """Processes with a share like this one's that the machine has cores for, this one included."""
    return max(1, len(usable_cores()) // default_workers())


def exit_with_parent() -> None:
    """End this process with its parent, however that ends, so that a restarted run never races an orphaned worker."""

    def wait(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=wait, args=(parent,), daemon=True).start()


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
