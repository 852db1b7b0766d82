"""How much goes through the machine at once. An accelerator takes everything side by side.

A CPU is fastest on a few hundred rows of one network, which stay in its cache and on its fast matrix units; wider
products of bfloat16 fall off both (docs/performance.md). The numbers that come out are the same either way.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

BLOCK_ROWS = 512  # of a network's input that one block of examples aims at


def each_network(function: Callable[..., Any], *arguments: Any) -> Any:
    """function on every entry of the leading axis, each with networks of its own."""
    if on_cpu():
        return jax.lax.map(lambda one: function(*one), arguments)
    return jax.vmap(function)(*arguments)


def each_example(
    function: Callable[..., Any], *arguments: Any, rows: int, count: Int[Array, ""] | int | None = None
) -> Any:
    """function on every entry of the leading axis; one entry sends `rows` rows through a shared network.

    With `count`, which may be traced, only the first entries matter: a CPU leaves out what it can of the others.
    """
    if not on_cpu():
        return jax.vmap(function)(*arguments)
    block = max(1, BLOCK_ROWS // rows)
    if count is None:
        return jax.lax.map(lambda one: function(*one), arguments, batch_size=block)
    size = len(jax.tree.leaves(arguments)[0])
    block = min(block, size)

    def part(start: Any) -> Any:
        taken = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block), arguments)
        return jax.vmap(function)(*taken)

    def fill(index: Any, results: Any) -> Any:
        start = jnp.minimum(index * block, size - block)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
        return jax.tree.map(put, results, part(start))

    shapes = jax.eval_shape(part, 0)
    empty = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape[1:]), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, -(-count // block), fill, empty)


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"
