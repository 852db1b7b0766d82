"""Data larger than memory, block by block.

A block is some whole episodes that follow each other, from one part of the store or from several. Training visits the
blocks pass by pass, each pass in a new random order, and stays with each in proportion to its rows, so that every row of
the data is as likely as any other. The next block is read while the current one trains.
"""

import contextlib
import copy
import ctypes
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor.data.columns import Assembly, Columns, bytes_per_row, memory_bytes, standardise
from evor.data.parts import Part
from evor.data.standardisation import Standardisation, standardisation
from evor.data.store import Store
from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.runtime.memory import size_text
from evor.types import DataSpec, Spec

BLOCKS_PER_CAP = 5  # blocks that the cap must hold: one trains, one waits, and reading one takes three times its size
SLACK = 1.5  # times the rows that the cap allows, for the sake of whole episodes
MOST_ROWS = 2**30  # of a block: an index counts them
PASSES = 8  # visits to a block while its rows are drawn once: few, and the newest block is what the networks remember
MIN_UPDATES_PER_BLOCK = 10  # updates; shorter visits would read more often than train
MMAP_THRESHOLD = -3  # mallopt's number for it (malloc.h)


class Block(NamedTuple):
    """Some rows of the dataset, whose parts lie end to end."""

    start: int
    end: int
    count: int  # rows among them that may be drawn


def rows_that_fit(spec: Spec, data_spec: DataSpec, *, num_tasks: int, memory_gb: float) -> int:
    """Rows that a cap lets training hold at a time."""
    return int(min(memory_gb * 2**30 / BLOCKS_PER_CAP / bytes_per_row(spec, data_spec, num_tasks=num_tasks), MOST_ROWS))


