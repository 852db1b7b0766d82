"""`make bench`: `evor bench`, the reference update beside it, and one line per bound. Writes docs/results/bench.json.

The page docs/performance.md is made from that file and from the long studies' files, which have targets of their own.
"""

import argparse
import functools
import json
import math
import multiprocessing
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference

from evor.agents.registry import PRESETS
from evor.experiments.bench.imports import FORMATS
from evor.experiments.bench.limits import bfloat16_units, timed
from evor.experiments.bench.plan import bench
from evor.experiments.bench.timings import (
    READINGS,
    SIZES,
    TIMED,
    WITHOUT_SEARCH,
    prepared,
    sized,
    synthetic,
    time_update,
)
from evor.report.figures import ACCENT, BASE, MUTED, look, save_figure, subplots
from evor.runtime.files import write_json, write_text
from evor.runtime.provenance import peak_memory_mib
from evor.runtime.records import replace
from evor.search.readings import RandomSamples

RESULTS, DOCS = Path("docs/results"), Path("docs")
SOLVED = 30  # seconds of training that time-to-solve's fastest recipe may take
WIDTHS, ROWS = (128, 256, 512, 1024), (100_000, 1_000_000, 10_000_000)
QUICK = READINGS[-1]
SAMPLED = 10 + 50 * 10  # network evaluations for one candidate: ten draw it, the others read it at 50 random samples


# The reference.


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
    """The update without search, bfloat16, against width and transitions."""
    agent, spec = sized(TIMED[WITHOUT_SEARCH], "demo", precision="bfloat16"), SIZES["demo"].spec
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
    """Milliseconds of GELU, LayerNorm, Adam and the average in one update without search at the paper's size."""
    parts = {name: 1e3 * value for name, value in report["limits"]["paper"]["elementwise"].items()}
    layers, passes = len(SIZES["paper"].hidden), PRESETS["default"].flow_steps
    gelu = (2 + passes) * parts["gelu_forward"] + 2 * parts["gelu_backward"]
    norm = (1 + passes) * parts["layer_norm_forward"] + parts["layer_norm_backward"]
    return layers * (gelu + norm) + 2 * parts["adam"] + parts["average"]


def timed_reading(report: dict[str, Any]) -> str:
    """Name of the default's reading when the report was made."""
    return next(row["reading"] for row in report["decisions"]["paper"] if row["reading"].startswith("Quadrature"))


def evaluations(report: dict[str, Any]) -> int:
    """Network evaluations for one candidate: ten draw it, the others read it by the timed reading."""
    nodes, steps = re.findall(r"=(\w+)", timed_reading(report))
    return 10 + int(nodes) * (10 if steps == "None" else int(steps))


def bounds(report: dict[str, Any]) -> list[Bound]:
    updates, limits = report["updates"]["paper"], report["limits"]["paper"]
    fastest = min(("float32", "bfloat16"), key=lambda p: updates[f"{WITHOUT_SEARCH} {p}"]["median_ms"])
    plain, default = (updates[f"{name} {fastest}"] for name in (WITHOUT_SEARCH, "default"))
    same = min(updates[f"paper {precision}"]["median_ms"] for precision in ("float32", "bfloat16"))
    best = max(limits["float32"], limits["bfloat16"])
    products = plain["gflop"] / best * 1e3
    decisions = {
        (row["reading"], row["candidates"]): row["median"]
        for row in report["decisions"]["paper"]
        if (row["batch"], row["precision"]) == (1, fastest)
    }
    ours, quick = decisions[timed_reading(report), 32], decisions.get((repr(QUICK), 32))
    imports = report.get("imports", {})
    networks, units = report["networks"]["demo bfloat16"], report["bfloat16_units"]
    return [
        Bound("update without search against the reference, times faster", report["reference"]["median_ms"] / plain["median_ms"], 3, True, units),
        Bound("the reference's own objective, times faster", report["reference"]["median_ms"] / same, 2, True, units),
        Bound("update without search against QC-1, times faster", updates[f"qc-1 {fastest}"]["median_ms"] / plain["median_ms"], 15, True),
        Bound("default update against one without search, times the cost", default["median_ms"] / plain["median_ms"], 1.5, False),
        Bound("share of the limit of products", products / plain["median_ms"], 0.3, True),
        Bound("times the sum of both limits", plain["median_ms"] / (products + elementwise_ms(report)), 1.4, False),
        Bound("decision against 50 samples, times faster", decisions[repr(RandomSamples()), 32] / ours, 0.8 * SAMPLED / evaluations(report), True),
        Bound("decision, ms", 1e3 * ours, 25, False, units),
        Bound("decision with 6 quantiles, ms", 1e3 * quick if quick else None, 10, False),
        Bound("15 runs against one, times the cost", networks["15"]["median_ms"] / networks["1"]["median_ms"], 15, False),
        *(Bound(f"import of {kind} against plain reading and saving, in memory, times", imports.get(kind, {}).get("times"), 3, False) for kind in FORMATS),
        Bound("memory at 1M transitions x 45 features, GiB", report["peak_gib"], 2, False),
    ]  # fmt: skip


