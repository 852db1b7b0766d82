"""Does searching with the law beat searching with its mean? Objectives x sources of the next action x readings.

`make law-or-mean` trains every recipe on pointmaze-medium-navigate (tasks 1, 2, 4) and cube-single-play (tasks 1, 2),
plays the last checkpoint with 16 candidates at four return temperatures, and writes docs/results/law-or-mean.csv (one
row per episode), .json and .md. A job is one data set, recipe and seed, in runs/law-or-mean; finished jobs are kept,
unfinished ones resume, and the table tells of whatever is finished. `--recipes`, `--datasets` and `--seeds` narrow it.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from readme import by_cell, by_task, interquartile

from evor.agents.evor import Evor
from evor.agents.next_action import Searched
from evor.config import RunConfig
from evor.data.generate import generate_once
from evor.evaluate import evaluate, settings
from evor.extract import SoftmaxOf
from evor.files import write_csv, write_json, write_text
from evor.parallel import default_workers, spread
from evor.progress import console, progress_bar
from evor.provenance import provenance
from evor.reproduce import seconds_per_update
from evor.statistics import estimate
from evor.train import train
from evor.value import FlowTd, MonteCarlo, RandomSamples, SampleBackup


class Study(NamedTuple):
    """A data set of the study."""

    transitions: int
    tasks: tuple[int, ...]
    updates: int


STUDIES = {
    "pointmaze-medium-navigate-v0": Study(1_000_000, (1, 2, 4), 10_000),
    "cube-single-play-v0": Study(300_000, (1, 2), 10_000),
}
RECIPES = {
    "FlowTd n = 1": Evor(FlowTd(1)),
    "FlowTd n = 20": Evor(FlowTd(20)),
    "MonteCarlo": Evor(MonteCarlo()),
    "SampleBackup n = 1": Evor(SampleBackup(1)),
    "SampleBackup n = 20": Evor(SampleBackup(20)),
    "SampleBackup n = 1, Searched(2)": Evor(SampleBackup(1), Searched(2)),
    "SampleBackup n = 1, Searched(4)": Evor(SampleBackup(1), Searched(4)),
    "SampleBackup n = 1, Searched(8)": Evor(SampleBackup(1), Searched(8)),
    # The likeliest origin of the paper's numbers: targets that search with one return sample.
    "FlowTd n = 1, Searched(32)": Evor(FlowTd(1), Searched(32, reading=RandomSamples(1), flow_steps=10)),
}
DEFAULT = "SampleBackup n = 20"
FEWER_SEEDS = {"FlowTd n = 1, Searched(32)": 1}  # five times as expensive as the others
TEMPERATURES = (math.inf, 0.3, 1.0, 3.0)
CANDIDATES, EPISODES = 16, 20
DATA, RUNS, RESULTS = Path("data/results"), Path("runs/law-or-mean"), Path("docs/results")


def folder(dataset: str, recipe: str, seed: int) -> Path:
    name = recipe.lower().replace(" = ", "").replace(", ", "-").replace(" ", "-").replace("(", "").replace(")", "")
    return RUNS / dataset / name / f"seed{seed}"


def run(dataset: str, recipe: str, seed: int) -> str:
    """Train and play one job; its rows and its cost go into job.json."""
    console.quiet = True
    out, study = folder(dataset, recipe, seed), STUDIES[dataset]
    config = RunConfig(
        dataset,
        str(DATA),
        tasks=study.tasks,
        seed=seed,
        steps=study.updates,
        checkpoint_every=1000,
        agent=dataclasses.replace(RECIPES[recipe], precision="bfloat16"),  # as good and half the price: README, results
    )
    train(config, out, resume=True)
    rows = [
        {"dataset": dataset, "recipe": recipe, **row}
        for temperature in TEMPERATURES
        for row in evaluate(out, SoftmaxOf(CANDIDATES, temperature), EPISODES)
    ]
    write_json(out / "job.json", {"rows": rows, "seconds_per_update": seconds_per_update(out)})
    return f"{dataset} {recipe} seed {seed}"


def finished(jobs: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What was played, with today's reading."""
    paths = {job: folder(*job) / "job.json" for job in jobs}
    found = {job: json.loads(path.read_text()) for job, path in paths.items() if path.exists()}
    reading = settings(SoftmaxOf(CANDIDATES))["reading"]
    return {job: content for job, content in found.items() if content["rows"][0]["reading"] == reading}


