"""BC, QC and EVOR's scalar twin: losses against plain numpy, limits against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import TINY, learned, user_arrays
from equations import arrays, numpy_mlp
from evor.agents import qc
from evor.agents.bc import Bc, init_policy, policy_loss
from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.agents.qc import Qc
from evor.agents.registry import AGENTS, PRESETS, AgentConfig
from evor.agents.scalar import Scalar
from evor.errors import EvorError
from evor.experiments.verify.problems import corridor, fork, write
from evor.nn.critics import each_value
from evor.nn.learner import Progress
from evor.policies.load import load
from evor.runtime.files import write_npz
from evor.runtime.records import replace
from evor.search.extraction import BestOf, Prior
from evor.training.config import RunConfig, from_json, to_json
from evor.training.train import train
from evor.types import Spec

UPDATE_CRITICS = jax.jit(qc.update_value, static_argnames="config")
SMALL = {"hidden": (32, 32), "learning_rate": 3e-3, "final_learning_rate": 0.0, "batch_size": 64}


def test_the_critics_loss_is_the_one_of_the_equations():
    config = replace(Qc(), hidden=(8, 8), chunk_length=2)
    transition, outcome, candidates = arrays(0)
    value = qc.init_value(config, Spec(3, 2), key=jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf * 1.3 + 0.1, value.target)
    value = eqx.tree_at(lambda v: v.target, value, moved)
    online = value.learner.network

    plain, rewards, discounts = jax.tree.map(np.asarray, (transition, outcome.reward, outcome.discount))

    def q(critics, observations, actions):
        inputs = np.concatenate([observations, actions], -1).astype(np.float64)
        return np.stack([numpy_mlp(critics, i, inputs)[..., 0] for i in range(2)])

    proposed = np.asarray(candidates)
    scores = np.stack([q(online, plain.next_observation, proposed[:, c]).mean(0) for c in range(5)], 1)
    best = proposed[np.arange(6), scores.argmax(1)]
    target = rewards + discounts * q(moved, plain.next_observation, best).mean(0)
    errors = ((q(online, plain.observation, plain.action) - target) ** 2).mean(0)
    _, metrics = updated_critics(value, transition, candidates, outcome, rate=0)
    assert float(metrics["value/target"]) == pytest.approx(target.mean(), rel=1e-4)
    assert float(metrics["value/loss"]) == pytest.approx(errors[2:].mean(), rel=1e-4)


def test_the_policys_loss_counts_recorded_actions_only():
    config = replace(Qc(), hidden=(8, 8), chunk_length=2)
    transition, *_ = arrays(1)
    policy = init_policy(config, Spec(3, 2), key=jax.random.key(2)).network
    generator = np.random.default_rng(3)
    noise, time = generator.normal(size=(6, 4)).astype(np.float32), generator.uniform(size=6).astype(np.float32)
    found = jax.vmap(policy_loss, (None, 0, 0, 0))(policy, transition, noise, time)
    plain = jax.tree.map(np.asarray, transition)
    point = (1 - time[:, None]) * noise + time[:, None] * plain.action
    velocity = numpy_mlp(policy.mlp, None, np.concatenate([plain.observation, point, time[:, None]], 1))
    errors = (velocity - (plain.action - noise)) ** 2
    np.testing.assert_allclose(found[:3], errors[:3, :2].mean(1), rtol=1e-4)
    np.testing.assert_allclose(found[3:], errors[3:].mean(1), rtol=1e-4)


def test_weights_of_zero_teach_the_critics_nothing():
    config = replace(Qc(), hidden=(8, 8), chunk_length=2)
    transition, outcome, candidates = arrays(4)
    value = qc.init_value(config, Spec(3, 2), key=jax.random.key(0))
    other = transition._replace(action=transition.action.at[:2].add(7.0))
    one, two = (
        updated_critics(value, batch, candidates, outcome, rate=1e-3)[0].learner for batch in (transition, other)
    )
    for a, b in zip(jax.tree.leaves(one.network), jax.tree.leaves(two.network), strict=True):
        np.testing.assert_array_equal(a, b)


def updated_critics(value, batch, candidates, outcome, *, rate):
    """One update of QC's critics at a learning rate."""
    config = replace(Qc(), hidden=(8, 8), chunk_length=2, learning_rate=rate, final_learning_rate=rate)
    return UPDATE_CRITICS(
        value,
        batch,
        handed=candidates,
        outcomes=outcome,
        config=config,
        progress=Progress(0, 1),
        key=jax.random.key(1),
    )


