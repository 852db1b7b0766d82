"""Files of npz with other names than evor's: flat columns, of which the caller names observations and actions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evor.data.formats.flat import open_flat
from evor.data.formats.hdf5 import ROWS
from evor.data.formats.npz import BOUNDS, declared_bounds
from evor.data.formats.recording import Recording, Wanted, check_file, check_size
from evor.errors import EvorError
from evor.runtime.npz import open_npz

REMEDY = "copy it again, or write it again with numpy.savez."


class NpzTable:
    """Columns of an npz file."""

    def __init__(self, path: Path, *, max_gb: float):
        check_file(path)
        self.path, self._max_gb = path, max_gb
        with open_npz(path, REMEDY) as file:
            self._names = file.names

    def below(self, group: str) -> list[str]:
        """Names of all columns; an npz file has no groups."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        with open_npz(self.path, REMEDY) as file:
            shape, dtype = file.header(name)
        if dtype.kind not in "biuf":
            raise EvorError(f"{self.path}: {name} has type {dtype}, not real numbers; convert it, or leave it out.")
        return shape

    def read(self, name: str) -> np.ndarray:
        with open_npz(self.path, REMEDY) as file:
            check_size(self.path, file.bytes, max_gb=self._max_gb)
            return file[name]

    def pieces(self, names: list[str], *, total: int) -> Iterator[dict[str, np.ndarray]]:
        """The first rows of some columns, a piece at a time."""
        with open_npz(self.path, REMEDY) as file:
            check_size(self.path, file.bytes, max_gb=self._max_gb)
            columns = [file.pieces(name, min(ROWS, total)) for name in names]
            for start, parts in zip(range(0, total, ROWS), zip(*columns, strict=True), strict=False):
                yield {name: part[: total - start] for name, part in zip(names, parts, strict=True)}


def open_named(path: Path, wanted: Wanted) -> Recording:
    """Open an npz file. Bounds of `actions` are those that it holds. Raises EvorError on what can't be read."""
    table = NpzTable(path, max_gb=wanted.max_gb)
    recording = open_flat(table, wanted, kind="npz", unit=False)
    if recording.action_key != "actions":
        return recording
    bounds = declared_bounds(path, {name: table.read(name) for name in BOUNDS if name in table.below("/")})
    if bounds and len(bounds.low) != recording.action_dim:
        raise EvorError(
            f"{path}: actions have {recording.action_dim} columns, action_low and action_high {len(bounds.low)}; give one bound per column."
        )
    return recording._replace(bounds=bounds)
