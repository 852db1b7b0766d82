"""Does a search by the return distribution beat one by its mean? Objectives x sources of the next action x readings.

`make law-or-mean` trains every recipe on pointmaze-medium-navigate (tasks 1, 2, 4) and cube-single-play (tasks 1, 2),
plays the last checkpoint with 16 candidates at four return temperatures (and, where targets search, with the mean of
returns clipped at what rewards allow), and writes docs/results/law-or-mean.csv (one row per episode), .json, .md
and, where the networks are at hand, a picture of three values of the maze. With n = 1 a value travels slowly: these
recipes have a study of more updates. The cube needs more as well, so its networks are small. A job is one study, recipe
and seed. What is in the CSV is finished, on whichever machine that was; a job that trains resumes from
runs/law-or-mean, and the page shows whatever there is. `--recipes`, `--studies` and `--num-seeds` narrow it.
"""

import argparse
import contextlib
import csv
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study import interquartile, table

from evor.agents.evor import Evor
from evor.agents.next_action import BestAction, DatasetAction, NextAction
from evor.data.scripted.generate import generate_once
from evor.errors import EvorError, at_least
from evor.experiments.reproduce.timing import seconds_per_update
from evor.nn.flow import AdamsBashforth, Euler
from evor.nn.objectives import FlowTd, MonteCarlo, Objective, SampleBackup
from evor.report.evaluations import drawings
from evor.report.figures import MUTED, look, save_figure, subplots
from evor.report.maze import draw_map, draw_value, trajectories
from evor.report.statistics import estimate, mean
from evor.rollouts.evaluate import file_name, sweep
from evor.runtime.files import read_json, write_csv, write_json, write_text
from evor.runtime.parallel import Local, default_workers, parallel_map
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.runtime.records import replace
from evor.search.extraction import SoftmaxOf
from evor.search.labels import search_settings
from evor.search.readings import Quadrature, RandomSamples
from evor.training.config import RunConfig, from_json, to_json
from evor.training.train import train
from evor.types import NoBounds


def plain(objective: Objective, next_action: NextAction | None = None) -> Evor:
    """Returns solved by Euler's steps, as the paper does."""
    return Evor(objective, next_action or DatasetAction(), return_bounds=NoBounds(), solver=Euler())


RECIPES = {
    "FlowTd n = 1": plain(FlowTd(1)),
    "FlowTd n = 20": plain(FlowTd(20)),
    "MonteCarlo": plain(MonteCarlo()),
    "SampleBackup n = 1": plain(SampleBackup(1)),
    "SampleBackup n = 20": plain(SampleBackup(20)),
    "SampleBackup n = 20, AdamsBashforth": replace(plain(SampleBackup(20)), solver=AdamsBashforth()),
    "SampleBackup n = 20, AdamsBashforth, sines": replace(
        plain(SampleBackup(20)), solver=AdamsBashforth(), return_frequencies=4
    ),
    "SampleBackup n = 1, Searched(2)": plain(SampleBackup(1), BestAction(2, num_stored=0)),
    "SampleBackup n = 1, Searched(4)": plain(SampleBackup(1), BestAction(4, num_stored=0)),
    "SampleBackup n = 1, Searched(8)": plain(SampleBackup(1), BestAction(8, num_stored=0)),
    # The likeliest origin of the paper's numbers: targets that search with one return sample. One flow step, as all that
    # search: FlowTd's distribution is the same for all candidates, apart from its position, so the order is that of ten steps.
    "FlowTd n = 1, Searched(32)": plain(
        FlowTd(1), BestAction(32, num_stored=0, reading=RandomSamples(1, flow_steps=1))
    ),
}
DEFAULT = "SampleBackup n = 20, AdamsBashforth"  # with Euler's steps it misses bounds of `evor verify`
EXPENSIVE = "FlowTd n = 1, Searched(32)"  # nine times the default: one seed, and the cube's small networks only


class Study(NamedTuple):
    """A dataset, and how its recipes learn."""

    dataset: str
    transitions: int
    tasks: tuple[int, ...]
    updates: int
    hidden: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 3e-4

    def __str__(self) -> str:
        return (
            f"{self.dataset}, task{'s' * (len(self.tasks) > 1)} {', '.join(map(str, self.tasks))}: {self.transitions:,} transitions, "
            f"{self.updates:,} updates, nets {' x '.join(map(str, self.hidden))}, learning rate {self.learning_rate:g}"
        )


STUDIES = {
    "pointmaze": Study("pointmaze-medium-navigate-v0", 1_000_000, (1, 2, 4), 10_000),
    "pointmaze, longer": Study("pointmaze-medium-navigate-v0", 1_000_000, (1,), 50_000),
    "cube": Study("cube-single-play-v0", 300_000, (1, 2), 50_000, (128, 128, 128), 1e-3),
}


