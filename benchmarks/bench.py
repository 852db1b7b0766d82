"""`make bench`: `evor bench`, the reference update beside it, and one line per bound. Writes docs/results/bench.json.

The page docs/performance.md is made from that file and from the long studies' files, which have targets of their own.
"""

import argparse
import functools
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import readme
import reference

from evor.agents.registry import PRESETS
from evor.experiments.bench.limits import bfloat16_units, timed
from evor.experiments.bench.plan import bench
from evor.experiments.bench.timings import SIZES, prepared, sized, synthetic, time_update
from evor.report.figures import ACCENT, BASE, MUTED, look, save_figure, subplots
from evor.report.statistics import Estimate, estimate, interquartile_mean
from evor.runtime.files import write_json, write_text
from evor.runtime.provenance import peak_memory_mib
from evor.runtime.records import replace
from evor.search.readings import Quadrature

RESULTS, DOCS = Path("docs/results"), Path("docs")
WIDTHS, ROWS = (128, 256, 512, 1024), (100_000, 1_000_000, 10_000_000)
NODES = Quadrature().num_nodes


# The yardstick.


def time_reference(repeats: int, seconds: float) -> dict[str, Any]:
    """The reference update at the paper's size: sampled by numpy, one jitted call per update."""
    spec, hidden = SIZES["paper"]
    episodes = synthetic(spec)
    data = {
        "observations": episodes.observations[:-1],
        "actions": episodes.actions[:-1],
        "next_observations": episodes.observations[1:],
        "rewards": episodes.rewards[0, :-1, None],
        "masks": episodes.masks[0, :-1, None],
    }
    generator = np.random.default_rng(0)
    box = [reference.init(jax.random.key(0), *spec, hidden)]

    def step() -> Any:
        box[0] = reference.update(box[0], reference.sample_batch(data, generator, 256))
        return box[0]["key"]

    timing = timed(step, repeats=10 * repeats, seconds=seconds)
    observation = jnp.asarray(data["observations"][0])
    acting = timed(
        lambda: reference.act(
            box[0]["policy"], box[0]["value"], (jax.random.key(0), observation), spec.action_dim, 32, 50
        ),
        repeats=repeats,
        seconds=seconds / 4,
    )
    return {
        "compile_seconds": timing.first,
        **{f"{name}_ms": 1e3 * getattr(timing, name) for name in ("median", "low", "high")},
        "decision_ms": 1e3 * acting.median,
    }


def time_scaling(repeats: int, seconds: float) -> dict[str, dict[str, Any]]:
    """The default update, bfloat16, against width and transitions."""
    agent, spec = sized(PRESETS["default"], "demo", precision="bfloat16"), SIZES["demo"].spec
    timing = functools.partial(time_update, spec=spec, tasks=1, seeds=1, repeats=repeats, seconds=seconds)
    return {
        "width": {str(width): timing(replace(agent, hidden=(width,) * 3)) for width in WIDTHS},
        "transitions": {f"{rows:,}": timing(agent, rows=rows) for rows in ROWS},
    }


def _peak(queue: Any) -> None:
    """Peak memory of training at 1M transitions of 45 features, beyond what JAX took before."""
    jax.block_until_ready(jnp.zeros(1))
    before = peak_memory_mib()
    spec = SIZES["paper"].spec._replace(observation_dim=40)
    _, columns, state, run = prepared(
        sized(PRESETS["default"], "paper", precision="float32"), spec, tasks=1, seeds=1, rows=1_000_000
    )
    jax.block_until_ready(run(state, columns, 3))
    queue.put((peak_memory_mib() - before) / 1024)


def peak_gib() -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(queue,))
    process.start()
    found = queue.get()
    process.join()
    return found


# Bounds.


MATRIX_ONLY = "is asked of processors with bfloat16 matrix units (amx_bf16)"
UNITS = {
    "vector": "multiplies bfloat16 in vectors only (avx512_bf16)",
    "none": "has no bfloat16 units",
    "unknown": "does not tell what it has",
}


class Bound(NamedTuple):
    """A line at the end. Some bounds presuppose matrix units for bfloat16, and apply only to processors that have them."""

    name: str
    measured: float | None
    limit: float
    at_least: bool
    units: str = "matrix"  # those of this machine (evor.experiments.bench.limits.bfloat16_units), where the bound presupposes matrix units

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        if self.measured is None:
            return f"{self.name}: not measured, {sign} {self.limit:g}"
        if self.units != "matrix":
            return f"{self.name}: {self.measured:.3g}; {sign} {self.limit:g} {MATRIX_ONLY}, and this one {UNITS[self.units]}"
        holds = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return f"{self.name}: {self.measured:.3g}, {sign} {self.limit:g}: {verdict(holds)}"


