"""Guidance moves actions as its formulas say, where the gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.agents import bc
from evor.errors import EvorError
from evor.nn.critics import each_value, init_critics
from evor.nn.nets import VelocityField
from evor.search.extraction import BestOf, Guided, work
from evor.search.guidance import AfterChoice, InsideFlow, ascend, direction
from evor.search.readings import Quadrature, RandomSamples

TOP, CURVES = np.array([0.4, -0.3, 0.9], np.float32), np.array([1.0, 2.0, 0.5], np.float32)


def concave(action):
    """A quadratic with its top at TOP; its gradient is -2 CURVES (a - TOP)."""
    return -jnp.sum(CURVES * (action - TOP) ** 2)


def by_hand(action):
    """The direction of `concave`, in NumPy."""
    gradient = -2 * CURVES.astype(float) * (action - TOP)
    return gradient / np.sqrt(np.mean(gradient**2))


def test_networks_of_bfloat16_guide_as_those_of_float32_do():
    """One critic, and an ensemble; no batch of noises is inside of their gradient, which could not be taken."""
    actions = jax.random.uniform(jax.random.key(1), (5, 3), minval=-1)
    for number in (1, 2):
        exact, rounded = (
            init_critics(3, (16, 16), number=number, precision=precision, key=jax.random.key(0))
            for precision in ("float32", "bfloat16")
        )
        wanted, found = (
            jax.jit(jax.vmap(lambda action, of=critics: direction(lambda a: each_value(of, a).mean(), action)))(actions)
            for critics in (exact, rounded)
        )
        np.testing.assert_allclose(found, wanted, atol=0.1)
        assert np.abs(wanted).max() > 0.5


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_direction_has_unit_size_whatever_the_unit_of_returns(scale):
    action = np.array([-0.2, 0.5, 0.1], np.float32)
    found = direction(lambda a: jnp.float32(scale) * concave(a), jnp.asarray(action))
    np.testing.assert_allclose(found, by_hand(action), rtol=1e-5)
    assert np.sqrt(np.mean(np.asarray(found) ** 2)) == pytest.approx(1)


def test_nothing_moves_where_the_gradient_is_zero():
    action = jnp.asarray(TOP)
    np.testing.assert_array_equal(direction(concave, action), np.zeros(3))
    np.testing.assert_array_equal(direction(lambda a: jnp.float32(3), action), np.zeros(3))
    np.testing.assert_array_equal(ascend(concave, action, weight=3.0, steps=5), action)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_ascent_after_the_choice_is_its_formula(steps, weight):
    expected = start = np.array([-0.9, 0.95, 0.0], np.float32)
    for _ in range(steps):
        expected = np.clip(expected + weight / steps * by_hand(expected), -1, 1)
    np.testing.assert_allclose(ascend(concave, jnp.asarray(start), weight=weight, steps=steps), expected, atol=1e-5)


def test_ascent_comes_as_close_to_the_top_as_its_steps_are_long():
    start, before = jnp.array([-0.9, 0.95, 0.0]), np.inf
    for steps in (5, 50, 500):
        distance = np.linalg.norm(ascend(concave, start, weight=3.0, steps=steps) - TOP)
        assert distance <= 1.01 * np.sqrt(3) * 3.0 / steps  # the length of one step
        assert distance < before
        before = distance


# Inside the flow.


@pytest.fixture(scope="module")
def policy():
    return VelocityField(2, 3, (16, 16), layer_norm=False, precision="float32", key=jax.random.key(4))


def euler_by_hand(policy, observation, *, weight, flow_steps, key):
    """The guided flow in NumPy; only the velocity of the policy is taken from the network."""
    action = np.asarray(jax.random.normal(key, (3,)))
    for step in range(flow_steps):
        time = step / flow_steps
        velocity = np.asarray(policy(observation, jnp.asarray(action, jnp.float32), jnp.float32(time)))
        clean = np.clip(action + (1 - time) * velocity, -1, 1)
        action = action + (velocity + weight * by_hand(clean)) / flow_steps
    return np.clip(action, -1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.1, 0.3, 3.0])
@pytest.mark.parametrize("flow_steps", [1, 3, 10])
def test_a_guided_draw_is_its_formula(policy, weight, flow_steps):
    observation = jnp.array([0.3, -1.2])

    def guide(clean):
        return jnp.float32(weight) * direction(concave, clean)

    for seed in range(5):
        how = {"flow_steps": flow_steps, "key": jax.random.key(seed)}
        drawn = bc.propose_guided(policy, observation, guide=guide, **how)
        np.testing.assert_allclose(drawn, euler_by_hand(policy, observation, weight=weight, **how), atol=2e-5)


def test_a_guide_that_adds_nothing_leaves_the_draw(policy):
    observation, how = jnp.array([0.3, -1.2]), {"flow_steps": 10, "key": jax.random.key(1)}
    drawn = bc.propose_guided(policy, observation, guide=jnp.zeros_like, **how)
    np.testing.assert_array_equal(drawn, bc.propose(policy, observation, **how))


@pytest.mark.slow
def test_a_strong_guide_ends_at_the_top(policy):
    """The flow's own velocity is small beside it."""

    def guide(clean):
        return 50.0 * (TOP - clean)

    drawn = bc.propose_guided(policy, jnp.zeros(2), guide=guide, flow_steps=200, key=jax.random.key(0))
    np.testing.assert_allclose(drawn, TOP, atol=0.15)


