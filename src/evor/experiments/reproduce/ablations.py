"""Rows of the suite `ablations` -> the paper's Figures 1-5. Imports no JAX."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from evor.experiments.reproduce.scores import ResultRow, Results, told_episodes, told_seeds
from evor.report.figures import save_figure, subplots

OPTIONS = {  # an option of the search, and where the others stay
    "num_candidates": ("candidates per decision", {"return_temperature": 1.0, "action_temperature": 1e-3}),
    "return_temperature": ("return temperature τR / sd", {"num_candidates": 32.0, "action_temperature": 1e-3}),
    "action_temperature": ("action temperature τQ / sd", {"num_candidates": 32.0, "return_temperature": 1.0}),
}


def option_figures(results: Results, out: Path) -> list[str]:
    """Figures 1-5: success of the last checkpoint against each option of the search, the others at their defaults."""
    if not any(row["suite"] == "ablations" for row in results.rows):
        return []
    parts = [
        "\n## One option at a time (Figures 1-5)\n",
        "The last checkpoint of `evor` under other searches. One option changes. The others stay at 32 candidates, τR 1 and τQ "
        "0.001. Temperatures are in standard deviations of the returns. τR = ∞ reads the mean. τQ = 0 takes the best candidate, "
        "and ∞ any. Thin lines are tasks. Black is their mean, with a band of ± one standard deviation over seeds.",
    ]
    for dataset in sorted({row["dataset"] for row in results.rows if row["agent"] == "evor"}):
        played = [row for row in results.further(dataset) if row["extraction"] == "SoftmaxOf"]
        if all(row["suite"] == "paper" for row in played):
            parts.append(f"\n{dataset}: not played yet.")
            continue
        whole, short = results.seeds(dataset, OPTIONS)
        shown = [row for row in played if row["seed"] in (whole or short)]
        figure, axes = subplots(1, len(OPTIONS), figsize=(11, 3), sharey=True)
        bests = []
        for axis, (option, (label, others)) in zip(axes, OPTIONS.items(), strict=True):
            means = _draw_option(axis, [row for row in shown if _stay(row, others)], option=option)
            if means:  # none has been played before the first search of this option
                best = max(means, key=means.__getitem__)
                bests.append(f"{means[best]:.0f} with {label} {_number(best)}")
            axis.set(xlabel=label, ylim=(-3, 103))
        axes[0].set(ylabel="success, percent")
        axes[0].legend(frameon=False, fontsize=7)
        name = f"ablations-{dataset}.png"
        save_figure(figure, out / name)
        data = " and ".join(sorted({row["data"] for row in shown}))
        parts += [
            f"\n![{dataset}]({name})",
            f"\n{dataset}: {data}; after {max(results.scored(dataset, 'evor'))} updates; {told_episodes(shown)} of each "
            f"task and seed; {told_seeds(whole, short)}.",
            f"\nHighest means: {'; '.join(bests)}.",
        ]
    return parts


def _stay(row: ResultRow, others: dict[str, float]) -> bool:
    return all(float(row[name]) == value for name, value in others.items())


def _draw_option(axis: Any, rows: list[ResultRow], *, option: str) -> dict[float, float]:
    """Draw the success of tasks and their mean. Returns the mean in percent at each value of the option, none without rows."""
    if not rows:
        return {}
    values = sorted({float(row[option]) for row in rows})
    positions = np.arange(len(values))
    for task in sorted({row["task"] for row in rows}):
        mean, _ = _curve([row for row in rows if row["task"] == task], option, values=values)
        axis.plot(positions, mean, "o-", markersize=3, alpha=0.6, label=f"task {task}")
    mean, deviation = _curve(rows, option, values=values)
    axis.plot(positions, mean, "o-", markersize=3, linewidth=2, color="black", label="mean")
    low, high = np.clip(mean - deviation, 0, 100), np.clip(mean + deviation, 0, 100)
    axis.fill_between(positions, low, high, alpha=0.12, linewidth=0, color="black")
    axis.set_xticks(positions, map(_number, values), fontsize=8)
    return dict(zip(values, mean, strict=True))


def _number(value: float) -> str:
    return f"{value:g}".replace("inf", "∞")


def _curve(rows: list[ResultRow], option: str, *, values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over seeds of their success in percent at each value; NaN where there is none."""
    seeds = sorted({row["seed"] for row in rows})
    points = []
    for value in values:
        by_seed = [[r["success"] for r in rows if (float(r[option]), r["seed"]) == (value, seed)] for seed in seeds]
        points.append([100 * np.mean(successes) for successes in by_seed if successes])
    means = [np.mean(successes) if successes else math.nan for successes in points]
    return np.array(means), np.array(
        [np.std(successes, ddof=1) if len(successes) > 1 else math.nan for successes in points]
    )
