"""Agents that use one half of the contract each run, save, resume, report and export."""

import dataclasses
import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evor
from conftest import DATASET, TINY
from evor.agents import registry
from evor.agents.contract import Agent, Base, Head
from evor.agents.evor import Evor
from evor.agents.next_action import BestAction
from evor.agents.scalar import Scalar
from evor.agents.sorl import Sorl
from evor.cli.main import main
from evor.errors import EvorError
from evor.nn.learner import Learner, Learning, named, weighted_mean
from evor.nn.nets import Mlp
from evor.report.run import read_evaluations
from evor.runtime.files import read_json_lines
from evor.runtime.records import INLINED
from evor.search.extraction import BestOf, Prior
from evor.search.readings import Quadrature
from evor.training import config as training_config
from evor.training.config import RunConfig, from_json, to_json
from evor.training.train import train
from evor.types import DataSpec, NoBounds


@dataclass(frozen=True)
class Imitator:
    """The dataset's mean action by regression: a base and no head."""

    learning: Learning = field(default=Learning(), metadata=INLINED)
    chunk_length: int = 1


@dataclass(frozen=True)
class Climber:
    """A critic, and an actor that climbs it: a head and no base."""

    learning: Learning = field(default=Learning(learning_rate=1e-3), metadata=INLINED)
    chunk_length: int = 1
    discount: float = 0.9


@dataclass(frozen=True)
class Follower:
    """An actor that is told what the base would do: both, with a dict handed over."""

    learning: Learning = field(default=Learning(), metadata=INLINED)
    chunk_length: int = 1


def data_spec(config):
    return DataSpec(
        discount=getattr(config, "discount", 0.0),
        num_steps=1,
        chunk_length=1,
        next_action_known=False,
        full_returns=False,
        standardise_observations=True,
        standardise_returns=False,
        return_bounds=NoBounds(),
    )


def actor(config, spec, *, key):
    sizes = config.learning
    return Mlp(
        spec.observation_dim, sizes.hidden, spec.action_dim, layer_norm=False, precision=sizes.precision, key=key
    )


def action_of(network, observation):
    return jnp.tanh(network(observation))


def propose(network, observation, *, flow_steps, key):
    return action_of(network, observation)


def imitate(learner, batch, *, config, progress, key):
    def loss(network):
        return jnp.mean((jax.vmap(action_of, (None, 0))(network, batch.observation) - batch.action) ** 2)

    learner, metrics = learner.step(loss, learning=config.learning, progress=progress)
    return learner, named("policy", metrics)


IMITATOR = Agent(
    config=Imitator,
    data_spec=data_spec,
    base=Base(init=lambda config, spec, *, key: Learner(actor(config, spec, key=key)), update=imitate),
    inference_networks=lambda base, head, *, config: (base.network, head),
    propose=propose,
    default_search=lambda config: Prior(),
    presets={"imitator": Imitator()},
)


def init_climber(config, spec, *, key):
    sizes = config.learning
    width = spec.observation_dim + spec.action_dim
    critic = Mlp(width, sizes.hidden, 1, layer_norm=True, precision=sizes.precision, key=key)
    return {"actor": Learner(actor(config, spec, key=key)), "critic": Learner(critic)}


def q(critic, observation, action):
    return critic(jnp.concatenate([observation, action]))[0]


def climb(head, batch, *, handed, outcomes, config, progress, key):
    assert handed == ()
    policy, critic = head["actor"], head["critic"]

    def backup(observation):
        return q(critic.network, observation, action_of(policy.network, observation))

    targets = outcomes.reward + outcomes.discount * jax.vmap(backup)(batch.next_observation)

    def critic_loss(network):
        errors = jax.vmap(q, (None, 0, 0))(network, batch.observation, batch.action) - targets
        return weighted_mean(errors**2, outcomes.weight)

    def actor_loss(network):
        actions = jax.vmap(action_of, (None, 0))(network, batch.observation)
        return -jax.vmap(q, (None, 0, 0))(critic.network, batch.observation, actions).mean()

    critic, of_critic = critic.step(critic_loss, learning=config.learning, progress=progress)
    policy, of_actor = policy.step(actor_loss, learning=config.learning, progress=progress)
    return {"actor": policy, "critic": critic}, named("actor", of_actor) | named("critic", of_critic)


