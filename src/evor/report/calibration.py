"""Predicted return distributions beside the returns that came, in numbers. Imports no JAX."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the stored quantiles
INTERVALS = {50: (1, 3), 80: (0, 4)}  # per cent of the predicted returns, and between which of the quantiles they lie


class Predictions(NamedTuple):
    """Predicted and realised returns, an entry per episode or per state."""

    mean: Float[np.ndarray, " E"]
    quantiles: Float[np.ndarray, "E 5"]  # at LEVELS
    realised: Float[np.ndarray, " E"]

    @property
    def has_spread(self) -> bool:
        """Whether whole distributions were predicted: a scalar critic gives one number, whatever the level."""
        return bool((self.quantiles[:, -1] > self.quantiles[:, 0]).any())


class Calibration(NamedTuple):
    """Calibration: realised returns against the predictions."""

    count: int
    predicted: float  # mean
    realised: float  # mean
    above: int  # how many came out above their predicted mean
    inside: dict[int, int]  # how many lie in the interval of so many per cent


def calibration(pairs: Predictions) -> Calibration:
    """Count how many realised returns lie above the predicted mean and inside the intervals, ends included."""
    within = {
        percent: int(((pairs.quantiles[:, low] <= pairs.realised) & (pairs.realised <= pairs.quantiles[:, high])).sum())
        for percent, (low, high) in INTERVALS.items()
    }
    return Calibration(
        count=len(pairs.realised),
        predicted=float(pairs.mean.mean()),
        realised=float(pairs.realised.mean()),
        above=int((pairs.realised > pairs.mean).sum()),
        inside=within,
    )


def share(part: int, count: int) -> str:
    """`12 of 50 (24 %)`."""
    return f"{part} of {count} ({100 * part / count:.0f} %)"
