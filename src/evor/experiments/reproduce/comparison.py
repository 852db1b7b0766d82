"""Agents compared over all their tasks and seeds, of the tasks they share, with bootstrap intervals. Imports no JAX."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from evor.experiments.reproduce.scores import Results, square
from evor.report.figures import ACCENT, save_figure, subplots
from evor.report.statistics import (
    Statistic,
    estimate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

Pooled = dict[tuple[str, int], dict[int, float]]  # (dataset, task) -> seed -> success
THRESHOLDS = np.linspace(0, 1, 101)[:-1]


def comparison(results: Results, out: Path) -> list[str]:
    """Interquartile mean, probability of improvement and profiles; what is compared is of the same tasks."""
    pooled: dict[str, Pooled] = defaultdict(dict)
    for dataset, by_agent in results.scores().items():
        for agent, by_task in by_agent.items():
            pooled[agent] |= {(dataset, task): by_seed for task, by_seed in by_task.items()}
    agents = list(pooled)
    if not agents:
        return []
    lead = results.manifest["lead"] if results.manifest["lead"] in pooled else agents[0]
    parts = [
        "\n## Over tasks and seeds\n",
        "The interquartile mean (IQM) is the mean success in percent of the middle scores: a quarter, rounded down, is left out at "
        "each end. Brackets hold its stratified bootstrap 95 % interval. The IQM of an agent is over every task it played. The next "
        f"column is the IQM of {lead} over the same tasks. P({lead} better) is the chance that a seed of {lead} does better than one of "
        "the agent on a task that both played. Ties count half.\n\n"
        "Seeds are drawn anew for each task, as the field does. But the tasks of a seed share a base policy, and there are few "
        "seeds. So these intervals are rather too narrow. One seed has none.\n" + _fewer(results),
        f"| agent | tasks x seeds | IQM | IQM of {lead} there | P({lead} better) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for agent in agents:
        mine, both = square(pooled[agent], pooled[agent]), sorted(set(pooled[lead]) & set(pooled[agent]))
        columns = [agent, f"{mine.shape[0]} x {mine.shape[1]}" if mine.size else "its tasks share no seed"]
        columns.append(_told(interquartile_mean, ".1f", 100 * mine))
        if both and agent != lead:
            tables = [square(pooled[name], both) for name in (lead, agent)]
            columns.append(_told(interquartile_mean, ".1f", 100 * tables[0]) if set(both) == set(pooled[agent]) else "")
            columns.append(_told(probability_of_improvement, ".2f", *tables))
        else:
            columns += ["", ""]
        parts.append(f"| {' | '.join(columns)} |")
    return [*parts, *_profiles(pooled, lead, cells=results.manifest["cells"], path=out / "profiles.png")]


def _fewer(results: Results) -> str:
    """Say which agents were trained for fewer updates than those that they are compared with."""
    datasets = dict.fromkeys(cell["dataset"] for cell in results.manifest["cells"])
    told = [
        f"{agent} made {updates} updates on {dataset}, fewer than the others."
        for dataset in datasets
        for agent, updates in results.fewer(dataset).items()
    ]
    return f"\n{' '.join(told)}\n" if told else ""


def _profiles(pooled: dict[str, Pooled], lead: str, *, cells: list[dict[str, Any]], path: Path) -> list[str]:
    """Performance profiles of the agents that have played all their tasks, over those they share."""
    wanted: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for cell in cells:
        wanted[cell["agent"]] |= {(cell["dataset"], task) for task in cell["tasks"]}
    whole = [agent for agent in pooled if wanted[agent] <= set(pooled[agent])]
    shared = sorted(set.intersection(*(set(pooled[agent]) for agent in whole))) if whole else []
    tables = {agent: square(pooled[agent], shared) for agent in whole} if shared else {}
    if not any(table.size for table in tables.values()):
        path.unlink(missing_ok=True)
        return []
    figure, axis = subplots(figsize=(6.5, 3.2))
    for index, (agent, table) in enumerate(tables.items()):
        if table.size:
            colour = ACCENT if agent == lead else matplotlib.colormaps["Dark2"](index % 8)
            label = f"{agent} ({table.shape[1]} seed{'s' * (table.shape[1] > 1)})"
            profile = performance_profile(table, THRESHOLDS)
            axis.plot(100 * THRESHOLDS, profile, label=label, color=colour, drawstyle="steps-post", alpha=0.8)
    axis.set(xlabel="success above, percent", ylabel="share of tasks x seeds", ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
    tasks = "; ".join(f"{dataset}, task {task}" for dataset, task in shared)
    return [
        "\n![performance profiles](profiles.png)\n\nPerformance profiles: the share of tasks x seeds whose success is above each "
        f"value. They show the agents that have played all their tasks, over the tasks they share: {tasks}."
    ]


def _told(statistic: Statistic, digits: str, *tables: np.ndarray) -> str:
    return format(estimate(statistic, *tables), digits) if all(table.size for table in tables) else ""
