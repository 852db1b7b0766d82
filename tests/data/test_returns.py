"""Rewards-to-go, completeness, n-step sums, masks and chunks, against sums written out by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes import TWO, make
from evor.data import returns
from evor.data.returns import Clock, Extents, Returns, completeness_horizon, reward_to_go
from evor.errors import EvorError


def n_step_sums(episodes, discount, **options):
    """Of episodes that are the whole dataset."""
    return returns.n_step_sums(episodes, Returns.read(episodes, discount), **options)


def test_extents_and_clock():
    episodes = TWO._replace(action_known=np.arange(7) != 3)
    of_episodes = Extents.read(episodes)
    for extents, expected in (
        (of_episodes, [[0, 4], [3, 6], [1, 0], [2, 6]]),
        (of_episodes.by_row(), [[0] * 4 + [4] * 3, [3] * 4 + [6] * 3, [1] * 4 + [0] * 3, [2] * 4 + [6] * 3]),
    ):
        for mine, theirs in zip(extents, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert Clock.read(of_episodes) == (3, 2, 2)
    finished = make([1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0])
    assert Clock.read(Extents.read(finished)) == (-1, -1, 2)


def test_a_cut_bootstraps_and_a_finish_ends_the_sum():
    sums = n_step_sums(TWO, 0.5, num_steps=2)
    np.testing.assert_allclose(sums.rewards[0], [1 + 1, 2 + 2, 4, 0, 1 + 0.5, 1 + 2.5, 5])
    np.testing.assert_allclose(sums.discounts[0], [0.25, 0.25, 0.5, 1, 0.25, 0, 0])
    np.testing.assert_array_equal(sums.bootstrap[[0, 1, 2, 4]], [2, 3, 3, 6])
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 1, 0, 1, 1, 1])


def test_a_finish_where_others_are_cut_is_held_to_the_same_clock():
    # Rows 0-2: cut. Rows 3-5: finished on the row from which the first only bootstraps. Rows 6-7: finished before it.
    episodes = make([1, 2, 4, 1, 2, 4, 1, 2], [1, 1, 1, 1, 1, 0, 1, 0], [0, 0, 1] * 2 + [0, 1], [0, 0, 1] + [0] * 5)
    sums = n_step_sums(episodes, 0.5, num_steps=5)
    for column in (
        sums.rewards[0],
        sums.discounts[0],
        sums.weights[0],
        sums.bootstrap - np.repeat([0, 3, 6], [3, 3, 2]),
    ):
        np.testing.assert_allclose(column[3:6], column[:3])
    np.testing.assert_allclose(sums.discounts[0, 6:], 0)
    next_state = n_step_sums(episodes, 0.5, num_steps=5, next_action_known=False)
    np.testing.assert_allclose(next_state.discounts[0, 3:], 0)


def test_a_cut_shorter_than_some_finish_is_no_clock():
    episodes = make([1, 2, 1, 2, 4], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0])
    longer = make([1, 2, 1, 2, 4], [1, 1, 1, 1, 0], [0, 1, 0, 0, 1], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(n_step_sums(episodes, 0.5, num_steps=5).weights[0], [1, 0, 1, 0, 1])
    np.testing.assert_allclose(n_step_sums(longer, 0.5, num_steps=5).weights[0], [1, 0, 1, 1, 1])


def test_the_reward_of_a_cut_row_without_successor_is_never_counted():
    assert reward_to_go(TWO, 0.5)[0, 2] == 4


def test_a_finish_inside_a_trajectory_ends_the_sum_there():
    # As in OGBench's navigate data, where the walker goes on after the goal.
    episodes = make([-1, -1, 0, -1, -1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1])
    sums = n_step_sums(episodes, 0.9, num_steps=10)
    np.testing.assert_allclose(sums.rewards[0, :4], [-1.9, -1, 0, -1])
    np.testing.assert_allclose(sums.discounts[0, :4], [0, 0, 0, 0.9])


def test_a_sum_may_bootstrap_exactly_at_a_finished_row():
    episodes = make([-1, -1, 0, -1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1])
    sums = n_step_sums(episodes, 0.9, num_steps=2)
    assert sums.bootstrap[0] == 2
    assert sums.discounts[0, 0] == pytest.approx(0.81)


def test_an_unknown_last_action_moves_the_bootstrap_one_row_back():
    episodes = make([1, 1, 1, 0], [1] * 4, [0, 0, 0, 1], [0, 0, 0, 1], action_known=[1, 1, 1, 0])
    data = n_step_sums(episodes, 0.5, num_steps=5, next_action_known=True)
    policy = n_step_sums(episodes, 0.5, num_steps=5, next_action_known=False)
    np.testing.assert_array_equal(data.bootstrap[:3], [2, 2, 2])
    np.testing.assert_array_equal(data.weights[0], [1, 1, 0, 0])
    np.testing.assert_array_equal(policy.bootstrap[:3], [3, 3, 3])
    np.testing.assert_array_equal(policy.weights[0], [1, 1, 1, 0])
    np.testing.assert_allclose(policy.rewards[0, :3], [1.75, 1.5, 1])


def test_chunks_need_all_their_actions_unless_the_task_finishes_inside():
    sums = n_step_sums(TWO, 0.5, num_steps=2, chunk_length=2)
    # Row 2's chunk is complete, but no chunk of known actions is left to bootstrap from; row 3 lacks an action.
    # Rows 4-6 are held to that clock: from row 6 on it does not look.
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(sums.bootstrap[[0, 1, 4, 5]], [2, 2, 6, 6])
    early = make([1, 2, 4, 8, 16, 1, 5], [1] * 6 + [0], [0] * 4 + [1, 0, 1], [0] * 4 + [1, 0, 0])
    np.testing.assert_array_equal(
        n_step_sums(early, 0.5, num_steps=2, chunk_length=2).weights[0], [1, 1, 1, 0, 0, 1, 1]
    )


def test_a_chunk_that_leaves_the_episode_is_dropped_where_the_next_is_drawn_anew():
    """Row 3's actions 3-5 are known, but the last is taken in the last known state: its reward is not."""
    episode = make([1, 2, 4, 8, 16, 32], [1] * 6, [0] * 5 + [1], [0] * 5 + [1])
    sums = n_step_sums(episode, 0.5, num_steps=3, chunk_length=3, next_action_known=False)
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(sums.bootstrap[:3], [3, 4, 5])
    np.testing.assert_allclose(sums.rewards[0, :3], [3, 6, 12])
    np.testing.assert_allclose(sums.discounts[0, :3], 0.125)


