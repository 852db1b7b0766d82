"""The progress bar that every long job shows: on a terminal it moves, in a log it prints a line now and then."""

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, soft_wrap=True)
LOG_SECONDS = 10.0  # between lines where there is no terminal


@contextmanager
def progress_bar(title: str, total: int, done: int = 0, unit: str = "") -> Generator[Callable[..., None]]:
    """Yield `advance(count, note="")`."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    last_line = time.monotonic()
    with (
        _unswallowed_interrupts() as interrupted,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal last_line
            if interrupted():
                raise KeyboardInterrupt
            bar.update(task, advance=count, note=note)
            completed = int(bar.tasks[0].completed)
            now = time.monotonic()
            if not console.is_terminal and (now - last_line > LOG_SECONDS or completed >= total):
                last_line = now
                console.print(f"{title}: {completed}/{total} {unit} {note}".rstrip(), highlight=False, markup=False)

        yield advance


@contextmanager
def _unswallowed_interrupts() -> Generator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed: raised inside a garbage collector's callback, it is lost.

    Where somebody else handles SIGINT already, it stays with them.
    """
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _in_main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
