"""The field's baselines: losses and their gradients against plain numpy, limits against closed forms."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from conftest import DATASET, learned, user_arrays
from episodes import make
from equations import arrays, each_critic, gradient_norm, moved, numpy_mlp
from evor.agents import fql, ifql, implicit, iql, rebrac, value_flows
from evor.agents.bc import init_policy
from evor.agents.evor import Evor
from evor.agents.fql import Fql, Normalised, Raw
from evor.agents.ifql import Ifql
from evor.agents.iql import Iql
from evor.agents.next_action import BestAction, DatasetAction
from evor.agents.rebrac import Rebrac
from evor.agents.registry import AGENTS, PRESETS
from evor.agents.scalar import Scalar
from evor.agents.value_flows import ValueFlows
from evor.cli.main import main
from evor.data.columns import arrange
from evor.data.formats.npz import load_files
from evor.data.formats.ogbench import load_dataset
from evor.data.read import read_dataset
from evor.data.sampler import sample
from evor.errors import EvorError
from evor.nn.critics import Mean, Minimum
from evor.nn.flow import Euler, clipped_euler
from evor.nn.learner import Progress
from evor.nn.objectives import MonteCarlo, SampleBackup
from evor.runtime.files import read_json_lines
from evor.runtime.records import replace
from evor.search.extraction import BestOf, Prior
from evor.search.readings import RandomSamples
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.update import initial_state, make_runner
from evor.types import Spec

SPEC, KEY = Spec(observation_dim=3, action_dim=2), jax.random.key(7)
NARROW = {"hidden": (5, 4), "chunk_length": 2, "learning_rate": 0.0, "final_learning_rate": 0.0}
SMALL = {"hidden": (32, 32), "learning_rate": 3e-3, "final_learning_rate": 0.0, "batch_size": 64}


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items()}


def plain(*trees):
    """The same batch in numpy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), trees)


def counted(losses, weight):
    """The mean over the rows that count."""
    return (losses * weight).sum() / weight.sum()


def with_target(tracked):
    """A network and another moving average, so that neither can stand for the other."""
    return eqx.tree_at(lambda t: t.target, tracked, moved(tracked.target))


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def bandit(reward):
    """Episodes of one step in one state; actions are uniform in [-1, 1]."""
    actions = np.random.default_rng(0).uniform(-1, 1, (4000, 1)).astype(np.float32)
    return user_arrays(
        4000,
        observations=np.zeros((4000, 1), np.float32),
        actions=actions,
        rewards=reward(actions[:, 0]),
        terminations=np.ones(4000, bool),
        truncations=np.zeros(4000, bool),
    )


def learned_state(path, agent, updates):
    """The base and the head of one seed and task after a run."""
    episodes = load_files(path)
    config = RunConfig(data="-", updates=updates, agent=agent)
    columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
    state, run = make_runner(config, columns, initial_state(config, episodes.spec))
    state = run(state, columns, updates)
    return state._replace(
        base=jax.tree.map(lambda leaf: leaf[0], state.base), head=jax.tree.map(lambda leaf: leaf[0, 0], state.head)
    )


# All of them.


