"""How much goes through the machine at once. An accelerator takes everything side by side.

A CPU is fastest on a few hundred rows of one network, which stay in its cache and on its fast matrix units; wider
products of bfloat16 fall off both (docs/performance.md). The numbers that come out are the same either way.
"""

from collections.abc import Callable
from typing import Any

import jax

ROWS = 512  # of a network's input that one block of examples aims at


def each_network(function: Callable[..., Any], *arguments: Any) -> Any:
    """function on every entry of the leading axis, each with networks of its own."""
    if on_cpu():
        return jax.lax.map(lambda one: function(*one), arguments)
    return jax.vmap(function)(*arguments)


def each_example(function: Callable[..., Any], *arguments: Any, rows: int) -> Any:
    """function on every entry of the leading axis; one entry sends `rows` rows through a shared network."""
    if on_cpu():
        return jax.lax.map(lambda one: function(*one), arguments, batch_size=max(1, ROWS // rows))
    return jax.vmap(function)(*arguments)


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"
