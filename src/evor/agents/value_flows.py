"""Value Flows: flows over returns that bootstrap from flows, and a search in targets (Dong, Zheng et al. 2025).

repeat:
    policy  <- flow matching on the dataset's actions
    a'      <- the draw of policy at x' with the highest return, read from values in one step
    z_t     <- the flow of value_targets at (x', a') from a noise e to time t
    values  <- weight (|velocity on the path from e to r + discount mask z_1 - its own|^2
                       + |velocity at r + discount mask z_t - that of value_targets at z_t|^2)
    value_targets <- exponential moving averages of values
act: the draw of policy with the highest return, read in one step
"""

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents import bc
from evor.agents.bc import check_policy, propose_next, update_policy
from evor.agents.contract import Agent, Base, Head, one_chunk
from evor.agents.evor import each_velocity
from evor.errors import at_least, fraction
from evor.nn.batching import each_example
from evor.nn.critics import Aggregation, Mean
from evor.nn.flow import Euler, clipped_euler, interpolate, path_velocity
from evor.nn.learner import Learner, Learning, Metrics, Progress, Tracked, named, weighted_mean
from evor.nn.nets import VelocityField
from evor.nn.objectives import Regression
from evor.runtime.records import INLINED
from evor.search.extraction import BestOf
from evor.search.readings import RandomSamples
from evor.types import DataSpec, Outcome, ReturnBounds, RewardBounds, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class ValueFlows:
    """Two flows over returns, trained by bootstrapped and by direct flow matching."""

    # The official code's settings for all datasets.

    num_candidates: int = 16  # Candidates per decision, in targets and when acting.
    bootstrapped: float = 1.0  # Weight of flow matching on sampled returns.
    direct: float = 1.0  # Weight of flow matching on the velocities of the next return.
    temperature: float = 0.3  # How much less a row counts if its return is certain: 0 counts all alike.
    # How the networks become one return in targets.
    aggregation: Aggregation = field(default_factory=Mean)
    # How they become one number where candidates are compared, and where rows are weighed.
    choice_aggregation: Aggregation = field(default_factory=Mean)
    num_values: int = 2  # Number of return networks.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    # Which returns are possible: flows of returns in targets are clipped to them in every step.
    return_bounds: ReturnBounds = field(default_factory=RewardBounds)
    # A constant rate.
    learning: Learning = field(default=Learning(hidden=(512,) * 4, final_learning_rate=3e-4), metadata=INLINED)
    target_rate: float = 5e-3  # Rate of the moving averages of the return networks, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one action, and for one return in targets.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_policy(self)
        at_least(1, num_candidates=self.num_candidates, num_values=self.num_values)
        at_least(0, bootstrapped=self.bootstrapped, direct=self.direct, temperature=self.temperature)
        fraction(target_rate=self.target_rate, discount=self.discount)


def data_spec(config: ValueFlows) -> DataSpec:
    """Sums over one chunk; the policy supplies the next."""
    return one_chunk(config)._replace(return_bounds=config.return_bounds)


# 2. What is learned.


def init_policy(config: ValueFlows, spec: Spec, *, key: PRNGKeyArray) -> Learner:
    """A flow over actions [H], conditioned on an observation [O]. Unlike BC's it has LayerNorm."""
    return Learner(_flow(config, spec.observation_dim, spec.action_dim * config.chunk_length, key=key))


def init_values(config: ValueFlows, spec: Spec, *, key: PRNGKeyArray) -> Tracked:
    """Flows over one return, conditioned on an observation and an action [O + H], stacked along a leading axis."""
    width = spec.observation_dim + spec.action_dim * config.chunk_length
    each = jax.vmap(lambda key: _flow(config, width, 1, key=key))
    return Tracked(each(jax.random.split(key, config.num_values)))


def _flow(config: ValueFlows, condition_dim: int, point_dim: int, *, key: PRNGKeyArray) -> VelocityField:
    hidden, precision = config.learning.hidden, config.learning.precision
    return VelocityField(condition_dim, point_dim, hidden, layer_norm=True, precision=precision, key=key)


