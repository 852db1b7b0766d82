"""The discriminator: a network that makes up the reward, what it may see, and how it learns.

f <- a network of what is seen of an observation and an action; the reward falls with f
repeat: f descends on the difference of learner and expert under the reward
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from evor.errors import EvorError, above, integer
from evor.imitation.demonstrations import Demonstrations
from evor.nn.learner import Learner, Learning, Metrics, Progress
from evor.nn.nets import Mlp
from evor.types import Spec

# What it sees.


@dataclass(frozen=True)
class Everything:
    """See the whole observation and the action."""

    def entries(self, spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of the entries of observation and action that are seen."""
        return tuple(range(spec.observation_dim)), tuple(range(spec.action_dim))


@dataclass(frozen=True)
class Entries:
    """See some entries alone: those that both bodies share."""

    observation: tuple[int, ...] = (0,)  # Entries of the observation, counted from 0.
    action: tuple[int, ...] = ()  # Entries of the action, counted from 0.

    def entries(self, spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The numbers, checked."""
        for name, width in (("observation", spec.observation_dim), ("action", spec.action_dim)):
            for entry in getattr(self, name):
                if not 0 <= entry < width:
                    raise EvorError(
                        f"discriminator_sees names entry {entry} of the {name}, which has entries 0 to {width - 1}; leave it out."
                    )
        if not self.observation and not self.action:
            raise EvorError("discriminator_sees names no entry at all; name one of the observation or of the action.")
        return self.observation, self.action


Sees = Everything | Entries


class Scale(eqx.Module):
    """Mean and standard deviation of the expert's observations; actions stay as they are."""

    mean: Float[Array, " O"]
    std: Float[Array, " O"]


def scale_of(expert: Demonstrations | None, spec: Spec) -> Scale:
    """The scale of what the expert saw. An entry that never changes keeps its unit, and all do where there is no expert."""
    if expert is None:
        return Scale(jnp.zeros(spec.observation_dim), jnp.ones(spec.observation_dim))
    std = expert.observations.std(axis=0)
    std = np.where(std > 1e-6, std, 1)
    return Scale(jnp.asarray(expert.observations.mean(axis=0)), jnp.asarray(std, jnp.float32))


def features(
    observation: Float[Array, " O"], action: Float[Array, " A"], *, scale: Scale, entries: Any
) -> Float[Array, " F"]:
    """Entries that the discriminator sees, those of the observation in the expert's standard deviations."""
    seen, done = (np.array(part, np.int32) for part in entries)
    return jnp.concatenate([((observation - scale.mean) / scale.std)[seen], action[done]])


# How it becomes a reward, and how it learns.


@dataclass(frozen=True)
class Bounded:
    """Rewards between 0 and 1, and 0 after the end of an episode, as in the theory."""

    learning_rate: float = 3e-3  # Learning rate of the discriminator's Adam.
    steps: int = 5  # Gradient steps each time that it learns.
    pairs: int = 512  # Pairs of the learner, and as many of the expert, in each step.
    max_slope: float = 3.0  # Largest slope of f that is free of a penalty.
    penalty: float = 10.0  # Weight of the penalty on larger slopes.

    def __post_init__(self):
        above(0, learning_rate=self.learning_rate, max_slope=self.max_slope)
        integer(1, steps=self.steps, pairs=self.pairs)

    def reward(self, f: Float[Array, ""], true: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
        return jax.nn.sigmoid(-f)

    def loss(self, f: Mlp, shown: "Shown", *, key: PRNGKeyArray) -> Float[Array, ""]:
        """Learner minus expert: sums of rewards over the horizon, divided by it. After the end there is nothing to add."""

        def mean(rows: Array) -> Array:
            return jax.vmap(lambda row: self.reward(f(row)[0]))(rows).mean()

        excess = jnp.maximum(slopes(f, shown, key=key) - self.max_slope, 0)
        gap = shown.learner_lived * mean(shown.learner) - shown.expert_lived * mean(shown.expert)
        return gap + self.penalty * (excess**2).mean()

    def learn(self, f: Learner, shown: "Shown", *, times: Array, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
        """One gradient step of Adam. `times` counts the times that it has learned before."""
        learning = Learning(learning_rate=self.learning_rate, final_learning_rate=self.learning_rate)
        return f.step(lambda network: self.loss(network, shown, key=key), learning=learning, progress=Progress(0, 1))


@dataclass(frozen=True)
class Free:
    """Rewards of either sign, means over the steps that were lived, as in the released code."""

    # The released optimiser is made anew for each single step, which is exactly a step along the gradient's sign.
    first_step: float = 8e-4  # Half of the first step of every weight. After k times it is k times shorter.
    steps: int = 1  # Gradient steps each time that it learns.
    pairs: int = 4096  # Pairs of the learner, and as many of the expert, in each step.
    slope: float = 0.4  # Slope of f that the penalty asks for.
    penalty: float = 10.0  # Weight of the penalty.

    def __post_init__(self):
        above(0, first_step=self.first_step)
        integer(1, steps=self.steps, pairs=self.pairs)

    def reward(self, f: Float[Array, ""], true: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
        return -f

    def loss(self, f: Mlp, shown: "Shown", *, key: PRNGKeyArray) -> Float[Array, ""]:
        """Expert minus learner in cost, and the squared distance of slopes from the one asked for."""

        def mean(rows: Array) -> Array:
            return jax.vmap(lambda row: f(row)[0])(rows).mean()

        distance = slopes(f, shown, key=key) - self.slope
        return mean(shown.expert) - mean(shown.learner) + self.penalty * (distance**2).mean()

    def learn(self, f: Learner, shown: "Shown", *, times: Array, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
        """One step of 2 first_step / max(k, 1) against the sign of the gradient, after k times."""
        value, gradient = jax.value_and_grad(lambda network: self.loss(network, shown, key=key))(f.network)
        length = 2 * self.first_step / jnp.maximum(times, 1).astype(jnp.float32)
        network = jax.tree.map(lambda old, by: old - length * jnp.sign(by), f.network, gradient)
        return eqx.tree_at(lambda learner: learner.network, f, network), {"loss": value}


@dataclass(frozen=True)
class TrueReward:
    """The environment's own reward, which imitation never sees: for experts, and for the best that a learner can do."""

    def reward(self, f: Float[Array, ""], true: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
        return jnp.asarray(true)


RewardKind = Bounded | Free | TrueReward


class Shown(eqx.Module):
    """Input of one gradient step: features of both, and the share of the horizon that their episodes last."""

    learner: Float[Array, "B F"]
    expert: Float[Array, "B F"]
    learner_lived: Float[Array, ""]
    expert_lived: Float[Array, ""]


def slopes(f: Mlp, shown: Shown, *, key: PRNGKeyArray) -> Float[Array, " B"]:
    """The norm of the gradient of f on straight lines between learner and expert."""
    along = jax.random.uniform(key, (len(shown.expert), 1))
    between = along * shown.expert + (1 - along) * shown.learner
    gradients = jax.vmap(jax.grad(lambda row: f(row)[0]))(between)
    return jnp.sqrt((gradients**2).sum(axis=1) + 1e-12)


def init(width: int, hidden: tuple[int, ...], *, key: PRNGKeyArray) -> Learner:
    """An untrained discriminator."""
    return Learner(Mlp(width, hidden, 1, layer_norm=False, precision="float32", key=key))
