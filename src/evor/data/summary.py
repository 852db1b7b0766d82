"""Summaries of datasets, without their rows: those of files merge into that of the whole."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from evor.data.returns import Clock, Extents
from evor.types import ActionBounds, Episodes, Spec

FEW_REWARDS, FEW_ACTIONS = 6, 2  # distinct values that are listed; of more only the range is kept
LEVELS = 1000  # of a column that float32 resolves well enough to learn from
NO_REWARDS = (
    "there are no rewards, so only behaviour cloning trains on these data (--preset bc); `evor data import` adds the rewards and "
    "successes that you name (--reward, --success)"
)
NAMED = 3  # files in a note before the rest are counted


class Precision(NamedTuple):
    """Columns as a file has them, before they become float32."""

    low: Float[np.ndarray, " O"]
    high: Float[np.ndarray, " O"]
    error: Float[np.ndarray, " O"]  # the most that a value changes

    @property
    def is_lost(self) -> Bool[np.ndarray, " O"]:
        """Whether float32 can't tell the values of a column apart."""
        return (self.high > self.low) & (self.error * LEVELS > self.high - self.low)

    def merge(self, other: "Precision") -> "Precision":
        """The precision of both together."""
        return Precision(
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            error=np.maximum(self.error, other.error),
        )

    @staticmethod
    def read(columns: np.ndarray) -> "Precision":
        """Precision of an array [N, O] of real numbers."""
        low, high = columns.min(axis=0).astype(np.float64), columns.max(axis=0).astype(np.float64)
        error = np.zeros(len(low))
        if not np.can_cast(columns.dtype, np.float32):
            step = np.maximum(np.abs(low), np.abs(high)) * np.finfo(np.float32).eps
            coarse = np.flatnonzero(step * LEVELS > high - low)  # elsewhere the error can't matter
            error[coarse] = [np.abs(c - c.astype(np.float32)).max() for c in columns.T[coarse].astype(np.float64)]
        return Precision(low=low, high=high, error=error)


@dataclass(frozen=True)
class Remark:
    """Something to say about a file. In `text`, {} stands for a count, which adds up over files."""

    text: str
    count: int = 0


class Reading(NamedTuple):
    """One file, read and checked."""

    episodes: Episodes
    precision: Precision
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class File:
    """One file's share of a summary."""

    rows: int
    longest: int  # episode
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Task:
    """Summary of one task."""

    finished_rows: int
    finished_episodes: int
    low: float  # of the rewards of transitions
    high: float
    rewards: tuple[float, ...]  # their values, in order, where they are FEW_REWARDS or less


@dataclass(frozen=True)
class Summary:
    """Plain numbers of some files, as JSON holds them; columns are those of the observations."""

    files: tuple[File, ...]
    sizes: tuple[int, int]  # of an observation and of an action
    tasks: tuple[int, ...]
    rows: int
    transitions: int
    lengths: tuple[tuple[int, int], ...]  # of episodes, and how many have this one
    finished: int  # episodes that end by a finish
    clock: tuple[int, int, int]
    low: tuple[float, ...]
    high: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]  # low, high and error before float32
    action_range: tuple[float, float]
    actions: tuple[float, ...]  # distinct values, at most one more than FEW_ACTIONS
    by_task: tuple[Task, ...]
    declared_bounds: ActionBounds | None = None  # of actions in other units than [-1, 1]

    @property
    def lacks_rewards(self) -> bool:
        """Whether zeros stand for rewards that are not there, in a file at least."""
        return any(remark.text == NO_REWARDS for file in self.files for remark in file.remarks)

    @property
    def action_bounds(self) -> ActionBounds:
        return self.declared_bounds or ActionBounds.unit(self.spec.action_dim)

    @property
    def spec(self) -> Spec:
        return Spec(*self.sizes)


def summarise(reading: Reading) -> Summary:
    """The summary of one file."""
    episodes, rows = reading.episodes, ~reading.episodes.bootstrap_only
    ends = np.flatnonzero(episodes.ends)
    lengths = Counter(np.diff(ends, prepend=-1).tolist())
    number = np.cumsum(episodes.ends) - episodes.ends  # of each row's episode
    actions = episodes.actions if episodes.action_known.all() else episodes.actions[episodes.action_known]
    by_task = []
    for rewards, masks in zip(episodes.rewards[:, rows], episodes.masks, strict=True):
        finished = masks == 0
        low, high = (rewards.min(), rewards.max()) if len(rewards) else (np.inf, -np.inf)
        by_task.append(
            Task(
                finished_rows=int(finished.sum()),
                finished_episodes=len(np.unique(number[finished])),
                low=float(low),
                high=float(high),
                rewards=tuple(_distinct(rewards, FEW_REWARDS)),
            )
        )
    return Summary(
        files=(File(rows=len(rows), longest=max(lengths), remarks=reading.remarks),),
        sizes=tuple(episodes.spec),
        tasks=episodes.tasks,
        rows=len(rows),
        transitions=int(rows.sum()),
        lengths=tuple(sorted(lengths.items())),
        finished=int((~episodes.bootstrap_only[ends]).sum()),
        clock=tuple(Clock.read(Extents.read(episodes))),
        low=tuple(episodes.observations.min(axis=0).tolist()),
        high=tuple(episodes.observations.max(axis=0).tolist()),
        precision=tuple(tuple(part.tolist()) for part in reading.precision),
        action_range=(float(actions.min()), float(actions.max())),
        actions=tuple(_distinct(actions.ravel(), FEW_ACTIONS)),
        by_task=tuple(by_task),
        declared_bounds=episodes.declared_bounds,
    )


