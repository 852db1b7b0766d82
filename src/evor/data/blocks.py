"""Data larger than memory: laid out once into files beside it, then trained on block by block.

A block is some whole episodes of one shard. Training visits the blocks lap by lap, each lap in a new random order, and stays
with each for a number of draws in proportion to its rows, so that every row of the data is as likely as any other. The next
block is read while the current one trains.
"""

import contextlib
import ctypes
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor.data.files import check_sizes
from evor.data.transitions import (
    Columns,
    Facts,
    Moments,
    Standardisation,
    check_teaching,
    lay_out,
    standardisation,
    standardise,
    teaches,
)
from evor.errors import EvorError
from evor.files import read_json, write_json
from evor.progress import progress_bar
from evor.types import DataNeeds, Episodes, Spec, digest

CACHE = ".evor"  # folder beside the shards
SHARE = 5  # blocks that the cap must hold: one trains, one waits, and reading one takes three times its size
LAPS = 8  # visits to a block while its rows are drawn once: few, and the newest block is what the networks remember
SHORTEST_VISIT = 10  # updates; in shorter ones a block's share would be far from its rows'
MMAP_THRESHOLD = -3  # mallopt's number for it (malloc.h)
FORMAT = 1  # of the cache; another one is another folder


class Block(NamedTuple):
    """Some rows of one shard."""

    shard: int
    start: int
    end: int
    count: int  # rows among them that may be drawn


class Shard(NamedTuple):
    """What is known of a laid-out shard without opening its arrays."""

    folder: Path
    spec: Spec
    facts: Facts
    teaches: np.ndarray
    digest: str
    notes: tuple[str, ...]
    tasks: tuple[int, ...]


def lay_out_shards(
    files: Sequence[Path], read: Callable[[Path], Episodes], needs: DataNeeds, description: dict[str, Any]
) -> list[Shard]:
    """Read every file and write its columns, in the data's units, into a cache beside it; what is there already stays.

    `description` is what else the columns depend on. Raises EvorError on data that can't be used.
    """
    asked = needs._replace(standardise=True)._asdict()  # columns are laid out in the data's units either way
    folders = []
    for file in files:
        stamp = file.stat()
        identity = [FORMAT, file.name, stamp.st_size, stamp.st_mtime_ns, asked, description]
        key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        folders.append(file.parent / CACHE / f"{file.stem}-{key}")
    there = sum((folder / "shard.json").exists() for folder in folders)
    shards = []
    with progress_bar("lay out", len(files), there, "shards") as advance:
        for file, folder in zip(files, folders, strict=True):
            if not (folder / "shard.json").exists():
                _lay_out_one(read(file), needs, folder)
                advance(1, file.name)
            shards.append(_open(folder))
            check_sizes(file, shards[-1].spec, files[0], shards[0].spec)
    return shards


def _lay_out_one(episodes: Episodes, needs: DataNeeds, folder: Path) -> None:
    """All of a shard's folder, or nothing of it."""
    layout = lay_out(episodes, needs)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in layout.columns._asdict().items():
        if array is not None:
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
    np.save(partial / "starts.npy", np.append(0, np.flatnonzero(episodes.ends) + 1), allow_pickle=False)
    content = {
        "spec": episodes.spec._asdict(),
        "tasks": list(episodes.tasks),
        "facts": {name: _plain(found) for name, found in layout.facts._asdict().items()},
        "teaches": teaches(layout.columns).tolist(),
        "digest": digest(episodes),
        "notes": list(episodes.notes),
    }
    write_json(partial / "shard.json", content)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _plain(found: Moments) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()}


def _open(folder: Path) -> Shard:
    content = read_json(folder / "shard.json")
    found = {
        name: Moments(int(part["count"]), *(np.array(part[field]) for field in Moments._fields[1:]))
        for name, part in content["facts"].items()
    }
    return Shard(
        folder,
        Spec(**content["spec"]),
        Facts(**found),
        np.array(content["teaches"]),
        content["digest"],
        tuple(content["notes"]),
        tuple(content["tasks"]),
    )


