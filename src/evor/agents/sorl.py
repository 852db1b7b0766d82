"""SORL (Espinosa-Dice et al. 2025, arXiv 2505.22866): a shortcut model as the actor, trained through its critics.

repeat:
    k       <- 1, 2, 4 or 8 steps, each on a quarter of the rows
    a'      <- actor in k steps at x'
    critics <- regress on reward + discount mask aggregate_i target_i(x', a', k)
    actor   <- c_flow flow matching + c_consistency self-consistency - c_Q mean_i Q_i(x, actor in k steps, k) / mean |Q|
    targets <- exponential moving averages of the critics and of the actor
act: the best of num_candidates draws of actor in flow_steps steps, by the critics
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Agent, Head, PolicySteps, one_chunk
from evor.errors import EvorError, at_least, fraction
from evor.nn.batching import in_blocks
from evor.nn.critics import Aggregation, Mean, each_value, init_critics
from evor.nn.flow import path_velocity
from evor.nn.learner import Learning, Metrics, Progress, Tracked, named, weighted_mean
from evor.nn.nets import Mlp, VelocityField
from evor.nn.shortcut import (
    Start,
    conditioned,
    consistency_target,
    guided,
    sample,
    sample_in_blocks,
    start_of,
    step_counts,
)
from evor.runtime.records import INLINED
from evor.search.extraction import BestOf
from evor.search.readings import Quadrature
from evor.types import Outcome, Spec, Transition

# 1. What can be set.

LEARNING = Learning(hidden=(512,) * 4, learning_rate=1.4e-4, final_learning_rate=1.4e-4, max_gradient_norm=1.0)


@dataclass(frozen=True)
class Sorl:
    """Shortcut model as the actor, trained through critics. Its number of flow steps is chosen when acting."""

    # The paper's, but for the learning rate (docs/agents/sorl.md). agents/environments.py has what differs by environment.

    improvement_weight: float = 100.0  # Weight of the critics' value in the actor's loss (c_Q).
    # How the numbers of the critics become one, in targets and when acting.
    aggregation: Aggregation = field(default_factory=Mean)
    flow_weight: float = 10.0  # Weight of flow matching in the actor's loss.
    consistency_weight: float = 10.0  # Weight of self-consistency in the actor's loss.
    finest_steps: int = 8  # Largest number of flow steps of the actor. A power of two.
    # Largest number of flow steps that the critics are trained for, and that their gradient passes through. A power of two.
    trained_steps: int = 8
    num_critics: int = 2  # Number of critics.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(default=LEARNING, metadata=INLINED)
    target_rate: float = 5e-3  # Rate of the moving averages of actor and critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        at_least(1, num_critics=self.num_critics, chunk_length=self.chunk_length)
        weights = {name: getattr(self, name) for name in ("improvement_weight", "flow_weight", "consistency_weight")}
        at_least(0, **weights)
        fraction(target_rate=self.target_rate, discount=self.discount)
        if self.finest_steps < 2 or self.finest_steps not in self.all_steps:
            raise EvorError(f"finest_steps is {self.finest_steps}; it must be a power of two from 2 on, such as 8.")
        if self.trained_steps not in self.all_steps:
            known = ", ".join(map(str, self.all_steps))
            raise EvorError(f"trained_steps is {self.trained_steps}; it must be one of {known}, up to finest_steps.")
        at_least(len(self.learned_steps), batch_size=self.learning.batch_size)  # a row for each number of steps

    @property
    def all_steps(self) -> tuple[int, ...]:
        """Numbers of flow steps that the actor can take."""
        return step_counts(self.finest_steps)

    @property
    def learned_steps(self) -> tuple[int, ...]:
        """Numbers of flow steps that the critics are trained for."""
        return step_counts(self.trained_steps)

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels at which the actor must agree with two steps of the next finer one."""
        return tuple(reversed(range(len(self.all_steps) - 1)))


# 2. What is learned.


class ActorCritic(NamedTuple):
    """An actor conditioned on (observation, level), and critics of (observation, action, number of steps)."""

    actor: Tracked
    critics: Tracked