def table(done: dict[tuple[str, str, int], dict[str, Any]], origin: dict[str, Any]) -> str:
    """Success by recipe and temperature, what the law adds to the mean, and what a recipe costs."""
    parts = [
        "# Law or mean",
        "",
        f"`make law-or-mean`: {CANDIDATES} candidates, {EPISODES} episodes per task and seed, last checkpoint, generated "
        f"data; {origin['hardware']['cpu']}, one core per run; commit {origin['commit']}. Success: mean, and in brackets the "
        "interquartile mean over tasks x seeds with its 95 % bootstrap interval. Law - mean: success at tau_R = 1 sd less "
        "that of the mean, same networks, with its 95 % bootstrap interval over seeds. Cost: seconds per update of all tasks.",
    ]
    for dataset, study in STUDIES.items():
        heads = ["mean" if math.isinf(t) else f"tau_R = {t:g} sd" for t in TEMPERATURES]
        lines, means, costs = [], {}, {}
        for recipe in RECIPES:
            found = [content for job, content in done.items() if job[:2] == (dataset, recipe)]
            if not found:
                lines.append(f"| {recipe} | not run |" + " |" * (len(heads) + 2))
                continue
            tables = {t: success([row for job in found for row in job["rows"]], t) for t in TEMPERATURES}
            means |= {(recipe, t): table.mean() for t, table in tables.items()}
            costs[recipe] = float(np.median([job["seconds_per_update"] for job in found]))
            cells = " | ".join(f"{table.mean():.2f} [{interquartile(table)}]" for table in tables.values())
            gain = estimate(np.mean, tables[1.0] - tables[math.inf])
            gained = (
                f"{gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]" if len(found) > 1 else f"{gain.value:+.2f}"
            )
            lines.append(f"| {recipe} | {len(found)} | {cells} | {gained} | {costs[recipe]:.3f} |")
        if not means:
            continue
        parts += [
            "",
            f"## {dataset}, tasks {', '.join(map(str, study.tasks))}: {study.transitions:,} transitions, "
            f"{study.updates:,} updates",
            "",
            f"| recipe | seeds | {' | '.join(heads)} | law - mean | s per update |",
            "| --- | --- |" + " --- |" * (len(heads) + 2),
            *lines,
        ]
        best, temperature = max(means, key=lambda key: means[key])
        if DEFAULT in costs:
            parts += [
                "",
                f"The highest mean is {means[best, temperature]:.2f}: {best}, "
                f"{heads[TEMPERATURES.index(temperature)]}, at {costs[best] / costs[DEFAULT]:.1f} x the default's cost per "
                f"update. The default, {DEFAULT} at tau_R = 1 sd, has {means[DEFAULT, 1.0]:.2f}.",
            ]
    return "\n".join(parts) + "\n"


def success(rows: list[dict[str, Any]], temperature: float) -> np.ndarray:
    """Mean success [T, S] at a return temperature, by task and seed."""
    return by_task(by_cell(row for row in rows if float(row["return_temperature"]) == temperature))


def write_results(done: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    origin = provenance()
    rows = [row for content in done.values() for row in content["rows"]]
    write_csv(RESULTS / "law-or-mean.csv", list(rows[0]), rows)
    costs = [
        {"dataset": job[0], "recipe": job[1], "seed": job[2], "seconds_per_update": content["seconds_per_update"]}
        for job, content in done.items()
    ]
    write_json(RESULTS / "law-or-mean.json", {**origin, "costs": costs})
    write_text(RESULTS / "law-or-mean.md", table(done, origin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        generate_once(dataset, STUDIES[dataset].transitions, 0, DATA)
    jobs = [
        (dataset, recipe, seed)
        for seed in range(arguments.seeds)
        for dataset in arguments.datasets
        for recipe in arguments.recipes
        if seed < FEWER_SEEDS.get(recipe, arguments.seeds)
    ]
    done = finished(jobs)
    everything = [(d, r, s) for s in range(arguments.seeds) for d in STUDIES for r in RECIPES]
    with progress_bar("law-or-mean", len(jobs), len(done), "jobs") as advance:
        for name in spread(run, [job for job in jobs if job not in done], default_workers(), one_core=True):
            advance(1, name)
            write_results(finished(everything))
    write_results(finished(everything))


if __name__ == "__main__":
    main()
