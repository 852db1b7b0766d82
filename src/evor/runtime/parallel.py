"""The same function on many jobs, in processes of this machine; results as they end."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from evor.errors import EvorError

TRIES = 3  # of a job whose process dies, in all
GRACE = 60.0  # seconds in which interrupted jobs may save and end


@dataclass(frozen=True)
class Local:
    """Processes of this machine. With `pin_cores` each keeps to one core; a single one that does not is this process."""

    workers: int
    pin_cores: bool = False


class Ended(NamedTuple):
    """A job that ended: with a result, with an exception, or (`died`) because its process died."""

    ticket: int
    result: Any = None
    error: BaseException | None = None
    died: str = ""


class Pool(Protocol):
    """Processes that run jobs. A ticket is the number of a job."""

    def submit(self, ticket: int, job: tuple) -> None:
        """Run function(*job) as soon as there is room."""
        ...

    def ended(self, seconds: float | None) -> list[Ended]:
        """Wait until a job ends, for so many seconds at most. Returns those that ended."""
        ...

    def close(self, *, interrupt: bool) -> None:
        """End every process. With `interrupt`, running jobs get SIGINT first, and GRACE seconds to save and end."""
        ...


def _refuse(why: str, *job: Any) -> Any:
    raise EvorError(
        f"a job's process died {TRIES} times ({why}), most likely for want of memory; run the same command again with "
        "fewer --workers."
    )


def parallel_map(
    function: Callable[..., Any],
    jobs: Iterable[tuple],
    machines: Local,
    *,
    lost: Callable[..., Any] = _refuse,
) -> Generator[Any]:
    """Yield function(*job) for every job, as each ends: in no order.

    A job whose process dies is tried again, TRIES times in all. Then `lost(why, *job)` is its result; left out, it
    raises EvorError. An exception of `function` is raised here. Whatever ends this early, as Ctrl-C does, interrupts
    the jobs that run: each gets SIGINT, and GRACE seconds to save.
    """
    if machines.workers <= 1 and not machines.pin_cores:
        one_thread()
        yield from (function(*job) for job in jobs)
        return
    given = list(jobs)
    pool: Pool = _Processes(function, min(machines.workers, len(given)), pin_cores=machines.pin_cores)
    try:
        yield from _results(pool, given, lost=lost)
    except BaseException:
        pool.close(interrupt=True)
        raise
    pool.close(interrupt=False)


def _results(pool: Pool, jobs: list[tuple], *, lost: Callable[..., Any]) -> Generator[Any]:
    """Submit all jobs, and again those whose process died; yield what comes of them."""
    tries = [1] * len(jobs)
    for ticket, job in enumerate(jobs):
        pool.submit(ticket, job)
    left = len(jobs)
    while left:
        for ended in pool.ended(None):
            if ended.error is not None:
                raise ended.error
            if ended.died and tries[ended.ticket] < TRIES:
                tries[ended.ticket] += 1
                pool.submit(ended.ticket, jobs[ended.ticket])
                continue
            left -= 1
            yield lost(ended.died, *jobs[ended.ticket]) if ended.died else ended.result


class RemoteTraceback(Exception):  # noqa: N818 - no error of its own
    """Traceback of an exception in a worker process, as text."""


class _Slot:
    """Room for one process, which is started for its first job and again for the first after its death."""

    def __init__(self, function: Callable[..., Any], core: int | None):
        self._function, self._core = function, core
        self._process: Any = None
        self.pipe: Connection

    def give(self, job: tuple) -> None:
        """Send a job to the process."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, self._function), kwargs={"core": self._core})
            self._process.start()
            theirs.close()
        with contextlib.suppress(BrokenPipeError):  # it died idle: what is read next is the end
            self.pipe.send(job)

    def answer(self) -> tuple[Any, BaseException | None, str]:
        """Read a result, an exception, or why the process died."""
        try:
            result, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.pipe.close()
            self._process.join()
            code, self._process = self._process.exitcode, None
            return None, None, f"killed by signal {-code}" if code < 0 else f"it ended with code {code}"
        if error is None:
            return result, None, ""
        error, text = error
        if isinstance(error, KeyboardInterrupt):  # not the parent's: somebody ended this one process, and it has saved
            return None, None, "interrupted"
        error.__cause__ = RemoteTraceback(text)
        return None, error, ""

    def interrupt(self) -> None:
        os.kill(self._process.pid, signal.SIGINT)

    def end(self, deadline: float) -> None:
        """Close the pipe, and kill the process where it has not ended by then."""
        if self._process is not None:
            self.pipe.close()
            try:
                self._process.join(max(0.0, deadline - time.monotonic()))
            finally:  # a second Ctrl-C does not wait
                self._process.kill()
                self._process.join()


class _Processes:
    """Pool on this machine: a slot for every process, so that one that dies takes no other job along."""

    def __init__(self, function: Callable[..., Any], number: int, *, pin_cores: bool):
        cores = usable_cores()
        self._idle = [_Slot(function, cores[index % len(cores)] if pin_cores else None) for index in range(number)][
            ::-1
        ]
        self._all = tuple(self._idle)
        self._busy: dict[Any, tuple[_Slot, int]] = {}
        self._waiting: deque[tuple[int, tuple]] = deque()

    def submit(self, ticket: int, job: tuple) -> None:
        self._waiting.append((ticket, job))

    def ended(self, seconds: float | None) -> list[Ended]:
        while self._waiting and self._idle:
            slot, (ticket, job) = self._idle.pop(), self._waiting.popleft()
            slot.give(job)
            self._busy[slot.pipe] = slot, ticket
        ended = []
        for pipe in connection.wait(list(self._busy), seconds):
            slot, ticket = self._busy.pop(pipe)
            ended.append(Ended(ticket, *slot.answer()))
            self._idle.append(slot)
        return ended

    def close(self, *, interrupt: bool) -> None:
        if interrupt:
            for slot, _ in self._busy.values():
                slot.interrupt()
        deadline = time.monotonic() + GRACE
        for slot in self._all:
            slot.end(deadline)


def _work(pipe: Connection, function: Callable[..., Any], *, core: int | None) -> None:
    """Answer jobs until the parent closes the pipe."""
    os.setpgid(0, 0)  # Ctrl-C on the terminal is the parent's, who passes it on once: a second one would not save
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` has it ignored
    exit_with_parent()
    one_thread()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            job = pipe.recv()
            pipe.send(_answer(function, job))


def _answer(function: Callable[..., Any], job: tuple) -> tuple[Any, tuple[BaseException, str] | None]:
    """Return a result and None, or None and an exception with its traceback as text."""
    try:
        return function(*job), None
    except BaseException as error:
        return None, (error, "".join(traceback.format_exception(error)))


# Threads and cores.


def one_thread() -> None:
    """Ask XLA for one thread on the CPU, unless PJRT_NPROC says otherwise; to be called before JAX's first computation.

    Networks of this size lose more by passing work between threads than they gain (docs/performance.md): what there is
    to do at once goes to processes.
    """
    os.environ.setdefault("PJRT_NPROC", "1")


def default_workers() -> int:
    """One process per core this process may use."""
    return len(usable_cores())


def exit_with_parent() -> None:
    """End this process with its parent, however that ends, so that a restarted run never races an orphaned worker."""

    def wait(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=wait, args=(parent,), daemon=True).start()


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
