"""The study of acting: one trained value, searched in many ways: `make acting-study` (docs/results/acting-study.md).

It opens the default's runs of `make learner-study`, trains nothing, and plays their last checkpoints. What is in the CSV is
finished. `--cells`, `--ways` and `--seeds` narrow it; the page shows whatever there is.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from learner_study import CELLS, DEFAULT, EPISODES, Job
from study import Study, interquartile, of, table

from evor.nn.learner import OnlineValue
from evor.policies.load import Run, open_run
from evor.rollouts.play import play
from evor.runtime.progress import console
from evor.runtime.provenance import provenance
from evor.runtime.records import replace
from evor.search.extraction import Extraction, Guided, SoftmaxOf, work
from evor.search.guidance import AfterChoice
from evor.search.readings import Quadrature

RESULTS = Path("docs/results/acting-study.csv")
OWN = "the default's own: 32, tau_R = 1, tau_Q = 0.03, 10 quantiles in 2 steps"
ONLINE = "the same by the online value"
# In the order of the page. The first is what the default does; each other changes one thing of it.
WAYS: dict[str, Extraction] = {
    OWN: SoftmaxOf(32),
    ONLINE: SoftmaxOf(32),
    "tau_Q = 0.001": SoftmaxOf(32, action_temperature=1e-3),
    "tau_Q = 0.01": SoftmaxOf(32, action_temperature=0.01),
    "tau_Q = 0.1": SoftmaxOf(32, action_temperature=0.1),
    "4 candidates": SoftmaxOf(4),
    "128 candidates": SoftmaxOf(128),
    "4 candidates, tau_Q = 0.001": SoftmaxOf(4, action_temperature=1e-3),
    "tau_R = 0.3": SoftmaxOf(32, return_temperature=0.3),
    "the mean": SoftmaxOf(32, return_temperature=math.inf),
    "the mean, in one evaluation": SoftmaxOf(32, return_temperature=math.inf, reading=Quadrature(1, flow_steps=1)),
    "10 quantiles in 10 steps": SoftmaxOf(32, reading=Quadrature(10, flow_steps=None)),
    "8 quantiles in 2 steps": SoftmaxOf(32, reading=Quadrature(8, flow_steps=2)),
    "6 quantiles in 2 steps": SoftmaxOf(32, reading=Quadrature(6, flow_steps=2)),
    "16 quantiles in 3 steps": SoftmaxOf(32, reading=Quadrature(16, flow_steps=3)),
    "best of 4, guided inside the flow, weight 0.1": Guided(4, return_temperature=1.0, weight=0.1),
    "best of 4, guided inside the flow, weight 0.3": Guided(4, return_temperature=1.0, weight=0.3),
    "best of 4, moved after the choice, weight 0.1": Guided(
        4, return_temperature=1.0, weight=0.1, guidance=AfterChoice()
    ),
}


def opened(job: Job, way: str) -> Run:
    run = open_run(job.folder)
    if way != ONLINE:
        return run
    agent = replace(run.config.agent, acting_value=OnlineValue())
    return run._replace(config=replace(run.config, agent=agent))


def run(job: Job, way: str) -> list[dict[str, Any]]:
    """Play every task; a row for each."""
    console.quiet = True
    cell, trained = CELLS[job.cell], opened(job, way)
    rows = []
    for task in cell.tasks:
        episodes = play(
            trained.policy(task, job.seed),
            cell.dataset,
            task=task,
            extraction=WAYS[way],
            episodes=EPISODES,
            evaluation_seed=0,
            max_episode_steps=cell.max_episode_steps,
        )
        rows.append(
            {
                "cell": job.cell,
                "way": way,
                "seed": job.seed,
                "task": task,
                "updates": trained.step,
                "episodes": EPISODES,
                "success": float(np.mean([episode.success for episode in episodes])),
                "length": float(np.mean([episode.length for episode in episodes])),
                "commit": provenance()["commit"],
            }
        )
    return rows


def page(rows: list[dict[str, Any]], origin: dict[str, Any]) -> str:
    """Success and cost by cell and way to act."""
    parts = [
        "# How should a trained policy act?",
        "",
        "`make acting-study` plays the default's runs of [the study of the learner](learner-study.md) at their last checkpoint. It "
        f"trains nothing. {origin['hardware']['cpu']}, bfloat16. Every row of the CSV names its commit.",
        "",
        "* **Way.** The first row is what the default does. Each other row changes one thing of it.",
        f"* **Success.** The mean over tasks and seeds, {EPISODES} episodes each, with the same starts and the same random numbers. In "
        "brackets is the interquartile mean over tasks x seeds with its 95 % bootstrap interval.",
        "* **Steps.** The mean length of an episode; a failure is as long as the limit.",
        "* **Evaluations.** What one decision costs, in evaluations of a network. A gradient counts three.",
    ]
    for name, cell in CELLS.items():
        inside = of(rows, cell=name)
        if not inside:
            continue
        parts += [
            "",
            f"## {cell.dataset}, after {cell.updates:,} updates; at most {cell.max_episode_steps} steps",
            "",
            "| way | seeds | success | by task | steps | evaluations |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for way, search in WAYS.items():
            mine = of(inside, way=way)
            if not mine:
                parts.append(f"| {way} | not run | | | | {work(search):,} |")
                continue
            success = table(mine)
            parts.append(
                f"| {way} | {success.shape[1]} | {success.mean():.3f} [{interquartile(success)}] | "
                f"{' '.join(f'{mean:.2f}' for mean in success.mean(axis=1))} | {table(mine, 'length').mean():.0f} | {work(search):,} |"
            )
    return "\n".join(parts) + "\n"


STUDY = Study(RESULTS, words=("cell", "way"), page=page)
finished = STUDY.finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if arguments.page_only:
        STUDY.write_page()
        return
    rows = finished()
    asked = [
        (Job(cell, DEFAULT, seed), way)
        for seed in arguments.seeds
        for cell in arguments.cells
        for way in arguments.ways
        if not of(rows, cell=cell, way=way, seed=seed)
    ]
    ready = [(job, way) for job, way in asked if trained(job)]
    console.print(f"{len(ready)} of {len(asked)} ways have a finished run of `make learner-study`.")
    STUDY.carry_out(run, ready, unit="ways")


def trained(job: Job) -> bool:
    """Whether the run of a job has made its last update."""
    return bool(list(job.folder.glob(f"checkpoints/step_*{CELLS[job.cell].updates}.safetensors")))


if __name__ == "__main__":
    main()
