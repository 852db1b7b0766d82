"""Shortcut models of a Gaussian, whose steps are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.errors import EvorError
from evor.nn.batching import block_sizes, in_blocks
from evor.nn.flow import Euler
from evor.nn.shortcut import (
    Start,
    consistency_target,
    guided,
    level_of,
    sample,
    sample_in_blocks,
    start_of,
    step_counts,
)

MEAN, STD = 0.1, 0.3
FINEST = 3  # level of 8 steps


def deviation(time):
    """Standard deviation at a time of the flow from N(0, 1) to N(MEAN, STD^2)."""
    return jnp.sqrt((1 - time) ** 2 + (time * STD) ** 2)


def ideal(point, time, level):
    """The average velocity of the exact flow: it sends z at t to u MEAN + sigma_u / sigma_t (z - t MEAN)."""
    step = 2.0**-level
    later = time + step
    return (later * MEAN + deviation(later) / deviation(time) * (point - time * MEAN) - point) / step


def slope(time, level):
    """Slope of what SORL's losses converge to on N(0, STD^2): matching at the finest level, two half steps above it."""
    if level == FINEST:
        return (time * STD**2 - (1 - time)) / ((1 - time) ** 2 + (time * STD) ** 2)
    step = 2.0**-level
    first, second = slope(time, level + 1), slope(time + step / 2, level + 1)
    return ((1 + step / 2 * first) * (1 + step / 2 * second) - 1) / step


# By level and time in eighths; 0 where no step of the level begins.
SLOPES = np.array([[slope(i / 8, level) if i % 2 ** (3 - level) == 0 else 0 for i in range(8)] for level in range(4)])


def learned(point, time, level):
    return jnp.float32(SLOPES)[level.astype(int), (8 * time).astype(int)] * point


def numbers(*values):
    return tuple(jnp.float32(value) for value in values)


