"""Closed forms of the flow, and the one convention: time 0 is noise, time 1 is data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.nn.flow import AdamsBashforth, Euler, interpolate, path_velocity


@pytest.mark.parametrize("solver", [Euler(), AdamsBashforth()])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_straight_path_is_exact(solver, steps):
    noise, data = jnp.array([0.3, -1.0]), jnp.array([2.0, 5.0])
    assert jnp.allclose(solver(lambda y, t: path_velocity(noise, data), noise, steps), data, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_of_exponential_growth(steps):
    assert jnp.allclose(Euler()(lambda y, t: y, jnp.array([1.0]), steps), (1 + 1 / steps) ** steps, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_reads_times_from_zero_and_stops_one_step_before_one(steps):
    # The sum of m/M over m < M, divided by M. The paper's listing, one step too many, would give (M + 1) / 2M.
    total = Euler()(lambda y, t: jnp.ones(1) * t, jnp.zeros(1), steps)
    assert jnp.allclose(total, (steps - 1) / (2 * steps), atol=1e-6)


def test_adams_bashforth_is_of_second_order():
    # On dy/dt = y the error falls fourfold when steps are halved; Euler's only twofold.
    def error(solver, steps):
        return abs(float(solver(lambda y, t: y, jnp.array([1.0]), steps)[0]) - np.e)

    assert 3.2 < error(AdamsBashforth(), 10) / error(AdamsBashforth(), 20) < 5
    assert error(Euler(), 10) / error(Euler(), 20) < 2.1
    assert error(AdamsBashforth(), 10) < 0.2 * error(Euler(), 10)


@pytest.mark.parametrize("solver", [Euler(), AdamsBashforth()])
def test_an_atom_is_reached_exactly(solver):
    # The velocity towards a single value 0.7 is (0.7 - z) / (1 - t), infinite at the end; no step may overshoot.
    ends = jax.vmap(lambda z: solver(lambda y, t: (0.7 - y) / (1 - t), z, 10))(jnp.linspace(-2, 2, 9)[:, None])
    np.testing.assert_allclose(ends, 0.7, atol=1e-5)


def test_time_zero_is_noise_and_time_one_is_data():
    noise, data = jnp.array([1.0]), jnp.array([-3.0])
    assert interpolate(noise, data, jnp.array(0.0)) == noise
    assert interpolate(noise, data, jnp.array(1.0)) == data
    slope = jax.jacfwd(lambda t: interpolate(noise, data, t))(jnp.array(0.4))
    assert jnp.allclose(slope, path_velocity(noise, data))


@pytest.mark.parametrize(("solver", "steps", "tolerance"), [(Euler(), 500, 1e-2), (AdamsBashforth(), 10, 4e-2)])
@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_the_optimal_field_of_a_gaussian_carries_noise_to_the_gaussian(solver, steps, tolerance, std):
    # For data N(m, s^2) the marginal velocity is known.
    mean = 2.0

    def velocity(z, t):
        variance = (1 - t) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (z - t * mean)

    low, middle, high = (float(solver(velocity, jnp.full(1, z), steps)[0]) for z in (-1.0, 0.0, 1.0))
    assert middle == pytest.approx(mean, abs=tolerance * std)
    assert high - low == pytest.approx(2 * std, rel=tolerance)


def test_ten_euler_steps_shrink_a_normal():
    # What AdamsBashforth is for: the product of 1 + (2 t - 1) / (10 (1 - 2 t + 2 t^2)) over t = 0, 0.1, ..., 0.9.
    times = np.arange(10) / 10
    gain = np.prod(1 + (2 * times - 1) / (1 - 2 * times + 2 * times**2) / 10)

    def velocity(z, t):
        return (2 * t - 1) / (1 - 2 * t + 2 * t**2) * z

    assert Euler()(velocity, jnp.ones(1), 10)[0] == pytest.approx(gain, rel=1e-5)
    assert gain < 0.89
    assert abs(AdamsBashforth()(velocity, jnp.ones(1), 10)[0] - 1) < 0.015
