"""The Python API, on a run of two tasks and two seeds."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import evor
from conftest import DATASET, TINY
from evor.agents.registry import PRESETS
from evor.errors import EvorError
from evor.policies.policy import Policy
from evor.training.config import RunConfig, differences, from_json, to_json
from evor.training.train import train

OBSERVATIONS = np.array([[0.0, 0.0], [4.0, 1.0], [12.0, 16.0], [20.0, 20.0]], np.float32)
SEARCHES = [
    evor.Prior(),
    evor.BestOf(4),
    evor.SoftmaxOf(4),
    evor.SoftmaxOf(4, reading=evor.RandomSamples(5)),
]


class NeedsGrad:
    """What a tensor of another library does that keeps its gradient."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, task=4, seed=1)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_a_batch_of_one_is_a_batch_of_many(policy, search):
    together = policy.act(OBSERVATIONS, seed=7, extraction=search)
    assert together.shape == (4, 2)
    for row, observation in enumerate(OBSERVATIONS):
        np.testing.assert_allclose(policy.act(observation, seed=7, extraction=search), together[row], atol=1e-5)


def test_one_seed_per_row(policy):
    together = policy.act(OBSERVATIONS, seed=np.arange(4), extraction=evor.SoftmaxOf(4))
    for row in range(4):
        np.testing.assert_allclose(
            policy.act(OBSERVATIONS[row], row, extraction=evor.SoftmaxOf(4)), together[row], atol=1e-5
        )
    assert (
        policy.act(OBSERVATIONS[0], 0, extraction=evor.Prior())
        != policy.act(OBSERVATIONS[0], 1, extraction=evor.Prior())
    ).any()


@pytest.mark.slow
def test_a_search_that_takes_long_is_noted_once(policy, capsys):
    """From every way to decide. Candidates that a caller made are not the search's own."""

    def said():
        return " ".join(capsys.readouterr().err.split())

    note = (
        "note: a decision with {} candidates, 10 returns of each and 10 flow steps is about {} times the work of the "
        "agent's own search; fewer of them decide faster."
    )
    policy.act(OBSERVATIONS[0], 0, extraction=evor.SoftmaxOf(64))
    policy.choose(OBSERVATIONS[0], np.zeros((2, 2)), extraction=evor.SoftmaxOf(10**6))
    assert said() == ""
    for _ in range(2):
        policy.act(OBSERVATIONS[0], 0, extraction=evor.BestOf(3200))
    assert said() == note.format("3,200", 100)
    policy.decide(OBSERVATIONS[0], 0, extraction=evor.BestOf(3201))
    assert said() == note.format("3,201", 100)
    evor.Controller(policy, extraction=evor.BestOf(6400)).act(OBSERVATIONS[0])
    assert said() == note.format("6,400", 200)


def test_actions_lie_in_the_box(policy):
    actions = policy.act(np.repeat(OBSERVATIONS, 50, 0), np.arange(200), extraction=evor.Prior())
    assert np.abs(actions).max() <= 1


def test_candidates_of_an_observation_stay_with_it(policy):
    """The best of a batch is chosen row by row: each row's action is among its own proposals."""
    chosen = policy.act(OBSERVATIONS, seed=3, extraction=evor.BestOf(1))
    base = policy.act(OBSERVATIONS, seed=3, extraction=evor.Prior())
    np.testing.assert_allclose(chosen, base, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"extraction": "prior"}, "give a search"),
        ({"extraction": evor.SoftmaxOf}, "give a search"),
        ({"seed": [1, 2]}, "or one per row"),
        ({"seed": -1}, "non-negative"),
        ({"observation": ["a", "b"]}, "not an array of numbers"),
        ({"observation": [[0.0, 1.0], [2.0]]}, "not an array of numbers"),
        ({"observation": {"x": 1.0}}, "observation is not an array of numbers"),
        ({"observation": np.array([1j, 0])}, "its type is complex128"),
        ({"observation": np.array([0.0, 1.0], object)}, "its type is object"),
        ({"observation": NeedsGrad()}, "requires grad"),
        ({"observation": np.ma.array([0.0, 1.0], mask=[False, True])}, "observation has masked entries; fill them"),
        ({"observation": [1e300, 0.0]}, r"observation holds 1e\+300"),
        ({"seed": jax.random.key(0)}, "non-negative int"),
        ({"seed": "1"}, "seed is '1'"),
        ({"seed": [[1]]}, "or one per row"),
        ({"seed": np.array([2**64, -1], object), "observation": OBSERVATIONS[:2]}, "non-negative"),
    ],
)
def test_act_refuses_what_it_cannot_read(policy, arguments, words):
    with pytest.raises(EvorError, match=words):
        policy.act(**{"observation": OBSERVATIONS[0], **arguments})