# 3. The mathematics, one transition at a time. A return z has an entry for each network, [E].


class Draws(NamedTuple):
    """The randomness of one target."""

    choice_noises: Float[Array, " C"]  # a noise for each candidate
    noise: Float[Array, ""]  # that the flow of a return begins with
    weight_noise: Float[Array, ""]  # the same, where the row is weighed
    time: Float[Array, ""]  # ~ U(0, 1)


class Target(NamedTuple):
    """Both regressions of one row, and its weight."""

    bootstrapped: Regression
    direct: Regression
    weight: Float[Array, ""]


def best_action(
    config: ValueFlows,
    values: VelocityField,
    transition: Transition,
    outcome: Outcome,
    actions: Float[Array, "C H"],
    draws: Draws,
) -> Float[Array, " H"]:
    """The candidate with the highest return, read by one step from a noise of its own."""

    def read(action: Array, noise: Array) -> Array:
        velocity = functools.partial(each_velocity, values, transition.next_observation, action)
        ends = noise + velocity(jnp.full(config.num_values, noise), jnp.float32(0))
        # Not clipped from below: draws would become equal.
        return config.choice_aggregation(jnp.minimum(ends, outcome.return_max))

    return actions[jnp.argmax(jax.vmap(read)(actions, draws.choice_noises))]


def flow(
    config: ValueFlows,
    values: VelocityField,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    outcome: Outcome,
    noise: Float[Array, "*E"],
    end: Array | float,
) -> Float[Array, " E"]:
    """The return of each network at the time `end`, from its noise or from one noise for all."""
    velocity = functools.partial(each_velocity, values, observation, action)
    noises = jnp.broadcast_to(noise, (config.num_values,))
    bounds = {"lowest": outcome.return_min, "highest": outcome.return_max}
    return clipped_euler(velocity, noises, config.flow_steps, end=end, **bounds)


def slopes_of(
    config: ValueFlows, values: VelocityField, batch: Transition, outcomes: Outcome, noises: Float[Array, " B"]
) -> Float[Array, "B E"]:
    """Derivatives of each network's return by its noise. Rows and networks are independent: the gradient of the sum holds all."""
    ends = jax.vmap(functools.partial(flow, config, values), (0, 0, 0, 0, None))
    # Products of bfloat16 have their gradient where the batch is inside of it (nn/ops.py).
    total = jax.grad(lambda noises: ends(batch.observation, batch.action, outcomes, noises, 1.0).sum())
    return total(jnp.repeat(noises[:, None], config.num_values, axis=1))


def make_target(
    config: ValueFlows,
    averages: VelocityField,
    transition: Transition,
    outcome: Outcome,
    action: Float[Array, " H"],
    slopes: Float[Array, " E"],
    draws: Draws,
) -> Target:
    """Bootstrap from the flow of the moving averages at the next state and `action`; `slopes` weigh the row."""
    after = (averages, transition.next_observation, action)
    at_next = functools.partial(flow, config, *after, outcome, draws.noise)
    z1 = outcome.reward + outcome.discount * config.aggregation(at_next(1.0))
    on_the_way = config.aggregation(at_next(draws.time))
    next_velocity = config.aggregation(each_velocity(*after, jnp.full(config.num_values, on_the_way), draws.time))
    deviation = jnp.maximum(config.choice_aggregation(jnp.abs(slopes)), 1e-8)
    return Target(
        bootstrapped=Regression(
            point=interpolate(draws.noise, z1, draws.time), time=draws.time, velocity=path_velocity(draws.noise, z1)
        ),
        direct=Regression(
            point=outcome.reward + outcome.discount * on_the_way, time=draws.time, velocity=next_velocity
        ),
        weight=jax.nn.sigmoid(-config.temperature / deviation) + 0.5,
    )


