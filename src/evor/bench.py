"""How fast the parts are on this machine, and how close the update comes to what the machine can do.

Every measure is warmed up (its compile time stands apart) and repeated; medians come with their spread.
"""

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from evor import checkpoint
from evor.config import PRESETS, AgentConfig, RunConfig
from evor.data.generate import _play_one
from evor.data.sampler import sample
from evor.data.transitions import Columns
from evor.errors import EvorError, at_least, nearest
from evor.evaluate import play_all
from evor.extract import Prior, SoftmaxOf
from evor.files import write_json
from evor.learner import Learner, track
from evor.nets import Mlp, gelu
from evor.policy import Policy, Run
from evor.progress import progress_bar
from evor.provenance import provenance
from evor.source import needs, prepare
from evor.types import Episodes, Spec
from evor.update import State, initial_state, make_runner, update_policy, update_value
from evor.value import Quadrature, RandomSamples


class Size(NamedTuple):
    """What an update's cost depends on besides the agent."""

    spec: Spec
    hidden: tuple[int, ...]


SIZES = {"demo": Size(Spec(2, 2), (256, 256, 256)), "paper": Size(Spec(37, 5), (512, 512, 512, 512))}
ROWS = 100_000  # of the synthetic data
PATIENCE = 5.0  # seconds beyond which a slow call is not repeated
CANDIDATES, BATCHES, TOGETHER = (1, 8, 32, 128), (1, 50), (1, 10, 50)
MAZE, CUBE = "pointmaze-medium-navigate-v0", "cube-single-play-v0"


class Timing(NamedTuple):
    """Seconds of one call: the first, and the middle and the 10 % and 90 % quantiles of the others."""

    first: float
    median: float
    low: float
    high: float
    repeats: int


def timed(call: Callable[[], Any], repeats: int, seconds: float) -> Timing:
    """Time `call` at least `repeats` times (fewer where that would take long) and for about `seconds`."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - started
    found: list[float] = []
    until = time.perf_counter() + seconds
    while not found or (len(found) < repeats and time.perf_counter() < until + PATIENCE) or time.perf_counter() < until:
        started = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - started)
    low, median, high = np.quantile(found, (0.1, 0.5, 0.9))
    return Timing(first, float(median), float(low), float(high), len(found))


# The update.


def synthetic(spec: Spec, tasks: int = 1, rows: int = ROWS) -> Episodes:
    """Random trajectories of 1 000 steps: timing needs shapes, not meaning."""
    generator = np.random.default_rng(0)
    ends = np.arange(rows) % 1000 == 999
    return Episodes(
        generator.normal(size=(rows, spec.observation_dim)).astype(np.float32),
        generator.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32),
        generator.normal(size=(tasks, rows)).astype(np.float32),
        np.ones((tasks, rows), np.float32),
        ends,
        ends,
        np.ones(rows, bool),
        tuple(range(1, tasks + 1)),
    )


def sized(agent: AgentConfig, size: str, precision: str) -> AgentConfig:
    """An agent at a size."""
    return dataclasses.replace(agent, hidden=SIZES[size].hidden, precision=precision)


def time_update(
    agent: AgentConfig, spec: Spec, tasks: int, seeds: int, repeats: int, seconds: float, rows: int = ROWS
) -> dict[str, Any]:
    """One update of tasks x seeds, and the arithmetic in it. A call takes about `seconds`, as in training."""
    episodes = synthetic(spec, tasks, rows)
    config = RunConfig(data="-", tasks=episodes.tasks, seeds=seeds, agent=agent)
    columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
    state, run = make_runner(config, columns, initial_state(config, spec))
    started = time.perf_counter()
    state = jax.block_until_ready(run(state, columns, 1))
    compiled = time.perf_counter() - started
    box = [state]
    once = timed(lambda: _advance(box, run, columns, 1), 1, 0.0).median
    count = max(1, int(seconds / once))
    timing = timed(lambda: _advance(box, run, columns, count), repeats, 0.0)
    return {
        "compile_seconds": compiled,
        **{f"{name}_ms": 1e3 * getattr(timing, name) / count for name in ("median", "low", "high")},
        "gflop": update_flops(config, columns, box[0]) / 1e9,
    }


def _advance(box: list[State], run: Callable, columns: Any, count: int) -> Any:
    box[0] = run(box[0], columns, count)  # the old state is donated
    return box[0].step


def update_flops(config: RunConfig, columns: Columns, state: State) -> float:
    """Floating-point operations of one update of every seed and task."""
    seed, task, step = jnp.array(config.all_seeds[0]), jnp.array(config.tasks[0]), state.step
    policy, value = jax.tree.map(lambda leaf: leaf[0], state.policy), jax.tree.map(lambda leaf: leaf[0, 0], state.value)
    teach = functools.partial(update_policy, config)
    *_, lesson = jax.eval_shape(teach, columns, policy, seed, step)
    outcome = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lesson.outcomes)
    learn = flops(functools.partial(update_value, config), value, lesson, outcome, seed, task, step)
    return config.seeds * (flops(teach, columns, policy, seed, step) + len(config.tasks) * learn)


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


# The machine's limits.


def product_limit(width: int, batch: int, precision: str, repeats: int, seconds: float) -> float:
    """Best GFLOP/s of [batch, width] x [width, width] products, one after the other, as a network has them."""
    dtype = jnp.dtype(precision)
    weights = jax.random.normal(jax.random.key(0), (4, width, width)).astype(dtype) / width**0.5

    @jax.jit
    def chain(x: jax.Array) -> jax.Array:
        def one(index: Any, x: jax.Array) -> jax.Array:
            return jnp.dot(x.astype(dtype), weights[index % 4], preferred_element_type=jnp.float32)

        return jax.lax.fori_loop(0, 200, one, x)

    x = jax.random.normal(jax.random.key(1), (batch, width))
    return 200 * 2 * batch * width**2 / timed(lambda: chain(x), repeats, seconds).low / 1e9


def elementwise_seconds(size: str, batch: int, repeats: int, seconds: float) -> dict[str, float]:
    """Seconds of what is not a product: a layer's GELU and LayerNorm forwards and backwards, Adam and the average."""
    width, spec = SIZES[size].hidden[0], SIZES[size].spec
    x = jax.random.normal(jax.random.key(0), (batch, width))

    def norm(x: jax.Array) -> jax.Array:
        x = x - x.mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)

    def many(function: Callable) -> Callable:
        return jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: 0.5 * x + function(x), x))

    def gradient(function: Callable) -> Callable:
        return jax.grad(lambda x: function(x).sum())

    found = {
        f"{name}_{way}": timed(lambda call=call: call(x), repeats, seconds).low / 100
        for name, function in (("gelu", gelu), ("layer_norm", norm))
        for way, call in (("forward", many(function)), ("backward", many(gradient(function))))
    }
    mlp = Mlp(sum(spec) + 2, SIZES[size].hidden, 1, layer_norm=True, precision="float32", key=jax.random.key(0))
    learner = Learner(mlp)

    @jax.jit
    def descend(learner: Learner, average: Mlp) -> tuple[Learner, Mlp]:
        def one(_: Any, both: tuple[Learner, Mlp]) -> tuple[Learner, Mlp]:
            learner, average = both
            stepped, _ = learner.step(lambda net: sum(leaf.sum() for leaf in jax.tree.leaves(net)), jnp.float32(1e-3))
            return stepped, track(average, stepped.network, 0.01)

        return jax.lax.fori_loop(0, 20, one, (learner, average))

    found["adam_and_average"] = timed(lambda: descend(learner, mlp), repeats, seconds).low / 20
    return found


