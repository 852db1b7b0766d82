"""Files -> one dataset in memory."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
    episodes, summary = join(parts), merge(summaries)
    whole, names = piece(episodes), [file.name for file in files]
    notes = describe(summary, names) + describe_outliers(lambda: [whole], summary, names=names)
    return Loaded(episodes._replace(notes=notes), summary)


def read_all(files: Sequence[Path], read: Callable[[Path], Reading]) -> Generator[Reading]:
    """Read one file after the other. Raises EvorError where one has other sizes than the first."""
    first = None
    for file in files:
        reading = read(file)
        first = first or reading.episodes
        check_sizes(file, reading.episodes.spec, first=files[0], wanted=first.spec)
        check_bounds(file, reading.episodes.action_bounds, first=files[0], wanted=first.action_bounds)
        yield reading


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


def join(parts: Sequence[Episodes]) -> Episodes:
    """Parts of the same sizes and tasks, end to end."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for name in Episodes._fields[:7]:
        axis = -1 if name in ("rewards", "masks") else 0
        joined[name] = np.concatenate([getattr(part, name) for part in parts], axis)
    return parts[0]._replace(**joined)


def piece(episodes: Episodes) -> Piece:
    """All of some episodes, to look for outliers in."""
    transitions = np.flatnonzero(~episodes.bootstrap_only)
    return Piece(
        observations=episodes.observations,
        rewards=episodes.rewards[:, transitions],
        transitions=transitions,
        action_known=episodes.action_known,
    )
