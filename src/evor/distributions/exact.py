"""Exact return distributions: atoms, a normal, a negative exponential."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, ndtr, ndtri

ROUNDING = 12  # decimals at which two returns count as one atom


class ReturnDistribution(Protocol):
    """An exact return distribution. Temperatures are positive and in reward units."""

    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    def quantile(self, u: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
        """Left-continuous inverse of the cdf, u in (0, 1)."""
        ...

    def cdf(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        """P(Z <= z)."""
        ...

    def cdf_below(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        """P(Z < z): less than `cdf` on an atom."""
        ...

    def log_mean_exp(self, temperature: float) -> float:
        """Q* = tau log E exp(Z / tau) (Eq. 38-39)."""
        ...


@dataclass(frozen=True, eq=False)
class Atoms:
    """Finitely many values, increasing, with their probabilities."""

    values: Float[np.ndarray, " M"]
    weights: Float[np.ndarray, " M"]

    @cached_property
    def mean(self) -> float:
        return float(self.weights @ self.values)

    @cached_property
    def std(self) -> float:
        return float(np.sqrt(self.weights @ (self.values - self.mean) ** 2))

    @cached_property
    def _cumulative(self) -> Float[np.ndarray, " E"]:
        total = np.append(0.0, np.cumsum(self.weights))
        return total / total[-1]

    def quantile(self, u: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
        index = np.searchsorted(self._cumulative[1:], u, side="left")
        return self.values[np.minimum(index, len(self.values) - 1)]

    def cdf(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        return self._cumulative[np.searchsorted(self.values, z, side="right")]

    def cdf_below(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        return self._cumulative[np.searchsorted(self.values, z, side="left")]

    def log_mean_exp(self, temperature: float) -> float:
        return float(temperature * logsumexp(self.values / temperature, b=self.weights))


@dataclass(frozen=True)
class Normal:
    """Normal(mean, std^2)."""

    mean: float
    std: float

    def quantile(self, u: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
        return self.mean + self.std * ndtri(u)

    def cdf(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        return ndtr((z - self.mean) / self.std)

    cdf_below = cdf

    def log_mean_exp(self, temperature: float) -> float:
        return self.mean + self.std**2 / (2 * temperature)


@dataclass(frozen=True)
class NegativeExponential:
    """-X, X exponential with mean `std`."""

    std: float

    @property
    def mean(self) -> float:
        return -self.std

    def quantile(self, u: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
        return self.std * np.log(u)

    def cdf(self, z: Float[np.ndarray, " Z"]) -> Float[np.ndarray, " Z"]:
        return np.exp(np.minimum(z, 0) / self.std)

    cdf_below = cdf

    def log_mean_exp(self, temperature: float) -> float:
        return -temperature * float(np.log1p(self.std / temperature))


def mixture(parts: list[tuple[float, Atoms]]) -> Atoms:
    """Mixture of weighted distributions, equal values merged; weights need not sum to one."""
    values = np.concatenate([distribution.values for _, distribution in parts])
    weights = np.concatenate([chance * distribution.weights for chance, distribution in parts])
    atoms, inverse = np.unique(np.round(values, ROUNDING), return_inverse=True)
    merged = np.bincount(inverse, weights)
    return Atoms(atoms, merged / merged.sum())
