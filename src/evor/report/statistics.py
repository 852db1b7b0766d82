"""Scores of several tasks and seeds as the field reports them (Agarwal et al. 2021). Imports no JAX.

Scores are [T, S]: one row per task, one column per seed. Resampling is stratified: seeds are drawn anew within each task.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

RESAMPLES = 2000
BOLD = 0.95  # of the best: what the paper prints in bold

ScoreTable = Float[np.ndarray, "T S"]


class Estimate(NamedTuple):
    """A statistic with its 95 % bootstrap interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def __format__(self, digits: str) -> str:
        """`f"{found:.1f}"`: 84.2 [77.9, 90.6]."""
        value, low, high = (format(number, digits or ".3f") for number in self)
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def interquartile_mean(scores: ScoreTable) -> float:
    """Mean of the middle half of all tasks x seeds."""
    return float(trim_mean(scores, 0.25, axis=None))


def estimate(statistic: Callable[..., float], *scores: ScoreTable, seed: int = 0) -> Estimate:
    """`statistic(*scores)` and the middle 95 % of its values under resampled seeds; of one seed there is no interval."""
    if min(table.shape[1] for table in scores) < 2:
        return Estimate(value=statistic(*scores), low=math.nan, high=math.nan)
    generator = np.random.default_rng(seed)
    resampled = [statistic(*(_resample(table, generator) for table in scores)) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(value=statistic(*scores), low=float(low), high=float(high))


def _resample(scores: ScoreTable, generator: np.random.Generator) -> ScoreTable:
    return np.take_along_axis(scores, generator.integers(0, scores.shape[1], scores.shape), axis=1)


def probability_of_improvement(scores: ScoreTable, others: Float[np.ndarray, "T R"]) -> float:
    """Chance that a seed of `scores` beats one of `others` on the same task, ties counted half; mean over tasks."""
    above = (scores[:, :, None] > others[:, None]).mean(axis=(1, 2))
    tied = (scores[:, :, None] == others[:, None]).mean(axis=(1, 2))
    return float((above + tied / 2).mean())


def performance_profile(scores: ScoreTable, thresholds: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Share of tasks x seeds whose score exceeds each threshold."""
    return (scores[:, :, None] > thresholds).mean(axis=(0, 1))


def bold(means: dict[str, float]) -> set[str]:
    """Names within 95 % of the best."""
    best = max(means.values(), default=0.0)
    return {name for name, mean in means.items() if mean >= BOLD * best}
