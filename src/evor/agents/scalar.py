"""The baseline with a scalar critic: EVOR's policy and targets, with an expectation instead of a return distribution.

policy <- flow matching on the dataset's actions
repeat:
    a_n    <- the best of a few draws of policy, ranked by value
    value  <- regress on sum of n rewards + discount^n mask value_target(x_n, a_n)
    value_target <- exponential moving average of value
act: one of the best proposals by value
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.base import BASE, BaseChoice, OwnFlow, Trained, network_of, usual_candidates, usual_temperature
from evor.agents.bc import check_policy, propose, propose_guided
from evor.agents.contract import Agent, Head
from evor.agents.next_action import BestAction, DatasetAction, NextAction, base_first
from evor.errors import at_least, fraction
from evor.nn.learner import (
    EmaValue,
    Learning,
    Metrics,
    Progress,
    Tracked,
    ValueForActing,
    named,
    weighted_mean,
)
from evor.nn.nets import Mlp
from evor.nn.objectives import clipped
from evor.runtime.records import INLINED
from evor.search.extraction import SoftmaxOf
from evor.search.readings import Quadrature
from evor.types import DataSpec, Outcome, ReturnBounds, RewardBounds, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Scalar:
    """Baseline of evor with a scalar critic: the same but for the return distribution."""

    n_steps: int = 10  # Environment steps whose rewards are summed before the target bootstraps.
    # Where targets take the next action from.
    next_action: NextAction = field(default_factory=BestAction)
    # Which critic scores candidates when acting.
    acting_value: ValueForActing = field(default_factory=EmaValue)
    standardise_observations: bool = True  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = True  # Scale returns to mean 0 and standard deviation 1.
    # Which returns are possible: bootstrapped ones are clipped to them, and predicted ones to the largest.
    return_bounds: ReturnBounds = field(default_factory=RewardBounds)
    learning: Learning = field(default=Learning(), metadata=INLINED)
    target_rate: float = 5e-3  # Rate of the moving average of the critic, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one action.
    chunk_length: int = 1  # Actions per decision.
    # Where candidate actions come from.
    base: BaseChoice = field(default_factory=OwnFlow)

    def __post_init__(self):
        check_policy(self)
        at_least(1, n_steps=self.n_steps)
        fraction(target_rate=self.target_rate, discount=self.discount)


def data_spec(config: Scalar) -> DataSpec:
    """Ask for n-step sums, and say where they bootstrap."""
    return DataSpec(
        discount=config.discount,
        num_steps=config.n_steps,
        chunk_length=config.chunk_length,
        next_action_known=config.next_action.from_data,
        next_action_taken=isinstance(config.next_action, DatasetAction),
        full_returns=False,
        standardise_observations=config.standardise_observations,
        standardise_returns=config.standardise_returns,
        return_bounds=config.return_bounds,
    )


# 2. What is learned.


def init_value(config: Scalar, spec: Spec, *, key: PRNGKeyArray) -> Tracked:
    """A critic of an observation and an action [O + H]."""
    width = spec.observation_dim + spec.action_dim * config.chunk_length
    return Tracked(Mlp(width, config.learning.hidden, 1, layer_norm=True, precision=config.learning.precision, key=key))


# 3. The mathematics, one transition at a time.


def expectation(critic: Mlp, observation: Float[Array, " O"], action: Float[Array, " H"]) -> Float[Array, ""]:
    """Q, standardised."""
    return critic(jnp.concatenate([observation, action]))[0]


def value_loss(critic: Mlp, transition: Transition, target: Float[Array, ""]) -> Float[Array, ""]:
    """Squared error."""
    return (expectation(critic, transition.observation, transition.action) - target) ** 2


# 4. One gradient step.


def hand_over(policy: Trained, batch: Transition, *, config: Scalar, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for the action that a target bootstraps from, drawn once for all tasks."""
    return config.next_action.candidates(policy, batch, config=config, key=key)


def update_value(
    value: Tracked,
    batch: Transition,
    *,
    handed: Float[Array, "B C H"],
    outcomes: Outcome,
    config: Scalar,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[Tracked, Metrics]:
    """Regress on the expected backup, then let the moving average follow."""

    def target(transition: Transition, outcome: Outcome, actions: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        def at_next(action: Array, **how: Any) -> Array:
            online = value.learner.network
            predicted = returns(online, transition.next_observation, action=action, config=config, **how)
            return jnp.minimum(predicted, outcome.return_max)  # not from below: draws would become equal

        action = config.next_action.choose(at_next, actions, flow_steps=config.flow_steps, key=key)
        after = clipped(expectation(value.target, transition.next_observation, action), outcome)
        return outcome.reward + outcome.discount * after

    keys = jax.random.split(key, outcomes.weight.shape[0])
    targets = jax.vmap(target)(batch, outcomes, handed, keys)

    def loss(critic: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(value_loss, (None, 0, 0))(critic, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    value, metrics = value.step(loss, learning=config.learning, progress=progress, target_rate=config.target_rate)
    return value, named("value", metrics | {"target": targets.mean()})


# 5. How it acts.


def inference_networks(policy: Trained, value: Tracked, *, config: Scalar) -> tuple[Any, Mlp]:
    """The two networks that act."""
    return network_of(policy), config.acting_value(value)


def returns(
    critic: Mlp,
    observation: Float[Array, " O"],
    *,
    action: Float[Array, " H"],
    noises: Float[Array, " Z"],
    config: Scalar,
    flow_steps: int,
) -> Float[Array, " Z"]:
    """A scalar knows one return, whatever the noise."""
    return jnp.broadcast_to(expectation(critic, observation, action), noises.shape)


def default_search(config: Scalar) -> SoftmaxOf:
    """EVOR's, by the mean."""
    temperatures = (math.inf, usual_temperature(config.standardise_returns))
    reading = Quadrature(1, flow_steps=None)
    return SoftmaxOf(usual_candidates(config), *temperatures, reading=reading, flow_steps=config.flow_steps)


AGENT = Agent(
    config=Scalar,
    data_spec=data_spec,
    base=BASE,
    base_first=lambda config: base_first(config, config.next_action),
    hand_over=hand_over,
    head=Head(init=init_value, update=update_value),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=returns,
    default_search=default_search,
    presets={"scalar": Scalar()},
)
