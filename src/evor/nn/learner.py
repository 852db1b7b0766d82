"""A network with its own optimiser: the only gradient step in the library. And its moving average."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

Loss = Callable[[PyTree], Float[Array, ""]]  # of a network
Metrics = dict[str, Float[Array, ""]]


class Learner(eqx.Module):
    """A network and the moments of its Adam. Networks never share one: a zero gradient would still move them."""

    network: PyTree
    moments: PyTree

    def __init__(self, network: PyTree):
        self.network = network
        self.moments = optax.scale_by_adam().init(network)

    def step(self, loss: Loss, learning_rate: Float[Array, ""]) -> tuple["Learner", Metrics]:
        """Descend once. Metrics: the loss and the norm of its gradient."""
        value, gradient = jax.value_and_grad(loss)(self.network)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its int count
            directions, moments = optax.scale_by_adam().update(gradient, self.moments)
        network: Any = jax.tree.map(lambda old, by: old - learning_rate * by, self.network, directions)
        learner = eqx.tree_at(lambda s: (s.network, s.moments), self, (network, moments))
        return learner, {"loss": value, "gradient_norm": optax.tree.norm(gradient)}


class Tracked(eqx.Module):
    """A learner and the moving average of its network, which targets are made with."""

    learner: Learner
    target: PyTree

    def __init__(self, network: PyTree):
        self.learner = Learner(network)
        self.target = network

    def step(self, loss: Loss, learning_rate: Float[Array, ""], target_rate: float) -> tuple["Tracked", Metrics]:
        """Descend once, then let the average follow: target + target_rate (network - target)."""
        learner, metrics = self.learner.step(loss, learning_rate)
        return eqx.tree_at(
            lambda s: (s.learner, s.target), self, (learner, track(self.target, learner.network, target_rate))
        ), metrics


def track(target: PyTree, network: PyTree, rate: float) -> PyTree:
    """Exponential moving average: target + rate (network - target)."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, network)


def weighted_mean(losses: Float[Array, " B"], weights: Float[Array, " B"]) -> Float[Array, ""]:
    """Mean of the rows that teach; 0 where none does."""
    return (weights * losses).sum() / jnp.maximum(weights.sum(), 1.0)


# Which of the two acts.


@dataclass(frozen=True)
class OnlineValue:
    """The value as the last gradient step left it (the paper's)."""

    def __call__(self, value: Tracked) -> Any:
        return value.learner.network


@dataclass(frozen=True)
class EmaValue:
    """The value's moving average: single checkpoints of the online value oscillate, this one is steadier."""

    def __call__(self, value: Tracked) -> Any:
        return value.target


ActingValue = OnlineValue | EmaValue
