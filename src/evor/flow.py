"""Flow matching on straight paths. The only home of the convention: time 0 is noise, time 1 is data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "*P"], Float[Array, ""]], Float[Array, "*P"]]


def interpolate(noise: Float[Array, "*P"], data: Float[Array, "*P"], time: Float[Array, ""]) -> Float[Array, "*P"]:
    """The point of the straight path at `time`: (1 - t) noise + t data."""
    return (1 - time) * noise + time * data


def path_velocity(noise: Float[Array, "*P"], data: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """The velocity along the straight path: data - noise, the regression target of flow matching (Eq. 11)."""
    return data - noise


def euler(velocity: Velocity, noise: Float[Array, "*P"], num_steps: int) -> Float[Array, "*P"]:
    """Follow dy/dt = velocity(y, t) from noise (t = 0) to data (t = 1) in `num_steps` equal steps (Algorithm 3).

    The velocity is read at t = 0, 1/M, ..., (M-1)/M. The paper's listing prints one step too many.
    """

    def step(point: Array, time: Array) -> tuple[Array, None]:
        return point + velocity(point, time) / num_steps, None

    point, _ = jax.lax.scan(step, noise, jnp.arange(num_steps) / num_steps)
    return point
