"""BC: a flow over the dataset's actions. Alone it is the baseline; inside the other agents, their base policy.

repeat:
    policy <- flow matching on the dataset's actions   (Eq. 12)
act: one draw from policy
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Agent, Base, Config, Propose
from evor.errors import at_least
from evor.nn.batching import each_example
from evor.nn.flow import Euler, Solve, Velocity, interpolate, path_velocity
from evor.nn.learner import Learner, Learning, Metrics, Progress, named
from evor.nn.nets import VelocityField
from evor.runtime.records import INLINED
from evor.search import extraction
from evor.search.extraction import Prior
from evor.types import DataSpec, NoBounds, Spec, Transition

EULER = Euler()  # of actions

# 1. What can be set.


@dataclass(frozen=True)
class Bc:
    """Behaviour cloning, without rewards and without a search."""

    standardise_observations: bool = True  # Scale observations to mean 0 and standard deviation 1.
    learning: Learning = field(default=Learning(), metadata=INLINED)
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one action.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_policy(self)


@runtime_checkable
class FlowPolicy(Config, Protocol):
    """Settings that every agent with this base policy has."""

    @property
    def flow_steps(self) -> int: ...


def check_policy(config: FlowPolicy) -> None:
    """Raise EvorError where a setting of the base policy is out of range."""
    at_least(1, flow_steps=config.flow_steps, chunk_length=config.chunk_length)


def data_spec(config: Bc) -> DataSpec:
    """Actions in chunks, and nothing of rewards."""
    return DataSpec(
        discount=0.0,
        num_steps=config.chunk_length,
        chunk_length=config.chunk_length,
        next_action_known=False,
        full_returns=False,
        standardise_observations=config.standardise_observations,
        standardise_returns=False,
        return_bounds=NoBounds(),
    )


# 2. What is learned.


def init_policy(config: FlowPolicy, spec: Spec, *, key: PRNGKeyArray) -> Learner:
    """A flow over actions [H], conditioned on an observation [O]."""
    field_ = VelocityField(
        spec.observation_dim,
        spec.action_dim * config.chunk_length,
        config.learning.hidden,
        layer_norm=False,
        precision=config.learning.precision,
        key=key,
    )
    return Learner(field_)


# 3. The mathematics, one transition at a time.


def policy_loss(
    policy: VelocityField, transition: Transition, noise: Float[Array, " H"], time: Float[Array, ""]
) -> Float[Array, ""]:
    """Squared error of the velocity on the straight path from noise to the dataset's action (Eq. 12)."""
    point = interpolate(noise, transition.action, time)
    error = policy(transition.observation, point, time) - path_velocity(noise, transition.action)
    return jnp.sum(transition.action_mask * error**2) / transition.action_mask.sum()


# 4. One gradient step.


def update_policy(
    policy: Learner, batch: Transition, *, config: FlowPolicy, progress: Progress, key: PRNGKeyArray
) -> tuple[Learner, Metrics]:
    """Behaviour cloning; it never sees a reward."""
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, batch.action.shape)
    time = jax.random.uniform(time_key, batch.action.shape[:1])

    def loss(network: VelocityField) -> Float[Array, ""]:
        return jax.vmap(policy_loss, (None, 0, 0, 0))(network, batch, noise, time).mean()

    policy, metrics = policy.step(loss, learning=config.learning, progress=progress)
    return policy, named("policy", metrics)


# 5. How it acts.


def propose(
    policy: VelocityField,
    observation: Float[Array, " O"],
    *,
    flow_steps: int,
    key: PRNGKeyArray,
    solve: Solve = EULER,
) -> Float[Array, " H"]:
    """One draw from the base policy, clipped to [-1, 1] once, at the end.

    Euler's steps draw the actions a little closer together than the data's, for every agent alike.
    """
    return flow_action(policy, observation, noise=noise_of(policy, key), flow_steps=flow_steps, solve=solve)


def flow_action(
    policy: VelocityField,
    observation: Float[Array, " O"],
    *,
    noise: Float[Array, " H"],
    flow_steps: int,
    solve: Solve = EULER,
) -> Float[Array, " H"]:
    """The action that the flow makes of a noise by Euler's steps (Algorithm 3), clipped to [-1, 1]."""

    def velocity(action: Float[Array, " H"], time: Float[Array, ""]) -> Float[Array, " H"]:
        return policy(observation, action, time)

    return jnp.clip(solve(velocity, noise, flow_steps), -1, 1)


def propose_guided(
    policy: VelocityField,
    observation: Float[Array, " O"],
    *,
    guide: Callable[[Float[Array, " H"]], Float[Array, " H"]],
    flow_steps: int,
    key: PRNGKeyArray,
    solve: Solve = EULER,
) -> Float[Array, " H"]:
    """The draw of `propose` from the same noise, where `guide` adds to the velocity of each step.

    It sees the action that the step foresees. It is not differentiated, nor is the flow.
    """
    velocity = guided_velocity(policy, observation, guide=guide)
    return jnp.clip(solve(velocity, noise_of(policy, key), flow_steps), -1, 1)


def noise_of(policy: VelocityField, key: PRNGKeyArray) -> Float[Array, " H"]:
    """A noise as wide as the policy's actions."""
    return jax.random.normal(key, policy.mlp.biases[-1].shape)


def guided_velocity(
    policy: VelocityField, observation: Float[Array, " O"], *, guide: Callable[[Float[Array, " H"]], Float[Array, " H"]]
) -> Velocity:
    """The policy's velocity with what `guide` adds at the action that a step foresees."""

    def velocity(action: Float[Array, " H"], time: Float[Array, ""]) -> Float[Array, " H"]:
        own = policy(observation, action, time)
        return own + guide(jnp.clip(action + (1 - time) * own, -1, 1))

    return velocity


def propose_next(
    policy: Learner,
    batch: Transition,
    *,
    config: FlowPolicy,
    num_candidates: int,
    key: PRNGKeyArray,
    by: Propose = propose,
) -> Float[Array, "B C H"]:
    """Draws from the base policy where targets bootstrap, each made as `by` makes it."""

    def one(observation: Array, key: Array) -> Array:
        def draw(key: Array) -> Array:
            return by(policy.network, observation, flow_steps=config.flow_steps, key=key)

        return extraction.propose(draw, num_candidates, key=key)

    keys = jax.random.split(key, batch.action.shape[0])
    return each_example(one, batch.next_observation, keys, rows=num_candidates)


def inference_networks(policy: Learner, head: tuple[()], *, config: Bc) -> tuple[VelocityField, tuple[()]]:
    """The base policy alone."""
    return policy.network, head


def default_search(config: Bc) -> Prior:
    """One draw from the base policy: nothing scores."""
    return Prior(flow_steps=config.flow_steps)


BASE = Base(init=init_policy, update=update_policy)

AGENT = Agent(
    config=Bc,
    data_spec=data_spec,
    base=BASE,
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    default_search=default_search,
    presets={"bc": Bc()},
)
