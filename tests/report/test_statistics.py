"""Statistics over tasks and seeds, against what they must be."""

import numpy as np
import pytest

from evor.report.statistics import (
    bold,
    estimate,
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
)


def test_the_interquartile_mean_is_the_middle_halfs():
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 1e6]])
    assert interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_the_interval_of_a_mean_is_the_textbooks():
    scores = np.random.default_rng(0).normal(size=(1, 400))
    found = estimate(mean, scores)
    width = 2 * 1.96 * scores.std() / 400**0.5
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.low < found.value < found.high


def test_seeds_are_resampled_within_their_task():
    """Tasks differ, seeds do not: nothing is uncertain."""
    found = estimate(interquartile_mean, np.repeat(np.array([[0.0], [0.4], [0.9], [1.0]]), 3, axis=1))
    assert found.low == found.value == found.high == pytest.approx(0.65)


def test_improvement_is_certain_even_or_complementary():
    low, high = np.array([[0.1, 0.2], [0.0, 0.3]]), np.array([[0.5, 0.6, 0.7], [0.9, 0.4, 0.8]])
    assert probability_of_improvement(high, low) == 1
    assert probability_of_improvement(low, low) == 0.5
    mixed = np.array([[0.15, 0.65, 0.6], [0.3, 0.0, 0.9]])
    assert probability_of_improvement(mixed, low) + probability_of_improvement(low, mixed) == pytest.approx(1)


def test_a_profile_falls_from_one_to_nothing():
    profile = performance_profile(np.array([[0.2, 0.4], [0.6, 0.8]]), np.array([0.0, 0.3, 0.5, 0.8]))
    np.testing.assert_allclose(profile, [1, 0.75, 0.5, 0])


def test_bold_is_within_a_twentieth_of_the_best():
    assert bold({"a": 1.0, "b": 0.951, "c": 0.949, "d": 0.0}) == {"a", "b"}
    assert bold({"a": 0.0, "b": 0.0}) == set()  # nothing was reached