# What they converge to.


@pytest.mark.slow
def test_qc_learns_the_optimal_value_and_the_twin_the_behaviours(tmp_path):
    """Two steps, actions uniform in [-1, 1], reward -a^2 for the second: max and mean of the same data differ.

    Searching in the targets is policy iteration, Q = 0; the dataset's action is evaluation, Q = -discount / 3.
    """
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (8000, 1)).astype(np.float32)
    last = np.arange(8000) % 2 == 1
    rewards = np.where(last, -(actions[:, 0] ** 2), 0).astype(np.float32)
    observations = np.where(last, 1.0, -1.0)[:, None].astype(np.float32)
    none = np.zeros(8000, bool)
    write_npz(
        tmp_path / "two.npz",
        {
            "observations": observations,
            "actions": actions,
            "rewards": rewards,
            "terminations": last,
            "truncations": none,
        },
    )
    options = SMALL | {"discount": 0.9, "target_rate": 0.02}
    first, action = np.full((5, 1), -1.0), np.linspace(-0.8, 0.8, 5)[:, None]
    searched = learned(tmp_path / "two.npz", replace(Qc(num_candidates=8, flow_steps=4), **options), 600)
    np.testing.assert_allclose(searched.value(first, action), 0, atol=0.05)
    twin = learned(tmp_path / "two.npz", replace(Scalar(1, next_action=DatasetAction()), **options), 800)
    np.testing.assert_allclose(twin.value(first, action), -0.3, atol=0.05)
    for policy in (searched, twin):
        np.testing.assert_allclose(policy.value(-first, action), -(action[:, 0] ** 2), atol=0.05)


@pytest.mark.slow
def test_a_scalar_has_no_spread_and_one_temperature_is_like_another(tmp_path):
    write("fork", 2000, seed=0, path=tmp_path / "fork.npz")
    policy = learned(tmp_path / "fork.npz", replace(Scalar(n_steps=1), **SMALL), 1500)
    observations, actions = np.ones((2, 1)), np.array([[-0.5], [0.5]])
    means = [probe.distribution.mean for probe in fork().probes(1)]
    for temperature in (0.0, 0.1, np.inf):
        np.testing.assert_allclose(
            policy.value(observations, actions, return_temperature=temperature), means, atol=0.04
        )
    assert np.ptp(policy.returns(observations, actions), axis=1).max() == 0


@pytest.mark.slow
def test_every_agents_base_policy_is_behaviour_cloning(tmp_path):
    """The same seed, data and schedule: the same policy to the bit, whoever judges it."""
    np.savez(tmp_path / "mine.npz", **user_arrays())
    options = {"hidden": (16, 16), "batch_size": 32, "final_learning_rate": 0.0}
    agents = [replace(Bc(), **options), replace(Qc(), **options), replace(TINY, final_learning_rate=0.0)]
    first, *others = [learned(tmp_path / "mine.npz", agent, 5)._networks.policy for agent in agents]
    for other in others:
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


# How they act and travel.


@pytest.mark.slow
def test_qc_takes_the_best_of_32_chunks(tmp_path):
    np.savez(tmp_path / "mine.npz", **user_arrays())
    policy = learned(tmp_path / "mine.npz", replace(Qc(), hidden=(16, 16), batch_size=32, chunk_length=2), 20)
    observation = user_arrays()["observations"][0]
    assert policy.act(observation).shape == (2, 2)
    candidates = np.stack([policy.act(observation, seed, extraction=Prior()) for seed in range(4)])
    assert isinstance(policy.default_search, BestOf)
    assert policy.default_search.num_candidates == 32
    scores = policy.value(np.repeat(observation[None], 4, 0), candidates)
    assert len(np.unique(scores)) == 4