def init_head(config: Sorl, spec: Spec, *, key: PRNGKeyArray) -> ActorCritic:
    """Both networks; the level and the number of steps enter as they are."""
    actor_key, critics_key = jax.random.split(key)
    inputs, width = spec.observation_dim + 1, spec.action_dim * config.chunk_length
    hidden, precision, number = config.learning.hidden, config.learning.precision, config.num_critics
    actor = VelocityField(inputs, width, hidden, layer_norm=False, precision=precision, key=actor_key)
    critics = init_critics(inputs + width, hidden, number=number, precision=precision, key=critics_key)
    return ActorCritic(actor=Tracked(actor), critics=Tracked(critics))


# 3. The mathematics, one transition at a time.


def step_values(
    critics: Mlp, observation: Float[Array, " O"], action: Float[Array, " H"], steps: Float[Array, ""]
) -> Float[Array, " E"]:
    """Value that each critic gives to an action that is followed by the actor in so many steps."""
    return each_value(critics, observation, action, steps[None])


def velocity_loss(
    actor: VelocityField, transition: Transition, start: Start, target: Float[Array, " H"]
) -> Float[Array, ""]:
    """Squared error of the average velocity, over the recorded actions."""
    error = conditioned(actor, transition.observation)(*start) - target
    return jnp.sum(transition.action_mask * error**2) / transition.action_mask.sum()


def value_loss(
    critics: Mlp, transition: Transition, steps: Float[Array, ""], target: Float[Array, ""]
) -> Float[Array, ""]:
    """Mean squared error over the critics."""
    return jnp.mean((step_values(critics, transition.observation, transition.action, steps) - target) ** 2)


# 4. One gradient step.


def update_head(
    head: ActorCritic,
    batch: Transition,
    *,
    handed: tuple[()],
    outcomes: Outcome,
    config: Sorl,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[ActorCritic, Metrics]:
    """Make all targets and steps from the networks as they are; then let both moving averages follow."""
    critics_key, actor_key = jax.random.split(key)
    how = {"config": config, "progress": progress}
    critics, of_critics = _update_critics(head, batch, outcomes=outcomes, key=critics_key, **how)
    actor, of_actor = _update_actor(head, batch, key=actor_key, **how)
    return ActorCritic(actor=actor, critics=critics), named("actor", of_actor) | named("critic", of_critics)


def _update_critics(
    head: ActorCritic, batch: Transition, *, outcomes: Outcome, config: Sorl, progress: Progress, key: PRNGKeyArray
) -> tuple[Tracked, Metrics]:
    """Regress on rewards and what the moving averages say of the actor's next action."""
    steps = in_blocks(config.learned_steps, len(outcomes.reward))
    noise = jax.random.normal(key, batch.action.shape)
    next_actions = _in_steps(head.actor.learner.network, batch.next_observation, noise, config=config)

    def target(transition: Transition, outcome: Outcome, action: Array, steps: Array) -> Array:
        after = config.aggregation(step_values(head.critics.target, transition.next_observation, action, steps))
        return outcome.reward + outcome.discount * after

    targets = jax.vmap(target)(batch, outcomes, next_actions, steps)

    def loss(critics: Mlp) -> Float[Array, ""]:
        return weighted_mean(jax.vmap(value_loss, (None, 0, 0, 0))(critics, batch, steps, targets), outcomes.weight)

    critics, metrics = head.critics.step(
        loss, learning=config.learning, progress=progress, target_rate=config.target_rate
    )
    return critics, metrics | {"target": targets.mean()}


def _update_actor(
    head: ActorCritic, batch: Transition, *, config: Sorl, progress: Progress, key: PRNGKeyArray
) -> tuple[Tracked, Metrics]:
    """Imitate in the finest steps, agree with oneself in the coarser ones, and climb the critics through all steps."""
    keys, (rows, _) = jax.random.split(key, 5), batch.action.shape
    flow_noise, consistency_noise, acting_noise = (jax.random.normal(k, batch.action.shape) for k in keys[:3])
    flow_times, consistency_times = (jax.random.uniform(k, (rows,)) for k in keys[3:])
    fine = jax.vmap(start_of)(flow_noise, batch.action, flow_times, jnp.full(rows, float(len(config.levels))))
    coarse = jax.vmap(start_of)(consistency_noise, batch.action, consistency_times, in_blocks(config.levels, rows))
    straight, steps = path_velocity(flow_noise, batch.action), in_blocks(config.learned_steps, rows)

    def halved(observation: Array, start: Start) -> Array:
        return consistency_target(conditioned(head.actor.target, observation), start)

    def value(observation: Array, action: Array, steps: Array) -> Array:
        return step_values(head.critics.learner.network, observation, action, steps).mean()

    agreed = jax.vmap(halved)(batch.observation, coarse)
    twice, starts, velocities = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves), (batch, fine, straight), (batch, coarse, agreed)
    )

    def loss(actor: VelocityField) -> tuple[Float[Array, ""], Metrics]:
        errors = jax.vmap(velocity_loss, (None, 0, 0, 0))(actor, twice, starts, velocities)
        flow, consistency = errors.reshape(2, rows).mean(axis=1)
        actions = _in_steps(actor, batch.observation, acting_noise, config=config)
        values = jax.vmap(value)(batch.observation, actions, steps)
        improvement = -values.mean() / jnp.maximum(jax.lax.stop_gradient(jnp.abs(values).mean()), 1e-6)
        imitation = config.flow_weight * flow + config.consistency_weight * consistency
        parts = {"flow": flow, "consistency": consistency, "value": values.mean()}
        return imitation + config.improvement_weight * improvement, parts

    return head.actor.step(loss, learning=config.learning, progress=progress, target_rate=config.target_rate)