def elementwise_ms(report: dict[str, Any]) -> float:
    """Milliseconds of GELU, LayerNorm, Adam and the average in one default update at the paper's size."""
    parts = {name: 1e3 * value for name, value in report["limits"]["paper"]["elementwise"].items()}
    layers, passes = len(SIZES["paper"].hidden), PRESETS["default"].flow_steps
    gelu = (2 + passes) * parts["gelu_forward"] + 2 * parts["gelu_backward"]
    norm = (1 + passes) * parts["layer_norm_forward"] + parts["layer_norm_backward"]
    return layers * (gelu + norm) + 2 * parts["adam"] + parts["average"]


def bounds(report: dict[str, Any]) -> list[Bound]:
    updates, limits = report["updates"]["paper"], report["limits"]["paper"]
    fastest = min(("float32", "bfloat16"), key=lambda p: updates[f"default {p}"]["median_ms"])
    default = updates[f"default {fastest}"]
    same = min(updates[f"paper {precision}"]["median_ms"] for precision in ("float32", "bfloat16"))
    best = max(limits["float32"], limits["bfloat16"])
    products = default["gflop"] / best * 1e3
    decisions = {
        (row["reading"], row["candidates"]): row["median"]
        for row in report["decisions"]["paper"]
        if (row["batch"], row["precision"]) == (1, fastest)
    }
    ours = decisions[repr(Quadrature()), 32]
    networks, units = report["networks"]["demo bfloat16"], report["bfloat16_units"]
    return [
        Bound("default update against the reference, times faster", report["reference"]["median_ms"] / default["median_ms"], 3, True, units),
        Bound("the reference's own objective, times faster", report["reference"]["median_ms"] / same, 2, True, units),
        Bound("default update against QC-1, times faster", updates[f"qc-1 {fastest}"]["median_ms"] / default["median_ms"], 15, True),
        Bound("share of the limit of products", products / default["median_ms"], 0.3, True),
        Bound("times the sum of both limits", default["median_ms"] / (products + elementwise_ms(report)), 1.4, False),
        Bound("decision against 50 samples, times faster", decisions["RandomSamples(num_returns=50)", 32] / ours, 0.8 * 50 / NODES, True),
        Bound("decision, ms", 1e3 * ours, 25, False, units),
        Bound("15 runs against one, times the cost", networks["15"]["median_ms"] / networks["1"]["median_ms"], 15, False),
        Bound("memory at 1M transitions x 45 features, GiB", report["peak_gib"], 2, False),
    ]  # fmt: skip


# The page.

REASONS = """## What bounds these numbers

* **An update** is bound by compute on one core: the products, then what lies between them (GELU, LayerNorm), then the
  traffic of Adam and the moving average. The bounds above compare it with the first alone and with all of them.
* **One thread is faster than two** here: a product of 256 rows takes a few tenths of a millisecond, and handing its halves to
  threads costs more than that. `evor` asks XLA for one thread (`PJRT_NPROC=1`, unless it is set) and gives the other cores
  to processes: data generation, cells of `evor reproduce`, recipes of a study.
* **Many networks** cost about as much each as one alone: a policy walks up to 32 updates ahead, then each value learns
  them alone, so that one network at a time stays in the core's cache.
* **A decision** is bound by compute from 8 candidates on; below that by reading the weights 2 x 10 times. It is timed in a
  process that keeps to one core: moved between cores by the system, it costs about an eighth more.
* **The sampler** and saving are bound by memory, generation and evaluation by MuJoCo; more episodes together share the
  decisions, not the physics. An environment takes 2 MiB in the mazes and 143 to 180 in cube, scene and puzzle, whose meshes
  OGBench compiles anew for each: episodes are played in waves of as many as fit into half of the free memory.

## What made it fast, and what didn't pay

Kept: dataset actions in the targets (the paper draws them from the policy: ten more passes); one quantile per node instead
of random samples; products of bfloat16 whose gradients stay in bfloat16 (XLA runs a product with a transposed operand in
float32, unless it is spelled otherwise: src/evor/nn/nets.py); GELU as a polynomial; blocks of about 512 rows where more rows
than that meet one network (src/evor/nn/batching.py); many updates per compiled call, networks unstacked inside it, so that no
weight is copied.

Tried and dropped, because they changed little or made it slower: constant parts of the first layer hoisted out of the Euler
loop; LayerNorm's scale and shift folded into the next layer; its mean and variance as products with a vector of ones, or
from one pass; weights cast once per update (XLA does that); GELU through a sigmoid or an exponential; fast-math and wider
vectors as XLA flags; a plain vmap over networks, and updating them in place inside a loop (XLA copies them all).
"""


