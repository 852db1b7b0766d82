"""Locks on folders, so that two processes never write into one. They end with the process, however it ends."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import weakref
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from evor.errors import EvorError

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # file systems without locks: there nothing is held


class _Kept(NamedTuple):
    """A folder that a job writes into, and its lock where it has one."""

    folder: Path
    work: str
    lock: tuple[int, Path] | None = None


_kept: dict[int, _Kept] = {}  # by an open descriptor of the folder, so that no other one gets its number


class Lock:
    """A file that is locked until `release`, or until this object or its process is gone."""

    def __init__(self, descriptor: int, path: Path, *, folder: int | None = None):
        self.release = weakref.finalize(self, _release, descriptor, path, os.getpid(), folder)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(path: Path, work: str) -> Lock:
    """Lock the file `path` in an existing folder for `work` (`evor train`). The file is gone when the lock ends.

    Raises EvorError, naming who holds it, where it is locked already.
    """
    descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder = {
        "work": work,
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # on a full disk the lock still holds
        os.ftruncate(descriptor, 0)  # of a process that was killed
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
    return Lock(descriptor, path, folder=_keep(_Kept(path.parent, work, (descriptor, path))))


@contextlib.contextmanager
def staying(folder: Path, work: str) -> Generator[None]:
    """Let `check_in_place` find inside that `folder` is the same one. Others may write into it, too."""
    descriptor = _keep(_Kept(folder, work))
    try:
        yield
    finally:
        _forget(descriptor)


def check_in_place(path: Path) -> None:
    """Raise EvorError where a folder above `path` that a job of this process works in was moved, and another one has its name.

    Else the job would go on, and write over what is in there now.
    """
    for descriptor, kept in list(_kept.items()):
        if not path.is_relative_to(kept.folder):
            continue
        with contextlib.suppress(OSError):  # what is gone can't be written into, and writing says so
            is_same = os.path.samestat(os.fstat(descriptor), os.stat(kept.folder))
            if not is_same or (kept.lock and not _is_at(*kept.lock)):
                raise EvorError(
                    f"{kept.folder} was replaced while {kept.work} wrote into it: the folder of that name, or its lock, is "
                    "another one now. What was saved before is where the folder was moved to; resume there."
                )


def _keep(kept: _Kept) -> int | None:
    """Remember a folder; None where the system can't open it: then it is not compared."""
    with contextlib.suppress(OSError):
        descriptor = os.open(kept.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _kept[descriptor] = kept
        return descriptor
    return None


def _forget(descriptor: int | None) -> None:
    if descriptor is not None and _kept.pop(descriptor, None):
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that goes by this name. Raises OSError where there is none."""
    return os.path.samestat(os.fstat(descriptor), os.stat(path))


@contextlib.contextmanager
def waited_for(path: Path) -> Generator[None]:
    """Wait for the lock on the file `path`, in an existing folder, and hold it inside."""
    with Lock(_lock(path, fcntl.LOCK_EX), path):
        yield


def _lock(path: Path, how: int) -> int:
    """A descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise EvorError(
                f"{path.parent} is in use by {holder}; wait for it to end, or choose another folder."
            ) from None
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return descriptor
            os.close(descriptor)
            raise
        except BaseException:  # Ctrl-C while waiting
            os.close(descriptor)
            raise
        # Between opening and locking, who held it may have removed this file, and another process locked a new one.
        with contextlib.suppress(FileNotFoundError):
            if _is_at(descriptor, path):
                return descriptor
        os.close(descriptor)


def _release(descriptor: int, path: Path, process: int, folder: int | None) -> None:
    _forget(folder)
    if process == os.getpid():  # a forked child has a copy of the descriptor, and no lock of its own
        with contextlib.suppress(OSError):
            if _is_at(descriptor, path):  # else another process holds the one that is there
                os.unlink(path)  # while it is still locked
    os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Holder of a lock, as far as its file tells."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"{holder['work']} (process {holder['process']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
