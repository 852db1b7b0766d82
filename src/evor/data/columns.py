"""Columns that training samples from: episodes laid out in their own units and in standardised ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.data.returns import Clock, Returns, completeness_horizon, n_step_sums
from evor.data.standardisation import DataStatistics, Standardisation, data_statistics, standardisation
from evor.errors import EvorError
from evor.types import DataSpec, Episodes, Spec

MOST_ROWS = 2**31 - 1  # that an index on the device counts


class Columns(NamedTuple):
    """Arrays that the sampler gathers from, one entry per row; in training, they are standardised."""

    observations: Float[Array | np.ndarray, "N O"]
    actions: Float[Array | np.ndarray, "N A"]
    sampled_rows: Int[Array | np.ndarray, " S"]  # rows that may be drawn
    last_action_row: Int[Array | np.ndarray, " N"]  # last row of the same episode whose action is known
    bootstrap: Int[Array | np.ndarray, " N"]  # row where the n-step sum bootstraps
    rewards: Float[Array | np.ndarray, "K N"]
    discounts: Float[Array | np.ndarray, "K N"]  # discount^steps * mask
    weights: Float[Array | np.ndarray, "K N"]
    rewards_to_go: Float[Array | np.ndarray, "K N"] | None  # complete ones; other rows then have weight 0
    count: Int[Array | np.ndarray, ""]  # of `rows`; behind them may be padding
    # Standardised least and largest return of each task; None in the data's own units.
    return_bounds: Float[Array | np.ndarray, "2 K"] | None = None
    # Stored draws of each seed's base policy where the sums of `sampled_rows` bootstrap, where an agent asks for them; of
    # a frozen base policy, which all seeds share, S is 1.
    proposals: Float[Array, "S M P H"] | None = None


class Layout(NamedTuple):
    """Columns in the data's own units, and what is needed to standardise them."""

    columns: Columns
    statistics: DataStatistics


def lay_out(episodes: Episodes, data_spec: DataSpec, *, clock: Clock | None = None) -> Layout:
    """Everything training needs from one part of the data, but for its units. Raises EvorError on too many rows.

    The clock is that of the whole dataset; without one, the episodes are all of it.
    """
    check_rows(len(episodes.ends))
    returns = Returns.read(episodes, data_spec.discount, clock=clock)
    statistics = data_statistics(episodes, returns)  # before there are sums, whose memory it would need besides
    sums = n_step_sums(
        episodes,
        returns,
        num_steps=data_spec.num_steps,
        chunk_length=data_spec.chunk_length,
        next_action_known=data_spec.next_action_known,
    )
    weights = sums.weights * returns.complete if data_spec.full_returns else sums.weights
    rows = np.flatnonzero(~episodes.bootstrap_only)
    columns = Columns(
        observations=episodes.observations,
        actions=episodes.actions,
        sampled_rows=rows.astype(np.int32),
        last_action_row=returns.extents.last_known.astype(np.int32),
        bootstrap=sums.bootstrap.astype(np.int32),
        rewards=sums.rewards,
        discounts=sums.discounts,
        weights=weights.astype(np.float32),
        rewards_to_go=returns.to_go if data_spec.full_returns else None,
        count=np.array(len(rows), np.int32),
    )
    return Layout(columns, statistics)


def check_rows(rows: int, place: str = "the data hold") -> None:
    """Raise EvorError where an index does not count so many rows."""
    if rows > MOST_ROWS:
        raise EvorError(
            f"{place} {rows:,} rows in one piece, and an index counts {MOST_ROWS:,}; split them into files and train under "
            "memory_gb (--memory-gb)."
        )


def standardise(columns: Columns, scale: Standardisation) -> Columns:
    """Columns in standardised units, float32."""
    to_go = columns.rewards_to_go
    return columns._replace(
        observations=scale.observations(columns.observations),
        actions=scale.actions(columns.actions),
        rewards=scale.sums(columns.rewards, columns.discounts),
        discounts=np.asarray(columns.discounts, np.float32),
        rewards_to_go=None if to_go is None else scale.returns(to_go),
        return_bounds=np.asarray(scale.standardised_bounds, np.float32),
    )


class Arranged(NamedTuple):
    """Columns in standardised units, and what they were made with."""

    columns: Columns
    scale: Standardisation
    statistics: DataStatistics


def arrange(episodes: Episodes, data_spec: DataSpec) -> Arranged:
    """Columns of data that fit into memory. Raises EvorError where no row can be learned from."""
    check_transitions(int((~episodes.bootstrap_only).sum()))
    layout = lay_out(episodes, data_spec)
    check_targets(has_targets(layout.columns), data_spec, tasks=episodes.tasks)
    scale = standardisation(layout.statistics, data_spec, action_bounds=episodes.action_bounds)
    return Arranged(columns=standardise(layout.columns, scale), scale=scale, statistics=layout.statistics)


def check_transitions(count: int) -> None:
    """Raise EvorError where a dataset has no transition."""
    if not count:
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")


def has_targets(columns: Columns) -> Bool[np.ndarray, " K"]:
    """Whether some row gives each task's value a target."""
    return np.array([bool(row.any()) for row in np.asarray(columns.weights)[:, columns.sampled_rows]])


def check_targets(has_targets: Bool[np.ndarray, " K"], data_spec: DataSpec, *, tasks: tuple[int, ...]) -> None:
    """Raise EvorError where some task has no row with a value target."""
    if has_targets.all():
        return
    if data_spec.full_returns:
        remedy = (
            f"episodes are cut before {completeness_horizon(data_spec.discount)} steps, where discount {data_spec.discount} is still "
            "felt, and those that finish are held to that clock, or only the fast would count; use an objective that bootstraps"
        )
    elif data_spec.chunk_length > 1:
        remedy = f"no episode holds a chunk of {data_spec.chunk_length} actions and a state after it; use a shorter chunk_length"
    else:
        remedy = "no row has a known next action; let the policy supply it (next_action=PolicyAction(), or --agent.next-action policy-action)"
    raise EvorError(f"no row of task {tasks[int(np.argmin(has_targets))]} has a usable value target: {remedy}.")


def bytes_per_row(spec: Spec, data_spec: DataSpec, *, num_tasks: int) -> int:
    """Bytes of a row's columns in training; a row that may be drawn takes four of them for its place in `rows`."""
    draws = data_spec.num_draws * data_spec.chunk_length * spec.action_dim
    return 4 * (sum(spec) + 3 + (4 if data_spec.full_returns else 3) * num_tasks + draws)


def memory_bytes(spec: Spec, data_spec: DataSpec, *, rows: int, transitions: int, num_tasks: int) -> int:
    """Bytes of all columns in training."""
    return rows * (bytes_per_row(spec, data_spec, num_tasks=num_tasks) - 4) + 4 * transitions + 4
