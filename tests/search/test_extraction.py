"""The limits that search must have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.errors import EvorError
from evor.rollouts.evaluate import file_name
from evor.runtime.arguments import count
from evor.search.extraction import (
    BestOf,
    Prior,
    SoftmaxOf,
    keys_of_decision,
    propose,
    return_steps,
    score,
    select,
    work,
)
from evor.search.labels import search_settings
from evor.search.readings import Quadrature, RandomSamples


def draw(key):
    return jax.random.uniform(key, (2,), minval=-1, maxval=1)


def returns(action, noises):
    """A law whose mean is the first coordinate, and whose spread is the second."""
    return action[0] + (1 + action[1]) * noises


def choose(extraction, draw, returns, key):
    """The three steps of a decision."""
    keys = keys_of_decision(key)
    actions = propose(draw, extraction.num_candidates, key=keys.propose)
    if isinstance(extraction, Prior):
        return actions[0]
    scores = score(extraction.reading, extraction.return_temperature, actions=actions, returns=returns, key=keys.score)
    return actions[select(extraction, scores, key=keys.select)]


@jax.jit
def pick(extraction, seed=0):
    return choose(extraction, draw, returns, jax.random.key(seed))


@pytest.mark.parametrize(
    "extraction",
    [SoftmaxOf(1), BestOf(1), SoftmaxOf(1, action_temperature=0.0)],
)
def test_one_candidate_is_the_base_policy(extraction):
    for seed in range(5):
        assert (pick(extraction, seed) == pick(Prior(), seed)).all()


def test_infinite_action_temperature_is_the_base_policy():
    # Uniform over candidates that are base-policy draws: any of them, and equally often.
    extraction = SoftmaxOf(4, action_temperature=jnp.inf)
    four = jax.jit(lambda seed: propose(draw, 4, key=jax.random.fold_in(jax.random.key(seed), 0)))
    chosen = []
    for seed in range(400):
        actions = four(seed)
        chosen.append(int(np.flatnonzero((np.asarray(actions) == np.asarray(pick(extraction, seed))).all(axis=1))[0]))
    counts = np.bincount(chosen, minlength=4)
    assert counts.min() > 60  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_small_action_temperature_is_the_argmax(temperature):
    for seed in range(10):
        assert (
            pick(SoftmaxOf(16, return_temperature=1.0, action_temperature=temperature), seed)
            == pick(BestOf(16, return_temperature=1.0), seed)
        ).all()


@pytest.mark.parametrize(
    ("temperature", "read"),
    [(jnp.inf, jnp.dot), (1e8, jnp.dot), (0.0, lambda z, w: z.max()), (1e-7, lambda z, w: z.max())],
)
def test_return_temperature_limits_rank_by_mean_and_by_maximum(temperature, read):
    reading = Quadrature(8)
    for seed in range(10):
        key = jax.random.key(seed)
        actions = propose(draw, 16, key=jax.random.fold_in(key, 0))
        nodes = reading.nodes(key, temperature)
        scores = [read(returns(a, nodes.noises), nodes.weights) for a in actions]
        assert (
            pick(BestOf(16, return_temperature=temperature, reading=reading), seed) == actions[int(np.argmax(scores))]
        ).all()


def test_softmax_draws_with_the_right_odds():
    # Two candidates whose Q* differ by a known gap.
    gap, temperature, reading = 0.5, 0.7, Quadrature(1)

    def two(key):
        first = jax.random.key_data(key)[1] % 2 == 0
        return jnp.where(first, jnp.zeros(1), jnp.full(1, gap))

    def choice(seed):
        return choose(
            SoftmaxOf(2, return_temperature=jnp.inf, action_temperature=temperature, reading=reading),
            two,
            lambda a, z: a[0] + 0 * z,
            jax.random.key(seed),
        )

    pairs = jax.vmap(lambda s: propose(two, 2, key=jax.random.fold_in(jax.random.key(s), 0)))(jnp.arange(3000))
    mixed = np.asarray(pairs[:, 0, 0] != pairs[:, 1, 0])
    picked = np.asarray(jax.vmap(choice)(jnp.arange(3000)))[mixed, 0] > 0
    expected = 1 / (1 + np.exp(-gap / temperature))
    assert picked.mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / mixed.sum()))


def test_random_samples_are_shared_between_candidates():
    # Identical candidates must tie exactly, or noise would rank them.
    same = jnp.tile(jnp.array([[0.1, 0.2]]), (6, 1))
    scores = score(RandomSamples(5), 1.0, actions=same, returns=returns, key=jax.random.key(3))
    assert (scores == scores[0]).all()


def test_more_candidates_keep_the_first_ones():
    key = jax.random.key(5)
    np.testing.assert_array_equal(propose(draw, 32, key=key)[:8], propose(draw, 8, key=key))


@pytest.mark.parametrize(
    "extraction", [BestOf(), SoftmaxOf(), SoftmaxOf(action_temperature=1.0), SoftmaxOf(action_temperature=np.inf)]
)
@pytest.mark.parametrize("number", [1, 3, 5])
def test_padding_is_never_selected_and_changes_nothing(extraction, number):
    """Padding has the highest scores."""
    for seed in range(20):
        key = jax.random.key(seed)
        scores = jax.random.normal(jax.random.fold_in(key, 9), (number,))
        padded = jnp.concatenate([scores, jnp.full(8 - number, 10.0)])
        assert select(extraction, padded, key=key, count=number) == select(extraction, scores, key=key)


def test_temperatures_do_not_recompile():
    traces = []

    @jax.jit
    def act(extraction, key):
        traces.append(extraction)
        return choose(extraction, draw, returns, key)

    for temperature in (0.0, 0.1, 1.0, float("inf")):
        act(
            SoftmaxOf(4, return_temperature=temperature, action_temperature=temperature),
            jax.random.key(0),
        )
    assert len(traces) == 1
    act(SoftmaxOf(8), jax.random.key(0))
    assert len(traces) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftmaxOf(0),
        lambda: BestOf(-1),
        lambda: SoftmaxOf(return_temperature=-1.0),
        lambda: SoftmaxOf(action_temperature=float("nan")),
        lambda: Prior(flow_steps=0),
        lambda: SoftmaxOf("4"),
        lambda: BestOf(2.5),
        lambda: SoftmaxOf(reading=8),
        lambda: SoftmaxOf(return_temperature=np.float32(-1)),
        lambda: SoftmaxOf(return_temperature=np.int64(-1)),
        lambda: SoftmaxOf(action_temperature=np.float32("nan")),
        lambda: BestOf(return_temperature=jnp.float32(-1)),
        lambda: SoftmaxOf(return_temperature="1"),
        lambda: SoftmaxOf(return_temperature=np.array("1")),
        lambda: SoftmaxOf(return_temperature=None),
        lambda: SoftmaxOf(return_temperature=[1.0]),
        lambda: SoftmaxOf(return_temperature=1j),
        lambda: SoftmaxOf(return_temperature=10**400),
        lambda: SoftmaxOf(np.float32(4)),
        lambda: SoftmaxOf(None),
        lambda: BestOf(np.array([4])),
        lambda: BestOf(reading=None),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(EvorError, match=r"must be|give Quadrature"):
        make()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.array, jnp.asarray, jnp.bfloat16, float])
def test_settings_are_plain_numbers_whatever_they_were_given_as(kind):
    search = SoftmaxOf(
        kind(8).astype(int) if hasattr(kind(8), "astype") else 8,
        return_temperature=kind(0.5),
        action_temperature=kind(0.25),
    )
    assert search == SoftmaxOf(8, return_temperature=0.5, action_temperature=0.25)
    assert [type(value) for value in search_settings(search).values()] == [str, int, float, float, str, int, *[str] * 4]
    assert jax.tree.leaves(search) == [0.5, 0.25]


@pytest.mark.parametrize("kind", [int, np.uint8, np.int64, np.array, jnp.asarray])
def test_counts_are_ints_whatever_they_were_given_as(kind):
    assert type(count(1, num_nodes=kind(5))) is int
    with pytest.raises(EvorError, match="num_nodes is 0; it must be at least 1, a whole number"):
        count(1, num_nodes=kind(0))


def test_a_short_float_keeps_its_name():
    assert file_name(SoftmaxOf(np.uint8(4), *np.array([0.1, 0.3], np.float32))) == file_name(
        SoftmaxOf(4, return_temperature=0.1, action_temperature=0.3)
    )
    assert np.float32(SoftmaxOf(4, return_temperature=np.float32(1) / 3).return_temperature) == np.float32(1) / 3


def test_equal_settings_compile_once():
    traces = []

    @jax.jit
    def act(extraction, key):
        traces.append(extraction)
        return choose(extraction, draw, returns, key)

    for number in (1.0, 1, np.float32(1), np.int64(1), np.array(1.0), jnp.float32(1)):
        act(
            SoftmaxOf(np.int64(4), return_temperature=number, action_temperature=number),
            jax.random.key(0),
        )
    assert len(traces) == 1


def test_settings_may_be_traced():
    """In a user's own compiled decision."""

    @jax.jit
    def act(temperature):
        return choose(
            SoftmaxOf(4, return_temperature=temperature, action_temperature=temperature),
            draw,
            returns,
            jax.random.key(0),
        )

    assert (act(0.5) == pick(SoftmaxOf(4, return_temperature=0.5, action_temperature=0.5))).all()
    assert (
        jax.tree.map(str, BestOf(4, return_temperature=0.5)).return_temperature == "0.5"
    )  # JAX fills leaves with anything


def test_a_reading_may_have_solver_steps_of_its_own():
    """They change what is read and not what is drawn; with None, they are those of the search."""
    few = SoftmaxOf(4, reading=Quadrature(4, flow_steps=2))
    assert (return_steps(few), return_steps(SoftmaxOf(4, reading=Quadrature(flow_steps=None), flow_steps=7))) == (2, 7)
    assert work(few) == 4 * 10 + 4 * 4 * 2
    assert search_settings(few)["reading"] == "Quadrature-4-2"
    assert search_settings(SoftmaxOf(4))["reading"] == "Quadrature-10-2"
    with pytest.raises(EvorError, match="flow_steps is 0"):
        Quadrature(4, flow_steps=0)