def recipes(study: str) -> list[str]:
    """Those of a study."""
    if study == "cube":
        return list(RECIPES)
    cheap = [recipe for recipe in RECIPES if recipe != EXPENSIVE]
    return cheap if study == "pointmaze" else [r for r in cheap if "n = 1" in r or r == "SampleBackup n = 20"]


TEMPERATURES = (math.inf, 0.3, 1.0, 3.0)
BOUNDED = 0.0  # no return is higher where rewards are -1 until the goal
CANDIDATES, EPISODES, READING = 16, 20, Quadrature(10, flow_steps=None)
UNDISTURBED = 0.1  # quantile of a run's seconds per update: the machine is shared
DATA, RUNS, RESULTS = Path("data/results"), Path("runs/law-or-mean"), Path("docs/results/law-or-mean.csv")


class Job(NamedTuple):
    """One training run and all its episodes."""

    study: str
    recipe: str
    seed: int


def agent(study: str, recipe: str) -> Evor:
    """A recipe at a study's size; products of bfloat16 are as good as float32 and half the price (README, results)."""
    size = STUDIES[study]
    return replace(RECIPES[recipe], precision="bfloat16", hidden=size.hidden, learning_rate=size.learning_rate)


class Result(NamedTuple):
    """Result of a job: a row per episode, and seconds per update of all its tasks."""

    rows: list[dict[str, Any]]
    cost: float


def folder(job: Job) -> Path:
    name = job.recipe.lower().replace(" = ", "").replace(", ", "-").replace(" ", "-").replace("(", "").replace(")", "")
    return RUNS / job.study.replace(", ", "-") / name / f"seed{job.seed}"


class Played(NamedTuple):
    """A search by return temperature. Versions before 0.2 could also clip returns when acting."""

    return_temperature: float
    max_return: float = math.inf

    @property
    def search(self) -> SoftmaxOf:
        return SoftmaxOf(CANDIDATES, return_temperature=self.return_temperature, reading=READING)


def searches(recipe: str) -> list[Played]:
    """Searches that the page shows of a recipe."""
    bounded = [Played(math.inf, BOUNDED)] if "Searched" in recipe else []
    return [Played(temperature) for temperature in TEMPERATURES] + bounded


def search_of(row: dict[str, Any]) -> Played:
    """The search that played an episode."""
    bound = row["max_return"]
    return Played(float(row["return_temperature"]), math.inf if bound == "" else float(bound))


def missing(job: Job, done: dict[Job, Result]) -> list[SoftmaxOf]:
    """Searches of a job that are still to be played."""
    played = {search_of(row) for row in done[job].rows} if job in done else set()
    return [Played(temperature).search for temperature in TEMPERATURES if Played(temperature) not in played]


def run(job: Job, wanted: list[SoftmaxOf]) -> tuple[Job, Result]:
    """Train one job, and play these searches."""
    console.quiet = True
    out, study = folder(job), STUDIES[job.study]
    config = RunConfig(
        dataset=study.dataset,
        data=str(DATA),
        tasks=study.tasks,
        seed=job.seed,
        updates=study.updates,
        checkpoint_every=1000,
        agent=agent(job.study, job.recipe),
    )
    train(config, out, resume=True)
    rows = [
        {"study": job.study, "dataset": study.dataset, "recipe": job.recipe, **row}
        for played in sweep(out, wanted, episodes=EPISODES)
        for row in played
    ]
    return job, Result(rows, seconds_per_update(out, UNDISTURBED))


def finished() -> dict[Job, Result]:
    """Results that were played with `READING`, of studies and recipes as they are today."""
    if not RESULTS.exists():
        return {}
    reading, stored = (
        search_settings(SoftmaxOf(CANDIDATES, reading=READING))["reading"],
        read_json(RESULTS.with_suffix(".json")),
    )
    today, then = told(), stored["studies"]

    def unchanged(study: str, recipe: str) -> bool:
        if study not in today or any(then[study][key] != today[study][key] for key in Study._fields):
            return False
        with contextlib.suppress(EvorError):  # of options that are gone
            return from_json(then[study]["agents"].get(recipe), Evor) == agent(study, recipe)
        return False

    costs = {
        Job(c["study"], c["recipe"], c["seed"]): c["cost"]
        for c in stored["costs"]
        if unchanged(c["study"], c["recipe"])
    }
    found: dict[Job, Result] = {}
    with open(RESULTS, newline="") as file:
        for row in csv.DictReader(file):
            job = Job(row["study"], row["recipe"], int(row["seed"]))
            if row["reading"] == reading and job in costs:
                found.setdefault(job, Result([], costs[job])).rows.append(row)
    return found


