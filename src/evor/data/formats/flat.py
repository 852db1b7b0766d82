"""Flat files of rows that lie end to end: HDF5 as D4RL has it, and npz files with other names than evor's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from evor.data.formats.hdf5 import Hdf5
from evor.data.formats.recording import (
    Episode,
    Recording,
    Wanted,
    check_actions,
    matrix,
    pick,
    same_rows,
    stitched,
    vector,
)
from evor.errors import EvorError
from evor.types import ActionBounds

FINISHED = ("terminals", "terminations")  # names of the flags
CUT = ("timeouts", "truncations")
NEXT = "next_observations"


@runtime_checkable
class Table(Protocol):
    """Columns of equal length by name."""

    path: Path

    def below(self, group: str) -> list[str]:
        """Names of all columns."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a column."""
        ...

    def read(self, name: str) -> np.ndarray:
        """All of a column."""
        ...

    def pieces(self, names: list[str], *, total: int) -> Iterator[dict[str, np.ndarray]]:
        """All rows of some columns, a piece at a time."""
        ...


def open_d4rl(path: Path, wanted: Wanted) -> Recording:
    """Open an HDF5 file as D4RL has it. Raises EvorError on what can't be read."""
    return open_flat(Hdf5(path, max_gb=wanted.max_gb), wanted, kind="D4RL HDF5", unit=True)


def open_flat(table: Table, wanted: Wanted, *, kind: str, unit: bool) -> Recording:
    """Open a flat file; `unit` says that actions are declared to lie in [-1, 1]. Raises EvorError."""
    path, there = table.path, table.below("/")
    keys = pick(path, wanted.observation_keys or ("observations",), there=there, what="observation")
    action_key = wanted.action_key or "actions"
    pick(path, [action_key], there=there, what="column")
    shape = table.shape(action_key)
    total = shape[0] if shape else 0
    finished, cut = (next((name for name in names if name in there), None) for names in (FINISHED, CUT))
    names = list(dict.fromkeys(filter(None, [*keys, action_key, finished, cut])))
    same_rows(str(path), {name: (*table.shape(name), 0)[0] for name in names})
    if not total:
        raise EvorError(f"{path} holds no rows; record at least one episode.")
    lengths = _lengths(table, total, finished=finished, cut=cut, most=wanted.max_episode_steps)
    following = (
        NEXT if keys == ("observations",) and NEXT in there and table.shape(NEXT) == table.shape(keys[0]) else None
    )
    one = next(table.pieces([*keys, action_key], total=1))
    width = check_actions(one[action_key], f"{path}: {action_key}").shape[1]
    reader = _Reader(table, lengths, keys=keys, action_key=action_key, finished=finished, following=following)
    return Recording(
        kind=kind,
        path=path,
        files=(path,),
        keys=tuple((key, matrix(one[key], f"{path}: {key}").shape[1]) for key in keys),
        not_read=(),
        action_key=action_key,
        action_dim=width,
        bounds=ActionBounds.unit(width) if unit and action_key == "actions" else None,
        reward_key="rewards" if "rewards" in there else None,
        has_terminations=finished is not None,
        names=tuple(map(str, range(len(lengths)))),
        lengths=tuple(lengths.tolist()),
        episodes=reader.episodes,
        actions=reader.actions,
    )


def _lengths(table: Table, total: int, *, finished: str | None, cut: str | None, most: int | None) -> np.ndarray:
    """Lengths of the episodes: they end at a flag, after `most` steps, and with the file."""
    if cut is None and most is None:
        raise EvorError(
            f"{table.path} has no timeouts, so that nothing says where unfinished episodes end; give the time limit that they "
            "were recorded with in max_episode_steps (--max-episode-steps)."
        )
    ends = np.zeros(total, bool)
    for name in filter(None, (finished, cut)):
        ends |= vector(table.read(name), f"{table.path}: {name}") != 0
    ends[-1] = True
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    if most is None:
        return lengths
    steps = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # since the episode began
    ends |= steps % most == most - 1
    return np.diff(np.flatnonzero(ends), prepend=-1)


class _Reader:
    """Episodes of a flat file."""

    def __init__(
        self,
        table: Table,
        lengths: np.ndarray,
        *,
        keys: tuple[str, ...],
        action_key: str,
        finished: str | None,
        following: str | None,
    ):
        self._table, self._lengths = table, lengths
        self._keys, self._action_key = keys, action_key
        self._finished, self._following = finished, following

    def actions(self) -> Iterator[np.ndarray]:
        total = int(self._lengths.sum())
        for piece in self._table.pieces([self._action_key], total=total):
            yield check_actions(piece[self._action_key], f"{self._table.path}: {self._action_key}")

    def episodes(self, start: int, columns: tuple[str, ...]) -> Iterator[Episode]:
        total = int(self._lengths.sum())
        pick(self._table.path, columns, there=self._table.below("/"), what="column")
        same_rows(
            str(self._table.path), {"actions": total} | {name: (*self._table.shape(name), 0)[0] for name in columns}
        )
        names = [*self._keys, self._action_key, *columns, self._finished, self._following]
        wanted = list(dict.fromkeys(filter(None, names)))
        pieces = self._table.pieces(wanted, total=total)
        for number, rows in enumerate(stitched(pieces, self._lengths.tolist())):
            if number >= start:
                yield self._episode(number, rows, columns=columns)

    def _episode(self, number: int, rows: dict[str, np.ndarray], *, columns: tuple[str, ...]) -> Episode:
        def place(name: str) -> str:
            return f"{self._table.path}: {name}"

        following = None if self._following is None else (matrix(rows[self._following], place(self._following)),)
        return Episode(
            name=str(number),
            observations=tuple(matrix(rows[key], place(key)) for key in self._keys),
            actions=check_actions(rows[self._action_key], place(self._action_key)),
            columns={name: vector(rows[name], place(name)) for name in columns},
            next_observations=following,
            terminations=None if self._finished is None else vector(rows[self._finished], place(self._finished)) != 0,
        )
