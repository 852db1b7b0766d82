"""BC: a flow over the dataset's actions. Alone it is the baseline; inside the other agents, their base policy.

repeat:
    policy <- flow matching on the dataset's actions   (Eq. 12)
act: one draw from policy
"""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.errors import at_least
from evor.nn.batching import each_example
from evor.nn.flow import Euler, interpolate, path_velocity
from evor.nn.learner import Learner
from evor.nn.nets import VelocityField
from evor.nn.ops import Precision
from evor.search import extraction
from evor.search.extraction import Prior
from evor.types import Agent, DataNeeds, Outcome, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Bc:
    """Behaviour cloning."""

    standardise: bool = True  # observations
    hidden: tuple[int, ...] = (256, 256, 256)
    precision: Precision = "float32"
    batch_size: int = 256
    learning_rate: float = 3e-4  # at the first update ...
    final_learning_rate: float = 0.0  # ... falling linearly to this one at the end of the run
    flow_steps: int = 10  # evaluations of the velocity, for one action
    chunk_length: int = 1  # actions per decision

    def __post_init__(self):
        check_policy(self)


@runtime_checkable
class PolicyConfig(Protocol):
    """What every agent's config says of its base policy."""

    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def final_learning_rate(self) -> float: ...
    @property
    def flow_steps(self) -> int: ...
    @property
    def chunk_length(self) -> int: ...


def check_policy(config: PolicyConfig) -> None:
    """Raise EvorError where a setting of the base policy is out of range."""
    at_least(1, batch_size=config.batch_size, flow_steps=config.flow_steps, chunk_length=config.chunk_length)
    at_least(1, hidden=min(config.hidden, default=0))
    at_least(0, learning_rate=config.learning_rate, final_learning_rate=config.final_learning_rate)


def needs(config: Bc) -> DataNeeds:
    """No rewards, so nothing of them."""
    return DataNeeds(
        discount=0.0,
        num_steps=config.chunk_length,
        chunk_length=config.chunk_length,
        next_action_known=False,
        whole_returns=False,
        standardise_observations=config.standardise,
        standardise_returns=config.standardise,
    )


# 2. What is learned.


def init_policy(config: PolicyConfig, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A flow over actions [H], conditioned on an observation [O]."""
    field_ = VelocityField(
        spec.observation_dim,
        spec.action_dim * config.chunk_length,
        config.hidden,
        layer_norm=False,
        precision=config.precision,
        key=key,
    )
    return Learner(field_)


def init_value(config: Bc, spec: Spec, key: PRNGKeyArray) -> tuple[()]:
    """Nothing judges."""
    return ()


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
    policy: Learner, batch: Transition, config: PolicyConfig, learning_rate: Float[Array, ""], key: PRNGKeyArray
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """Behaviour cloning; it never sees a reward."""
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, batch.action.shape)
    time = jax.random.uniform(time_key, batch.action.shape[:1])
    return policy.step(
        lambda network: jax.vmap(policy_loss, (None, 0, 0, 0))(network, batch, noise, time).mean(), learning_rate
    )


def next_actions(policy: Learner, batch: Transition, config: Bc, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Return the dataset's own action: nothing is bootstrapped."""
    return batch.next_action[:, None]


def update_value(
    value: tuple[()],
    next_actions: Float[Array, "B C H"],
    batch: Transition,
    outcomes: Outcome,
    config: Bc,
    learning_rate: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[tuple[()], dict[str, Float[Array, ""]]]:
    """Nothing to learn."""
    return value, {}


# 5. How it acts.


def acting(policy: Learner, value: tuple[()], config: Bc) -> tuple[VelocityField, tuple[()]]:
    """The base policy alone."""
    return policy.network, value


def propose(
    policy: VelocityField, observation: Float[Array, " O"], flow_steps: int, key: PRNGKeyArray
) -> Float[Array, " H"]:
    """One draw from the base policy by Euler's steps (Algorithm 3), clipped to [-1, 1] once, at the end.

    They draw the actions a little closer together than the data's, for every agent alike.
    """
    noise = jax.random.normal(key, policy.mlp.biases[-1].shape)
    return jnp.clip(Euler()(lambda action, time: policy(observation, action, time), noise, flow_steps), -1, 1)


def propose_next(
    policy: Learner, batch: Transition, config: PolicyConfig, num_candidates: int, key: PRNGKeyArray
) -> Float[Array, "B C H"]:
    """Draws from the base policy where targets bootstrap."""

    def one(observation: Array, key: Array) -> Array:
        draw = functools.partial(propose, policy.network, observation, config.flow_steps)
        return extraction.propose(draw, num_candidates, key)

    keys = jax.random.split(key, batch.action.shape[0])
    return each_example(one, batch.next_observation, keys, rows=num_candidates)


def default_search(config: Any) -> Prior:
    """There is nothing to search with."""
    return Prior()


AGENT = Agent(
    config=Bc,
    needs=needs,
    init_policy=init_policy,
    init_value=init_value,
    update_policy=update_policy,
    next_actions=next_actions,
    update_value=update_value,
    acting=acting,
    propose=propose,
    returns=None,
    default_search=default_search,
    presets={"bc": Bc()},
)
