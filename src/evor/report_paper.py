"""results.csv of a reproduction -> the paper's tables and figures, with intervals. Imports no JAX."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor import published
from evor.errors import EvorError
from evor.files import atomic_path, write_text
from evor.statistics import (
    bold,
    estimate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from evor.style import ACCENT

Row = dict[str, Any]
COMPARABLE = ("data", "ogbench", "mujoco", "reward_rule", "protocol")  # where these differ, nothing is averaged
SCORED = 3  # last evaluations that make the score
THRESHOLDS = np.linspace(0, 1, 101)[:-1]


def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    rows = read_results(out / "results.csv")
    if not rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    scores = score_table(rows)
    parts = [_head(rows), *_dataset_tables(scores), *_aggregates(scores, out), *_ablations(rows, out), _costs(out)]
    path = out / "results.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def read_results(path: Path) -> list[Row]:
    """Rows with their numbers parsed. Raises EvorError where rows of one data set must not be averaged."""
    try:
        with open(path, newline="") as file:
            rows = [
                row
                | {name: int(row[name]) for name in ("task", "seed", "updates")}
                | {"success": float(row["success"])}
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise EvorError(f"{path} is damaged ({error!r}); `evor reproduce` writes it anew from its cells.") from error
    for name in COMPARABLE:
        for dataset in sorted({row["dataset"] for row in rows}):
            found = sorted({str(row[name]) for row in rows if row["dataset"] == dataset})
            if len(found) > 1:
                raise EvorError(
                    f"{path}: rows of {dataset} differ in {name} ({' | '.join(found)}) and can't be averaged; "
                    "remove the cells of one kind."
                )
    return rows


Scores = dict[str, dict[str, dict[int, dict[int, float]]]]  # data set -> agent -> task -> seed -> success


def score_table(rows: list[Row]) -> Scores:
    """Mean success of the last three evaluations of every task and seed that has them."""
    curves: dict[tuple, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["suite"] == "paper":
            curves[row["dataset"], row["agent"], row["task"], row["seed"]][row["updates"]] = row["success"]
    last = max((row["updates"] for row in rows), default=0)
    found: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for (dataset, agent, task, seed), curve in sorted(curves.items()):
        if last in curve and len(curve) >= SCORED:
            found[dataset][agent][task][seed] = float(np.mean([curve[u] for u in sorted(curve)[-SCORED:]]))
    return found


def square(by_task: dict[int, dict[int, float]], tasks: list[int] | None = None) -> np.ndarray:
    """[T, S] of the seeds that every task has."""
    tasks = tasks or sorted(by_task)
    seeds = sorted(set.intersection(*(set(by_task[task]) for task in tasks)))
    return np.array([[by_task[task][seed] for seed in seeds] for task in tasks])


def _head(rows: list[Row]) -> str:
    def every(name: str) -> str:
        return "; ".join(sorted({row[name] for row in rows}))

    return (
        "# Reproduction of the paper's experiment\n\n"
        f"Success in percent: mean ± standard deviation over seeds of the mean of the last {SCORED} evaluations; **bold** "
        "within 95 % of the best of ours. Published columns are the paper's (official data, 1M updates, nets 4 x 512, "
        "success from the state after the step) and compare to nothing else here.\n\n"
        f"Ours: {every('protocol')}. Data: {every('data')}. Success from the state before the step ({every('reward_rule')!r}). "
        f"evor {every('evor')}, jax {every('jax')}, ogbench {every('ogbench')}, mujoco {every('mujoco')}, "
        f"python {every('python')}; {every('hardware')}; commit {every('commit')}."
    )


def _dataset_tables(scores: Scores) -> list[str]:
    parts = []
    for dataset, by_agent in scores.items():
        agents = list(by_agent)
        theirs = [agent for agent in published.AGENTS if published.overall(dataset, agent)]
        heads = agents + [f"{published.AGENTS[agent]}, published" for agent in theirs]
        parts += [f"\n## {dataset}\n", f"| task | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
        tasks = sorted({task for by_task in by_agent.values() for task in by_task})
        for task in tasks:
            found = {agent: np.array(list(by_agent[agent].get(task, {}).values())) for agent in agents}
            cells = _cells({agent: values for agent, values in found.items() if len(values)}, agents)
            cells += [published.task(dataset, task, agent) or "" for agent in theirs]
            parts.append(f"| {task} | {' | '.join(cells)} |")
        for label, wanted in _common_tasks(by_agent).items():
            found = {
                a: square(by_agent[a], list(wanted)).mean(axis=0) for a in agents if set(wanted) <= set(by_agent[a])
            }
            cells = _cells(found, agents)
            same = set(wanted) == {1, 2, 3, 4, 5}
            cells += [(published.overall(dataset, agent) or "") if same else "" for agent in theirs]
            parts.append(f"| **{label}** | {' | '.join(cells)} |")
        counts = ", ".join(f"{agent} {square(by_agent[agent]).shape[1]}" for agent in agents)
        parts.append(f"\nSeeds: {counts}.")
    return parts


def _common_tasks(by_agent: dict[str, dict[int, dict[int, float]]]) -> dict[str, tuple[int, ...]]:
    """Means over all tasks, and over those that every agent has played where these are fewer."""
    everything = tuple(sorted({task for by_task in by_agent.values() for task in by_task}))
    common = tuple(sorted(set.intersection(*(set(by_task) for by_task in by_agent.values()))))
    found = {"mean": everything}
    if common and common != everything:
        found[f"mean of {', '.join(map(str, common))}"] = common
    return found


def _cells(found: dict[str, np.ndarray], agents: list[str]) -> list[str]:
    """`97 ± 3` for every agent, in bold where it is near the best, empty where it was not run."""
    best = bold({agent: float(values.mean()) for agent, values in found.items()})
    cells = []
    for agent in agents:
        if agent not in found:
            cells.append("")
            continue
        values = 100 * found[agent]
        spread = f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else ""
        cells.append(f"**{values.mean():.0f}**{spread}" if agent in best else f"{values.mean():.0f}{spread}")
    return cells


def _aggregates(scores: Scores, out: Path) -> list[str]:
    """Interquartile mean, probability of improvement and profiles, over the tasks that all compared agents have."""
    pooled: dict[str, dict[tuple[str, int], dict[int, float]]] = defaultdict(dict)
    for dataset, by_agent in scores.items():
        for agent, by_task in by_agent.items():
            pooled[agent] |= {(dataset, task): by_seed for task, by_seed in by_task.items()}
    agents = list(pooled)
    if not agents:
        return []
    lead = "evor" if "evor" in pooled else agents[0]
    parts = [
        "\n## Over tasks and seeds\n",
        f"Interquartile mean with its stratified bootstrap 95 % interval, over every task an agent played; chance that "
        f"{lead} beats it, over the tasks both played.\n",
        f"| agent | tasks x seeds | IQM | P({lead} better) |",
        "| --- | --- | --- | --- |",
    ]
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for index, agent in enumerate(agents):
        table = square(pooled[agent])  # ty: ignore[invalid-argument-type]
        both = sorted(set(pooled[lead]) & set(pooled[agent]))
        ours, other = (square(pooled[name], both) for name in (lead, agent))  # ty: ignore[invalid-argument-type]
        better = str(estimate(probability_of_improvement, ours, other)) if agent != lead else ""
        shape = f"{table.shape[0]} x {table.shape[1]}"
        parts.append(f"| {agent} | {shape} | {estimate(interquartile_mean, table)} | {better} |")
        colour = ACCENT if agent == lead else plt.get_cmap("Dark2")(index % 8)
        axis.plot(100 * THRESHOLDS, performance_profile(table, THRESHOLDS), label=f"{agent} ({shape})", color=colour)
    axis.set(xlabel="success above, percent", ylabel="share of tasks x seeds", ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=8)
    _save(figure, out / "profiles.png")
    return [*parts, "\n![performance profiles](profiles.png)"]


DIALS = {
    "num_candidates": ("candidates per decision", {"return_temperature": 1.0, "action_temperature": 1e-3}),
    "return_temperature": ("return temperature τR / sd", {"num_candidates": 32.0, "action_temperature": 1e-3}),
    "action_temperature": ("action temperature τQ / sd", {"num_candidates": 32.0, "return_temperature": 1.0}),
}


def _ablations(rows: list[Row], out: Path) -> list[str]:
    """Figures 1-5: success of the last checkpoint against each dial of the search, the others at their defaults."""
    if not any(row["suite"] == "ablations" for row in rows):
        return []
    last = max(row["updates"] for row in rows)
    mine = [
        row for row in rows if row["agent"] == "evor" and row["updates"] == last and row["extraction"] == "SoftmaxOf"
    ]
    parts = [
        "\n## One dial at a time (Figures 1-5)\n",
        "Last checkpoint of `evor`; bands are ± one standard deviation over seeds.",
    ]
    for dataset in sorted({row["dataset"] for row in mine}):
        figure, axes = plt.subplots(1, len(DIALS), figsize=(11, 3), sharey=True)
        for axis, (dial, (label, others)) in zip(axes, DIALS.items(), strict=True):
            picked = [r for r in mine if r["dataset"] == dataset and all(float(r[n]) == v for n, v in others.items())]
            _draw_dial(axis, picked, dial)
            axis.set(xlabel=label, ylim=(-3, 103))
        axes[0].set(ylabel="success, percent")
        name = f"ablations-{dataset}.png"
        _save(figure, out / name)
        parts.append(f"\n![{dataset}]({name})")
    return parts


def _draw_dial(axis: Any, rows: list[Row], dial: str) -> None:
    values = sorted({float(row[dial]) for row in rows})
    places = np.arange(len(values))
    for task in sorted({row["task"] for row in rows}):
        points = [[r["success"] for r in rows if r["task"] == task and float(r[dial]) == v] for v in values]
        mean = 100 * np.array([np.mean(p) if p else math.nan for p in points])
        std = 100 * np.array([np.std(p, ddof=1) if len(p) > 1 else 0.0 for p in points])
        axis.fill_between(places, mean - std, mean + std, alpha=0.12, linewidth=0)
        axis.plot(places, mean, "o-", markersize=3, linewidth=1.2, label=f"task {task}")
    axis.set_xticks(places, [f"{value:g}".replace("inf", "∞") for value in values], fontsize=8)
    axis.legend(frameon=False, fontsize=7)


def _costs(out: Path) -> str:
    """Seconds per cell, from timings.csv."""
    path = out / "timings.csv"
    if not path.exists():
        return ""
    costs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            dataset, agent, _ = row["cell"].split("/")
            costs[dataset, agent].append((float(row["seconds_per_update"]), float(row["seconds"])))
    lines = [
        "\n## Cost\n",
        "Median seconds, all tasks of a cell together.\n",
        "| data set | agent | per update | per evaluation |",
        "| --- | --- | --- | --- |",
    ]
    for (dataset, agent), found in sorted(costs.items()):
        update, evaluation = np.nanmedian(np.array(found), axis=0)
        lines.append(f"| {dataset} | {agent} | {update:.4f} | {evaluation:.0f} |")
    return "\n".join(lines)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
