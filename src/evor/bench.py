"""How fast the parts are on this machine, and how close the update comes to what the machine can do.

Every measure is warmed up (its compile time stands apart) and repeated; medians come with their spread.
"""

import dataclasses
import functools
import itertools
import math
import tempfile
import time
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
from evor.evaluate import play
from evor.extract import Prior, SoftmaxOf
from evor.files import write_json
from evor.layout import on_cpu
from evor.limits import elementwise_seconds, flops, product_limit, timed
from evor.parallel import spread
from evor.policy import Policy
from evor.progress import progress_bar
from evor.provenance import provenance
from evor.run import Run
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
CANDIDATES, BATCHES, TOGETHER = (1, 8, 32, 128), (1, 50), (1, 10, 50)
NETWORKS = {1: (1, 1), 2: (2, 1), 5: (5, 1), 15: (5, 3), 75: (25, 3)}  # in one update: tasks x seeds
UNSHARED = (1, 15)  # tasks x seeds: runs that have no policy and no draw in common
PRECISIONS = ("float32", "bfloat16")
MAZE, CUBE = "pointmaze-medium-navigate-v0", "cube-single-play-v0"


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

    def call(count: int) -> float:
        nonlocal state
        started = time.perf_counter()
        state = jax.block_until_ready(run(state, columns, count))
        return time.perf_counter() - started

    compiled = call(1)
    count = 1
    for _ in range(2):  # a longer call costs less per update
        count = max(1, int(seconds * count / call(count)))
    low, median, high = np.quantile([call(count) for _ in range(repeats)], (0.1, 0.5, 0.9)) / count * 1e3
    gflop = update_flops(config, columns, state) / 1e9
    return {"compile_seconds": compiled, "median_ms": median, "low_ms": low, "high_ms": high, "gflop": gflop}


def time_networks(agent: AgentConfig, spec: Spec, repeats: int, seconds: float) -> dict[str, dict[str, Any]]:
    """One update of ever more networks in one run, by their number."""
    return {str(count): time_update(agent, spec, *shape, repeats, seconds) for count, shape in NETWORKS.items()}


def update_flops(config: RunConfig, columns: Columns, state: State) -> float:
    """Floating-point operations of one update of every seed and task."""
    seed, task, step = jnp.array(config.all_seeds[0]), jnp.array(config.tasks[0]), state.step
    policy, value = jax.tree.map(lambda leaf: leaf[0], state.policy), jax.tree.map(lambda leaf: leaf[0, 0], state.value)
    teach = functools.partial(update_policy, config)
    *_, lesson = jax.eval_shape(teach, columns, policy, seed, step)
    outcome = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lesson.outcomes)
    learn = flops(functools.partial(update_value, config), value, lesson, outcome, seed, task, step)
    return config.seeds * (flops(teach, columns, policy, seed, step) + len(config.tasks) * learn)


# Acting, data, files, environments.


def tiny_policy(agent: AgentConfig, spec: Spec) -> Policy:
    """An untrained policy of this agent."""
    config = RunConfig(data="-", agent=agent)
    state = initial_state(config, spec)
    _, scale = prepare(config, synthetic(spec, rows=3000))
    return Run(config, spec, 0, state.policy, state.value, scale).select(1, 0)


def time_decisions(
    agent: AgentConfig,
    spec: Spec,
    batches: tuple[int, ...],
    candidates: tuple[int, ...],
    repeats: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Seconds per decision of a batch."""
    policy = tiny_policy(agent, spec)
    generator = np.random.default_rng(0)
    found = []
    for batch in batches:
        observations = generator.normal(size=(batch, spec.observation_dim)).astype(np.float32)
        for reading in (RandomSamples(50), Quadrature()):
            for count in candidates:
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
            steps.append(sum(e.length for e in play(policy, MAZE, 1, Prior(), count, 0)))

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
    if not math.isfinite(seconds):
        raise EvorError(f"seconds is {seconds}; it must be finite.")
    for name, known in [*((size, SIZES) for size in sizes), *((preset, PRESETS) for preset in presets)]:
        if name not in known:
            raise EvorError(f"nothing to measure is called {name!r}; {nearest(name, known)}")
    out.mkdir(parents=True, exist_ok=True)
    # Of this one decisions and many networks are measured, if it is asked for.
    default = [PRESETS[name] for name in presets if name == "default"]
    report: dict[str, Any] = {
        "updates": {},
        "limits": {},
        "decisions": {},
        "files": {},
        "sampler": {},
        "networks": {},
        "unshared": {},
    }
    with progress_bar("bench", len(sizes) * (2 * len(presets) + 3) + 2, unit="measures") as advance:
        for size in sizes:
            spec, hidden = SIZES[size]
            report["limits"][size] = {
                precision: product_limit(hidden[0], 256, precision, repeats, seconds / 4) for precision in PRECISIONS
            } | {"elementwise": elementwise_seconds(sum(spec) + 2, hidden, 256, repeats, seconds / 8)}
            advance(1, "limits")
            report["updates"][size] = {}
            for name in presets:
                for precision in PRECISIONS:
                    agent = sized(PRESETS[name], size, precision)
                    report["updates"][size][f"{name} {precision}"] = time_update(agent, spec, 1, 1, repeats, seconds)
                    advance(1, f"{name} {precision}")
            jobs = [
                (sized(agent, size, precision), spec, batches, CANDIDATES, repeats, seconds / 2)
                for agent in default
                for precision, batches in (("bfloat16", BATCHES), ("float32", (1,)))
            ]
            # A core of its own on a CPU; an accelerator belongs to this process alone.
            found = (
                spread(time_decisions, jobs, 1, one_core=True) if on_cpu() else itertools.starmap(time_decisions, jobs)
            )
            report["decisions"][size] = [row for rows in found for row in rows]
            advance(1, "decisions")
            report["files"][size] = time_files(sized(PRESETS["default"], size, "float32"), spec, repeats, 0.0)
            report["sampler"][size] = time_sampler(spec, repeats, 0.0)
            advance(1, "files, sampler")
        # On a CPU networks take turns: one place shows what they cost.
        places = [(sizes[0], "bfloat16")] if on_cpu() else list(itertools.product(sizes, PRECISIONS))
        for agent, (size, precision) in itertools.product(default, places):
            agent = sized(agent, size, precision)
            report["networks"][f"{size} {precision}"] = time_networks(agent, SIZES[size].spec, repeats, seconds)
        # What a search in the targets costs against none, where neither is shared. (On a CPU: as one run against one.)
        for name, size in () if on_cpu() else itertools.product(presets, sizes):
            agent = sized(PRESETS[name], size, "bfloat16")
            report["unshared"][f"{name} {size}"] = time_update(agent, SIZES[size].spec, *UNSHARED, repeats, seconds)
        advance(1, "many networks")
        report["worlds"] = time_worlds(min(repeats, 3), TOGETHER)
        advance(1, "environments")
    report |= provenance()
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
