"""What an update may and may not touch, and that every field of the configuration does something."""

import dataclasses
import functools
import math
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import TINY, user_arrays
from evor.agents.base import Frozen
from evor.agents.evor import Evor
from evor.agents.fql import Fql
from evor.agents.next_action import BestAction, DatasetAction, PolicyAction
from evor.agents.registry import AGENTS
from evor.agents.scalar import Scalar
from evor.data.formats.npz import load_files
from evor.errors import EvorError
from evor.nn.ensemble import OneValue, SeveralValues
from evor.nn.flow import Euler
from evor.nn.learner import EmaValue, OnlineValue, Progress
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo, SampleBackup
from evor.policies.decision import Networks, act
from evor.runtime.records import replace
from evor.search.extraction import BestOf, Prior, SoftmaxOf, action_steps, in_steps_of
from evor.search.labels import search_settings as extraction_settings
from evor.search.readings import Quadrature, RandomSamples
from evor.training.config import RunConfig, to_json
from evor.training.data import prepare
from evor.training.update import initial_state, make_runner
from evor.types import Episodes, GivenBounds, NoBounds, Outcome, RewardBounds, Transition

AGENT = AGENTS[Evor]
UPDATE_HEAD = jax.jit(AGENT.head.update, static_argnames="config")
UPDATE_BASE = jax.jit(AGENT.base.update, static_argnames="config")
START = Progress(0, 1)


def unbounded(size):
    return {"return_min": jnp.full(size, -jnp.inf), "return_max": jnp.full(size, jnp.inf)}


def batch_of(key):
    """Eight transitions with three draws of the base policy stored for each."""
    return Transition(
        *(jax.random.uniform(key, (8, n)) for n in (3, 2)),
        action_mask=jnp.ones((8, 2)),
        next_observation=jnp.ones((8, 3)),
        next_action=jnp.ones((8, 2)),
        next_proposals=jax.random.uniform(jax.random.fold_in(key, 1), (8, 3, 2)),
    )


def _episodes() -> Episodes:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "mine.npz", **user_arrays())
        return load_files(Path(folder))


EPISODES = _episodes()
# A short discount makes rewards-to-go complete, so that MonteCarlo has rows to learn from.
SHORT = dataclasses.replace(TINY, discount=0.6)


@functools.cache
def runner(config: RunConfig):
    """Compiled once per config: `run(columns, count)` from the initial state, or from a step."""
    columns = jax.tree.map(jnp.asarray, prepare(config, EPISODES)[0])
    state, run = make_runner(config, columns, initial_state(config, EPISODES.spec))

    def from_the_start(columns, count, step=0):
        return run(jax.tree.map(jnp.copy, state)._replace(step=jnp.array(step)), columns, count)

    return state, from_the_start


def trained(episodes, config: RunConfig, count: int = 3):
    columns, scale = prepare(config, episodes)
    return runner(config)[1](jax.tree.map(jnp.asarray, columns), count), scale


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_the_policy_never_sees_a_reward():
    config = RunConfig(data="-", agent=TINY)
    other = EPISODES._replace(rewards=EPISODES.rewards * -7 + 3)
    one, two = trained(EPISODES, config)[0], trained(other, config)[0]
    assert same(one.base, two.base)
    assert not same(one.head, two.head)


@pytest.mark.parametrize(
    "next_action",
    [
        DatasetAction(),
        pytest.param(PolicyAction(), marks=pytest.mark.slow),
        pytest.param(BestAction(num_stored=0), marks=pytest.mark.slow),
        BestAction(3, num_stored=3),
    ],
)
def test_each_update_moves_the_network_it_is_given(next_action):
    """Neither is handed the other's network, so no gradient can pass between them."""
    config = dataclasses.replace(TINY, next_action=next_action)
    key = jax.random.key(0)
    policy = AGENT.base.init(config, EPISODES.spec, key=key)
    value = AGENT.head.init(config, EPISODES.spec, key=key)
    batch = batch_of(key)
    outcome = Outcome(
        reward=jnp.ones(8), discount=jnp.full(8, 0.9), weight=jnp.ones(8), reward_to_go=jnp.ones(8), **unbounded(8)
    )
    actions = AGENT.hand_over(policy, batch, config=config, key=key)
    new_value, _ = UPDATE_HEAD(value, batch, handed=actions, outcomes=outcome, config=config, progress=START, key=key)
    new_policy, _ = UPDATE_BASE(policy, batch, config=config, progress=START, key=key)
    assert isinstance(new_value, type(value))
    assert not same(new_value.learner.network, value.learner.network)
    assert not same(new_policy.network, policy.network)


