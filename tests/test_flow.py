"""Closed forms of the flow, and the one convention: time 0 is noise, time 1 is data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.flow import euler, interpolate, path_velocity


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_euler_of_a_straight_path_is_exact(steps):
    noise, data = jnp.array([0.3, -1.0]), jnp.array([2.0, 5.0])
    assert jnp.allclose(euler(lambda y, t: path_velocity(noise, data), noise, steps), data, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_of_exponential_growth(steps):
    assert jnp.allclose(euler(lambda y, t: y, jnp.array([1.0]), steps), (1 + 1 / steps) ** steps, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_reads_times_from_zero_and_stops_one_step_before_one(steps):
    # The sum of m/M over m < M, divided by M. The paper's listing, one step too many, would give (M + 1) / 2M.
    total = euler(lambda y, t: jnp.ones(1) * t, jnp.zeros(1), steps)
    assert jnp.allclose(total, (steps - 1) / (2 * steps), atol=1e-6)


def test_time_zero_is_noise_and_time_one_is_data():
    noise, data = jnp.array([1.0]), jnp.array([-3.0])
    assert interpolate(noise, data, jnp.array(0.0)) == noise
    assert interpolate(noise, data, jnp.array(1.0)) == data
    slope = jax.jacfwd(lambda t: interpolate(noise, data, t))(jnp.array(0.4))
    assert jnp.allclose(slope, path_velocity(noise, data))


def test_the_optimal_field_of_a_gaussian_carries_noise_to_the_gaussian():
    # For data N(m, s^2) the marginal velocity is known; fine Euler steps must give mean m and deviation s.
    mean, std = 2.0, 0.5

    def velocity(z, t):
        variance = (1 - t) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (z - t * mean)

    noise = jax.random.normal(jax.random.key(0), (4000, 1))
    samples = jax.vmap(lambda z: euler(velocity, z, 500))(noise)
    np.testing.assert_allclose(
        [samples.mean(), samples.std()], [mean + std * noise.mean(), std * noise.std()], rtol=2e-2
    )
