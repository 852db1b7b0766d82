"""A value and critics that are never asked for actions outside the data: what IQL and IFQL share.

value   <- expectile regression on min_i target_i(x, a)
critics <- regress on reward + discount mask value(x')
targets <- exponential moving averages of the critics
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.contract import Config
from evor.errors import at_least, fraction
from evor.nn.critics import each_value, init_critics, least_value
from evor.nn.learner import Learner, Metrics, Progress, Tracked, named, weighted_mean
from evor.nn.nets import Mlp
from evor.types import Outcome, Spec, Transition

# 1. What can be set.


class Implicit(Config, Protocol):
    """Settings that every agent with this value has."""

    @property
    def expectile(self) -> float: ...
    @property
    def num_critics(self) -> int: ...
    @property
    def standardise_observations(self) -> bool: ...
    @property
    def standardise_returns(self) -> bool: ...
    @property
    def target_rate(self) -> float: ...
    @property
    def discount(self) -> float: ...


def check_implicit(config: Implicit) -> None:
    """Raise EvorError where a setting of the value or of the critics is out of range."""
    at_least(1, num_critics=config.num_critics, chunk_length=config.chunk_length)
    fraction(expectile=config.expectile, target_rate=config.target_rate, discount=config.discount)


# 2. What is learned.


class ValueAndCritics(NamedTuple):
    """The value of a state, and critics of a state and an action."""

    value: Learner
    critics: Tracked


def init_values(config: Implicit, spec: Spec, *, key: PRNGKeyArray) -> ValueAndCritics:
    """A value of an observation [O], and critics of an observation and an action [O + H]."""
    value_key, critics_key = jax.random.split(key)
    learning, width = config.learning, spec.observation_dim + spec.action_dim * config.chunk_length
    value = Mlp(spec.observation_dim, learning.hidden, 1, layer_norm=True, precision=learning.precision, key=value_key)
    critics = init_critics(
        width, learning.hidden, number=config.num_critics, precision=learning.precision, key=critics_key
    )
    return ValueAndCritics(value=Learner(value), critics=Tracked(critics))


# 3. The mathematics, one transition at a time.


def state_value(value: Mlp, observation: Float[Array, " O"]) -> Float[Array, ""]:
    """V, standardised."""
    return value(observation)[0]


def value_loss(value: Mlp, transition: Transition, target: Float[Array, ""], expectile: float) -> Float[Array, ""]:
    """Squared error, weighted by `expectile` where the target is the larger and by 1 - `expectile` where it is not."""
    error = target - state_value(value, transition.observation)
    return jnp.where(error >= 0, expectile, 1 - expectile) * error**2


def critics_loss(critics: Mlp, transition: Transition, target: Float[Array, ""]) -> Float[Array, ""]:
    """Sum of the squared errors of the critics."""
    return jnp.sum((each_value(critics, transition.observation, transition.action) - target) ** 2)


# 4. One gradient step.


def update_values(
    values: ValueAndCritics, batch: Transition, *, outcomes: Outcome, config: Implicit, progress: Progress
) -> tuple[ValueAndCritics, Metrics]:
    """Regress the value on the critics' moving averages, and the critics on the value as it was before its step."""
    value, averages = values.value.network, values.critics.target
    highs = jax.vmap(least_value, (None, 0, 0))(averages, batch.observation, batch.action)
    after = jax.vmap(state_value, (None, 0))(value, batch.next_observation)
    targets = outcomes.reward + outcomes.discount * after

    def of_value(value: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(value_loss, (None, 0, 0, None))(value, batch, highs, config.expectile)
        return weighted_mean(losses, outcomes.weight)

    def of_critics(critics: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(critics_loss, (None, 0, 0))(critics, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    new_value, about_value = values.value.step(of_value, learning=config.learning, progress=progress)
    new_critics, about_critics = values.critics.step(
        of_critics, learning=config.learning, progress=progress, target_rate=config.target_rate
    )
    metrics = named("value", about_value) | named("critic", about_critics | {"target": targets.mean()})
    return ValueAndCritics(value=new_value, critics=new_critics), metrics
