"""Guidance: actions move along the gradient of the value's mean with respect to the action.

Both types move an action by `weight` times a direction whose root mean square over the action's entries is 1. So a weight
means the same whatever the unit of the returns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evor.runtime.arguments import count

Mean = Callable[[Float[Array, " H"]], Float[Array, ""]]  # mean return of an action


@dataclass(frozen=True)
class InsideFlow:
    """Guidance inside the flow of the base policy, at each of its steps, of every candidate."""


@dataclass(frozen=True)
class AfterChoice:
    """Guidance after the choice, by gradient ascent from the candidate that was taken."""

    ascent_steps: int = 1  # Steps of equal length, which share the weight among them.

    def __post_init__(self):
        object.__setattr__(self, "ascent_steps", count(1, ascent_steps=self.ascent_steps))


Guidance = InsideFlow | AfterChoice


def direction(mean: Mean, action: Float[Array, " H"]) -> Float[Array, " H"]:
    """Gradient of the mean at an action, divided by its root mean square. It is 0 where the gradient is 0."""
    # Products of bfloat16 have their gradient where a batch is inside of it (nn/ops.py): here, of one action.
    gradient = jax.grad(lambda actions: jax.vmap(mean)(actions).sum())(action[None])[0]
    largest = jnp.abs(gradient).max()
    gradient = gradient / jnp.where(largest == 0, 1.0, largest)  # the squares of small numbers would vanish
    return gradient / jnp.where(largest == 0, 1.0, jnp.sqrt(jnp.mean(gradient**2)))


def ascend(
    mean: Mean, action: Float[Array, " H"], *, weight: Float[Array, ""] | float, steps: int
) -> Float[Array, " H"]:
    """Move an action by weight / steps in each step, clipped to [-1, 1] after each."""
    length = jnp.asarray(weight, action.dtype) / steps

    def step(_: int, action: Array) -> Array:
        return jnp.clip(action + length * direction(mean, action), -1, 1)

    return jax.lax.fori_loop(0, steps, step, action)