@pytest.mark.filterwarnings("error")
def test_what_no_float32_holds_is_infinity(policy):
    observation, action = OBSERVATIONS[1], np.array([0.5, -0.5], np.float32)
    assert policy.value(observation, action, return_temperature=1e300) == policy.value(
        observation, action, return_temperature=np.inf
    )
    assert evor.SoftmaxOf(4, return_temperature=1e300, action_temperature=1e300) == evor.SoftmaxOf(
        4, return_temperature=np.inf, action_temperature=np.inf
    )


def test_value_is_the_reading_of_the_returns(policy):
    observation, action = OBSERVATIONS[1], np.array([0.5, -0.5], np.float32)
    quantiles = policy.quantiles(observation, action, num_nodes=32)
    assert policy.value(observation, action, return_temperature=np.inf) == pytest.approx(
        float(quantiles.mean()), rel=1e-5
    )
    fine = policy.quantiles(observation, action, num_nodes=4000)
    for temperature in (0.3, 0.7, 1.0, 2.5):
        power = 1 + 0.7 * max(0, 1 - temperature)  # equal intervals from 1 on; below, they narrow towards the top
        edges, middles = (1 - np.arange(33) / 32) ** power, (1 - (np.arange(32) + 0.5) / 32) ** power
        read = np.interp(1 - middles, (np.arange(4000) + 0.5) / 4000, fine)
        unit = temperature * policy.return_std  # in reward units
        soft = unit * logsumexp(read / unit, b=edges[:-1] - edges[1:])
        assert policy.value(observation, action, return_temperature=temperature) == pytest.approx(soft, rel=1e-5)
    highest = float(fine[round(4000 * (1 - (1 / 64) ** 1.7) - 0.5)])
    assert policy.value(observation, action, return_temperature=0.0) == pytest.approx(highest, rel=1e-5)


def with_bounds(policy, **bounds):
    networks = policy._networks._replace(standardisation=policy._networks.standardisation._replace(**bounds))
    return Policy(policy.config, policy.spec, networks=networks, origin=policy.origin)


def test_what_is_read_beyond_the_bounds_counts_as_them(policy):
    """Of the search and of every reading."""
    observations = np.random.default_rng(0).uniform(0, 20, (64, 2)).astype(np.float32)

    def bounded(bound):
        return with_bounds(policy, return_max=jnp.float32(bound))

    def act(bound):
        return bounded(bound).act(
            observations, seed=3, extraction=evor.BestOf(8, reading=evor.Quadrature(10, flow_steps=10))
        )

    free, base = act(np.inf), policy.act(observations, 3, extraction=evor.Prior())
    np.testing.assert_array_equal(act(1e6), free)
    np.testing.assert_allclose(act(-1e6), base, atol=1e-5)  # all candidates are equal, the first is the base policy's
    unbounded = bounded(np.inf).quantiles(observations, free, num_nodes=10)
    bound = float(np.quantile(unbounded, 0.2))
    read = bounded(bound).quantiles(observations, free, num_nodes=10)
    np.testing.assert_allclose(read, np.minimum(unbounded, bound), atol=1e-4)

    def mean(actions):
        return bounded(bound).quantiles(observations, actions, num_nodes=10).mean(axis=1)

    assert (mean(act(bound)) >= np.maximum(mean(free), mean(base)) - 1e-4).all()
    assert (act(bound) != free).any()


