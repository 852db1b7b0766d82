"""Training from shards under a memory cap against training in memory: the same result, and what it costs.

`make shards` generates a folder of 20 pointmaze shards, trains on it twice (in memory; block by block with a cap a
fraction of its size), each alone on a core, and writes docs/results/shards.json and shards.md: success, speed, memory.
What the program takes without the data is measured before, by a short run on the first shard alone.
"""

import argparse
import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from evor.agents.evor import Evor
from evor.config import RunConfig
from evor.data.blocks import CACHE
from evor.data.generate import generate
from evor.evaluate import evaluate
from evor.files import read_json_lines, write_json, write_text
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
    train(config, out)
    peak = peak_memory_mib()
    lines = read_json_lines(out / "timings.jsonl")
    rates = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    rows = evaluate(out, None, episodes) if episodes else []
    return {
        "name": name,
        "milliseconds_per_update": [1e3 * float(q) for q in np.quantile(rates, (0.1, 0.5, 0.9))],
        "peak_mib": peak - base,
        "success": {
            task: [
                float(np.mean([row["success"] for row in rows if (row["task"], row["seed"]) == (task, seed)]))
                for seed in config.all_seeds
            ]
            for task in config.tasks
            if rows
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=100_000, help="of a shard")
    parser.add_argument("--memory-gb", type=float, default=0.025)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10)
    arguments = parser.parse_args()
    folder = make_shards(arguments.transitions)
    agent = dataclasses.replace(Evor(), precision="bfloat16")
    steps = arguments.steps
    whole = RunConfig(
        DATASET,
        str(folder),
        None,
        (1, 2),
        0,
        arguments.seeds,
        steps,
        checkpoint_every=steps,
        log_every=100,
        agent=agent,
    )
    capped = dataclasses.replace(whole, memory_gb=arguments.memory_gb)
    one = dataclasses.replace(whole, data=str(min(folder.glob("*-000.npz"))), steps=200, checkpoint_every=200)
    shutil.rmtree(folder / CACHE, ignore_errors=True)  # laying out belongs to the time and the peak
    jobs = [("in memory", whole, arguments.episodes), ("block by block", capped, arguments.episodes)]
    (alone,) = spread(run, [("one shard", one, 0)], 1, one_core=True)
    found = list(spread(run, jobs, 2, one_core=True))
    data = open_data(capped)
    in_memory, by_block = (median(result) for result in found)
    report = {
        "transitions": data.num_rows,
        "shards": SHARDS,
        "blocks": len(getattr(data, "blocks", ())),
        "columns_mib": sum(file.stat().st_size for file in (folder / CACHE).glob("*/*.npy")) / 2**20,
        "memory_gb": arguments.memory_gb,
        "steps": steps,
        "seeds": arguments.seeds,
        "episodes": arguments.episodes,
        "throughput_lost": by_block / in_memory - 1,
        "one_shard": alone,
        "runs": found,
        **provenance(),
    }
    write_json(RESULTS / "shards.json", report)
    write_text(RESULTS / "shards.md", table(report))


def median(result: dict[str, Any]) -> float:
    """Milliseconds per update."""
    return result["milliseconds_per_update"][1]


def table(report: dict[str, Any]) -> str:
    alone = report["one_shard"]["peak_mib"]
    lines = [
        "# Training from shards",
        "",
        f"`make shards`: {report['transitions']:,} generated transitions of {DATASET} in {report['shards']} files, "
        f"{report['columns_mib']:.0f} MiB once laid out; cap {1024 * report['memory_gb']:.0f} MiB, {report['blocks']} blocks. "
        f"{report['steps']:,} updates of tasks 1 and 2, {report['seeds']} seeds, default recipe with bfloat16 products, each run "
        f"alone on a core; {report['episodes']} episodes per task and seed. {report['hardware']['cpu']}, commit "
        f"{report['commit']}. Throughput lost, by the medians: {report['throughput_lost']:.1%}; the bound of 10 % "
        f"{'holds' if report['throughput_lost'] <= 0.1 else 'is missed'}.",
        "",
        f"Memory is the peak of the process less {alone:.0f} MiB, the peak of a run of 200 updates on the first shard alone: "
        "what the program takes, and one shard while it is laid out.",
        "",
        "| data | ms per update (10 % to 90 %) | MiB | task 1: success, mean ± sd over seeds | task 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for found in report["runs"]:
        low, middle, high = found["milliseconds_per_update"]
        success = [np.array(values) for values in found["success"].values()]
        cells = [f"{values.mean():.2f} ± {values.std(ddof=min(1, len(values) - 1)):.2f}" for values in success]
        lines.append(
            f"| {found['name']} | {middle:.2f} ({low:.2f} to {high:.2f}) | {found['peak_mib'] - alone:.0f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
