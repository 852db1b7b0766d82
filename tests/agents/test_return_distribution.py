"""What the objectives learn, on a two-step chain that ends with a coin: +1 or -1, so +-0.5 one step earlier."""

import numpy as np
import pytest
from scipy.stats import norm

from conftest import TINY, learned
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo, SampleBackup
from evor.runtime.records import replace

DISCOUNT, UPDATES = 0.5, 3000


@pytest.fixture(scope="module")
def coins(tmp_path_factory):
    """4 000 episodes of two rows, written and read as a user's data is."""
    flips = np.random.default_rng(0).permutation(np.repeat([-1.0, 1.0], 2000))
    path = tmp_path_factory.mktemp("coin") / "coin.npz"
    np.savez(
        path,
        observations=np.tile([[-1.0], [1.0]], (4000, 1)).astype(np.float32),
        actions=np.zeros((8000, 1), np.float32),
        rewards=np.stack([np.zeros(4000), flips], 1).ravel().astype(np.float32),
        terminations=np.tile([False, True], 4000),
        truncations=np.zeros(8000, bool),
    )
    return path


def trained(path, objective):
    agent = replace(TINY, objective=objective, discount=DISCOUNT, hidden=(32, 32), learning_rate=3e-3)
    return learned(path, agent, UPDATES, steps=100_000)


def quantiles(policy, state):
    """64 quantiles of the learned law at a state, in reward units."""
    return policy.quantiles(np.array([state]), np.zeros(1), num_nodes=64)


STATES = [(1.0, 1.0), (-1.0, DISCOUNT)]  # the observation, and the size of the coin seen from there


@pytest.mark.slow
@pytest.mark.parametrize("objective", [SampleBackup(n_steps=1), SampleBackup(n_steps=5), MonteCarlo()])
def test_sample_backup_and_monte_carlo_learn_the_coin(coins, objective):
    policy = trained(coins, objective)
    for state, size in STATES:
        exact = size * np.repeat([-1.0, 1.0], 32)
        # 1-Wasserstein distance; a law collapsed to its mean would be at `size`, a Gaussian of its spread at 0.44.
        assert np.abs(np.sort(quantiles(policy, state)) - exact).mean() < 0.2 * size


@pytest.mark.slow
def test_flow_td_learns_a_unit_normal_around_the_mean_whatever_the_distribution(coins):
    policy = trained(coins, FlowTd(n_steps=1))
    # Q is 0, and the unit 1 standard deviation of the standardisation.
    limit = policy.return_std * norm.ppf((np.arange(64) + 0.5) / 64)
    for state, size in STATES:
        found = np.sort(quantiles(policy, state))
        assert np.abs(found - limit).mean() < 0.15
        assert np.abs(found - size * np.repeat([-1.0, 1.0], 32)).mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("distribution", "spread"), [("gaussian", "denoiser"), ("certain", "unit")])
def test_flow_td_with_the_datasets_returns_follows_the_denoiser(tmp_path, distribution, spread):
    """One reward G, then the end: the velocity learned is E[G | z_t], whose Euler steps have a closed form (docs/math.md)."""
    generator = np.random.default_rng(0)
    rewards = generator.normal(size=8000) if distribution == "gaussian" else np.full(8000, 0.7)
    path = tmp_path / "one.npz"
    np.savez(
        path,
        observations=np.zeros((8000, 1), np.float32),
        actions=np.zeros((8000, 1), np.float32),
        rewards=rewards.astype(np.float32),
        terminations=np.ones(8000, bool),
        truncations=np.zeros(8000, bool),
    )
    policy = trained(path, FlowTd(z1=DatasetReturn()))
    found, unit = quantiles(policy, 0.0), policy.return_std
    times = np.arange(10) / 10
    gains = 1 + 0.1 * times / ((1 - times) ** 2 + times**2)  # dz/dt = t z / ((1 - t)^2 + t^2) at sigma = 1
    exact = unit * (np.prod(gains) if spread == "denoiser" else 1.0)
    assert found.mean() == pytest.approx(rewards.mean(), abs=0.05 * unit)
    assert np.std(found) == pytest.approx(exact * norm.ppf((np.arange(64) + 0.5) / 64).std(), rel=0.05)
