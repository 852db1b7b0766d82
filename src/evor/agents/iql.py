"""IQL: implicit Q-learning (Kostrikov, Nair & Levine 2022), the actor by weighted imitation.

repeat:
    value   <- expectile regression on min_i target_i(x, a)
    critics <- regress on reward + discount mask value(x')
    actor   <- imitate the data, each action with weight min(exp(alpha (min_i critics_i(x, a) - value(x))), 100)
    targets <- exponential moving averages of the critics
act: clip actor(x)
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Agent, Head, one_chunk
from evor.agents.implicit import (
    ValueAndCritics,
    check_implicit,
    init_values,
    state_value,
    update_values,
)
from evor.errors import at_least
from evor.nn.critics import least_returns, least_value
from evor.nn.learner import Learner, Learning, Metrics, Progress, named, weighted_mean
from evor.nn.nets import Mlp, scale_last_layer
from evor.runtime.records import INLINED
from evor.search.extraction import Prior
from evor.types import Outcome, Spec, Transition

LARGEST_WEIGHT = 100.0  # of an action that the actor imitates
LAST_LAYER = 0.1  # of the actor at the start: the official code takes a hundredth of the variance

# 1. What can be set.


@dataclass(frozen=True)
class Iql:
    """Implicit Q-learning: an actor that imitates the better actions of the data."""

    # Networks and rates are the official code's. Its alpha of 10, which the paper tunes, is ours for all datasets.

    alpha: float = 10.0  # How strongly better actions are preferred: 0 imitates all alike.
    # Weight of errors where the critics are above the value. 0.5 is the mean; towards 1 it is the best of the data.
    expectile: float = 0.9
    num_critics: int = 2  # Number of critics. The least of them counts.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(
        default=Learning(hidden=(512, 512, 512, 512), final_learning_rate=3e-4), metadata=INLINED
    )  # a constant rate
    target_rate: float = 5e-3  # Rate of the moving averages of the critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_implicit(self)
        at_least(0, alpha=self.alpha)


# 2. What is learned.


class ActorAndValues(NamedTuple):
    """The mean of a normal policy, and the values that weigh what it imitates."""

    actor: Learner
    values: ValueAndCritics


def init_head(config: Iql, spec: Spec, *, key: PRNGKeyArray) -> ActorAndValues:
    """An actor of an observation [O], a value and critics."""
    actor_key, values_key = jax.random.split(key)
    learning, width = config.learning, spec.action_dim * config.chunk_length
    actor = Mlp(
        spec.observation_dim, learning.hidden, width, layer_norm=False, precision=learning.precision, key=actor_key
    )
    return ActorAndValues(
        actor=Learner(scale_last_layer(actor, LAST_LAYER)), values=init_values(config, spec, key=values_key)
    )


# 3. The mathematics, one transition at a time.


def log_density(actor: Mlp, transition: Transition) -> Float[Array, ""]:
    """Log-density of the dataset's action under a normal distribution with standard deviation 1."""
    squares = (transition.action - actor(transition.observation)) ** 2
    return -0.5 * jnp.sum(transition.action_mask * (squares + math.log(2 * math.pi)))


def imitation_weight(value: Mlp, critics: Mlp, transition: Transition, alpha: float) -> Float[Array, ""]:
    """The weight of the dataset's action: exp(alpha advantage), at most 100."""
    here = least_value(critics, transition.observation, transition.action)
    advantage = here - state_value(value, transition.observation)
    return jnp.exp(jnp.minimum(alpha * advantage, math.log(LARGEST_WEIGHT)))


# 4. One gradient step.


def update_head(
    head: ActorAndValues,
    batch: Transition,
    *,
    handed: tuple[()],
    outcomes: Outcome,
    config: Iql,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[ActorAndValues, Metrics]:
    """Train the values, and the actor with weights of the values as they were before their step."""
    value, critics = head.values.value.network, head.values.critics.learner.network
    weights = jax.vmap(imitation_weight, (None, None, 0, None))(value, critics, batch, config.alpha)

    def of_actor(actor: Mlp) -> Float[Array, ""]:
        losses = -weights * jax.vmap(log_density, (None, 0))(actor, batch)
        return weighted_mean(losses, outcomes.weight)

    values, about_values = update_values(head.values, batch, outcomes=outcomes, config=config, progress=progress)
    actor, about_actor = head.actor.step(of_actor, learning=config.learning, progress=progress)
    metrics = about_values | named("actor", about_actor | {"weight": weights.mean()})
    return ActorAndValues(actor=actor, values=values), metrics


# 5. How it acts.


def inference_networks(base: tuple[()], head: ActorAndValues, *, config: Iql) -> tuple[Mlp, Mlp]:
    """The actor and the online critics."""
    return head.actor.network, head.values.critics.learner.network


def propose(actor: Mlp, observation: Float[Array, " O"], *, flow_steps: int, key: PRNGKeyArray) -> Float[Array, " H"]:
    """The mean of the policy, clipped to [-1, 1], whatever the key."""
    return jnp.clip(actor(observation), -1, 1)


def default_search(config: Iql) -> Prior:
    """The actor's one action: among equal candidates there is nothing to search."""
    return Prior(flow_steps=1)


AGENT = Agent(
    config=Iql,
    data_spec=one_chunk,
    head=Head(init=init_head, update=update_head),
    inference_networks=inference_networks,
    propose=propose,
    returns=least_returns,
    default_search=default_search,
    presets={"iql": Iql()},
)
