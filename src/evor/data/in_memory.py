"""Data in memory: all columns at once, for every update."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evor.data.columns import Columns
from evor.data.standardisation import Standardisation
from evor.types import Spec


class InMemoryData(NamedTuple):
    """All columns at once."""

    spec: Spec
    scale: Standardisation
    digest: str
    notes: tuple[str, ...]
    num_rows: int
    all_columns: Columns
    num_blocks: int = 1

    def block(self, index: int) -> Columns:
        return self.all_columns

    def first_row(self, index: int) -> int:
        """The row of the dataset that a block begins with."""
        return 0

    def changed(self, change: Callable[[int, Columns], Columns]) -> "InMemoryData":
        """The same data with columns that are `change(0, columns)`."""
        return self._replace(all_columns=change(0, self.all_columns))

    def columns(self, step: int) -> Columns:
        return self.all_columns

    def updates_left(self, step: int) -> int:
        return sys.maxsize


def on_device(columns: dict[str, Any]) -> Columns:
    """Columns on the device. They are taken out of the dict, and freed one after the other."""
    return Columns(**{name: jax.tree.map(jnp.asarray, columns.pop(name)) for name in list(columns)})
