"""Updates per second of the default agent, alone and vmapped, compile time apart: `make bench`. JSON on stdout."""

import dataclasses
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.evor import Evor
from evor.config import RunConfig
from evor.progress import progress_bar
from evor.provenance import provenance
from evor.train import initial_state, make_runner, prepare
from evor.types import Episodes

REPEATS = 5
SIZES = {
    "demo": (2, 2, Evor()),
    "paper": (37, 5, Evor(hidden=(512, 512, 512, 512))),
}


def synthetic(observation_dim: int, action_dim: int, tasks: int, rows: int = 20_000) -> Episodes:
    """Random trajectories of 1 000 steps: timing needs shapes, not meaning."""
    generator = np.random.default_rng(0)
    ends = np.arange(rows) % 1000 == 999
    return Episodes(
        generator.normal(size=(rows, observation_dim)).astype(np.float32),
        generator.uniform(-1, 1, (rows, action_dim)).astype(np.float32),
        generator.normal(size=(tasks, rows)).astype(np.float32),
        np.ones((tasks, rows), np.float32),
        ends,
        ends,
        np.ones(rows, bool),
        tuple(range(1, tasks + 1)),
    )


def measure(observation_dim: int, action_dim: int, agent: Evor, tasks: int, seconds: float = 2.0) -> dict:
    episodes = synthetic(observation_dim, action_dim, tasks)
    config = RunConfig(data="-", tasks=episodes.tasks, agent=agent)
    columns = jax.tree.map(jnp.asarray, prepare(config, episodes)[0])
    started = time.perf_counter()
    state, run = make_runner(config, columns, initial_state(config, episodes.spec))
    state = jax.block_until_ready(run(state, columns, 1))
    compiled = time.perf_counter() - started
    started = time.perf_counter()
    state = jax.block_until_ready(run(state, columns, 3))
    count = max(1, int(seconds / ((time.perf_counter() - started) / 3)))
    milliseconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        state = jax.block_until_ready(run(state, columns, count))
        milliseconds.append(1e3 * (time.perf_counter() - started) / count)
    return {
        "compile_seconds": round(compiled, 2),
        "ms_per_update": {
            "min": min(milliseconds),
            "median": statistics.median(milliseconds),
            "max": max(milliseconds),
        },
    }


def main() -> None:
    cases = [(size, precision, tasks) for size in SIZES for precision in ("float32", "bfloat16") for tasks in (1, 5)]
    found = []
    with progress_bar("bench", len(cases), unit="cases") as advance:
        for size, precision, tasks in cases:
            observation_dim, action_dim, agent = SIZES[size]
            timing = measure(observation_dim, action_dim, dataclasses.replace(agent, precision=precision), tasks)
            found.append({"size": size, "precision": precision, "tasks": tasks, **timing})
            advance(1)
    json.dump({"updates": found, **provenance()}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
