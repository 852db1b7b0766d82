"""Recordings of other programs, as their readers give them: episodes in the recording's own units, one after the other."""

import importlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError, nearest
from evor.runtime.memory import size_text
from evor.runtime.words import counted
from evor.types import ActionBounds

POINTER = b"version https://git-lfs"
FEATURES = (
    "images are not supported: compute features of them with a frozen encoder, store these as a column of numbers, and name "
    "it in observation_keys (--observation-keys)"
)


@dataclass(frozen=True)
class Wanted:
    """Wishes for what is read of a recording. Left out: the format's own choice."""

    observation_keys: tuple[str, ...] = ()
    action_key: str | None = None
    mask: str | None = None  # the name of a set of episodes
    episodes: tuple[int, int | None] = (0, None)  # their places: from this one on, up to that one
    max_episode_steps: int | None = None
    max_gb: float = math.inf  # of what is read, unpacked


class Episode(NamedTuple):
    """One recorded episode of T steps. Row t holds what was seen before the step, what was done, and what came of it."""

    name: str
    observations: tuple[np.ndarray, ...]  # [T, width] of every key
    actions: np.ndarray  # [T, A]
    columns: dict[str, np.ndarray]  # [T] each
    next_observations: tuple[np.ndarray, ...] | None = None  # as `observations`, after the step
    terminations: np.ndarray | None = None  # [T]; None where the format does not say
    gaps: tuple[int, ...] = ()  # rows after which steps are missing


class Recording(NamedTuple):
    """A source that is open: what is in it, without its rows."""

    kind: str  # the format, in words
    path: Path
    files: tuple[Path, ...]  # that are read
    keys: tuple[tuple[str, int], ...]  # of the observations, in order, with their widths
    not_read: tuple[str, ...]  # other columns that look like observations
    action_key: str
    action_dim: int
    bounds: ActionBounds | None  # of the actions, where the format declares them
    reward_key: str | None  # the column of rewards, where the format has one
    has_terminations: bool  # whether the format tells a finish from a cut
    names: tuple[str, ...]  # of the episodes
    lengths: tuple[int, ...]
    # From the one at this position on, each with these more columns, which labels are made of.
    episodes: Callable[[int, tuple[str, ...]], Iterator[Episode]]
    actions: Callable[[], Iterator[np.ndarray]]  # [n, A] of consecutive rows
    action_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # names of episodes that are there and not wanted
    other_rows: int = 0  # of them, in `actions`

    @property
    def observation_dim(self) -> int:
        return sum(width for _, width in self.keys)