# Acting, data, files, environments.


def tiny_policy(agent: AgentConfig, spec: Spec) -> Policy:
    """An untrained policy of this agent."""
    config = RunConfig(data="-", agent=agent)
    state = initial_state(config, spec)
    _, scale = prepare(config, synthetic(spec, rows=3000))
    return Run(config, spec, 0, state.policy, state.value, scale).select(1, 0)


def time_decisions(
    agent: AgentConfig, spec: Spec, batches: tuple[int, ...], repeats: int, seconds: float
) -> list[dict[str, Any]]:
    """Seconds per decision of a batch."""
    policy = tiny_policy(agent, spec)
    generator = np.random.default_rng(0)
    found = []
    for batch in batches:
        observations = generator.normal(size=(batch, spec.observation_dim)).astype(np.float32)
        for reading in (RandomSamples(50), Quadrature()):
            for count in CANDIDATES:
                search = SoftmaxOf(count, reading=reading) if count > 1 else Prior()
                timing = timed(lambda o=observations, s=search: policy.act(o, 0, s), repeats, seconds)
                row = {"precision": agent.precision, "batch": batch, "candidates": count, "reading": repr(reading)}
                found.append(row | timing._asdict())
    return found


def time_sampler(spec: Spec, repeats: int, seconds: float) -> dict[str, Any]:
    """Batches of 256 per second."""
    config = RunConfig(data="-")
    columns = jax.tree.map(jnp.asarray, prepare(config, synthetic(spec))[0])
    length = needs(config).chunk_length

    @jax.jit
    def many(key: Any) -> Any:
        def one(index: Any, total: Any) -> Any:
            batch, outcomes = sample(columns, jax.random.fold_in(key, index), 256, length)
            return total + sum(leaf.sum() for leaf in jax.tree.leaves((batch, outcomes.reward, outcomes.discount)))

        return jax.lax.fori_loop(0, 200, one, jnp.float32(0))

    timing = timed(lambda: many(jax.random.key(0)), repeats, seconds)
    return {"batches_per_second": 200 / timing.median, **timing._asdict()}