class Blocks:
    """The data of a training run, a block at a time. Which block a step trains on depends on seed and step alone."""

    def __init__(self, shards: list[Shard], needs: DataNeeds, memory_gb: float, batch_size: int, seed: int):
        _return_freed_memory()
        everything = shards[0].facts
        for shard in shards[1:]:
            everything = everything.merge(shard.facts)
        check_teaching(np.any([shard.teaches for shard in shards], axis=0), shards[0].tasks, needs)
        self.spec = shards[0].spec
        self.scale: Standardisation = standardisation(everything, needs.discount, needs.standardise)
        self.digest = sha256("".join(shard.digest for shard in shards).encode()).hexdigest()[:16]
        self.notes = tuple(note for note in shards[0].notes if all(note in shard.notes for shard in shards))
        self._shards = shards
        self.blocks = _cut(shards, needs, memory_gb)
        self.num_rows = sum(block.count for block in self.blocks)
        self._size = max(block.end - block.start for block in self.blocks)
        self._most = max(block.count for block in self.blocks)
        draws = np.array([block.count for block in self.blocks]) / batch_size  # updates that draw every row once
        laps = np.clip(draws.min() // SHORTEST_VISIT, 1, LAPS)
        self._visits = np.maximum(1, np.round(draws / laps)).astype(int)
        self._seed = seed
        self._current: tuple[int, Columns] | None = None
        self._next: tuple[int, Future] | None = None
        self._reader = ThreadPoolExecutor(1, "read-block")

    def place(self, step: int) -> tuple[int, int]:
        """The block that update `step` draws from, and how many updates it stays."""
        lap, within = divmod(step, int(self._visits.sum()))
        order = np.random.default_rng([self._seed, lap]).permutation(len(self.blocks))
        ends = np.cumsum(self._visits[order])
        index = int(np.searchsorted(ends, within, side="right"))
        return int(order[index]), int(ends[index]) - within

    def until(self, step: int) -> int:
        """Updates from `step` on that share its columns."""
        return self.place(step)[1]

    def at(self, step: int) -> Columns:
        """The columns of update `step`, on the device."""
        wanted, stays = self.place(step)
        if self._current is None or self._current[0] != wanted:
            ready = self._next[1].result() if self._next is not None and self._next[0] == wanted else self._read(wanted)
            self._current, self._next = (wanted, ready), None
        following = self.place(step + stays)[0]
        if self._next is None and following != wanted:
            self._next = (following, self._reader.submit(self._read, following))
        return self._current[1]

    def _read(self, index: int) -> Columns:
        """One block: standardised, counted from its own first row, padded to the size of the largest."""
        block = self.blocks[index]
        folder = self._shards[block.shard].folder
        part = slice(block.start, block.end)

        def column(name: str) -> Any:
            path = folder / f"{name}.npy"
            return np.load(path, mmap_mode="r", allow_pickle=False)[..., part] if path.exists() else None

        rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        picked = rows[np.searchsorted(rows, block.start) : np.searchsorted(rows, block.end)] - block.start
        columns = Columns(
            np.load(folder / "observations.npy", mmap_mode="r", allow_pickle=False)[part],
            np.load(folder / "actions.npy", mmap_mode="r", allow_pickle=False)[part],
            picked,
            column("last") - block.start,
            column("bootstrap") - block.start,
            column("rewards"),
            column("discounts"),
            column("weights"),
            column("rewards_to_go"),
            np.array(len(picked), np.int32),
        )
        columns = standardise(columns, self.scale)
        room = block.end - block.start
        padded: dict[str, Any] = {
            name: None if array is None else _pad(np.asarray(array), 0 if name in ALONG else -1, self._size - room)
            for name, array in columns._asdict().items()
            if name not in ("rows", "count")
        }
        padded["rows"] = _pad(picked, 0, self._most - len(picked))
        return jax.block_until_ready(jax.tree.map(jnp.asarray, Columns(**padded, count=columns.count)))


def _return_freed_memory() -> None:
    """Let glibc give large arrays back as soon as they are freed; else it keeps several times a block of them."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(MMAP_THRESHOLD, 1 << 20)


ALONG = ("observations", "actions", "last", "bootstrap")  # rows lead; in the others tasks do


def _pad(array: np.ndarray, axis: int, count: int) -> np.ndarray:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, count)
    return np.pad(array, widths)


def _cut(shards: list[Shard], needs: DataNeeds, memory_gb: float) -> list[Block]:
    """Whole episodes, about as many rows in each block as the cap allows. Raises EvorError where it allows not one."""
    num_tasks = len(shards[0].tasks)
    per_row = 4 * (sum(shards[0].spec) + 3 + (4 if needs.whole_returns else 3) * num_tasks)
    most = int(min(memory_gb * 2**30 / SHARE / per_row, 2**62))  # no cap is one, too
    blocks = []
    for index, shard in enumerate(shards):
        starts = np.load(shard.folder / "starts.npy", allow_pickle=False)
        rows = np.load(shard.folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        if np.diff(starts).max() > 1.5 * most:
            raise EvorError(
                f"memory_gb {memory_gb:g} holds {most:,} rows at a time, and the longest episode of {shard.folder.stem} "
                f"has {int(np.diff(starts).max()):,}; give at least {np.diff(starts).max() * per_row * SHARE / 2**30:.2g}."
            )
        share = starts[-1] / -(-int(starts[-1]) // most)  # rows of a block, were they all equal
        edges = [0]
        while edges[-1] < starts[-1]:
            ends = starts[(starts > edges[-1]) & (starts <= edges[-1] + 1.5 * most)]
            edges.append(int(ends[np.abs(ends - share * len(edges)).argmin()]))
        for start, end in itertools.pairwise(edges):
            count = int(np.searchsorted(rows, end) - np.searchsorted(rows, start))
            if count:
                blocks.append(Block(index, int(start), int(end), count))
    return blocks
