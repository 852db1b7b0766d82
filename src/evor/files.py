"""Writing files so that nothing is ever half-written."""

import csv
import io
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError, why

STALE = 24 * 3600  # seconds without a change after which an unfinished file is of a process that is gone


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary path beside `path`, of a name of its own; renamed to it on success, removed on any failure or interruption."""
    temporary = path.with_name(f".{path.name}.{unique()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def expand(path: str | Path) -> Path:
    """`path` with its leading `~` replaced by the home folder. Raises EvorError where the system knows none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EvorError(
            f"{path}: the system knows no such home folder; set HOME, or give the path without ~."
        ) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in `folder`, a day after they were last touched."""
    for path in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)


def unique() -> str:
    """A part of a file's name that no other process uses, on this machine or another one."""
    return f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"


def check_ours(folder: Path, mark: Path, kind: str) -> None:
    """Raise EvorError where `folder` holds something, and not the `mark` that a `kind` leaves there."""
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; choose a folder for --out.")
    if folder.exists() and not mark.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise EvorError(f"{folder} holds something that is no {kind}; choose another --out.")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, as UTF-8, or nothing."""
    with atomic_path(path) as temporary:  # a path's bytes that were no text in this locale are written as they are
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a whole npz file or nothing."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:  # a stream: savez adds no suffix of its own
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file that `write_npz` wrote. Raises EvorError where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except Exception as error:  # whatever damaged bytes make of a parser
        raise EvorError(
            f"{path} is missing or damaged ({why(error)}); remove it, then generate or evaluate that setting again."
        ) from error


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a whole CSV file or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(
    path: Path, columns: Sequence[str] | None, remedy: str, younger: Sequence[str] = (), growing: bool = False
) -> list[dict[str, str]]:
    """The rows of a CSV file with these columns, none where there is no file. Raises EvorError on anything else.

    Columns may come in any order; with None they are the file's own. Those of `younger` may be missing, as in files of older versions: they are then "".
    A byte order mark, which spreadsheets write, is passed over. Where the file is `growing`, a last line without its
    end is left out. `remedy` says what to do about a file that can't be read.
    """
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvorError(f"{path} is damaged ({error}); {remedy}") from error
    if growing and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = []
    try:
        names = list(reader.fieldnames or ())
        columns = names if columns is None else columns
        missing = [name for name in columns if name not in names and name not in younger]
        foreign = [name for name in names if name not in columns]
        if missing or foreign or len(set(names)) != len(names):
            odd = f"lacks {missing[0]}" if missing else f"has {(foreign or names)[0]!r}"
            raise EvorError(f"{path} has other columns than this version of evor writes (it {odd}); {remedy}")
        for row in reader:
            if None in row or None in row.values():
                raise EvorError(f"line {reader.line_num} of {path} is damaged; {remedy}")
            rows.append({name: row.get(name, "") for name in columns})
    except csv.Error as error:
        raise EvorError(f"{path} is damaged ({error}); {remedy}") from error
    return rows


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or nothing."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, *keys: str, **kinds: type) -> Any:
    """The content of a JSON file, an object with at least these keys, some of a kind. Raises EvorError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvorError(f"{path} is damaged ({error}); restore it or remove it.") from error
