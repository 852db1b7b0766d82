"""Statistics with bootstrap intervals. Imports no JAX.

Scores of several tasks and seeds are reported as the field does (Agarwal et al. 2021). They are [T, S]: one row per task, one
column per seed. Resampling is stratified: seeds are drawn anew within each task. Of recorded rows, whole episodes are drawn.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata, trim_mean

RESAMPLES = 2000
MIDDLE = (0.025, 0.975)  # ends of an interval, as quantiles of the resampled values
BOLD = 0.95  # of the best: what the paper prints in bold

ScoreTable = Float[np.ndarray, "T S"]
ScoreTables = Float[np.ndarray, "*B T S"]  # one, or many at once
Statistic = Callable[..., Any]  # of tables [*B, T, S]: a number [*B] of each


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


def mean(scores: ScoreTables) -> Float[np.ndarray, "*B"]:
    """Mean of all tasks x seeds."""
    return _flat(scores).mean(axis=-1)


def interquartile_mean(scores: ScoreTables) -> Float[np.ndarray, "*B"]:
    """Mean of the middle half of all tasks x seeds."""
    return trim_mean(_flat(scores), 0.25, axis=-1)


def _flat(scores: ScoreTables) -> Float[np.ndarray, "*B N"]:
    return scores.reshape(*scores.shape[:-2], -1)


def estimate(statistic: Statistic, *scores: ScoreTable, seed: int = 0) -> Estimate:
    """`statistic(*scores)` and the middle 95 % of its values under resampled seeds; of one seed there is no interval."""
    value = float(statistic(*scores))
    if min(table.shape[1] for table in scores) < 2:
        return Estimate(value=value, low=math.nan, high=math.nan)
    generator = np.random.default_rng(seed)
    drawn = [[generator.integers(0, table.shape[1], table.shape) for table in scores] for _ in range(RESAMPLES)]
    resampled = [
        np.take_along_axis(table[None], np.stack(seeds), axis=2)
        for table, seeds in zip(scores, zip(*drawn, strict=True), strict=True)
    ]
    low, high = np.quantile(statistic(*resampled), MIDDLE)
    return Estimate(value=value, low=float(low), high=float(high))


def estimate_by_episode(
    statistic: Callable[..., float],
    episode: Int[np.ndarray, " R"],
    *columns: np.ndarray,
    resamples: int = RESAMPLES // 2,
    seed: int = 0,
) -> Estimate:
    """`statistic(*columns)` of rows [R, ...], and the middle 95 % of its values where whole episodes are drawn anew.

    Rows of an episode depend on one another, so intervals over rows would be too narrow (cluster bootstrap). There is no
    interval of one episode, nor where the statistic is NaN in half of the draws.
    """
    value = statistic(*columns)
    _, number = np.unique(episode, return_inverse=True)
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    if len(rows) < 2:
        return Estimate(value=value, low=math.nan, high=math.nan)
    generator, resampled = np.random.default_rng(seed), np.empty(resamples)
    for index in range(resamples):
        drawn = np.concatenate([rows[one] for one in generator.integers(0, len(rows), len(rows))])
        resampled[index] = statistic(*(column[drawn] for column in columns))
    if np.isnan(resampled).mean() > 0.5:
        return Estimate(value=value, low=math.nan, high=math.nan)
    low, high = np.nanquantile(resampled, MIDDLE)
    return Estimate(value=value, low=float(low), high=float(high))


def mean_by_episode(episode: Int[np.ndarray, " R"], values: Float[np.ndarray, " R"], *, seed: int = 0) -> Estimate:
    """Mean of rows with the interval of `estimate_by_episode`, of which it is the fast case: sums of episodes are drawn."""
    _, number = np.unique(episode, return_inverse=True)
    count, total = np.bincount(number), np.bincount(number, values)
    if len(count) < 2:
        return Estimate(value=float(values.mean()), low=math.nan, high=math.nan)
    drawn = np.random.default_rng(seed).integers(0, len(count), (RESAMPLES, len(count)))
    low, high = np.quantile(total[drawn].sum(axis=1) / count[drawn].sum(axis=1), MIDDLE)
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))


def spearman(first: Float[np.ndarray, " R"], second: Float[np.ndarray, " R"]) -> float:
    """Spearman's rank correlation; equal values share their mean rank. NaN where one of both is constant."""
    return correlation(rankdata(first), rankdata(second))


def ranks_within(values: Float[np.ndarray, " R"], group: Int[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """Ranks of values among those of their own group."""
    ranks = np.empty(len(values))
    for name in np.unique(group):
        ranks[group == name] = rankdata(values[group == name])
    return ranks


def correlation_within(
    first: Float[np.ndarray, " R"], second: Float[np.ndarray, " R"], *, group: Int[np.ndarray, " R"]
) -> float:
    """Correlation of what is left of two columns without the means of their groups."""
    count = np.maximum(np.bincount(group), 1)
    centred = [column - (np.bincount(group, column) / count)[group] for column in (first, second)]
    return correlation(*centred)


def correlation(first: Float[np.ndarray, " R"], second: Float[np.ndarray, " R"]) -> float:
    """Correlation of two columns; NaN where one of both is constant."""
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else math.nan


def auroc(score: Float[np.ndarray, " R"], is_positive: Bool[np.ndarray, " R"]) -> float:
    """Chance that a positive row has a higher score than another one, ties counted half (Mann-Whitney). NaN without both."""
    positives = int(is_positive.sum())
    pairs = positives * (len(score) - positives)
    return float((rankdata(score)[is_positive].sum() - positives * (positives + 1) / 2) / pairs) if pairs else math.nan


def in_deviations(rows: Float[np.ndarray, "*B A"], std: Float[np.ndarray, " A"]) -> Float[np.ndarray, "*B A"]:
    """Rows in standard deviations of each column. Columns that are constant stay as they are."""
    return rows / np.where(std > 0, std, 1)


def probability_of_improvement(scores: ScoreTables, others: Float[np.ndarray, "*B T R"]) -> Float[np.ndarray, "*B"]:
    """Chance that a seed of `scores` beats one of `others` on the same task, ties counted half; mean over tasks."""
    mine, theirs = scores[..., :, None], others[..., None, :]
    above, tied = (compared.mean(axis=(-2, -1)) for compared in (mine > theirs, mine == theirs))
    return (above + tied / 2).mean(axis=-1)


def performance_profile(scores: ScoreTable, thresholds: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Share of tasks x seeds whose score exceeds each threshold."""
    return (scores[:, :, None] > thresholds).mean(axis=(0, 1))


def bold(means: dict[str, float]) -> set[str]:
    """Names within 95 % of the best, where any is above 0."""
    best = max(means.values(), default=0.0)
    return {name for name, mean in means.items() if best > 0 and mean >= BOLD * best}
