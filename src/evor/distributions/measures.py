"""Measures of a learned return distribution: distances to a known one, calibration on recorded returns.

A learned distribution is given by its quantiles at the midpoints u = (i + 1/2) / Z, increasing, as `Policy.quantiles`
returns them.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from evor.distributions.exact import ReturnDistribution

FINER = 8  # exact quantiles per learned one


def midpoints(count: int) -> Float[np.ndarray, " Z"]:
    """Probabilities u of the quantiles."""
    return (np.arange(count) + 0.5) / count


def wasserstein(quantiles: Float[np.ndarray, " Z"], distribution: ReturnDistribution) -> float:
    """1-Wasserstein distance: the mean of |learned quantile - exact quantile|, in reward units."""
    exact = distribution.quantile(midpoints(FINER * len(quantiles)))
    return float(np.abs(np.repeat(quantiles, FINER) - exact).mean())


def crps(quantiles: Float[np.ndarray, "B Z"], outcomes: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """Continuous ranked probability score of each recorded return, E|X - y| - E|X - X'| / 2 (Gneiting & Raftery 2007)."""
    count = quantiles.shape[-1]
    spread = quantiles @ (2 * midpoints(count) - 1) / count  # E|X - X'| / 2 of equally likely, ordered values
    return np.abs(quantiles - outcomes[:, None]).mean(axis=-1) - spread


def excess_crps(quantiles: Float[np.ndarray, " Z"], distribution: ReturnDistribution) -> float:
    """Expected CRPS under the exact distribution, less that of the distribution itself: the integral of (learned cdf - exact cdf)^2."""
    exact = distribution.quantile(midpoints(FINER * len(quantiles)))
    edges = np.sort(np.concatenate([quantiles, exact]))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    learned = np.searchsorted(quantiles, middle, side="right") / len(quantiles)
    return float(np.sum(width * (learned - distribution.cdf(middle)) ** 2))


def pit(
    quantiles: Float[np.ndarray, "B Z"], outcomes: Float[np.ndarray, " B"], *, tolerance: float, num_bins: int = 10
) -> Float[np.ndarray, " bins"]:
    """Histogram of the randomised probability-integral transform; all bins are 1 / num_bins where the distribution is right.

    Each outcome spreads evenly over [F(y - tolerance), F(y + tolerance)], its own share of an atom as wide as that. One
    between two quantiles spreads over the levels between them, and one beyond the last over those up to the end.
    """
    count = quantiles.shape[-1]
    low, high = ((quantiles < y[:, None]).sum(axis=-1) / count for y in (outcomes - tolerance, outcomes + tolerance))
    half = np.where(high > low, 0, 0.5 / count)
    low, high = np.maximum(low - half, 0), np.minimum(high + half, 1)
    edges = np.linspace(0, 1, num_bins + 1)[:, None]
    below = np.clip((edges - low) / (high - low), 0, 1)
    return np.diff(below, axis=0).mean(axis=1)


def log_mean_exp_of_quantiles(quantiles: Float[np.ndarray, " Z"], temperature: float) -> float:
    """Q* of the learned distribution in float64."""
    return float(temperature * (logsumexp(quantiles.astype(np.float64) / temperature) - np.log(len(quantiles))))
