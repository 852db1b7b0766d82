"""Measures against closed forms."""

import math

import numpy as np
import pytest

from evor.distributions.exact import Atoms, Normal
from evor.distributions.measures import crps, excess_crps, log_mean_exp_of_quantiles, midpoints, pit, wasserstein

COIN = Atoms(np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
NORMAL = Normal(0.0, 1.0)
FINE = NORMAL.quantile(midpoints(4096))


def test_wasserstein_to_itself_is_nothing():
    assert wasserstein(FINE, NORMAL) < 2e-3
    assert wasserstein(np.repeat([-1.0, 1.0], 32), COIN) == 0


def test_wasserstein_of_a_shift_is_the_shift():
    assert wasserstein(FINE + 0.3, NORMAL) == pytest.approx(0.3, abs=1e-3)


def test_wasserstein_of_a_normal_to_the_coin():
    # 2 E|X - 1| over X > 0, X ~ N(0, 1): method.md measures 0.535.
    phi, cdf = math.exp(-0.5) / math.sqrt(2 * math.pi), 0.8413447460685429
    near = 0.3989422804014327 - phi  # integral of x phi over (0, 1)
    exact = 2 * ((cdf - 0.5) - near + phi - (1 - cdf))
    assert wasserstein(FINE, COIN) == pytest.approx(exact, abs=1e-3)


def test_crps_of_a_normal_is_the_closed_form():
    outcomes = np.array([-1.0, 0.2, 2.5])
    z = outcomes
    cdf, pdf = NORMAL.cdf(z), np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    exact = z * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi)
    np.testing.assert_allclose(crps(np.tile(FINE, (3, 1)), outcomes), exact, atol=2e-3)


def test_excess_crps_is_what_a_wrong_distribution_loses():
    outcomes = NORMAL.quantile(midpoints(2000))
    wrong = 0.5 + 2 * FINE
    loss = crps(np.tile(wrong, (2000, 1)), outcomes).mean() - crps(np.tile(FINE, (2000, 1)), outcomes).mean()
    assert excess_crps(wrong, NORMAL) == pytest.approx(loss, abs=2e-3)
    assert excess_crps(FINE, NORMAL) < 1e-6


def test_pit_is_flat_for_the_right_distribution_and_not_for_a_narrow_one():
    outcomes = np.random.default_rng(0).normal(size=4000)
    flat = pit(np.tile(FINE, (4000, 1)), outcomes, tolerance=1e-3)
    np.testing.assert_allclose(flat, 0.1, atol=0.025)
    narrow = pit(np.tile(FINE / 3, (4000, 1)), outcomes, tolerance=1e-3)
    assert narrow[0] > 0.25
    assert flat.sum() == pytest.approx(1)


def test_pit_of_an_atomic_distribution_is_flat_too():
    quantiles = np.tile(np.repeat([-1.0, 1.0], 500), (400, 1))
    np.testing.assert_allclose(pit(quantiles, np.repeat([-1.0, 1.0], 200), tolerance=0.01), 0.1, atol=2e-3)


@pytest.mark.parametrize("count", [4, 64])
def test_pit_of_few_quantiles_is_flat_to_its_ends(count):
    """Outcomes at 8192 equal shares of a normal, or on the two atoms of a coin, beside a few exact quantiles of it."""
    outcomes = NORMAL.quantile(midpoints(8192))
    few = np.tile(NORMAL.quantile(midpoints(count)), (len(outcomes), 1))
    np.testing.assert_allclose(pit(few, outcomes, tolerance=1e-9), 0.1, atol=1e-4)
    coin = np.tile(np.repeat([-1.0, 1.0], count // 2), (2, 1))
    np.testing.assert_allclose(pit(coin, np.array([-1.0, 1.0]), tolerance=0.01), 0.1)


def test_log_mean_exp_of_a_fine_normal():
    assert log_mean_exp_of_quantiles(FINE, 2.0) == pytest.approx(NORMAL.log_mean_exp(2.0), abs=1e-3)