@pytest.mark.parametrize("level", range(FINEST))
def test_the_ideal_shortcut_of_a_gaussian_is_consistent(level):
    for time in np.arange(2**level) / 2**level:
        points = jnp.linspace(-2, 2, 5)
        start = Start(points, *numbers(time, level))
        np.testing.assert_allclose(consistency_target(ideal, start), ideal(*start), atol=3e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_ideal_shortcut_samples_the_gaussian_in_any_number_of_steps(steps):
    noise = jnp.linspace(-2, 2, 5)
    np.testing.assert_allclose(sample(ideal, noise, steps), MEAN + STD * noise, atol=3e-6)


@pytest.mark.parametrize("level", range(FINEST))
def test_the_target_is_the_recursion_of_the_slopes(level):
    for time in np.arange(2**level) / 2**level:
        start = Start(jnp.array([0.7, -1.3]), *numbers(time, level))
        np.testing.assert_allclose(consistency_target(learned, start), slope(time, level) * start.point, rtol=1e-5)


def test_every_number_of_steps_samples_what_the_finest_euler_does():
    """At the fixed point, and not the Gaussian: flow matching at steps of 1/8 has the error of eight steps of Euler."""
    gain = np.prod([1 + slope(i / 8, FINEST) / 8 for i in range(8)])
    assert gain < 0.8 * STD
    for steps in (1, 2, 4, 8):
        assert float(sample(learned, jnp.ones(1), steps)[0]) == pytest.approx(gain, rel=1e-5)


def test_a_sample_is_clipped_once_at_the_end():
    """The first of two steps leaves [-1, 1], and the second comes back."""

    def there_and_back(point, time, level):
        return jnp.where(time == 0, 8.0, -7.0) * jnp.ones_like(point)

    assert sample(there_and_back, jnp.zeros(1), 2)[0] == 0.5
    assert sample(there_and_back, jnp.zeros(1), 1)[0] == 1.0


def test_the_sampler_tells_its_level_and_its_times():
    """Velocities that are the time and the level: one step of each adds up to their means."""
    for steps in (1, 2, 4, 8):
        ends = sample(lambda z, t, level: jnp.stack([t, level / 4]), jnp.zeros(2), steps)
        np.testing.assert_allclose(ends, [(steps - 1) / (2 * steps), np.log2(steps) / 4], rtol=1e-6)


@pytest.mark.parametrize("steps", [3, 6, 10, 12, 0, -2])
def test_a_number_of_steps_that_is_no_power_of_two_is_refused(steps):
    with pytest.raises(EvorError, match=f"flow_steps is {steps}; a shortcut model takes a power of two"):
        sample(ideal, jnp.zeros(1), steps)


def test_numbers_of_steps_are_powers_of_two():
    assert [step_counts(n) for n in (1, 2, 8, 9)] == [(1,), (1, 2), (1, 2, 4, 8), (1, 2, 4, 8)]
    assert [level_of(n) for n in (1, 2, 4, 8)] == [0, 1, 2, 3]


@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_step_starts_at_one_of_its_times_as_often_as_at_any_other(level):
    uniform = (jnp.arange(800.0) + 0.5) / 800
    noise, data = jnp.array([2.0]), jnp.array([-0.5])
    starts = jax.vmap(lambda u: start_of(noise, data, u, jnp.float32(level)))(uniform)
    times, counts = np.unique(starts.time, return_counts=True)
    np.testing.assert_array_equal(times, np.arange(2**level) / 2**level)
    assert set(counts) == {800 // 2**level}
    np.testing.assert_allclose(starts.point[:, 0], 2.0 - 2.5 * starts.time, rtol=1e-6)
    largest = start_of(noise, data, jnp.float32(1 - 2**-24), jnp.float32(level))
    assert largest.time + 2.0**-level == 1


def test_guidance_sees_where_the_step_would_end():
    velocity = guided(lambda z, t, level: jnp.full_like(z, 3.0), lambda clean: -clean)
    assert velocity(jnp.array([-2.0]), *numbers(0.5, 1))[0] == 3.0 + 0.5  # at -2 + 0.5 * 3 = -0.5
    assert velocity(jnp.array([0.0]), *numbers(0.0, 0))[0] == 3.0 - 1.0  # at 3, clipped to 1


# Rows in blocks.


def test_rows_are_cut_into_equal_blocks_in_order():
    assert block_sizes(4, 256) == [64] * 4
    assert block_sizes(3, 256) == [85, 85, 86]
    np.testing.assert_array_equal(in_blocks((2, 1, 0), 7), [2, 2, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("counts", [(1, 2, 4, 8), (1,)])
def test_rows_in_blocks_end_where_each_does_alone(counts):
    """So do the derivatives by the noise; a row's velocity depends on its condition."""
    rows = 5
    conditions, noise = jnp.linspace(0.5, 1.5, rows)[:, None], jnp.linspace(-1.5, 1.5, rows)[:, None]

    def velocity(condition):
        return lambda point, time, level: condition * ideal(point, time, level) - 0.1 * level * time

    def apart(noise):
        steps = np.repeat(counts, block_sizes(len(counts), rows)).tolist()
        return jnp.stack([sample(velocity(c), z, k) for c, z, k in zip(conditions, noise, steps, strict=True)])

    found, back = jax.vjp(jax.jit(lambda z: sample_in_blocks(velocity, conditions, z, counts)), noise)
    wanted, back_apart = jax.vjp(jax.jit(apart), noise)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back(jnp.ones_like(noise))[0], back_apart(jnp.ones_like(noise))[0], rtol=1e-5, atol=1e-6)


def test_euler_in_the_finest_steps_is_the_finest_sample():
    noise = jnp.linspace(-1, 1, 3)
    plain = Euler()(lambda z, t: ideal(z, t, jnp.float32(FINEST)), noise, 8)
    np.testing.assert_array_equal(sample(ideal, noise, 8), plain)
