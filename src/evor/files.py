"""Writing files so that nothing is ever half-written."""

import csv
import io
import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary path beside `path`; renamed to it on success, removed on any failure or interruption."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_ours(folder: Path, mark: Path, kind: str) -> None:
    """Raise EvorError where `folder` holds something, and not the `mark` that a `kind` leaves there."""
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise EvorError(f"{folder} holds something that is no {kind}; choose another --out.")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole npz file or nothing."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:  # a stream: savez adds no suffix of its own
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a whole CSV file or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or nothing."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises EvorError where it is damaged."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvorError(f"{path} is damaged ({error}); restore it or start anew.") from error
