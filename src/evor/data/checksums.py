"""SHA-256 of files, computed by a thread while their rows are read."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from evor.runtime.progress import progress_bar

PIECE = 2**22  # bytes that are read at a time


class Checksums:
    """Checksums of some files. Leaving the context stops what is not finished."""

    def __init__(self, files: Sequence[Path]):
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(1, "evor-checksums")
        self._found = [self._pool.submit(self._digest, file) for file in files]

    def __enter__(self) -> "Checksums":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def wait(self) -> list[str]:
        """Wait for all of them, as hexadecimal texts in the order of the files."""
        done = sum(one.done() for one in self._found)
        if done == len(self._found):
            return [one.result() for one in self._found]
        told = [one.result() for one in self._found[:done]]
        with progress_bar("checksums", len(self._found), done=done, unit="files") as advance:
            for one in self._found[done:]:
                told.append(one.result())
                advance(1)
        return told

    def _digest(self, file: Path) -> str:
        digest = sha256()
        with open(file, "rb") as stream:
            while part := stream.read(PIECE):
                if self._stopped.is_set():
                    raise CancelledError
                digest.update(part)
        return digest.hexdigest()