def page(report: dict[str, Any]) -> str:
    parts = [
        "# Performance",
        "",
        f"`make bench`: {report['hardware']['cpu']}, {report['hardware']['device']}; jax {report['versions']['jax']}, python "
        f"{report['versions']['python']}; commit {report['commit']}. Medians over {report['repeats']} repetitions, compilation "
        "apart. Absolute times drift on shared machines: compare within this page.",
        "",
        "![roofline](results/bench.png)",
        "",
        "## Bounds",
        "",
        "The reference is `benchmarks/reference.py`: the paper's mathematics as the field writes it, one jitted float32 update "
        "per Python iteration, batches drawn by numpy, 50 random samples when acting. Updates and decisions are those of the "
        "paper's size, in the faster of the two precisions, which is the claim: what a user of this machine gets. The sum of "
        "both limits is the products at the best rate of products of these shapes, and GELU, LayerNorm, Adam and the moving "
        f"average as measured alone. {NODES} nodes stand for 50 samples, so a decision can be 50 / {NODES} times faster, and 0.8 of that "
        "is asked. Three bounds presuppose that the processor has matrix units for bfloat16 (amx_bf16): the first two, and the "
        "milliseconds of a decision. They are applied only where it has; one with avx512_bf16 alone multiplies bfloat16 in "
        "vectors, about twice as fast as float32. 15 runs are 5 tasks x 3 seeds that share the base policy of a seed: no more than 15 single runs.",
        "",
        *(f"* {line}" for line in (*report["bounds"], *read_bounds())),
    ]
    for size, rows in report["updates"].items():
        spec, hidden = SIZES[size]
        parts += [
            "",
            f"## One update, {size}: nets {' x '.join(map(str, hidden))}, observation {spec.observation_dim}, action "
            f"{spec.action_dim}, batch 256",
            "",
            f"Products of these shapes reach {report['limits'][size]['float32']:.0f} GFLOP/s in float32 and "
            f"{report['limits'][size]['bfloat16']:.0f} with bfloat16 operands.",
            "",
            "| agent | ms | 10 % to 90 % | GFLOP | GFLOP/s | compile s |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        parts += [
            f"| {name} | {r['median_ms']:.1f} | {r['low_ms']:.1f} to {r['high_ms']:.1f} | {r['gflop']:.2f} | "
            f"{r['gflop'] / r['median_ms'] * 1e3:.0f} | {r['compile_seconds']:.1f} |"
            for name, r in rows.items()
        ]
        if size == "paper":
            r = report["reference"]
            parts.append(
                f"| reference float32 | {r['median_ms']:.1f} | {r['low_ms']:.1f} to {r['high_ms']:.1f} | | | {r['compile_seconds']:.1f} |"
            )
        parts += ["", "| decision | precision | batch | candidates | ms |", "| --- | --- | --- | --- | --- |"]
        parts += [
            f"| {r['reading']} | {r['precision']} | {r['batch']} | {r['candidates']} | {1e3 * r['median']:.2f} |"
            for r in report["decisions"][size]
        ]
    parts += ["", "## One update, demo, bfloat16, as things grow"]
    for name, cells in ({"networks": report["networks"]["demo bfloat16"]} | report["scaling"]).items():
        parts += ["", f"| {name} | ms | times the first |", "| --- | --- | --- |"]
        first = next(iter(cells.values()))["median_ms"]
        parts += [f"| {n} | {r['median_ms']:.2f} | {r['median_ms'] / first:.2f} |" for n, r in cells.items()]
    parts += time_to_solve()
    parts += ["", "## The rest", "", "| what | per second |", "| --- | --- |"]
    parts += [f"| {name}, steps | {r['steps_per_second']:.0f} |" for name, r in report["worlds"].items()]
    parts += [
        f"| sampler, batches of 256 ({size}) | {r['batches_per_second']:.0f} |" for size, r in report["sampler"].items()
    ]
    parts += [
        f"| saving {r['mib']:.0f} MiB of training state ({size}) | {1 / r['save']['median']:.1f} |"
        for size, r in report["files"].items()
    ]
    return "\n".join([*parts, "", REASONS])