def test_rows_of_weight_zero_teach_the_value_nothing():
    key = jax.random.key(0)
    value = AGENT.head.init(TINY, EPISODES.spec, key=key)
    batch = batch_of(key)
    weight = (jnp.arange(8) < 4).astype(jnp.float32)

    def update(reward):
        outcome = Outcome(reward=reward, discount=jnp.full(8, 0.9), weight=weight, reward_to_go=reward, **unbounded(8))
        return UPDATE_HEAD(
            value,
            batch,
            handed=batch.next_action[:, None],
            outcomes=outcome,
            config=TINY,
            progress=START,
            key=key,
        )[0]

    base = jnp.linspace(-1, 1, 8)
    assert same(update(base), update(base + 100 * (1 - weight)))
    assert not same(update(base), update(base + weight))


def test_masked_entries_of_a_chunk_teach_the_policy_nothing():
    config = dataclasses.replace(TINY, chunk_length=2)
    key = jax.random.key(0)
    policy = AGENT.base.init(config, EPISODES.spec, key=key)
    action = jax.random.uniform(key, (8, 4))
    mask = jnp.ones((8, 4)).at[:, 2:].set(0)

    def gradient_norm(scale):
        # Same noised point, other target: only the regression target of masked entries changes.
        from evor.agents.bc import policy_loss

        transition = Transition(
            observation=jnp.ones(3),
            action=action[0],
            action_mask=mask[0],
            next_observation=jnp.ones(3),
            next_action=action[0],
            next_proposals=action[:0],
        )
        moved = transition._replace(action=transition.action + scale * (1 - mask[0]))
        return policy_loss(policy.network, moved, jnp.zeros(4), jnp.array(0.0))

    assert gradient_norm(0.0) == gradient_norm(5.0)


def test_the_target_follows_the_value_at_its_rate():
    config = dataclasses.replace(TINY, target_rate=0.25)
    key = jax.random.key(0)
    value = AGENT.head.init(config, EPISODES.spec, key=key)
    batch = batch_of(key)
    new, _ = UPDATE_HEAD(
        value,
        batch,
        handed=batch.next_action[:, None],
        outcomes=Outcome(*jnp.ones((4, 8)), **unbounded(8)),
        config=config,
        progress=START,
        key=key,
    )
    for old, online, target in zip(*map(jax.tree.leaves, (value.target, new.learner.network, new.target)), strict=True):
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * online, rtol=1e-5, atol=1e-7)


def test_learning_rate_falls_linearly_over_the_run():
    """Adam's first step moves a weight by the learning rate, whatever its gradient."""
    config = RunConfig(data="-", agent=replace(TINY, final_learning_rate=1e-4), updates=10)
    columns = jax.tree.map(jnp.asarray, prepare(config, EPISODES)[0])
    state, run = runner(config)
    before = (state.base.network, state.head.learner.network)
    for step, rate in ((0, 3e-4), (5, 2e-4), (10, 1e-4)):
        moved = run(columns, 1, step)
        after = (moved.base.network, moved.head.learner.network)
        for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True):
            np.testing.assert_allclose(np.abs(new - old).max(), rate, rtol=0.02)