def _in_steps(
    actor: VelocityField, observations: Float[Array, "B O"], noise: Float[Array, "B H"], *, config: Sorl
) -> Float[Array, "B H"]:
    """Draws of the actor, each block of rows in a number of steps of its own."""
    velocity = functools.partial(conditioned, actor)
    return sample_in_blocks(velocity, observations, noise, config.learned_steps)


# 5. How it acts.


def inference_networks(base: tuple[()], head: ActorCritic, *, config: Sorl) -> tuple[VelocityField, Mlp]:
    """The networks as the last gradient step left them."""
    return head.actor.learner.network, head.critics.learner.network


def propose(
    actor: VelocityField, observation: Float[Array, " O"], *, flow_steps: int, key: PRNGKeyArray
) -> Float[Array, " H"]:
    """One draw in so many equal steps, clipped to [-1, 1] once, at the end."""
    return sample(conditioned(actor, observation), jax.random.normal(key, actor.mlp.biases[-1].shape), flow_steps)


def propose_guided(
    actor: VelocityField,
    observation: Float[Array, " O"],
    *,
    guide: Callable[[Float[Array, " H"]], Float[Array, " H"]],
    flow_steps: int,
    key: PRNGKeyArray,
) -> Float[Array, " H"]:
    """The draw of `propose` from the same noise, where `guide` adds to the velocity of each step."""
    velocity = guided(conditioned(actor, observation), guide)
    return sample(velocity, jax.random.normal(key, actor.mlp.biases[-1].shape), flow_steps)


def returns(
    critics: Mlp,
    observation: Float[Array, " O"],
    *,
    action: Float[Array, " H"],
    noises: Float[Array, " Z"],
    config: Sorl,
    flow_steps: int,
) -> Float[Array, " Z"]:
    """One return, whatever the noise: of following the actor in so many steps, or in as many as the critics know."""
    steps = max(count for count in config.learned_steps if count <= flow_steps)
    value = config.aggregation(step_values(critics, observation, action, jnp.float32(steps)))
    return jnp.broadcast_to(value, noises.shape)


def default_search(config: Sorl) -> BestOf:
    """The best of eight in the finest steps."""
    return BestOf(8, reading=Quadrature(1, flow_steps=None), flow_steps=config.finest_steps)


AGENT = Agent(
    config=Sorl,
    data_spec=one_chunk,
    head=Head(init=init_head, update=update_head),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=returns,
    policy_steps=lambda config: PolicySteps(allowed=config.all_steps, valued=config.trained_steps),
    default_search=default_search,
    presets={"sorl": Sorl()},
)