def _distinct(values: np.ndarray, few: int) -> list[float]:
    """The distinct values in order; where they are more than `few`, only one more of them."""
    distinct: list[float] = []
    while len(values) and len(distinct) <= few:
        distinct.append(float(values[0]))
        values = values[values != values[0]]
    return sorted(distinct)


def merge(parts: Sequence[Summary]) -> Summary:
    """The summary of all parts together, which have the same sizes, bounds and tasks."""

    def least(columns: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(np.min(list(columns), axis=0).tolist())

    def most(columns: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(np.max(list(columns), axis=0).tolist())

    lengths: Counter[int] = Counter()
    for part in parts:
        lengths.update(dict(part.lengths))
    low, high, error = zip(*(part.precision for part in parts), strict=True)
    bottom, top = zip(*(part.action_range for part in parts), strict=True)
    cut, cut_known, last_known = np.max([part.clock for part in parts], axis=0).tolist()
    return Summary(
        files=tuple(file for part in parts for file in part.files),
        sizes=parts[0].sizes,
        tasks=parts[0].tasks,
        rows=sum(part.rows for part in parts),
        transitions=sum(part.transitions for part in parts),
        lengths=tuple(sorted(lengths.items())),
        finished=sum(part.finished for part in parts),
        clock=(cut, cut_known, last_known),
        low=least(part.low for part in parts),
        high=most(part.high for part in parts),
        precision=(least(low), most(high), most(error)),
        action_range=(min(bottom), max(top)),
        actions=_union((part.actions for part in parts), FEW_ACTIONS),
        by_task=tuple(map(_merge_tasks, zip(*(part.by_task for part in parts), strict=True))),
        declared_bounds=parts[0].declared_bounds,
    )


def _merge_tasks(parts: Sequence[Task]) -> Task:
    return Task(
        finished_rows=sum(part.finished_rows for part in parts),
        finished_episodes=sum(part.finished_episodes for part in parts),
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        rewards=_union((part.rewards for part in parts), FEW_REWARDS),
    )


def _union(parts: Iterable[tuple[float, ...]], few: int) -> tuple[float, ...]:
    return tuple(sorted({value for part in parts for value in part})[: few + 1])


# Notes.


def describe(summary: Summary, names: Sequence[str]) -> tuple[str, ...]:
    """Describe what is legal but worth knowing about a dataset of files with these names."""
    notes = [*_remarks(summary.files, names)]
    low, high = np.array(summary.low), np.array(summary.high)
    precision = Precision(*np.array(summary.precision))
    raw_low, raw_high, error = precision
    lost = precision.is_lost
    if (constant := np.flatnonzero((low == high) & ~lost)).size:
        notes.append(f"observation columns {constant.tolist()} are constant")
    notes += [
        f"observation column {column} goes from {raw_low[column]:.17g} to {raw_high[column]:.17g}, and float32 changes "
        f"its values by up to {error[column]:.2g}: it can't tell them apart; subtract an offset before saving"
        for column in np.flatnonzero(lost)[:NAMED]
    ]
    if (more := np.flatnonzero(lost)[NAMED:]).size:
        notes.append(f"float32 can't tell values of the observation columns {more.tolist()} apart either")
    if len(summary.actions) <= FEW_ACTIONS:
        values = " and ".join(f"{value:g}" for value in summary.actions)
        notes.append(
            f"actions are {values} only: if they stand for choices, these are learned as if they were continuous"
        )
    if summary.lacks_rewards:
        return tuple(notes)
    for number, task in zip(summary.tasks, summary.by_task, strict=True):
        if task.rewards == (0,):
            notes.append(f"all rewards of task {number} are 0: a value can learn nothing from them")
        elif not task.finished_rows:
            notes.append(f"task {number} is never finished in the data: its value will be flat where rewards are equal")
    return tuple(notes)


def describe_lengths(summary: Summary, num_steps: int) -> tuple[str, ...]:
    """A note where some episode is shorter than the sums asked for."""
    shortest = summary.lengths[0][0]
    if shortest >= num_steps:
        return ()
    return (f"some episodes are shorter than n_steps ({num_steps}): n-step returns stop at their end",)


def _remarks(files: Sequence[File], names: Sequence[str]) -> Iterable[str]:
    """Remarks of files: equal ones once; of those that differ in their counts, the last ones summed."""
    by_text: dict[str, list[tuple[str, int]]] = {}
    for file, name in zip(files, names, strict=True):
        for remark in file.remarks:
            by_text.setdefault(remark.text, []).append((name, remark.count))
    for text, counts_by_file in by_text.items():
        by_count: dict[int, list[str]] = {}
        for name, count in counts_by_file:
            by_count.setdefault(count, []).append(name)
        for count, where in list(by_count.items())[:NAMED]:
            yield _where(where, len(files)) + text.format(f"{count:,}")
        rest = [(name, count) for name, count in counts_by_file if count not in list(by_count)[:NAMED]]
        if rest:
            yield f"{len(rest)} more files, together: " + text.format(f"{sum(count for _, count in rest):,}")


def _where(names: Sequence[str], of: int) -> str:
    if of == 1:
        return ""
    if len(names) == of:
        return f"each of {of} files: "
    more = f" and {len(names) - NAMED} more files" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}: "
