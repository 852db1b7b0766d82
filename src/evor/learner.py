"""A network with its own optimiser: the only gradient step in the library."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PyTree


class Learner(eqx.Module):
    """A network and the moments of its Adam. Networks never share one: a zero gradient would still move them."""

    network: PyTree
    moments: PyTree

    def __init__(self, network: PyTree):
        self.network = network
        self.moments = optax.scale_by_adam().init(network)

    def step(
        self, loss: Callable[[PyTree], Float[Array, ""]], learning_rate: Float[Array, ""]
    ) -> tuple["Learner", dict[str, Float[Array, ""]]]:
        """Descend once. Metrics: the loss and the norm of its gradient."""
        value, gradient = jax.value_and_grad(loss)(self.network)
        directions, moments = optax.scale_by_adam().update(gradient, self.moments)
        network: Any = jax.tree.map(lambda old, by: old - learning_rate * by, self.network, directions)
        learner = eqx.tree_at(lambda s: (s.network, s.moments), self, (network, moments))
        return learner, {"loss": value, "gradient_norm": optax.tree.norm(gradient)}


def track(target: PyTree, network: PyTree, rate: float) -> PyTree:
    """Exponential moving average: target + rate (network - target)."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, network)
