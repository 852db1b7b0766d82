"""Bounds of returns, against the returns of every path that the rewards allow."""

import itertools

import numpy as np
import pytest

import evor
from episodes import TWO, data_spec, lay, make
from evor.data.bounds import RewardRange, bounds_of
from evor.errors import EvorError
from evor.types import GivenBounds, NoBounds, RewardBounds


def every_return(going, final, discount, steps):
    """Returns of all paths of up to `steps` rewards of `going`, then one of `final`, and of those that never end."""
    for length in range(steps):
        for rewards in itertools.product(going, repeat=length):
            start = sum(discount**t * reward for t, reward in enumerate(rewards))
            yield from (start + discount**length * last for last in final)
            if length:
                yield start + discount**length * rewards[-1] / (1 - discount)


@pytest.mark.parametrize(
    ("going", "final"),
    [
        ((-1.0,), (0.0,)),
        ((-2.0, -1.0), (0.0,)),
        ((0.0,), (1.0,)),
        ((0.5, 2.0), (-3.0, 5.0)),
        ((-0.1,), (1.0,)),
        ((1.0,), ()),
    ],
)
@pytest.mark.parametrize("discount", [0.5, 0.8])
def test_no_path_leaves_the_bounds_and_some_attain_them(going, final, discount):
    rewards = [*going, *final]
    ends = [False] * (len(rewards) - 1) + [True]
    masks = [1.0] * len(going) + [0.0] * len(final)
    found = RewardRange.read(make(rewards, masks, ends, [False] * len(rewards))).return_bounds(discount)
    returns = list(every_return(going, final, discount, 7))
    assert found[0][0] == pytest.approx(min(returns), abs=1e-6)
    assert found[1][0] == pytest.approx(max(returns), abs=1e-6)


def test_without_a_discount_rewards_of_one_sign_bound_one_side():
    episodes = make([-1, -1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0])
    assert RewardRange.read(episodes).return_bounds(1.0) == (-np.inf, 0.0)


def test_the_range_of_parts_is_that_of_the_whole():
    one, other = make([1, -4, 2], [1, 1, 0], [0, 0, 1], [0, 0, 0]), make([3, 0], [1, 1], [0, 1], [0, 0])
    both = make([1, -4, 2, 3, 0], [1, 1, 0, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0])
    merged = RewardRange.read(one).merge(RewardRange.read(other))
    for a, b in zip(merged, RewardRange.read(both), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_option_gives_the_bounds_or_turns_them_off():
    rewards = RewardRange.read(TWO)
    assert bounds_of(GivenBounds(-5.0, 7.0), rewards, discount=0.9) == (-5.0, 7.0)
    assert bounds_of(NoBounds(), rewards, discount=0.9) == (-np.inf, np.inf)
    assert bounds_of(RewardBounds(), rewards, discount=0.9) == rewards.return_bounds(0.9)
    with pytest.raises(EvorError, match="return bounds are 3 and 1"):
        GivenBounds(3.0, 1.0)


def test_columns_hold_the_bounds_in_standardised_units():
    columns, scale, _ = lay(TWO, return_bounds=RewardBounds())
    low, high = RewardRange.read(TWO).return_bounds(0.9)
    np.testing.assert_allclose(columns.return_bounds[0], (low - scale.return_mean) / scale.return_std, rtol=1e-6)
    np.testing.assert_allclose(columns.return_bounds[1], (high - scale.return_mean) / scale.return_std, rtol=1e-6)
    assert not np.isfinite(lay(TWO)[0].return_bounds).any()
    assert data_spec().return_bounds == NoBounds()


def test_a_policy_promises_nothing_that_rewards_do_not_allow(tiny_run):
    """With returns of at most -95, a value of few updates would promise more."""
    policy = evor.load(tiny_run, 1, seed=0)
    observations = np.random.default_rng(0).uniform(-200, 200, (256, 2)).astype(np.float32)
    actions = np.ones((256, 2), np.float32)
    assert policy._networks.standardisation.return_max == 0
    assert policy.quantiles(observations, actions).max() > -95
    scale = policy._networks.standardisation._replace(return_max=np.float32(-95))
    networks = policy._networks._replace(standardisation=scale)
    held = type(policy)(policy.config, policy.spec, networks=networks, origin=policy.origin)
    assert held.quantiles(observations, actions).max() <= -95 + 1e-4
