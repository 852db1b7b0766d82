"""Guided decisions of policies: what moves, what stays, and who is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evor
from conftest import user_arrays
from evor.agents.registry import AGENTS
from evor.errors import EvorError
from evor.nn.ensemble import SeveralValues
from evor.nn.learner import Learning
from evor.policies import decision
from evor.policies.inputs import keys_of
from evor.search.extraction import keys_of_decision
from evor.search.guidance import ascend, direction

OBSERVATIONS = np.random.default_rng(0).uniform(0, 20, (6, 2)).astype(np.float32)
SEARCHES = [
    evor.Guided(3, weight=0.5),
    evor.Guided(2, return_temperature=0.5, reading=evor.RandomSamples(7), flow_steps=4),
    evor.Guided(3, weight=0.2, guidance=evor.AfterChoice(2)),
]


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, 1, seed=0)


def mean_of(policy, observation):
    """The value's velocity at noise 0 and time 0, as the formulas have it."""
    networks = policy._networks
    scale = networks.standardisation
    standard = (observation - scale.observation_mean) / scale.observation_std

    def mean(action):
        return networks.value(jnp.concatenate([standard, action]), jnp.zeros(1), jnp.float32(0))[0]

    return mean, standard


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences(policy):
    mean, _ = mean_of(policy, OBSERVATIONS[1])
    read = functools.partial(decision._mean, policy.config, policy._frozen, mean_of(policy, OBSERVATIONS[1])[1])
    for action in np.random.default_rng(1).uniform(-0.9, 0.9, (5, 2)).astype(np.float32):
        assert read(jnp.asarray(action)) == pytest.approx(float(mean(action)), rel=1e-5)
        steps = 0.02 * np.eye(2, dtype=np.float32)
        differences = (
            np.array(
                [float(read(jnp.asarray(action + step))) - float(read(jnp.asarray(action - step))) for step in steps]
            )
            / 0.04
        )
        np.testing.assert_allclose(jax.grad(read)(jnp.asarray(action)), differences, rtol=0.02, atol=2e-3)


@pytest.mark.slow
def test_candidates_inside_the_flow_are_the_formula_s(policy):
    search, seed = evor.Guided(3, weight=0.5), 5
    decided = policy.decide(OBSERVATIONS[1], seed, extraction=search)
    mean, standard = mean_of(policy, OBSERVATIONS[1])
    (key,) = keys_of(np.array([seed], np.uint32))
    for index, candidate in enumerate(decided.candidates):
        action = jax.random.normal(jax.random.fold_in(keys_of_decision(key).propose, index), (2,))
        for step in range(10):
            time = jnp.float32(step / 10)
            velocity = policy._networks.policy(standard, action, time)
            gradient = jax.grad(mean)(jnp.clip(action + (1 - time) * velocity, -1, 1))
            action = action + (velocity + 0.5 * gradient / jnp.sqrt(jnp.mean(gradient**2))) / 10
        np.testing.assert_allclose(candidate, np.clip(action, -1, 1), atol=1e-4)
    np.testing.assert_array_equal(decided.action, decided.candidates[decided.index])
    assert decided.index == np.argmax(decided.scores)
    values = policy.value(
        np.repeat(OBSERVATIONS[1:2], 3, 0), decided.candidates, return_temperature=np.inf, num_nodes=10, flow_steps=2
    )
    np.testing.assert_allclose(decided.scores, values, rtol=1e-5)


