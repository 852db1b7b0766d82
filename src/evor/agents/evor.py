"""EVOR: a flow base policy proposes actions, a flow over returns scores them, and the search happens when acting.

policy <- flow matching on the dataset's actions                         (Eq. 12)
repeat:
    a'     <- the best of a few draws of policy, ranked by value
    value  <- flow matching on the objective's target                    (Eq. 13, 18 or 19-20)
    value_target <- exponential moving average of value
act: propose candidates from policy, read their returns from value, choose   (Algorithm 2)
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
from evor.agents.next_action import BestAction, DatasetAction, NextAction, PolicyAction, base_first
from evor.errors import at_least, fraction, widths
from evor.nn.batching import each_example
from evor.nn.ensemble import OneValue, Values
from evor.nn.flow import AdamsBashforth, Euler, Solver
from evor.nn.learner import (
    EmaValue,
    Learning,
    Metrics,
    OnlineValue,
    Progress,
    Tracked,
    ValueForActing,
    named,
    weighted_mean,
)
from evor.nn.nets import VelocityField
from evor.nn.objectives import Draws, FlowTd, Objective, Regression, ReturnVelocity, SampleBackup, bounds_under, draw
from evor.runtime.records import INLINED
from evor.search.extraction import SoftmaxOf
from evor.search.readings import Quadrature
from evor.types import DataSpec, NoBounds, Outcome, ReturnBounds, RewardBounds, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Evor:
    """Flow base policy, return distributions, and a search when acting."""

    # How the return distribution is learned.
    objective: Objective = field(default_factory=SampleBackup)
    # Where targets take the next action from.
    next_action: NextAction = field(default_factory=BestAction)
    # Which return network scores candidates when acting.
    acting_value: ValueForActing = field(default_factory=EmaValue)
    standardise_observations: bool = True  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = True  # Scale returns to mean 0 and standard deviation 1.
    # Which returns are possible: bootstrapped ones are clipped to them, and predicted ones to the largest. FlowTd has none.
    return_bounds: ReturnBounds = field(default_factory=RewardBounds)
    learning: Learning = field(default=Learning(), metadata=INLINED)
    # Widths of the hidden layers of the return network alone. Left out: those of --agent.hidden.
    value_hidden: tuple[int, ...] | None = None
    # Frequencies at which return and time enter the return network. With 4 it resolves returns that are close.
    return_frequencies: int = 0
    # How many return networks there are, and how their returns combine.
    values: Values = field(default_factory=OneValue)
    target_rate: float = 5e-3  # Rate of the moving average of the return network, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one action or return.
    # Solver of the flow of returns. Actions are always solved by Euler's method.
    solver: Solver = field(default_factory=AdamsBashforth)
    chunk_length: int = 1  # Actions per decision.
    # Where candidate actions come from.
    base: BaseChoice = field(default_factory=OwnFlow)

    def __post_init__(self):
        check_policy(self)
        if self.value_hidden is not None:
            widths(value_hidden=self.value_hidden)
        at_least(0, return_frequencies=self.return_frequencies)
        fraction(target_rate=self.target_rate, discount=self.discount)
        bounds_under(self.objective, self.return_bounds)

    @property
    def bootstraps_with(self) -> NextAction:
        """The source of the next action; the dataset, which costs nothing, where no target bootstraps."""
        return DatasetAction() if self.objective.n_steps is None else self.next_action


def data_spec(config: Evor) -> DataSpec:
    """Ask for n-step sums, and say where they bootstrap."""
    return DataSpec(
        discount=config.discount,
        num_steps=config.objective.n_steps or config.chunk_length,
        chunk_length=config.chunk_length,
        next_action_known=config.bootstraps_with.from_data,
        next_action_taken=isinstance(config.bootstraps_with, DatasetAction),
        full_returns=config.objective.full_returns,
        standardise_observations=config.standardise_observations,
        standardise_returns=config.standardise_returns,
        return_bounds=bounds_under(config.objective, config.return_bounds),
    )


# 2. What is learned.


def init_value(config: Evor, spec: Spec, *, key: PRNGKeyArray) -> Tracked:
    """A flow over one return, conditioned on an observation and an action [O + H]; several lie along a leading axis."""

    def one(key: PRNGKeyArray) -> VelocityField:
        return VelocityField(
            spec.observation_dim + spec.action_dim * config.chunk_length,
            1,
            config.learning.hidden if config.value_hidden is None else config.value_hidden,
            layer_norm=True,
            num_frequencies=config.return_frequencies,
            precision=config.learning.precision,
            key=key,
        )

    if config.values.number == 1:
        return Tracked(one(key))
    return Tracked(jax.vmap(one)(jax.random.split(key, config.values.number)))


# 3. The mathematics, one transition at a time.


def value_loss(value: VelocityField, transition: Transition, target: Regression) -> Float[Array, ""]:
    """Squared error of the return velocity."""
    velocity = return_velocity(value, transition.observation, transition.action, target.point, target.time)
    return (velocity - target.velocity) ** 2


def return_velocity(
    value: VelocityField,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    z: Float[Array, ""],
    time: Float[Array, ""],
) -> Float[Array, ""]:
    """Velocity d z / d time of one return at (observation, action)."""
    return value(jnp.concatenate([observation, action]), z[None], time)[0]


def each_velocity(
    values: VelocityField,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    z: Float[Array, "*E"],
    time: Float[Array, ""],
) -> Float[Array, "*E"]:
    """Velocities of several return networks at returns of their own; of one network at one return."""
    if not z.ndim:
        return return_velocity(values, observation, action, z, time)
    return jax.vmap(return_velocity, (0, None, None, 0, None))(values, observation, action, z, time)


def start(config: Evor, noise: Float[Array, ""]) -> Float[Array, "*E"]:
    """The noise that every return network starts from."""
    return noise if config.values.number == 1 else jnp.broadcast_to(noise, (config.values.number,))


# 4. One gradient step.


def hand_over(policy: Trained, batch: Transition, *, config: Evor, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for the action that a target bootstraps from, drawn once for all tasks."""
    return config.bootstraps_with.candidates(policy, batch, config=config, key=key)