def told() -> dict[str, Any]:
    """The studies and their recipes as JSON holds them."""
    return json.loads(
        json.dumps(
            {
                name: study._asdict() | {"agents": {recipe: to_json(agent(name, recipe)) for recipe in recipes(name)}}
                for name, study in STUDIES.items()
            }
        )
    )


def page(done: dict[Job, Result], origin: dict[str, Any]) -> str:
    """Success by recipe and temperature, what the distribution adds to the mean, and what a recipe costs."""
    parts = [
        "# Return distribution or mean",
        "",
        "Does a search by the whole return distribution beat one by its mean?",
        "",
        f"`make law-or-mean` trains every recipe and plays its last checkpoint: {CANDIDATES} candidates, {EPISODES} episodes per task "
        f"and seed, generated data; {origin['hardware']['cpu']}, one core per run. Every row of the CSV names its commit.",
        "",
        "* **Recipe.** An objective of [EVOR](../agents/evor.md) with the n of its n-step sums. Targets continue with the dataset's "
        "action. With `Searched(k)` they continue with the best of k draws (`--agent.next-action best-action`). Returns are solved "
        "by Euler's steps, and enter the value without sines, unless the recipe says otherwise.",
        "* **Searched.** These runs ranked the draws by the value's moving average, and drew them anew for each target. Today's "
        "`best-action` ranks by the online value ([EVOR](../agents/evor.md)).",
        "* **Success.** The mean over tasks and seeds. In brackets is the interquartile mean over tasks x seeds with its 95 % "
        "bootstrap interval.",
        '* **Columns.** tau_R is the return temperature of the search, in standard deviations of the returns (sd). "mean" is the '
        f'search by the mean, and "returns <= {BOUNDED:g}" clips returns there.',
        "* **Distribution - mean.** The success at tau_R = 1 sd minus that of the mean, with the same networks. The 95 % bootstrap "
        "interval over seeds is not corrected for the number of recipes.",
        "* **Cost.** Seconds per update of all tasks. It is the fastest tenth of a run, because the machine is shared.",
        "* **Seeds.** A recipe whose first seed solved nothing at any reading was given no other. "
        f"{EXPENSIVE} is expensive, so it has one seed, and plays only the cube. Other seeds that are missing were not run.",
    ]
    heads = {Played(t): "mean" if math.isinf(t) else f"tau_R = {t:g} sd" for t in TEMPERATURES}
    heads[Played(math.inf, BOUNDED)] = f"mean, returns <= {BOUNDED:g}"
    for name, study in STUDIES.items():
        lines, means, costs, gains = [], {}, {}, {}
        for recipe in recipes(name):
            found = [result for job, result in done.items() if job[:2] == (name, recipe)]
            if not found:
                lines.append(f"| {recipe} | not run |" + " |" * (len(heads) + 2))
                continue
            by_search = defaultdict(list)
            for row in itertools.chain.from_iterable(result.rows for result in found):
                by_search[search_of(row)].append(row)
            tables = {how: table(by_search[how]) for how in searches(recipe) if how in by_search}
            means |= {(recipe, how): scores.mean() for how, scores in tables.items()}
            costs[recipe] = float(np.median([result.cost for result in found]))
            cells = " | ".join(
                f"{tables[how].mean():.2f} [{interquartile(tables[how])}]" if how in tables else "" for how in heads
            )
            gain = gains[recipe] = estimate(mean, tables[Played(1.0)] - tables[Played(math.inf)])
            interval = "" if math.isnan(gain.low) else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
            lines.append(f"| {recipe} | {len(found)} | {cells} | {gain.value:+.3f}{interval} | {costs[recipe]:.3f} |")
        if not means:
            continue
        parts += [
            "",
            f"## {study}",
            "",
            f"| recipe | seeds | {' | '.join(heads.values())} | distribution - mean | s per update |",
            "| --- | --- |" + " --- |" * (len(heads) + 2),
            *lines,
        ]
        ahead = [recipe for recipe, gain in gains.items() if gain.low > 1e-9]
        behind = [recipe for recipe, gain in gains.items() if gain.high < -1e-9]
        if any(math.isfinite(gain.low) for gain in gains.values()):
            parts += [
                "",
                f"The distribution beats the mean, with all of the interval above 0: {', '.join(ahead) or 'nowhere'}. The mean beats "
                f"the distribution: {', '.join(behind) or 'nowhere'}. Elsewhere this study does not tell them apart. "
                "(FlowTd's distribution is the same for all actions, apart from its position. What the temperature changes there "
                "comes from seeds and unfinished training alone.)",
            ]
        if DEFAULT in costs:
            best, how = max(means, key=lambda key: means[key])
            parts += [
                "",
                f"The highest mean success is {means[best, how]:.2f}: {best}, {heads[how]}, at "
                f"{costs[best] / costs[DEFAULT]:.1f} x the cost per update of {DEFAULT}, which was the default then. "
                f"That recipe has {means[DEFAULT, Played(1.0)]:.2f} at tau_R = 1 sd.",
            ]
    if (picture := RESULTS.with_suffix(".png")).exists():
        parts += [
            "",
            "## Why n decides in the maze",
            "",
            f"![three values of the maze]({picture.name})",
            "",
            "Task 1, seed 0. Colours show the value at every position. White lines are the episodes of the search by its mean. In this "
            "dataset, a navigation policy pursues goals that no observation shows. A target of 20 steps contains 20 steps towards one "
            "goal. At n = 1 the value is that of a policy that forgets its goal at every step. From afar it hardly shows the goal, and "
            "the search ends on a hill that the network made up.",
            "",
            "Targets that search know where to go. But their value continues to rise in the corner behind the goal, where there are no "
            "data. The titles name the highest values. No return can be above 0, and the colours end there.",
        ]
    return "\n".join(parts) + "\n"