class Blocks:
    """The data of a training run, a block at a time. Which block a step trains on depends on seed and step alone."""

    def __init__(self, store: Store, data_spec: DataSpec, *, memory_gb: float, batch_size: int, seed: int):
        _return_freed_memory()
        self.spec, self.digest = store.summary.spec, store.digest
        self.scale: Standardisation = standardisation(
            store.statistics, data_spec, action_bounds=store.summary.action_bounds
        )
        self._parts = store.parts
        self._starts = np.cumsum([0, *(part.rows for part in store.parts)])  # of the parts
        self.blocks = self._cut(store, data_spec, memory_gb=memory_gb)
        counts = np.array([block.count for block in self.blocks])
        self.num_rows = int(counts.sum())
        self._size = max(block.end - block.start for block in self.blocks)
        self._most = int(counts.max())
        draws = counts.mean() / batch_size  # updates that draw every row of a block once
        self._stride = batch_size * int(np.clip(draws // MIN_UPDATES_PER_BLOCK, 1, PASSES))  # rows of a pass per update
        self._counts, self._seed = counts, seed
        self._pass = functools.lru_cache(2)(self._draw_pass)
        needed = memory_bytes(
            self.spec, data_spec, rows=self._size, transitions=self._most, num_tasks=len(store.summary.tasks)
        )
        self.notes = (*store.notes, f"{len(counts)} blocks of data, {size_text(needed)} each in memory")
        if len(counts) > 1 and self._most < batch_size:
            per_row = needed / self._most * BLOCKS_PER_CAP / 2**30
            self.notes += (
                f"memory_gb {memory_gb:g} holds {self._most:,} transitions at a time, fewer than a batch of {batch_size}: "
                f"updates see the same few rows; {_at_least(2 * batch_size * per_row)} would do",
            )
        self._current: tuple[int, Columns] | None = None
        self._next: tuple[int, Future] | None = None
        self._reader = ThreadPoolExecutor(1, "read-block")
        self._change: Callable[[int, Columns], Columns] = lambda index, columns: columns

    def schedule(self, step: int) -> tuple[int, int]:
        """The block that update `step` draws from, and how many updates it stays.

        A pass is all transitions in a row, block after block, and an update moves on by as many as a batch (times PASSES)
        takes. A pass begins at a random place, so that a block is as likely as it is large, also where an update leaps
        over several.
        """
        if len(self.blocks) == 1:
            return 0, sys.maxsize
        number, within = divmod(step * self._stride, self.num_rows)
        order, ends, begin = self._pass(number)
        position = (begin + within) % self.num_rows
        index = int(np.searchsorted(ends, position, side="right"))
        rest = min(int(ends[index]) - position, self.num_rows - within)
        return int(order[index]), -(-rest // self._stride)

    def _draw_pass(self, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The order of the blocks, where each ends, and where the pass begins."""
        generator = np.random.default_rng([self._seed, number])
        order = generator.permutation(len(self.blocks))
        return order, np.cumsum(self._counts[order]), int(generator.integers(self.num_rows))

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def block(self, index: int) -> Columns:
        """The columns of one block, as they are laid out."""
        return self._lay_out(index)

    def first_row(self, index: int) -> int:
        """The row of the dataset that a block begins with."""
        return self.blocks[index].start

    def changed(self, change: Callable[[int, Columns], Columns]) -> "Blocks":
        """The same data with blocks whose columns are `change(index, columns)`, after earlier changes."""
        if self._next is not None:
            self._next[1].result()
        self._current = self._next = None  # two objects would hold twice as many blocks
        other, before = copy.copy(self), self._change
        other._change = lambda index, columns: change(index, before(index, columns))
        return other

    def updates_left(self, step: int) -> int:
        """Updates from `step` on that share its columns."""
        return self.schedule(step)[1]

    def columns(self, step: int) -> Columns:
        """The columns of update `step`, on the device."""
        wanted, stays = self.schedule(step)
        if self._current is None or self._current[0] != wanted:
            ready = self._next[1].result() if self._next is not None and self._next[0] == wanted else self._read(wanted)
            self._current, self._next = (wanted, ready), None
        following = self.schedule(step + stays)[0] if stays < sys.maxsize else wanted
        if self._next is None and following != wanted:
            self._next = (following, self._reader.submit(self._read, following))
        return self._current[1]

    @pinned  # in the reader's thread, which settings of another thread do not reach
    def _read(self, index: int) -> Columns:
        return self._change(index, self._lay_out(index))

    def _lay_out(self, index: int) -> Columns:
        """One block: standardised, counted from its own first row, padded to the size of the largest."""
        assembly = Assembly(rows=self._size, transitions=self._most)
        for part, low, high in self._inside(self.blocks[index]):
            assembly.add(standardise(part.columns(low, high), self.scale))
        columns = assembly.columns(np.asarray(self.scale.standardised_bounds, np.float32))
        return jax.block_until_ready(jax.tree.map(jnp.asarray, columns))

    def _inside(self, block: Block) -> Iterator[tuple[Part, int, int]]:
        """The parts that hold a block, and its rows in each."""
        first = int(np.searchsorted(self._starts, block.start, side="right")) - 1
        for part, start in zip(self._parts[first:], self._starts[first:].tolist(), strict=False):
            if start >= block.end:
                return
            yield part, max(block.start - start, 0), min(block.end - start, part.rows)

    def _cut(self, store: Store, data_spec: DataSpec, *, memory_gb: float) -> list[Block]:
        """Whole episodes, about as many rows in each block as the cap allows. Raises EvorError where it allows not one."""
        num_tasks = len(store.summary.tasks)
        most = rows_that_fit(self.spec, data_spec, num_tasks=num_tasks, memory_gb=memory_gb)
        longest = max(zip(store.summary.files, store.files, strict=True), key=lambda pair: pair[0].longest)
        rows = longest[0].longest
        if rows > SLACK * most:
            needed = rows * bytes_per_row(self.spec, data_spec, num_tasks=num_tasks) * BLOCKS_PER_CAP / 2**30
            raise EvorError(
                f"memory_gb {memory_gb:g} holds {most:,} rows at a time, and the longest episode of {longest[1].name} "
                f"has {rows:,}; give at least {_at_least(needed)}."
            )
        starts = [part.array("starts")[:-1] + start for part, start in zip(store.parts, self._starts, strict=False)]
        edges = cut(np.append(np.concatenate(starts), self._starts[-1]), most)
        blocks = (Block(start=start, end=end, count=0) for start, end in itertools.pairwise(edges))
        counted = (block._replace(count=self._count(block)) for block in blocks)
        return [block for block in counted if block.count]

    def _count(self, block: Block) -> int:
        """Rows of a block that may be drawn."""
        edges = (np.searchsorted(part.array("rows"), (low, high)) for part, low, high in self._inside(block))
        return sum(int(last - first) for first, last in edges)


def cut(starts: np.ndarray, most: int) -> list[int]:
    """Edges of blocks of equal size, about `most` rows, at `starts` of episodes (the last is the end of all rows)."""
    total = int(starts[-1])
    share = total / -(-total // most)
    edges = [0]
    while edges[-1] < total:
        low, high = np.searchsorted(starts, (edges[-1], edges[-1] + SLACK * most), side="right")
        ends = starts[low:high]
        edges.append(int(ends[np.abs(ends - share * len(edges)).argmin()]))
    return edges


def _at_least(number: float) -> str:
    """Two digits, rounded up: who gives as much has enough."""
    digit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / digit) * digit:.2g}"


def _return_freed_memory() -> None:
    """Let glibc give large arrays back as soon as they are freed; else it keeps several times a block of them."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(MMAP_THRESHOLD, 1 << 20)
