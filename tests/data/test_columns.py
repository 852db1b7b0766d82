"""Columns and what is drawn from them, against rows written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from episodes import TWO, lay, make
from evor.data.sampler import sample
from evor.errors import EvorError


def test_rows_without_a_complete_return_have_no_weight_where_it_is_asked_for():
    episodes = make([0] * 6, [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1])
    columns, *_ = lay(episodes, discount=0.1, full_returns=True)  # complete after two steps
    np.testing.assert_array_equal(columns.weights[0], [1, 1, 1, 1, 0, 0])
    assert lay(episodes, discount=0.1).columns.rewards_to_go is None


def test_data_without_transitions_is_refused():
    with pytest.raises(EvorError, match="no transition"):
        lay(make([1.0], [1], [1], [1]))
    with pytest.raises(EvorError, match="policy-action"):
        lay(make([1.0, 0.0], [1, 1], [0, 1], [0, 1], action_known=[1, 0]))
    with pytest.raises(EvorError, match="bootstraps"):
        lay(make([1.0] * 9, [1] * 9, [0] * 8 + [1], [0] * 8 + [1]), full_returns=True, discount=0.99)


def test_sampled_chunks_stop_at_the_episode_end():
    columns, *_ = lay(TWO, chunk_length=3, standardise_observations=False, standardise_returns=False)
    columns = jax.tree.map(jnp.asarray, columns)
    batch, outcomes = sample(columns, jax.random.key(0), batch_size=200, chunk_length=3)
    rows = np.asarray(batch.observation[:, 0]).astype(int)
    last = np.array([3, 3, 3, 3, 6, 6, 6])[rows]
    assert set(rows) <= {0, 1, 2, 4, 5, 6}
    expected = np.minimum(rows[:, None] + np.arange(3), last[:, None])
    np.testing.assert_allclose(batch.action, TWO.actions[expected, 0])
    np.testing.assert_array_equal(batch.action_mask, rows[:, None] + np.arange(3) <= last[:, None])
    assert outcomes.reward.shape == (1, 200)
