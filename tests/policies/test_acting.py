"""Seeds and batches of `act`, `value`, `returns` and `quantiles`, and whose arrays they give."""

import copy
import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evor
from evor.errors import EvorError
from evor.nn import batching
from evor.policies.decision import act, read_returns

OBSERVATIONS = np.array([[0.0, 0.0], [4.0, 1.0], [12.0, 16.0], [20.0, 20.0]], np.float32)


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, task=4, seed=1)


def test_without_a_seed_every_call_and_row_draws_anew(tiny_run):
    """Rows are numbered from 0 at every load, and a row's number is its seed, whatever else is asked in between."""

    def play():
        policy = evor.load(tiny_run, task=4, seed=1)
        calls = [policy.act(OBSERVATIONS[0], extraction=evor.Prior())]
        policy.act(OBSERVATIONS, 7)
        policy.warm_up([2], evor.Prior())
        calls += [policy.act(OBSERVATIONS[:0]), policy.act(OBSERVATIONS[[0, 0, 0]], extraction=evor.Prior())]
        return policy, np.vstack([*calls, policy.act(OBSERVATIONS[0], extraction=evor.Prior())])

    policy, drawn = play()
    assert drawn.shape == (5, 2)
    assert len(np.unique(drawn, axis=0)) == 5
    np.testing.assert_array_equal(play()[1], drawn)
    numbered = policy.act(OBSERVATIONS[[0] * 5], np.arange(5), extraction=evor.Prior())
    np.testing.assert_allclose(drawn, numbered, atol=1e-5)


def test_threads_share_the_numbers_of_rows(policy):
    fresh = copy.deepcopy(policy)
    fresh._decided = 0
    with ThreadPoolExecutor(8) as pool:
        seeds = np.concatenate(list(pool.map(fresh._fresh_seeds, [1, 2, 3] * 200)))
    assert sorted(seeds) == list(range(1200))


@pytest.mark.parametrize(
    ("seed", "plain"),
    [
        *(
            (kind(3), 3)
            for kind in (np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.array, jnp.asarray)
        ),
        (2**32 + 3, 3),
        (np.uint64(2**63 + 3), 3),
        (2**64 + 3, 3),
        *((np.array([3, 5], kind), [3, 5]) for kind in (np.uint8, np.int32, np.uint32)),
        (jnp.array([3, 5]), [3, 5]),
        ([2**64 + 3, 5], [3, 5]),
    ],
)
def test_seeds_of_any_type_and_size(policy, seed, plain):
    act = functools.partial(policy.act, OBSERVATIONS[:2], extraction=evor.Prior())
    np.testing.assert_array_equal(act(seed), act(plain))
    if np.ndim(plain) == 0:
        returns = functools.partial(policy.returns, OBSERVATIONS[0], OBSERVATIONS[0], num_samples=3)
        np.testing.assert_array_equal(returns(seed=seed), returns(seed=plain))


@pytest.mark.slow
def test_results_are_the_caller_s_own(policy):
    for observations in (OBSERVATIONS[0], OBSERVATIONS[:3]):
        actions = policy.act(observations, 0)
        reads = [
            functools.partial(policy.returns, observations, actions.copy(), num_samples=3),
            functools.partial(policy.quantiles, observations, actions.copy(), num_nodes=3),
        ]
        if observations.ndim == 2:  # a single value is a number
            reads.append(functools.partial(policy.value, observations, actions.copy()))
        for call in (functools.partial(policy.act, observations, 0), *reads):
            array = call()
            before = array.copy()
            assert array.dtype == np.float32
            array *= 0
            np.testing.assert_array_equal(call(), before)


def test_no_rows_give_no_rows(policy):
    none = OBSERVATIONS[:0]
    assert policy.act(none).shape == policy.act(none, np.arange(0), extraction=evor.Prior()).shape == (0, 2)
    assert policy.value(none, none).shape == (0,)
    assert policy.returns(none, none, num_samples=7).shape == policy.quantiles(none, none, num_nodes=7).shape == (0, 7)


def test_batches_are_padded_to_powers_of_two(policy):
    """Each size is compiled once, and a row gets what it gets in any other batch."""
    observations = np.random.default_rng(0).uniform(0, 20, (9, 2)).astype(np.float32)
    search, steps, rows = evor.Prior(flow_steps=3), 3, []  # of this test alone
    before = act._cache_size(), read_returns._cache_size()
    for size in range(1, 10):
        actions = policy.act(observations[:size], np.arange(size), extraction=search)
        rows.append(actions[-1])
        np.testing.assert_allclose(actions, rows, atol=1e-5)
        last = policy.quantiles(observations[size - 1], actions[-1], num_nodes=3, flow_steps=steps)
        np.testing.assert_allclose(
            policy.quantiles(observations[:size], actions, num_nodes=3, flow_steps=steps)[-1], last, rtol=1e-4
        )
    assert (act._cache_size() - before[0], read_returns._cache_size() - before[1]) == (5, 5)


@pytest.mark.parametrize("rows", [1, batching.BLOCK_ROWS // 3, batching.BLOCK_ROWS])
def test_padding_is_left_out_block_by_block(rows):
    """A CPU takes 8, 3 and 1 entries at a time here; what it need not compute stays 0."""
    numbers = jnp.arange(1.0, 9)

    @jax.jit
    def squares(numbers, count):
        return batching.each_example(lambda a, b: (a * b, -a), numbers, numbers, rows=rows, count=count)

    for count in (1, 3, 4, 7, 8):
        results = squares(numbers, count)
        np.testing.assert_array_equal(results[0][:count], numbers[:count] ** 2)
        np.testing.assert_array_equal(results[1][:count], -numbers[:count])
    if rows == batching.BLOCK_ROWS and batching.on_cpu():
        np.testing.assert_array_equal(squares(numbers, 3)[0], [1, 4, 9, 0, 0, 0, 0, 0])


def test_warming_up_compiles_what_acting_needs(policy):
    search, before = evor.BestOf(2, flow_steps=3), act._cache_size()
    seconds = policy.warm_up((1, np.int64(3)), search)
    assert list(seconds) == [1, 3]
    assert min(seconds.values()) > 0
    assert act._cache_size() - before == 2
    for size in (1, 3, 4):
        policy.act(OBSERVATIONS[:size], extraction=dataclasses.replace(search, return_temperature=np.float32(size)))
    assert act._cache_size() - before == 2
    with pytest.raises(EvorError, match=r"batch_size is 0; it must be at least 1"):
        policy.warm_up([0])
    with pytest.raises(EvorError, match=r"batch_sizes is 8; give a list"):
        policy.warm_up(8)