def test_returns_are_in_reward_units(policy):
    # Rewards are -1 per step at discount 0.99: even an untrained value is standardised around about -97.
    returns = policy.returns(OBSERVATIONS, np.zeros((4, 2), np.float32), num_samples=200, seed=0)
    assert returns.shape == (4, 200)
    assert -200 < returns.mean() < -50
    single = policy.returns(OBSERVATIONS[2], np.zeros(2, np.float32), num_samples=200, seed=0)
    np.testing.assert_allclose(single, returns[2], atol=1e-3)


def test_seeds_and_tasks_of_a_run_differ_as_they_should(tiny_run):
    def act(task, seed, search):
        return evor.load(tiny_run, task, seed=seed).act(OBSERVATIONS, seed=2, extraction=search)

    np.testing.assert_array_equal(act(1, 0, evor.Prior()), act(4, 0, evor.Prior()))  # one base policy for all tasks
    assert (act(1, 0, evor.Prior()) != act(1, 1, evor.Prior())).any()
    one, four = (evor.load(tiny_run, task, seed=0).quantiles(OBSERVATIONS[0], OBSERVATIONS[0]) for task in (1, 4))
    assert (one != four).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.act(np.zeros(3)), r"\[3\]; \[2\] or \[B, 2\]"),
        (lambda p: p.act(np.full(2, np.nan)), "finite"),
        (lambda p: p.act(np.zeros(2), seed=-1), "non-negative"),
        (lambda p: p.act(np.zeros(2), seed=0.5), "non-negative"),
        (lambda p: p.value(np.zeros(2), np.zeros(3)), r"action has shape \[3\]; \[2\] or \[B, 2\]"),
        (lambda p: p.value(np.zeros(2), {"a": 1}), "action is not an array"),
        (lambda p: p.value(np.zeros(2), [2.0, 0]), r"action holds 2; actions lie in \[-1, 1\]"),
        (lambda p: p.returns(np.zeros((2, 2)), [[0, 0], [0, -1.5]]), r"action\[1\] holds -1.5; actions lie in"),
        (lambda p: p.quantiles(np.zeros(2), [[1, 2], [3]]), "action is not an array"),
        (lambda p: p.value(np.zeros(2), np.zeros(2), return_temperature="1"), "return_temperature is '1'"),
        (lambda p: p.returns(np.zeros(2), np.zeros(2), seed=jax.random.key(0)), "non-negative"),
        (lambda p: p.returns(np.zeros(2), np.zeros(2), flow_steps=2.5), "a whole number"),
        (lambda p: p.value(np.zeros((4, 2)), np.zeros((3, 2))), "4 observations but 3 actions"),
        (lambda p: p.value(np.zeros(2), np.zeros(2), return_temperature=-1.0), "must be at least 0"),
        (lambda p: p.returns(np.zeros(2), np.zeros(2), num_samples=0), "at least 1"),
    ],
)
def test_bad_arguments_are_named(policy, call, words):
    with pytest.raises(evor.EvorError, match=words):
        call(policy)


@pytest.mark.slow
def test_chunks(tmp_path, data_folder):
    agent = dataclasses.replace(TINY, chunk_length=3)
    train(RunConfig(dataset=DATASET, data=str(data_folder), updates=2, agent=agent), tmp_path / "run")
    policy = evor.load(tmp_path / "run")
    assert policy.act(OBSERVATIONS[0]).shape == (3, 2)
    chunks = policy.act(OBSERVATIONS)
    assert chunks.shape == (4, 3, 2)
    assert policy.value(OBSERVATIONS, chunks).shape == (4,)
    assert policy.value(OBSERVATIONS[0], chunks[0]) == pytest.approx(policy.value(OBSERVATIONS, chunks)[0], rel=1e-5)
    none = policy.act(OBSERVATIONS[:0])
    assert none.shape == (0, 3, 2)
    assert policy.value(OBSERVATIONS[:0], none).shape == (0,)
    for other in (chunks.swapaxes(1, 2), chunks.reshape(4, 6), chunks[0].ravel(), chunks[:, :2], chunks[None]):
        shape = re.escape(str(list(other.shape)))
        with pytest.raises(EvorError, match=rf"action has shape {shape}; \[3, 2\] or \[B, 3, 2\]"):
            policy.value(OBSERVATIONS, other)