def require(module: str) -> Any:
    """Import a package of the extra `data`. Raises EvorError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.split(".")[0]
        raise EvorError(
            f"importing this format needs the package {name}; `pip install 'evor[data]'` gets it."
        ) from error


def check_file(path: Path) -> None:
    """Raise EvorError where a file is missing, empty, or only a pointer of git-lfs."""
    if not path.is_file():
        raise EvorError(f"{path} is missing; copy the whole recording again.")
    with open(path, "rb") as stream:
        head = stream.read(len(POINTER))
    if not head:
        raise EvorError(f"{path} is empty; copy it again.")
    if head == POINTER:
        raise EvorError(
            f"{path} is a pointer of git-lfs, not the data; fetch them with `git lfs pull`, then try again."
        )


def check_size(path: Path, size: int, *, max_gb: float) -> None:
    """Raise EvorError where more would be read than is allowed."""
    if size > max_gb * 2**30:
        raise EvorError(
            f"{path} unpacks to {size_text(size)}, more than max_gb allows ({max_gb:g}); give a larger one (--max-gb) if you "
            "trust the file."
        )


def pick(path: Path, wanted: Sequence[str], *, there: Iterable[str], what: str) -> tuple[str, ...]:
    """The wanted names. Raises EvorError on one that is not there."""
    there = list(there)
    for name in wanted:
        if name not in there:
            raise EvorError(f"{path} has no {what} {name!r}; {nearest(name, there) if there else 'it has none'}")
    if len(set(wanted)) != len(wanted):
        raise EvorError(f"{what}s are {', '.join(wanted)}; name each one once.")
    return tuple(wanted)


def matrix(array: np.ndarray, place: str) -> np.ndarray:
    """Real numbers as [T, width]. Raises EvorError on images and on what are no numbers."""
    _check_numbers(array, place)
    if array.ndim > 2:
        raise EvorError(f"{place} has shape {list(array.shape)}: {FEATURES}.")
    return array if array.ndim == 2 else array[:, None]


def vector(array: np.ndarray, place: str) -> np.ndarray:
    """Real numbers as [T], from [T] or [T, 1]. Raises EvorError."""
    _check_numbers(array, place)
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise EvorError(f"{place} has shape {list(array.shape)}; one number per step is needed, [T] or [T, 1].")
    return array


def _check_numbers(array: np.ndarray, place: str) -> None:
    if array.dtype.kind not in "biuf":
        raise EvorError(f"{place} has type {array.dtype}, not real numbers; convert it, or leave it out.")


def check_actions(array: np.ndarray, place: str) -> np.ndarray:
    """Actions [T, A], from [T] where an action is one number, as LeRobot stores it. Raises EvorError on discrete ones."""
    if array.dtype.kind in "biu":
        raise EvorError(
            f"{place} is {array.dtype} of shape {list(array.shape)}: discrete actions are not supported; give numbers with a "
            "fraction, [T, A], or name another column in action_key (--action-key)."
        )
    return matrix(array, place)


def chosen(recording: Recording, places: tuple[int, int | None]) -> Recording:
    """The recording with the episodes at these places alone. Raises EvorError where there are none."""
    first, stop = places
    if not (names := recording.names[first:stop]):
        raise EvorError(
            f"{recording.path} has {counted(len(recording.names), 'episode')}, and none of them is in episodes (--episodes) "
            f"{first}:{'' if stop is None else stop}; count from 0."
        )
    if not any(lengths := recording.lengths[first:stop]):
        raise EvorError(
            f"{recording.path}: every episode in episodes (--episodes) {first}:{'' if stop is None else stop} is empty; choose others."
        )

    def episodes(start: int, columns: tuple[str, ...]) -> Iterator[Episode]:
        return itertools.islice(recording.episodes(first + start, columns), len(names) - start)

    return recording._replace(
        names=names,
        lengths=lengths,
        episodes=episodes,
        others=(*recording.others, *recording.names[:first], *recording.names[first + len(names) :]),
        other_rows=recording.other_rows + sum(recording.lengths) - sum(lengths),
    )


def check_widths(recording: Recording) -> Recording:
    """The recording. Reading it raises EvorError where an episode has other widths than the recording says."""
    wanted = (*recording.keys, (recording.action_key, recording.action_dim))

    def check(arrays: Iterable[np.ndarray], place: str) -> None:
        for (key, width), array in zip(wanted, arrays, strict=True):
            if len(array) and array.shape[1] != width:
                raise EvorError(
                    f"{place}: {key} has {array.shape[1]} numbers in a row, and {width} in others; repair or remove this episode."
                )

    def episodes(start: int, columns: tuple[str, ...]) -> Iterator[Episode]:
        for episode in recording.episodes(start, columns):
            for observations in filter(None, (episode.observations, episode.next_observations)):
                check((*observations, episode.actions), f"{recording.path}, episode {episode.name}")
            yield episode

    def actions() -> Iterator[np.ndarray]:
        for piece in recording.actions():
            if len(piece) and piece.shape[1] != recording.action_dim:
                raise EvorError(
                    f"{recording.path}: {recording.action_key} has {piece.shape[1]} numbers in some rows, and {recording.action_dim} in "
                    "others; repair or remove those episodes."
                )
            yield piece

    return recording._replace(episodes=episodes, actions=actions)


def same_rows(place: str, lengths: dict[str, int]) -> int:
    """The number of rows that all columns have. Raises EvorError where they differ."""
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise EvorError(f"{place}: the columns have different numbers of rows ({told}); repair or remove this episode.")
    return next(iter(lengths.values()))


def by_number(name: str) -> tuple[Any, ...]:
    """Key that sorts demo_10 after demo_2."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def successors(
    columns: tuple[np.ndarray, ...], steps: int, *, place: str
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None]:
    """Observations before and after each step, where there may be one more than steps: [T] or [T + 1]."""
    rows = same_rows(f"{place}, observations", {str(index): len(column) for index, column in enumerate(columns)})
    if rows == steps:
        return columns, None
    if rows == steps + 1:
        return tuple(column[:-1] for column in columns), tuple(column[1:] for column in columns)
    raise EvorError(
        f"{place}: {rows} observations and {steps} actions; as many are needed, or one observation more. Repair or remove "
        "this episode."
    )


def stitched(pieces: Iterator[dict[str, np.ndarray]], lengths: Iterable[int]) -> Iterator[dict[str, np.ndarray]]:
    """Rows of consecutive pieces, cut anew into these lengths."""
    held: list[dict[str, np.ndarray]] = []
    rows = 0
    for length in lengths:
        while rows < length or not held:
            held.append(next(pieces))
            rows += _rows(held[-1])
        taken, left = [], length
        while left > (size := _rows(held[0])):
            taken.append(held.pop(0))
            left -= size
        taken.append({name: array[:left] for name, array in held[0].items()})
        held[0] = {name: array[left:] for name, array in held[0].items()}
        rows -= length
        yield taken[0] if len(taken) == 1 else {name: np.concatenate([one[name] for one in taken]) for name in taken[0]}


def _rows(piece: dict[str, np.ndarray]) -> int:
    return len(next(iter(piece.values())))
