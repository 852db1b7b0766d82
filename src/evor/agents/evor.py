"""EVOR: a flow base policy proposes, a flow over returns judges, the search happens when acting.

repeat:
    policy <- flow matching on the dataset's actions                     (Eq. 12)
    value  <- flow matching on the objective's target                    (Eq. 13, 18 or 19-20)
    value_target <- exponential moving average of value
act: propose candidates from policy, read their returns from value, choose   (Algorithm 2)
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.errors import EvorError, at_least
from evor.extract import candidates, judge
from evor.flow import Euler, Solver, interpolate, path_velocity
from evor.learner import Learner, track
from evor.nets import Precision, VelocityField
from evor.types import Agent, Outcome, Spec, Transition
from evor.value import Draws, Objective, Quadrature, Reading, Regression, ReturnVelocity, SampleBackup, draw

# 1. What can be set.


# Where the action a_n comes from that a target bootstraps from: candidates, drawn once for all tasks, and the choice.


def _take_first(
    self: Any, returns: Callable[..., Float[Array, " Z"]], actions: Float[Array, "C H"], key: PRNGKeyArray
) -> Float[Array, " H"]:
    return actions[0]


@dataclass(frozen=True)
class DatasetAction:
    """a_n is the dataset's own action: a sample of the behaviour policy at no cost (SARSA)."""

    from_data = True

    def candidates(
        self, policy: Learner, batch: Transition, config: "Evor", key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return batch.next_action[:, None]

    choose = _take_first


@dataclass(frozen=True)
class PolicyAction:
    """a_n ~ base policy at the bootstrap state (Algorithm 1)."""

    from_data = False

    def candidates(
        self, policy: Learner, batch: Transition, config: "Evor", key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return _proposals(policy, batch, config, 1, key)

    choose = _take_first


@dataclass(frozen=True)
class Searched:
    """a_n is the best of a few base-policy draws by the value's moving average: policy iteration, so n_steps = 1.

    The default reading is the cheapest there is: one velocity evaluation at noise 0. Its law is then the improved
    policy's, not the behaviour's.
    """

    num_candidates: int = 4
    return_temperature: float = math.inf  # tau_R
    reading: Reading = field(default_factory=lambda: Quadrature(1))
    flow_steps: int = 1  # of the reading

    from_data = False

    def __post_init__(self):
        at_least(1, num_candidates=self.num_candidates, flow_steps=self.flow_steps)
        at_least(0, return_temperature=self.return_temperature)

    def candidates(
        self, policy: Learner, batch: Transition, config: "Evor", key: PRNGKeyArray
    ) -> Float[Array, "B C H"]:
        return _proposals(policy, batch, config, self.num_candidates, key)

    def choose(
        self, returns: Callable[..., Float[Array, " Z"]], actions: Float[Array, "C H"], key: PRNGKeyArray
    ) -> Float[Array, " H"]:
        def flowed(action: Array, noises: Array) -> Array:
            return returns(action, noises, self.flow_steps)

        return actions[jnp.argmax(judge(self.reading, self.return_temperature, actions, flowed, key))]


NextAction = DatasetAction | PolicyAction | Searched


def _proposals(
    policy: Learner, batch: Transition, config: "Evor", num_candidates: int, key: PRNGKeyArray
) -> Float[Array, "B C H"]:
    """Draws of the base policy at the bootstrap states."""

    def one(observation: Array, key: Array) -> Array:
        draw_one = functools.partial(propose, policy.network, observation, config, config.flow_steps)
        return candidates(draw_one, num_candidates, key)

    return jax.vmap(one)(batch.next_observation, jax.random.split(key, batch.action.shape[0]))


@dataclass(frozen=True)
class OnlineValue:
    """The value as the last gradient step left it (the paper's)."""

    def __call__(self, value: "Value") -> VelocityField:
        return value.learner.network


@dataclass(frozen=True)
class EmaValue:
    """The value's moving average: single checkpoints of the online value oscillate, this one is steadier."""

    def __call__(self, value: "Value") -> VelocityField:
        return value.target


ActingValue = OnlineValue | EmaValue


@dataclass(frozen=True)
class Evor:
    """The recipe. Defaults were chosen on evidence (README, results); `--preset paper` is Tables 3-4 to the letter."""

    objective: Objective = field(default_factory=SampleBackup)
    next_action: NextAction = field(default_factory=DatasetAction)
    acting_value: ActingValue = field(default_factory=EmaValue)
    standardise: bool = True  # observations and returns
    hidden: tuple[int, ...] = (256, 256, 256)
    return_frequencies: int = 0  # sines and cosines of return and time that enter the value; 4 resolve close atoms
    precision: Precision = "float32"
    batch_size: int = 256
    learning_rate: float = 3e-4  # at the first update ...
    final_learning_rate: float = 0.0  # ... falling linearly to this one at the end of the run
    target_rate: float = 5e-3  # of the value's moving average, per update
    discount: float = 0.99
    flow_steps: int = 10  # evaluations of a velocity, for one action or return
    solver: Solver = field(default_factory=Euler)
    chunk_length: int = 1  # actions per decision

    def __post_init__(self):
        at_least(1, batch_size=self.batch_size, flow_steps=self.flow_steps, chunk_length=self.chunk_length)
        at_least(1, hidden=min(self.hidden, default=0))
        at_least(0, learning_rate=self.learning_rate, final_learning_rate=self.final_learning_rate)
        at_least(0, return_frequencies=self.return_frequencies)
        at_least(0, target_rate=self.target_rate, discount=self.discount)
        for name in ("target_rate", "discount"):
            if getattr(self, name) > 1:
                raise EvorError(f"{name} is {getattr(self, name)}; it must not exceed 1.")


# 2. What is learned.


class Value(eqx.Module):
    """The return law's velocity field and its moving average."""

    learner: Learner
    target: VelocityField


def init_policy(config: Evor, spec: Spec, key: PRNGKeyArray) -> Learner:
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


def init_value(config: Evor, spec: Spec, key: PRNGKeyArray) -> Value:
    """A flow over one return, conditioned on an observation and an action [O + H]."""
    field_ = VelocityField(
        spec.observation_dim + spec.action_dim * config.chunk_length,
        1,
        config.hidden,
        layer_norm=True,
        num_frequencies=config.return_frequencies,
        precision=config.precision,
        key=key,
    )
    return Value(Learner(field_), field_)


# 3. The mathematics, one transition at a time.


def policy_loss(
    policy: VelocityField, transition: Transition, noise: Float[Array, " H"], time: Float[Array, ""]
) -> Float[Array, ""]:
    """Squared error of the velocity on the straight path from noise to the dataset's action (Eq. 12)."""
    point = interpolate(noise, transition.action, time)
    error = policy(transition.observation, point, time) - path_velocity(noise, transition.action)
    return jnp.sum(transition.action_mask * error**2) / transition.action_mask.sum()


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


def update_policy(
    policy: Learner, batch: Transition, config: Evor, learning_rate: Float[Array, ""], key: PRNGKeyArray
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """Behaviour cloning; it never sees a reward."""
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, batch.action.shape)
    time = jax.random.uniform(time_key, batch.action.shape[:1])
    return policy.step(
        lambda network: jax.vmap(policy_loss, (None, 0, 0, 0))(network, batch, noise, time).mean(), learning_rate
    )


def next_actions(policy: Learner, batch: Transition, config: Evor, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for the action that a target bootstraps from, drawn once for all tasks."""
    return config.next_action.candidates(policy, batch, config, key)


def update_value(
    value: Value,
    next_actions: Float[Array, "B C H"],
    batch: Transition,
    outcomes: Outcome,
    config: Evor,
    learning_rate: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Value, dict[str, Float[Array, ""]]]:
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
    targets = jax.vmap(target)(batch, outcomes, next_actions, draw(key, batch_size), choice_keys)

    def loss(network: VelocityField) -> Float[Array, ""]:
        losses = jax.vmap(value_loss, (None, 0, 0))(network, batch, targets)
        return jnp.sum(outcomes.weight * losses) / jnp.maximum(outcomes.weight.sum(), 1.0)

    learner, metrics = value.learner.step(loss, learning_rate)
    metrics["target_velocity"] = targets.velocity.mean()
    return Value(learner, track(value.target, learner.network, config.target_rate)), metrics


# 5. How it acts.


def acting(policy: Learner, value: Value, config: Evor) -> tuple[VelocityField, VelocityField]:
    """The two networks that act, without what only training needs."""
    return policy.network, config.acting_value(value)


def propose(
    policy: VelocityField, observation: Float[Array, " O"], config: Evor, flow_steps: int, key: PRNGKeyArray
) -> Float[Array, " H"]:
    """One draw from the base policy, clipped to [-1, 1] once, at the end."""
    noise = jax.random.normal(key, policy.mlp.biases[-1].shape)
    return jnp.clip(config.solver(lambda action, time: policy(observation, action, time), noise, flow_steps), -1, 1)


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


AGENT = Agent(
    config=Evor,
    init_policy=init_policy,
    init_value=init_value,
    update_policy=update_policy,
    next_actions=next_actions,
    update_value=update_value,
    acting=acting,
    propose=propose,
    returns=returns,
)
