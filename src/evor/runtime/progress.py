"""Output on the terminal: messages, tables, and the progress bar of a long job (in a log file, a line now and then)."""

import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from evor.errors import Terminated

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the end of a line


class _Plain(Console):
    """A console that shows every text as it is: brackets and colons in a user's paths are no markup.

    What would steer the terminal is spelled: names in a stranger's files may hold such characters.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text of a message or of a table's cell."""
        return super().render_str(CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text), **options)

    def write_to(self, file: TextIO | None) -> None:
        """Write into a file; with None, to the terminal again, whichever stream that then is."""
        self._file = file

    def on_broken_pipe(self) -> None:
        """Leave the BrokenPipeError at hand to the command line (rich would end the process)."""
        raise  # called where rich has caught one


console = _Plain(stderr=True, soft_wrap=True)  # messages and bars
screen = _Plain()  # results
LOG_SECONDS = 10.0  # between lines where there is no terminal


@contextmanager
def unsilenced() -> Generator[None]:
    """Let what silences the terminal end with one command: `console.quiet = True` and `screen.quiet = True`."""
    before = console.quiet, screen.quiet
    try:
        yield
    finally:
        console.quiet, screen.quiet = before


@contextmanager
def logged(path: Path) -> Generator[None]:
    """Append messages and bars to a file, which is made with its folder, in place of the terminal; to none where that fails."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    target = path if os.access(path, os.W_OK) else os.devnull
    with open(target, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        console.write_to(file)
        try:
            now = datetime.now().isoformat(timespec="seconds")
            console.print(f"{platform.node()}, process {os.getpid()}, {now}")
            yield
        finally:
            console.write_to(None)


@contextmanager
def hushed(quiet: bool = True) -> Generator[None]:
    """Print no message and no bar inside, where `quiet`."""
    before, console.quiet = console.quiet, quiet or console.quiet
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def progress_bar(title: str, total: int, *, done: int = 0, unit: str = "") -> Generator[Callable[..., None]]:
    """Yield `advance(count, note="")`."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    last_line, completed = time.monotonic(), done
    is_terminal = console.is_terminal  # asked once: many steps are short
    with (
        deferred_interrupts(),
        Progress(*columns, console=console, disable=not is_terminal) as bar,
    ):
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal last_line, completed
            if _interrupt.kind:
                raise _interrupt.kind
            completed += count
            if is_terminal:
                bar.update(task, completed=completed, note=note)
                return
            now = time.monotonic()
            if now - last_line > LOG_SECONDS or completed >= total:
                last_line = now
                console.print(f"{title}: {completed}/{total} {unit} {note}".rstrip())

        yield advance


@contextmanager
def deferred_interrupts() -> Generator[None]:
    """Inside, Ctrl-C and SIGTERM are exceptions, and remembered: one that is raised in a garbage collector's callback is
    lost, and the next step of a progress bar raises it again. Python's traceback of the lost one is not printed.

    Where somebody else handles one of the signals already, it stays with them.
    """
    mine = {
        number: handler
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
        if _in_main_thread() and signal.getsignal(number) == handler
    }
    told = sys.unraisablehook

    def tell_others(lost: Any) -> None:
        if not issubclass(lost.exc_type, Terminated | KeyboardInterrupt):
            told(lost)

    if mine:
        _interrupt.kind, sys.unraisablehook = None, tell_others
    for number in mine:
        signal.signal(number, _note)
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)
        if mine:
            _interrupt.kind, sys.unraisablehook = None, told


_interrupt = SimpleNamespace(kind=None)


def _note(number: int, frame: Any) -> None:
    _interrupt.kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    raise _interrupt.kind


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
