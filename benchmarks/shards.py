"""Training from shards under a memory cap against training in memory: the same result, and what it costs.

`make shards` generates a folder of 20 pointmaze shards and preprocesses them. It trains on them twice, each time alone on a
core: in memory, and block by block with a cap that is a fraction of their size. It writes success, speed and memory to
docs/results/shards.json and shards.md. A short run on the first shard measures before what the program takes without data.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from evor.agents.evor import Evor
from evor.data.scripted.generate import generate
from evor.data.store import CACHE
from evor.report.statistics import estimate, mean
from evor.rollouts.evaluate import evaluate
from evor.runtime.files import read_json_lines, write_json, write_text
from evor.runtime.parallel import Local, default_workers, parallel_map
from evor.runtime.progress import console
from evor.runtime.provenance import peak_memory_mib, provenance
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.train import train

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
            made = generate(DATASET, transitions, seed=1000 + index, machines=Local(default_workers()), folder=part)
            (part / f"{DATASET}-val.npz").rename(folder / f"{path.stem}-val.npz")
            made.rename(path)
    return folder


def lay_out(config: RunConfig) -> dict[str, float]:
    """Preprocess the shards, as a first run does. Returns what it took."""
    console.quiet = True
    base, started = program_mib(), time.monotonic()
    open_data(config)
    return {"seconds": time.monotonic() - started, "peak_mib": peak_memory_mib() - base}


def program_mib() -> float:
    """Peak of resident memory before there is data."""
    import jax

    jax.block_until_ready(jax.numpy.zeros(1))
    return peak_memory_mib()


def run(name: str, config: RunConfig, episodes: int) -> dict[str, Any]:
    """Train on shards that are laid out, and play; the peak of resident memory beyond that before the data."""
    console.quiet = True
    out = RUNS / name
    shutil.rmtree(out, ignore_errors=True)  # a resumed run would show neither its time nor its peak
    base = program_mib()
    train(config, out)
    peak = peak_memory_mib()
    lines = read_json_lines(out / "timings.jsonl")
    rates = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(lines)]
    rows = evaluate(out, None, episodes=episodes) if episodes else []
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
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if not arguments.page_only:
        measure(arguments)
    report = json.loads((RESULTS / "shards.json").read_text())
    write_text(RESULTS / "shards.md", page(report))


def measure(arguments: argparse.Namespace) -> None:
    """Train on the shards in both ways and write shards.json."""
    folder = make_shards(arguments.transitions)
    agent = replace(Evor(), precision="bfloat16", learning_rate=1e-3)  # for few updates
    steps = arguments.updates
    whole = RunConfig(
        dataset=DATASET,
        data=str(folder),
        memory_gb=None,
        tasks=(1, 2),
        seed=0,
        num_seeds=arguments.num_seeds,
        updates=steps,
        checkpoint_every=steps,
        log_every=100,
        agent=agent,
    )
    capped = dataclasses.replace(whole, memory_gb=arguments.memory_gb)
    one = dataclasses.replace(whole, data=str(min(folder.glob("*-000.npz"))), updates=200, checkpoint_every=200)
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    jobs = [("in memory", whole, arguments.episodes), ("block by block", capped, arguments.episodes)]
    (laid_out,) = parallel_map(lay_out, [(capped,)], Local(1, pin_cores=True))
    (alone,) = parallel_map(run, [("one shard", one, 0)], Local(1, pin_cores=True))
    found = sorted(parallel_map(run, jobs, Local(2, pin_cores=True)), key=lambda result: result["name"] != "in memory")
    data = open_data(capped)
    in_memory, by_block = (median(result) for result in found)
    report = {
        "transitions": data.num_rows,
        "shards": SHARDS,
        "blocks": len(getattr(data, "blocks", ())),
        "columns_mib": sum(file.stat().st_size for file in (folder / CACHE).glob("*/*.npy")) / 2**20,
        "memory_gb": arguments.memory_gb,
        "steps": steps,
        "seeds": arguments.num_seeds,
        "episodes": arguments.episodes,
        "throughput_lost": by_block / in_memory - 1,
        "laying_out": laid_out,
        "one_shard": alone,
        "runs": found,
        **provenance(),
    }
    write_json(RESULTS / "shards.json", report)


def median(result: dict[str, Any]) -> float:
    """Milliseconds per update."""
    return result["milliseconds_per_update"][1]


def page(report: dict[str, Any]) -> str:
    """The page, from what shards.json holds."""
    alone, laid_out = report["one_shard"]["peak_mib"], report["laying_out"]
    success = [np.array(list(found["success"].values())) for found in report["runs"]]  # [T, S] of each run
    lost = estimate(lambda first, second: mean(second) - mean(first), *success)
    lines = [
        "# Training from shards",
        "",
        "What does training under a memory cap cost? `make shards` trains on the same files in two ways: with all data in memory, "
        "and block by block under a cap.",
        "",
        f"* **Data.** {report['transitions']:,} generated transitions of {DATASET} in {report['shards']} files (shards), "
        f"{report['columns_mib']:.0f} MiB once preprocessed.",
        f"* **Cap.** {1024 * report['memory_gb']:.0f} MiB, which makes {report['blocks']} blocks.",
        f"* **Training.** {report['steps']:,} updates of tasks 1 and 2 with {report['seeds']} seeds: the default recipe at three "
        "times its learning rate, with bfloat16 products. Each run has a core to itself.",
        f"* **Evaluation.** {report['episodes']} episodes per task and seed.",
        f"* **Machine.** {report['hardware']['cpu']}, commit {report['commit']}.",
        "",
        f"Throughput lost under the cap, by the medians: {report['throughput_lost']:.1%} (negative: gained). The bound of 10 % "
        f"{'holds' if report['throughput_lost'] <= 0.1 else 'is missed'}. Success block by block "
        f"minus success in memory is {lost}, with a 95 % bootstrap interval over seeds.",
        "",
        f"Memory is the peak of the process minus {alone:.0f} MiB, which is what the program takes: the peak of a run of 200 "
        "updates on the first shard. With a cap, freed memory goes back to the system at once, so a run can take less than the "
        "one without a cap.",
        "",
        f"Another process preprocessed the shards before. It took {laid_out['seconds']:.0f} s, and its peak was "
        f"{laid_out['peak_mib']:.0f} MiB above the program's start, because it reads one whole shard at a time.",
        "",
        "| data | ms per update (10 % to 90 %) | MiB | task 1: success, mean ± sd over seeds | task 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for found, by_task in zip(report["runs"], success, strict=True):
        low, middle, high = found["milliseconds_per_update"]
        cells = [f"{seeds.mean():.2f} ± {seeds.std(ddof=min(1, len(seeds) - 1)):.2f}" for seeds in by_task]
        lines.append(
            f"| {found['name']} | {middle:.2f} ({low:.2f} to {high:.2f}) | {found['peak_mib'] - alone:.0f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
