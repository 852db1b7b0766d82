"""Bounds of returns: the least and the largest that the rewards allow."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from evor.types import Episodes, GivenBounds, ReturnBounds, RewardBounds


class RewardRange(NamedTuple):
    """The least and the largest reward of some rows, per task: where a task goes on, and where it finishes.

    Where there is no such row, `lowest` is infinity and `highest` is -infinity.
    """

    lowest: Float[np.ndarray, " K"]
    highest: Float[np.ndarray, " K"]
    lowest_final: Float[np.ndarray, " K"]
    highest_final: Float[np.ndarray, " K"]

    @staticmethod
    def read(episodes: Episodes) -> "RewardRange":
        """Compute the range of the recorded rewards."""
        final = episodes.masks == 0
        going = ~final & ~episodes.bootstrap_only

        def least(rows: np.ndarray) -> np.ndarray:
            return np.min(episodes.rewards, axis=1, where=rows, initial=np.inf).astype(np.float64)

        def largest(rows: np.ndarray) -> np.ndarray:
            return np.max(episodes.rewards, axis=1, where=rows, initial=-np.inf).astype(np.float64)

        return RewardRange(least(going), largest(going), least(final), largest(final))

    def merge(self, other: "RewardRange") -> "RewardRange":
        """Return the range of both."""
        return RewardRange(
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
            lowest_final=np.minimum(self.lowest_final, other.lowest_final),
            highest_final=np.maximum(self.highest_final, other.highest_final),
        )

    def return_bounds(self, discount: float) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """Return the least and the largest discounted return of these rewards.

        A return of T rewards of at most r and a final one of at most f is at most r (1 - discount^T) / (1 - discount) +
        discount^T f. That moves from f to r / (1 - discount) as T grows, so the larger of the two is the bound.
        """
        return (
            np.minimum(self.lowest_final, _forever(self.lowest, discount)),
            np.maximum(self.highest_final, _forever(self.highest, discount)),
        )


def _forever(reward: Float[np.ndarray, " K"], discount: float) -> Float[np.ndarray, " K"]:
    """The return of one reward that never ends."""
    return np.divide(reward, 1 - discount) if discount < 1 else np.where(reward == 0, 0.0, np.copysign(np.inf, reward))


def bounds_of(
    bounds: ReturnBounds, rewards: RewardRange, *, discount: float
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Return the least and the largest return of each task, in reward units, infinite where there is no bound."""
    if isinstance(bounds, RewardBounds):
        return rewards.return_bounds(discount)
    lowest, highest = (bounds.lowest, bounds.highest) if isinstance(bounds, GivenBounds) else (-np.inf, np.inf)
    tasks = np.shape(rewards.lowest)
    return np.full(tasks, lowest), np.full(tasks, highest)
