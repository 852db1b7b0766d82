"""Draws of a base policy on disk: npy files that grow row by row, and what they were drawn with."""

import io
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError, why
from evor.runtime.files import read_json, sweep, write_json
from evor.runtime.locks import check_in_place
from evor.runtime.progress import progress_bar

TOLD = "proposals.json"  # what was drawn with, and how long it took


class DrawnRows:
    """A folder of arrays [N, ...], float32: NAME.npy, and proposals.json beside them.

    Files grow by blocks of rows, and blocks that are there stay. They belong to an identity. Draws of another one are
    made anew, or refused where `keep` is asked for.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        block: int,
        identity: dict[str, Any],
        keep: bool = False,
    ):
        self._folder, self._names, self._shape = folder, names, shape
        self._block, self._identity, self._keep = block, identity, keep
        self._header = npy_header(shape)

    def draw(
        self, draw_rows: Callable[[int, int], Float[np.ndarray, "B ..."]], stop: Callable[[], object], *, ahead: int = 0
    ) -> bool:
        """Draw the rows that are missing. Returns False where `stop()` says so before all are drawn.

        `draw_rows(index, row)` returns the block from a row on, for the file with this index; `ahead` more blocks are
        drawn in other threads meanwhile. Raises EvorError where the folder can't be written, or keeps other draws.
        """
        started = time.monotonic()
        try:
            told = self._claim()
            try:
                complete = self._draw(draw_rows, stop, ahead=ahead)
            finally:
                seconds = round(told["seconds"] + time.monotonic() - started, 1)
                write_json(self._folder / TOLD, told | {"seconds": seconds})
        except OSError as error:
            raise EvorError(f"{self._folder} can't be written ({why(error)}); free some space and resume.") from error
        return complete

    def read(self) -> list[Float[np.ndarray, "N ..."]]:
        """The arrays on disk, after `draw` has made them."""
        return [np.load(self._path(index), mmap_mode="r") for index in range(len(self._names))]

    def _draw(self, draw_rows: Callable[[int, int], np.ndarray], stop: Callable[[], object], *, ahead: int) -> bool:
        rows = self._shape[0]
        done = [self._rows(index) for index in range(len(self._names))]
        with progress_bar("draw proposals", rows * len(done), done=sum(done), unit="rows") as advance:
            for index, first in enumerate(done):
                if first == rows:
                    continue
                check_in_place(self._path(index))
                with open(self._path(index), "ab") as file, ThreadPoolExecutor(max(ahead, 1)) as pool:
                    waiting: deque = deque()
                    for row in range(first, rows, self._block):
                        if not ahead:  # in this thread, where signals can be handled
                            advance(append_rows(file, draw_rows(index, row)))
                        else:
                            waiting.append(pool.submit(draw_rows, index, row))
                        if len(waiting) > ahead:
                            advance(append_rows(file, waiting.popleft().result()))
                        if stop():
                            return False
                    while waiting:
                        advance(append_rows(file, waiting.popleft().result()))
                    file.flush()
                    os.fsync(file.fileno())
        return True

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._names[index]}.npy"

    def _rows(self, index: int) -> int:
        """Rows of whole blocks in a file, which is cut to them: a block is always computed as one."""
        path, width = self._path(index), 4 * int(np.prod(self._shape[1:]))
        size = path.stat().st_size if path.exists() else 0
        rows = max(min((size - len(self._header)) // width, self._shape[0]), 0)
        rows = rows if rows == self._shape[0] else rows // self._block * self._block
        with open(path, "r+b" if path.exists() else "wb") as file:
            file.write(self._header)  # with room for the digits of more rows, so that what follows it stays in place
            file.truncate(len(self._header) + rows * width)
        return rows

    def _claim(self) -> dict[str, Any]:
        """Make the folder, remove what was drawn with something else, and return what is told of the draws."""
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep(self._folder, seconds=0)  # whoever draws holds the lock on the folder, or on the run around it
        path = self._folder / TOLD
        if path.exists():
            told = read_json(path, seconds=float)
            if told.items() >= self._identity.items():
                return told
            if self._keep:
                name = next(name for name, value in self._identity.items() if told.get(name) != value)
                raise EvorError(
                    f"{self._folder} holds other proposals ({name} is {told.get(name)!r}, not {self._identity[name]!r}); "
                    "choose another folder, or remove it."
                )
        for name in self._names:
            (self._folder / f"{name}.npy").unlink(missing_ok=True)
        write_json(path, told := self._identity | {"seconds": 0.0})
        return told


def npy_header(shape: tuple[int, ...]) -> bytes:
    """First bytes of an npy file of float32; as many for any number of rows."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def append_rows(file: BinaryIO, drawn: np.ndarray) -> int:
    """Append rows to an npy file of float32. Returns how many."""
    file.write(np.ascontiguousarray(drawn, "<f4").tobytes())
    return len(drawn)