def time_to_solve() -> list[str]:
    """The section on the study of that name, read from its committed file."""
    parts: list[str] = []
    path = RESULTS / "time-to-solve.json"
    if path.exists():
        made = json.loads(path.read_text())
        parts += [
            "",
            "## Time to solve",
            "",
            f"`make time-to-solve` (commit {made['commit']}): {made['dataset']}, task {made['task']}, nets 256 x 256 x 256 in "
            f"bfloat16, one core per run, {made['episodes']} episodes per evaluation; solved is the first evaluation of at "
            "least 0.95 that the next three follow with at least 0.9 (at the end of a schedule the last one stands for them); "
            "half an hour at most, evaluations included; every EVOR recipe is played with the default search.",
            "",
            "| agent | seed | solved after | updates | evaluations | last success |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for run in made["runs"]:
            at, last = run["solved"], run["laps"][-1]
            after = f"{at['train_seconds']:.0f} s of training" if at else "not"
            parts.append(
                f"| {run['agent']} | {run['seed']} | {after} | {(at or last)['updates']:,} | {len(run['laps'])} "
                f"| {last['success']:.2f} |"
            )
    return parts


def read_bounds() -> list[str]:
    """Lines on bounds of the long studies, read from their committed files."""
    lines = []
    paths = [RESULTS / f"pointmaze-medium{name}.csv" for name in ("", "-bfloat16")]
    if all(path.exists() for path in paths):
        found = [estimate(interquartile_mean, readme.by_task(readme.played(path)["32 candidates"])) for path in paths]
        lines.append(
            f"success in both precisions, 5 tasks x 3 seeds, interquartile means within each other's intervals (read from "
            f"{paths[0].name} and {paths[1].name}): float32 {found[0]}, bfloat16 {found[1]}: {verdict(agree(*found))}"
        )
    path = RESULTS / "time-to-solve.json"
    if path.exists():
        solved: dict[str, list[str]] = {}
        for run in json.loads(path.read_text())["runs"]:
            at = run["solved"]
            solved.setdefault(run["agent"], []).append(f"{at['train_seconds']:.0f} s" if at else "not in 30 minutes")
        told = "; ".join(f"{agent} {', '.join(times)}" for agent, times in solved.items())
        lines.append(f"time to solve, by seed (read from {path.name}; no bound): {told}")
    return lines


def agree(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates lie within each other's intervals."""
    return first.low <= second.value <= first.high and second.low <= first.value <= second.high


def verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


@look()
def draw(report: dict[str, Any], path: Path) -> None:
    """Achieved GFLOP/s of every update beside what products of its shapes reach."""
    figure, axes = subplots(1, len(report["updates"]), figsize=(10, 3.4))
    for axis, (size, rows) in zip(np.atleast_1d(axes), report["updates"].items(), strict=True):
        names = list(rows)
        rates = [rows[name]["gflop"] / rows[name]["median_ms"] * 1e3 for name in names]
        axis.barh(names, rates, color=[BASE if name.endswith("bfloat16") else ACCENT for name in names])
        for precision, colour in (("float32", ACCENT), ("bfloat16", BASE)):
            axis.axvline(report["limits"][size][precision], color=colour, linestyle="--", linewidth=1.2)
        axis.set(title=size, xlabel="GFLOP/s of matrix products (dashed: products alone)")
        axis.tick_params(labelsize=7, colors=MUTED)
    figure.tight_layout()
    save_figure(figure, path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if arguments.page_only:
        report = json.loads((RESULTS / "bench.json").read_text())
    else:
        report = bench(Path("runs/bench"), repeats=arguments.repeats, seconds=arguments.seconds)
        report["reference"] = time_reference(arguments.repeats, arguments.seconds)
        report["scaling"] = time_scaling(arguments.repeats, arguments.seconds)
        report["peak_gib"] = peak_gib()
        report["bfloat16_units"] = bfloat16_units()
        report["bounds"] = [str(bound) for bound in bounds(report)]
        write_json(RESULTS / "bench.json", report)
    draw(report, RESULTS / "bench.png")
    write_text(DOCS / "performance.md", page(report))
    sys.stdout.write("\n".join([*report["bounds"], *read_bounds()]) + "\n")


if __name__ == "__main__":
    main()
