"""Standardised units: what they are, and how they come of the moments of a dataset, whose parts merge into the whole."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from evor.data.bounds import RewardRange, bounds_of
from evor.data.chunks import Blocks, add_in_pairs, add_rows, chunks
from evor.data.returns import Clock, Extents, Returns, complete, n_step_sums, reward_to_go
from evor.errors import EvorError
from evor.types import ActionBounds, DataSpec, Episodes

STD_FLOOR = 1e-4  # of the largest |return|: below it a return is constant for our purposes
SMALLEST_RETURN = 1e-30  # the reach of a task's returns: below 1e-38 processors take a float32 for 0
LARGEST_RETURN = 1e37  # float32 ends at 3e38, and what is learned reaches beyond the data


class Standardisation(NamedTuple):
    """Means and standard deviations, z = (Z - mean) / std: of returns, one per task, and of observations. Part of every checkpoint.

    With them go the bounds of returns, in the reward's own units, infinite where there are none, and those of actions: networks
    see actions scaled to [-1, 1], and users see their own units.
    """

    observation_mean: Float[Array | np.ndarray, " O"]
    observation_std: Float[Array | np.ndarray, " O"]
    return_mean: Float[Array | np.ndarray, " *K"]
    return_std: Float[Array | np.ndarray, " *K"]
    return_min: Float[Array | np.ndarray, " *K"]
    return_max: Float[Array | np.ndarray, " *K"]
    action_low: Float[Array | np.ndarray, " *A"] = np.array(-1, np.float32)
    action_high: Float[Array | np.ndarray, " *A"] = np.array(1, np.float32)

    @property
    def action_bounds(self) -> ActionBounds:
        return ActionBounds.read(self.action_low, self.action_high)

    @property
    def standardised_bounds(self) -> tuple[Any, Any]:
        """Least and largest return in standardised units, each [*K]."""
        return (self.return_min - self.return_mean) / self.return_std, (
            self.return_max - self.return_mean
        ) / self.return_std

    def observations(self, own: Float[Array | np.ndarray, "N O"]) -> Float[Array | np.ndarray, "N O"]:
        """Observations in standardised units, float32."""
        return ((own - self.observation_mean) / self.observation_std).astype(np.float32)

    def actions(self, own: Float[Array | np.ndarray, "N A"]) -> Float[Array | np.ndarray, "N A"]:
        """Actions scaled to [-1, 1], float32."""
        return self.action_bounds.scale(own)

    def returns(self, own: Float[Array | np.ndarray, "K N"]) -> Float[Array | np.ndarray, "K N"]:
        """Returns in standardised units, float32."""
        return ((own - self.return_mean[:, None]) / self.return_std[:, None]).astype(np.float32)

    def sums(
        self, own: Float[Array | np.ndarray, "K N"], discounts: Float[Array | np.ndarray, "K N"]
    ) -> Float[Array | np.ndarray, "K N"]:
        """Standardise n-step sums; float32.

        There the backup z1 = (sum + discount^n mask (mean + std z') - mean) / std keeps its form:
        z1 = reward + discount z' with reward = (sum - mean + discount^n mask mean) / std.
        """
        mean, std = self.return_mean[:, None], self.return_std[:, None]
        return ((own - mean + discounts * mean) / std).astype(np.float32)


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
            count=count,
            mean=self.mean + shift * other.count / count,
            scatter=self.scatter + other.scatter + shift**2 * self.count * other.count / count,
            largest=np.maximum(self.largest, other.largest),
        )


def moments(blocks: Callable[[], Blocks], *, count: int, width: int, in_pairs: bool) -> Moments:
    """Compute the moments of `count` rows, which come block by block; twice, because the mean is needed first.

    They are those of the whole array in memory, to the bit; `in_pairs` says where a column of it would lie in one piece.
    """
    if not count:
        return Moments(count=0, mean=np.zeros(width), scatter=np.zeros(width), largest=np.zeros(width))
    largest = np.zeros(width)

    def add(rows: Blocks) -> np.ndarray:
        return add_in_pairs(rows, count) if in_pairs else add_rows(rows)

    def seen() -> Iterator[np.ndarray]:
        for block in blocks():
            np.maximum(largest, np.abs(block).max(axis=1, initial=0), out=largest)
            yield block

    mean = add(seen()) / count
    variance = add((block - mean[:, None]) ** 2 for block in blocks()) / count
    return Moments(count=count, mean=mean, scatter=variance * count, largest=largest)


class DataStatistics(NamedTuple):
    """Statistics of some episodes that standardisation needs; those of parts merge into those of the whole."""

    observations: Moments
    rewards: Moments
    returns: Moments  # complete rewards-to-go
    recorded: Moments  # for want of these: recorded parts R, the discounts D of what is missing, and R + D
    range: RewardRange

    def merge(self, other: "DataStatistics") -> "DataStatistics":
        """The statistics of both together."""
        return DataStatistics(*(mine.merge(theirs) for mine, theirs in zip(self, other, strict=True)))


def data_statistics(episodes: Episodes, discount: float, *, clock: Clock) -> DataStatistics:
    """Statistics of one part of the data, a chunk at a time; the clock is that of the whole dataset."""
    tasks, width = len(episodes.tasks), episodes.observations.shape[1]
    transitions = int((~episodes.bootstrap_only).sum())
    usable = [_usable(chunk, discount, clock=clock) for chunk in chunks(episodes)]
    count = sum(int(rows.sum()) for rows in usable)

    def returns() -> Iterator[np.ndarray]:
        for chunk, rows in zip(chunks(episodes), usable, strict=True):
            yield reward_to_go(chunk, discount)[:, rows]

    return DataStatistics(
        observations=moments(
            lambda: (chunk.observations.astype(np.float64).T for chunk in chunks(episodes)),
            count=len(episodes.ends),
            width=width,
            in_pairs=width == 1,
        ),
        rewards=moments(
            lambda: (chunk.rewards[:, ~chunk.bootstrap_only].astype(np.float64) for chunk in chunks(episodes)),
            count=transitions,
            width=tasks,
            in_pairs=tasks == 1,
        ),
        returns=moments(returns, count=count, width=tasks, in_pairs=tasks == 1),
        recorded=moments(
            lambda: (_recorded(chunk, discount, clock=clock) for chunk in chunks(episodes)),
            count=0 if count else transitions,
            width=3 * tasks,
            in_pairs=tasks == 1,
        ),
        range=RewardRange.read(episodes),
    )


def _usable(chunk: Episodes, discount: float, *, clock: Clock) -> Bool[np.ndarray, " n"]:
    """Rows whose reward-to-go is complete and recorded."""
    return complete(chunk, Extents.read(chunk).by_row(), clock=clock, discount=discount) & ~chunk.bootstrap_only


def _recorded(chunk: Episodes, discount: float, *, clock: Clock) -> Float[np.ndarray, "M S"]:
    """Recorded parts R of the returns, the discounts D of what is missing, and R + D."""
    rows, returns = ~chunk.bootstrap_only, Returns.read(chunk, discount, clock=clock)
    sums = n_step_sums(chunk, returns, num_steps=len(rows), next_action_known=False)
    part, missing = sums.rewards[:, rows], sums.discounts[:, rows]
    return np.concatenate([part, missing, part + missing])


def standardisation(statistics: DataStatistics, data_spec: DataSpec, *, action_bounds: ActionBounds) -> Standardisation:
    """Means and standard deviations of observations and of returns, 0 and 1 where they are not to be standardised, and bounds."""
    observation_mean, observation_std = _of_observations(statistics.observations, data_spec.standardise_observations)
    return_mean, return_std = _of_returns(statistics, data_spec)
    return_min, return_max = bounds_of(data_spec.return_bounds, statistics.range, discount=data_spec.discount)
    return Standardisation(
        observation_mean=observation_mean,
        observation_std=observation_std,
        return_mean=return_mean,
        return_std=return_std,
        return_min=return_min,
        return_max=return_max,
        action_low=action_bounds.sides[0],
        action_high=action_bounds.sides[1],
    )


def _of_observations(moments: Moments, enabled: bool) -> tuple[Float[np.ndarray, " O"], Float[np.ndarray, " O"]]:
    """Mean and standard deviation of observations, float32; those that are constant are divided by 1."""
    if not enabled:
        return np.zeros(len(moments.mean), np.float32), np.ones(len(moments.mean), np.float32)
    std = np.sqrt(moments.scatter / moments.count)
    varies = std > 1e-6 * (moments.largest + 1e-30)
    return moments.mean.astype(np.float32), np.where(varies, std, 1).astype(np.float32)


def _of_returns(
    statistics: DataStatistics, data_spec: DataSpec
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Mean and standard deviation of complete rewards-to-go. Raises EvorError where float32 does not hold them.

    Where no episode is long enough for a complete reward-to-go, the recorded part is closed with the mean reward.
    """
    if not data_spec.standardise_returns:
        return np.zeros(len(statistics.returns.mean)), np.ones(len(statistics.returns.mean))
    returns = statistics.returns if statistics.returns.count else _closed(statistics, data_spec.discount)
    reach = returns.largest.max(initial=0.0)
    if not reach < LARGEST_RETURN:
        raise EvorError(
            f"sums of rewards reach {reach:.3g}, more than float32 can learn from; divide the rewards by a constant."
        )
    if (tiny := returns.largest[(returns.largest > 0) & (returns.largest < SMALLEST_RETURN)]).size:
        raise EvorError(
            f"sums of rewards reach only {tiny[0]:.3g}, less than float32 can learn from; multiply the rewards by a constant."
        )
    floor = np.where(returns.largest > 0, STD_FLOOR * returns.largest, 1.0)
    return returns.mean, np.maximum(np.sqrt(returns.scatter / returns.count), floor)


def _closed(statistics: DataStatistics, discount: float) -> Moments:
    """Compute the moments of recorded returns R + D mean / (1 - discount): closed with the mean reward continued for ever."""
    part, missing, _ = np.split(statistics.recorded.mean, 3)
    scatter, spread, both = np.split(statistics.recorded.scatter, 3)
    largest, most, _ = np.split(statistics.recorded.largest, 3)
    factor = statistics.rewards.mean / (1 - discount)
    total = scatter + factor**2 * spread + factor * (both - scatter - spread)  # the last is twice the covariance
    return Moments(
        count=statistics.recorded.count,
        mean=part + factor * missing,
        scatter=np.maximum(total, 0),
        largest=largest + np.abs(factor) * most,
    )
