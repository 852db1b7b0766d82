"""What training samples from: episodes laid out in columns, in their own units and in standardised ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.data.returns import Clock, Returns, completeness_horizon, n_step_sums
from evor.data.standardisation import Facts, Standardisation, facts, standardisation
from evor.errors import EvorError
from evor.types import DataNeeds, Episodes, Spec

MOST_ROWS = 2**31 - 1  # that an index on the device counts


class Columns(NamedTuple):
    """What the sampler gathers from, one entry per row; in training, rewards and observations are standardised."""

    observations: Float[Array | np.ndarray, "N O"]
    actions: Float[Array | np.ndarray, "N A"]
    rows: Int[Array | np.ndarray, " S"]  # rows that may be drawn
    last: Int[Array | np.ndarray, " N"]  # last row of the same episode whose action is known
    bootstrap: Int[Array | np.ndarray, " N"]  # row where the n-step sum bootstraps
    rewards: Float[Array | np.ndarray, "K N"]
    discounts: Float[Array | np.ndarray, "K N"]  # discount^steps * mask
    weights: Float[Array | np.ndarray, "K N"]
    rewards_to_go: Float[Array | np.ndarray, "K N"] | None  # complete ones; other rows then have weight 0
    count: Int[Array | np.ndarray, ""]  # of `rows`; behind them may be padding


class Layout(NamedTuple):
    """Columns in the data's own units, and what is needed to standardise them."""

    columns: Columns
    facts: Facts


def lay_out(episodes: Episodes, needs: DataNeeds, *, clock: Clock | None = None) -> Layout:
    """Everything training needs from one part of the data, but for its units. Raises EvorError on too many rows.

    The clock is that of the whole data set; without one, the episodes are all of it.
    """
    if len(episodes.ends) > MOST_ROWS:
        raise EvorError(
            f"the data hold {len(episodes.ends):,} rows in one piece, and an index counts {MOST_ROWS:,}; split them into "
            "files and train under --memory-gb."
        )
    returns = Returns.read(episodes, needs.discount, clock=clock)
    found = facts(episodes, returns)  # before there are sums, whose memory it would need besides
    sums = n_step_sums(
        episodes,
        returns,
        num_steps=needs.num_steps,
        chunk_length=needs.chunk_length,
        next_action_known=needs.next_action_known,
    )
    weights = sums.weights * returns.complete if needs.whole_returns else sums.weights
    rows = np.flatnonzero(~episodes.bootstrap_only)
    columns = Columns(
        observations=episodes.observations,
        actions=episodes.actions,
        rows=rows.astype(np.int32),
        last=returns.extents.last_known.astype(np.int32),
        bootstrap=sums.bootstrap.astype(np.int32),
        rewards=sums.rewards,
        discounts=sums.discounts,
        weights=weights.astype(np.float32),
        rewards_to_go=returns.to_go if needs.whole_returns else None,
        count=np.array(len(rows), np.int32),
    )
    return Layout(columns, found)


def standardise(columns: Columns, scale: Standardisation) -> Columns:
    """Columns in standardised units, float32."""
    to_go = columns.rewards_to_go
    return columns._replace(
        observations=scale.observations(columns.observations),
        rewards=scale.sums(columns.rewards, columns.discounts),
        discounts=np.asarray(columns.discounts, np.float32),
        rewards_to_go=None if to_go is None else scale.returns(to_go),
    )


class Arranged(NamedTuple):
    """Columns in standardised units, and what they were made with."""

    columns: Columns
    scale: Standardisation
    facts: Facts


def arrange(episodes: Episodes, needs: DataNeeds) -> Arranged:
    """Columns of data that fit into memory. Raises EvorError where no row can be learned from."""
    check_transitions(int((~episodes.bootstrap_only).sum()))
    layout = lay_out(episodes, needs)
    check_teaching(teaches(layout.columns), needs, tasks=episodes.tasks)
    scale = standardisation(layout.facts, needs)
    return Arranged(columns=standardise(layout.columns, scale), scale=scale, facts=layout.facts)


def check_transitions(count: int) -> None:
    """Raise EvorError where a data set has no transition."""
    if not count:
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")


def teaches(columns: Columns) -> Bool[np.ndarray, " K"]:
    """Whether some row teaches each task's value."""
    return np.array([bool(row.any()) for row in np.asarray(columns.weights)[:, columns.rows]])


def check_teaching(teaches: Bool[np.ndarray, " K"], needs: DataNeeds, *, tasks: tuple[int, ...]) -> None:
    """Raise EvorError where no row can teach the value of some task."""
    if teaches.all():
        return
    if needs.whole_returns:
        remedy = (
            f"episodes are cut before {completeness_horizon(needs.discount)} steps, where discount {needs.discount} is still "
            "felt, and those that finish are held to that clock, or only the fast would count; use an objective that bootstraps"
        )
    elif needs.chunk_length > 1:
        remedy = (
            f"no episode holds a chunk of {needs.chunk_length} actions and a state after it; use a shorter chunk_length"
        )
    else:
        remedy = "no row has a known next action; let the policy supply it (--agent.next-action policy-action)"
    raise EvorError(f"no row of task {tasks[int(np.argmin(teaches))]} can teach the value: {remedy}.")


def bytes_per_row(spec: Spec, needs: DataNeeds, *, num_tasks: int) -> int:
    """Bytes of a row's columns in training; a row that may be drawn takes four of them for its place in `rows`."""
    return 4 * (sum(spec) + 3 + (4 if needs.whole_returns else 3) * num_tasks)


def memory_bytes(spec: Spec, needs: DataNeeds, *, rows: int, transitions: int, num_tasks: int) -> int:
    """Bytes of all columns in training."""
    return rows * (bytes_per_row(spec, needs, num_tasks=num_tasks) - 4) + 4 * transitions + 4
