"""Predictions against what was recorded: ranking, calibration, bounds and alarms, with intervals. Imports no JAX."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from evor.distributions.measures import crps, midpoints, pit
from evor.report.calibration import Predictions, calibration
from evor.report.statistics import (
    Estimate,
    auroc,
    correlation,
    correlation_within,
    estimate_by_episode,
    in_deviations,
    mean_by_episode,
    ranks_within,
    spearman,
)

TOLERANCE = 0.01  # of the distance between the bounds of the return: predictions beyond by less are rounding
FEWEST_STATES = 10  # with several recorded continuations, below which a correlation within states says nothing
FAILURES = 0.25  # the lowest returns: a quarter of the rows, and whatever equals them
NEIGHBOURS = 20  # rows that stand for what else could have been done in a state
PLACEBOS, PLACEBO_CANDIDATES, PLACEBO_WIDTH = 100, 8, 32  # random networks
RARE = 0.02  # share of failures, or of others, below which an alarm can't be measured


class Compared(NamedTuple):
    """Rows of held-out episodes: predicted return distributions of the recorded actions, and what came."""

    episode: Int[np.ndarray, " R"]
    nodes: Float[np.ndarray, "R Z"]  # ordered quantiles of the predicted return
    realised: Float[np.ndarray, " R"]

    @property
    def mean(self) -> Float[np.ndarray, " R"]:
        """Predicted returns."""
        return self.nodes.mean(axis=1)

    @property
    def has_spread(self) -> bool:
        """Whether whole distributions are predicted. A scalar critic predicts one number."""
        return bool((np.ptp(self.nodes, axis=1) > 1e-6 * np.abs(self.nodes).max(initial=1e-30)).any())


def ranking(compared: Compared) -> dict[str, Any]:
    """Measure the rank correlation of predicted and realised returns over all rows, and what an exact value would reach.

    A realised return is one draw, so even the exact value does not reach 1. `exact` is the rank correlation of predicted means
    with draws from the predicted distributions.
    """
    exact = math.nan
    if compared.has_spread:
        column = np.random.default_rng(0).integers(0, compared.nodes.shape[1], len(compared.nodes))
        exact = spearman(compared.mean, compared.nodes[np.arange(len(column)), column])
    return {
        "across": estimate_by_episode(spearman, compared.episode, compared.mean, compared.realised),
        "exact": exact,
    }


def within_states(compared: Compared, state: Int[np.ndarray, " R"]) -> dict[str, Any]:
    """Measure the rank correlation of predicted and realised returns inside states that were recorded several times.

    Ranks are those among the rows of a state, less their mean. No interval, and NaN, below FEWEST_STATES states.
    """
    count = len(np.unique(state))
    told = {"states": count, "rows": len(state), "episodes": len(np.unique(compared.episode))}
    if count < FEWEST_STATES:
        return told | {"correlation": Estimate(math.nan, math.nan, math.nan)}
    ranks = [ranks_within(column, state) for column in (compared.mean, compared.realised)]

    def statistic(first: np.ndarray, second: np.ndarray, state: np.ndarray) -> float:
        return correlation_within(first, second, group=state)

    return told | {"correlation": estimate_by_episode(statistic, compared.episode, *ranks, state)}


def neighbours(observations: Float[np.ndarray, "D O"], episode: Int[np.ndarray, " D"]) -> Int[np.ndarray, "D K"]:
    """Find the NEIGHBOURS nearest rows of other episodes for each row, in standard deviations of each column."""
    scaled = in_deviations(observations, observations.std(axis=0))
    count = min(NEIGHBOURS, len(episode) - int(np.bincount(episode).max()))
    _, nearest = KDTree(scaled).query(scaled, k=min(len(scaled), count + int(np.bincount(episode).max())))
    others = episode[nearest] != episode[:, None]
    order = np.argsort(~others, axis=1, kind="stable")[:, :count]  # the nearest ones of other episodes first
    return np.take_along_axis(nearest, order, axis=1)


def local(values: Float[np.ndarray, " D"], near: Int[np.ndarray, "D K"]) -> Float[np.ndarray, " D"]:
    """Values less the mean of those of their neighbours."""
    return values - values[near].mean(axis=1)


def advantages(
    episode: Int[np.ndarray, " D"],
    *,
    advantage: Float[np.ndarray, " D"],
    realised: Float[np.ndarray, " D"],
    near: Int[np.ndarray, "D K"],
) -> dict[str, Estimate]:
    """Measure whether the recorded actions that the value prefers to the proposals led to more than others nearby.

    The advantage is the score of the recorded action less the mean score of the proposals of its state. Advantages and realised returns
    are taken less the mean of their neighbours, in other episodes: what is left is due to the action, and not to the state
    (Robinson 1988: the error of both means enters only as their product). Returns the correlation of both, and the slope:
    the realised return per unit of advantage.
    """
    left, right = local(advantage, near), local(realised, near)
    return {
        "correlation": estimate_by_episode(correlation, episode, left, right),
        "slope": estimate_by_episode(_slope, episode, left, right),
    }


def _slope(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / (first @ first)) if first.any() else math.nan


def chance(
    observations: Float[np.ndarray, "D O"],
    *,
    taken: Float[np.ndarray, "D H"],
    candidates: Float[np.ndarray, "D C H"],
    realised: Float[np.ndarray, " D"],
    near: Int[np.ndarray, "D K"],
) -> dict[str, Float[np.ndarray, " P"]]:
    """Compute both correlations of PLACEBOS values that learned nothing: networks with random weights.

    A value errs alike at neighbouring states, so one that learned nothing correlates with returns by luck, whatever the number of rows.
    """
    generator = np.random.default_rng(0)
    rows = np.concatenate([taken[:, None], candidates[:, :PLACEBO_CANDIDATES]], axis=1)
    where = _standard(np.repeat(observations[:, None], rows.shape[1], axis=1))
    inputs = np.concatenate([where, _standard(rows)], axis=2).astype(np.float32)
    right = local(realised, near)
    told: dict[str, list[float]] = {"across": [], "advantage": []}
    for _ in range(PLACEBOS):
        hidden = inputs
        for _ in range(2):
            fan_in = hidden.shape[-1]
            weights = generator.normal(size=(fan_in + 1, PLACEBO_WIDTH)).astype(np.float32)
            hidden = np.tanh(hidden @ (weights[1:] * np.float32(2 / math.sqrt(fan_in))) + weights[0])
        score = (hidden @ generator.normal(size=PLACEBO_WIDTH).astype(np.float32)).astype(np.float64)
        told["across"].append(spearman(score[:, 0], realised))
        told["advantage"].append(correlation(local(score[:, 0] - score[:, 1:].mean(axis=1), near), right))
    return {name: np.array(values) for name, values in told.items()}


def _standard(rows: Float[np.ndarray, "D C W"]) -> Float[np.ndarray, "D C W"]:
    return in_deviations(rows - rows.mean(axis=(0, 1)), rows.std(axis=(0, 1)))


def calibrated(compared: Compared, predictions: Predictions) -> dict[str, Any]:
    """Measure level and calibration of predicted distributions. Of single numbers only the level is told.

    CRPS is that of the value, of the same distributions without the difference of both means, and of the distribution of all
    realised returns whatever the state.
    """
    told = calibration(predictions)
    shift = compared.mean - compared.realised
    content: dict[str, Any] = {
        "count": told.count,
        "predicted": told.predicted,
        "realised": told.realised,
        "shift": mean_by_episode(compared.episode, shift),
    }
    if not compared.has_spread:
        return content
    nodes, realised = compared.nodes, compared.realised
    everywhere = np.quantile(realised, midpoints(nodes.shape[1]), method="hazen")[None]
    losses = {
        "value": crps(nodes, realised),
        "without the shift": crps(nodes - shift.mean(), realised),
        "whatever the state": crps(np.repeat(everywhere, len(realised), axis=0), realised),
    }
    unit = float(realised.std()) or 1.0
    return content | {
        "inside": {percent: count / told.count for percent, count in told.inside.items()},
        "above": told.above / told.count,
        "pit": pit(nodes, realised, tolerance=1e-3 * unit).tolist(),
        "crps": {name: mean_by_episode(compared.episode, loss) for name, loss in losses.items()},
    }


def outside(compared: Compared, bounds: tuple[float, float]) -> dict[str, Any]:
    """Measure the shares of predicted returns, and of their means, that no rewards can give."""
    low, high = bounds
    margin = TOLERANCE * (high - low) if math.isfinite(high - low) else 0.0

    def share(values: np.ndarray) -> float:
        return float(((values < low - margin) | (values > high + margin)).mean())

    return {"low": low, "high": high, "returns": share(compared.nodes), "means": share(compared.mean)}


def failures(realised: Float[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
    """Rows whose return is among the lowest quarter, with all that equal its largest."""
    return realised <= np.quantile(realised, FAILURES)


def signals(compared: Compared, bent: Float[np.ndarray, " R"] | None) -> dict[str, Float[np.ndarray, " R"]]:
    """Signals that may predict a failure; larger is worse."""
    told = {"low value": -compared.mean}
    if compared.has_spread:
        low, high = np.quantile(compared.nodes, (0.1, 0.9), axis=1)
        told["wide distribution"] = high - low
    if bent is not None:
        told["bent flow path"] = bent
    return told


def alarms(compared: Compared, bent: Float[np.ndarray, " R"] | None) -> dict[str, Any]:
    """Measure how well each signal tells failures from the other rows: the area under its alarm curve (AUROC)."""
    failed = failures(compared.realised)
    share = float(failed.mean())
    told: dict[str, Any] = {"failures": share, "threshold": float(compared.realised[failed].max()), "auroc": {}}
    if RARE <= share <= 1 - RARE:
        told["auroc"] = {
            name: estimate_by_episode(auroc, compared.episode, signal, failed)
            for name, signal in signals(compared, bent).items()
        }
    return told
