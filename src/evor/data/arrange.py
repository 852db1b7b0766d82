"""Sums -> the columns that training samples from, in standardised units. Parts of a data set merge into the whole."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from evor.data.columns import (
    Clock,
    Columns,
    Standardisation,
    complete,
    completeness_horizon,
    last_known_action,
    n_step_sums,
    reward_to_go,
)
from evor.errors import EvorError
from evor.types import DataNeeds, Episodes, Spec

STD_FLOOR = 1e-4  # of the largest |return|: below it a return is constant for our purposes
LARGEST_RETURN = 1e37  # float32 ends at 3e38, and what is learned reaches beyond the data
MOST_ROWS = 2**31 - 1  # that an index on the device counts


class Moments(NamedTuple):
    """Count, mean and variance (times the count) of some rows; `largest` is of absolute values."""

    count: int
    mean: Float[np.ndarray, " M"]
    scatter: Float[np.ndarray, " M"]
    largest: Float[np.ndarray, " M"]

    def merge(self, other: "Moments") -> "Moments":
        """Combine both (Chan, Golub & LeVeque 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * other.count / count,
            self.scatter + other.scatter + shift**2 * self.count * other.count / count,
            np.maximum(self.largest, other.largest),
        )


def moments(rows: Float[np.ndarray, "M N"]) -> Moments:
    """Compute the moments along the last axis."""
    width, count = rows.shape
    if not count:
        return Moments(0, np.zeros(width), np.zeros(width), np.zeros(width))
    return Moments(count, rows.mean(axis=1), rows.var(axis=1) * count, np.abs(rows).max(axis=1))


class Facts(NamedTuple):
    """What standardisation needs to know of some episodes; facts of parts merge into facts of the whole."""

    observations: Moments
    rewards: Moments
    returns: Moments  # complete rewards-to-go
    recorded: Moments  # for want of these: recorded parts R, the discounts D of what is missing, and R + D

    def merge(self, other: "Facts") -> "Facts":
        return Facts(*(mine.merge(theirs) for mine, theirs in zip(self, other, strict=True)))


def facts(episodes: Episodes, clock: Clock, discount: float) -> Facts:
    """Facts of one part of the data, which is cut by the clock of the whole."""
    rows = ~episodes.bootstrap_only
    usable = complete(episodes, clock, discount) & rows
    recorded = np.empty((3 * len(episodes.tasks), 0))
    if not usable.any():
        sums = n_step_sums(episodes, clock, discount, len(episodes.ends), next_action_known=False)
        part, missing = sums.rewards[:, rows], sums.discounts[:, rows]
        recorded = np.concatenate([part, missing, part + missing])
    return Facts(
        moments(episodes.observations.astype(np.float64).T),
        moments(episodes.rewards[:, rows].astype(np.float64)),
        moments(reward_to_go(episodes, discount)[:, usable]),
        moments(recorded),
    )


def _closed(found: Facts, discount: float) -> Moments:
    """Compute the moments of recorded returns R + D mean / (1 - discount): closed with the mean reward continued for ever."""
    part, missing, _ = np.split(found.recorded.mean, 3)
    scatter, spread, both = np.split(found.recorded.scatter, 3)
    largest, most, _ = np.split(found.recorded.largest, 3)
    factor = found.rewards.mean / (1 - discount)
    total = scatter + factor**2 * spread + factor * (both - scatter - spread)  # the last is twice the covariance
    return Moments(found.recorded.count, part + factor * missing, np.maximum(total, 0), largest + np.abs(factor) * most)


def standardisation(found: Facts, discount: float, enabled: bool) -> Standardisation:
    """Means and standard deviations of observations and of complete rewards-to-go; 0 and 1 where not enabled.

    Where no episode is long enough for a complete reward-to-go, the recorded part is closed with the mean reward.
    """
    observations = found.observations
    returns = found.returns if found.returns.count else _closed(found, discount)
    width, num_tasks = len(observations.mean), len(returns.mean)
    if not enabled:
        return Standardisation(
            np.zeros(width, np.float32), np.ones(width, np.float32), np.zeros(num_tasks), np.ones(num_tasks)
        )
    reach = returns.largest.max(initial=0.0)
    if not reach < LARGEST_RETURN:
        raise EvorError(
            f"sums of rewards reach {reach:.3g}, more than float32 can learn from; divide the rewards by a constant."
        )
    std = np.sqrt(observations.scatter / observations.count)
    floor = np.where(returns.largest > 0, STD_FLOOR * returns.largest, 1.0)
    return Standardisation(
        observations.mean.astype(np.float32),
        np.where(std > 1e-6 * (observations.largest + 1e-30), std, 1).astype(np.float32),
        returns.mean,
        np.maximum(np.sqrt(returns.scatter / returns.count), floor),
    )