@pytest.mark.slow
def test_one_searched_candidate_is_the_policys_action():
    one, other = (
        trained(EPISODES, RunConfig(data="-", agent=dataclasses.replace(SHORT, next_action=next_action)))[0]
        for next_action in (BestAction(num_candidates=1, num_stored=0), PolicyAction())
    )
    for a, b in zip(jax.tree.leaves(one.head), jax.tree.leaves(other.head), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_search_in_targets_takes_the_action_of_highest_return():
    actions = jnp.array([[0.1, 0.0], [0.7, 0.0], [-0.4, 0.9]])

    def returns(*, action, noises, flow_steps):  # mean: the first entry; spread: the second
        return action[0] + action[1] * noises

    key = jax.random.key(0)
    assert BestAction().choose(returns, actions, flow_steps=10, key=key)[0] == pytest.approx(0.7)
    by_the_tail = BestAction(return_temperature=0.0, reading=Quadrature(8))
    assert by_the_tail.choose(returns, actions, flow_steps=10, key=key)[0] == pytest.approx(-0.4)


def test_a_temperature_of_targets_draws_by_the_softmax():
    actions = jnp.array([[0.1], [0.15], [-0.4]])

    def returns(*, action, noises, flow_steps):
        return action[0] + 0 * noises

    keys = jax.random.split(jax.random.key(0), 4000)
    for temperature, odds in ((0.1, np.exp([1.0, 1.5, -4.0])), (math.inf, np.ones(3))):
        choice = BestAction(action_temperature=temperature)
        drawn = np.asarray(
            jax.vmap(lambda key, c=choice: c.choose(returns, actions, flow_steps=10, key=key))(keys)[:, 0]
        )
        for action, chance in zip(actions[:, 0], odds / odds.sum(), strict=True):
            assert abs((drawn == action).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)


@pytest.mark.parametrize(("reading", "steps"), [(RandomSamples(1), 7), (RandomSamples(1, flow_steps=3), 3)])
def test_a_reading_without_steps_of_its_own_takes_those_of_an_action_in_targets_too(reading, steps):
    """The help says so; in targets it took one."""
    asked = []

    def returns(*, action, noises, flow_steps):
        asked.append(flow_steps)
        return action[0] + 0 * noises

    BestAction(reading=reading).choose(returns, jnp.zeros((2, 1)), flow_steps=7, key=jax.random.key(0))
    assert set(asked) == {steps}


def test_acting_value_chooses_the_network():
    state, _ = trained(EPISODES, RunConfig(data="-", agent=TINY), 5)
    policy = jax.tree.map(lambda leaf: leaf[0], state.base)
    value = jax.tree.map(lambda leaf: leaf[0, 0], state.head)
    online = AGENT.inference_networks(policy, value, config=dataclasses.replace(TINY, acting_value=OnlineValue()))[1]
    ema = AGENT.inference_networks(policy, value, config=dataclasses.replace(TINY, acting_value=EmaValue()))[1]
    assert same(online, value.learner.network)
    assert same(ema, value.target)
    assert not same(online, ema)


ALTERNATIVES = {
    "base": [Frozen()],
    "objective": [FlowTd(n_steps=50), FlowTd(z1=DatasetReturn()), MonteCarlo(), SampleBackup(n_steps=3)],
    "next_action": [
        PolicyAction(),
        BestAction(num_stored=0),
        BestAction(num_stored=0, reading=RandomSamples(1)),
        BestAction(num_stored=0, action_temperature=1.0),
    ],
    "acting_value": [OnlineValue()],
    "standardise_observations": [False],
    "standardise_returns": [False],
    "return_bounds": [NoBounds(), GivenBounds(highest=-3.0)],
    "hidden": [(8, 8)],
    "value_hidden": [(8, 8)],
    "return_frequencies": [4],
    "precision": ["bfloat16"],
    "batch_size": [16],
    "learning_rate": [1e-2],
    "max_gradient_norm": [1e-3],
    "final_learning_rate": [1.0],
    "values": [SeveralValues(), SeveralValues(pessimism=1.0)],
    "target_rate": [0.5],
    "discount": [0.5],
    "flow_steps": [3],
    "solver": [Euler()],
    "chunk_length": [2],
}


@functools.cache
def acting_arrays(agent):
    state, scale = trained(EPISODES, RunConfig(data="-", agent=agent), 4)
    policy = jax.tree.map(lambda leaf: leaf[0], state.base)
    values = jax.tree.map(lambda leaf: leaf[0, 0], state.head)
    return [
        np.asarray(leaf) for leaf in jax.tree.leaves((AGENT.inference_networks(policy, values, config=agent), scale))
    ]


def test_every_field_has_an_alternative_below():
    assert set(ALTERNATIVES) == set(to_json(Evor()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ALTERNATIVES.items() for value in values]
)
def test_no_configuration_field_is_dead(name, value):
    changed = replace(SHORT, **{name: value})
    one, other = acting_arrays(SHORT), acting_arrays(changed)
    assert len(one) != len(other) or not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("objective", "temperature"),
    [(SampleBackup(1), 1.0), (MonteCarlo(), 1.0), (FlowTd(20), math.inf), (FlowTd(1, DatasetReturn()), 1.0)],
)
def test_what_learns_no_distribution_acts_by_its_mean(objective, temperature):
    assert AGENT.default_search(Evor(objective)) == SoftmaxOf(return_temperature=temperature, flow_steps=10)


@pytest.mark.parametrize(("standardised", "temperature"), [(True, 0.03), (False, 1e-3)])
def test_the_baseline_chooses_at_the_temperature_of_evor(standardised, temperature):
    for config in (Evor(standardise_returns=standardised), Scalar(standardise_returns=standardised)):
        assert AGENTS[type(config)].default_search(config).action_temperature == temperature


@pytest.mark.parametrize("kind", [kind for kind in AGENTS if hasattr(kind(), "flow_steps") and kind is not Fql])
def test_an_agent_acts_in_the_flow_steps_of_its_config(kind):
    """They were 10 whatever the config said: of BC and IFQL, the setting changed nothing at all. FQL's actor takes one step."""
    agent, config = AGENTS[kind], replace(kind(), flow_steps=3)
    assert action_steps(agent.default_search(config)) == 3
    left_out = [in_steps_of(search, agent.default_search(config)) for search in (Prior(), BestOf(4), SoftmaxOf(4))]
    assert [action_steps(search) for search in left_out] == [3, 3, 3]


