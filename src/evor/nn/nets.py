"""Networks: pytrees of arrays. They see one example; batches, seeds and tasks are vmapped outside."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.nn.ops import Precision, dtype_of, gelu, product

_initialise = jax.jit(jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"), static_argnums=1, inline=True)
_LAYER_NORM_EPSILON = 1e-6


class Mlp(eqx.Module):
    """GELU layers, each followed by LayerNorm where `layer_norm` is set, then a linear one (Table 3; FQL's order)."""

    weights: tuple[Float[Array, "in out"], ...]
    biases: tuple[Float[Array, " out"], ...]
    scales: tuple[Float[Array, " out"], ...]  # of LayerNorm; empty without it
    shifts: tuple[Float[Array, " out"], ...]
    precision: Precision = eqx.field(static=True)

    def __init__(
        self,
        in_dim: int,
        hidden: tuple[int, ...],
        out_dim: int,
        *,
        layer_norm: bool,
        precision: Precision,
        key: PRNGKeyArray,
    ):
        dims = (in_dim, *hidden, out_dim)
        keys = jax.random.split(key, len(dims) - 1)
        self.weights = tuple(_initialise(k, pair) for k, pair in zip(keys, pairwise(dims), strict=True))
        self.biases = tuple(jnp.zeros(dim) for dim in dims[1:])
        self.scales = tuple(jnp.ones(dim) for dim in hidden) if layer_norm else ()
        self.shifts = tuple(jnp.zeros(dim) for dim in hidden) if layer_norm else ()
        self.precision = precision

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        for layer, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            x = gelu(product(x, weight, self.precision) + bias)
            if self.scales:
                x = x - x.mean()
                x = x * jax.lax.rsqrt(jnp.mean(x * x) + _LAYER_NORM_EPSILON) * self.scales[layer] + self.shifts[layer]
        return product(x, self.weights[-1], self.precision) + self.biases[-1]

    def frozen(self) -> "Mlp":
        """The same network with weights as its products take them: for acting, not for training."""
        kind = dtype_of(self.precision)
        return eqx.tree_at(lambda mlp: mlp.weights, self, tuple(w.astype(kind) for w in self.weights))


def scale_last_layer(mlp: Mlp, factor: float) -> Mlp:
    """The same network with the weights of its last layer scaled: small ones begin near 0 everywhere."""
    return eqx.tree_at(lambda mlp: mlp.weights[-1], mlp, factor * mlp.weights[-1])


class VelocityField(eqx.Module):
    """A network velocity(condition, point, time). The three enter as raw numbers, side by side (Table 3).

    With `num_frequencies`, sines and cosines of point and time enter too, of wavelengths 8, 4, 2, ... and 4, 2, 1, ...:
    raw numbers alone leave neighbouring atoms of a return distribution unresolved.
    """

    mlp: Mlp
    num_frequencies: int = eqx.field(static=True)

    def __init__(
        self, condition_dim: int, point_dim: int, hidden: tuple[int, ...], *, num_frequencies: int = 0, **options
    ):
        self.num_frequencies = num_frequencies
        waves = 2 * num_frequencies * (point_dim + 1)
        self.mlp = Mlp(condition_dim + point_dim + 1 + waves, hidden, point_dim, **options)

    def __call__(
        self, condition: Float[Array, " C"], point: Float[Array, " P"], time: Float[Array, ""] | float
    ) -> Float[Array, " P"]:
        time = jnp.reshape(jnp.asarray(time, point.dtype), 1)
        angles = jnp.outer(
            jnp.pi / 4 * 2.0 ** jnp.arange(self.num_frequencies, dtype=jnp.float32), jnp.append(point, 2 * time)
        ).ravel()
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]) / max(1, self.num_frequencies) ** 0.5
        return self.mlp(jnp.concatenate([condition, point, time, waves]))
