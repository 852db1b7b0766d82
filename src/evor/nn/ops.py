"""GELU and matrix products, in the precision of a config."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from scipy.special import ndtr

from evor.nn import batching

Precision = Literal["float32", "tensorfloat32", "bfloat16"]  # of the operands of matrix products; sums are float32

# GELU is max(x, 0) - t(|x|) with t(u) = u Phi(-u), a bump that is gone by u = 4.5: a polynomial says it within 2e-5, which
# is closer than the usual formula with a tanh (5e-4) and takes half its time.

_REACH = 4.5
_points = _REACH / 2 * (1 + np.cos(np.pi * (np.arange(400) + 0.5) / 400))
_TAIL = np.polynomial.Chebyshev.fit(_points, _points * ndtr(-_points), 11, domain=(0, _REACH))


def _tail(polynomial: np.polynomial.Chebyshev, x: Array) -> Array:
    """The polynomial at |x|, centred so that float32 loses nothing."""
    centred = jnp.minimum(jnp.abs(x), _REACH) * (2 / _REACH) - 1
    return jnp.polyval(
        jnp.asarray(np.polynomial.chebyshev.cheb2poly(polynomial.coef)[::-1], x.dtype), centred, unroll=16
    )


@jax.custom_jvp
def gelu(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """GELU, x Phi(x), within 2e-5."""
    return jnp.maximum(x, 0) - _tail(_TAIL, x)


@gelu.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    slope = _tail(_TAIL.deriv(), x)
    return gelu(x), jnp.where(x > 0, 1 - slope, slope) * tangent


# Matrix products. An NVIDIA GPU has no fast float32: left to itself, XLA rounds the operands to the 11 bits of
# tensorfloat32. Here that has a name of its own (a CPU makes no difference). And left to itself, XLA on a CPU runs a
# bfloat16 product with a transposed operand in float32, five times slower: every product of a gradient has one. So each of
# the three is spelled in a form that stays in bfloat16.


def product(x: Float[Array, " in"], weight: Float[Array, "in out"], precision: Precision) -> Float[Array, " out"]:
    if precision == "bfloat16":
        return _rounded_product(x, weight)
    return jnp.matmul(x, weight, precision=exactness_of(precision))


def dtype_of(precision: Precision) -> DTypeLike:
    """Type in which the operands of products are stored."""
    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32


def exactness_of(precision: Precision) -> jax.lax.Precision:
    """XLA's precision flag for products of stored operands."""
    return jax.lax.Precision.HIGHEST if precision == "float32" else jax.lax.Precision.DEFAULT


@jax.custom_batching.custom_vmap
def _rounded_product(x: Float[Array, " in"], weight: Float[Array, "in out"]) -> Float[Array, " out"]:
    return _rows_product(x[None], weight)[0]


@_rounded_product.def_vmap
def _(size: int, batched: list[bool], x: Array, weight: Array) -> tuple[Array, bool]:
    if batched[1]:  # networks side by side
        rows = (x[i] if batched[0] else x for i in range(size))
        return jnp.stack([_rounded_product(row, weight[i]) for i, row in enumerate(rows)]), True
    return _rows_product(x, weight), True


def _float32_sums(x: Array, y: Array, contracting: tuple[int, int]) -> Array:
    x_axis, y_axis = contracting
    return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _rows_product(x: Float[Array, "rows in"], weight: Float[Array, "in out"]) -> Float[Array, "rows out"]:
    return _rows_product_forward(x, weight)[0]


def _rows_product_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return _float32_sums(x, weight, (1, 0)), (x, weight)


def _rows_product_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = residuals
    gradient = gradient.astype(jnp.bfloat16)
    if batching.on_cpu():
        transposed = jax.lax.optimization_barrier(x.T.reshape(-1)).reshape(x.shape[::-1])
        to_weight = _float32_sums(transposed, gradient, (1, 0))
    else:
        to_weight = _float32_sums(x, gradient, (0, 0))
    return _float32_sums(gradient, weight, (1, 1)), to_weight


_rows_product.defvjp(_rows_product_forward, _rows_product_backward)