# The page.

REASONS = """## What limits these numbers

* **An update** is limited by compute on one core. First come the matrix products, then what lies between them (GELU, LayerNorm),
  then the memory traffic of Adam and the moving average. The bounds above compare an update with the first alone, and with all.
* **One thread is faster than two** here. A product of 256 rows takes a few tenths of a millisecond, and splitting it between
  threads costs more than it saves. `evor` asks XLA for one thread (`PJRT_NPROC=1`, unless it is set). Processes use the other
  cores: data generation, cells of `evor reproduce`, recipes of a study.
* **Many networks** cost about as much each as one. A policy trains up to 32 updates ahead, then each value trains on these.
  So one network at a time stays in the core's cache.
* **A decision** is limited by compute from 8 candidates on. Below that, the limit is reading the weights: the policy's ten
  times, the value's twice. Decisions are timed in a process that stays on one core. If the system moves it between cores, they
  take about an eighth longer.
* **The sampler** and saving are limited by memory. Generation and evaluation are limited by MuJoCo: episodes that are played
  together share the decisions, but not the physics.
* **An environment** takes 2 MiB in the mazes, and 143 to 180 in cube, scene and puzzle, whose meshes OGBench compiles anew for
  each. So episodes are played in waves, of as many as fit into half of the free memory.

## What made it fast, and what did not help

Kept:

* Targets look up draws of a base policy that was trained first, or continue with the dataset's actions. The paper draws them
  anew, which takes ten more passes.
* Returns are read at quantiles instead of at random samples, with two solver steps each.
* Products of bfloat16 have gradients in bfloat16. XLA runs a product with a transposed operand in float32, unless it is written
  in another way (`src/evor/nn/ops.py`).
* GELU is a polynomial.
* Where more than 512 rows meet one network, they are computed in blocks of about 512 (`src/evor/nn/batching.py`).
* One compiled call makes many updates. Networks are unstacked inside it, so no weight is copied.

Tried and dropped, because they changed little or made it slower:

* computing the constant parts of the first layer outside the Euler loop;
* folding LayerNorm's scale and shift into the next layer;
* computing LayerNorm's mean and variance as products with a vector of ones, or in one pass;
* casting weights once per update, which XLA does anyway;
* GELU through a sigmoid or an exponential;
* fast-math and wider vectors as XLA flags;
* a plain vmap over networks;
* updating networks in place inside a loop, where XLA copies them all.
"""