NAMES = ["fql", "ifql", "iql", "rebrac", "value-flows"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_and_a_task_train_as_they_would_alone(name, data_folder):
    """After seven float32 updates (1e-5); and in one call as in three, to the bit."""
    agent = replace(PRESETS[name], hidden=(8, 8), batch_size=16)

    def run(tasks, seed, seeds, counts):
        config = RunConfig(dataset=DATASET, data=str(data_folder), tasks=tasks, seed=seed, num_seeds=seeds, agent=agent)
        episodes = load_dataset(DATASET, tasks, folder=data_folder)
        columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
        state, advance = make_runner(config, columns, initial_state(config, episodes.spec))
        for count in counts:
            state = advance(state, columns, count)
        return state

    together = run((1, 4), 3, 2, (7,))
    assert same(together, run((1, 4), 3, 2, (1, 4, 2)))
    for (s, seed), (k, task) in (((0, 3), (1, 4)), ((1, 4), (0, 1))):
        alone = run((task,), seed, 1, (7,))
        pairs = ((alone.base, (0,), together.base, (s,)), (alone.head, (0, 0), together.head, (s, k)))
        for one, first, many, index in pairs:
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
                np.testing.assert_allclose(np.asarray(a)[first], np.asarray(b)[index], atol=1e-5)


METRICS = {
    "fql": {"policy", "critic", "actor"},
    "ifql": {"policy", "value", "critic"},
    "iql": {"value", "critic", "actor"},
    "rebrac": {"critic", "actor"},
    "value-flows": {"policy", "value"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_is_trained_resumed_played_and_reported(name, data_folder, tmp_path, capsys):
    train = f"train {DATASET} --data {data_folder} --preset {name} --tasks 1 4 --num-seeds 2 --checkpoint-every 4"
    small = f"--log-every 4 --agent.hidden 8 8 --agent.batch-size 16 --out {tmp_path / 'run'}"
    assert main(f"{train} {small} --updates 4".split()) == 0, capsys.readouterr().err
    assert main(f"{train} {small} --updates 8 --resume".split()) == 0, capsys.readouterr().err
    lines = read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == 4 * [4] + 4 * [8]
    assert {key.split("/")[0] for key in lines[0]} - {"step", "seed", "task"} == METRICS[name]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert main(f"evaluate {tmp_path / 'run'} --episodes 1".split()) == 0, capsys.readouterr().err
    assert main(f"report {tmp_path / 'run'}".split()) == 0, capsys.readouterr().err
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert type(PRESETS[name]).__name__ in page
    assert "followed by" in page


# FQL.


UPDATE_FQL = jax.jit(fql.update_head, static_argnames="config")


def fql_case(config):
    """A head, a batch, and what the base hands over."""
    transition, outcome, _ = arrays(0)
    head = fql.init_head(config, SPEC, key=jax.random.key(1))
    # Wide enough that some actions are clipped and others not.
    head = head._replace(
        critics=with_target(head.critics),
        actor=eqx.tree_at(lambda a: a.network, head.actor, moved(head.actor.network, factor=3.0)),
    )
    policy = init_policy(config, SPEC, key=jax.random.key(2))
    return head, transition, outcome, fql.hand_over(policy, transition, config=config, key=jax.random.key(3)), policy


def updated_fql(config, head, transition, outcome, handed, key=KEY):
    progress = Progress(0, 1)
    return UPDATE_FQL(head, transition, handed=handed, outcomes=outcome, config=config, progress=progress, key=key)


@pytest.mark.parametrize(
    ("scale", "aggregation"), [pytest.param(Raw(), Minimum(), marks=pytest.mark.slow), (Normalised(), Mean())]
)
def test_fql_is_its_equations(scale, aggregation):
    config = replace(Fql(alpha=2.0, q_scale=scale, aggregation=aggregation), **NARROW)
    head, transition, outcome, handed, _ = fql_case(config)
    _, metrics = updated_fql(config, head, transition, outcome, handed)
    found = numbers(metrics)
    batch, out, flow = plain(transition, outcome, handed)
    actor, critics = head.actor.network, head.critics.learner.network
    noise = np.asarray(jax.random.normal(KEY, transition.action.shape))

    def mu(network, observation, noise):
        return numpy_mlp(network, None, np.concatenate([observation, noise], 1))

    after = np.clip(mu(actor, batch.next_observation, noise), -1, 1)
    combine = {Mean(): np.mean, Minimum(): np.min}[aggregation]
    target = out.reward + out.discount * combine(each_critic(head.critics.target, batch.next_observation, after), 0)

    def of_critics(network):
        errors = (each_critic(network, batch.observation, batch.action) - target) ** 2
        return counted(errors.mean(0), out.weight)

    drawn = mu(actor, batch.observation, flow.noise)
    assert (np.abs(drawn) > 1).any()
    assert (np.abs(drawn) < 1).any()
    scale_of = 1.0
    if isinstance(scale, Normalised):
        scale_of = np.abs(each_critic(critics, batch.observation, np.clip(drawn, -1, 1)).mean(0)).mean()

    def of_actor(network):
        action = mu(network, batch.observation, flow.noise)
        value = each_critic(critics, batch.observation, np.clip(action, -1, 1)).mean()
        return 2 * np.mean((action - flow.action) ** 2) - value / scale_of

    assert found["critic/target"] == pytest.approx(target.mean(), rel=1e-4)
    for name, loss, network in (("critic", of_critics, critics), ("actor", of_actor, actor)):
        assert found[f"{name}/loss"] == pytest.approx(loss(network), rel=1e-3), name
        assert found[f"{name}/gradient_norm"] == pytest.approx(gradient_norm(loss, network), rel=2e-3), name


def test_fql_hands_over_ten_steps_of_the_flow():
    """At the batch's own observations, clipped once, from the noise beside it."""
    config = replace(Fql(), **NARROW)
    _, transition, _, handed, policy = fql_case(config)
    for row in range(2):
        observation, noise = transition.observation[row], handed.noise[row]
        end = Euler()(lambda a, t, x=observation: policy.network(x, a, t), noise, 10)
        np.testing.assert_allclose(handed.action[row], jnp.clip(end, -1, 1), atol=1e-5)


@pytest.mark.slow
def test_fql_acts_by_its_actor():
    config = replace(Fql(), **NARROW)
    head, transition, _, _, policy = fql_case(config)
    actor, critics = fql.inference_networks(policy, head, config=config)
    observation = transition.observation[0]
    action = fql.propose(actor, observation, flow_steps=1, key=KEY)
    noise = np.asarray(jax.random.normal(KEY, (4,)))
    expected = np.clip(numpy_mlp(actor, None, np.concatenate([observation, noise])), -1, 1)
    np.testing.assert_allclose(action, expected, atol=1e-4)
    read = fql.AGENT.returns(critics, observation, action=action, noises=jnp.zeros(3), config=config, flow_steps=1)
    values = each_critic(head.critics.learner.network, np.asarray(observation)[None], np.asarray(action)[None])
    np.testing.assert_allclose(read, values.mean(), rtol=2e-3)
    assert fql.default_search(config) == Prior(flow_steps=1)


@pytest.mark.slow
def test_fqls_actor_climbs_between_the_flow_and_the_critics(tmp_path):
    """A bandit: actions uniform in [-1, 1], reward 1 - (a - 0.6)^2, discount 0.

    A weight of nothing on the flow gives the best action whatever the noise; a great weight gives the flow's own actions.
    """
    np.savez(tmp_path / "bandit.npz", **bandit(lambda actions: 1 - (actions - 0.6) ** 2))
    observations = np.zeros((200, 1), np.float32)
    for alpha, mean, spread in ((0.0, 0.6, 0.0), (300.0, 0.0, 0.5)):
        policy = learned(tmp_path / "bandit.npz", replace(Fql(alpha=alpha, q_scale=Raw(), discount=0.0), **SMALL), 1500)
        drawn = policy.act(observations, np.arange(200))
        assert drawn.mean() == pytest.approx(mean, abs=0.12)
        assert drawn.std() == pytest.approx(spread, abs=0.12)
        np.testing.assert_allclose(
            policy.value(observations[:3], np.float32([[-0.4], [0.6], [0.1]])), [0, 1, 0.75], atol=0.08
        )


# The value of IFQL and IQL.


UPDATE_IFQL = jax.jit(ifql.update_head, static_argnames="config")


def updated_ifql(config, values, transition, outcome):
    progress = Progress(0, 1)
    return UPDATE_IFQL(values, transition, handed=(), outcomes=outcome, config=config, progress=progress, key=KEY)


def test_an_implicit_value_is_its_equations():
    config = replace(Ifql(expectile=0.8), **NARROW)
    transition, outcome, _ = arrays(2)
    values = implicit.init_values(config, SPEC, key=jax.random.key(1))
    values = values._replace(critics=with_target(values.critics))
    new, metrics = updated_ifql(config, values, transition, outcome)
    found = numbers(metrics)
    batch, out = plain(transition, outcome)
    value, critics = values.value.network, values.critics.learner.network
    highs = each_critic(values.critics.target, batch.observation, batch.action).min(0)
    target = out.reward + out.discount * numpy_mlp(value, None, batch.next_observation)[:, 0]

    def of_value(network):
        error = highs - numpy_mlp(network, None, batch.observation)[:, 0]
        return counted(np.where(error >= 0, 0.8, 0.2) * error**2, out.weight)

    def of_critics(network):
        errors = (each_critic(network, batch.observation, batch.action) - target) ** 2
        return counted(errors.sum(0), out.weight)

    signs = np.sign(highs - numpy_mlp(value, None, batch.observation)[:, 0])[2:]
    assert len(set(signs)) == 2  # errors of both kinds, among the rows that count
    assert found["critic/target"] == pytest.approx(target.mean(), rel=1e-3)
    for name, loss, network in (("value", of_value, value), ("critic", of_critics, critics)):
        assert found[f"{name}/loss"] == pytest.approx(loss(network), rel=1e-3), name
        assert found[f"{name}/gradient_norm"] == pytest.approx(gradient_norm(loss, network), rel=2e-3), name
    for old, average, online in zip(
        *map(jax.tree.leaves, (values.critics.target, new.critics.target, critics)), strict=True
    ):  # a learning rate of 0
        np.testing.assert_allclose(average, 0.995 * old + 0.005 * online, rtol=1e-5, atol=1e-6)


def test_ifql_takes_the_best_of_32_draws_by_the_least_of_its_critics():
    config = replace(Ifql(), **NARROW)
    transition, _, candidates = arrays(3)
    values = implicit.init_values(config, SPEC, key=jax.random.key(1))
    values = values._replace(critics=with_target(values.critics))
    policy = init_policy(config, SPEC, key=jax.random.key(2))
    flow, critics = ifql.inference_networks(policy, values, config=config)
    assert same(flow, policy.network)
    observation, action = transition.observation[0], candidates[0, 0]
    read = ifql.AGENT.returns(critics, observation, action=action, noises=jnp.zeros(2), config=config, flow_steps=10)
    each = each_critic(values.critics.learner.network, np.asarray(observation)[None], np.asarray(action)[None])
    np.testing.assert_allclose(read, each.min(), rtol=2e-3)
    assert isinstance(ifql.default_search(config), BestOf)
    assert ifql.default_search(Ifql(num_candidates=64)).num_candidates == 64
    assert ifql.default_search(config).num_candidates == 32


@pytest.mark.slow
@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_an_implicit_value_is_the_expectile_of_the_returns(expectile, tmp_path):
    """A bandit without a state: an action in [-1, 1] is worth itself, so Q(a) = a and V is an expectile of U(-1, 1).

    The expectile e of U(-1, 1) solves q (1 - e)^2 = (1 - q) (1 + e)^2.
    """
    np.savez(tmp_path / "bandit.npz", **bandit(lambda actions: actions))
    agent = replace(Ifql(expectile=expectile, discount=0.0, target_rate=0.05), **SMALL)
    learned_run = learned_state(tmp_path / "bandit.npz", agent, 1500)
    found = float(learned_run.head.value.network(jnp.zeros(1))[0])
    root = np.sqrt(expectile / (1 - expectile))
    assert found == pytest.approx((root - 1) / (root + 1), abs=0.04)


@pytest.mark.slow
def test_ifql_finds_the_best_action_of_a_bandit(tmp_path):
    np.savez(tmp_path / "bandit.npz", **bandit(lambda actions: 1 - (actions - 0.6) ** 2))
    policy = learned(tmp_path / "bandit.npz", replace(Ifql(discount=0.0), **SMALL), 1500)
    drawn = policy.act(np.zeros((50, 1), np.float32), np.arange(50))
    np.testing.assert_allclose(drawn, 0.6, atol=0.2)
    behaviour = policy.act(np.zeros((50, 1), np.float32), np.arange(50), extraction=Prior())
    assert behaviour.std() > 0.4


# IQL.


UPDATE_IQL = jax.jit(iql.update_head, static_argnames="config")


def iql_case(config):
    transition, outcome, _ = arrays(4)
    head = iql.init_head(config, SPEC, key=jax.random.key(1))
    return head._replace(values=head.values._replace(critics=with_target(head.values.critics))), transition, outcome


def updated_iql(config, head, transition, outcome):
    progress = Progress(0, 1)
    return UPDATE_IQL(head, transition, handed=(), outcomes=outcome, config=config, progress=progress, key=KEY)


def test_iqls_actor_is_its_equations():
    """With some weights at their bound, and with rows of chunks that are recorded in part."""
    config = replace(Iql(alpha=4.0), **NARROW)
    head, transition, outcome = iql_case(config)
    outcome = outcome._replace(weight=jnp.array([0.0, 1, 1, 1, 1, 1]))
    _, metrics = updated_iql(config, head, transition, outcome)
    found = numbers(metrics)
    batch, out = plain(transition, outcome)
    value, critics = head.values.value.network, head.values.critics.learner.network
    advantage = each_critic(critics, batch.observation, batch.action).min(0)
    advantage = advantage - numpy_mlp(value, None, batch.observation)[:, 0]
    weights = np.minimum(np.exp(4 * advantage), 100)
    assert (weights == 100).any()
    assert (weights < 100).any()

    def of_actor(network):
        errors = batch.action - numpy_mlp(network, None, batch.observation)
        density = norm.logpdf(errors) * batch.action_mask
        return counted(-weights * density.sum(1), out.weight)

    actor = head.actor.network
    assert found["actor/weight"] == pytest.approx(weights.mean(), rel=2e-3)
    assert found["actor/loss"] == pytest.approx(of_actor(actor), rel=2e-3)
    assert found["actor/gradient_norm"] == pytest.approx(gradient_norm(of_actor, actor), rel=3e-3)
    _, of_ifql = updated_ifql(replace(Ifql(), **NARROW), head.values, transition, outcome)
    for name, told in numbers(of_ifql).items():
        assert found[name] == pytest.approx(told, rel=1e-5), name


def test_iql_acts_by_its_mean():
    """The same action for every key, clipped; a young actor's is near 0."""
    config = replace(Iql(), **NARROW)
    head, transition, _ = iql_case(config)
    actor, critics = iql.inference_networks((), head, config=config)
    observation = transition.observation[0]
    wide = moved(actor, factor=20.0)
    for network, bound in ((actor, 0.5), (wide, 1.0)):
        one, other = (iql.propose(network, observation, flow_steps=1, key=jax.random.key(k)) for k in (0, 1))
        np.testing.assert_array_equal(one, other)
        expected = np.clip(numpy_mlp(network, None, np.asarray(observation)), -1, 1)
        np.testing.assert_allclose(one, expected, atol=1e-3)
        assert np.abs(expected).max() <= bound
    assert np.abs(expected).max() == 1
    read = iql.AGENT.returns(critics, observation, action=one, noises=jnp.zeros(2), config=config, flow_steps=1)
    each = each_critic(head.values.critics.learner.network, np.asarray(observation)[None], np.asarray(one)[None])
    np.testing.assert_allclose(read, each.min(), rtol=2e-3)
    assert iql.default_search(config) == Prior(flow_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_iqls_actor_is_the_weighted_mean_of_a_bandit(alpha, tmp_path):
    """Actions a of U(-1, 1) are worth a, so the actor's mean is E[a exp(alpha a)] / E[exp(alpha a)]: coth(alpha) - 1 / alpha."""
    np.savez(tmp_path / "bandit.npz", **bandit(lambda actions: actions))
    policy = learned(tmp_path / "bandit.npz", replace(Iql(alpha=alpha, discount=0.0, target_rate=0.05), **SMALL), 1500)
    expected = 1 / np.tanh(alpha) - 1 / alpha if alpha else 0.0
    assert float(policy.act(np.zeros(1, np.float32))[0]) == pytest.approx(expected, abs=0.05)


# ReBRAC.


UPDATE_REBRAC = jax.jit(rebrac.update_head, static_argnames="config")


def rebrac_case(config):
    transition, outcome, _ = arrays(5)
    head = rebrac.init_head(config, SPEC, key=jax.random.key(1))
    actor = eqx.tree_at(lambda a: a.learner.network, head.actor, moved(head.actor.learner.network, factor=2.0))
    return head._replace(actor=with_target(actor), critics=with_target(head.critics)), transition, outcome


def updated_rebrac(config, head, transition, outcome, step):
    progress = Progress(step, 100)
    return UPDATE_REBRAC(head, transition, handed=(), outcomes=outcome, config=config, progress=progress, key=KEY)


def test_rebrac_is_its_equations():
    config = replace(Rebrac(actor_penalty=0.7, critic_penalty=0.3, target_noise=0.6, actor_every=3), **NARROW)
    head, transition, outcome = rebrac_case(config)
    found = [numbers(updated_rebrac(config, head, transition, outcome, step)[1]) for step in (1, 2)]
    batch, out = plain(transition, outcome)
    actor, critics = head.actor.learner.network, head.critics.learner.network
    noise = 0.6 * np.asarray(jax.random.normal(KEY, transition.action.shape))
    assert (np.abs(noise) > 0.5).any()
    action = np.tanh(numpy_mlp(head.actor.target, None, batch.next_observation)) + np.clip(noise, -0.5, 0.5)
    assert (np.abs(action) > 1).any()
    action = np.clip(action, -1, 1)
    after = each_critic(head.critics.target, batch.next_observation, action).min(0)
    after = after - 0.3 * ((action - batch.next_action) ** 2).sum(1)
    target = out.reward + out.discount * after

    def of_critics(network):
        errors = (each_critic(network, batch.observation, batch.action) - target) ** 2
        return counted(errors.mean(0), out.weight)

    def value(network):
        action = np.tanh(numpy_mlp(network, None, batch.observation))
        return each_critic(critics, batch.observation, action).min(0), action

    unit = np.abs(value(actor)[0]).mean()

    def of_actor(network):
        least, action = value(network)
        distance = (batch.action_mask * (action - batch.action) ** 2).sum(1).mean()
        return 0.7 * distance - least.mean() / unit

    for step in (0, 1):
        assert found[step]["critic/target"] == pytest.approx(target.mean(), rel=1e-3)
        assert found[step]["critic/loss"] == pytest.approx(of_critics(critics), rel=1e-3)
    assert found[1]["critic/gradient_norm"] == pytest.approx(gradient_norm(of_critics, critics), rel=2e-3)
    # Three times as large where it learns and nothing where it waits: the mean of a log line is the loss.
    assert found[1]["actor/loss"] == pytest.approx(3 * of_actor(actor), rel=2e-3)
    assert found[1]["actor/gradient_norm"] == pytest.approx(3 * gradient_norm(of_actor, actor), rel=3e-3)
    assert (found[0]["actor/loss"], found[0]["actor/gradient_norm"]) == (0, 0)


@pytest.mark.slow
def test_rebracs_actor_and_averages_move_every_second_update():
    """Adam's first step is the learning rate, and the actor's is 1.4 times the critics': 4.2e-4 of 3e-4."""
    options = NARROW | {"learning_rate": 3e-4, "final_learning_rate": 3e-4, "target_rate": 0.25}
    config = replace(Rebrac(), **options)
    head, transition, outcome = rebrac_case(config)
    waited, learned_ = (updated_rebrac(config, head, transition, outcome, step)[0] for step in (0, 1))
    assert same(waited.actor, head.actor)
    assert same(waited.critics.target, head.critics.target)
    assert same(waited.critics.learner, learned_.critics.learner)  # through the critics as they were
    assert not same(waited.critics.learner, head.critics.learner)

    def step(one, other):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)

    assert step(learned_.actor.learner.network, head.actor.learner.network) == pytest.approx(4.2e-4, rel=0.01)
    assert step(learned_.critics.learner.network, head.critics.learner.network) == pytest.approx(3e-4, rel=0.01)
    for part in ("actor", "critics"):
        old, new = getattr(head, part), getattr(learned_, part)
        for before, average, online in zip(
            *map(jax.tree.leaves, (old.target, new.target, new.learner.network)), strict=True
        ):
            np.testing.assert_allclose(average, 0.75 * before + 0.25 * online, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_of_rebracs_two_branches_one_runs_for_many_seeds():
    """Mapped over heads and keys, the choice stays a choice. A condition that depends on one of them would run both."""
    config = replace(Rebrac(), **NARROW)
    transition, outcome, _ = arrays(5)
    heads = jax.vmap(lambda key: rebrac.init_head(config, SPEC, key=key))(jax.random.split(KEY, 2))

    def update(head, key, step):
        progress = Progress(step, 100)
        return rebrac.update_head(
            head, transition, handed=(), outcomes=outcome, config=config, progress=progress, key=key
        )

    program = jax.make_jaxpr(jax.vmap(update, (0, 0, None)))(heads, jax.random.split(KEY, 2), jnp.array(1))
    assert [equation.primitive.name for equation in program.eqns].count("cond") == 1


@pytest.mark.slow
def test_rebracs_next_action_is_of_the_same_episode():
    """Actions tell their row. Where a target bootstraps, the next action is the next row's; 20 rows are an episode."""
    rows = np.arange(60)
    arrays_ = user_arrays(actions=np.stack([rows / 100, rows / 100], 1).astype(np.float32))
    episodes = read_dataset(arrays_)
    columns, _ = prepare(RunConfig(data="-", agent=Rebrac()), episodes)
    columns = jax.tree.map(jnp.asarray, columns)
    batch, outcome = sample(columns, KEY, batch_size=400, chunk_length=1)
    here, then = (
        np.round(100 * np.asarray(actions)[:, 0]).astype(int) for actions in (batch.action, batch.next_action)
    )
    bootstraps = np.asarray(outcome.discount[0] * outcome.weight[0]) > 0
    assert bootstraps.sum() > 300
    np.testing.assert_array_equal(then[bootstraps], here[bootstraps] + 1)
    np.testing.assert_array_equal(then[bootstraps] // 20, here[bootstraps] // 20)


@pytest.mark.parametrize(
    ("agent", "first_cut"),
    [
        (Rebrac(chunk_length=2), 2),
        (Scalar(n_steps=2, chunk_length=2, next_action=BestAction(dataset_action=True)), 2),
        (Evor(objective=SampleBackup(2), chunk_length=2, next_action=BestAction(dataset_action=True)), 2),
        (Evor(objective=SampleBackup(2), chunk_length=2, next_action=DatasetAction()), 3),
        (Evor(objective=MonteCarlo(), chunk_length=2), 3),
    ],
)
def test_a_sum_is_as_long_as_its_chunk_where_the_next_one_is_not_the_datasets(agent, first_cut):
    """Of five rows the last is a cut: chunks at rows 0 to 2 have a known next one, and at row 2 it begins within theirs."""
    episode = make([1, 2, 4, 8, 16], [1] * 5, [0] * 4 + [1], [0] * 4 + [1])
    spec = AGENTS[type(agent)].data_spec(agent)._replace(full_returns=False)
    weights = arrange(episode, spec).columns.weights[0]
    np.testing.assert_array_equal(weights, np.arange(5) < first_cut)


def test_rebrac_asks_for_episodes_of_two_actions_and_not_for_an_option_that_it_lacks():
    """Two steps that were recorded alone, each with the observation after it."""
    steps = make([1, 0, 1, 0], [1] * 4, [0, 1, 0, 1], [0, 1, 0, 1], action_known=[1, 0, 1, 0])
    for agent, words in (
        (Rebrac(), "record episodes of two actions"),
        (PRESETS["flow-td"], "next_action=PolicyAction()"),
    ):
        with pytest.raises(EvorError, match="no row has a known next action") as refused:
            arrange(steps, AGENTS[type(agent)].data_spec(agent))
        assert words in str(refused.value)
        assert ("PolicyAction" in str(refused.value)) == (agent != Rebrac())


def test_rebrac_acts_by_its_actor_without_noise():
    config = replace(Rebrac(), **NARROW)
    head, transition, _ = rebrac_case(config)
    actor, critics = rebrac.inference_networks((), head, config=config)
    observation = transition.observation[0]
    one, other = (rebrac.propose(actor, observation, flow_steps=1, key=jax.random.key(k)) for k in (0, 1))
    np.testing.assert_array_equal(one, other)
    expected = np.tanh(numpy_mlp(head.actor.learner.network, None, np.asarray(observation)))
    np.testing.assert_allclose(one, expected, atol=1e-3)
    read = rebrac.AGENT.returns(critics, observation, action=one, noises=jnp.zeros(2), config=config, flow_steps=1)
    each = each_critic(head.critics.learner.network, np.asarray(observation)[None], np.asarray(one)[None])
    np.testing.assert_allclose(read, each.min(), rtol=2e-3)
    assert rebrac.default_search(config) == Prior(flow_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize(("penalty", "expected"), [(0.0, 0.6), (1.0, 0.3128), (100.0, 0.0)])
def test_rebracs_actor_stands_between_the_best_action_and_the_mean_of_the_data(penalty, expected, tmp_path):
    """Actions of U(-1, 1), reward q(a) = 1 - (a - 0.6)^2: penalty a = (0.6 - a) / |q(a)| where the actor rests."""
    np.savez(tmp_path / "bandit.npz", **bandit(lambda actions: 1 - (actions - 0.6) ** 2))
    agent = replace(Rebrac(actor_penalty=penalty, discount=0.0, target_rate=0.05), **SMALL)
    policy = learned(tmp_path / "bandit.npz", agent, 2000)
    found = float(policy.act(np.zeros(1, np.float32))[0])
    assert found == pytest.approx(expected, abs=0.08)


# Value Flows.


UPDATE_VALUE_FLOWS = jax.jit(value_flows.update_values, static_argnames="config")


def value_flows_case(config):
    """Values, a batch whose returns are clipped now and then, and candidates."""
    transition, outcome, candidates = arrays(6)
    outcome = outcome._replace(return_min=jnp.full(6, -0.8), return_max=jnp.full(6, 0.9))
    values = with_target(value_flows.init_values(config, SPEC, key=jax.random.key(1)))
    return values, transition, outcome, candidates


def updated_value_flows(config, values, transition, outcome, candidates):
    progress = Progress(0, 1)
    return UPDATE_VALUE_FLOWS(
        values, transition, handed=candidates, outcomes=outcome, config=config, progress=progress, key=KEY
    )


def velocities(flows, observation, action, z, time):
    """Velocities [E, B] of all networks at returns [E, B] and times [B]."""

    def one(network, z):
        inputs = np.concatenate([observation, action, z[:, None], time[:, None]], 1).astype(np.float64)
        return numpy_mlp(flows.mlp, network, inputs)[:, 0]

    return np.stack([one(network, z[network]) for network in range(len(z))])


def euler(flows, observation, action, noise, end, bounds):
    """Ten clipped steps from the noise [B] to the times `end` [B]: [2, B]; and how the end would move with the noise."""
    low, high = bounds
    z, slope, nudge = np.stack([noise, noise]), np.ones((2, len(noise))), 1e-6
    for step in range(10):
        time = step * end / 10
        here = velocities(flows, observation, action, z, time)
        beside = velocities(flows, observation, action, z + nudge, time)
        slope = slope * (1 + end / 10 * (beside - here) / nudge)
        z = np.clip(z + end / 10 * here, low, high)
    return z, slope


@pytest.mark.parametrize(
    ("aggregation", "choice"), [(Mean(), Minimum()), pytest.param(Minimum(), Mean(), marks=pytest.mark.slow)]
)
def test_value_flows_is_its_equations(aggregation, choice):
    options = {"bootstrapped": 3.0, "direct": 0.7, "temperature": 0.9, "num_candidates": 5}
    config = replace(ValueFlows(aggregation=aggregation, choice_aggregation=choice, **options), **NARROW)
    values, transition, outcome, candidates = value_flows_case(config)
    _, metrics = updated_value_flows(config, values, transition, outcome, candidates)
    found = numbers(metrics)
    batch, out, proposed = plain(transition, outcome, candidates)
    draws = plain(value_flows.draw_randomness(config, 6, key=KEY))[0]
    online, averages = values.learner.network, values.target
    combine, compare = ({Mean(): np.mean, Minimum(): np.min}[kind] for kind in (aggregation, choice))
    bounds = (out.return_min, out.return_max)

    reads = []
    for place in range(5):
        noise = np.stack([draws.choice_noises[:, place]] * 2)
        ends = noise + velocities(online, batch.next_observation, proposed[:, place], noise, np.zeros(6))
        reads.append(compare(np.minimum(ends, out.return_max), 0))
    best = proposed[np.arange(6), np.argmax(reads, 0)]
    ends, _ = euler(averages, batch.next_observation, best, draws.noise, np.ones(6), bounds)
    assert np.isin(ends, bounds).any()
    z1 = out.reward + out.discount * combine(ends, 0)
    way = combine(euler(averages, batch.next_observation, best, draws.noise, draws.time, bounds)[0], 0)
    at_way = combine(velocities(averages, batch.next_observation, best, np.stack([way, way]), draws.time), 0)
    _, slopes = euler(averages, batch.observation, batch.action, draws.weight_noise, np.ones(6), bounds)
    weight = 0.5 + 1 / (1 + np.exp(0.9 / compare(np.abs(slopes), 0)))

    def loss(network):
        flows = SimpleNamespace(mlp=network)

        def error(point, target):
            points = np.stack([point, point])
            found = velocities(flows, batch.observation, batch.action, points, draws.time)
            return ((found - target) ** 2).sum(0)

        first = error(draws.time * z1 + (1 - draws.time) * draws.noise, z1 - draws.noise)
        second = error(out.reward + out.discount * way, at_way)
        return counted(weight * (3 * first + 0.7 * second), out.weight)

    assert found["value/target_velocity"] == pytest.approx((z1 - draws.noise).mean(), rel=2e-3)
    assert found["value/weight"] == pytest.approx(weight.mean(), rel=1e-3)
    assert found["value/loss"] == pytest.approx(loss(online.mlp), rel=2e-3)
    assert found["value/gradient_norm"] == pytest.approx(gradient_norm(loss, online.mlp), rel=3e-3)


def test_value_flows_clips_its_actions_at_every_step():
    """As a flow whose velocity leaves the box half-way and comes back: only steps that were clipped end at -1."""

    def velocity(action, time):
        return jnp.where(time < 0.5, 10.0, -4.0) * jnp.ones_like(action)

    noise = jnp.array([0.0, -0.5])
    np.testing.assert_allclose(clipped_euler(velocity, noise, 10, lowest=-1.0, highest=1.0), -1, atol=1e-6)
    np.testing.assert_allclose(Euler()(velocity, noise, 10), noise + 5 - 2, atol=1e-5)
    half = clipped_euler(velocity, noise, 10, lowest=-9.0, highest=9.0, end=jnp.float32(0.25))
    np.testing.assert_allclose(half, noise + 2.5, atol=1e-5)
    config = replace(ValueFlows(), **NARROW)
    policy = value_flows.init_policy(config, SPEC, key=KEY).network
    policy = eqx.tree_at(lambda p: p.mlp, policy, moved(policy.mlp, factor=6.0))
    observation = jnp.ones(3)
    point = np.asarray(jax.random.normal(KEY, (4,)), np.float64)
    for step in range(10):
        inputs = np.concatenate([observation, point, [step / 10]])
        point = np.clip(point + numpy_mlp(policy.mlp, None, inputs) / 10, -1, 1)
    np.testing.assert_allclose(value_flows.propose(policy, observation, flow_steps=10, key=KEY), point, atol=2e-3)


def test_value_flows_acts_by_one_step_of_its_flows():
    """z + velocity(z, 0), the mean over both networks; and the best of 16 by one noise."""
    config = replace(ValueFlows(), **NARROW)
    values, transition, _, candidates = value_flows_case(config)
    policy = value_flows.init_policy(config, SPEC, key=KEY)
    _, network = value_flows.inference_networks(policy, values, config=config)
    observation, action, noises = transition.observation[0], candidates[0, 0], jnp.array([-1.0, 0.3])
    read = value_flows.returns(network, observation, action=action, noises=noises, config=config, flow_steps=1)
    for noise, found in zip(np.asarray(noises), read, strict=True):
        z = np.full((2, 1), noise)
        expected = z + velocities(values.learner.network, observation[None], action[None], z, np.zeros(1))
        assert float(found) == pytest.approx(expected.mean(), rel=2e-3)
    reading = RandomSamples(1, flow_steps=1)
    assert value_flows.default_search(config) == BestOf(16, return_temperature=np.inf, reading=reading, flow_steps=10)


@pytest.mark.slow
def test_value_flows_learns_the_returns_of_a_chain(tmp_path):
    """Two steps, discount 0.5: a sure reward of 1, then -1 or 1 by a coin. The return is 0.5 or 1.5; then -1 or 1.

    By the bootstrapped regression alone: the direct one has no factor of discount, and pulls this mean down.
    """
    last = np.arange(4000) % 2 == 1
    coin = np.random.default_rng(0).integers(0, 2, 4000) * 2.0 - 1
    chain = user_arrays(
        4000,
        observations=np.where(last, 1.0, -1.0)[:, None].astype(np.float32),
        actions=np.zeros((4000, 1), np.float32),
        rewards=np.where(last, coin, 1.0).astype(np.float32),
        terminations=last,
        truncations=np.zeros(4000, bool),
    )
    np.savez(tmp_path / "chain.npz", **chain)
    agent = replace(ValueFlows(discount=0.5, direct=0.0, num_candidates=1, target_rate=0.02), **SMALL)
    policy = learned(tmp_path / "chain.npz", agent, 2000)
    observations, actions = np.float32([[-1], [1]]), np.zeros((2, 1), np.float32)
    returns = policy.returns(observations, actions, num_samples=400, flow_steps=20)
    np.testing.assert_allclose(returns.mean(1), [1, 0], atol=0.1)
    np.testing.assert_allclose(returns.std(1), [0.5, 1], atol=0.1)
    # Every return is near one of the two, and so are the quantiles.
    assert np.abs(np.abs(returns - [[1], [0]]) - [[0.5], [1]]).mean() < 0.15
