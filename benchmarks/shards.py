"""Training from shards under a memory cap against training in memory: the same result, and what it costs.

`make shards` generates a folder of 20 pointmaze shards, trains on it twice (in memory; block by block with a cap a
fraction of its size), each alone on a core, and writes docs/results/shards.json and shards.md: success, speed, memory.
"""

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from evor.config import RunConfig
from evor.data.blocks import CACHE
from evor.data.generate import generate
from evor.evaluate import evaluate
from evor.files import write_json, write_text
from evor.parallel import default_workers, spread
from evor.progress import console
from evor.provenance import peak_memory_mib, provenance
from evor.source import open_data
from evor.train import train

DATASET = "pointmaze-medium-navigate-v0"
SHARDS, DATA, RUNS, RESULTS = 20, Path("data/shards"), Path("runs/shards"), Path("docs/results")


def make_shards(transitions: int) -> Path:
    """SHARDS files, each of another seed."""
    folder = DATA / f"{SHARDS}x{transitions}"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(SHARDS):
        path = folder / f"{DATASET}-{index:03d}.npz"
        if not path.exists():
            part = folder / f"seed{index}"
            made = generate(DATASET, transitions, 1000 + index, default_workers(), part)
            (part / f"{DATASET}-val.npz").rename(folder / f"{path.stem}-val.npz")
            made.rename(path)
    return folder


def run(name: str, config: RunConfig, episodes: int) -> dict[str, Any]:
    """Train and play; the peak of resident memory beyond that before the data, the laying out of shards included."""
    console.quiet = True
    out = RUNS / name
    shutil.rmtree(out, ignore_errors=True)  # a resumed run would show neither its time nor its peak
    import jax

    jax.block_until_ready(jax.numpy.zeros(1))
    base = peak_memory_mib()
    started = time.monotonic()
    train(config, out)
    seconds, peak = time.monotonic() - started, peak_memory_mib()
    lines = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    rates = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    rows = evaluate(out, None, episodes)
    return {
        "name": name,
        "seconds": seconds,
        "milliseconds_per_update": 1e3
        * (lines[-1]["seconds"] - lines[0]["seconds"])
        / (lines[-1]["step"] - lines[0]["step"]),
        "spread": [1e3 * float(q) for q in np.quantile(rates, (0.1, 0.9))],
        "peak_mib_beyond_start": peak - base,
        "success": {
            task: float(np.mean([row["success"] for row in rows if row["task"] == task])) for task in config.tasks
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=100_000, help="of a shard")
    parser.add_argument("--memory-gb", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=50)
    arguments = parser.parse_args()
    folder = make_shards(arguments.transitions)
    capped = RunConfig(
        DATASET, str(folder), arguments.memory_gb, (1, 2), steps=arguments.steps, checkpoint_every=arguments.steps
    )
    whole = RunConfig(DATASET, str(folder), tasks=(1, 2), steps=arguments.steps, checkpoint_every=arguments.steps)
    names = {"in memory": whole, "block by block": capped}
    shutil.rmtree(folder / CACHE, ignore_errors=True)  # laying out belongs to the time and the peak
    found = list(spread(run, [(name, config, arguments.episodes) for name, config in names.items()], 2, one_core=True))
    data = open_data(capped)
    size = data.num_rows * 4 * (sum(data.spec) + 3 + 3 * 2)
    loss = found[1]["milliseconds_per_update"] / found[0]["milliseconds_per_update"] - 1
    report = {
        "transitions": data.num_rows,
        "shards": SHARDS,
        "blocks": len(getattr(data, "blocks", ())),
        "columns_mib": size / 2**20,
        "memory_gb": arguments.memory_gb,
        "steps": arguments.steps,
        "episodes": arguments.episodes,
        "throughput_lost": loss,
        "runs": found,
        **provenance(),
    }
    write_json(RESULTS / "shards.json", report)
    write_text(RESULTS / "shards.md", table(report))


def table(report: dict[str, Any]) -> str:
    lines = [
        "# Training from shards",
        "",
        f"`make shards`: {report['transitions']:,} generated transitions of {DATASET} in {report['shards']} files, "
        f"{report['columns_mib']:.0f} MiB once laid out; cap {1024 * report['memory_gb']:.0f} MiB, {report['blocks']} blocks. "
        f"{report['steps']:,} updates of tasks 1 and 2, seed 0, each run alone on a core; {report['episodes']} episodes per "
        f"task. {report['hardware']['cpu']}, commit {report['commit']}. Throughput lost: {report['throughput_lost']:.1%}; the "
        f"bound of 10 % {'holds' if report['throughput_lost'] <= 0.1 else 'is missed'}.",
        "",
        "| data | ms per update (10 % to 90 %) | peak MiB beyond JAX's own | success, task 1 | task 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for found in report["runs"]:
        low, high = found["spread"]
        success = " | ".join(f"{value:.2f}" for value in found["success"].values())
        lines.append(
            f"| {found['name']} | {found['milliseconds_per_update']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {found['peak_mib_beyond_start']:.0f} | {success} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