def time_files(agent: AgentConfig, spec: Spec, repeats: int, seconds: float) -> dict[str, Any]:
    """Seconds to save and to read back a whole training state."""
    state = initial_state(RunConfig(data="-", agent=agent), spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save = timed(lambda: checkpoint.save_arrays(path, state, {}), repeats, seconds)
        read = timed(lambda: checkpoint.load_arrays(path)[0], repeats, seconds)
        return {"mib": path.stat().st_size / 2**20, "save": save._asdict(), "read": read._asdict()}


def time_worlds(repeats: int, together: tuple[int, ...]) -> dict[str, Any]:
    """Environment steps per second: data generation in one process, and evaluation of so many episodes together."""
    found: dict[str, Any] = {}
    for dataset in (MAZE, CUBE):
        numbers = iter(range(10_000))
        generation = timed(lambda d=dataset, n=numbers: len(_play_one(d, 0, next(n), None)["actions"]), repeats, 0.0)
        found[f"generate {dataset}"] = {"steps_per_second": 1000 / generation.median, **generation._asdict()}
    policy = tiny_policy(PRESETS["default"], SIZES["demo"].spec)
    for count in together:
        steps: list[int] = []

        def evaluate(count: int = count, steps: list[int] = steps) -> None:
            steps.append(sum(e.length for e in play_all(policy, MAZE, 1, Prior(), count, 0)))

        timing = timed(evaluate, repeats, 0.0)
        found[f"evaluate {MAZE}, {count} together"] = {
            "steps_per_second": steps[-1] / timing.median,
            **timing._asdict(),
        }
    return found


# All of it.


def bench(
    out: Path,
    repeats: int = 5,
    seconds: float = 2.0,
    sizes: tuple[str, ...] = tuple(SIZES),
    presets: tuple[str, ...] = tuple(PRESETS),
) -> dict[str, Any]:
    """Measure everything, write bench.json into `out`, print tables. Raises EvorError on unknown names."""
    at_least(1, repeats=repeats, sizes=len(sizes), presets=len(presets))
    at_least(0, seconds=seconds)
    for name, known in [*((size, SIZES) for size in sizes), *((preset, PRESETS) for preset in presets)]:
        if name not in known:
            raise EvorError(f"nothing to measure is called {name!r}; {nearest(name, known)}")
    report: dict[str, Any] = {"updates": {}, "limits": {}, "decisions": {}, "files": {}, "sampler": {}}
    with progress_bar("bench", len(sizes) * (2 * len(presets) + 3) + 1, unit="measures") as advance:
        for size in sizes:
            spec, hidden = SIZES[size]
            report["limits"][size] = {
                precision: product_limit(hidden[0], 256, precision, repeats, seconds / 4)
                for precision in ("float32", "bfloat16")
            } | {"elementwise": elementwise_seconds(size, 256, repeats, seconds / 8)}
            advance(1, "limits")
            report["updates"][size] = {}
            for name in presets:
                for precision in ("float32", "bfloat16"):
                    agent = sized(PRESETS[name], size, precision)
                    report["updates"][size][f"{name} {precision}"] = time_update(agent, spec, 1, 1, repeats, seconds)
                    advance(1, f"{name} {precision}")
            agent = sized(PRESETS["default"], size, "float32")
            rounded = dataclasses.replace(agent, precision="bfloat16")
            report["decisions"][size] = [
                *time_decisions(rounded, spec, BATCHES, repeats, seconds / 8),
                *time_decisions(agent, spec, (1,), repeats, seconds / 8),
            ]
            advance(1, "decisions")
            report["files"][size] = time_files(agent, spec, repeats, 0.0)
            report["sampler"][size] = time_sampler(spec, repeats, 0.0)
            advance(1, "files, sampler")
        report["worlds"] = time_worlds(min(repeats, 3), TOGETHER)
        advance(1, "environments")
    report |= provenance()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "bench.json", report)
    print_tables(report)
    return report


def print_tables(report: dict[str, Any]) -> None:
    """Updates and decisions on the terminal."""
    screen = Console()
    for size, rows in report["updates"].items():
        table = Table("update", "ms", "10 % to 90 %", "GFLOP/s", "compile s", title=size)
        for name, found in rows.items():
            rate = found["gflop"] / found["median_ms"] * 1e3
            spread = f"{found['low_ms']:.1f} to {found['high_ms']:.1f}"
            table.add_row(name, f"{found['median_ms']:.1f}", spread, f"{rate:.0f}", f"{found['compile_seconds']:.1f}")
        screen.print(table)
        table = Table("decision", "precision", "batch", "candidates", "ms", title=size)
        for row in report["decisions"][size]:
            cells = (row["precision"], str(row["batch"]), str(row["candidates"]), f"{1e3 * row['median']:.2f}")
            table.add_row(row["reading"], *cells)
        screen.print(table)
