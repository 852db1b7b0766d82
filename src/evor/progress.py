"""The progress bar that every long job shows: on a terminal it moves, in a log it prints a line now and then."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

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
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal last_line
            bar.update(task, advance=count, note=note)
            completed = int(bar.tasks[0].completed)
            now = time.monotonic()
            if not console.is_terminal and (now - last_line > LOG_SECONDS or completed >= total):
                last_line = now
                console.print(f"{title}: {completed}/{total} {unit} {note}".rstrip(), highlight=False, markup=False)

        yield advance