def read_returns(critic, observation, *, action, noises, config, flow_steps):
    return jnp.broadcast_to(q(critic, observation, action), noises.shape)


CLIMBER = Agent(
    config=Climber,
    data_spec=data_spec,
    head=Head(init=init_climber, update=climb),
    inference_networks=lambda base, head, *, config: (head["actor"].network, head["critic"].network),
    propose=propose,
    returns=read_returns,
    default_search=lambda config: BestOf(2),
    presets={"climber": Climber()},
)


def follow(learner, batch, *, handed, outcomes, config, progress, key):
    def loss(network):
        return jnp.mean((jax.vmap(action_of, (None, 0))(network, batch.observation) - handed["base"]["says"]) ** 2)

    learner, metrics = learner.step(loss, learning=config.learning, progress=progress)
    return learner, named("follower", metrics)


FOLLOWER = Agent(
    config=Follower,
    data_spec=data_spec,
    base=Base(init=IMITATOR.base.init, update=imitate),
    hand_over=lambda base, batch, *, config, key: {
        "base": {"says": jax.vmap(action_of, (None, 0))(base.network, batch.observation)}
    },
    head=Head(init=IMITATOR.base.init, update=follow),
    inference_networks=lambda base, head, *, config: (head.network, ()),
    propose=propose,
    default_search=lambda config: Prior(),
    presets={"follower": Follower()},
)

TOYS = {"imitator": IMITATOR, "climber": CLIMBER, "follower": FOLLOWER}


@pytest.fixture
def registered(monkeypatch):
    """The toys beside the library's own agents, as lines in registry.py would put them there."""
    for name, agent in TOYS.items():
        monkeypatch.setitem(registry.AGENTS, agent.config, agent)
        monkeypatch.setitem(registry.PRESETS, name, agent.presets[name])
    everything = registry.AgentConfig | Imitator | Climber | Follower
    monkeypatch.setitem(RunConfig.__annotations__, "agent", everything)
    monkeypatch.setattr(RunConfig.__dataclass_fields__["agent"], "type", everything)
    monkeypatch.setattr("evor.policies.exports.AgentConfig", everything)
    training_config._converter.cache_clear()
    yield
    training_config._converter.cache_clear()


METRICS = {"imitator": {"policy"}, "climber": {"actor", "critic"}, "follower": {"policy", "follower"}}


