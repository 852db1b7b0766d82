"""Headers of a dataset's files: how many rows there are, and whether memory and row numbers are enough, before any is read."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evor.data.blocks import rows_that_fit
from evor.data.columns import bytes_per_row, check_rows
from evor.data.formats.archive import shapes
from evor.errors import EvorError
from evor.runtime.memory import free_memory
from evor.types import DataSpec, Spec

CAP = 0.5  # of the free memory: the cap that a refusal proposes


class Header(NamedTuple):
    """Rows of a file, and their widths."""

    file: Path
    rows: int
    spec: Spec
    has_next: bool  # with next_observations there may be twice as many rows


def read_headers(files: Sequence[Path]) -> list[Header] | None:
    """Headers of all files; None where one tells no sizes: its reader says what is wrong."""
    headers = []
    for file in files:
        try:
            widths = shapes(file, "observations", "actions", "next_observations")
            (rows, observation), (_, action) = widths["observations"], widths["actions"]
        except (EvorError, KeyError, ValueError):
            return None
        headers.append(Header(file, int(rows), Spec(int(observation), int(action)), "next_observations" in widths))
    return headers


def fits(headers: list[Header] | None, data_spec: DataSpec, *, num_tasks: int, memory_gb: float) -> bool:
    """Whether a cap holds all of the data: then they are trained on as if there were none."""
    if headers is None:
        return False
    rows = sum(header.rows * (1 + header.has_next) for header in headers)
    return all(
        rows <= rows_that_fit(header.spec, data_spec, num_tasks=num_tasks, memory_gb=memory_gb) for header in headers
    )


def check_memory(headers: list[Header] | None, data_spec: DataSpec, *, num_tasks: int, title: str) -> None:
    """Raise EvorError where memory does not hold all rows, as they are read and as they are trained on."""
    if headers is None:
        return
    spec, free = headers[0].spec, free_memory()
    rows = sum(header.rows for header in headers)
    read = 4 * (sum(spec) + 2 * num_tasks) + 3
    needed = rows * (read + bytes_per_row(spec, data_spec, num_tasks=num_tasks))
    if needed > free:
        raise EvorError(
            f"{title} holds {rows:,} rows, which take {_gib(float(needed))} of memory, and {_gib(free)} are free. Give a cap, and "
            f"they are trained on block by block: memory_gb {_two_digits(CAP * free / 2**30)} (--memory-gb)."
        )


def check_row_numbers(headers: list[Header] | None, *, in_one_piece: bool) -> None:
    """Raise EvorError where an index does not count the rows of all files, or without `in_one_piece` those of one file."""
    if headers is None:
        return
    if in_one_piece:
        check_rows(sum(header.rows for header in headers))
    for header in headers:
        check_rows(header.rows, place=f"{header.file} holds")


def _gib(count: float) -> str:
    return f"{count / 2**30:.3g} GiB"


def _two_digits(number: float) -> str:
    """Two digits, rounded down: what is told to fit does."""
    digit = 10.0 ** (math.floor(math.log10(number)) - 1) if number > 0 else 1.0
    return f"{math.floor(number / digit) * digit:.2g}"
