"""EVOR: a flow base policy proposes, a flow over returns judges, the search happens when acting.

repeat:
    policy <- flow matching on the dataset's actions                     (Eq. 12)
    value  <- flow matching on the objective's target                    (Eq. 13, 18 or 19-20)
    value_target <- exponential moving average of value
act: propose candidates from policy, read their returns from value, choose   (Algorithm 2)
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.bc import check_policy, init_policy, propose, update_policy
from evor.agents.next_action import DatasetAction, NextAction, PolicyAction
from evor.errors import at_least, fraction
from evor.nn.batching import each_example
from evor.nn.flow import AdamsBashforth, Euler, Solver
from evor.nn.learner import ActingValue, EmaValue, Learner, OnlineValue, Tracked, weighted_mean
from evor.nn.nets import VelocityField
from evor.nn.objectives import Draws, FlowTd, ModelReturn, Objective, Regression, ReturnVelocity, SampleBackup, draw
from evor.nn.ops import Precision
from evor.search.extraction import SoftmaxOf
from evor.types import Agent, DataNeeds, Outcome, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Evor:
    """The recipe. Defaults were chosen on evidence (README, results); `--preset paper` is Tables 3-4."""

    objective: Objective = field(default_factory=SampleBackup)
    next_action: NextAction = field(default_factory=DatasetAction)
    acting_value: ActingValue = field(default_factory=EmaValue)
    standardise: bool = True  # observations and returns
    hidden: tuple[int, ...] = (256, 256, 256)
    value_hidden: tuple[int, ...] | None = None  # of the value alone; None: as `hidden`
    return_frequencies: int = 0  # sines and cosines of return and time that enter the value; 4 resolve close atoms
    precision: Precision = "float32"
    batch_size: int = 256
    learning_rate: float = 3e-4  # at the first update ...
    final_learning_rate: float = 0.0  # ... falling linearly to this one at the end of the run
    target_rate: float = 5e-3  # of the value's moving average, per update
    discount: float = 0.99
    flow_steps: int = 10  # evaluations of a velocity, for one action or return
    solver: Solver = field(default_factory=AdamsBashforth)  # of returns; actions are always Euler's
    chunk_length: int = 1  # actions per decision

    def __post_init__(self):
        check_policy(self)
        at_least(1, value_hidden=min(self.value_hidden or (1,)))
        at_least(0, return_frequencies=self.return_frequencies)
        fraction(target_rate=self.target_rate, discount=self.discount)


def needs(config: Evor) -> DataNeeds:
    """n-step sums, and where they bootstrap."""
    return DataNeeds(
        discount=config.discount,
        num_steps=config.objective.n_steps or config.chunk_length,
        chunk_length=config.chunk_length,
        next_action_known=config.next_action.from_data,
        whole_returns=config.objective.whole_returns,
        standardise_observations=config.standardise,
        standardise_returns=config.standardise,
    )


# 2. What is learned.


def init_value(config: Evor, spec: Spec, key: PRNGKeyArray) -> Tracked:
    """A flow over one return, conditioned on an observation and an action [O + H]."""
    field_ = VelocityField(
        spec.observation_dim + spec.action_dim * config.chunk_length,
        1,
        config.hidden if config.value_hidden is None else config.value_hidden,
        layer_norm=True,
        num_frequencies=config.return_frequencies,
        precision=config.precision,
        key=key,
    )
    return Tracked(field_)


# 3. The mathematics, one transition at a time.


def value_loss(value: VelocityField, transition: Transition, target: Regression) -> Float[Array, ""]:
    """Squared error of the return velocity."""
    return (
        return_velocity(value, transition.observation, transition.action, target.point, target.time) - target.velocity
    ) ** 2


def return_velocity(
    value: VelocityField,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    z: Float[Array, ""],
    time: Float[Array, ""],
) -> Float[Array, ""]:
    """d z / d time of one return at (observation, action)."""
    return value(jnp.concatenate([observation, action]), z[None], time)[0]


# 4. One gradient step.


def next_actions(policy: Learner, batch: Transition, config: Evor, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for the action that a target bootstraps from, drawn once for all tasks."""
    return config.next_action.candidates(policy, batch, config, key)


def update_value(
    value: Tracked,
    next_actions: Float[Array, "B C H"],
    batch: Transition,
    outcomes: Outcome,
    config: Evor,
    learning_rate: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Tracked, dict[str, Float[Array, ""]]]:
    """Regress the return's velocity on the objective's target, then let the moving average follow."""

    def target(transition: Transition, outcome: Outcome, actions: Array, draws: Draws, key: PRNGKeyArray) -> Regression:
        def at_next(action: Array, noises: Array, flow_steps: int) -> Array:
            return returns(value.target, transition.next_observation, action, noises, config, flow_steps)

        action = config.next_action.choose(at_next, actions, key)

        def here(z: Array, time: Array) -> Array:
            return return_velocity(value.target, transition.observation, transition.action, z, time)

        def after(z: Array, time: Array) -> Array:
            return return_velocity(value.target, transition.next_observation, action, z, time)

        def solve(velocity: ReturnVelocity, noise: Array) -> Array:
            return config.solver(velocity, noise, config.flow_steps)

        return config.objective(outcome, here, after, draws, solve)

    batch_size = outcomes.weight.shape[0]
    choice_keys = jax.random.split(jax.random.fold_in(key, 2), batch_size)
    draws = draw(key, batch_size)
    targets = each_example(target, batch, outcomes, next_actions, draws, choice_keys, rows=next_actions.shape[1])

    def loss(network: VelocityField) -> Float[Array, ""]:
        losses = jax.vmap(value_loss, (None, 0, 0))(network, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    value, metrics = value.step(loss, learning_rate, config.target_rate)
    return value, metrics | {"target_velocity": targets.velocity.mean()}


# 5. How it acts.


def acting(policy: Learner, value: Tracked, config: Evor) -> tuple[VelocityField, VelocityField]:
    """The two networks that act, without what only training needs."""
    return policy.network, config.acting_value(value)


def returns(
    value: VelocityField,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    noises: Float[Array, " Z"],
    config: Evor,
    flow_steps: int,
) -> Float[Array, " Z"]:
    """Standardised returns: each noise sent through the flow at (observation, action)."""

    def one(noise: Array) -> Array:
        return config.solver(lambda z, time: return_velocity(value, observation, action, z, time), noise, flow_steps)

    return jax.vmap(one)(noises)


def default_search(config: Evor) -> SoftmaxOf:
    """Algorithm 2; by the mean where nothing else is learned (docs/math.md)."""
    expects = isinstance(config.objective, FlowTd) and isinstance(config.objective.z1, ModelReturn)
    return SoftmaxOf(return_temperature=math.inf if expects else 1.0)


AGENT = Agent(
    config=Evor,
    needs=needs,
    init_policy=init_policy,
    init_value=init_value,
    update_policy=update_policy,
    next_actions=next_actions,
    update_value=update_value,
    acting=acting,
    propose=propose,
    returns=returns,
    default_search=default_search,
    presets={
        "default": Evor(),
        # No law, an expectation: the best where behaviour has no errands (docs/results/law-or-mean.md, the cube).
        "flow-td": Evor(objective=FlowTd(n_steps=1), solver=Euler()),
        # Tables 3-4 of the paper; it says nothing of standardisation, so there is none.
        "paper": Evor(
            objective=FlowTd(n_steps=1),
            next_action=PolicyAction(),
            acting_value=OnlineValue(),
            standardise=False,
            hidden=(512, 512, 512, 512),
            precision="float32",
            final_learning_rate=3e-4,  # constant
            solver=Euler(),
        ),
    },
)
