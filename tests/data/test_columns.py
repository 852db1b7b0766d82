"""n-step sums, masks, chunks and standardisation, against sums written out by hand and by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evor.data import arrange
from evor.data import columns as transitions
from evor.data.columns import Clock, completeness_horizon, reward_to_go
from evor.data.sampler import sample
from evor.errors import EvorError
from evor.types import DataNeeds, Episodes


def n_step_sums(episodes, *options, **more):
    """Of episodes that are the whole data set."""
    return transitions.n_step_sums(episodes, Clock.read(episodes), *options, **more)


def complete(episodes, discount):
    return transitions.complete(episodes, Clock.read(episodes), discount)


def facts(episodes, discount):
    return arrange.facts(episodes, Clock.read(episodes), discount)


def make(rewards, masks, ends, bootstrap_only, action_known=None):
    n = len(rewards)
    return Episodes(
        np.arange(n, dtype=np.float32)[:, None],
        np.linspace(-1, 1, n, dtype=np.float32)[:, None],
        np.array([rewards], np.float32),
        np.array([masks], np.float32),
        np.array(ends, bool),
        np.array(bootstrap_only, bool),
        np.ones(n, bool) if action_known is None else np.array(action_known, bool),
        (1,),
    )


# Rows 0-3: an episode cut at row 3. Rows 4-6: an episode finished at row 6.
TWO = make([1, 2, 4, 8, 1, 1, 5], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0])


def test_a_cut_bootstraps_and_a_finish_ends_the_sum():
    sums = n_step_sums(TWO, 0.5, 2)
    np.testing.assert_allclose(sums.rewards[0], [1 + 1, 2 + 2, 4, 0, 1 + 0.5, 1 + 2.5, 5])
    np.testing.assert_allclose(sums.discounts[0], [0.25, 0.25, 0.5, 1, 0.25, 0, 0])
    np.testing.assert_array_equal(sums.bootstrap[[0, 1, 2, 4]], [2, 3, 3, 6])
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 1, 0, 1, 1, 1])


def test_a_finish_where_others_are_cut_is_held_to_the_same_clock():
    # Rows 0-2: cut. Rows 3-5: finished on the row from which the first only bootstraps. Rows 6-7: finished before it.
    episodes = make([1, 2, 4, 1, 2, 4, 1, 2], [1, 1, 1, 1, 1, 0, 1, 0], [0, 0, 1] * 2 + [0, 1], [0, 0, 1] + [0] * 5)
    sums = n_step_sums(episodes, 0.5, 5)
    for column in (
        sums.rewards[0],
        sums.discounts[0],
        sums.weights[0],
        sums.bootstrap - np.repeat([0, 3, 6], [3, 3, 2]),
    ):
        np.testing.assert_allclose(column[3:6], column[:3])
    np.testing.assert_allclose(sums.discounts[0, 6:], 0)
    next_state = n_step_sums(episodes, 0.5, 5, next_action_known=False)
    np.testing.assert_allclose(next_state.discounts[0, 3:], 0)


def test_a_cut_shorter_than_some_finish_is_no_clock():
    episodes = make([1, 2, 1, 2, 4], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0])
    longer = make([1, 2, 1, 2, 4], [1, 1, 1, 1, 0], [0, 1, 0, 0, 1], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(n_step_sums(episodes, 0.5, 5).weights[0], [1, 0, 1, 0, 1])
    np.testing.assert_allclose(n_step_sums(longer, 0.5, 5).weights[0], [1, 0, 1, 1, 1])


def test_the_reward_of_a_cut_row_without_successor_is_never_counted():
    assert reward_to_go(TWO, 0.5)[0, 2] == 4


def test_a_finish_inside_a_trajectory_ends_the_sum_there():
    # As in OGBench's navigate data, where the walker goes on after the goal.
    episodes = make([-1, -1, 0, -1, -1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1])
    sums = n_step_sums(episodes, 0.9, 10)
    np.testing.assert_allclose(sums.rewards[0, :4], [-1.9, -1, 0, -1])
    np.testing.assert_allclose(sums.discounts[0, :4], [0, 0, 0, 0.9])


def test_a_sum_may_bootstrap_exactly_at_a_finished_row():
    episodes = make([-1, -1, 0, -1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1])
    sums = n_step_sums(episodes, 0.9, 2)
    assert sums.bootstrap[0] == 2
    assert sums.discounts[0, 0] == pytest.approx(0.81)


def test_an_unknown_last_action_moves_the_bootstrap_one_row_back():
    episodes = make([1, 1, 1, 0], [1] * 4, [0, 0, 0, 1], [0, 0, 0, 1], action_known=[1, 1, 1, 0])
    data = n_step_sums(episodes, 1.0, 5, next_action_known=True)
    policy = n_step_sums(episodes, 1.0, 5, next_action_known=False)
    np.testing.assert_array_equal(data.bootstrap[:3], [2, 2, 2])
    np.testing.assert_array_equal(data.weights[0], [1, 1, 0, 0])
    np.testing.assert_array_equal(policy.bootstrap[:3], [3, 3, 3])
    np.testing.assert_array_equal(policy.weights[0], [1, 1, 1, 0])
    np.testing.assert_allclose(policy.rewards[0, :3], [3, 2, 1])


def test_chunks_need_all_their_actions_unless_the_task_finishes_inside():
    sums = n_step_sums(TWO, 0.5, 2, chunk_length=2)
    # Row 2's chunk is complete, but no chunk of known actions is left to bootstrap from; row 3 lacks an action.
    # Rows 4-6 are held to that clock: from row 6 on it does not look.
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(sums.bootstrap[[0, 1, 4, 5]], [2, 2, 6, 6])
    early = make([1, 2, 4, 8, 16, 1, 5], [1] * 6 + [0], [0] * 4 + [1, 0, 1], [0] * 4 + [1, 0, 0])
    np.testing.assert_array_equal(n_step_sums(early, 0.5, 2, chunk_length=2).weights[0], [1, 1, 1, 0, 0, 1, 1])


def test_a_chunk_that_leaves_the_episode_is_dropped_where_the_next_is_drawn_anew():
    """Row 3's actions 3-5 are known, but the last is taken in the last known state: its reward is not."""
    episode = make([1, 2, 4, 8, 16, 32], [1] * 6, [0] * 5 + [1], [0] * 5 + [1])
    sums = n_step_sums(episode, 0.5, 3, chunk_length=3, next_action_known=False)
    np.testing.assert_array_equal(sums.weights[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(sums.bootstrap[:3], [3, 4, 5])
    np.testing.assert_allclose(sums.rewards[0, :3], [3, 6, 12])
    np.testing.assert_allclose(sums.discounts[0, :3], 0.125)


def test_episodes_shorter_than_n_and_than_a_chunk():
    single = make([3.0, 7.0], [0, 1], [1, 1], [0, 1])
    sums = n_step_sums(single, 0.9, 50, chunk_length=5)
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
    sums = n_step_sums(episodes, 0.9, n)
    for row in range(len(rows)):
        total, factor, position = brute_force(episodes, 0.9, n, row)
        assert sums.rewards[0, row] == pytest.approx(total, abs=1e-5)
        assert sums.discounts[0, row] == pytest.approx(factor, rel=1e-6)
        assert sums.weights[0, row] == (position is None or position > row)
        if position is not None:
            assert sums.bootstrap[row] == position


def test_monte_carlo_keeps_rows_far_from_the_cut_whether_finished_or_not():
    discount = 0.1  # a reward-to-go is complete after two steps
    assert completeness_horizon(discount) == 2
    episodes = make([0] * 6, [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(complete(episodes, discount), [1, 1, 1, 1, 0, 0])
    columns, _ = lay(episodes, discount=discount, whole_returns=True)
    np.testing.assert_array_equal(columns.weights[0], [1, 1, 1, 1, 0, 0])


def test_completeness_holds_finished_episodes_to_the_clock_of_the_cut_ones():
    # Cut after 5 steps: a row counts up to step 3. The finished episode's row 4 must not count, or survivors would.
    episodes = make([0] * 11, [1] * 10 + [0], [0] * 5 + [1] + [0] * 4 + [1], [0] * 5 + [1] + [0] * 5)
    np.testing.assert_array_equal(complete(episodes, 0.1), [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0])


def test_horizon_is_one_percent():
    assert completeness_horizon(0.99) == 459
    with pytest.raises(EvorError, match="below 1"):
        completeness_horizon(1.0)


def lay(episodes, **changes):
    options = {"discount": 0.9, "num_steps": 3, "chunk_length": 1, "next_action_known": True}
    options |= {"whole_returns": False, "standardise": True}
    return arrange.arrange(episodes, DataNeeds(**(options | changes)))[:2]


def random_episodes(seed=0, length=60):
    generator = np.random.default_rng(seed)
    ends = np.arange(3 * length) % length == length - 1
    return make(generator.normal(-5, 2, 3 * length), np.ones(3 * length), ends, ends)


def test_standardised_backup_is_the_backup_standardised():
    episodes = random_episodes()
    columns, scale = lay(episodes)
    raw = n_step_sums(episodes, 0.9, 3)
    z = 0.37
    mean, std = scale.return_mean[0], scale.return_std[0]
    expected = (raw.rewards[0] + raw.discounts[0] * (mean + std * z) - mean) / std
    np.testing.assert_allclose(columns.rewards[0] + columns.discounts[0] * z, expected, rtol=1e-4, atol=1e-4)


def test_standardisation_off_changes_nothing():
    episodes = random_episodes()
    columns, _ = lay(episodes, standardise=False)
    np.testing.assert_array_equal(columns.observations, episodes.observations)
    np.testing.assert_allclose(columns.rewards, n_step_sums(episodes, 0.9, 3).rewards, rtol=1e-6)


def test_standardisation_of_observations_and_returns():
    episodes = random_episodes(length=200)
    columns, scale = lay(episodes)
    np.testing.assert_allclose(columns.observations.std(axis=0), 1, rtol=1e-4)
    usable = complete(episodes, 0.9)
    np.testing.assert_allclose(scale.return_mean, reward_to_go(episodes, 0.9)[:, usable].mean(axis=1))


def test_constant_columns_and_flat_returns_stay_finite():
    episodes = make([0.0] * 30, [1] * 30, [0] * 29 + [1], [0] * 29 + [1])
    episodes = episodes._replace(observations=np.full((30, 2), 7.0, np.float32))
    columns, scale = lay(episodes)
    assert np.isfinite(columns.observations).all()
    assert (columns.observations == 0).all()
    assert scale.return_std[0] == 1


def test_short_episodes_are_standardised_by_the_mean_reward_continued():
    ends = np.arange(40) % 10 == 9
    episodes = make([-1.0] * 40, [1] * 40, ends, ends)
    assert not (complete(episodes, 0.99) & ~episodes.bootstrap_only).any()
    assert arrange.standardisation(facts(episodes, 0.99), 0.99, True).return_mean[0] == pytest.approx(-100, rel=1e-6)


def test_data_without_transitions_is_refused():
    with pytest.raises(EvorError, match="no transition"):
        lay(make([1.0], [1], [1], [1]))
    with pytest.raises(EvorError, match="policy-action"):
        lay(make([1.0, 0.0], [1, 1], [0, 1], [0, 1], action_known=[1, 0]))
    with pytest.raises(EvorError, match="bootstraps"):
        lay(make([1.0] * 9, [1] * 9, [0] * 8 + [1], [0] * 8 + [1]), whole_returns=True, discount=0.99)


def test_n_below_the_chunk_is_refused():
    with pytest.raises(EvorError, match="cover its chunk"):
        n_step_sums(TWO, 0.9, 2, chunk_length=5)


def test_sampled_chunks_stop_at_the_episode_end():
    columns, _ = lay(TWO, num_steps=3, chunk_length=3, standardise=False)
    columns = jax.tree.map(jnp.asarray, columns)
    batch, outcomes = sample(columns, jax.random.key(0), 200, 3)
    rows = np.asarray(batch.observation[:, 0]).astype(int)
    last = np.array([3, 3, 3, 3, 6, 6, 6])[rows]
    assert set(rows) <= {0, 1, 2, 4, 5, 6}
    expected = np.minimum(rows[:, None] + np.arange(3), last[:, None])
    np.testing.assert_allclose(batch.action, TWO.actions[expected, 0])
    np.testing.assert_array_equal(batch.action_mask, rows[:, None] + np.arange(3) <= last[:, None])
    assert outcomes.reward.shape == (1, 200)
