"""Limits of this machine, and the arithmetic of a computation: the yardsticks of `evor bench`."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor.nn.learner import Learner, Learning, Progress, track
from evor.nn.nets import Mlp
from evor.nn.ops import Precision, dtype_of, exactness_of, gelu

PRODUCTS = 200  # in a call: what starts the call is lost in them
BFLOAT16 = {"amx_bf16": "matrix", "avx512_bf16": "vector"}  # flags of Linux, the better first
PATIENCE = 5.0  # seconds beyond which a slow call is not repeated


class Timing(NamedTuple):
    """Seconds of one call: the first, and the middle and the 10 % and 90 % quantiles of the others."""

    first: float
    median: float
    low: float
    high: float
    repeats: int


def timed(call: Callable[[], Any], *, repeats: int, seconds: float) -> Timing:
    """Time `call` at least `repeats` times (fewer where that would take long) and for about `seconds`."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - started
    durations: list[float] = []
    stop_at = time.perf_counter() + seconds
    while (
        not durations
        or (len(durations) < repeats and time.perf_counter() < stop_at + PATIENCE)
        or time.perf_counter() < stop_at
    ):
        started = time.perf_counter()
        jax.block_until_ready(call())
        durations.append(time.perf_counter() - started)
    low, median, high = np.quantile(durations, (0.1, 0.5, 0.9))
    return Timing(first=first, median=float(median), low=float(low), high=float(high), repeats=len(durations))


def flops(function: Callable, *arguments: Any) -> float:
    """Floating-point operations of the matrix products in a call, loops counted as often as they run."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * _count(inner)
    return total


def bfloat16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Units that multiply bfloat16 on this processor: "matrix" units (amx_bf16), "vector" units alone (avx512_bf16), "none",
    or "unknown" without x86 flags."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split(":", 1)[1].split()}
    if not flags:
        return "unknown"
    return next((units for flag, units in BFLOAT16.items() if flag in flags), "none")


def product_limit(width: int, batch: int, *, precision: Precision, repeats: int, seconds: float) -> float:
    """Best GFLOP/s of [batch, width] x [width, width] products, one after the other, as a network has them."""
    dtype, exactness = dtype_of(precision), exactness_of(precision)
    weights = jax.random.normal(jax.random.key(0), (4, width, width)).astype(dtype) / width**0.5

    @jax.jit
    def chain(x: jax.Array) -> jax.Array:
        def one(index: Any, x: jax.Array) -> jax.Array:
            return jnp.dot(x.astype(dtype), weights[index % 4], precision=exactness, preferred_element_type=jnp.float32)

        return jax.lax.fori_loop(0, PRODUCTS, one, x)

    x = jax.random.normal(jax.random.key(1), (batch, width))
    return PRODUCTS * 2 * batch * width**2 / timed(lambda: chain(x), repeats=repeats, seconds=seconds).low / 1e9


def elementwise_seconds(
    inputs: int, hidden: tuple[int, ...], *, batch: int, repeats: int, seconds: float
) -> dict[str, float]:
    """Seconds of what is not a product: a layer's GELU and LayerNorm forwards and backwards, Adam, the moving average."""
    measured = functools.partial(timed, repeats=repeats, seconds=seconds)
    x = jax.random.normal(jax.random.key(0), (batch, hidden[0]))

    def norm(x: jax.Array) -> jax.Array:
        x = x - x.mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)

    def many(function: Callable) -> Callable:
        return jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: 0.5 * x + function(x), x))

    def gradient(function: Callable) -> Callable:
        return jax.grad(lambda x: function(x).sum())

    elapsed = {
        f"{name}_{way}": measured(lambda call=call: call(x)).low / 100
        for name, function in (("gelu", gelu), ("layer_norm", norm))
        for way, call in (("forward", many(function)), ("backward", many(gradient(function))))
    }
    mlp = Mlp(inputs, hidden, 1, layer_norm=True, precision="float32", key=jax.random.key(0))
    learner = Learner(mlp)

    def total(network: Mlp) -> jax.Array:
        return jnp.stack([leaf.sum() for leaf in jax.tree.leaves(network)]).sum()

    @jax.jit
    def descend(learner: Learner) -> Learner:
        def step(_: int, learner: Learner) -> Learner:
            return learner.step(total, learning=Learning(), progress=Progress(0, 1))[0]

        return jax.lax.fori_loop(0, 20, step, learner)

    @jax.jit
    def follow(average: Mlp, network: Mlp) -> Mlp:
        return jax.lax.fori_loop(0, 20, lambda _, average: track(average, network, 0.01), average)

    other = jax.tree.map(jnp.ones_like, mlp)
    elapsed["adam"] = measured(lambda: descend(learner)).low / 20
    elapsed["average"] = measured(lambda: follow(mlp, other)).low / 20
    return elapsed