def value_loss(config: ValueFlows, values: VelocityField, transition: Transition, target: Target) -> Float[Array, ""]:
    """Weighted squared errors of the velocities, summed over the networks."""

    def error(of: Regression) -> Array:
        z = jnp.full(config.num_values, of.point)
        velocities = each_velocity(values, transition.observation, transition.action, z, of.time)
        return jnp.sum((velocities - of.velocity) ** 2)

    return target.weight * (config.bootstrapped * error(target.bootstrapped) + config.direct * error(target.direct))


# 4. One gradient step.


def hand_over(policy: Learner, batch: Transition, *, config: ValueFlows, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for every target, drawn once for all tasks."""
    return propose_next(policy, batch, config=config, num_candidates=config.num_candidates, key=key, by=propose)


def draw_randomness(config: ValueFlows, size: int, *, key: PRNGKeyArray) -> Draws:
    """Draws for a batch, each field with a leading axis B."""
    choice_key, noise_key, time_key = jax.random.split(key, 3)
    noise, weight_noise = jax.random.normal(noise_key, (2, size))
    choice_noises = jax.random.normal(choice_key, (size, config.num_candidates))
    return Draws(choice_noises, noise, weight_noise, jax.random.uniform(time_key, (size,)))


def update_values(
    values: Tracked,
    batch: Transition,
    *,
    handed: Float[Array, "B C H"],
    outcomes: Outcome,
    config: ValueFlows,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[Tracked, Metrics]:
    """Regress the velocities on both targets, then let the moving averages follow."""
    draws = draw_randomness(config, outcomes.weight.shape[0], key=key)

    choose = functools.partial(best_action, config, values.learner.network)
    actions = each_example(choose, batch, outcomes, handed, draws, rows=handed.shape[1])
    slopes = slopes_of(config, values.target, batch, outcomes, draws.weight_noise)
    target = functools.partial(make_target, config, values.target)
    targets = each_example(target, batch, outcomes, actions, slopes, draws, rows=1)

    def loss(values: VelocityField) -> Float[Array, ""]:
        losses = jax.vmap(functools.partial(value_loss, config, values))(batch, targets)
        return weighted_mean(losses, outcomes.weight)

    values, metrics = values.step(loss, learning=config.learning, progress=progress, target_rate=config.target_rate)
    told = {"target_velocity": targets.bootstrapped.velocity.mean(), "weight": targets.weight.mean()}
    return values, named("value", metrics | told)


# 5. How it acts.


def inference_networks(policy: Learner, values: Tracked, *, config: ValueFlows) -> tuple[VelocityField, VelocityField]:
    """The policy and the online return networks."""
    return policy.network, values.learner.network


# Draws from the policy by Euler's steps, clipped to [-1, 1] after each.
CLIPPED = functools.partial(clipped_euler, lowest=-1.0, highest=1.0)
propose = functools.partial(bc.propose, solve=CLIPPED)
propose_guided = functools.partial(bc.propose_guided, solve=CLIPPED)


def returns(
    values: VelocityField,
    observation: Float[Array, " O"],
    *,
    action: Float[Array, " H"],
    noises: Float[Array, " Z"],
    config: ValueFlows,
    flow_steps: int,
) -> Float[Array, " Z"]:
    """Standardised returns: each noise sent through all flows at (observation, action), which then become one number."""
    velocity = functools.partial(each_velocity, values, observation, action)

    def one(noise: Array) -> Array:
        return config.choice_aggregation(Euler()(velocity, jnp.full(config.num_values, noise), flow_steps))

    return jax.vmap(one)(noises)


def default_search(config: ValueFlows) -> BestOf:
    """The best of num_candidates by their returns of one noise, in one step."""
    reading, steps = RandomSamples(1, flow_steps=1), config.flow_steps
    return BestOf(config.num_candidates, return_temperature=math.inf, reading=reading, flow_steps=steps)


AGENT = Agent(
    config=ValueFlows,
    data_spec=data_spec,
    base=Base(init=init_policy, update=update_policy),
    hand_over=hand_over,
    head=Head(init=init_values, update=update_values),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=returns,
    default_search=default_search,
    presets={"value-flows": ValueFlows()},
)
