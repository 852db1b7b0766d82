"""Readings and objectives against closed forms."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from evor.errors import EvorError
from evor.experiments.verify.problems import PROBLEMS
from evor.nn.flow import Euler
from evor.nn.objectives import DatasetReturn, Draws, FlowTd, MonteCarlo, SampleBackup, draw
from evor.search.readings import Quadrature, RandomSamples, log_mean_exp
from evor.types import Outcome

returns_strategy = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20).map(
    lambda x: np.array(x, np.float32)
)


def even(returns):
    return jnp.full(len(returns), 1 / len(returns))


@settings(deadline=None, max_examples=50)
@given(returns_strategy, st.floats(0.05, 100))
def test_log_mean_exp_is_the_textbook_formula(returns, temperature):
    weights = np.arange(1, len(returns) + 1)
    weights = weights / weights.sum()
    exact = temperature * logsumexp(returns.astype(np.float64) / temperature, b=weights)
    assert log_mean_exp(jnp.asarray(returns), jnp.asarray(weights), temperature=temperature) == pytest.approx(
        exact, rel=1e-5, abs=1e-4
    )


@settings(deadline=None, max_examples=30)
@given(returns_strategy)
def test_log_mean_exp_limits_are_exact(returns):
    array = jnp.asarray(returns)
    assert log_mean_exp(array, even(array), temperature=0.0) == returns.max()
    assert log_mean_exp(array, even(array), temperature=jnp.inf) == even(array) @ array


@settings(deadline=None, max_examples=30)
@given(returns_strategy)
def test_log_mean_exp_grows_as_temperature_falls_and_stays_between_mean_and_max(returns):
    array = jnp.asarray(returns)
    values = [float(log_mean_exp(array, even(array), temperature=t)) for t in (jnp.inf, 1e4, 10.0, 1.0, 0.1, 1e-3, 0.0)]
    assert all(a <= b + 1e-4 for a, b in pairwise(values))


def test_large_temperature_keeps_the_ranking_in_float32():
    # With the textbook formula at 1e6 these two are ranked by rounding noise.
    generator = np.random.default_rng(0)
    worse = generator.normal(size=50).astype(np.float32)
    better = worse + np.float32(1e-3)
    for temperature in (1e3, 1e6, 1e9):
        gap = log_mean_exp(jnp.asarray(better), even(better), temperature=temperature) - log_mean_exp(
            jnp.asarray(worse), even(worse), temperature=temperature
        )
        assert gap == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_quadrature_of_a_gaussian(temperature):
    # Q* of Normal(m, s^2) is m + s^2 / (2 tau).
    mean, std = -1.0, 0.4
    nodes = Quadrature(2000).nodes(jax.random.key(0), temperature)
    q = log_mean_exp(mean + std * nodes.noises, nodes.weights, temperature=temperature)
    assert q == pytest.approx(mean + std**2 / (2 * temperature), abs=2e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.5, np.inf])
def test_quadrature_nodes_are_midpoint_quantiles_of_equal_weight(temperature):
    nodes = Quadrature(4).nodes(jax.random.key(0), temperature)
    np.testing.assert_allclose(norm.cdf(nodes.noises), [0.125, 0.375, 0.625, 0.875], atol=1e-6)
    np.testing.assert_allclose(nodes.weights, 0.25, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.9])
def test_below_one_standard_deviation_the_nodes_crowd_towards_the_top(temperature):
    noises, weights = Quadrature(6).nodes(jax.random.key(0), temperature)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert (np.diff(weights) < 0).all()
    ends = np.cumsum(weights)
    assert (norm.cdf(noises) < ends).all()
    assert (norm.cdf(noises) > ends - weights).all()
    assert (noises > Quadrature(6).nodes(jax.random.key(0), 1.0).noises).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_default_reads_a_known_distribution_better_than_fifty_random_samples(name):
    """Mean |error of Q*| in standard deviations of the law, over the problem's laws."""
    distributions = [
        distribution
        for distribution in (probe.distribution for probe in PROBLEMS[name].probes(None))
        if distribution.std > 1e-6
    ]
    generator = np.random.default_rng(0)
    for temperature in (0.3, 1.0, 3.0, 10.0):
        noises, weights = Quadrature().nodes(jax.random.key(0), temperature)
        ours, random = [], []
        for distribution in distributions:
            tau = temperature * distribution.std
            exact = distribution.log_mean_exp(tau)
            read = tau * logsumexp(distribution.quantile(norm.cdf(noises)) / tau, b=np.asarray(weights))
            drawn = distribution.quantile(generator.uniform(size=200 * 50)).reshape(200, 50)
            ours.append(abs(read - exact) / distribution.std)
            random.append(abs(tau * logsumexp(drawn / tau, b=1 / 50, axis=1) - exact).mean() / distribution.std)
        assert np.mean(ours) < np.mean(random)


