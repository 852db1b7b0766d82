"""A disk that fills: below a folder, the k-th write of this process writes half of its bytes and fails, and all after it fail."""

import builtins
import contextlib
import errno
import io
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

NEVER = 10**9


class Disk:
    """Counts what is written below a folder, and is full from the write `fills` on."""

    def __init__(self, folder: Path, fills: int):
        self.folder, self.fills = os.path.realpath(folder), fills
        self.events = 0
        self.versions: dict[str, list[bytes]] = defaultdict(list)  # of every file that was renamed to its final name

    def holds(self, path: Any) -> bool:
        """Whether a path lies below the folder."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor
        return os.path.realpath(os.fsdecode(path)).startswith(self.folder + os.sep)

    def remember(self, path: Path) -> None:
        """Keep what a file, or every file of a folder, is now."""
        for file in (path, *path.rglob("*")):
            if file.is_file():
                self.versions[os.path.relpath(os.path.realpath(file), self.folder)].append(file.read_bytes())

    def write(self) -> None:
        """Count an event. Raises OSError where the disk is full."""
        self.events += 1
        if self.events >= self.fills:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Raw(io.FileIO):
    """A file on such a disk. Buffers lie above it, so that errors come when these are flushed, as real ones do."""

    def __init__(self, disk: Disk, path: Any, mode: str):
        self._disk = disk
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        content = bytes(data)
        try:
            self._disk.write()
        except OSError:
            if self._disk.events == self._disk.fills:  # what was written is not written again when the buffer is closed
                super().write(content[: len(content) // 2])
            raise
        return super().write(content)


class _Writer(io.BufferedIOBase):
    """Writes through a buffer. It is no BufferedWriter, so that numpy calls `write` and does not go past it."""

    def __init__(self, raw: _Raw):
        self._inside = io.BufferedWriter(raw)
        for name in ("write", "flush", "seek", "tell", "truncate", "fileno", "writable", "seekable", "close"):
            setattr(self, name, getattr(self._inside, name))

    @property
    def closed(self) -> bool:
        return self._inside.closed


class _Random(io.BufferedRandom):
    """Without a descriptor, so that PIL writes through it and not past it."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextlib.contextmanager
def filling_disk(folder: Path, fills: int = NEVER) -> Generator[Disk]:
    """Inside, what this process writes below `folder` goes to a disk that is full from the write number `fills` (from 1)."""
    disk, real_open, real = Disk(folder, fills), io.open, {name: getattr(os, name) for name in OPERATIONS}

    def open_(file: Any, mode: str = "r", buffering: int = -1, *texts: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or not disk.holds(file):
            return real_open(file, mode, buffering, *texts, **options)
        if "r" not in mode and not os.path.exists(file):
            _with_name(disk.write, file)
        raw = _Raw(disk, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = (_Random if "+" in mode else _Writer)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *texts, **options)

    def low_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT and disk.holds(path) and not os.path.exists(path):
            _with_name(disk.write, path)
        return real["open"](path, flags, *rest, **options)

    def make(path: Any, *rest: Any, **options: Any) -> None:
        if disk.holds(path) and not os.path.exists(path):
            _with_name(disk.write, path)
        real["mkdir"](path, *rest, **options)

    def move(how: str) -> Any:
        def moved(source: Any, target: Any, **options: Any) -> None:
            if disk.holds(target):
                _with_name(disk.write, target)
            real[how](source, target, **options)
            if disk.holds(target):
                disk.remember(Path(target))

        return moved

    changed = {"open": low_open, "mkdir": make, "replace": move("replace"), "rename": move("rename")}
    with contextlib.ExitStack() as stack:
        for name, function in changed.items():
            stack.enter_context(mock.patch.object(os, name, function))
        for module in (builtins, io):
            stack.enter_context(mock.patch.object(module, "open", open_))
        yield disk


OPERATIONS = ("open", "mkdir", "replace", "rename")


def _with_name(write: Any, path: Any) -> None:
    """As the system says it: of a file that can't be made it gives the name."""
    try:
        write()
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
