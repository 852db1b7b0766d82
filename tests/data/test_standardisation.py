"""Standardised units: of observations and of returns, of parts and of the whole."""

import numpy as np
import pytest

from episodes import data_spec, lay, make, random_episodes
from evor.data.returns import Returns, n_step_sums
from evor.data.standardisation import data_statistics, moments, standardisation
from evor.errors import EvorError


def test_standardised_backup_is_the_backup_standardised():
    episodes = random_episodes()
    columns, scale, _ = lay(episodes)
    raw = n_step_sums(episodes, Returns.read(episodes, 0.9), num_steps=3)
    z = 0.37
    mean, std = scale.return_mean[0], scale.return_std[0]
    expected = (raw.rewards[0] + raw.discounts[0] * (mean + std * z) - mean) / std
    np.testing.assert_allclose(columns.rewards[0] + columns.discounts[0] * z, expected, rtol=1e-4, atol=1e-4)


def test_standardisation_off_changes_nothing():
    episodes = random_episodes()
    columns, *_ = lay(episodes, standardise_observations=False, standardise_returns=False)
    np.testing.assert_array_equal(columns.observations, episodes.observations)
    np.testing.assert_allclose(
        columns.rewards, n_step_sums(episodes, Returns.read(episodes, 0.9), num_steps=3).rewards, rtol=1e-6
    )


def test_standardisation_of_observations_and_returns():
    episodes = random_episodes(length=200)
    columns, scale, _ = lay(episodes)
    np.testing.assert_allclose(columns.observations.std(axis=0), 1, rtol=1e-4)
    returns = Returns.read(episodes, 0.9)
    np.testing.assert_allclose(scale.return_mean, returns.to_go[:, returns.complete].mean(axis=1))


def test_constant_columns_and_flat_returns_stay_finite():
    episodes = make([0.0] * 30, [1] * 30, [0] * 29 + [1], [0] * 29 + [1])
    episodes = episodes._replace(observations=np.full((30, 2), 7.0, np.float32))
    columns, scale, _ = lay(episodes)
    assert np.isfinite(columns.observations).all()
    assert (columns.observations == 0).all()
    assert scale.return_std[0] == 1


def test_short_episodes_are_standardised_by_the_mean_reward_continued():
    ends = np.arange(40) % 10 == 9
    episodes = make([-1.0] * 40, [1] * 40, ends, ends)
    returns = Returns.read(episodes, 0.99)
    assert not (returns.complete & ~episodes.bootstrap_only).any()
    scale = standardisation(
        data_statistics(episodes, 0.99, clock=returns.clock),
        data_spec(discount=0.99),
        action_bounds=episodes.action_bounds,
    )
    assert scale.return_mean[0] == pytest.approx(-100, rel=1e-6)


def test_observations_without_returns():
    episodes = random_episodes(length=200)
    columns, scale, _ = lay(episodes, standardise_returns=False, full_returns=True)
    np.testing.assert_array_equal(scale.return_mean, 0)
    np.testing.assert_array_equal(scale.return_std, 1)
    returns = Returns.read(episodes, 0.9)
    sums = n_step_sums(episodes, returns, num_steps=3)
    np.testing.assert_array_equal(columns.rewards, sums.rewards.astype(np.float32))
    np.testing.assert_array_equal(columns.rewards_to_go, returns.to_go.astype(np.float32))
    rows = np.arange(600)  # the observations: mean 599 / 2, variance (600^2 - 1) / 12
    expected = (rows - 599 / 2) / np.sqrt((600**2 - 1) / 12)
    np.testing.assert_allclose(columns.observations[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_returns_without_observations():
    episodes = random_episodes(length=200)
    columns, scale, _ = lay(episodes, standardise_observations=False, full_returns=True)
    np.testing.assert_array_equal(scale.observation_mean, 0)
    np.testing.assert_array_equal(scale.observation_std, 1)
    np.testing.assert_array_equal(columns.observations, episodes.observations)
    returns = Returns.read(episodes, 0.9)
    complete = returns.to_go[:, returns.complete]
    np.testing.assert_allclose(scale.return_mean, complete.mean(axis=1))
    np.testing.assert_allclose(scale.return_std, complete.std(axis=1))
    expected = (returns.to_go - complete.mean()) / complete.std()
    np.testing.assert_allclose(columns.rewards_to_go, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("factor", "told"), [(1e36, "more"), (1e-39, "less")])
def test_returns_that_float32_does_not_hold_are_refused_where_they_are_standardised(factor, told):
    episodes = random_episodes()
    episodes = episodes._replace(rewards=episodes.rewards * np.float32(factor))
    with pytest.raises(EvorError, match=f"{told} than float32 can learn from"):
        lay(episodes, standardise_observations=False)
    assert np.isfinite(lay(episodes, standardise_returns=False).columns.rewards).all()


def test_moments_of_parts_merge_into_those_of_the_whole():
    def of(part):
        return moments(lambda: [part], count=part.shape[1], width=3, in_pairs=False)

    rows = np.random.default_rng(0).normal(-5, 2, (3, 100))
    whole, merged = of(rows), of(rows[:, :0])
    for part in np.split(rows, [10, 11, 70], axis=1):
        merged = merged.merge(of(part))
    for mine, theirs in zip(merged, whole, strict=True):
        np.testing.assert_allclose(mine, theirs)
    np.testing.assert_allclose(whole.scatter, 100 * rows.var(axis=1))