@look()
def draw(path: Path) -> None:
    """Three values of the maze's first task and the episodes that the mean played, where their runs are at hand."""
    pictured = [
        Job("pointmaze", DEFAULT, 0),
        Job("pointmaze, longer", "SampleBackup n = 1", 0),
        Job("pointmaze, longer", "SampleBackup n = 1, Searched(8)", 0),
    ]
    drawn = [drawings(folder(job) / "evaluations").read() for job in pictured]
    if not all(1 in by_task for by_task in drawn):
        return
    figure, axes = subplots(1, len(pictured), figsize=(13, 4), layout="constrained")
    for axis, job, by_task in zip(axes, pictured, drawn, strict=True):
        maze = by_task[1]
        draw_map(axis, maze)
        mesh = draw_value(axis, maze, span=(-100, 0))  # the same for all
        for episode in trajectories(folder(job), file_name(Played(math.inf).search), task=1):
            axis.plot(*episode.T, color="white", linewidth=0.8, alpha=0.6, zorder=2)
            axis.plot(*episode[-1], "o", color="white", markersize=4, markeredgecolor=MUTED, zorder=5)
        axis.set_title(f"{job.recipe}\n{STUDIES[job.study].updates:,} updates, up to {maze['value'].max():.1f}")
    figure.colorbar(mesh, ax=axes, shrink=0.85, label="mean return, best of 8 candidates")
    save_figure(figure, path)


def write_results(done: dict[Job, Result]) -> None:
    origin = provenance()
    costs = [{**job._asdict(), "cost": result.cost} for job, result in sorted(done.items())]
    write_json(
        RESULTS.with_suffix(".json"),
        {**origin, "studies": told(), "costs": costs},
    )
    rows = [row for job in sorted(done) for row in done[job].rows]
    write_csv(RESULTS, list(rows[0]), rows=rows)
    write_text(RESULTS.with_suffix(".md"), page(done, origin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    at_least(1, num_seeds=arguments.num_seeds)
    if arguments.page_only:
        write_text(RESULTS.with_suffix(".md"), page(finished(), read_json(RESULTS.with_suffix(".json"))))
        return
    for name in arguments.studies:
        generate_once(STUDIES[name].dataset, STUDIES[name].transitions, seed=0, folder=DATA)
    done = finished()
    for seed in range(arguments.num_seeds):
        jobs = [
            Job(name, recipe, seed)
            for name in arguments.studies
            for recipe in recipes(name)
            if recipe in arguments.recipes and (seed == 0 or worth_another(done, name, recipe))
        ]
        jobs.sort(key=lambda job: job.recipe == EXPENSIVE)  # last
        left = [(job, wanted) for job in jobs if (wanted := missing(job, done))]
        with progress_bar(f"seed {seed}", len(jobs), done=len(jobs) - len(left), unit="jobs") as advance:
            for job, result in parallel_map(run, left, Local(default_workers(), pin_cores=True)):
                before = done.get(job, Result([], result.cost))
                done[job] = Result(before.rows + result.rows, before.cost)
                write_results(done)
                advance(1, f"{job.study}, {job.recipe}")
    if done:
        draw(RESULTS.with_suffix(".png"))
        write_results(done)


def worth_another(done: dict[Job, Result], study: str, recipe: str) -> bool:
    """Whether a recipe gets more seeds: not the expensive one, and not where the first solved nothing at any reading."""
    first = done.get(Job(study, recipe, 0))
    return recipe != EXPENSIVE and first is not None and any(float(row["success"]) for row in first.rows)


if __name__ == "__main__":
    main()
