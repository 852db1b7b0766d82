"""Datasets a chunk at a time, and sums over all rows that are, to the bit, those that numpy makes of whole arrays.

What is computed in float64 takes many times the memory of a row. So it is computed for some whole episodes at a time.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from evor.types import Episodes

ROWS = 2**15  # of a chunk, where no episode is longer
LEAF = 2**12  # rows that numpy adds at once
UNROLLED = 8  # numpy's pairwise sums end at multiples of it

Blocks = Iterable[Float[np.ndarray, "W n"]]  # the columns of some rows after the other


def chunks(episodes: Episodes) -> Iterator[Episodes]:
    """Some whole episodes after the other, about ROWS rows each: views of the same arrays."""
    stops = np.flatnonzero(episodes.ends) + 1
    start = 0
    while start < len(episodes.ends):
        first, beyond = np.searchsorted(stops, (start, start + ROWS), side="right")
        stop = int(stops[max(beyond - 1, first)])
        rows = slice(start, stop)
        yield episodes._replace(
            observations=episodes.observations[rows],
            actions=episodes.actions[rows],
            rewards=episodes.rewards[:, rows],
            masks=episodes.masks[:, rows],
            ends=episodes.ends[rows],
            bootstrap_only=episodes.bootstrap_only[rows],
            action_known=episodes.action_known[rows],
        )
        start = stop


def add_rows(blocks: Blocks) -> Float[np.ndarray, " W"]:
    """Add row to row, as numpy does where the columns of a row lie side by side in memory."""
    total = None
    for block in blocks:
        rows = np.ascontiguousarray(block.T)
        for start in range(0, len(rows), LEAF):
            part = rows[start : start + LEAF]
            total = np.add.reduce(part if total is None else np.concatenate([total[None], part]), axis=0)
    assert total is not None
    return total


def add_in_pairs(blocks: Blocks, count: int) -> Float[np.ndarray, " W"]:
    """Add `count` rows half to half to half, as numpy does where a column lies in one piece in memory."""
    take = _taking(blocks)

    def add(rows: int) -> np.ndarray:
        if rows <= LEAF:
            return np.add.reduce(take(rows), axis=1)
        half = rows // 2 - rows // 2 % UNROLLED
        first = add(half)
        return first + add(rows - half)

    return add(count)


def _taking(blocks: Blocks) -> Callable[[int], Float[np.ndarray, "W n"]]:
    """A function that returns the next rows of the blocks, as many as it is asked for."""
    following = iter(blocks)
    rest: np.ndarray | None = None

    def take(rows: int) -> np.ndarray:
        nonlocal rest
        parts = []
        while rows:
            block = next(following) if rest is None else rest
            parts.append(block[:, :rows])
            rest = block[:, rows:] if block.shape[1] > rows else None
            rows -= parts[-1].shape[1]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    return take
