"""Timings of the parts: the update, decisions, sampling, files, environments. `evor bench` is the list of them.

Every timing is warmed up (its compile time stands apart) and repeated; medians come with their spread.
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.next_action import DatasetAction
from evor.agents.registry import PRESETS, AgentConfig
from evor.data.columns import Columns
from evor.data.sampler import sample
from evor.data.scripted.generate import play_one
from evor.experiments.bench.limits import flops, timed
from evor.experiments.bench.profiler import profile
from evor.nn.batching import on_cpu
from evor.nn.learner import Progress
from evor.nn.ops import Precision
from evor.policies.load import Run
from evor.policies.policy import Policy
from evor.rollouts.play import play
from evor.runtime.parallel import Local, parallel_map
from evor.runtime.records import replace
from evor.search.extraction import Prior, SoftmaxOf
from evor.search.readings import Quadrature, RandomSamples
from evor.training import checkpoint
from evor.training.config import RunConfig
from evor.training.data import data_spec_of, prepare
from evor.training.proposals import visited
from evor.training.update import State, initial_state, make_runner, step_base, step_head
from evor.types import Episodes, Spec


class Size(NamedTuple):
    """Sizes that the cost of an update depends on, besides the agent."""

    spec: Spec
    hidden: tuple[int, ...]


SIZES = {"demo": Size(Spec(2, 2), (256, 256, 256)), "paper": Size(Spec(37, 5), (512, 512, 512, 512))}
SYNTHETIC_ROWS = 100_000  # of the synthetic data
CANDIDATES, ON_ACCELERATOR, BATCHES = (1, 8, 32, 128), (32, 128), (1, 50)
MAZE, CUBE = "pointmaze-medium-navigate-v0", "cube-single-play-v0"


# The update.


def synthetic(spec: Spec, *, tasks: int = 1, rows: int = SYNTHETIC_ROWS) -> Episodes:
    """Random trajectories of 1 000 steps: timing needs shapes, not meaning."""
    generator = np.random.default_rng(0)
    ends = np.arange(rows) % 1000 == 999
    return Episodes(
        observations=generator.normal(size=(rows, spec.observation_dim)).astype(np.float32),
        actions=generator.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32),
        rewards=generator.normal(size=(tasks, rows)).astype(np.float32),
        masks=np.ones((tasks, rows), np.float32),
        ends=ends,
        bootstrap_only=ends,
        action_known=np.ones(rows, bool),
        tasks=tuple(range(1, tasks + 1)),
    )


def sized(agent: AgentConfig, size: str, *, precision: Precision) -> AgentConfig:
    """An agent at a size."""
    return replace(agent, hidden=SIZES[size].hidden, precision=precision)


WITHOUT_SEARCH = "without-search"  # the default, with the dataset's action in targets
# What can be timed by its name.
TIMED = PRESETS | {WITHOUT_SEARCH: replace(PRESETS["default"], next_action=DatasetAction())}


class Prepared(NamedTuple):
    """Updates of tasks x seeds of synthetic data, ready to run."""

    config: RunConfig
    columns: Columns
    state: State
    run: Callable[[State, Columns, int], State]


def prepared(agent: AgentConfig, spec: Spec, *, tasks: int, seeds: int, rows: int = SYNTHETIC_ROWS) -> Prepared:
    """Updates of this agent on so many rows, not compiled yet."""
    episodes = synthetic(spec, tasks=tasks, rows=rows)
    config = RunConfig(data="-", tasks=episodes.tasks, num_seeds=seeds, agent=agent)
    columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
    columns = visited(config, columns, block=0, total=rows)
    if columns.proposals is not None:  # any draws cost the same
        columns = columns._replace(proposals=jnp.zeros(columns.proposals.shape))
    state, run = make_runner(config, columns, initial_state(config, spec))
    return Prepared(config=config, columns=columns, state=state, run=run)


def time_update(
    agent: AgentConfig, spec: Spec, *, tasks: int, seeds: int, repeats: int, seconds: float, rows: int = SYNTHETIC_ROWS
) -> dict[str, Any]:
    """One update of tasks x seeds, and the arithmetic in it. A call takes about `seconds`, as in training."""
    config, columns, state, run = prepared(agent, spec, tasks=tasks, seeds=seeds, rows=rows)

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
    gflop = update_flops(config, columns, state=state) / 1e9
    return {
        "compile_seconds": compiled,
        "median_ms": median,
        "low_ms": low,
        "high_ms": high,
        "gflop": gflop,
        "seconds": repeats * count * median / 1e3,
    }


def profile_update(agent: AgentConfig, spec: Spec, *, tasks: int, seeds: int, updates: int = 64) -> dict[str, Any]:
    """Profile an update on the device, see `profiler.profile`; seconds and numbers of kernels are of one update."""
    _, columns, state, run = prepared(agent, spec, tasks=tasks, seeds=seeds)
    state = jax.block_until_ready(run(state, columns, updates))
    profiled = profile(lambda: run(state, columns, updates))
    return profiled | {
        "seconds": profiled["seconds"] / updates,
        "kernels": profiled["kernels"] / updates,
        "longest": {name: seconds / updates for name, seconds in profiled["longest"].items()},
    }


def update_flops(config: RunConfig, columns: Columns, *, state: State) -> float:
    """Floating-point operations of one update of every seed and task."""
    seed, task = jnp.array(config.all_seeds[0]), jnp.array(config.tasks[0])
    progress = Progress(state.step, jnp.array(config.updates))
    base, head = jax.tree.map(lambda leaf: leaf[0], state.base), jax.tree.map(lambda leaf: leaf[0, 0], state.head)
    of_base, of_head = functools.partial(step_base, config.agent), functools.partial(step_head, config.agent)
    *_, given = jax.eval_shape(of_base, columns, base, seed, jnp.array(0), progress)
    outcome = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), given.outcomes)
    per_task = flops(of_head, head, given, outcome, seed, task, progress)
    return config.num_seeds * (
        flops(of_base, columns, base, seed, jnp.array(0), progress) + len(config.tasks) * per_task
    )


# Acting, data, files, environments.


def tiny_policy(agent: AgentConfig, spec: Spec) -> Policy:
    """An untrained policy of this agent."""
    config = RunConfig(data="-", agent=agent)
    state = initial_state(config, spec)
    _, scale = prepare(config, synthetic(spec, rows=3000))
    return Run(config=config, spec=spec, step=0, base=state.base, head=state.head, standardisation=scale).policy(1, 0)


READINGS = (RandomSamples(50), Quadrature(), Quadrature(6, flow_steps=2))  # the paper's, the default's, a quicker one


class Decisions(NamedTuple):
    """Decisions of an agent that are timed."""

    agent: AgentConfig
    spec: Spec
    batches: tuple[int, ...]
    candidates: tuple[int, ...]
    repeats: int
    seconds: float


def time_decisions(decisions: Decisions) -> list[dict[str, Any]]:
    """Seconds per decision of a batch."""
    agent, spec, batches, candidates, repeats, seconds = decisions
    policy = tiny_policy(agent, spec)
    generator = np.random.default_rng(0)
    timings = []
    for batch in batches:
        observations = generator.normal(size=(batch, spec.observation_dim)).astype(np.float32)
        for reading in READINGS:
            for count in candidates:
                search = SoftmaxOf(count, reading=reading) if count > 1 else Prior()
                timing = timed(
                    lambda o=observations, s=search: policy.act(o, 0, extraction=s), repeats=repeats, seconds=seconds
                )
                row = {
                    "precision": agent.learning.precision,
                    "batch": batch,
                    "candidates": count,
                    "reading": repr(reading),
                }
                timings.append(row | timing._asdict())
    return timings


def time_all_decisions(
    agent: AgentConfig, size: str, *, precisions: tuple[Precision, ...], repeats: int, seconds: float
) -> list[dict[str, Any]]:
    """Time decisions in these precisions, and of many observations at once in bfloat16."""
    jobs = [
        Decisions(
            agent=sized(agent, size, precision=precision),
            spec=SIZES[size].spec,
            batches=BATCHES if precision == "bfloat16" else (1,),
            candidates=CANDIDATES if on_cpu() else ON_ACCELERATOR,
            repeats=repeats,
            seconds=seconds,
        )
        for precision in precisions[::-1]
    ]
    # A core of its own on a CPU; an accelerator belongs to this process alone.
    tables = (
        parallel_map(time_decisions, [(job,) for job in jobs], Local(1, pin_cores=True))
        if on_cpu()
        else map(time_decisions, jobs)
    )
    return [row for rows in tables for row in rows]


def time_sampler(spec: Spec, *, repeats: int, seconds: float) -> dict[str, Any]:
    """Batches of 256 per second."""
    config = RunConfig(data="-")
    columns = jax.tree.map(jnp.asarray, prepare(config, synthetic(spec))[0])
    length = data_spec_of(config).chunk_length

    @jax.jit
    def many(key: Any) -> Any:
        def one(index: Any, total: Any) -> Any:
            batch, outcomes = sample(columns, jax.random.fold_in(key, index), batch_size=256, chunk_length=length)
            return total + sum(leaf.sum() for leaf in jax.tree.leaves((batch, outcomes.reward, outcomes.discount)))

        return jax.lax.fori_loop(0, 200, one, jnp.float32(0))

    timing = timed(lambda: many(jax.random.key(0)), repeats=repeats, seconds=seconds)
    return {"batches_per_second": 200 / timing.median, **timing._asdict()}


def time_files(agent: AgentConfig, spec: Spec, *, repeats: int, seconds: float) -> dict[str, Any]:
    """Seconds to save and to read back a whole training state."""
    state = initial_state(RunConfig(data="-", agent=agent), spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save = timed(lambda: checkpoint.save_arrays(path, state, metadata={}), repeats=repeats, seconds=seconds)
        read = timed(lambda: checkpoint.load_arrays(path)[0], repeats=repeats, seconds=seconds)
        return {"mib": path.stat().st_size / 2**20, "save": save._asdict(), "read": read._asdict()}


def time_generation(dataset: str, repeats: int) -> dict[str, Any]:
    """Environment steps per second of data generation in one process."""
    numbers = iter(range(10_000))
    timing = timed(lambda: len(play_one(dataset, 0, next(numbers), None)["actions"]), repeats=repeats, seconds=0.0)
    return {"steps_per_second": 1000 / timing.median, **timing._asdict()}


def time_evaluation(count: int, repeats: int) -> dict[str, Any]:
    """Environment steps per second of so many episodes together."""
    policy = tiny_policy(PRESETS["default"], SIZES["demo"].spec)
    steps: list[int] = []
    timing = timed(
        lambda: steps.append(
            sum(e.length for e in play(policy, MAZE, task=1, extraction=Prior(), episodes=count, evaluation_seed=0))
        ),
        repeats=repeats,
        seconds=0.0,
    )
    return {"steps_per_second": steps[-1] / timing.median, **timing._asdict()}
