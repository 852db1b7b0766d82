"""Ensembles of value networks: how what they say at one noise becomes one return."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from evor.errors import at_least


@dataclass(frozen=True)
class OneValue:
    """One return network."""

    number: ClassVar[int] = 1

    def combine(self, ends: Float[Array, ""]) -> Float[Array, ""]:
        return ends


@dataclass(frozen=True)
class SeveralValues:
    """Several return networks, whose returns are combined noise by noise."""

    # At one noise, this combines quantiles, and the spread of the distribution stays. Over noises, a mean would collapse it.
    number: int = 2  # Return networks.
    # Standard deviations over the networks that are subtracted from their mean. With two networks, 1 is the minimum.
    pessimism: float = 0.0

    def __post_init__(self):
        at_least(2, number=self.number)
        at_least(0, pessimism=self.pessimism)

    def combine(self, ends: Float[Array, "*E"]) -> Float[Array, ""]:
        """Return mean - pessimism * standard deviation of what the networks say at one noise. One number stays as it is."""
        if not ends.ndim:
            return ends
        spread = jnp.sqrt(jnp.maximum(ends.var(), 1e-12)) if self.pessimism else 0.0
        return ends.mean() - self.pessimism * spread


Values = OneValue | SeveralValues
