"""FQL: a policy of one step, distilled from a flow and trained through critics (Park, Li & Levine 2025).

repeat:
    policy  <- flow matching on the dataset's actions
    critics <- regress on reward + discount mask aggregate_i target_i(x', clip actor(x', e'))
    actor   <- descend alpha |actor(x, e) - action of policy from e|^2 - mean_i critics_i(x, clip actor(x, e))
    targets <- exponential moving averages of the critics
act: clip actor(x, e), one evaluation
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.bc import BASE, check_policy, flow_action
from evor.agents.contract import Agent, Head, one_chunk
from evor.errors import at_least, fraction
from evor.nn.batching import each_example
from evor.nn.critics import Aggregation, Mean, critics_loss, each_value, init_critics, mean_returns, normalised
from evor.nn.learner import Learner, Learning, Metrics, Progress, Tracked, named, weighted_mean
from evor.nn.nets import Mlp
from evor.runtime.records import INLINED
from evor.search.extraction import Prior
from evor.types import Outcome, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Raw:
    """The value in its own units, as in the paper. The right alpha depends on the rewards."""

    def __call__(self, values: Float[Array, " B"]) -> Float[Array, " B"]:
        return values


@dataclass(frozen=True)
class Normalised:
    """The value over its mean absolute value in the batch."""

    def __call__(self, values: Float[Array, " B"]) -> Float[Array, " B"]:
        return normalised(values)


QScale = Raw | Normalised


@dataclass(frozen=True)
class Fql:
    """Flow Q-learning: a policy of one step between a flow over the dataset's actions and the critics."""

    # Networks, rates and steps are the official code's. It has no alpha for all datasets: alpha and q_scale are ours.

    alpha: float = 1.0  # Weight of the distance between the actor's actions and the flow's.
    # Unit of the value that the actor climbs.
    q_scale: QScale = field(default_factory=Normalised)
    # How the critics become one number in targets.
    aggregation: Aggregation = field(default_factory=Mean)
    num_critics: int = 2  # Number of critics.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(
        default=Learning(hidden=(512, 512, 512, 512), final_learning_rate=3e-4), metadata=INLINED
    )  # a constant rate
    target_rate: float = 5e-3  # Rate of the moving averages of the critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps of the flow that the actor is distilled from.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_policy(self)
        at_least(0, alpha=self.alpha)
        at_least(1, num_critics=self.num_critics)
        fraction(target_rate=self.target_rate, discount=self.discount)


# 2. What is learned.


class ActorCritics(NamedTuple):
    """The policy of one step, and the critics that it climbs."""

    actor: Learner
    critics: Tracked


def init_head(config: Fql, spec: Spec, *, key: PRNGKeyArray) -> ActorCritics:
    """An actor of an observation and a noise [O + H], and critics of an observation and an action [O + H]."""
    actor_key, critics_key = jax.random.split(key)
    learning, action_dim = config.learning, spec.action_dim * config.chunk_length
    width = spec.observation_dim + action_dim
    actor = Mlp(width, learning.hidden, action_dim, layer_norm=False, precision=learning.precision, key=actor_key)
    critics = init_critics(
        width, learning.hidden, number=config.num_critics, precision=learning.precision, key=critics_key
    )
    return ActorCritics(actor=Learner(actor), critics=Tracked(critics))


# 3. The mathematics, one transition at a time.


def unclipped(actor: Mlp, observation: Float[Array, " O"], noise: Float[Array, " H"]) -> Float[Array, " H"]:
    """The actor's action for a noise, before it is clipped to [-1, 1]."""
    return actor(jnp.concatenate([observation, noise]))


def backup(
    actor: Mlp,
    targets: Mlp,
    noise: Float[Array, " H"],
    transition: Transition,
    outcome: Outcome,
    aggregation: Aggregation,
) -> Float[Array, ""]:
    """Bootstrap from the actor's own next action, valued by the moving averages of the critics."""
    action = jnp.clip(unclipped(actor, transition.next_observation, noise), -1, 1)
    after = aggregation(each_value(targets, transition.next_observation, action))
    return outcome.reward + outcome.discount * after


class Distilled(NamedTuple):
    """A noise, and the action that the flow makes of it at the same observation."""

    noise: Float[Array, " H"]
    action: Float[Array, " H"]


def distance_and_value(
    actor: Mlp, critics: Mlp, observation: Float[Array, " O"], flow: Distilled
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean squared distance of the actor's action from the flow's, and the critics' mean of it."""
    action = unclipped(actor, observation, flow.noise)
    distance = jnp.mean((action - flow.action) ** 2)
    return distance, each_value(critics, observation, jnp.clip(action, -1, 1)).mean()


# 4. One gradient step.


def hand_over(policy: Learner, batch: Transition, *, config: Fql, key: PRNGKeyArray) -> Distilled:
    """Actions of the flow, drawn once for all tasks."""
    noise = jax.random.normal(key, batch.action.shape)

    def one(observation: Array, noise: Array) -> Array:
        return flow_action(policy.network, observation, noise=noise, flow_steps=config.flow_steps)

    return Distilled(noise=noise, action=each_example(one, batch.observation, noise, rows=1))


def update_head(
    head: ActorCritics,
    batch: Transition,
    *,
    handed: Distilled,
    outcomes: Outcome,
    config: Fql,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[ActorCritics, Metrics]:
    """Regress the critics on the backup; train the actor through the critics as they were before their step."""
    actor, critics = head.actor.network, head.critics.learner.network
    noise = jax.random.normal(key, batch.action.shape)
    rows = (None, None, 0, 0, 0, None)
    targets = jax.vmap(backup, rows)(actor, head.critics.target, noise, batch, outcomes, config.aggregation)

    def of_critics(critics: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(critics_loss, (None, 0, 0))(critics, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    def of_actor(actor: Mlp) -> Float[Array, ""]:
        rows = (None, None, 0, 0)
        distances, values = jax.vmap(distance_and_value, rows)(actor, critics, batch.observation, handed)
        return config.alpha * distances.mean() - config.q_scale(values).mean()

    how = {"learning": config.learning, "progress": progress}
    new_critics, about_critics = head.critics.step(of_critics, target_rate=config.target_rate, **how)
    new_actor, about_actor = head.actor.step(of_actor, **how)
    metrics = named("critic", about_critics | {"target": targets.mean()}) | named("actor", about_actor)
    return ActorCritics(actor=new_actor, critics=new_critics), metrics


# 5. How it acts.


def inference_networks(policy: Learner, head: ActorCritics, *, config: Fql) -> tuple[Mlp, Mlp]:
    """The actor and the online critics. The flow has done its work."""
    return head.actor.network, head.critics.learner.network


def propose(actor: Mlp, observation: Float[Array, " O"], *, flow_steps: int, key: PRNGKeyArray) -> Float[Array, " H"]:
    """One draw in one evaluation, whatever `flow_steps`."""
    noise = jax.random.normal(key, actor.biases[-1].shape)
    return jnp.clip(unclipped(actor, observation, noise), -1, 1)


def default_search(config: Fql) -> Prior:
    """One draw from the actor: the search was done in training."""
    return Prior(flow_steps=1)


AGENT = Agent(
    config=Fql,
    data_spec=one_chunk,
    base=BASE,
    hand_over=hand_over,
    head=Head(init=init_head, update=update_head),
    inference_networks=inference_networks,
    propose=propose,
    returns=mean_returns,
    default_search=default_search,
    presets={"fql": Fql()},
)
