"""SORL: its losses against plain numpy, what may change its actor and what may not, and what it converges to."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import DATASET, learned, user_arrays
from equations import arrays, numpy_mlp
from evor.agents import bc, sorl
from evor.agents.contract import one_chunk
from evor.agents.registry import PRESETS
from evor.agents.sorl import Sorl
from evor.cli.main import main
from evor.data.standardisation import Standardisation
from evor.errors import EvorError
from evor.nn.critics import Mean, Minimum
from evor.nn.learner import Learning, Progress
from evor.nn.nets import VelocityField
from evor.nn.shortcut import Start, conditioned, sample
from evor.policies.decision import Networks
from evor.policies.inputs import _note_steps
from evor.policies.policy import Policy
from evor.report.run import read_evaluations
from evor.runtime.records import replace
from evor.search.extraction import BestOf, Guided, Prior, SoftmaxOf
from evor.types import Spec

# Two numbers of steps compile in half the time of four.
SMALL = replace(Sorl(finest_steps=2, trained_steps=2), hidden=(8, 8), batch_size=6, learning_rate=1e-2)
BATCH, OUTCOME, _ = arrays(0, width=2)
BATCH = BATCH._replace(action_mask=jnp.ones((6, 2)))


@functools.partial(jax.jit, static_argnames="config")
def updated(head, outcome, *, config=SMALL, key=4):
    """A head after one update on the batch, and what it tells."""
    return sorl.update_head(
        head,
        BATCH,
        handed=(),
        outcomes=outcome,
        config=config,
        progress=Progress(0, 1),
        key=jax.random.key(key),
    )


@pytest.fixture(scope="module")
def head():
    """Fresh networks, whose moving averages are elsewhere."""

    @jax.jit
    def init():
        found = sorl.init_head(SMALL, Spec(3, 2), key=jax.random.key(0))
        targets = [jax.tree.map(lambda leaf: 1.3 * leaf + 0.1, part.target) for part in found]
        return eqx.tree_at(lambda head: [part.target for part in head], found, targets)

    return init()


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(one, other):
    return all((a == b).all() for a, b in zip(leaves(one), leaves(other), strict=True))


# The losses.


def numpy_velocity(actor, observations, points, times, levels):
    inputs = [
        observations,
        np.full((len(points), 1), levels),
        points,
        np.reshape(times, (-1, 1)) * np.ones((len(points), 1)),
    ]
    return numpy_mlp(actor.mlp, None, np.concatenate(inputs, 1).astype(np.float64))


def numpy_sample(actor, observations, noise, steps):
    points = noise
    for i in range(steps):
        points = points + numpy_velocity(actor, observations, points, i / steps, np.log2(steps)) / steps
    return np.clip(points, -1, 1)


def numpy_q(critics, observations, actions, steps):
    inputs = np.concatenate([observations, actions, np.reshape(steps, (-1, 1))], 1).astype(np.float64)
    return np.stack([numpy_mlp(critics, i, inputs)[:, 0] for i in range(2)])


def test_the_losses_are_those_of_the_equations(head):
    """Two of the rows' halves: k = 1 and 2; the level 0 of all rows against two steps of level 1."""
    _, told = updated(head, OUTCOME)
    plain, (reward, discount, weight) = jax.tree.map(np.asarray, (BATCH, OUTCOME[:3]))
    actor, critics = (part.learner.network for part in head)
    k, halves = np.repeat([1, 2], 3), (slice(0, 3), slice(3, 6))
    critics_key, actor_key = jax.random.split(jax.random.key(4))

    def in_steps(network, observations, noise):
        return np.concatenate(
            [numpy_sample(network, observations[half], noise[half], int(k[half][0])) for half in halves]
        )

    noise = np.asarray(jax.random.normal(critics_key, (6, 2)))
    following = in_steps(actor, plain.next_observation, noise)
    target = reward + discount * numpy_q(head.critics.target, plain.next_observation, following, k).mean(0)
    errors = ((numpy_q(critics, plain.observation, plain.action, k) - target) ** 2).mean(0)
    assert float(told["critic/target"]) == pytest.approx(target.mean(), rel=1e-4)
    assert float(told["critic/loss"]) == pytest.approx((weight * errors).sum() / weight.sum(), rel=1e-4)

    keys = jax.random.split(actor_key, 5)
    first, second, third = (np.asarray(jax.random.normal(key, (6, 2))) for key in keys[:3])
    times = np.floor(2 * np.asarray(jax.random.uniform(keys[3], (6,))))[:, None] / 2
    assert set(times.ravel()) == {0.0, 0.5}
    between = (1 - times) * first + times * plain.action
    velocity = numpy_velocity(actor, plain.observation, between, times, 1)
    flow = ((velocity - (plain.action - first)) ** 2).mean()
    half = numpy_velocity(head.actor.target, plain.observation, second, 0.0, 1)
    rest = numpy_velocity(head.actor.target, plain.observation, second + half / 2, 0.5, 1)
    own = numpy_velocity(actor, plain.observation, second, 0.0, 0)
    consistency = ((own - (half + rest) / 2) ** 2).mean()
    values = numpy_q(critics, plain.observation, in_steps(actor, plain.observation, third), k).mean(0)
    assert float(told["actor/flow"]) == pytest.approx(flow, rel=1e-4)
    assert float(told["actor/consistency"]) == pytest.approx(consistency, rel=1e-4)
    assert float(told["actor/value"]) == pytest.approx(values.mean(), rel=1e-4, abs=1e-5)
    loss = 10 * flow + 10 * consistency - 100 * values.mean() / np.abs(values).mean()
    assert float(told["actor/loss"]) == pytest.approx(loss, rel=1e-4)