def test_qc_acts_by_its_online_critics():
    config = replace(Qc(), hidden=(16, 16), chunk_length=2)
    value = qc.init_value(config, Spec(3, 2), key=jax.random.key(0))
    tracked = eqx.tree_at(lambda value: value.target, value, jax.tree.map(jnp.zeros_like, value.target))
    _, critics = qc.inference_networks(init_policy(config, Spec(3, 2), key=jax.random.key(1)), tracked, config=config)
    assert np.all(each_value(critics, jnp.ones(3), jnp.ones(4)) == each_value(value.target, jnp.ones(3), jnp.ones(4)))


def test_the_scalar_twin_has_the_recipe_of_evor():
    """Whatever both can set is the same, but for the objective: its n is the twin's own option."""
    twin, evor = to_json(Scalar()), to_json(Evor())
    shared = twin.keys() & evor.keys()
    assert {name: twin[name] for name in shared} == {name: evor[name] for name in shared}
    assert {"hidden", "learning_rate", "final_learning_rate", "target_rate", "next_action", "discount"} <= shared
    assert Scalar().n_steps == Evor().objective.n_steps


def test_bc_has_nothing_to_search_with(tmp_path):
    np.savez(tmp_path / "mine.npz", **user_arrays())
    policy = learned(tmp_path / "mine.npz", replace(Bc(), hidden=(16, 16), batch_size=32), 3)
    observation = user_arrays()["observations"][0]
    np.testing.assert_array_equal(policy.act(observation, 3), policy.act(observation, 3, extraction=Prior()))
    with pytest.raises(EvorError, match="a Bc policy has no value"):
        policy.act(observation, 0, extraction=BestOf(2))
    with pytest.raises(EvorError, match="a Bc policy has no value"):
        policy.returns(observation, policy.act(observation))


@pytest.mark.parametrize(
    "name",
    [
        "scalar",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("qc-5", "fql", "ifql", "iql", "rebrac", "value-flows", "sorl")
        ),
        "bc",
    ],
)
def test_every_agent_trains_resumes_and_exports(name, tmp_path):
    """Through the run folder; an export acts as the run does."""
    np.savez(tmp_path / "mine.npz", **user_arrays())
    agent = replace(PRESETS[name], hidden=(16, 16), batch_size=32)
    assert from_json(to_json(agent, AgentConfig), AgentConfig) == agent
    config = RunConfig(data=str(tmp_path / "mine.npz"), updates=6, checkpoint_every=3, agent=agent)
    train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    policy = load(tmp_path / "run")
    policy.export(tmp_path / "export")
    observation = user_arrays()["observations"][:2]
    np.testing.assert_array_equal(policy.act(observation), load(tmp_path / "export").act(observation))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "bc" else pytest.mark.slow) for name in PRESETS]
)
def test_every_agent_learns_in_bfloat16(name, tmp_path):
    """Products of bfloat16 know the derivatives that an agent asks for, and what is learned stays near float32's."""
    np.savez(tmp_path / "mine.npz", **user_arrays())
    acts = []
    for precision in ("float32", "bfloat16"):
        agent = replace(PRESETS[name], hidden=(16, 16), batch_size=32, precision=precision)
        train(
            RunConfig(data=str(tmp_path / "mine.npz"), updates=2, checkpoint_every=2, agent=agent), tmp_path / precision
        )
        policy = load(tmp_path / precision)
        acts.append(policy.act(user_arrays()["observations"][:8], 0, extraction=Prior()))
    np.testing.assert_allclose(*acts, atol=0.1)


@pytest.mark.slow
def test_chunks_of_a_corridor_are_worth_their_rewards(tmp_path):
    """QC-2 with one candidate is one-step evaluation over chunks: the corridor's mean, every chunk of zeros alike."""
    write("corridor", 4000, seed=0, path=tmp_path / "corridor.npz")
    agent = replace(Qc(num_candidates=1, flow_steps=8, chunk_length=2, discount=0.9, target_rate=0.02), **SMALL)
    policy = learned(tmp_path / "corridor.npz", agent, 2500)
    (probe,) = corridor().probes(None)
    value = policy.value(probe.observation, np.zeros((2, 1)))
    assert float(value) == pytest.approx(probe.distribution.mean, abs=0.06 * probe.distribution.std)


def test_agents_are_listed_once():
    assert set(AGENTS) == set(AgentConfig.__args__)
