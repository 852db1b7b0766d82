"""Processes of this machine that run jobs. One that dies takes no other job along."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from evor.runtime import parallel
from evor.runtime.parallel import (
    Ended,
    Local,
    RemoteTraceback,
    exit_with_parent,
    one_thread,
    usable_cores,
    variables_of,
)


class Processes:
    """Pool on this machine: a slot for every process, so that one that dies takes no other job along."""

    def __init__(self, function: Callable[..., Any], machines: Local, *, light: Callable[..., bool]):
        cores, variables = usable_cores(), variables_of(machines)
        pinned = [cores[index % len(cores)] if machines.pin_cores else None for index in range(machines.workers)]
        self._all = [_Slot(function, core, variables=variables) for core in pinned]
        self._one_gpu, self._light = machines.one_gpu, light
        self._idle = list(self._all)
        self._busy: dict[Any, tuple[_Slot, int]] = {}
        self._heavy: int | None = None  # the ticket that has the GPU
        self._new: deque[tuple[int, tuple]] = deque()
        self._ran: dict[int, _Slot] = {}  # slots of the tickets that ended last

    def submit(self, ticket: int, job: tuple, *, after: int | None = None) -> None:
        waiting = self._ran[after].own if after in self._ran else self._new
        waiting.append((ticket, job))

    def full(self) -> bool:
        self._start()
        return bool(self._new)

    def ended(self, seconds: float | None) -> list[Ended]:
        self._start()
        self._ran, ended = {}, []
        for pipe in connection.wait(list(self._busy), seconds):
            slot, ticket = self._busy.pop(pipe)
            ended.append(Ended(ticket, *slot.answer()))
            self._ran[ticket] = slot
            self._idle.append(slot)
            if ticket == self._heavy:
                self._heavy = None
        return ended

    def _start(self) -> None:
        """Give idle processes what waits."""
        for slot in sorted(self._idle, key=lambda slot: not slot.own):
            if waiting := self._next(slot):
                ticket, job = waiting.popleft()
                if self._one_gpu and not self._light(*job):
                    self._heavy = ticket
                slot.give(job)
                self._idle.remove(slot)
                self._busy[slot.pipe] = slot, ticket

    def _next(self, slot: "_Slot") -> deque[tuple[int, tuple]] | None:
        """Queue that a process takes from: of what follows its own jobs, else of what follows none, else another's.

        A GPU that is shared never waits for light jobs: a heavy one goes first, and the next waits for its end.
        """
        longest = max(self._all, key=lambda other: len(other.own))
        queues = [self._new, slot.own, longest.own] if self._one_gpu else [slot.own, self._new, longest.own]
        return next((queue for queue in queues if queue and self._may_run(*queue[0][1])), None)

    def _may_run(self, *job: Any) -> bool:
        return not self._one_gpu or self._heavy is None or self._light(*job)

    def kill(self, ticket: int, why: str) -> None:
        for slot, busy in self._busy.values():
            if busy == ticket:
                slot.kill(why)

    def close(self, *, interrupt: bool) -> None:
        if interrupt:
            for slot, _ in self._busy.values():
                slot.interrupt()
        deadline = time.monotonic() + parallel.GRACE
        for slot in self._all:
            slot.end(deadline)


class _Slot:
    """Room for one process, which is started for its first job and again for the first after its death."""

    def __init__(self, function: Callable[..., Any], core: int | None, *, variables: dict[str, str]):
        self._function, self._options = function, {"core": core, "variables": variables}
        # Tickets and jobs that follow one of this slot: what it has compiled serves them.
        self.own: deque[tuple[int, tuple]] = deque()
        self._process: Any = None
        self._why = ""  # it was killed
        self.pipe: Connection

    def give(self, job: tuple) -> None:
        """Send a job to the process."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, self._function), kwargs=self._options)
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
            why, self._why = self._why, ""
            return None, None, why or (f"killed by signal {-code}" if code < 0 else f"ended with code {code}")
        if error is None:
            return result, None, ""
        error, text = error
        if isinstance(error, KeyboardInterrupt):  # not the parent's: somebody ended this one process, and it has saved
            return None, None, "interrupted"
        error.__cause__ = RemoteTraceback(text)
        return None, error, ""

    def interrupt(self) -> None:
        os.kill(self._process.pid, signal.SIGINT)

    def kill(self, why: str) -> None:
        self._why = why
        self._process.kill()

    def end(self, deadline: float) -> None:
        """Close the pipe, and kill the process where it has not ended by then."""
        if self._process is not None:
            self.pipe.close()
            try:
                self._process.join(max(0.0, deadline - time.monotonic()))
            finally:  # a second Ctrl-C does not wait
                self._process.kill()
                self._process.join()


def _work(pipe: Connection, function: Callable[..., Any], *, core: int | None, variables: dict[str, str]) -> None:
    """Answer jobs until the parent closes the pipe."""
    os.environ.update(variables)
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