# One in the fast lane, and those with a value in the slow one.
@pytest.mark.parametrize(
    "name", ["imitator", *(pytest.param(name, marks=pytest.mark.slow) for name in ("climber", "follower"))]
)
@pytest.mark.usefixtures("registered")
def test_one_half_of_the_contract_is_enough(name, data_folder, tmp_path, capsys):
    train = f"train {DATASET} --data {data_folder} --preset {name} --tasks 1 4 --num-seeds 2 --updates 6 --checkpoint-every 3"
    small = "--log-every 3 --agent.hidden 8 8 --agent.batch-size 16"
    run = tmp_path / "run"
    assert main(f"{train} {small} --out {run}".split()) == 0, capsys.readouterr().err
    assert main(f"{train} {small} --updates 9 --resume --out {run}".replace("--updates 6 ", "").split()) == 0
    lines = read_json_lines(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == 4 * [3] + 4 * [6] + 4 * [9]
    networks = {key.split("/")[0] for key in lines[0]} - {"step", "seed", "task"}
    assert networks == METRICS[name]

    assert main(f"evaluate {run} --episodes 1".split()) == 0, capsys.readouterr().err
    assert {row["task"] for row in read_evaluations(run)[9]} == {1, 4}
    assert main(f"report {run}".split()) == 0, capsys.readouterr().err
    page = (run / "report" / "index.html").read_text()
    assert type(TOYS[name].presets[name]).__name__ in page
    assert "Learning curve</h2>" in page

    policy = evor.load(run, task=4, seed=1)
    policy.export(tmp_path / "export")
    observations = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    actions = policy.act(observations)
    np.testing.assert_array_equal(actions, evor.load(tmp_path / "export").act(observations))
    if name == "climber":
        assert policy.value(observations, actions).shape == (4,)
        assert policy.choose(observations[0], actions).scores.shape == (4,)
        moved = policy.act(observations, extraction=evor.Guided(1, weight=0.1, guidance=evor.AfterChoice()))
        assert (policy.value(observations, moved) > policy.value(observations, actions)).all()
        for weight in (0, 0.3):
            with pytest.raises(EvorError, match="base policy of a Climber is no flow to guide inside; give guidance="):
                policy.act(observations, extraction=evor.Guided(weight=weight))
    else:
        with pytest.raises(EvorError, match="has no value"):
            policy.value(observations, actions)


@pytest.mark.slow
def test_a_run_that_was_resumed_ends_as_one_that_was_not(registered, data_folder, tmp_path):
    def ended(out, *parts):
        for steps in parts:
            agent = Climber(learning=Learning(hidden=(8, 8), batch_size=16, final_learning_rate=3e-4))
            config = RunConfig(dataset=DATASET, data=str(data_folder), tasks=(1, 4), updates=steps, agent=agent)
            train(config, out, resume=True)
        return jax.tree.leaves(evor.load(out, task=4)._networks)

    for one, other in zip(ended(tmp_path / "a", 4, 8), ended(tmp_path / "b", 8), strict=True):
        np.testing.assert_array_equal(one, other)


SORL = Sorl(finest_steps=2, trained_steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("agent", [Climber(), SORL], ids=lambda agent: type(agent).__name__)
def test_a_head_without_a_base_is_learned_once_per_task(agent, registered, data_folder, tmp_path):
    """One task of two is the same as the task alone: nothing is shared but the rows."""

    def weights(tasks):
        small = dataclasses.replace(agent, learning=Learning(hidden=(8, 8), batch_size=16))
        config = RunConfig(dataset=DATASET, data=str(data_folder), tasks=tasks, updates=5, agent=small)
        train(config, out := tmp_path / str(len(tasks)))
        networks = evor.load(out, task=4)._networks
        return jax.tree.leaves((networks.policy, networks.value))

    for alone, beside in zip(weights((4,)), weights((1, 4)), strict=True):
        np.testing.assert_array_equal(alone, beside)


def _update_returning(change):
    """The imitator's update, with its results changed."""

    def update(learner, batch, *, config, progress, key):
        return change(*imitate(learner, batch, config=config, progress=progress, key=key))

    return update


BROKEN = {
    "changes the structure, a shape or a type of the base": lambda base, metrics: (base.network, metrics),
    "returns the metric 'loss'; metrics are scalars, named NETWORK/METRIC": lambda base, metrics: (
        base,
        {"loss": 0 * metrics["policy/loss"]},
    ),
    "returns no loss; name one NETWORK/loss": lambda base, metrics: (base, {}),
}


@pytest.mark.parametrize("sentence", BROKEN)
@pytest.mark.usefixtures("registered")
def test_an_update_that_breaks_the_contract_is_named(sentence, data_folder, tmp_path, monkeypatch):
    base = Base(init=IMITATOR.base.init, update=_update_returning(BROKEN[sentence]))
    monkeypatch.setitem(registry.AGENTS, Imitator, dataclasses.replace(IMITATOR, base=base))
    # Other sizes each time: what is compiled is kept by the config.
    config = RunConfig(
        DATASET,
        str(data_folder),
        updates=2,
        agent=Imitator(learning=Learning(hidden=(8, 8), batch_size=3 + list(BROKEN).index(sentence))),
    )
    with pytest.raises(EvorError, match=f"base.update of the agent Imitator {sentence}"):
        train(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, *(pytest.param(value, marks=pytest.mark.slow) for value in (1.5, -2.0))])
@pytest.mark.usefixtures("registered")
def test_a_base_policy_that_proposes_no_action_is_named(value, data_folder, tmp_path, monkeypatch, capsys):
    """Wherever it decides: alone, with its candidates, in a control loop and in an evaluation."""

    def wrong(network, observation, *, flow_steps, key):
        return jnp.array([0.5, value], jnp.float32)

    monkeypatch.setitem(registry.AGENTS, Climber, dataclasses.replace(CLIMBER, propose=wrong))
    # Another size each time: what is compiled is kept by the config.
    agent = Climber(learning=Learning(hidden=(8, 8), batch_size=20 if np.isnan(value) else int(10 + value)))
    train(RunConfig(DATASET, str(data_folder), updates=1, agent=agent), run := tmp_path / "run")
    policy, observations = evor.load(run), np.zeros((3, 2), np.float32)
    sentence = f"propose of the agent Climber returned {value:g} (at {{}}); actions lie in [-1, 1]"
    for decide, at in (
        (lambda: policy.act(observations, 0), [0, 1]),
        (lambda: policy.act(observations[0], 0), [1]),
        (lambda: policy.decide(observations, 0), [0, 0, 1]),
        (lambda: evor.Controller(policy).act(observations[0]), [0, 1]),
    ):
        with pytest.raises(EvorError, match=re.escape(sentence.format(at))):
            decide()
    assert main(["evaluate", str(run), "--episodes", "1"]) == 2
    assert sentence.format([0, 1]) in capsys.readouterr().err


def test_shared_settings_stand_beside_an_agents_own_in_files():
    stored = to_json(TINY, registry.AgentConfig)
    assert stored["hidden"] == [16, 16]
    assert stored["batch_size"] == 32
    assert "learning" not in stored
    assert from_json(stored, registry.AgentConfig) == TINY


def test_a_config_of_version_0_1_0_had_one_setting_for_both_standardisations():
    stored = to_json(Evor(), registry.AgentConfig)
    del stored["standardise_observations"], stored["standardise_returns"]
    for value in (True, False):
        found = from_json(stored | {"standardise": value}, registry.AgentConfig)
        assert (found.standardise_observations, found.standardise_returns) == (value, value)


def test_the_best_action_was_once_called_searched():
    """`Searched`, with its options, in files that were written before the name changed."""
    chosen = BestAction(num_candidates=4, return_temperature=0.5, reading=Quadrature(8))
    for config in (Evor(next_action=chosen), Scalar(next_action=chosen)):
        stored = to_json(config, registry.AgentConfig)
        assert stored["next_action"]["type"] == "BestAction"
        older = stored | {"next_action": stored["next_action"] | {"type": "Searched"}}
        assert from_json(older, registry.AgentConfig) == config
    inside = to_json(RunConfig(data="-", agent=Evor(next_action=chosen)))
    inside["agent"]["next_action"]["type"] = "Searched"
    assert from_json(inside, RunConfig).agent.next_action == chosen


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hiden": [8]}, "hiden"),
        ({"hidden": "wide"}, r"'wide' is no list @ \$\.hidden"),
        ({"hidden": {"8": 8}}, r"{'8': 8} is no list @ \$\.hidden"),
        ({"hidden": [8, "x"]}, r"'x' is no whole number @ \$\.hidden"),
        ({"hidden": []}, r"hidden is \(\); it must be a tuple of whole numbers"),
        ({"value_hidden": "wide"}, r"'wide' is no list @ \$\.value_hidden"),
        ({"value_hidden": [8.5]}, r"8\.5 is no whole number @ \$\.value_hidden"),
        ({"batch_size": "x"}, r"'x' is no whole number @ \$\.batch_size"),
        ({"learning": {}}, "learning"),
    ],
)
def test_an_unknown_or_wrong_setting_is_named(changes, sentence):
    with pytest.raises(EvorError, match=sentence):
        from_json(to_json(Evor(), registry.AgentConfig) | changes, registry.AgentConfig)
