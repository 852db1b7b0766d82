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

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # file systems without locks


class Lock:
    """A folder that is held until `release`, or until this object or its process is gone."""

    def __init__(self, descriptor: int):
        self.release = weakref.finalize(self, os.close, descriptor)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(path: Path, work: str) -> Lock:
    """Lock the file `path`, which is made where it is missing, for `work` (`evor train`).

    Raises EvorError, naming who holds it, where it is locked already. The file stays: removing it would let a third
    process lock another one of the same name. On a file system without locks nothing is held.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    lock = Lock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        lock.release()
        raise EvorError(f"{path.parent} is in use by {holder}; wait for it to end, or choose another folder.") from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            lock.release()
            raise
    holder = {
        "work": work,
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # on a full disk the lock still holds
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
    return lock


@contextlib.contextmanager
def briefly(path: Path) -> Generator[None]:
    """Wait for the lock on the file `path` and hold it inside: for reading, changing and writing a shared file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Who wrote the lock file, as far as it tells."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return f"{found['work']} (process {found['process']} on {found['host']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
