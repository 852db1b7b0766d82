"""Writing files so that nothing is ever half-written."""

import csv
import io
import json
import os
import zipfile
import zlib
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
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; choose a folder for --out.")
    if folder.exists() and not mark.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise EvorError(f"{folder} holds something that is no {kind}; choose another --out.")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole npz file or nothing."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:  # a stream: savez adds no suffix of its own
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file that `write_npz` wrote. Raises EvorError where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise EvorError(
            f"{path} is missing or damaged ({error}); remove it, then generate or evaluate that setting again."
        ) from error


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


def read_json(path: Path, *keys: str, **kinds: type) -> Any:
    """The content of a JSON file, an object with at least these keys, some of a kind. Raises EvorError where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvorError(f"{path} is damaged ({error}); restore it or start anew.") from error
    if not isinstance(content, dict):
        raise EvorError(f"{path} is damaged (it holds no object); restore it or start anew.")
    for key in (*keys, *kinds):
        if key not in content:
            raise EvorError(f"{path} is damaged (it lacks {key!r}); restore it or start anew.")
        if key in kinds and not isinstance(content[key], kinds[key]):
            raise EvorError(f"{path} is damaged ({key!r} is no {kinds[key].__name__}); restore it or start anew.")
    return content


def read_json_lines(path: Path) -> list[Any]:
    """The lines of a log, none where there is no file. Raises EvorError where one is damaged."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvorError(f"{path} is damaged ({error}); restore it or remove it.") from error