def test_flow_matching_is_behaviour_cloning_at_the_times_of_the_finest_steps():
    """The field of `Bc` has no level: here its place is in the bias of the first layer."""
    actor = VelocityField(3, 2, (8, 8), layer_norm=False, precision="float32", key=jax.random.key(3))
    cloner = without_level(actor, 3.0)
    transition, noise = jax.tree.map(lambda leaf: leaf[0], BATCH), jnp.array([0.3, -0.8])
    transition = transition._replace(observation=transition.observation[:2])

    @jax.jit
    @jax.vmap
    def both(time):
        start = Start((1 - time) * noise + time * transition.action, time, jnp.float32(3))
        found = sorl.velocity_loss(actor, transition, start, transition.action - noise)
        return found, bc.policy_loss(cloner, transition, noise, time)

    np.testing.assert_allclose(*both(jnp.arange(8.0) / 8), rtol=1e-5)


@pytest.mark.slow
def test_the_finest_draw_is_that_of_behaviour_cloning():
    actor = VelocityField(3, 2, (8, 8), layer_norm=False, precision="float32", key=jax.random.key(3))
    observation, how = jnp.array([0.4, -0.2]), {"flow_steps": 8, "key": jax.random.key(5)}
    expected = bc.propose(without_level(actor, 3.0), observation, **how)
    np.testing.assert_allclose(sorl.propose(actor, observation, **how), expected, atol=1e-6)


def without_level(actor, level):
    """A field of (observation, point, time) that is the actor at this level, which it reads as its third input."""
    first, place = actor.mlp.weights[0], 2
    weight = jnp.concatenate([first[:place], first[place + 1 :]])
    bias = actor.mlp.biases[0] + level * first[place]
    return eqx.tree_at(lambda f: (f.mlp.weights[0], f.mlp.biases[0]), actor, (weight, bias))


