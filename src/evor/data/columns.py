"""Columns that training samples from: episodes laid out in their own units and in standardised ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.data.chunks import chunks
from evor.data.returns import Clock, Extents, Returns, completeness_horizon, n_step_sums
from evor.data.standardisation import DataStatistics, Standardisation, data_statistics, standardisation
from evor.errors import EvorError
from evor.types import DataSpec, Episodes, Spec

MOST_ROWS = 2**31 - 1  # that an index on the device counts
# Rows lead; in the other columns tasks do.
ROW_MAJOR = ("observations", "actions", "sampled_rows", "last_action_row", "bootstrap")


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


class Assembly:
    """Columns put together from parts that follow each other, with zeros up to a size. Columns of `whole` stay as they are."""

    def __init__(self, *, rows: int, transitions: int, whole: Mapping[str, np.ndarray] | None = None):
        self._sizes = rows, transitions
        self._whole = whole or {}
        self._arrays: dict[str, Any] = {}
        self._row = self._drawn = 0

    def add(self, columns: Columns) -> None:
        """Append a part, whose indices count from its own first row."""
        shifted = columns._replace(
            sampled_rows=columns.sampled_rows + self._row,
            last_action_row=columns.last_action_row + self._row,
            bootstrap=columns.bootstrap + self._row,
        )
        for name, array in shifted._asdict().items():
            if array is not None and name not in ("count", "return_bounds", *self._whole):
                self._fill(name, array)
        self._row += len(columns.last_action_row)
        self._drawn += len(columns.sampled_rows)

    def _fill(self, name: str, array: np.ndarray) -> None:
        rows, transitions = self._sizes
        offset, size = (self._drawn, transitions) if name == "sampled_rows" else (self._row, rows)
        leads = name in ROW_MAJOR
        if name not in self._arrays:
            shape = (size, *array.shape[1:]) if leads else (*array.shape[:-1], size)
            self._arrays[name] = np.zeros(shape, array.dtype)
        if leads:
            self._arrays[name][offset : offset + len(array)] = array
        else:
            self._arrays[name][..., offset : offset + array.shape[-1]] = array

    def columns(self, return_bounds: np.ndarray | None = None) -> Columns:
        """All columns."""
        arrays: dict[str, Any] = {"rewards_to_go": None} | self._arrays | dict(self._whole)
        return Columns(**arrays, count=np.array(self._drawn, np.int32), return_bounds=return_bounds)


def lay_out(episodes: Episodes, data_spec: DataSpec, *, clock: Clock | None = None) -> Layout:
    """Everything training needs from one part of the data, but for its units. Raises EvorError on too many rows.

    The clock is that of the whole dataset; without one, the episodes are all of it.
    """
    check_rows(len(episodes.ends))
    clock = Clock.read(Extents.read(episodes)) if clock is None else clock
    whole = {"observations": episodes.observations, "actions": episodes.actions}
    assembly = Assembly(rows=len(episodes.ends), transitions=_transitions(episodes), whole=whole)
    for chunk in chunks(episodes):
        assembly.add(_own_columns(chunk, data_spec, clock=clock))
    return Layout(assembly.columns(), data_statistics(episodes, data_spec.discount, clock=clock))


def _own_columns(chunk: Episodes, data_spec: DataSpec, *, clock: Clock) -> Columns:
    """Columns of some whole episodes, in the data's own units."""
    returns = Returns.read(chunk, data_spec.discount, clock=clock)
    sums = n_step_sums(
        chunk,
        returns,
        num_steps=data_spec.num_steps,
        chunk_length=data_spec.chunk_length,
        next_action_known=data_spec.next_action_known,
        next_action_taken=data_spec.next_action_taken,
    )
    weights = sums.weights * returns.complete if data_spec.full_returns else sums.weights
    rows = np.flatnonzero(~chunk.bootstrap_only)
    return Columns(
        observations=chunk.observations,
        actions=chunk.actions,
        sampled_rows=rows.astype(np.int32),
        last_action_row=returns.extents.last_known.astype(np.int32),
        bootstrap=sums.bootstrap.astype(np.int32),
        rewards=sums.rewards,
        discounts=sums.discounts,
        weights=weights.astype(np.float32),
        rewards_to_go=returns.to_go if data_spec.full_returns else None,
        count=np.array(len(rows), np.int32),
    )


def _transitions(episodes: Episodes) -> int:
    return int((~episodes.bootstrap_only).sum())


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
    rows, transitions = len(episodes.ends), _transitions(episodes)
    check_rows(rows)
    check_transitions(transitions)
    clock = Clock.read(Extents.read(episodes))
    statistics = data_statistics(episodes, data_spec.discount, clock=clock)
    scale = standardisation(statistics, data_spec, action_bounds=episodes.action_bounds)
    assembly = Assembly(rows=rows, transitions=transitions)
    for chunk in chunks(episodes):
        assembly.add(standardise(_own_columns(chunk, data_spec, clock=clock), scale))
    columns = assembly.columns(np.asarray(scale.standardised_bounds, np.float32))
    check_targets(has_targets(columns), data_spec, tasks=episodes.tasks)
    return Arranged(columns=columns, scale=scale, statistics=statistics)


def check_transitions(count: int) -> None:
    """Raise EvorError where a dataset has no transition."""
    if not count:
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")


def has_targets(columns: Columns) -> Bool[np.ndarray, " K"]:
    """Whether some row gives each task's value a target."""
    return np.array([bool(row[columns.sampled_rows].any()) for row in np.asarray(columns.weights)])


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
        after = "another" if data_spec.next_action_known and not data_spec.next_action_taken else "a state"
        remedy = f"no episode holds a chunk of {data_spec.chunk_length} actions and {after} after it; use a shorter chunk_length"
    elif data_spec.next_action_known and not data_spec.next_action_taken:
        remedy = (
            "no row has a known next action, which targets of this agent compare with their own; record episodes of two actions or "
            "more, or choose another agent, such as iql"
        )
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