class Layout(NamedTuple):
    """Columns in the data's own units, and what is needed to standardise them."""

    columns: Columns
    facts: Facts


def lay_out(episodes: Episodes, clock: Clock, needs: DataNeeds) -> Layout:
    """Everything training needs from one part of the data, but for its units. Raises EvorError on too many rows."""
    if len(episodes.ends) > MOST_ROWS:
        raise EvorError(
            f"the data hold {len(episodes.ends):,} rows in one piece, and an index counts {MOST_ROWS:,}; split them into "
            "files and train under --memory-gb."
        )
    rows = np.flatnonzero(~episodes.bootstrap_only)
    sums = n_step_sums(episodes, clock, needs.discount, needs.num_steps, needs.chunk_length, needs.next_action_known)
    weights = sums.weights * complete(episodes, clock, needs.discount) if needs.whole_returns else sums.weights
    columns = Columns(
        episodes.observations,
        episodes.actions,
        rows.astype(np.int32),
        last_known_action(episodes).astype(np.int32),
        sums.bootstrap.astype(np.int32),
        sums.rewards,
        sums.discounts,
        weights.astype(np.float32),
        reward_to_go(episodes, needs.discount) if needs.whole_returns else None,
        np.array(len(rows), np.int32),
    )
    return Layout(columns, facts(episodes, clock, needs.discount))


def standardise(columns: Columns, scale: Standardisation) -> Columns:
    """Columns in standardised units, float32.

    There the backup z1 = (sum + discount^n mask (mean + std z') - mean) / std keeps its form: z1 = reward + discount z'
    with reward = (sum - mean + discount^n mask mean) / std.
    """
    mean, std = scale.return_mean[:, None], scale.return_std[:, None]
    to_go = columns.rewards_to_go
    return columns._replace(
        observations=((columns.observations - scale.observation_mean) / scale.observation_std).astype(np.float32),
        rewards=((columns.rewards - mean + columns.discounts * mean) / std).astype(np.float32),
        discounts=np.asarray(columns.discounts, np.float32),
        rewards_to_go=None if to_go is None else ((to_go - mean) / std).astype(np.float32),
    )


def check_transitions(count: int) -> None:
    """Raise EvorError where a data set has no transition."""
    if not count:
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")


def check_teaching(teaches: Bool[np.ndarray, " K"], tasks: tuple[int, ...], needs: DataNeeds) -> None:
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


def teaches(columns: Columns) -> Bool[np.ndarray, " K"]:
    """Whether some row teaches each task's value."""
    return np.array([bool(row.any()) for row in np.asarray(columns.weights)[:, columns.rows]])


class Arranged(NamedTuple):
    """Columns in standardised units, and what they were made with."""

    columns: Columns
    scale: Standardisation
    facts: Facts


def arrange(episodes: Episodes, needs: DataNeeds) -> Arranged:
    """Columns of data that fit into memory. Raises EvorError where no row can be learned from."""
    check_transitions(int((~episodes.bootstrap_only).sum()))
    layout = lay_out(episodes, Clock.read(episodes), needs)
    check_teaching(teaches(layout.columns), episodes.tasks, needs)
    scale = standardisation(layout.facts, needs.discount, needs.standardise_observations)
    return Arranged(standardise(layout.columns, scale), scale, layout.facts)


def bytes_per_row(spec: Spec, num_tasks: int, needs: DataNeeds) -> int:
    """Bytes of a row's columns in training; a row that may be drawn takes four of them for its place in `rows`."""
    return 4 * (sum(spec) + 3 + (4 if needs.whole_returns else 3) * num_tasks)


def memory_bytes(spec: Spec, rows: int, transitions: int, num_tasks: int, needs: DataNeeds) -> int:
    """Bytes of all columns in training."""
    return rows * (bytes_per_row(spec, num_tasks, needs) - 4) + 4 * transitions + 4