# Gradients.


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_gradient_through_all_steps_is_that_of_differences(steps):
    """In float64, along a random direction of the weights of a small actor."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        to_double = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float64) / 2)
        actor = to_double(VelocityField(3, 2, (8,), layer_norm=False, precision="float32", key=jax.random.key(3)))
        drawn = np.random.default_rng(0)
        along = jax.tree.map(lambda leaf: jnp.asarray(drawn.normal(size=leaf.shape)), actor)
        observation, noise = jnp.array([0.2, -0.4]), jnp.array([0.1, -0.05])

        @jax.jit
        def value(length):
            moved = jax.tree.map(lambda leaf, by: leaf + length * by, actor, along)
            action = sample(conditioned(moved, observation), noise, steps)
            return jnp.sum(jnp.sin(3 * action) * jnp.array([1.0, 2.0]))

        exact, length = float(jax.grad(value)(0.0)), 1e-6
        differences = float(value(length) - value(-length)) / (2 * length)
        assert abs(exact) > 1e-3  # nothing is clipped
        assert exact == pytest.approx(differences, rel=1e-6)


def test_rewards_reach_the_actor_through_the_critics_alone(head):
    """One update with other rewards and the same critics: another critic, and the same actor to the bit."""
    other = OUTCOME._replace(reward=OUTCOME.reward + 5)
    (one, told), (two, _) = updated(head, OUTCOME), updated(head, other)
    assert same(one.actor, two.actor)
    assert not same(one.critics, two.critics)
    # The actor moves, and a second update tells the critics apart.
    assert not same(one.actor.learner.network, head.actor.learner.network)
    assert not same(updated(one, OUTCOME)[0].actor, updated(two, OUTCOME)[0].actor)
    assert float(told["actor/gradient_norm"]) > 1  # and is clipped


@pytest.mark.slow
def test_a_task_inside_vmap_is_the_same_alone(head):
    """Two tasks with rewards of their own, updated together and alone (1e-5)."""
    outcomes = [OUTCOME, OUTCOME._replace(reward=OUTCOME.reward + 5)]
    together, told = jax.vmap(updated, (None, 0))(head, jax.tree.map(lambda *each: jnp.stack(each), *outcomes))
    for task, outcome in enumerate(outcomes):
        alone, metrics = updated(head, outcome)
        for one, many in zip(leaves((alone, metrics)), leaves((together, told)), strict=True):
            np.testing.assert_allclose(one, many[task], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_actor_without_improvement_never_sees_a_reward(head):
    """c_Q = 0: bit-identical after five updates under other rewards."""
    config = replace(SMALL, improvement_weight=0.0)
    one = two = head
    for _ in range(5):
        one, _ = updated(one, OUTCOME, config=config)
        two, _ = updated(two, OUTCOME._replace(reward=OUTCOME.reward + 5), config=config)
    assert same(one.actor, two.actor)
    assert not same(one.critics, two.critics)


@pytest.mark.slow
def test_rows_in_blocks_are_batches_of_one_number_of_steps_on_average():
    """Over the four rotations of the rows, the mean gradient is that of all rows in 1, 2, 4 and 8 steps."""
    config = replace(Sorl(), hidden=(8,), batch_size=4)
    head = sorl.init_head(config, Spec(2, 2), key=jax.random.key(2))
    actor, critics = (part.learner.network for part in head)
    drawn = np.random.default_rng(1)
    observations, noise = (jnp.asarray(drawn.normal(size=(4, 2)), jnp.float32) for _ in range(2))

    def rotated(actor, turn):
        x, z = jnp.roll(observations, turn, 0), jnp.roll(noise, turn, 0)
        actions = sorl._in_steps(actor, x, z, config=config)
        return jax.vmap(lambda *one: sorl.step_values(critics, *one).mean())(
            x, actions, jnp.float32([1, 2, 4, 8])
        ).sum()

    def whole(actor, steps):
        def one(x, z):
            return sorl.step_values(critics, x, sample(conditioned(actor, x), z, steps), jnp.float32(steps)).mean()

        return jax.vmap(one)(observations, noise).sum()

    by_rows = jax.grad(lambda actor: sum(rotated(actor, turn) for turn in range(4)))(actor)
    by_batch = jax.grad(lambda actor: sum(whole(actor, steps) for steps in (1, 2, 4, 8)))(actor)
    for one, other in zip(leaves(by_rows), leaves(by_batch), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-4)


# What they converge to.


@pytest.mark.slow
def test_every_number_of_steps_draws_from_the_fixed_point(tmp_path):
    """Actions N(0, 0.3^2) without rewards: all of k = 1, 2, 4, 8 have the deviation of eight steps of Euler, below 0.3."""
    std, rows = 0.3, 20_000
    actions = np.clip(np.random.default_rng(0).normal(0, std, (rows, 1)), -1, 1).astype(np.float32)
    ends = np.arange(rows) % 20 == 19
    arrays = {
        "observations": np.zeros((rows, 1), np.float32),
        "actions": actions,
        "rewards": np.zeros(rows, np.float32),
    }
    np.savez(tmp_path / "gauss.npz", **arrays, terminations=ends, truncations=np.zeros(rows, bool))
    agent = replace(
        Sorl(improvement_weight=0.0), hidden=(32, 32), batch_size=256, learning_rate=3e-3, final_learning_rate=0.0
    )
    policy = learned(tmp_path / "gauss.npz", agent, 3000)
    times = np.arange(8) / 8
    slopes = (times * std**2 - (1 - times)) / ((1 - times) ** 2 + (times * std) ** 2)
    expected = np.prod(1 + slopes / 8)
    assert expected < 0.25
    observations = np.zeros((4096, 1), np.float32)
    for steps in (1, 2, 4, 8):
        drawn = policy.act(observations, np.arange(4096), extraction=Prior(steps))
        assert drawn.std() == pytest.approx(expected, rel=0.06), steps
        assert abs(drawn.mean()) < 0.02


@pytest.mark.slow
def test_a_bandit_is_learned_and_its_critics_do_not_depend_on_steps(tmp_path):
    """Reward -(a - 0.5)^2 of one step, actions uniform: every k says so, and acts above what it imitates."""
    generator, rows = np.random.default_rng(0), 8000
    actions = generator.uniform(-1, 1, (rows, 1)).astype(np.float32)
    arrays = {
        "observations": np.zeros((rows, 1), np.float32),
        "actions": actions,
        "rewards": -((actions[:, 0] - 0.5) ** 2),
        "terminations": np.ones(rows, bool),
        "truncations": np.zeros(rows, bool),
    }
    np.savez(tmp_path / "bandit.npz", **arrays)
    options = {"hidden": (32, 32), "batch_size": 128, "learning_rate": 3e-3, "final_learning_rate": 0.0}
    policy = learned(tmp_path / "bandit.npz", replace(Sorl(improvement_weight=30.0), **options), 1500)
    tried = np.linspace(-0.9, 0.9, 7)[:, None]
    for steps in (1, 2, 4, 8):
        told = policy.value(np.zeros((7, 1)), tried, flow_steps=steps)
        np.testing.assert_allclose(told, -((tried[:, 0] - 0.5) ** 2), atol=0.06)
        drawn = policy.act(np.zeros((256, 1)), np.arange(256), extraction=Prior(steps))
        assert -((drawn - 0.5) ** 2).mean() > 2 * arrays["rewards"].mean() / 3
    best = policy.act(np.zeros((256, 1)), np.arange(256))
    np.testing.assert_allclose(best, 0.5, atol=0.15)


# Acting.


@pytest.fixture(scope="module")
def policy():
    """Of fresh networks that would be trained on one step, with an actor of up to four."""
    config = replace(Sorl(finest_steps=4, trained_steps=1), hidden=(8, 8))
    fresh = jax.jit(lambda: sorl.init_head(config, Spec(3, 2), key=jax.random.key(0)))()
    units = Standardisation(np.zeros(3, np.float32), np.ones(3, np.float32), *np.float32([0, 1, -np.inf, np.inf]))
    networks = Networks(*sorl.inference_networks((), fresh, config=config), units)
    return Policy(config, Spec(3, 2), networks=networks, origin={})


OBSERVATIONS = user_arrays()["observations"][:2]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_the_best_of_one_is_the_actors_draw(policy, steps):
    one = policy.act(OBSERVATIONS, [3, 4], extraction=BestOf(1, flow_steps=steps))
    np.testing.assert_array_equal(one, policy.act(OBSERVATIONS, [3, 4], extraction=Prior(steps)))


@pytest.mark.parametrize("search", [Prior(3), Prior(8), BestOf(4, flow_steps=10), SoftmaxOf(4, flow_steps=5)])
def test_a_number_of_flow_steps_that_the_actor_does_not_know_is_refused(policy, search):
    with pytest.raises(EvorError, match=f"flow_steps is {search.flow_steps}; a Sorl policy acts in 1, 2 or 4 of them"):
        policy.act(OBSERVATIONS, extraction=search)


@pytest.mark.parametrize("search", [Prior(), BestOf(2), SoftmaxOf(2), Guided(2)])
def test_a_search_that_names_no_number_of_flow_steps_takes_the_agents_own(policy, search):
    """The finest steps, as in the default search; it can't act in the 10 of other agents."""
    assert policy._search(search) == policy._search(dataclasses.replace(search, flow_steps=4))
    assert policy.default_search.flow_steps == 4


