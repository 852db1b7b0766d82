"""An ensemble of critics: networks of one shape, each with its own start, stacked along a leading axis."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.nn.nets import Mlp
from evor.types import Transition


def init_critics(width: int, hidden: tuple[int, ...], *, number: int, key: PRNGKeyArray, **options: Any) -> Mlp:
    """Make `number` networks from `width` inputs to one number, with LayerNorm. `options` are those of `Mlp`."""

    def one(key: PRNGKeyArray) -> Mlp:
        return Mlp(width, hidden, 1, layer_norm=True, key=key, **options)

    return jax.vmap(one)(jax.random.split(key, number))


def each_value(critics: Mlp, *inputs: Float[Array, " _"]) -> Float[Array, " E"]:
    """The number that every critic gives to the inputs side by side: an observation, an action, and so on."""
    together = jnp.concatenate(inputs)
    return jax.vmap(lambda critic: critic(together)[0])(critics)


# How the numbers of an ensemble become one.


@dataclass(frozen=True)
class Mean:
    """The mean of the critics."""

    def __call__(self, values: Float[Array, " E"]) -> Float[Array, ""]:
        return values.mean()


@dataclass(frozen=True)
class Minimum:
    """The lowest of the critics, which underrates what they disagree on."""

    def __call__(self, values: Float[Array, " E"]) -> Float[Array, ""]:
        return values.min()


Aggregation = Mean | Minimum


def least_value(critics: Mlp, observation: Float[Array, " O"], action: Float[Array, " H"]) -> Float[Array, ""]:
    """The least number that a critic gives to an observation and an action."""
    return each_value(critics, observation, action).min()


def normalised(values: Float[Array, " B"]) -> Float[Array, " B"]:
    """Values over the mean of their absolute values in the batch, which is not differentiated."""
    return values / jnp.maximum(jax.lax.stop_gradient(jnp.abs(values).mean()), 1e-8)


def critics_loss(critics: Mlp, transition: Transition, target: Float[Array, ""]) -> Float[Array, ""]:
    """Mean squared error over the critics."""
    return jnp.mean((each_value(critics, transition.observation, transition.action) - target) ** 2)


# Critics as the value of a policy: one return, whatever the noise. The arguments are those of `contract.Returns`.


def mean_returns(
    critics: Mlp, observation: Float[Array, " O"], *, action: Float[Array, " H"], noises: Float[Array, " Z"], **_: Any
) -> Float[Array, " Z"]:
    """The critics' mean."""
    return jnp.broadcast_to(each_value(critics, observation, action).mean(), noises.shape)


def least_returns(
    critics: Mlp, observation: Float[Array, " O"], *, action: Float[Array, " H"], noises: Float[Array, " Z"], **_: Any
) -> Float[Array, " Z"]:
    """The least of the critics."""
    return jnp.broadcast_to(least_value(critics, observation, action), noises.shape)