def page(report: dict[str, Any]) -> str:
    parts = [
        "# Performance",
        "",
        f"`make bench`: {report['hardware']['cpu']}, {report['hardware']['device']}; jax {report['versions']['jax']}, python "
        f"{report['versions']['python']}; commit {report['commit']}. Times are medians over {report['repeats']} repetitions, without "
        "compilation. Absolute times drift on shared machines, so compare within this page only.",
        "",
        "![roofline](results/bench.png)",
        "",
        "## Bounds",
        "",
        "The bounds compare `evor` with a reference, `benchmarks/reference.py`. It is the paper's mathematics as the field writes "
        "it: one jitted float32 update per Python iteration, batches drawn by NumPy, and 50 random samples when acting. Updates "
        "and decisions have the paper's size. They run in the faster of the two precisions, because the claim is what a user of "
        "this machine gets.",
        "",
        "* **Limit of products**: the time of an update's matrix products, at the best rate of products of these shapes.",
        "* **Sum of both limits**: the same, plus GELU, LayerNorm, Adam and the moving average as measured alone.",
        f"* **Decisions**: a candidate takes {evaluations(report)} evaluations in place of {SAMPLED} with 50 samples, ten of which draw it, so a "
        f"decision can be {SAMPLED / evaluations(report):.1f} times faster. The bound asks for 0.8 of that.",
        "* **Without search**: an update of the default with the dataset's action in its targets, its base policy included. The "
        "default's own update starts from a trained base policy and looks draws up; its figures stand beside it.",
        "* **15 runs**: 5 tasks x 3 seeds, which share the base policy of a seed. They may cost no more than 15 single runs.",
        "* **Imports**: `evor data import` of a million rows of 50 numbers, beside h5py or pyarrow and `numpy.savez`. Files lie in memory: an import "
        "waits until its files are on the disk, and `numpy.savez` does not.",
        "* **Processors**: three bounds need a processor with matrix units for bfloat16 (amx_bf16), and apply only there. They are "
        "the first two, and the milliseconds of a decision. A processor with avx512_bf16 alone multiplies bfloat16 in vectors, "
        "about twice as fast as float32.",
        "",
        "Measured:",
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
    parts += ["", "## How one update scales (demo, bfloat16)"]
    for name, cells in ({"networks": report["networks"]["demo bfloat16"]} | report["scaling"]).items():
        parts += ["", f"| {name} | ms | relative to the first |", "| --- | --- | --- |"]
        first = next(iter(cells.values()))["median_ms"]
        parts += [f"| {n} | {r['median_ms']:.2f} | {r['median_ms'] / first:.2f} |" for n, r in cells.items()]
    parts += time_to_solve()
    parts += ["", "## Other rates", "", "| what | per second |", "| --- | --- |"]
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
            f"`make time-to-solve`: {made['dataset']}, task {made['task']}, in "
            f"bfloat16. Each run has one core, and each evaluation has {made['episodes']} episodes. A run is solved at the first "
            "evaluation of at least 0.95 that is followed by three of at least 0.9. (At the end of a schedule, the last evaluation "
            "stands for those to come.) A run takes half an hour at most, evaluations included. Every EVOR recipe acts with the "
            "default search. Seconds count all training: compiling, the base policy and its draws, and the updates.",
            "",
            "| agent | nets | seed | solved after | updates | evaluations | last success | commit |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for run in made["runs"]:
            at, last = run["solved"], run["laps"][-1]
            after = f"{at['train_seconds']:.0f} s of training" if at else "not"
            parts.append(
                f"| {run['agent']} | {' x '.join(map(str, run['hidden']))} | {run['seed']} | {after} | {(at or last)['updates']:,} | {len(run['laps'])} "
                f"| {last['success']:.2f} | {run['commit'][:7]} |"
            )
    return parts


def read_bounds() -> list[str]:
    """Lines on bounds of the long studies, read from their committed files."""
    lines = []
    path = RESULTS / "time-to-solve.json"
    if path.exists():
        solved: dict[str, list[str]] = {}
        runs = json.loads(path.read_text())["runs"]
        for run in runs:
            at = run["solved"]
            solved.setdefault(run["agent"], []).append(f"{at['train_seconds']:.0f} s" if at else "not in 30 minutes")
        told = "; ".join(f"{agent} {', '.join(times)}" for agent, times in solved.items())
        lines.append(f"time to solve, by seed: {told} (`{path.name}`)")
        slowest = min(
            max(run["solved"]["train_seconds"] if run["solved"] else math.inf for run in runs if run["agent"] == agent)
            for agent in solved
        )
        lines.append(
            f"time to solve of the fastest recipe, its slowest seed, s: {slowest:.0f}, at most {SOLVED}: {verdict(slowest <= SOLVED)}"
        )
    return lines


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
    parser.add_argument(
        "--resume", action="store_true", help="keep the measures in runs/bench, of this commit and machine"
    )
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if arguments.page_only:
        report = json.loads((RESULTS / "bench.json").read_text())
    else:
        options = {"repeats": arguments.repeats, "seconds": arguments.seconds, "resume": arguments.resume}
        report = bench(Path("runs/bench"), **options)
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
