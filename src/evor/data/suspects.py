"""Facts of actions and episodes that `evor data check` tells: ranges, constant entries, duplicates and odd lengths."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.data.outliers import sample_rows
from evor.types import ActionBounds, Episodes

NARROW = 0.2  # of the bounds: where the middle 98 % of the values take less, a few of them stretch the bounds
ODD = 5  # times the median length, or a fifth of it
SHARE = 0.02  # of all episodes; where more have an odd length, lengths simply differ
NAMED = 5  # episodes and entries in a note


class Rows(NamedTuple):
    """Some whole episodes of a dataset, in memory or on disk."""

    observations: Float[np.ndarray, "N O"]
    actions: Float[np.ndarray, "N A"]
    action_known: Bool[np.ndarray, " N"]
    starts: Int[np.ndarray, " E"]  # first rows of the episodes


Pieces = Callable[[], Iterable[Rows]]


def rows_of(episodes: Episodes) -> Rows:
    """All rows of some episodes."""
    return Rows(
        observations=episodes.observations,
        actions=episodes.actions,
        action_known=episodes.action_known,
        starts=np.append(0, np.flatnonzero(episodes.ends)[:-1] + 1),
    )


def action_facts(pieces: Pieces, bounds: ActionBounds) -> list[dict[str, Any]]:
    """Range, bounds and spread of every entry of an action; shares are of all recorded actions."""
    low, high = bounds.sides
    least, most, rows, at_bounds = np.full(len(low), np.inf), np.full(len(low), -np.inf), 0, np.zeros(len(low))
    for actions in _actions(pieces):
        if len(actions):
            least, most = np.minimum(least, actions.min(axis=0)), np.maximum(most, actions.max(axis=0))
        at_bounds += ((actions <= low) | (actions >= high)).sum(axis=0)
        rows += len(actions)
    if not rows:
        return []
    q01, q99 = np.quantile(sample_rows(lambda: _actions(pieces), rows), (0.01, 0.99), axis=0)
    width = np.where(high > low, high - low, 1)
    return [
        {
            "entry": entry,
            "bounds": [float(low[entry]), float(high[entry])],
            "low": float(least[entry]),
            "high": float(most[entry]),
            "at_bounds": float(at_bounds[entry] / rows),
            "middle": float((q99 - q01)[entry] / width[entry]),
            "constant": bool(least[entry] == most[entry]),
        }
        for entry in range(len(low))
    ]


def describe_actions(facts: list[dict[str, Any]]) -> tuple[str, ...]:
    """Notes on entries that are constant, and on bounds that a few values stretch."""
    notes = []
    if constant := [fact["entry"] for fact in facts if fact["constant"]]:
        notes.append(f"action entries {constant} are constant")
    stretched = [fact for fact in facts if not fact["constant"] and fact["middle"] < NARROW]
    notes += [
        f"action entry {fact['entry']}: 98 % of its values take {100 * fact['middle']:.2g} % of its bounds; a few values, or wide bounds, "
        "leave little room for the others. Repair them, or give closer bounds in action_low and action_high"
        for fact in stretched[:NAMED]
    ]
    if more := [fact["entry"] for fact in stretched[NAMED:]]:
        notes.append(f"the same is true of the action entries {more}")
    return tuple(notes)


def describe_episodes(pieces: Pieces) -> tuple[str, ...]:
    """Notes on episodes that are there twice, and on a few whose lengths are far from the others'."""
    first: dict[bytes, int] = {}
    twice, lengths, number = [], [], 0
    for piece in pieces():
        for identity, length in identities(piece):
            before = first.setdefault(identity, number)
            twice += [(number, before)] if before != number else []
            lengths.append(length)
            number += 1
    notes = []
    if twice:
        told = ", ".join(f"{again} is {before}" for again, before in twice[:NAMED])
        notes.append(
            f"{len(twice)} of {number} episodes are there twice (counted from 0: {told}): they count twice; remove the copies"
        )
    median = float(np.median(lengths))
    odd = np.flatnonzero((np.array(lengths) > ODD * median) | (np.array(lengths) * ODD < median))
    if 0 < len(odd) <= SHARE * number:
        told = ", ".join(f"{index} has {lengths[index]} rows" for index in odd[:NAMED].tolist())
        notes.append(
            f"{len(odd)} of {number} episodes have lengths far from the median of {median:g} (counted from 0: {told}); look at them"
        )
    return tuple(notes)


def identities(piece: Rows) -> Iterator[tuple[bytes, int]]:
    """Digest of the observations and actions of each episode, and its length."""
    edges = [*np.asarray(piece.starts).tolist(), len(piece.actions)]
    for start, stop in itertools.pairwise(edges):
        identity = sha256(np.ascontiguousarray(piece.observations[start:stop]).tobytes())
        identity.update(np.ascontiguousarray(piece.actions[start:stop]).tobytes())
        yield identity.digest(), stop - start


def _actions(pieces: Pieces) -> Iterator[Float[np.ndarray, "n A"]]:
    """Recorded actions of the pieces."""
    for piece in pieces():
        known = np.asarray(piece.action_known)
        yield np.asarray(piece.actions) if known.all() else np.asarray(piece.actions)[known]