@pytest.mark.parametrize("objective", [FlowTd(), FlowTd(1, DatasetReturn())])
def test_what_flow_td_draws_is_no_return_and_has_no_bounds(objective):
    """Its draws lie one standard deviation around the expected return, however close that is to the largest."""
    assert AGENT.data_spec(Evor(objective)).return_bounds == NoBounds()
    assert AGENT.data_spec(Evor()).return_bounds == RewardBounds()
    with pytest.raises(EvorError, match=r"do not go with FlowTd, whose draws lie around the expected return"):
        Evor(objective, return_bounds=GivenBounds(highest=0.0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(SoftmaxOf(), SoftmaxOf(8), marks=pytest.mark.slow),
        (SoftmaxOf(), SoftmaxOf(return_temperature=0.01)),
        (SoftmaxOf(), SoftmaxOf(action_temperature=100.0)),
        pytest.param(SoftmaxOf(), SoftmaxOf(flow_steps=2), marks=pytest.mark.slow),
        (SoftmaxOf(), SoftmaxOf(reading=Quadrature(flow_steps=1))),
        (SoftmaxOf(), SoftmaxOf(reading=RandomSamples(1))),
        pytest.param(SoftmaxOf(), SoftmaxOf(reading=Quadrature(1)), marks=pytest.mark.slow),
        (BestOf(), BestOf(return_temperature=0.0)),
        pytest.param(BestOf(), BestOf(2), marks=pytest.mark.slow),
        pytest.param(Prior(), Prior(flow_steps=1), marks=pytest.mark.slow),
    ],
)
def test_no_dial_of_the_search_is_dead(one, other):
    state, scale = trained(EPISODES, RunConfig(data="-", agent=TINY), 200)
    policy = jax.tree.map(lambda leaf: leaf[0], state.base)
    values = jax.tree.map(lambda leaf: leaf[0, 0], state.head)
    scale = scale._replace(return_mean=scale.return_mean[0], return_std=scale.return_std[0])
    networks = jax.tree.map(jnp.asarray, Networks(*AGENT.inference_networks(policy, values, config=TINY), scale))
    observations = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(64))
    assert not np.array_equal(*(act(TINY, networks, setting, observations, keys) for setting in (one, other)))
    assert extraction_settings(one) != extraction_settings(other)


@pytest.mark.slow
def test_several_values_keep_the_spread_of_the_distribution():
    """At one noise they combine as numbers do; with two, pessimism 1 is the minimum."""
    key, spec = jax.random.key(0), EPISODES.spec
    observation, action, noises = jnp.ones(spec.observation_dim), jnp.ones(spec.action_dim), jnp.linspace(-2, 2, 9)
    one = replace(TINY, values=OneValue())

    def read(config, network):
        return AGENT.returns(network, observation, action=action, noises=noises, config=config, flow_steps=10)

    stacked = AGENT.head.init(replace(TINY, values=SeveralValues()), spec, key=key).target
    each = [read(one, jax.tree.map(lambda leaf, i=i: leaf[i], stacked)) for i in (0, 1)]
    assert not np.allclose(*each)
    for pessimism, wanted in ((0.0, sum(each) / 2), (1.0, jnp.minimum(*each))):
        config = replace(TINY, values=SeveralValues(pessimism=pessimism))
        np.testing.assert_allclose(read(config, stacked), wanted, atol=1e-5)
    assert np.ptp(read(replace(TINY, values=SeveralValues()), stacked)) > 0.5 * min(map(np.ptp, each))


def test_one_of_several_equal_values_learns_as_one_alone():
    """Equal networks get equal targets, and Adam takes no notice of the scale of a loss."""
    key, spec = jax.random.key(0), EPISODES.spec
    batch, outcome = batch_of(key), Outcome(*jax.random.normal(key, (4, 8)), **unbounded(8))
    alone = AGENT.head.init(TINY, spec, key=key)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), alone.target)

    def updated(config, network):
        value, _ = UPDATE_HEAD(
            type(alone)(network),
            batch,
            handed=batch.next_action[:, None],
            outcomes=outcome._replace(weight=jnp.ones(8)),
            config=config,
            progress=START,
            key=key,
        )
        return value.target

    one = updated(TINY, alone.target)
    both = updated(replace(TINY, values=SeveralValues()), several)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(b[0], a, atol=2e-6)
        np.testing.assert_allclose(b[1], a, atol=2e-6)