def test_a_search_in_more_steps_than_the_value_knows_is_told_once(policy, capsys):
    _note_steps.cache_clear()
    for steps in (1, 4, 4):
        search = policy._search(BestOf(flow_steps=steps))
        assert search.reading.flow_steps is None  # the value's steps are the actor's
    told = "note: the value of this Sorl was trained on at most 1 flow steps; actions of 4 steps are ranked by their value at 1."
    assert " ".join(capsys.readouterr().err.split()) == told


def test_the_default_search_is_the_best_of_eight_in_the_finest_steps():
    search = sorl.default_search(PRESETS["sorl"])
    assert (type(search), search.num_candidates, search.flow_steps) == (BestOf, 8, 8)
    assert sorl.default_search(SMALL).flow_steps == 2


def test_critics_rank_as_in_targets_and_at_the_most_steps_they_know(head):
    critics, observation, action = head.critics.target, jnp.ones(3), jnp.zeros(2)
    one, two = (sorl.step_values(critics, observation, action, jnp.float32(steps)) for steps in (1, 2))
    assert len({*one.tolist(), *two.tolist()}) == 4
    for aggregation, asked, expected in (
        (Mean(), 1, one.mean()),
        (Mean(), 2, two.mean()),
        (Mean(), 10, two.mean()),
        (Minimum(), 8, two.min()),
    ):
        config = replace(SMALL, aggregation=aggregation)
        how = {"action": action, "noises": jnp.zeros(3), "config": config, "flow_steps": asked}
        np.testing.assert_allclose(sorl.returns(critics, observation, **how), [expected] * 3, rtol=1e-6)


