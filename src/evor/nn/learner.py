"""A network with its own optimiser: the only gradient step in the library. And its moving average."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from evor.errors import above, at_least, widths
from evor.nn.ops import Precision

Metrics = dict[str, Float[Array, ""]]
Loss = Callable[[PyTree], Float[Array, ""] | tuple[Float[Array, ""], Metrics]]  # of a network; its parts, where told


class Progress(NamedTuple):
    """Progress of a run: the number of updates made, of all that it will make."""

    step: Int[Array, ""] | int
    steps: Int[Array, ""] | int

    def after(self, updates: Int[Array, ""]) -> "Progress":
        """The progress so many updates later."""
        return Progress(self.step + updates, self.steps)


@dataclass(frozen=True)
class Learning:
    """Network sizes, precision and optimiser: the settings that all agents have."""

    hidden: tuple[int, ...] = (256, 256, 256)  # Widths of the hidden layers of every network.
    # Number format of the operands of matrix products. Sums are in float32. tensorfloat32 is for NVIDIA GPUs.
    precision: Precision = "float32"
    batch_size: int = 256  # Transitions in a batch.
    learning_rate: float = 3e-4  # Learning rate of Adam at the first update.
    final_learning_rate: float = 0.0  # Learning rate at the last update. Between the two it changes linearly.
    max_gradient_norm: float | None = None  # Scale longer gradients down to this norm. Left out: never.

    def __post_init__(self):
        widths(hidden=self.hidden)
        at_least(1, batch_size=self.batch_size)
        at_least(0, learning_rate=self.learning_rate, final_learning_rate=self.final_learning_rate)
        if self.max_gradient_norm is not None:
            above(0, max_gradient_norm=self.max_gradient_norm)

    def rate(self, progress: Progress) -> Float[Array, ""] | float:
        """The learning rate of the next update: a straight line from the first to the final one."""
        step, steps = (count if isinstance(count, int) else count.astype(jnp.float32) for count in progress)
        return self.learning_rate + (self.final_learning_rate - self.learning_rate) * step / steps


class Learner(eqx.Module):
    """A network and the moments of its Adam. Networks never share one: a zero gradient would still move them."""

    network: PyTree
    moments: PyTree

    def __init__(self, network: PyTree):
        self.network = network
        self.moments = optax.scale_by_adam().init(network)

    def step(self, loss: Loss, *, learning: Learning, progress: Progress) -> tuple["Learner", Metrics]:
        """Descend once. Metrics: the loss and its parts, and the norm of its gradient before any clipping."""

        def told(network: PyTree) -> tuple[Array, Metrics]:
            found = loss(network)
            return found if isinstance(found, tuple) else (found, {})

        (value, parts), gradient = jax.value_and_grad(told, has_aux=True)(self.network)
        norm = optax.tree.norm(gradient)
        if learning.max_gradient_norm is not None:
            clip = optax.clip_by_global_norm(learning.max_gradient_norm)
            gradient, _ = clip.update(gradient, clip.init(self.network))
        learning_rate = learning.rate(progress)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its int count
            directions, moments = optax.scale_by_adam().update(gradient, self.moments)
        network: Any = jax.tree.map(lambda old, by: old - learning_rate * by, self.network, directions)
        learner = eqx.tree_at(lambda s: (s.network, s.moments), self, (network, moments))
        return learner, {"loss": value, "gradient_norm": norm} | parts


class Tracked(eqx.Module):
    """A learner and the moving average of its network, which targets are made with."""

    learner: Learner
    target: PyTree

    def __init__(self, network: PyTree):
        self.learner = Learner(network)
        self.target = network

    def step(
        self, loss: Loss, *, learning: Learning, progress: Progress, target_rate: float
    ) -> tuple["Tracked", Metrics]:
        """Descend once, then let the average follow: target + target_rate (network - target)."""
        learner, metrics = self.learner.step(loss, learning=learning, progress=progress)
        return eqx.tree_at(
            lambda s: (s.learner, s.target), self, (learner, track(self.target, learner.network, target_rate))
        ), metrics


def track(target: PyTree, network: PyTree, rate: float) -> PyTree:
    """Exponential moving average: target + rate (network - target)."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, network)


def named(network: str, metrics: Metrics) -> Metrics:
    """Metrics of one network, as `network/loss` and so on."""
    return {f"{network}/{name}": value for name, value in metrics.items()}


def weighted_mean(losses: Float[Array, " B"], weights: Float[Array, " B"]) -> Float[Array, ""]:
    """Weighted mean of losses; 0 where all weights are 0."""
    return (weights * losses).sum() / jnp.maximum(weights.sum(), 1.0)


# Which of the two acts.


@dataclass(frozen=True)
class OnlineValue:
    """The network as the last gradient step left it, as in the paper."""

    def __call__(self, value: Tracked) -> Any:
        return value.learner.network


@dataclass(frozen=True)
class EmaValue:
    """The moving average of the network, which oscillates less."""

    def __call__(self, value: Tracked) -> Any:
        return value.target


ValueForActing = OnlineValue | EmaValue
