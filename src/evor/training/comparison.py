"""Proposals of a base policy against the dataset's own actions, before anything is trained on them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evor.data.suspects import Rows
from evor.errors import EvorError
from evor.runtime.progress import console
from evor.types import ActionBounds

ROWS = 256  # that are compared
OUTSIDE = 0.05  # share of actions beyond the bounds, from which on units differ
FAR = 1.0  # shift of a column's mean, in its standard deviations, that is said


class Recorded(NamedTuple):
    """Some rows of a dataset, and the chunks of actions that were recorded from there on."""

    rows: Int[np.ndarray, " R"]  # counted over the whole dataset
    actions: Float[np.ndarray, "R h A"]


class Comparison(NamedTuple):
    """Comparison of proposals with recorded actions at the same rows. Columns are the entries of an action."""

    rows: int
    outside: Float[np.ndarray, " A"]  # share of proposed numbers beyond the bounds
    any_outside: float  # share of proposed actions with such a number
    low: Float[np.ndarray, " A"]  # least and largest proposed number
    high: Float[np.ndarray, " A"]
    shift: Float[np.ndarray, " A"]  # mean proposal minus mean recorded action, in standard deviations of the latter
    spread: Float[np.ndarray, " A"]  # standard deviation over the proposals of a row, in the same unit
    is_deterministic: bool  # whether all proposals of each row are equal; False where there is one


def recorded(pieces: Iterable[Rows], chunk_length: int, *, number: int = ROWS) -> Recorded:
    """Random rows from which on a whole chunk of actions was recorded; none where no episode is so long."""
    generator = np.random.default_rng(0)
    drawn: list[tuple[float, int, np.ndarray]] = []
    start = 0
    for piece in pieces:
        ends = np.append(piece.starts[1:], len(piece.actions)) - 1
        last = np.repeat(ends - ~piece.action_known[ends], np.diff(np.append(piece.starts, len(piece.actions))))
        whole = np.flatnonzero(np.arange(len(last)) + chunk_length - 1 <= last)
        ranks = generator.random(len(whole))
        for place in np.argsort(ranks)[:number]:
            row = int(whole[place])
            drawn.append((float(ranks[place]), start + row, np.array(piece.actions[row : row + chunk_length])))
        drawn = sorted(drawn, key=lambda one: one[0])[:number]
        start += len(piece.actions)
    drawn.sort(key=lambda one: one[1])
    width = len(drawn[0][2][0]) if drawn else 0
    actions = np.array([chunk for *_, chunk in drawn], np.float32).reshape(len(drawn), chunk_length, width)
    return Recorded(np.array([row for _, row, _ in drawn], int), actions)


def compare(
    proposals: Float[np.ndarray, "R K h A"], actions: Float[np.ndarray, "R h A"], *, bounds: ActionBounds
) -> Comparison:
    """Compare proposals with the actions that were recorded at the same rows."""
    low, high = bounds.sides
    beyond = (proposals < low - bounds.tolerance) | (proposals > high + bounds.tolerance)
    std = actions.std(axis=(0, 1))
    unit = np.where(std > 1e-6 * (high - low), std, np.where(high > low, (high - low) / 2, 1))
    return Comparison(
        rows=len(actions),
        outside=beyond.mean(axis=(0, 1, 2)),
        any_outside=float(beyond.any(axis=-1).mean()),
        low=proposals.min(axis=(0, 1, 2)),
        high=proposals.max(axis=(0, 1, 2)),
        shift=(proposals.mean(axis=(0, 1, 2)) - actions.mean(axis=(0, 1))) / unit,
        spread=proposals.std(axis=1).mean(axis=(0, 1)) / unit,
        is_deterministic=proposals.shape[1] > 1 and bool((proposals == proposals[:, :1]).all()),
    )


def check_alike(compared: Comparison, *, name: str, bounds: ActionBounds) -> None:
    """Raise EvorError where too many proposals leave the bounds of the data's actions; tell the rest."""
    if compared.any_outside > OUTSIDE:
        worst = int(compared.outside.argmax())
        raise EvorError(
            f"{compared.any_outside:.0%} of the actions that {name} proposes leave the bounds of the data; entry {worst} goes "
            f"from {compared.low[worst]:.4g} to {compared.high[worst]:.4g}, and the data's lies in {bounds.of_entry(worst)}. "
            "Usual causes: absolute against relative actions, degrees against radians, another order of entries; convert "
            "the proposals to the data's units."
        )
    shifts, spreads = (f"{array.min():.2g} to {array.max():.2g}" for array in (compared.shift, compared.spread))
    console.print(
        f"proposals at {compared.rows} rows, in standard deviations of the data's actions: shift {shifts}, spread {spreads}; "
        f"{compared.any_outside:.1%} are outside the bounds."
    )
    if (far := np.flatnonzero(np.abs(compared.shift) > FAR)).size:
        entries = ", ".join(f"{entry} ({compared.shift[entry]:+.2g})" for entry in far[:5])
        console.print(
            f"note: the means of these entries lie more than {FAR:g} standard deviation from the data's: {entries}; look "
            "whether both mean the same by them."
        )
    if compared.is_deterministic:
        console.print(
            f"note: all proposals of a row are equal: {name} is deterministic, and there is nothing to search among."
        )
