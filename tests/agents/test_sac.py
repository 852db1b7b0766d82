"""SAC: densities, the sign of the temperature, and a bandit whose solution is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evor.agents import sac
from evor.agents.sac import AGENT, Sac
from evor.errors import EvorError
from evor.nn.learner import Learning, Progress
from evor.types import Outcome, Spec, Transition

SPEC = Spec(2, 1)
CONFIG = Sac(learning=Learning(hidden=(16, 16), learning_rate=3e-3, final_learning_rate=3e-3))


def batch_of(observations, actions, rewards, discount=0.0):
    rows = len(rewards)
    zeros = jnp.zeros(rows)
    transition = Transition(
        observation=observations,
        action=actions,
        action_mask=jnp.ones_like(actions),
        next_observation=observations,
        next_action=jnp.zeros_like(actions),
        next_proposals=jnp.zeros((rows, 0, actions.shape[1])),
    )
    return transition, Outcome(rewards, zeros + discount, zeros + 1, zeros, zeros - jnp.inf, zeros + jnp.inf)


def test_densities_integrate_to_one():
    """Of the squashed action: over the noise, 1 / density is what the action's grid is stretched by."""
    head = sac.init(CONFIG, SPEC, key=jax.random.key(0))
    observation = jnp.array([0.3, -0.7])
    noise = jnp.linspace(-8, 8, 4001)[:, None]
    actions, densities = jax.vmap(sac.draw, (None, None, 0))(head.actor.network, observation, noise)
    integral = np.trapezoid(np.exp(np.asarray(densities, np.float64)), np.asarray(actions, np.float64)[:, 0])
    assert integral == pytest.approx(1, abs=1e-3)


def test_the_temperature_rises_where_the_entropy_is_below_its_target():
    slope = jax.grad(sac.temperature_loss)
    assert slope(jnp.asarray(0.0), jnp.asarray(-3.0), -1.0) < 0  # descent raises it
    assert slope(jnp.asarray(0.0), jnp.asarray(1.0), -1.0) > 0


def test_targets_at_the_end_are_the_reward():
    head = sac.init(CONFIG, SPEC, key=jax.random.key(0))
    transition, outcomes = batch_of(jnp.ones((3, 2)), jnp.zeros((3, 1)), jnp.array([1.0, 2.0, -1.0]))
    targets = jax.vmap(sac.target, (None, 0, 0, 0))(head, transition, outcomes, jnp.zeros((3, 1)))
    assert targets.tolist() == [1, 2, -1]


@pytest.mark.slow
def test_on_a_bandit_the_actor_is_the_boltzmann_distribution():
    """Rewards -(a - 0.4)^2 / 2 s^2 at temperature 1 have a normal of standard deviation s as their soft-optimal policy."""
    wanted, std = 0.4, 0.1
    config = Sac(learning=Learning(hidden=(32, 32), batch_size=128, learning_rate=3e-3, final_learning_rate=0.0))
    head = sac.init(config, SPEC, key=jax.random.key(1))
    scale = 0.05  # the temperature that its entropy asks for, which learns, is not 1: only the mean is held to

    def step(head, key):
        drawn, own = jax.random.split(key)
        actions = jax.random.uniform(drawn, (128, 1), minval=-1, maxval=1)
        rewards = -((actions[:, 0] - wanted) ** 2) / (2 * std**2) * scale
        transition, outcomes = batch_of(jnp.zeros((128, 2)), actions, rewards)
        return AGENT.head.update(
            head, transition, handed=(), outcomes=outcomes, config=config, progress=Progress(0, 1), key=own
        )

    head, metrics = jax.lax.scan(step, head, jax.random.split(jax.random.key(2), 1500))
    mean, log_std = sac.gaussian(head.actor.network, jnp.zeros(2))
    assert jnp.tanh(mean[0]) == pytest.approx(wanted, abs=0.06)
    entropy = float(metrics["actor/entropy"][-200:].mean())
    assert entropy == pytest.approx(-1, abs=0.3)  # its target, for one action entry
    assert np.isfinite(float(log_std[0]))


@pytest.mark.parametrize("wrong", [{"discount": 1.5}, {"target_rate": -1.0}, {"first_temperature": 0.0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(EvorError, match=next(iter(wrong))):
        Sac(**wrong)
