"""Shards: npz files of imported rows, each whole or not there, as training reads them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.formats.recording import Episode, Recording
from evor.data.labels import Labelled
from evor.data.summary import Precision
from evor.errors import EvorError
from evor.runtime.files import atomic_path
from evor.types import ActionBounds

MOST_ROWS = 1_000_000  # of a shard
MOST_BYTES = 2**28  # of a shard
BLOCK = 2**13  # rows that are checked at a time: they stay in the processor's cache


class Chunk(NamedTuple):
    """Some rows of an episode, as they become rows of a shard."""

    episode: Episode
    labels: Labelled
    low: int
    high: int


class Shard:
    """Rows of one shard, in memory until they are written."""

    def __init__(self, recording: Recording, bounds: ActionBounds, *, with_rewards: bool, with_next: bool):
        self._recording, self._bounds = recording, bounds
        width = recording.observation_dim
        per_row = 4 * (width * (2 if with_next else 1) + recording.action_dim + 2)
        self.most = min(MOST_ROWS, max(MOST_BYTES // per_row, 1))
        size = min(self.most, sum(recording.lengths))
        kinds: dict[str, tuple[tuple[int, ...], Any]] = {
            "observations": ((width,), np.float32),
            "actions": ((recording.action_dim,), np.float32),
            "terminations": ((), bool),
            "truncations": ((), bool),
        }
        if with_rewards:
            kinds["rewards"] = ((), np.float32)
        if with_next:
            kinds["next_observations"] = ((width,), np.float32)
        self._arrays = {name: np.zeros((size, *shape), kind) for name, (shape, kind) in kinds.items()}
        self._with_next = with_next
        self._starts: list[tuple[int, str, int]] = []  # first row of a chunk, its episode, and its row there
        self._precision: Precision | None = None  # of rows that float32 does not hold exactly
        self.rows = 0

    def add(self, chunk: Chunk) -> None:
        """Append rows."""
        episode, low, high = chunk.episode, chunk.low, chunk.high
        start, stop = self.rows, self.rows + high - low
        arrays = self._arrays
        self._starts.append((start, episode.name, low))
        if not all(np.can_cast(column.dtype, np.float32) for column in episode.observations):
            part = _precision(tuple(column[low:high] for column in episode.observations))
            self._precision = part if self._precision is None else self._precision.merge(part)
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is told by `check`
            self._fill("observations", episode.observations, chunk=chunk)
            if self._with_next:
                assert episode.next_observations is not None
                self._fill("next_observations", episode.next_observations, chunk=chunk)
            arrays["actions"][start:stop] = episode.actions[low:high]
            if "rewards" in arrays:
                assert chunk.labels.rewards is not None
                arrays["rewards"][start:stop] = chunk.labels.rewards[low:high]
        arrays["terminations"][start:stop] = arrays["truncations"][start:stop] = False
        is_last = high == chunk.labels.rows
        arrays["terminations" if is_last and chunk.labels.is_finished else "truncations"][stop - 1] = True
        for row in episode.gaps:
            if low <= row < high - 1:
                arrays["truncations"][start + row - low] = True
        self.rows = stop

    def _fill(self, name: str, columns: tuple[np.ndarray, ...], *, chunk: Chunk) -> None:
        left, rows = 0, slice(self.rows, self.rows + chunk.high - chunk.low)
        for column in columns:
            self._arrays[name][rows, left : left + column.shape[1]] = column[chunk.low : chunk.high]
            left += column.shape[1]

    def clip(self) -> int:
        """Clip the actions to their bounds. Returns how many rows were beyond them."""
        actions = self._arrays["actions"][: self.rows]
        low, high = self._bounds.sides
        beyond = int(((actions < low) | (actions > high)).any(axis=1).sum())
        np.clip(actions, low, high, out=actions)
        return beyond

    def check(self) -> None:
        """Raise EvorError, naming the episode and its row, where a value is not finite or an action beyond its bounds."""
        for name in ("observations", "actions", "rewards"):
            if name in self._arrays:
                self._check_finite(name, self._arrays[name][: self.rows])
        if self._with_next:
            rows = ~self._arrays["terminations"][: self.rows]
            self._check_finite(
                "next_observations", np.where(rows[:, None], self._arrays["next_observations"][: self.rows], 0)
            )
        if first := self._first_outside():
            raise EvorError(
                f"{self._place(first[0])}: {self._recording.action_key}[{self._row(first[0])}, {first[1]}] is "
                f"{self._arrays['actions'][first]:g}, outside {self._bounds.of_entry(first[1])}; give the bounds in action_low and "
                "action_high (--action-low, --action-high), or clip_actions (--clip-actions) where the environment clips."
            )

    def lost(self) -> list[str]:
        """Entries of the observations whose values float32 can't tell apart."""
        if self._precision is None:
            return []
        return [self._key(column).format(":") for column in np.flatnonzero(self._precision.is_lost).tolist()]

    def _first_outside(self) -> tuple[int, ...]:
        """Indices of the first action entry beyond its bounds, () where there is none."""
        for start in range(0, self.rows, BLOCK):
            if first := self._bounds.outside(self._arrays["actions"][start : min(start + BLOCK, self.rows)]):
                return (start + first[0], *first[1:])
        return ()

    def _check_finite(self, name: str, array: np.ndarray) -> None:
        blocks = (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))
        if all(np.isfinite(block).all() for block in blocks):
            return
        finite = np.isfinite(array)
        first = tuple(map(int, np.argwhere(~finite)[0]))
        column = self._key(first[1]) if "observations" in name else f"{name}[{self._row(first[0])}"
        text = (
            column.format(self._row(first[0]))
            if "observations" in name
            else column + f"{first[1:] and f', {first[1]}'}]"
        )
        raise EvorError(
            f"{self._place(first[0])}: {text} is {array[first]:g}, the first of {int((~finite).sum())} values that are not finite in "
            "float32; repair them, or remove the episode."
        )

    def _key(self, column: int) -> str:
        """The key and the entry of a column of the observations, with {} for the row."""
        for key, width in self._recording.keys:
            if column < width:
                return f"{key}[{{}}, {column}]"
            column -= width
        raise IndexError(column)

    def _place(self, row: int) -> str:
        return f"{self._recording.path}, episode {self._chunk(row)[1]}"

    def _row(self, row: int) -> int:
        start, _, low = self._chunk(row)
        return row - start + low

    def _chunk(self, row: int) -> tuple[int, str, int]:
        return self._starts[int(np.searchsorted([start for start, _, _ in self._starts], row, side="right")) - 1]

    def write(self, path: Path) -> None:
        """Write a whole npz file or nothing, and begin anew."""
        arrays = {name: array[: self.rows] for name, array in self._arrays.items()}
        low, high = self._bounds.sides
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, action_low=low, action_high=high, **arrays)
        self.rows, self._starts, self._precision = 0, [], None


def _precision(columns: tuple[np.ndarray, ...]) -> Precision:
    """Precision of observations before they become float32, of all keys together."""
    parts = [Precision.read(column) for column in columns]
    return Precision(*(np.concatenate([part[side] for part in parts]) for side in range(3)))
