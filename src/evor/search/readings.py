"""Two ways to read a return distribution, and the number that is made of the reading.

A reading says which noises go through the flow, and how much each return weighs.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from evor.distributions.measures import midpoints
from evor.runtime.arguments import count


class Nodes(NamedTuple):
    """E f(Z) is read as sum_i weights[i] f(flow(noises[i])); weights sum to 1."""

    noises: Float[Array, " Z"]
    weights: Float[Array, " Z"]


def _check_steps(reading: "Reading") -> None:
    if reading.flow_steps is not None:
        object.__setattr__(reading, "flow_steps", count(1, flow_steps=reading.flow_steps))


@dataclass(frozen=True)
class RandomSamples:
    """Random samples of the return, as in the paper."""

    # The noises are shared by all candidates of a decision (common random numbers).
    num_returns: int = 50  # Returns that are sampled for each candidate.
    flow_steps: int | None = None  # Solver steps for one return. None: as many as for an action.

    def __post_init__(self):
        object.__setattr__(self, "num_returns", count(1, num_returns=self.num_returns))
        _check_steps(self)

    @property
    def number(self) -> int:
        """The number of nodes."""
        return self.num_returns

    def nodes(self, key: PRNGKeyArray, return_temperature: Float[Array, ""] | float) -> Nodes:
        del return_temperature
        return Nodes(jax.random.normal(key, (self.num_returns,)), jnp.full(self.num_returns, 1 / self.num_returns))


@dataclass(frozen=True)
class Quadrature:
    """Quantiles of the return, without randomness."""

    # They are quantiles of the noise: the flow of a scalar is increasing, so they are the return's, too.
    # Node i of n is the quantile with the share (1 - (i + 1/2) / n)^p of the distribution above it, weighted by the
    # length of its interval, from (1 - i / n)^p to (1 - (i + 1) / n)^p. At return temperatures of 1 and more p = 1:
    # midpoints of equal intervals. Below, p = 1 + 0.7 (1 - tau): they crowd towards the top, where exp(z / tau) has its
    # weight. Not earlier, for there a young value extrapolates (docs/math.md). tau is the return temperature, in the
    # units of the standardised returns.
    # Few quantiles in few steps choose as well as many in many (docs/results/acting-study.md).
    num_nodes: int = 10  # Quantiles that are read of each candidate.
    flow_steps: int | None = 2  # Solver steps for one return. None: as many as for an action.

    def __post_init__(self):
        object.__setattr__(self, "num_nodes", count(1, num_nodes=self.num_nodes))
        _check_steps(self)

    @property
    def number(self) -> int:
        """The number of nodes."""
        return self.num_nodes

    def nodes(self, key: PRNGKeyArray, return_temperature: Float[Array, ""] | float) -> Nodes:
        del key
        return _quantiles(self.num_nodes, return_temperature)


Reading = RandomSamples | Quadrature


# One program each where they are asked for outside of one.


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _quantiles(number: int, return_temperature: Float[Array, ""] | float) -> Nodes:
    power = 1 + 0.7 * (1 - jnp.minimum(return_temperature, 1.0))
    edges = (1 - np.arange(number + 1, dtype=np.float32) / number) ** power
    above = (1 - midpoints(number).astype(np.float32)) ** power
    return Nodes(-ndtri(above), edges[:-1] - edges[1:])


@functools.partial(jax.jit, inline=True)
def log_mean_exp(
    returns: Float[Array, " Z"], weights: Float[Array, " Z"], *, temperature: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Q* = tau log sum w exp(z / tau) (Eq. 38-39), exact at tau = 0 (the maximum) and tau = infinity (the mean).

    At large tau the textbook formula cancels to nothing in float32, so there the mean is taken out first:
    c + tau log1p(sum w expm1((z - c) / tau)).
    """
    temperature = jnp.asarray(temperature, returns.dtype)

    def sum_of(values: Array) -> Array:  # of few numbers, in float32 on every machine: no matrix product
        return (weights * values).sum()

    mean, largest = sum_of(returns), returns.max()
    safe = jnp.where((temperature > 0) & jnp.isfinite(temperature), temperature, 1.0)
    near_mean = mean + safe * jnp.log1p(sum_of(jnp.expm1(jnp.minimum((returns - mean) / safe, 1.0))))
    near_max = largest + safe * jnp.log(sum_of(jnp.exp((returns - largest) / safe)))
    soft = jnp.where(largest - mean < safe, near_mean, near_max)
    return jnp.where(temperature == 0, largest, jnp.where(jnp.isinf(temperature), mean, soft))
