"""JAX as evor computes with it: the same numbers whatever the program around it has set, and no use of it after a fork.

JAX's settings are global, and some of them change what is drawn or in which type it is computed. Every entry of the
library that computes is `pinned`: inside, in its own thread, these settings are JAX's defaults.
"""

import functools
import operator
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from evor.errors import EvorError

P = ParamSpec("P")
R = TypeVar("R")

GENERATOR = "threefry2x32"
# A setting, its default, and what holds inside where it is something else. Promotion of ranks is not among them: no line
# here relies on it (the tests run where it raises).
SETTINGS = (
    (jax.enable_x64, False, False),
    (jax.default_prng_impl, GENERATOR, GENERATOR),
    (jax.threefry_partitionable, True, True),
    (jax.numpy_dtype_promotion, "standard", "standard"),
    (jax.default_matmul_precision, None, None),
    (jax.transfer_guard_host_to_device, None, "allow"),  # evor takes and gives numpy's arrays
    (jax.transfer_guard_device_to_host, None, "allow"),
)
_STATES = tuple(state for state, _, _ in SETTINGS)
_DEFAULTS = tuple(default for _, default, _ in SETTINGS)
_value = operator.attrgetter("value")

_used = False  # by this process: JAX has threads, which no fork copies
_forked = False  # from one that had used it


def pinned(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under evor's settings of JAX. It raises EvorError in a process forked from one that computed."""

    @functools.wraps(function)
    def inside(*arguments: P.args, **options: P.kwargs) -> R:
        global _used
        if _forked:
            raise EvorError(
                "this process was forked from one in which evor had computed, and JAX does not survive a fork. "
                'Start processes with multiprocessing\'s "spawn", or fork before the parent loads a policy or trains.'
            )
        _used = True
        if tuple(map(_value, _STATES)) == _DEFAULTS:
            return function(*arguments, **options)
        with ExitStack() as stack:
            for state, default, within in SETTINGS:
                if state.value != default:
                    stack.enter_context(state(within))
            return function(*arguments, **options)

    return inside


def keep_programs(folder: Path) -> None:
    """Keep what is compiled for an accelerator in a folder; to be called before anything is.

    Nothing changes where JAX_COMPILATION_CACHE_DIR names another, or on a CPU: its programs may fail on another CPU.
    """
    if jax.default_backend() != "cpu" and getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def key_of(seed: Int[Array, ""]) -> PRNGKeyArray:
    """The key of a seed below 2^32, as `jax.random.key` makes it where nothing is set."""
    low = seed.astype(jnp.uint32)
    return jax.random.wrap_key_data(jnp.stack([jnp.zeros_like(low), low]), impl=GENERATOR)


def _note_fork() -> None:
    global _forked
    _forked = _forked or _used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