def test_random_samples_follow_the_key():
    reading = RandomSamples(7)
    one, again, other = (reading.nodes(jax.random.key(key), 1.0) for key in (1, 1, 2))
    assert (one.noises == again.noises).all()
    assert (one.noises != other.noises).any()
    assert one.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("reading", [lambda: RandomSamples(0), lambda: Quadrature(0)])
def test_no_reading_without_returns(reading):
    with pytest.raises(EvorError, match="at least 1"):
        reading()


OUTCOME = Outcome(
    reward=jnp.array(0.7),
    discount=jnp.array(0.9),
    weight=jnp.array(1.0),
    reward_to_go=jnp.array(1.5),
    return_min=jnp.array(-jnp.inf),
    return_max=jnp.array(jnp.inf),
)
DRAWS = Draws(jnp.array(0.4), jnp.array(-1.2), jnp.array(0.25))


def solve(velocity, noise):
    return Euler()(velocity, noise, 10)


def here(z, t):
    return jnp.array(2.0)


def after(z, t):
    return jnp.array(-3.0)


def test_sample_backup_by_hand():
    # Euler along the constant velocity -3 from the same noise 0.4 ends at -2.6.
    target = SampleBackup()(OUTCOME, here, after, DRAWS, solve)
    z1 = 0.7 + 0.9 * (0.4 - 3.0)
    assert target.velocity == pytest.approx(z1 - 0.4, abs=1e-5)
    assert target.point == pytest.approx(0.75 * 0.4 + 0.25 * z1, abs=1e-5)
    assert target.time == DRAWS.time


def test_monte_carlo_by_hand():
    target = MonteCarlo()(OUTCOME, here, after, DRAWS, solve)
    assert target.velocity == pytest.approx(1.5 - 0.4)
    assert target.point == pytest.approx(0.75 * 0.4 + 0.25 * 1.5)


def test_flow_td_by_hand():
    # z1 comes from the model at (x, a) and an independent noise: -1.2 + 2.
    target = FlowTd()(OUTCOME, here, after, DRAWS, solve)
    assert target.point == pytest.approx(0.75 * 0.4 + 0.25 * 0.8, abs=1e-5)
    assert target.velocity == pytest.approx(0.7 + 0.9 * -3.0, abs=1e-5)


def test_flow_td_may_end_its_paths_in_the_datasets_returns():
    target = FlowTd(z1=DatasetReturn())(OUTCOME, here, after, DRAWS, solve)
    assert target.point == pytest.approx(0.75 * 0.4 + 0.25 * 1.5, abs=1e-5)
    assert target.velocity == pytest.approx(0.7 + 0.9 * -3.0, abs=1e-5)


@pytest.mark.parametrize("objective", [FlowTd(), SampleBackup()])
def test_a_finished_task_never_looks_ahead(objective):
    finished = OUTCOME._replace(discount=jnp.array(0.0))
    one = objective(finished, here, after, DRAWS, solve)
    other = objective(finished, here, lambda z, t: jnp.array(1e6), DRAWS, solve)
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, one, other))


def test_draws_are_standard():
    draws = draw(jax.random.key(0), 20000)
    assert abs(draws.noise.mean()) < 0.03
    assert abs(draws.noise.std() - 1) < 0.03
    assert abs(np.corrcoef(draws.noise, draws.model_noise)[0, 1]) < 0.03
    assert 0 <= draws.time.min() <= draws.time.max() <= 1
    assert abs(draws.time.mean() - 0.5) < 0.01