@pytest.mark.parametrize("agent", [*PRESETS.values(), TINY])
def test_configs_survive_json(agent):
    config = RunConfig(dataset=DATASET, tasks=(1, 2), agent=agent)
    assert from_json(json.loads(json.dumps(to_json(config))), RunConfig) == config


def test_differences_name_the_field():
    one, two = to_json(RunConfig()), to_json(RunConfig(seed=3, agent=PRESETS["paper"]))
    found = differences(one, two)
    assert "seed: 0 -> 3" in found
    assert "agent.objective.type: SampleBackup -> FlowTd" in found


def test_a_stored_config_of_another_version_is_refused(tmp_path):
    content = to_json(RunConfig()) | {"colour": "blue"}
    with pytest.raises(evor.EvorError, match="colour"):
        from_json(content, RunConfig)


def test_the_paper_preset_is_tables_3_and_4():
    paper = to_json(PRESETS["paper"])
    assert paper["objective"] == {"type": "FlowTd", "n_steps": 1, "z1": {"type": "ModelReturn"}}
    assert paper["next_action"] == {"type": "PolicyAction"}
    assert paper["acting_value"] == {"type": "OnlineValue"}
    assert (paper["learning_rate"], paper["batch_size"], paper["hidden"]) == (3e-4, 256, [512] * 4)
    assert (paper["target_rate"], paper["discount"], paper["flow_steps"]) == (5e-3, 0.99, 10)
    assert not paper["standardise_observations"]
    assert not paper["standardise_returns"]


def test_importing_evor_does_not_import_jax():
    import subprocess
    import sys

    code = "import sys, evor, evor.cli.main; evor.cli.main.main(['--help']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.slow
def test_the_report_runs_without_jax():
    import subprocess
    import sys

    code = "import sys; sys.modules['jax'] = None; import evor.report.run, evor.cli.report"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_devices_are_what_jax_says():
    from evor.runtime.provenance import provenance

    assert provenance()["hardware"]["device"] == jax.devices()[0].device_kind


def test_solver_steps_of_a_reading_are_those_of_its_returns_alone(policy):
    """Read with few steps, a search decides as one that takes few steps for everything, among the other's candidates."""
    observation, policy = OBSERVATIONS[1], with_bounds(policy, return_min=jnp.float32(-np.inf))
    few = evor.BestOf(6, reading=evor.Quadrature(4, flow_steps=2))
    decided = policy.decide(observation, 3, extraction=few)
    as_actions = evor.Quadrature(4, flow_steps=None)
    plain = policy.decide(observation, 3, extraction=evor.BestOf(6, reading=as_actions))
    np.testing.assert_array_equal(decided.candidates, plain.candidates)
    assert not np.allclose(decided.scores, plain.scores)
    whole = policy.choose(
        observation, plain.candidates, seed=3, extraction=evor.BestOf(6, reading=as_actions, flow_steps=2)
    )
    np.testing.assert_allclose(decided.scores, whole.scores, rtol=1e-5)


def test_a_search_still_ranks_what_lies_below_the_bounds(policy):
    """Rewards of -1 for ever are the lower bound, and far from the goal a value lies about there."""
    observation = OBSERVATIONS[1]
    low = with_bounds(policy, return_min=jnp.float32(1e6))
    free = with_bounds(policy, return_min=jnp.float32(-np.inf))
    search = evor.BestOf(8)
    np.testing.assert_array_equal(
        low.decide(observation, 3, extraction=search).scores, free.decide(observation, 3, extraction=search).scores
    )
    assert low.decide(observation, 3, extraction=search).index == free.decide(observation, 3, extraction=search).index
    assert np.ptp(low.decide(observation, 3, extraction=search).scores) > 0