@pytest.mark.slow
def test_after_the_choice_only_the_action_moves(policy):
    search = evor.Guided(3, weight=0.2, guidance=evor.AfterChoice(2))
    decided, plain = (policy.decide(OBSERVATIONS, 5, extraction=each) for each in (search, search.unguided))
    for name in ("index", "candidates", "scores"):
        np.testing.assert_allclose(getattr(decided, name), getattr(plain, name), rtol=1e-5, atol=1e-5)
    for observation, before, after in zip(OBSERVATIONS, plain.action, decided.action, strict=True):
        mean, _ = mean_of(policy, observation)
        np.testing.assert_allclose(ascend(mean, jnp.asarray(before), weight=0.2, steps=2), after, atol=1e-4)
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("guidance", [evor.InsideFlow(), evor.AfterChoice(3)], ids=repr)
def test_guidance_raises_the_mean(policy, guidance):
    guided = evor.Guided(1, weight=0.1, guidance=guidance)
    read = functools.partial(policy.value, OBSERVATIONS, return_temperature=np.inf)
    before, after = (read(policy.act(OBSERVATIONS, 3, extraction=each)) for each in (evor.Prior(), guided))
    assert (after > before).all()


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_weight_zero_is_the_unguided_search_bit_for_bit(policy, search):
    guided = policy.decide(OBSERVATIONS, 3, extraction=dataclasses.replace(search, weight=0))
    plain = policy.decide(OBSERVATIONS, 3, extraction=search.unguided)
    for name in ("action", "index", "candidates", "scores"):
        np.testing.assert_array_equal(getattr(guided, name), getattr(plain, name))
    np.testing.assert_array_equal(
        policy.act(OBSERVATIONS, 3, extraction=dataclasses.replace(search, weight=0)), plain.action
    )


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_a_traced_weight_of_zero_moves_nothing(policy, search):
    """Inside a compiled decision, where a weight can't be told from another."""
    keys = keys_of(np.arange(6, dtype=np.uint32))
    guided, plain = (
        decision.act(policy.config, policy._frozen, each, OBSERVATIONS, keys)
        for each in (dataclasses.replace(search, weight=0), search.unguided)
    )
    np.testing.assert_allclose(guided, plain, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_a_row_gets_what_it_would_get_alone(policy, search):
    seeds = np.arange(6)
    together = policy.act(OBSERVATIONS, seeds, extraction=search)
    alone = [policy.act(row, seed, extraction=search) for row, seed in zip(OBSERVATIONS, seeds, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    decided = policy.decide(OBSERVATIONS, seeds, extraction=search)
    np.testing.assert_allclose(decided.action, together, atol=1e-6)
    chosen = policy.choose(OBSERVATIONS, decided.candidates, seed=seeds, extraction=search)
    np.testing.assert_array_equal(chosen.index, decided.index)
    np.testing.assert_allclose(chosen.scores, decided.scores, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_of_the_value_before_it_is_clipped(policy):
    """Bounds below every return make all scores equal; guidance goes on."""
    networks = policy._frozen
    scale = networks.standardisation
    bounded = networks._replace(standardisation=scale._replace(return_max=scale.return_mean - 1000 * scale.return_std))
    keys = keys_of(np.arange(6, dtype=np.uint32))
    one = evor.Guided(1, weight=0.5)
    free, held = (decision.decide(policy.config, each, one, OBSERVATIONS, keys) for each in (networks, bounded))
    np.testing.assert_allclose(free.action, held.action, atol=1e-6)
    assert not np.allclose(held.action, decision.act(policy.config, bounded, one.unguided, OBSERVATIONS, keys))
    np.testing.assert_allclose(held.scores, -1000, rtol=1e-5)


def test_another_weight_compiles_nothing_anew(policy):
    search, before = evor.Guided(2, flow_steps=3), decision.act._cache_size()
    for weight in (0.1, np.float32(0.5), 3):
        policy.act(OBSERVATIONS[0], 0, extraction=dataclasses.replace(search, weight=weight, return_temperature=weight))
    assert decision.act._cache_size() == before + 1
    policy.act(OBSERVATIONS[0], 0, extraction=dataclasses.replace(search, guidance=evor.AfterChoice()))
    assert decision.act._cache_size() == before + 2


@pytest.mark.slow
def test_chunks_are_moved_as_one_action(chunky):
    observation = np.zeros(2, np.float32)
    for guidance in (evor.InsideFlow(), evor.AfterChoice()):
        search = evor.Guided(2, weight=0.2, guidance=guidance)
        assert chunky.act(observation, 1, extraction=search).shape == (3, 2)
    plain = chunky.decide(observation, 1, extraction=search.unguided)
    guided = chunky.decide(observation, 1, extraction=search)
    moved = (guided.action - plain.action).ravel()
    inside = np.abs(guided.action.ravel()) < 1
    mean, _ = mean_of(chunky, observation)
    np.testing.assert_allclose(
        moved[inside], 0.2 * direction(mean, jnp.asarray(plain.action.ravel()))[inside], atol=1e-5
    )


def test_a_control_loop_can_be_guided(policy):
    controller = evor.Controller(policy, extraction=evor.Guided(2), seed=4)
    actions = [controller.act(observation) for observation in OBSERVATIONS[:2]]
    assert np.shape(actions) == (2, 2)


OTHERS = [
    evor.preset("scalar"),
    evor.preset("qc-5"),
    evor.Evor(values=SeveralValues(pessimism=1.0)),
    *(pytest.param(evor.preset(name), marks=pytest.mark.slow) for name in ("ifql", "value-flows")),
]


@pytest.mark.slow
@pytest.mark.parametrize("config", OTHERS, ids=lambda config: type(config).__name__)
def test_other_values_guide_too(config):
    """Scalar critics, an ensemble of them, and return networks whose minimum is read."""
    from evor.data.standardisation import Standardisation
    from evor.policies.policy import Policy
    from evor.types import Spec

    config = dataclasses.replace(config, learning=Learning(hidden=(8, 8)), chunk_length=1)
    agent, spec = AGENTS[type(config)], Spec(observation_dim=3, action_dim=2)
    base, head = (part.init(config, spec, key=jax.random.key(i)) for i, part in enumerate((agent.base, agent.head)))
    units = Standardisation(np.zeros(3, np.float32), np.ones(3, np.float32), *np.float32([0, 1, -np.inf, np.inf]))
    networks = decision.Networks(*agent.inference_networks(base, head, config=config), units)
    policy = Policy(config, spec, networks=networks, origin={})
    observations = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    guided = evor.Guided(1, weight=0.1)
    # Networks that nothing trained: the mean that guides is what they say at noise 0, and no average over noises.
    before, after = (
        policy.value(observations, policy.act(observations, 3, extraction=each), num_nodes=1, flow_steps=1)
        for each in (evor.Prior(), guided)
    )
    assert (after > before).all()


def test_what_can_not_be_guided_is_refused(tmp_path):
    agent = evor.Bc(learning=Learning(hidden=(8,), batch_size=8))
    policy = evor.train(user_arrays(), out=tmp_path / "run", updates=1, agent=agent).policy()
    with pytest.raises(EvorError, match=r"a Bc policy has no value to score actions with"):
        policy.act(np.zeros(3), extraction=evor.Guided())
