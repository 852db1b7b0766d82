"""Flow matching on straight paths. The only home of the convention: time 0 is noise, time 1 is data."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "*P"], Float[Array, ""]], Float[Array, "*P"]]
Solve = Callable[[Velocity, Float[Array, "*P"], int], Float[Array, "*P"]]  # from a noise, in so many steps


def interpolate(noise: Float[Array, "*P"], data: Float[Array, "*P"], time: Float[Array, ""]) -> Float[Array, "*P"]:
    """The point of the straight path at `time`: (1 - t) noise + t data."""
    return (1 - time) * noise + time * data


def path_velocity(noise: Float[Array, "*P"], data: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """The velocity along the straight path: data - noise, the regression target of flow matching (Eq. 11)."""
    return data - noise


# Solvers: follow dy/dt = velocity(y, t) from noise (t = 0) to data (t = 1) with `num_steps` evaluations.


@dataclass(frozen=True)
class Euler:
    """Euler's method with equal steps, as in the paper."""

    # Read at t = 0, 1/M, ..., (M-1)/M (Algorithm 3; the paper's listing prints one step too many). Ten steps shrink a
    # unit normal's standard deviation to 0.88.

    def __call__(self, velocity: Velocity, noise: Float[Array, "*P"], num_steps: int) -> Float[Array, "*P"]:
        def step(point: Array, time: Array) -> tuple[Array, None]:
            return point + velocity(point, time) / num_steps, None

        point, _ = jax.lax.scan(step, noise, jnp.arange(num_steps) / num_steps)
        return point


def clipped_euler(
    velocity: Velocity,
    noise: Float[Array, "*P"],
    num_steps: int,
    *,
    lowest: Float[Array, ""] | float,
    highest: Float[Array, ""] | float,
    end: Float[Array, ""] | float = 1.0,
) -> Float[Array, "*P"]:
    """Euler's method to the time `end` in equal steps, the point clipped after each.

    The derivative by the noise is that of the steps alone, as if none had been clipped, at the points that clipping gives.
    """
    length = end / num_steps

    def step(point: Array, count: Array) -> tuple[Array, None]:
        point = point + length * velocity(point, count * length)
        return point + jax.lax.stop_gradient(jnp.clip(point, lowest, highest) - point), None

    point, _ = jax.lax.scan(step, noise, jnp.arange(num_steps, dtype=noise.dtype))
    return point


@dataclass(frozen=True)
class AdamsBashforth:
    """Adams-Bashforth's method of second order, more exact at the same cost."""

    # Each step extrapolates from the velocity before, and steps shorten towards both ends: times are
    # (1 - cos(pi m / M)) / 2. The last step is Euler's, which lands on an atom exactly.

    def __call__(self, velocity: Velocity, noise: Float[Array, "*P"], num_steps: int) -> Float[Array, "*P"]:
        times = (1 - np.cos(np.pi * np.arange(num_steps + 1) / num_steps)) / 2
        lengths = np.diff(times)
        bends = np.zeros(num_steps)  # how much of the velocity's change enters
        bends[1:-1] = lengths[1:-1] / (2 * lengths[:-2])

        def step(carry: tuple[Array, Array], inputs: Array) -> tuple[tuple[Array, Array], None]:
            (point, before), (time, length, bend) = carry, inputs
            here = velocity(point, time)
            return (point + length * (here + bend * (here - before)), here), None

        schedule = jnp.asarray(np.stack([times[:-1], lengths, bends], axis=1), noise.dtype)
        (point, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), schedule)
        return point


Solver = Euler | AdamsBashforth
