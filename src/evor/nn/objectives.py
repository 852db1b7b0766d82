"""The distribution of the reward-to-go: three objectives that learn it.

z is a return in standardised units: z = (Z - mean) / std. Objectives see one transition.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.errors import EvorError, integer
from evor.nn.flow import interpolate, path_velocity
from evor.types import GivenBounds, NoBounds, Outcome, ReturnBounds

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


def clipped(z: Float[Array, "*Z"], outcome: Outcome) -> Float[Array, "*Z"]:
    """Returns of the network, held to what the rewards of the task allow."""
    return jnp.clip(z, outcome.return_min, outcome.return_max)


# Objectives. `here` and `after` are the target network's velocity at (x, a) and at (x_n, a_n).


@dataclass(frozen=True)
class ModelReturn:
    """A return that the target network draws."""

    # z1 ~ R_target(. | x, a) (Algorithm 1).

    full_returns: ClassVar[bool] = False

    def __call__(self, outcome: Outcome, here: ReturnVelocity, draws: Draws, solve: Solve) -> Float[Array, ""]:
        return solve(here, draws.model_noise)


@dataclass(frozen=True)
class DatasetReturn:
    """The reward-to-go of the dataset."""

    full_returns: ClassVar[bool] = True

    def __call__(self, outcome: Outcome, here: ReturnVelocity, draws: Draws, solve: Solve) -> Float[Array, ""]:
        return outcome.reward_to_go


PathEnd = ModelReturn | DatasetReturn


@dataclass(frozen=True)
class FlowTd:
    """TD on velocities, as in the paper. It learns the expected return."""

    # Eq. 19-20, Algorithm 1. z1 is drawn from the model or taken from the dataset, which the paper also allows; the
    # target velocity is reward + discount * mask * value_target(x', a', z_t, t). With z1 from the model its fixed point
    # is the expectation of the return, whatever its distribution: see docs/math.md.
    n_steps: int = 1  # Environment steps whose rewards are summed before the target bootstraps.
    # Which return ends the path that the flow is trained on.
    z1: PathEnd = field(default_factory=ModelReturn)

    @property
    def full_returns(self) -> bool:
        """Whether rows need their reward-to-go."""
        return self.z1.full_returns

    def __post_init__(self):
        integer(1, n_steps=self.n_steps)

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        point = interpolate(draws.noise, self.z1(outcome, here, draws, solve), draws.time)
        velocity = outcome.reward + outcome.discount * after(point, draws.time)
        return Regression(point, draws.time, velocity)


@dataclass(frozen=True)
class MonteCarlo:
    """Flow matching on the reward-to-go of the dataset, without bootstrapping."""

    # Eq. 13. Rows whose reward-to-go is cut carry weight 0.

    full_returns: ClassVar[bool] = True
    n_steps: ClassVar[None] = None  # it bootstraps nowhere

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        z1 = outcome.reward_to_go
        return Regression(interpolate(draws.noise, z1, draws.time), draws.time, path_velocity(draws.noise, z1))


@dataclass(frozen=True)
class SampleBackup:
    """Bellman backup of sampled returns. It learns the return distribution."""

    # The distributional Bellman equation (Eq. 18) over n steps of the dataset:
    # z1 = sum of n discounted rewards + discount^n * mask * z', z' = flow of value_target at (x_n, a_n) from the same
    # noise. One sample per target: an average taken before z1 is formed would collapse the distribution to its mean.
    n_steps: int = 10  # Environment steps whose rewards are summed before the target bootstraps.
    full_returns: ClassVar[bool] = False

    def __post_init__(self):
        integer(1, n_steps=self.n_steps)

    def __call__(
        self, outcome: Outcome, here: ReturnVelocity, after: ReturnVelocity, draws: Draws, solve: Solve
    ) -> Regression:
        z1 = outcome.reward + outcome.discount * clipped(solve(after, draws.noise), outcome)
        return Regression(interpolate(draws.noise, z1, draws.time), draws.time, path_velocity(draws.noise, z1))


Objective = FlowTd | MonteCarlo | SampleBackup


def bounds_under(objective: Objective, bounds: ReturnBounds) -> ReturnBounds:
    """The bounds of what an objective's network draws: none under FlowTd, whose draws are not returns.

    They lie around the expected return, so possible returns do not bound them, and clipped ones have another mean. Raises
    EvorError on bounds that were given for them.
    """
    if not isinstance(objective, FlowTd):
        return bounds
    if isinstance(bounds, GivenBounds):
        raise EvorError(
            "return_bounds (--agent.return-bounds) do not go with FlowTd, whose draws lie around the expected return, beyond "
            "possible ones; leave them out."
        )
    return NoBounds()
