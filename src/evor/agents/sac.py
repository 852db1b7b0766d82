"""SAC: an actor that is trained through its critics, with an entropy bonus. It has no base, and interacts as it learns.

repeat:
    a'       <- actor at the next observation
    critics  <- regress on reward + discount (min over critics_target(x', a') - temperature log actor(a' | x'))
    actor    <- ascend min over critics(x, a) - temperature log actor(a | x), a drawn from actor
    temperature rises where the actor's entropy is below its target, and falls where it is above
    critics_target <- exponential moving average of critics
act: one draw from actor, or its mean

`evor imitate` trains it on rewards that a discriminator makes up. On data that stay as they are it is no method.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Agent, Head
from evor.errors import above, fraction, integer
from evor.nn.learner import Learner, Learning, Metrics, Progress, Tracked, named
from evor.nn.nets import Mlp
from evor.runtime.records import INLINED
from evor.search.extraction import Prior
from evor.types import DataSpec, NoBounds, Outcome, Spec, Transition

LOG_STD = (-10.0, 2.0)  # bounds of the logarithm of the standard deviation, before the action is squashed
LEARNING = Learning(hidden=(256, 256), learning_rate=1e-3, final_learning_rate=1e-3)

# 1. What can be set.


@dataclass(frozen=True)
class Sac:
    """Soft actor-critic, for interaction. (It is no method for offline data.)"""

    learning: Learning = field(default=LEARNING, metadata=INLINED)
    target_rate: float = 5e-3  # Rate of the moving average of the critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    first_temperature: float = 1.0  # Weight of the entropy at the first update.
    num_critics: int = 2  # Critics, of which targets take the smallest.

    @property
    def chunk_length(self) -> int:
        """One action per decision."""
        return 1

    def __post_init__(self):
        fraction(target_rate=self.target_rate, discount=self.discount)
        above(0, first_temperature=self.first_temperature)
        integer(1, num_critics=self.num_critics)


def data_spec(config: Sac) -> DataSpec:
    """Ask for single steps, as they are."""
    return DataSpec(
        discount=config.discount,
        num_steps=1,
        chunk_length=1,
        next_action_known=False,
        full_returns=False,
        standardise_observations=False,
        standardise_returns=False,
        return_bounds=NoBounds(),
    )


# 2. What is learned.


class SacHead(eqx.Module):
    """Networks of SAC, each with its own optimiser."""

    actor: Learner  # observation [O] -> mean and log standard deviation [2 A]
    critics: Tracked  # observation and action [O + A] -> a value, E networks along a leading axis
    log_temperature: Learner  # a number


def init(config: Sac, spec: Spec, *, key: PRNGKeyArray) -> SacHead:
    """An untrained actor and its critics."""
    actor_key, critic_key = jax.random.split(key)
    how: dict[str, Any] = {"layer_norm": False, "precision": config.learning.precision}
    hidden, width = config.learning.hidden, spec.observation_dim + spec.action_dim

    def critic(key: PRNGKeyArray) -> Mlp:
        return Mlp(width, hidden, 1, key=key, **how)

    return SacHead(
        actor=Learner(Mlp(spec.observation_dim, hidden, 2 * spec.action_dim, key=actor_key, **how)),
        critics=Tracked(jax.vmap(critic)(jax.random.split(critic_key, config.num_critics))),
        log_temperature=Learner(jnp.asarray(math.log(config.first_temperature), jnp.float32)),
    )


# 3. The mathematics, one transition at a time.


def gaussian(actor: Mlp, observation: Float[Array, " O"]) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
    """Mean and log standard deviation of an action before it is squashed."""
    mean, log_std = jnp.split(actor(observation), 2)
    return mean, jnp.clip(log_std, *LOG_STD)


def draw(
    actor: Mlp, observation: Float[Array, " O"], noise: Float[Array, " A"]
) -> tuple[Float[Array, " A"], Float[Array, ""]]:
    """An action, tanh(mean + std noise), and the logarithm of its density."""
    mean, log_std = gaussian(actor, observation)
    raw = mean + jnp.exp(log_std) * noise
    # log(1 - tanh(u)^2), which overflows nowhere in this form
    squash = 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))
    density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - squash
    return jnp.tanh(raw), density.sum()


def smallest(critics: Mlp, observation: Float[Array, " O"], action: Float[Array, " A"]) -> Float[Array, ""]:
    """The smallest value that a critic gives."""
    return each_value(critics, observation, action).min()


def each_value(critics: Mlp, observation: Float[Array, " O"], action: Float[Array, " A"]) -> Float[Array, " E"]:
    """The value of every critic."""
    together = jnp.concatenate([observation, action])
    return jax.vmap(lambda critic: critic(together)[0])(critics)


def target(head: SacHead, transition: Transition, outcome: Outcome, noise: Float[Array, " A"]) -> Float[Array, ""]:
    """Reward, and the value of the next observation with its entropy bonus."""
    action, density = draw(head.actor.network, transition.next_observation, noise)
    after = smallest(head.critics.target, transition.next_observation, action)
    return outcome.reward + outcome.discount * (after - jnp.exp(head.log_temperature.network) * density)


def critic_loss(critics: Mlp, transition: Transition, wanted: Float[Array, ""]) -> Float[Array, ""]:
    """Squared error, mean over critics."""
    return ((each_value(critics, transition.observation, transition.action) - wanted) ** 2).mean()


def actor_loss(
    actor: Mlp,
    transition: Transition,
    noise: Float[Array, " A"],
    critics: Mlp,
    temperature: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Negative value with the entropy bonus, and the log density of the action."""
    action, density = draw(actor, transition.observation, noise)
    return temperature * density - smallest(critics, transition.observation, action), density


