"""The law of the reward-to-go: three objectives that learn it, two ways to read it, one number from the reading.

z is a return in standardised units: z = (Z - mean) / std. Objectives see one transition.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from evor.distributions.measures import midpoints
from evor.errors import whole
from evor.flow import interpolate, path_velocity
from evor.runtime.arguments import count
from evor.types import Outcome

ReturnVelocity = Callable[[Float[Array, ""], Float[Array, ""]], Float[Array, ""]]  # (z, t) -> velocity, (x, a) bound
Solve = Callable[[ReturnVelocity, Float[Array, ""]], Float[Array, ""]]  # (velocity, noise) -> the end of the flow


class Regression(NamedTuple):
    """Regress value(x, a, point, time) on velocity."""

    point: Float[Array, ""]
    time: Float[Array, ""]
    velocity: Float[Array, ""]


class Draws(NamedTuple):
    """The randomness of one regression."""

    noise: Float[Array, ""]  # z0 ~ N(0, 1)
    model_noise: Float[Array, ""]  # a second, independent one
    time: Float[Array, ""]  # ~ U(0, 1)


def draw(key: PRNGKeyArray, batch_size: int) -> Draws:
    """Draws for a batch, each field [B]."""
    noise, model_noise = jax.random.normal(key, (2, batch_size))
    return Draws(noise, model_noise, jax.random.uniform(jax.random.fold_in(key, 1), (batch_size,)))


# Objectives. `here` and `after` are the target network's velocity at (x, a) and at (x_n, a_n).


@dataclass(frozen=True)
class ModelReturn:
    """z1 ~ R_target(. | x, a) (Algorithm 1)."""

    whole_returns: ClassVar[bool] = False

    def __call__(self, outcome: Outcome, here: ReturnVelocity, draws: Draws, solve: Solve) -> Float[Array, ""]:
        return solve(here, draws.model_noise)


@dataclass(frozen=True)
class DatasetReturn:
    """z1 is the row's own reward-to-go."""

    whole_returns: ClassVar[bool] = True

    def __call__(self, outcome: Outcome, here: ReturnVelocity, draws: Draws, solve: Solve) -> Float[Array, ""]:
        return outcome.reward_to_go


PathEnd = ModelReturn | DatasetReturn


@dataclass(frozen=True)
class FlowTd:
    """Flow-based TD, the paper's (Eq. 19-20, Algorithm 1).

    z1 is drawn from the model or taken from the dataset, which the paper also allows; the target velocity is
    reward + discount * mask * value_target(x', a', z_t, t). With z1 from the model its fixed point is the expectation
    of the return, whatever the law: see docs/math.md.
    """

    n_steps: int = 1
    z1: PathEnd = field(default_factory=ModelReturn)

    @property
    def whole_returns(self) -> bool:
        """Whether rows need their reward-to-go."""
        return self.z1.whole_returns

    def __post_init__(self):
        whole(1, n_steps=self.n_steps)

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        point = interpolate(draws.noise, self.z1(outcome, here, draws, solve), draws.time)
        velocity = outcome.reward + outcome.discount * after(point, draws.time)
        return Regression(point, draws.time, velocity)


@dataclass(frozen=True)
class MonteCarlo:
    """Flow matching on the dataset's own reward-to-go (Eq. 13). Rows whose reward-to-go is cut carry weight 0."""

    whole_returns: ClassVar[bool] = True
    n_steps: ClassVar[None] = None  # it bootstraps nowhere

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        z1 = outcome.reward_to_go
        return Regression(interpolate(draws.noise, z1, draws.time), draws.time, path_velocity(draws.noise, z1))


@dataclass(frozen=True)
class SampleBackup:
    """The distributional Bellman equation (Eq. 18) applied to samples, over n steps of the dataset.

    z1 = sum of n discounted rewards + discount^n * mask * z', z' = flow of value_target at (x_n, a_n) from the same
    noise. One sample per target: an average taken before z1 is formed would collapse the law to its mean.
    """

    n_steps: int = 20
    whole_returns: ClassVar[bool] = False

    def __post_init__(self):
        whole(1, n_steps=self.n_steps)

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        z1 = outcome.reward + outcome.discount * solve(after, draws.noise)
        return Regression(interpolate(draws.noise, z1, draws.time), draws.time, path_velocity(draws.noise, z1))


Objective = FlowTd | MonteCarlo | SampleBackup


# Readings: which noises to send through the flow, and how much each return weighs.


class Nodes(NamedTuple):
    """E f(Z) is read as sum_i weights[i] f(flow(noises[i])); weights sum to 1."""

    noises: Float[Array, " Z"]
    weights: Float[Array, " Z"]


@dataclass(frozen=True)
class RandomSamples:
    """`num_returns` independent noises, shared by all candidates of a decision (common random numbers)."""

    num_returns: int = 50

    def __post_init__(self):
        object.__setattr__(self, "num_returns", count(1, num_returns=self.num_returns))

    def nodes(self, key: PRNGKeyArray, return_temperature: Float[Array, ""] | float) -> Nodes:
        del return_temperature
        return Nodes(jax.random.normal(key, (self.num_returns,)), jnp.full(self.num_returns, 1 / self.num_returns))


@dataclass(frozen=True)
class Quadrature:
    """Quantiles of the noise. The flow of a scalar is increasing: they are the return's, too.

    Node i of n is the quantile with the share (1 - (i + 1/2) / n)^p of the law above it, weighted by the length of its
    interval, from (1 - i / n)^p to (1 - (i + 1) / n)^p. At return temperatures of 1 and more p = 1: midpoints of equal
    intervals. Below, p = 1 + 0.7 (1 - tau): they crowd towards the top, where exp(z / tau) has its weight. Not earlier,
    for there a young value extrapolates (docs/math.md). tau is the dial, in the units of the standardised returns.
    """

    num_nodes: int = 10

    def __post_init__(self):
        object.__setattr__(self, "num_nodes", count(1, num_nodes=self.num_nodes))

    def nodes(self, key: PRNGKeyArray, return_temperature: Float[Array, ""] | float) -> Nodes:
        del key
        power = 1 + 0.7 * (1 - jnp.minimum(return_temperature, 1.0))
        edges = (1 - np.arange(self.num_nodes + 1, dtype=np.float32) / self.num_nodes) ** power
        above = (1 - midpoints(self.num_nodes).astype(np.float32)) ** power
        return Nodes(-ndtri(above), edges[:-1] - edges[1:])


Reading = RandomSamples | Quadrature


def log_mean_exp(
    returns: Float[Array, " Z"], weights: Float[Array, " Z"], temperature: Float[Array, ""] | float
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