@pytest.mark.slow
def test_guidance_raises_the_value_of_as_many_steps(policy):
    before, after = (
        policy.value(OBSERVATIONS, policy.act(OBSERVATIONS, [3, 4], extraction=search), flow_steps=1)
        for search in (Prior(1), Guided(1, weight=0.05, flow_steps=1))
    )
    assert (after > before).all()


@pytest.mark.slow
def test_a_sweep_over_steps_and_candidates_is_drawn(data_folder, tmp_path, capsys):
    small = "--agent.hidden 8 8 --agent.batch-size 16 --agent.finest-steps 2 --agent.trained-steps 2 --updates 2"
    run = str(tmp_path / "run")
    assert main(f"train {DATASET} --data {data_folder} --preset sorl --out {run} {small}".split()) == 0
    assert main(f"sweep {run} --episodes 1 --flow-steps 1 2 --num-candidates 1 2".split()) == 0
    (rows,) = read_evaluations(tmp_path / "run").values()
    assert {(row["extraction"], row["flow_steps"], row["num_candidates"]) for row in rows} == {
        ("BestOf", steps, count) for steps in (1, 2) for count in (1, 2)
    }
    # One candidate is the actor's draw in so many steps. What is predicted of it is its value in as many.
    by_steps = {row["flow_steps"]: row["predicted_mean"] for row in rows if row["num_candidates"] == 1}
    assert by_steps[1] != by_steps[2]
    assert main(["report", run]) == 0
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "Success over flow steps and candidates</h2>" in page
    assert "followed by the actor" in page
    capsys.readouterr()
    assert main(["evaluate", run, "--episodes", "1", "--flow-steps", "4"]) == 2
    assert "flow_steps is 4; a Sorl policy acts in 1 or 2 of them." in capsys.readouterr().err


# Settings.

OTHERWISE = {
    "improvement_weight": 1.0,
    "aggregation": Minimum(),
    "flow_weight": 1.0,
    "consistency_weight": 1.0,
    "finest_steps": 4,
    "trained_steps": 1,
    "num_critics": 3,
    "standardise_observations": True,
    "standardise_returns": True,
    "target_rate": 0.5,
    "discount": 0.5,
    "chunk_length": 2,
}


def test_every_field_has_another_value_above():
    assert {*OTHERWISE, "learning"} == {item.name for item in dataclasses.fields(Sorl)}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERWISE)
def test_no_field_is_dead(name, head):
    """The data, or the networks after an update, are others."""
    changed = replace(SMALL, **{name: OTHERWISE[name]})
    if one_chunk(changed) != one_chunk(SMALL):
        return
    fresh = head if name != "num_critics" else sorl.init_head(changed, Spec(3, 2), key=jax.random.key(0))
    (one, _), (other, _) = updated(head, OUTCOME), updated(fresh, OUTCOME, config=changed)
    pairs = list(zip(leaves(one), leaves(other), strict=True))
    assert any(a.shape != b.shape or not np.array_equal(a, b) for a, b in pairs)


def test_the_preset_is_the_papers():
    config = PRESETS["sorl"]
    assert (config.flow_weight, config.consistency_weight, config.finest_steps, config.trained_steps) == (10, 10, 8, 8)
    assert (config.num_critics, config.target_rate, config.chunk_length) == (2, 5e-3, 1)
    assert not config.standardise_observations
    assert not config.standardise_returns
    learning = config.learning
    assert (learning.hidden, learning.batch_size, learning.precision) == ((512,) * 4, 256, "float32")
    assert (learning.learning_rate, learning.final_learning_rate, learning.max_gradient_norm) == (1.4e-4, 1.4e-4, 1.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"finest_steps": 6}, "finest_steps is 6; it must be a power of two from 2 on"),
        ({"finest_steps": 1}, "finest_steps is 1; it must be a power of two from 2 on"),
        ({"trained_steps": 16}, "trained_steps is 16; it must be one of 1, 2, 4, 8, up to finest_steps"),
        ({"trained_steps": 3}, "trained_steps is 3; it must be one of 1, 2, 4, 8"),
        ({"improvement_weight": -1.0}, "improvement_weight is -1.0"),
        ({"num_critics": 0}, "num_critics is 0"),
        ({"learning": Learning(batch_size=3)}, "batch_size is 3; it must be at least 4"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes, sentence):
    with pytest.raises(EvorError, match=sentence):
        Sorl(**changes)
