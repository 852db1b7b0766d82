"""Writing files so that nothing is ever half-written, and reading files that anything may have happened to."""

import csv
import errno
import io
import json
import os
import platform
import secrets
import shutil
import time
import types
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError, why
from evor.runtime.locks import Lock, check_in_place, hold
from evor.runtime.npz import open_npz

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STALE = 24 * 3600  # seconds without a change after which an unfinished file is of a process that is gone


# Writing.


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary path beside `path`, of a name of its own; renamed to it on success, removed on any failure or interruption.

    Raises EvorError where the system can't write: the old file, if any, stays.
    """
    temporary = path.parent / f".{path.name}.{unique()}.partial"  # a path such as "." has no name
    with _writing(path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    """Say of an error of the system which file it is about, and what to do."""
    check_in_place(path)
    try:
        yield
    except OSError as error:
        remedy = (
            "Free some space, then run the same again, with resume (--resume) where there is one."
            if error.errno in FULL
            else "Check that the folder exists and can be written."
        )
        raise EvorError(
            f"{path} could not be written ({why(error)}); what was saved before is untouched. {remedy}"
        ) from error


def append_text(path: Path, text: str) -> None:
    """Add text to a log. A full disk may leave a part of its last line, which readers of logs pass over."""
    with _writing(path), open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


def expand(path: str | Path) -> Path:
    """`path` with its leading `~` replaced by the home folder. Raises EvorError where the system knows none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EvorError(
            f"{path}: the system knows no such home folder; set HOME, or give the path without ~."
        ) from error


def folder_of(path: Path) -> Path:
    """The folder itself, or the one that a file lies in."""
    return path if path.is_dir() else path.parent


def name_of(folder: Path) -> str:
    """The name of a folder, also of one that is called "." or ".."."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def listed(folder: Path, pattern: str) -> list[Path]:
    """Paths of a folder that match a pattern, sorted, without hidden ones: macOS leaves "._NAME" beside every file it copies."""
    _check_listable(folder)
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _check_listable(folder: Path) -> None:
    """Raise PermissionError where a folder may not be read: glob takes it for empty."""
    if folder.is_dir():
        os.scandir(folder).close()


def numbered(folder: Path, prefix: str, *, suffix: str = "") -> dict[int, Path]:
    """Paths of a folder that are called PREFIX, a number and SUFFIX, by their numbers, the least first; copies are no such."""
    _check_listable(folder)
    found = {path.name.removeprefix(prefix).removesuffix(suffix): path for path in folder.glob(f"{prefix}*{suffix}")}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def sweep(folder: Path, seconds: float = STALE) -> None:
    """Remove the temporary files and folders that killed processes left in `folder`, so long after they were last touched.

    Who holds the lock on a folder need not wait: 0 seconds.
    """
    for path in folder.glob(".*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds:
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)


def hold_own(folder: Path, work: str) -> Lock:
    """Lock an existing folder that is for `work` alone, and remove what killed processes left in it. Raises EvorError, see `hold`."""
    lock = hold(folder / ".lock", work)
    sweep(folder, seconds=0)
    return lock


def unique() -> str:
    """A part of a file's name that no other process uses, on this machine or another one."""
    return f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"


def stamps(*paths: Path) -> list[tuple[int, int]]:
    """Sizes and times of files, those that there are: equal ones say that nothing was written meanwhile."""
    told = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            told.append((status.st_size, status.st_mtime_ns))
    return told


def check_ours(folder: Path, mark: Path, *, kind: str) -> None:
    """Raise EvorError where `folder` holds something, and not the `mark` that a `kind` leaves there."""
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; choose a folder.")
    if folder.exists() and not mark.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise EvorError(f"{folder} holds something that is no {kind}; choose another folder.")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing. What UTF-8 lacks (parts of names that are no text) is spelled."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a whole npz file or nothing. Arrays are asked for one after the other, as numpy.asarray asks."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:  # a stream: savez adds no suffix of its own
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def write_csv(path: Path, columns: Sequence[str], *, rows: Iterable[dict[str, Any]]) -> None:
    """Write a whole CSV file or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or nothing."""
    write_text(path, json.dumps(content, indent=2) + "\n")


# Reading.


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file that `write_npz` wrote. Raises EvorError where it is missing or damaged."""
    with open_npz(path, "remove it, then generate or evaluate that setting again.") as stored:
        stored.check_memory(stored.bytes, share=0.5)
        return {name: stored[name] for name in stored.names}


def read_csv(
    path: Path, columns: Sequence[str] | None, *, remedy: str, younger: Sequence[str] = (), growing: bool = False
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
        raise EvorError(f"{path} is damaged ({why(error)}); {remedy}") from error
    if not text.strip() and growing:
        return []
    if not text.strip():
        raise EvorError(f"{path} is empty; {remedy}")
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
            raise EvorError(f"{path} has other columns than are needed (it {odd}); {remedy}")
        for row in reader:
            if None in row or None in row.values():
                raise EvorError(f"line {reader.line_num} of {path} is damaged; {remedy}")
            rows.append({name: row.get(name, "") for name in columns})
    except csv.Error as error:
        raise EvorError(f"{path} is damaged ({why(error)}); {remedy}") from error
    return rows


def read_json(path: Path, *keys: str, **kinds: Any) -> Any:
    """The content of a JSON file, an object with at least these keys, some of a kind. Raises EvorError where it is damaged.

    A kind is a type; [kind], a list of such; {str: kind}, an object of such; or {"key": kind, ...}, an object with at
    least these keys.
    """
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")), dict.fromkeys(keys, object) | kinds)
    except (ValueError, RecursionError) as error:  # no JSON or UTF-8, a number of 5000 digits; nested too deeply
        raise EvorError(f"{path} is damaged ({why(error)}); restore it or start anew.") from error


def read_json_lines(path: Path, **kinds: Any) -> list[Any]:
    """The lines of a log, none where there is no file: objects with at least these keys, of a kind as in `read_json`.

    A last line that was half written is left out. Raises EvorError where another one is damaged.
    """
    if not path.exists():
        return []
    try:
        *lines, _ = path.read_bytes().split(b"\n")
        return [_checked(json.loads(line.decode("utf-8")), kinds) for line in lines]
    except (ValueError, RecursionError) as error:
        raise EvorError(f"{path} is damaged ({why(error)}); restore it or remove it.") from error


def _checked(value: Any, kind: Any, *, name: str = "") -> Any:
    """The value, if it is of a kind (see `read_json`). Raises ValueError."""
    wanted = kind if isinstance(kind, type | types.UnionType) else type(kind)
    if not isinstance(value, wanted) or (wanted is int and (isinstance(value, bool) or abs(value) > 2**63)):
        plain = {dict: "object", list: "list"}.get(wanted, getattr(wanted, "__name__", wanted))
        raise ValueError(f"{name!r} is no {plain}" if name else f"it holds no {plain}")
    if isinstance(kind, list):
        for each in value:
            _checked(each, kind[0], name=name)
    elif isinstance(kind, dict) and str in kind:
        for key, each in value.items():
            _checked(each, kind[str], name=key)
    elif isinstance(kind, dict):
        for key, inner in kind.items():
            if key not in value:
                raise ValueError(f"it lacks {key!r}")
            _checked(value[key], inner, name=key)
    return value