# Settings.


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Guided(0), "num_candidates is 0; it must be at least 1"),
        (lambda: Guided(weight=-0.1), r"weight is -0\.1; it must be a finite number of at least 0"),
        (lambda: Guided(weight=float("inf")), "weight is inf; it must be a finite number"),
        (lambda: Guided(weight=float("nan")), "weight is nan; it must be a finite number"),
        (lambda: Guided(weight="1"), "weight is '1'; it must be a number"),
        (lambda: Guided(guidance="choice"), r"guidance is 'choice'; give InsideFlow\(\) or AfterChoice"),
        (lambda: Guided(guidance=InsideFlow), "guidance is <class .*; give InsideFlow"),
        (lambda: Guided(return_temperature=-1), "return_temperature is -1"),
        (lambda: Guided(reading=3), "reading is 3"),
        (lambda: Guided(flow_steps=0), "flow_steps is 0"),
        (lambda: AfterChoice(0), "ascent_steps is 0; it must be at least 1"),
        (lambda: AfterChoice(1.5), r"ascent_steps is 1\.5, a float"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, told):
    with pytest.raises(EvorError, match=told):
        make()


def test_weight_and_temperature_are_traced_and_the_rest_is_structure():
    search = Guided(np.int64(8), return_temperature=np.float32(0.5), weight=jnp.float32(0.25))
    assert search == Guided(8, return_temperature=0.5, weight=0.25)
    assert jax.tree.leaves(search) == [0.5, 0.25]
    shapes = {
        jax.tree.structure(other)
        for other in (
            Guided(8, weight=1.0),
            Guided(8, guidance=AfterChoice()),
            Guided(8, guidance=AfterChoice(np.int64(2))),
            Guided(8, reading=RandomSamples()),
        )
    }
    assert len(shapes) == 4
    assert jax.tree.structure(search) in shapes


def test_a_guided_search_without_guidance_is_the_best_of_the_same():
    settings = {"return_temperature": 0.5, "reading": Quadrature(3), "flow_steps": 2}
    assert Guided(6, **settings).unguided == BestOf(6, **settings)


def test_gradients_are_counted_as_work():
    assert work(Guided(4)) == work(BestOf(4)) + 3 * 4 * 10
    assert work(Guided(4, guidance=AfterChoice(2))) == work(BestOf(4)) + 3 * 2
