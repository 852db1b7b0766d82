"""Shortcut models: a velocity averaged over a step, whose length is an input (Frans et al. 2025).

Level l stands for steps of length 2^-l: level 0 is one step from noise to data. Time 0 is noise, time 1 is data.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evor.errors import EvorError
from evor.nn.batching import block_sizes, in_blocks
from evor.nn.flow import Euler, interpolate
from evor.nn.nets import VelocityField

# (point, time, level) -> the average velocity from `time` to time + 2^-level
StepVelocity = Callable[[Float[Array, " P"], Float[Array, ""], Float[Array, ""]], Float[Array, " P"]]


def conditioned(field: VelocityField, condition: Float[Array, " C"]) -> StepVelocity:
    """The average velocity that a network has learned under a condition. The level enters as it is, beside it."""
    return lambda point, time, level: field(jnp.append(condition, level), point, time)


def step_counts(largest: int) -> tuple[int, ...]:
    """Powers of two up to `largest`: the numbers of equal steps that lead from noise to data."""
    return tuple(2**level for level in range(largest.bit_length()))


def level_of(steps: int) -> int:
    """The level of so many equal steps. Raises EvorError where their number is no power of two."""
    if steps not in step_counts(steps):
        raise EvorError(f"flow_steps is {steps}; a shortcut model takes a power of two, such as 1, 2, 4 or 8.")
    return steps.bit_length() - 1


def sample(velocity: StepVelocity, noise: Float[Array, " P"], steps: int) -> Float[Array, " P"]:
    """Send noise through equal steps. Clip to [-1, 1] once, at the end. Raises EvorError where `steps` is no power of two."""
    level = jnp.asarray(level_of(steps), noise.dtype)
    return jnp.clip(Euler()(lambda point, time: velocity(point, time, level), noise, steps), -1, 1)


def sample_in_blocks(
    velocity: Callable[[Float[Array, " C"]], StepVelocity],
    conditions: Float[Array, "B C"],
    noise: Float[Array, "B P"],
    counts: Sequence[int],
) -> Float[Array, "B P"]:
    """Send each row through a number of steps of its own: rows are cut into blocks, one for each count (`block_sizes`).

    Counts rise. Each row ends where `sample` sends it; those that take a further step take it as one batch.
    """

    def one(condition: Array, count: Array, level: Array, point: Array, step: Array) -> Array:
        return point + velocity(condition)(point, step / count, level) / count

    together, rows = jax.vmap(one, (0, 0, 0, 0, None)), len(noise)
    levels = [level_of(count) for count in counts]
    under_way, done = (conditions, in_blocks(counts, rows), in_blocks(levels, rows), noise), []
    for size, before, count in zip(block_sizes(len(counts), rows), (0, *counts[:-1]), counts, strict=True):
        *given, point = under_way
        further = functools.partial(together, *given)
        steps = jnp.arange(before, count, dtype=noise.dtype)
        point, _ = jax.lax.scan(lambda point, step, further=further: (further(point, step), None), point, steps)
        done.append(point[:size])
        under_way = tuple(leaf[size:] for leaf in (*given, point))
    return jnp.clip(jnp.concatenate(done), -1, 1)


def guided(velocity: StepVelocity, guide: Callable[[Float[Array, " P"]], Float[Array, " P"]]) -> StepVelocity:
    """The same velocity, with what `guide` adds to it for the point in [-1, 1] where it would end."""

    def at(point: Float[Array, " P"], time: Float[Array, ""], level: Float[Array, ""]) -> Float[Array, " P"]:
        own = velocity(point, time, level)
        return own + guide(jnp.clip(point + (1 - time) * own, -1, 1))

    return at


class Start(NamedTuple):
    """Start of a step of a level, on the straight path from noise to data."""

    point: Float[Array, " P"]
    time: Float[Array, ""]
    level: Float[Array, ""]


def start_of(
    noise: Float[Array, " P"], data: Float[Array, " P"], uniform: Float[Array, ""], level: Float[Array, ""]
) -> Start:
    """The start at one of the times 0, 2^-level, 2 2^-level, ..., drawn by a number from [0, 1)."""
    time = jnp.floor(uniform * 2.0**level) / 2.0**level
    return Start(point=interpolate(noise, data, time), time=time, level=level)


def consistency_target(velocity: StepVelocity, start: Start) -> Float[Array, " P"]:
    """Average velocity over a step, made of two steps of half its length."""
    half, finer = 2.0 ** -(start.level + 1), start.level + 1
    first = velocity(start.point, start.time, finer)
    second = velocity(start.point + half * first, start.time + half, finer)
    return (first + second) / 2
