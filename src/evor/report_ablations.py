"""Rows of the suite `ablations` -> the paper's Figures 1-5. Imports no JAX."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor.style import save_figure

DIALS = {
    "num_candidates": ("candidates per decision", {"return_temperature": 1.0, "action_temperature": 1e-3}),
    "return_temperature": ("return temperature τR / sd", {"num_candidates": 32.0, "action_temperature": 1e-3}),
    "action_temperature": ("action temperature τQ / sd", {"num_candidates": 32.0, "return_temperature": 1.0}),
}


def dial_figures(rows: list[dict[str, Any]], out: Path) -> list[str]:
    """Figures 1-5: success of the last checkpoint against each dial of the search, the others at their defaults."""
    if not any(row["suite"] == "ablations" for row in rows):
        return []
    mine = [row for row in rows if row["agent"] == "evor" and row["extraction"] == "SoftmaxOf"]
    parts = [
        "\n## One dial at a time (Figures 1-5)\n",
        "Last checkpoint of `evor`; bands are ± one standard deviation over seeds.",
    ]
    for dataset in sorted({row["dataset"] for row in mine}):
        played = [row for row in mine if row["dataset"] == dataset]
        last = max(row["updates"] for row in played)
        figure, axes = plt.subplots(1, len(DIALS), figsize=(11, 3), sharey=True)
        for axis, (dial, (label, others)) in zip(axes, DIALS.items(), strict=True):
            picked = [r for r in played if r["updates"] == last and all(float(r[n]) == v for n, v in others.items())]
            _draw_dial(axis, picked, dial)
            axis.set(xlabel=label, ylim=(-3, 103))
        axes[0].set(ylabel="success, percent")
        name = f"ablations-{dataset}.png"
        save_figure(figure, out / name)
        parts.append(f"\n![{dataset}]({name})")
    return parts


def _draw_dial(axis: Any, rows: list[dict[str, Any]], dial: str) -> None:
    values = sorted({float(row[dial]) for row in rows})
    places = np.arange(len(values))
    tasks, seeds = (sorted({row[name] for row in rows}) for name in ("task", "seed"))
    lines = [(f"task {task}", [r for r in rows if r["task"] == task], None, 0.6) for task in tasks]
    for label, picked, color, alpha in [*lines, ("mean", rows, "black", 1.0)]:
        points = [  # a seed's mean over the line's tasks
            [
                np.mean(found)
                for s in seeds
                if (found := [r["success"] for r in picked if (float(r[dial]), r["seed"]) == (v, s)])
            ]
            for v in values
        ]
        mean = 100 * np.array([np.mean(p) if p else math.nan for p in points])
        std = 100 * np.array([np.std(p, ddof=1) if len(p) > 1 else 0.0 for p in points])
        (line,) = axis.plot(
            places, mean, "o-", markersize=3, linewidth=1 + alpha, alpha=alpha, color=color, label=label
        )
        axis.fill_between(places, mean - std, mean + std, alpha=0.12, linewidth=0, color=line.get_color())
    axis.set_xticks(places, [f"{value:g}".replace("inf", "∞") for value in values], fontsize=8)
    axis.legend(frameon=False, fontsize=7)