def temperature_loss(log_temperature: Float[Array, ""], entropy: Float[Array, ""], wanted: float) -> Float[Array, ""]:
    """Its gradient is entropy minus target: descent raises the temperature where the entropy is too low."""
    return log_temperature * (entropy - wanted)


# 4. One gradient step.


def update(
    head: SacHead,
    batch: Transition,
    *,
    handed: tuple[()],
    outcomes: Outcome,
    config: Sac,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[SacHead, Metrics]:
    """Train critics, actor and temperature once each. Every row counts: `outcomes.weight` is 1."""
    next_noise, noise = jax.random.normal(key, (2, *batch.action.shape))
    targets = jax.vmap(target, (None, 0, 0, 0))(head, batch, outcomes, next_noise)

    def loss(critics: Mlp) -> Float[Array, ""]:
        return jax.vmap(critic_loss, (None, 0, 0))(critics, batch, targets).mean()

    critics, of_critics = head.critics.step(
        loss, learning=config.learning, progress=progress, target_rate=config.target_rate
    )
    temperature = jnp.exp(head.log_temperature.network)

    def through_critics(actor: Mlp) -> Float[Array, ""]:
        losses, _ = jax.vmap(actor_loss, (None, 0, 0, None, None))(
            actor, batch, noise, critics.learner.network, temperature
        )
        return losses.mean()

    actor, of_actor = head.actor.step(through_critics, learning=config.learning, progress=progress)
    # The density of the actor before its step, again: XLA computes it once.
    _, densities = jax.vmap(draw, (None, 0, 0))(head.actor.network, batch.observation, noise)
    entropy = -densities.mean()

    def towards_target(log_temperature: Array) -> Float[Array, ""]:
        return temperature_loss(log_temperature, entropy, -float(batch.action.shape[1]))

    log_temperature, of_temperature = head.log_temperature.step(
        towards_target, learning=config.learning, progress=progress
    )
    metrics = named("critics", of_critics | {"target": targets.mean()})
    metrics |= named("actor", of_actor | {"entropy": entropy})
    metrics |= named("temperature", of_temperature | {"value": temperature})
    return SacHead(actor=actor, critics=critics, log_temperature=log_temperature), metrics


# 5. How it acts.


def inference_networks(base: tuple[()], head: SacHead, *, config: Sac) -> tuple[Mlp, tuple[()]]:
    """The actor alone."""
    return head.actor.network, base


def propose(policy: Mlp, observation: Float[Array, " O"], *, flow_steps: int, key: PRNGKeyArray) -> Float[Array, " A"]:
    """One draw of the actor."""
    mean, _ = gaussian(policy, observation)
    return draw(policy, observation, jax.random.normal(key, mean.shape))[0]


def default_search(config: Sac) -> Prior:
    """One draw: the actor was trained through the critics."""
    return Prior()


AGENT = Agent(
    config=Sac,
    data_spec=data_spec,
    head=Head(init=init, update=update),
    inference_networks=inference_networks,
    propose=propose,
    default_search=default_search,
    presets={"sac": Sac()},
)
