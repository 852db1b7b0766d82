"""The discriminator: what it sees, its two rewards, and the step of the released optimiser."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.errors import EvorError
from evor.imitation import discriminator
from evor.imitation.discriminator import (
    Bounded,
    Entries,
    Everything,
    Free,
    Scale,
    Shown,
    TrueReward,
    features,
    slopes,
)
from evor.imitation.ledge import demonstrated
from evor.nn.learner import Learner
from evor.types import Spec

SPEC = Spec(3, 2)


class Linear(eqx.Module):
    """A cost w . x."""

    weight: jax.Array

    def __call__(self, x):
        return (self.weight @ x)[None]


def shown(learner, expert, lived=(1.0, 1.0)):
    return Shown(jnp.asarray(learner), jnp.asarray(expert), *map(jnp.asarray, lived))


def test_it_sees_what_it_may():
    scale = Scale(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 4.0]))
    observation, action = jnp.array([2.0, 4.0, 7.0]), jnp.array([0.5, -0.5])
    everything = features(observation, action, scale=scale, entries=Everything().entries(SPEC))
    assert everything.tolist() == [1, 1, 1, 0.5, -0.5]
    some = features(observation, action, scale=scale, entries=Entries((2,), (1,)).entries(SPEC))
    assert some.tolist() == [1, -0.5]


@pytest.mark.parametrize(
    ("sees", "told"),
    [
        (Entries((3,), ()), "names entry 3 of the observation, which has entries 0 to 2; leave it out"),
        (Entries((0,), (-1,)), "names entry -1 of the action, which has entries 0 to 1"),
        (Entries((), ()), "names no entry at all"),
    ],
)
def test_entries_that_the_body_lacks_are_refused(sees, told):
    with pytest.raises(EvorError, match=told):
        sees.entries(SPEC)


def test_slopes_of_a_line_are_its_weights_norm():
    rows = np.random.default_rng(0).normal(size=(2, 50, 2)).astype(np.float32)
    norms = slopes(Linear(jnp.array([3.0, 4.0])), shown(*rows), key=jax.random.key(0))
    assert norms == pytest.approx(np.full(50, 5.0), rel=1e-5)


def test_bounded_rewards_add_nothing_after_the_end():
    """Of equal steps, the loss is the difference of the shares of the horizon that were lived."""
    kind, rows = Bounded(max_slope=10.0), np.zeros((8, 2), np.float32)
    loss = kind.loss(Linear(jnp.array([1.0, 0.0])), shown(rows, rows, (0.25, 1.0)), key=jax.random.key(0))
    assert loss == pytest.approx((0.25 - 1) * 0.5)
    assert 0 < kind.reward(jnp.asarray(8.0)) < 1e-3
    assert kind.reward(jnp.asarray(0.0)) == 0.5


def test_a_slope_is_free_up_to_its_bound():
    rows = np.zeros((8, 2), np.float32)
    for weight, excess in (([3.0, 0.0], 0.0), ([0.0, 5.0], 2.0)):
        loss = Bounded(max_slope=3.0).loss(Linear(jnp.array(weight)), shown(rows, rows), key=jax.random.key(0))
        assert loss == pytest.approx(10 * excess**2, abs=1e-5)


@pytest.mark.parametrize("times", [0, 1, 4])
def test_the_released_step_is_along_the_gradients_sign(times):
    """2 first_step / k, of every weight, whatever the gradient's size: the loss is linear but for the penalty."""
    learner = Learner(Linear(jnp.array([0.4, 0.0])))
    rows = np.array([[1.0, 2.0]] * 4, np.float32), np.array([[-1.0, -3.0]] * 4, np.float32)
    kind = Free(first_step=1e-3)
    after, _ = kind.learn(learner, shown(*rows), times=jnp.asarray(times), key=jax.random.key(0))
    length = 2e-3 / max(1, times)
    assert after.network.weight == pytest.approx([0.4 + length, length], abs=1e-7)  # towards costs of the learner
    assert kind.reward(jnp.asarray(3.0)) == -3


@pytest.mark.slow
def test_a_discriminator_tells_two_clouds_apart():
    rows = np.random.default_rng(0).normal(size=(2, 256, 2)).astype(np.float32) * 0.3
    rows[1] += 2
    f = discriminator.init(2, (16, 16), key=jax.random.key(0))
    kind = Bounded()

    def step(f, key):
        return kind.learn(f, shown(*rows), times=jnp.asarray(1), key=key)

    f, _ = jax.lax.scan(step, f, jax.random.split(jax.random.key(1), 60))
    mean = [float(jax.vmap(lambda row: kind.reward(f.network(row)[0]))(jnp.asarray(part)).mean()) for part in rows]
    assert mean[0] < 0.3 < 0.7 < mean[1]
    assert slopes(f.network, shown(*rows), key=jax.random.key(0)).mean() < 1.5 * kind.max_slope


def test_the_true_reward_is_passed_through():
    assert TrueReward().reward(jnp.asarray(5.0), jnp.asarray(1.5)) == 1.5


def test_the_scale_is_the_experts():
    expert = demonstrated("ledge", episodes=1, tremble=0.0)
    scale = discriminator.scale_of(expert, Spec(4, 2))
    assert scale.mean == pytest.approx(expert.observations.mean(axis=0), abs=1e-6)
    assert discriminator.scale_of(None, Spec(4, 2)).std.tolist() == [1, 1, 1, 1]
