"""Pieces of a generated dataset on disk, and the files that are put together from them."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.runtime.files import write_npz
from evor.runtime.npz import Npz, open_npz


class Piece(NamedTuple):
    """Some episodes in a file of their own, kept until all are there."""

    path: Path
    episodes: range


class File(NamedTuple):
    """A file of the dataset, and the pieces that it is put together from."""

    path: Path
    pieces: tuple[Piece, ...]


class _Joined:
    """An array of a file that is put together from pieces. It takes memory only while numpy asks for it."""

    def __init__(self, name: str, pieces: tuple[Piece, ...], *, rows: list[int]):
        self._name, self._pieces, self._rows = name, pieces, rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        joined, start = None, 0
        for piece, rows in zip(self._pieces, self._rows, strict=True):
            with _opened(piece) as stored:
                part = stored[self._name]
            joined = np.empty((sum(self._rows), *part.shape[1:]), part.dtype) if joined is None else joined
            joined[start : start + rows] = part
            start += rows
        assert joined is not None
        return joined


def join_pieces(file: File) -> None:
    """Write a file from its pieces, with one array in memory at a time."""
    rows = []
    for piece in file.pieces:
        with _opened(piece) as stored:
            names = stored.names
            rows.append(stored.header(names[0])[0][0])
    write_npz(file.path, {name: _Joined(name, file.pieces, rows=rows) for name in names})


def join_shard(file: File) -> None:
    """Write a shard from its pieces, and remove these."""
    join_pieces(file)
    for piece in file.pieces:
        piece.path.unlink(missing_ok=True)


def _opened(piece: Piece) -> AbstractContextManager[Npz]:
    return open_npz(piece.path, "remove it, and the same command makes it again.")
