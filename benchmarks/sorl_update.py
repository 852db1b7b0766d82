"""SORL's update at the paper's size, against the arithmetic in it and against a loop as the field writes it.

`make sorl-update` measures in turns, so that each ratio is of neighbouring seconds: products alone, updates inside one compiled
call, and the field's loop in float32, which draws a batch in numpy and calls one compiled update each time. It prints a table and
bounds, and writes runs/sorl-update/sorl-update.json. Run it on a quiet machine.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench import Bound
from rich.table import Table

from evor.agents import sorl
from evor.agents.registry import PRESETS
from evor.experiments.bench.limits import bfloat16_units, product_limit
from evor.experiments.bench.timings import SIZES, Prepared, Size, prepared, synthetic, update_flops
from evor.nn.engine import pinned
from evor.nn.learner import Progress
from evor.nn.ops import Precision
from evor.runtime.files import write_json
from evor.runtime.progress import progress_bar, screen
from evor.runtime.provenance import provenance
from evor.runtime.records import replace
from evor.types import Outcome, Transition

ESTIMATE = 14.5  # GFLOP of one update at the paper's size: forward passes count once, backward passes twice
LIMITS: dict[Precision, float] = {"float32": 1.3, "bfloat16": 1.6}  # of an update, in times of the estimate
Loop = Callable[[int], float]  # a number of updates -> seconds


def compiled(agent: sorl.Sorl, size: Size) -> tuple[Loop, float]:
    """Updates as evor makes them, many in one call; and the GFLOP of one."""
    made: Prepared = prepared(agent, size.spec, tasks=1, seeds=1)
    state = made.state

    def run(count: int) -> float:
        nonlocal state
        started = time.perf_counter()
        state = jax.block_until_ready(made.run(state, made.columns, count))
        return time.perf_counter() - started

    return run, update_flops(made.config, made.columns, state=state) / 1e9


def field_style(agent: sorl.Sorl, size: Size) -> Loop:
    """The same losses in a loop of Python: a batch drawn in numpy, then one compiled update."""
    data, generator, rows = synthetic(size.spec), np.random.default_rng(0), agent.learning.batch_size
    rewards, mask = data.rewards[0], np.ones((rows, size.spec.action_dim), np.float32)

    @jax.jit
    def update(head: sorl.ActorCritic, drawn: dict[str, Any], told: dict[str, Any], step: Any) -> sorl.ActorCritic:
        key, progress = jax.random.fold_in(jax.random.key(0), step), Progress(step, 1_000_000)
        batch, outcomes = Transition(**drawn), Outcome(**told)  # here they are JAX's arrays, outside numpy's
        return sorl.update_head(head, batch, handed=(), outcomes=outcomes, config=agent, progress=progress, key=key)[0]

    head, step = sorl.init_head(agent, size.spec, key=jax.random.key(0)), 0

    def one() -> None:
        nonlocal head, step
        places = generator.integers(0, len(rewards) - 1, rows)
        drawn = {
            "observation": data.observations[places],
            "action": data.actions[places],
            "action_mask": mask,
            "next_observation": data.observations[places + 1],
            "next_action": data.actions[places + 1],
            "next_proposals": np.zeros((rows, 0, size.spec.action_dim), np.float32),
        }
        zeros = np.zeros(rows, np.float32)
        told = {
            "reward": rewards[places],
            "discount": np.full(rows, agent.discount, np.float32),
            "weight": np.ones(rows, np.float32),
            "reward_to_go": zeros,
            "return_min": zeros,
            "return_max": zeros,
        }
        head, step = update(head, drawn, told, jnp.int32(step)), step + 1

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            one()
        jax.block_until_ready(head)
        return time.perf_counter() - started

    return run


@pinned
def measure(size: Size, *, repeats: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of an update each way and the rate of products, in turns."""
    loops: dict[str, Loop] = {}
    gflop: dict[str, float] = {}
    for precision in LIMITS:
        loops[precision], gflop[precision] = compiled(_agent(size, precision), size)
    loops["field"] = field_style(_agent(size, "float32"), size)
    counts = {}
    for name, loop in loops.items():
        loop(1)  # compiles
        counts[name] = max(1, int(seconds / loop(1)))
    rate = functools.partial(product_limit, size.hidden[0], 256, repeats=3, seconds=seconds / 4)
    rounds: list[dict[str, float]] = []
    with progress_bar("sorl-update", repeats, unit="rounds") as advance:
        for number in range(repeats):
            one = {f"rate {name}": rate(precision=name) for name in LIMITS}
            names = list(loops) if number % 2 else list(reversed(loops))
            one |= {name: 1e3 * loops[name](counts[name]) / counts[name] for name in names}
            rounds.append(one)
            advance(1, "")
    return {"rounds": rounds, "gflop": gflop, "updates_per_round": counts}


def _agent(size: Size, precision: Precision) -> Any:
    return replace(PRESETS["sorl"], hidden=size.hidden, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measure, about")
    parser.add_argument("--hidden", type=int, nargs="*", help="another size of the networks, to try the program")
    parser.add_argument("--out", type=Path, default=Path("runs/sorl-update"))
    a = parser.parse_args()
    size = SIZES["paper"] if a.hidden is None else SIZES["paper"]._replace(hidden=tuple(a.hidden))
    report = provenance() | measure(size, repeats=a.repeats, seconds=a.seconds)
    report |= {"hidden": list(size.hidden), "estimate_gflop": ESTIMATE}
    a.out.mkdir(parents=True, exist_ok=True)
    write_json(a.out / "sorl-update.json", report)
    tell(report)


def tell(report: dict[str, Any]) -> None:
    """Print medians and bounds."""

    def column(name: str) -> np.ndarray:
        return np.array([one[name] for one in report["rounds"]])

    table = Table("update", "ms", "GFLOP in its products", "GFLOP/s of products alone")
    for name in LIMITS:
        rate = np.median(column(f"rate {name}"))
        table.add_row(
            f"in one call, {name}", f"{np.median(column(name)):.1f}", f"{report['gflop'][name]:.1f}", f"{rate:.0f}"
        )
    table.add_row("field-style loop, float32", f"{np.median(column('field')):.1f}", "", "")
    screen.print(table)
    units, whole = bfloat16_units(), report["hidden"] == list(SIZES["paper"].hidden)
    for name, limit in LIMITS.items() if whole else ():
        times = float(np.median(column(name) * column(f"rate {name}"))) / (1e3 * ESTIMATE)
        told = f"SORL's update in {name}, in times of {ESTIMATE} GFLOP at the rate of products"
        screen.print(str(Bound(told, times, limit, False, units if name == "bfloat16" else "matrix")))
    screen.print(f"field-style loop / one call, float32: {np.median(column('field') / column('float32')):.2f}")


if __name__ == "__main__":
    main()
