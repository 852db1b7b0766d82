"""Files -> one dataset in memory."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.chunks import chunks
from evor.data.outliers import Piece, describe_outliers
from evor.data.summary import Reading, Summary, describe, merge, summarise
from evor.errors import EvorError
from evor.types import ActionBounds, Episodes, Spec


class Loaded(NamedTuple):
    """All rows of a dataset, and what there is to say about them."""

    episodes: Episodes
    summary: Summary


def load(files: Sequence[Path], read: Callable[[Path], Reading]) -> Loaded:
    """Read the files of one dataset into memory. Raises EvorError on anything that can't be trusted."""
    parts, summaries = [], []
    for reading in read_all(files, read):
        parts.append(reading.episodes)
        summaries.append(summarise(reading))
        del reading  # `join` frees what is held only by the list
    episodes, summary = join(parts), merge(summaries)
    names = [file.name for file in files]
    notes = describe(summary, names) + describe_outliers(lambda: map(piece, chunks(episodes)), summary, names=names)
    return Loaded(episodes._replace(notes=notes), summary)


def read_all(files: Sequence[Path], read: Callable[[Path], Reading]) -> Generator[Reading]:
    """Read one file after the other. Raises EvorError where one has other sizes than the first."""
    wanted = None
    for file in files:
        reading = read(file)
        spec, bounds = reading.episodes.spec, reading.episodes.action_bounds
        wanted = wanted or (spec, bounds)
        check_sizes(file, spec, first=files[0], wanted=wanted[0])
        check_bounds(file, bounds, first=files[0], wanted=wanted[1])
        yield reading
        del reading


def check_sizes(path: Path, spec: Spec, *, first: Path, wanted: Spec) -> None:
    """Raise EvorError unless a file has the sizes of the first one."""
    if spec != wanted:
        raise EvorError(
            f"{path} has sizes {tuple(spec)} (of an observation, of an action), {first} {tuple(wanted)}; "
            "the files of one folder need the same."
        )


def check_bounds(path: Path, bounds: ActionBounds, *, first: Path, wanted: ActionBounds) -> None:
    """Raise EvorError unless the actions of a file have the bounds of those of the first one."""
    if bounds != wanted:
        raise EvorError(
            f"{path} has actions in {bounds}, {first} in {wanted}; the files of one folder need the same action_low and "
            "action_high."
        )


def join(parts: list[Episodes]) -> Episodes:
    """Parts of the same sizes and tasks, end to end. The list is empty afterwards.

    So an array is freed as soon as it is copied, and memory holds little more than the rows once.
    """
    if len(parts) == 1:
        return parts.pop()
    others = {name: getattr(parts[0], name) for name in Episodes._fields[7:]}
    arrays = {name: [getattr(part, name) for part in parts] for name in Episodes._fields[:7]}
    parts.clear()
    joined: dict[str, Any] = {
        name: _joined(arrays.pop(name), axis=-1 if name in ("rewards", "masks") else 0) for name in list(arrays)
    }
    return Episodes(**joined, **others)


def _joined(arrays: list[np.ndarray], *, axis: int) -> np.ndarray:
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    whole = np.empty(shape, np.result_type(*arrays))
    rows, start = np.moveaxis(whole, axis, 0), 0
    while arrays:
        part = np.moveaxis(arrays.pop(0), axis, 0)
        rows[start : start + len(part)] = part
        start += len(part)
    return whole


def piece(episodes: Episodes) -> Piece:
    """All of some episodes, to look for outliers in."""
    transitions = np.flatnonzero(~episodes.bootstrap_only)
    return Piece(
        observations=episodes.observations,
        rewards=episodes.rewards[:, transitions],
        transitions=transitions,
        action_known=episodes.action_known,
    )
