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

from evor.errors import EvorError

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # file systems without locks: there nothing is held


class Lock:
    """A file that is locked until `release`, or until this object or its process is gone."""

    def __init__(self, descriptor: int, path: Path):
        self.release = weakref.finalize(self, _release, descriptor, path, os.getpid())

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
    return Lock(descriptor, path)


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
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        os.close(descriptor)


def _release(descriptor: int, path: Path, process: int) -> None:
    if process == os.getpid():  # a forked child has a copy of the descriptor, and no lock of its own
        with contextlib.suppress(OSError):
            os.unlink(path)  # while it is still locked
    os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Holder of a lock, as far as its file tells."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"{holder['work']} (process {holder['process']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
