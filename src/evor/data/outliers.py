"""Extreme values that blind a column: standardised beside one 1e10, all other values are equal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.data.summary import Summary

SAMPLE = 10_000  # rows that tell what is usual
FAR = 100  # times as far from the median as the quartiles from each other
GAP = 10  # times as far as all others: a heavy tail has no such gap
RARE = 0.05  # a larger share of far values is no accident
BLINDED = 3  # times the standard deviation shrinks without them
SAME = 3  # distinct values that may be codes for something that is missing
LISTED = 3  # columns whose outliers are spelled out


class Piece(NamedTuple):
    """Some consecutive rows of a dataset, in memory or on disk."""

    observations: Float[np.ndarray, "N O"]
    rewards: Float[np.ndarray, "K S"]  # of its transitions
    transitions: Int[np.ndarray, " S"]  # their rows
    action_known: Bool[np.ndarray, " N"]  # rows with an action; the others are next_observations of the row before


class Outlier(NamedTuple):
    """The first far value of a column, and how far it is."""

    column: int
    row: int  # of the whole table
    value: float
    share: float  # of far values
    usual: float  # standard deviation without them
    whole: float  # with them


Table = Callable[[], Iterable[np.ndarray]]  # consecutive rows [n, C] of a table, anew at every call
Pieces = Callable[[], Iterable[Piece]]


def find(table: Table, rows: int, *, low: np.ndarray, high: np.ndarray) -> list[Outlier]:
    """Columns that a few far values blind. `low` and `high` are the least and the largest value of each column."""
    if not rows:
        return []
    sample = sample_rows(table, rows)
    median = np.median(sample, axis=0)
    limit = FAR * _spread(sample, median)
    suspects = np.flatnonzero((limit > 0) & (np.maximum(high - median, median - low) > limit))
    gaps = {
        column: _gap(table, rows, column=column, median=median[column], limit=limit[column])
        for column in suspects.tolist()
    }
    outliers = [_examine(table, column, median=median[column], threshold=gap) for column, gap in gaps.items() if gap]
    return [outlier for outlier in outliers if outlier is not None]


def sample_rows(table: Table, rows: int) -> Float[np.ndarray, "M C"]:
    """Rows at equal distances, the same ones however the table is cut into pieces."""
    wanted = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(np.int64))
    taken, start = [], 0
    for part in table():
        inside = wanted[(wanted >= start) & (wanted < start + len(part))]
        taken.append(np.asarray(part[inside - start], np.float64))
        start += len(part)
    return np.concatenate(taken)


def _spread(sample: Float[np.ndarray, "M C"], median: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """Spread of the usual values: between the quartiles; where they are equal, the distance of the next rarer values to the median."""
    low, high = np.quantile(sample, (0.25, 0.75), axis=0)
    away = np.quantile(np.abs(sample - median), (0.75, 0.9, 0.95, 0.99), axis=0)
    candidates = np.concatenate([[high - low], away])
    first = (candidates > 0).argmax(axis=0)  # row 0, which is 0 there, where none is
    return candidates[first, np.arange(candidates.shape[1])]


def _gap(table: Table, rows: int, *, column: int, median: float, limit: float) -> float:
    """Distance from the median at which values begin that lie GAP times as far as all others; 0 without such values."""
    usual, far, count = 0.0, [], 0
    for part in table():
        away = np.abs(np.asarray(part[:, column], np.float64) - median)
        usual = max(usual, away[away <= limit].max(initial=0.0))
        far.append(away[away > limit])
        count += len(far[-1])
        if count > RARE * rows:
            return 0.0
    ordered = np.append(usual, np.sort(np.concatenate(far)))
    beyond = np.flatnonzero(ordered[1:] >= GAP * np.maximum(ordered[:-1], limit / FAR))
    return float(ordered[beyond[0] + 1]) if len(beyond) else 0.0


def _examine(table: Table, column: int, *, median: float, threshold: float) -> Outlier | None:
    """Count what is as far from the median as `threshold`.

    It is no accident where it goes on for some rows and changes meanwhile: then something moves that mostly rests.
    """
    start, first, value, runs, before = 0, None, 0.0, 0, False
    usual, far = np.zeros(3), np.zeros(3)  # number of values, their sum and that of their squares
    values: set[float] = set()
    for part in table():
        numbers = np.asarray(part[:, column], np.float64)
        away = numbers - median
        is_far = np.abs(away) >= threshold
        for sums, kind in ((usual, away[~is_far]), (far, away[is_far])):
            sums += (len(kind), kind.sum(), (kind**2).sum())
        if first is None and is_far.any():
            first = start + int(is_far.argmax())
            value = float(numbers[first - start])
        runs += int((is_far & ~np.append(before, is_far[:-1])).sum())
        before = is_far[-1] if len(part) else before
        values |= set(np.unique(numbers[is_far])[: SAME + 1])
        start += len(part)
    share, without, with_them = far[0] / (usual + far)[0], _deviation(usual), _deviation(usual + far)
    accident = len(values) <= SAME or SAME * runs > far[0]
    if first is None or not accident or share > RARE or with_them < BLINDED * without:
        return None
    return Outlier(column=column, row=first, value=value, share=float(share), usual=without, whole=with_them)


def _deviation(sums: Float[np.ndarray, " 3"]) -> float:
    count, total, squares = sums
    return float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0))) if count else 0.0


def describe_outliers(pieces: Pieces, summary: Summary, *, names: Sequence[str]) -> tuple[str, ...]:
    """Notes on the observations and rewards of a dataset, whose files have these names."""
    low, high = np.array(summary.low), np.array(summary.high)
    observed = find(lambda: (piece.observations for piece in pieces()), summary.rows, low=low, high=high)
    low, high = (np.array([getattr(task, side) for task in summary.by_task]) for side in ("low", "high"))
    rewarded = find(lambda: (piece.rewards.T for piece in pieces()), summary.transitions, low=low, high=high)
    rows = [file.rows for file in summary.files]

    def locate(row: int) -> tuple[str, int, bool]:
        """File, row in it, and whether it is the next_observations of that row."""
        ends = np.cumsum(rows)
        file = int(np.searchsorted(ends, row, side="right"))
        has_action = np.concatenate(list(_action_known(pieces(), int(ends[file]) - rows[file], end=row + 1)))
        return f"{names[file]}: " if len(names) > 1 else "", int(has_action.sum()) - 1, not has_action[-1]

    notes = []
    for outlier in observed[:LISTED]:
        file, row, is_next = locate(outlier.row)
        array = "next_observations" if is_next else "observations"
        notes.append(f"{file}{array}[{row}, {outlier.column}] {_words(outlier)}")
    if len(observed) > LISTED:
        notes.append(f"outliers in observation columns {[outlier.column for outlier in observed[LISTED:]]} too")
    for outlier in rewarded[:LISTED]:
        file, row, _ = locate(_row_of(pieces(), outlier.row))
        task = f" under task {summary.tasks[outlier.column]}" if len(summary.tasks) > 1 else ""
        notes.append(f"{file}rewards[{row}]{task} {_words(outlier)}")
    return tuple(notes)


def _words(outlier: Outlier) -> str:
    return (
        f"is {outlier.value:g}, an outlier: {100 * outlier.share:.2g} % of the values are as far out. The standard deviation "
        f"is {outlier.whole:.3g} with them and {outlier.usual:.3g} without: in its units the others hardly differ. "
        "Repair or clip them"
    )


def _action_known(pieces: Iterable[Piece], start: int, *, end: int) -> Iterator[Bool[np.ndarray, " n"]]:
    """Mask of the rows from `start` to `end` that have an action."""
    offset = 0
    for piece in pieces:
        count = len(piece.action_known)
        if offset < end and offset + count > start:
            yield np.asarray(piece.action_known[max(start - offset, 0) : end - offset])
        offset += count


def _row_of(pieces: Iterable[Piece], transition: int) -> int:
    """The row of a transition."""
    offset = 0
    for piece in pieces:
        if transition < len(piece.transitions):
            return offset + int(piece.transitions[transition])
        transition -= len(piece.transitions)
        offset += len(piece.action_known)
    raise IndexError(transition)
