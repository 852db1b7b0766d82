"""HDF5 files that anybody may have made: no link leads out of the file, and no more is read than is allowed."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.recording import check_file, check_size, require
from evor.errors import EvorError, why

ROWS = 2**16  # that are read at a time
DEPTH = 20  # of groups inside each other


class Hdf5:
    """An open HDF5 file, whose groups and datasets are asked for by their path."""

    def __init__(self, path: Path, *, max_gb: float):
        check_file(path)
        self._h5py = require("h5py")
        self.path, self._max_gb, self._size = path, max_gb, 0
        self._seen: set[str] = set()
        try:
            self._file = self._h5py.File(path, "r")
        except OSError as error:
            raise EvorError(f"{path} is no HDF5 file, or is cut or damaged ({why(error)}); copy it again.") from error

    def names(self, group: str = "/") -> list[str]:
        """Names in a group, [] where there is no such group."""
        node = self._node(group)
        return list(node) if isinstance(node, self._h5py.Group) else []

    def is_group(self, name: str) -> bool:
        return isinstance(self._node(name), self._h5py.Group)

    def is_dataset(self, name: str) -> bool:
        return isinstance(self._node(name), self._h5py.Dataset)

    def below(self, group: str) -> list[str]:
        """Paths of all datasets below a group, inside it: `a`, `b/c`."""
        if group.count("/") > DEPTH:
            raise EvorError(
                f"{self.path}: {group[:40]}... is nested too deeply, or holds itself; copy the columns into another file."
            )
        paths: list[str] = []
        for name in self.names(group):
            inner = f"{group.rstrip('/')}/{name}"
            paths += [f"{name}/{more}" for more in self.below(inner)] if self.is_group(inner) else [name]
        return paths

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._dataset(name).shape)

    def texts(self, name: str) -> list[str]:
        """A short list of names, as masks hold them. Raises EvorError where it is none."""
        node = self._dataset(name)
        if node.ndim != 1 or node.dtype.kind not in "SO" or node.size > 10**7:
            raise EvorError(f"{self.path}: {name} is no list of names; name another mask.")
        return [value.decode() if isinstance(value, bytes) else str(value) for value in self._read(node, slice(None))]

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a dataset of real numbers. Raises EvorError."""
        node = self._dataset(name)
        self._check(name, node)
        return self._read(node, rows)

    def pieces(self, names: list[str], *, total: int) -> Iterator[dict[str, np.ndarray]]:
        """All rows of some datasets, a piece at a time."""
        for start in range(0, total, ROWS):
            yield {name: self.read(name, slice(start, min(start + ROWS, total))) for name in names}

    def _check(self, name: str, node: Any) -> None:
        if name in self._seen:
            return
        if node.dtype.kind not in "biuf":
            raise EvorError(
                f"{self.path}: {name} has type {node.dtype}, not real numbers; convert it, or leave it out."
            )
        self._size += math.prod(node.shape) * node.dtype.itemsize
        check_size(self.path, self._size, max_gb=self._max_gb)
        self._seen.add(name)

    def _dataset(self, name: str) -> Any:
        node = self._node(name)
        if not isinstance(node, self._h5py.Dataset):
            raise EvorError(f"{self.path} has no dataset {name}; repair the file, or name another column.")
        return node

    def _read(self, node: Any, rows: slice) -> np.ndarray:
        try:
            return node[rows]
        except (OSError, RuntimeError) as error:
            raise EvorError(f"{self.path} is cut or damaged at {node.name} ({why(error)}); copy it again.") from error

    def _node(self, name: str) -> Any:
        """A group or dataset inside this file, None where there is none. Raises EvorError on what leads out of it."""
        node: Any = self._file
        try:
            for part in filter(None, name.split("/")):
                link = node.get(part, getlink=True) if isinstance(node, self._h5py.Group) else None
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise EvorError(
                        f"{self.path}: {name} is a link ({type(link).__name__}), which evor does not follow; copy what it "
                        "leads to into the file."
                    )
                node = node[part]
        except (OSError, RuntimeError, KeyError) as error:
            raise EvorError(f"{self.path} is cut or damaged at {name} ({why(error)}); copy it again.") from error
        if isinstance(node, self._h5py.Dataset) and (node.external or node.is_virtual):
            raise EvorError(
                f"{self.path}: {name} keeps its values in other files, which evor does not open; copy them into one file."
            )
        return node