def test_a_sum_covers_its_chunk_where_another_action_than_the_datasets_may_follow():
    """Rows 1 and 2 have a next chunk of the dataset, which begins within their own."""
    episode = make([1, 2, 4, 8, 16, 32], [1] * 6, [0] * 5 + [1], [0] * 5 + [1])
    options = {"num_steps": 3, "chunk_length": 3}
    taken = n_step_sums(episode, 0.5, **options)
    np.testing.assert_array_equal(taken.weights[0], [1, 1, 1, 0, 0, 0])
    drawn = n_step_sums(episode, 0.5, **options, next_action_taken=False)
    np.testing.assert_array_equal(drawn.weights[0], [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(drawn.bootstrap, taken.bootstrap)
    early = episode._replace(masks=np.array([[1, 1, 1, 0, 1, 1]], np.float32))
    finished = n_step_sums(early, 0.5, **options, next_action_taken=False)
    np.testing.assert_array_equal(finished.weights[0], [1, 1, 1, 1, 0, 0])


def test_episodes_shorter_than_n_and_than_a_chunk():
    single = make([3.0, 7.0], [0, 1], [1, 1], [0, 1])
    sums = n_step_sums(single, 0.9, num_steps=50, chunk_length=5)
    np.testing.assert_allclose(sums.rewards[0, 0], 3)
    np.testing.assert_array_equal(sums.weights[0], [1, 0])


def brute_clock(episodes):
    """Last rows of the finishing episodes that are exactly as long as the longest cut one, if none is longer."""
    last = np.flatnonzero(episodes.ends)
    lengths = np.diff(last, prepend=-1)
    cut = episodes.bootstrap_only[last]
    longest = lengths[cut].max(initial=0)
    if longest < 2 or lengths.max() > longest:
        return set()
    return set(last[~cut & (lengths == longest)])


def brute_force(episodes, discount, n, row):
    total, factor, position = 0.0, 1.0, row
    for _ in range(n):
        if position in brute_clock(episodes):
            break
        if episodes.bootstrap_only[position] and episodes.masks[0, position] == 1:
            break
        total += factor * episodes.rewards[0, position]
        factor *= discount
        if episodes.masks[0, position] == 0:
            return total, 0.0, None
        position += 1
    return total, factor, position


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_sums_agree_with_brute_force(rows, n):
    masks = [float(finish != 0) for _, finish, _ in rows]
    ends = [end == 0 for *_, end in rows]
    ends[-1] = True
    cut = [end and mask == 1 for end, mask in zip(ends, masks, strict=True)]
    episodes = make([reward for reward, *_ in rows], masks, ends, cut)
    sums = n_step_sums(episodes, 0.9, num_steps=n)
    for row in range(len(rows)):
        total, factor, position = brute_force(episodes, 0.9, n, row)
        assert sums.rewards[0, row] == pytest.approx(total, abs=1e-5)
        assert sums.discounts[0, row] == pytest.approx(factor, rel=1e-6)
        assert sums.weights[0, row] == (position is None or position > row)
        if position is not None:
            assert sums.bootstrap[row] == position


def test_n_below_the_chunk_is_refused():
    with pytest.raises(EvorError, match="cover its chunk"):
        n_step_sums(TWO, 0.9, num_steps=2, chunk_length=5)


def test_monte_carlo_keeps_rows_far_from_the_cut_whether_finished_or_not():
    discount = 0.1  # a reward-to-go is complete after two steps
    assert completeness_horizon(discount) == 2
    episodes = make([0] * 6, [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(Returns.read(episodes, discount).complete, [1, 1, 1, 1, 0, 0])


def test_completeness_holds_finished_episodes_to_the_clock_of_the_cut_ones():
    # Cut after 5 steps: a row counts up to step 3. The finished episode's row 4 must not count, or survivors would.
    episodes = make([0] * 11, [1] * 10 + [0], [0] * 5 + [1] + [0] * 4 + [1], [0] * 5 + [1] + [0] * 5)
    np.testing.assert_array_equal(Returns.read(episodes, 0.1).complete, [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0])


def test_horizon_is_one_percent():
    assert completeness_horizon(0.99) == 459
    with pytest.raises(EvorError, match="below 1"):
        completeness_horizon(1.0)