def update_value(
    value: Tracked,
    batch: Transition,
    *,
    handed: Float[Array, "B C H"],
    outcomes: Outcome,
    config: Evor,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[Tracked, Metrics]:
    """Regress the return's velocity on the objective's target, then let the moving average follow."""

    def choose(transition: Transition, outcome: Outcome, actions: Array, key: PRNGKeyArray) -> Array:
        def at_next(action: Array, **how: Any) -> Array:
            online = value.learner.network
            predicted = returns(online, transition.next_observation, action=action, config=config, **how)
            return jnp.minimum(predicted, outcome.return_max)  # not from below: draws would become equal

        return config.bootstraps_with.choose(at_next, actions, flow_steps=config.flow_steps, key=key)

    def target(transition: Transition, outcome: Outcome, action: Array, draws: Draws) -> Regression:
        def velocity(observation: Array, action: Array) -> ReturnVelocity:
            def at(z: Array, time: Array) -> Array:
                if z.ndim or config.values.number == 1:
                    return each_velocity(value.target, observation, action, z, time)
                return config.values.combine(each_velocity(value.target, observation, action, start(config, z), time))

            return at

        here = velocity(transition.observation, transition.action)
        after = velocity(transition.next_observation, action)

        def solve(velocity: ReturnVelocity, noise: Array) -> Array:
            return config.values.combine(config.solver(velocity, start(config, noise), config.flow_steps))

        return config.objective(outcome, here, after, draws, solve)

    batch_size = outcomes.weight.shape[0]
    choice_keys = jax.random.split(jax.random.fold_in(key, 2), batch_size)
    actions = each_example(choose, batch, outcomes, handed, choice_keys, rows=handed.shape[1])
    targets = each_example(target, batch, outcomes, actions, draw(key, batch_size), rows=1)

    def loss(network: VelocityField) -> Float[Array, ""]:
        def of_one(network: VelocityField) -> Array:
            losses = jax.vmap(value_loss, (None, 0, 0))(network, batch, targets)
            return weighted_mean(losses, outcomes.weight)

        return of_one(network) if config.values.number == 1 else jax.vmap(of_one)(network).mean()

    value, metrics = value.step(loss, learning=config.learning, progress=progress, target_rate=config.target_rate)
    return value, named("value", metrics | {"target_velocity": targets.velocity.mean()})


# 5. How it acts.


def inference_networks(policy: Trained, value: Tracked, *, config: Evor) -> tuple[Any, VelocityField]:
    """The two networks that act, without what only training needs."""
    return network_of(policy), config.acting_value(value)


def returns(
    value: VelocityField,
    observation: Float[Array, " O"],
    *,
    action: Float[Array, " H"],
    noises: Float[Array, " Z"],
    config: Evor,
    flow_steps: int,
) -> Float[Array, " Z"]:
    """Standardised returns: each noise sent through the flow at (observation, action)."""

    def one(noise: Array) -> Array:
        ends = config.solver(
            lambda z, time: each_velocity(value, observation, action, z, time), start(config, noise), flow_steps
        )
        return config.values.combine(ends)

    return jax.vmap(one)(noises)


def default_search(config: Evor) -> SoftmaxOf:
    """Algorithm 2, by the mean where nothing else is learned (docs/math.md)."""
    expects = isinstance(config.objective, FlowTd) and not config.objective.full_returns
    temperatures = (math.inf if expects else 1.0, usual_temperature(config.standardise_returns))
    # Few steps are enough for a solver of second order alone.
    reading = Quadrature(10, flow_steps=None) if isinstance(config.solver, Euler) else Quadrature()
    return SoftmaxOf(usual_candidates(config), *temperatures, reading=reading, flow_steps=config.flow_steps)


AGENT = Agent(
    config=Evor,
    data_spec=data_spec,
    base=BASE,
    base_first=lambda config: base_first(config, config.bootstraps_with),
    hand_over=hand_over,
    head=Head(init=init_value, update=update_value),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=returns,
    default_search=default_search,
    presets={
        "default": Evor(),
        # It learns an expectation: the best where behaviour has no unobserved goal (docs/results/law-or-mean.md, the cube).
        "flow-td": Evor(objective=FlowTd(n_steps=1), next_action=DatasetAction(), solver=Euler()),
        # Tables 3-4 of the paper; it says nothing of standardisation, so there is none.
        "paper": Evor(
            objective=FlowTd(n_steps=1),
            next_action=PolicyAction(),
            acting_value=OnlineValue(),
            standardise_observations=False,
            standardise_returns=False,
            return_bounds=NoBounds(),
            learning=Learning(hidden=(512, 512, 512, 512), final_learning_rate=3e-4),  # a constant rate
            solver=Euler(),
        ),
    },
)
