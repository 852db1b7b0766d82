"""Batching: vmap on accelerators, blocks of rows on a CPU.

A CPU is fastest on a few hundred rows of one network: they stay in its cache and on its matrix units. Wider products of
bfloat16 leave both (docs/performance.md). The results are the same either way.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

BLOCK_ROWS = 512  # of a network's input that one block of examples aims at


def each_network(function: Callable[..., Any], *arguments: Any) -> Any:
    """Map a function over the leading axis, where every entry has networks of its own."""
    if on_cpu():
        return jax.lax.map(lambda one: function(*one), arguments)
    return jax.vmap(function)(*arguments)


def each_example(
    function: Callable[..., Any], *arguments: Any, rows: int, count: Int[Array, ""] | int | None = None
) -> Any:
    """Map a function over the leading axis, where one entry sends `rows` rows through a shared network.

    With `count`, which may be traced, only the first entries matter: a CPU skips what it can of the others.
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


def in_blocks(choices: Sequence[float], rows: int) -> Float[Array, " B"]:
    """The choice of each row, where rows are cut into blocks, one for each choice (see `block_sizes`)."""
    return jnp.asarray(np.repeat(choices, block_sizes(len(choices), rows)), jnp.float32)


def block_sizes(blocks: int, rows: int) -> list[int]:
    """Sizes of so many equal blocks of rows; the last one takes those left over, too."""
    return [*(rows // blocks for _ in range(blocks - 1)), rows - (blocks - 1) * (rows // blocks)]


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"
