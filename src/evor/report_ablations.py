"""Rows of the suite `ablations` -> the paper's Figures 1-5. Imports no JAX."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor.scores import Row
from evor.style import save_figure

DIALS = {  # a dial, and where the others stay
    "num_candidates": ("candidates per decision", {"return_temperature": 1.0, "action_temperature": 1e-3}),
    "return_temperature": ("return temperature τR / sd", {"num_candidates": 32.0, "action_temperature": 1e-3}),
    "action_temperature": ("action temperature τQ / sd", {"num_candidates": 32.0, "return_temperature": 1.0}),
}


def dial_figures(rows: list[Row], manifest: dict[str, Any], out: Path) -> list[str]:
    """Figures 1-5: success of the last checkpoint against each dial of the search, the others at their defaults."""
    if not any(row["suite"] == "ablations" for row in rows):
        return []
    mine = [row for row in rows if row["agent"] == "evor" and row["extraction"] == "SoftmaxOf"]
    parts = [
        "\n## One dial at a time (Figures 1-5)\n",
        "The last checkpoint of `evor` under other searches: one dial is turned, the others stay at 32 candidates, τR 1 and "
        "τQ 0.001 (temperatures in standard deviations of the returns, τR = ∞: the mean, τQ = 0: the best, ∞: any). Thin "
        "lines are tasks, black is their mean; bands are ± one standard deviation over seeds.",
    ]
    for dataset in sorted({row["dataset"] for row in mine}):
        last = max(manifest["scored"][dataset])
        played = [row for row in mine if row["dataset"] == dataset and row["updates"] == last]
        figure, axes = plt.subplots(1, len(DIALS), figsize=(11, 3), sharey=True)
        for axis, (dial, (label, others)) in zip(axes, DIALS.items(), strict=True):
            _draw_dial(axis, [row for row in played if _stay(row, others)], dial)
            axis.set(xlabel=label, ylim=(-3, 103))
        axes[0].set(ylabel="success, percent")
        name = f"ablations-{dataset}.png"
        save_figure(figure, out / name)
        parts += [f"\n![{dataset}]({name})", "\n" + _caption(dataset, last, played, manifest)]
    return parts


def _stay(row: Row, others: dict[str, float]) -> bool:
    return all(float(row[name]) == value for name, value in others.items())


def _caption(dataset: str, last: int, played: list[Row], manifest: dict[str, Any]) -> str:
    """What a figure shows, and which of its points are not whole yet."""
    data, episodes = (" and ".join(sorted({str(row[name]) for row in played})) for name in ("data", "episodes"))
    wanted = {
        (task, seed)
        for cell in manifest["cells"]
        if (cell["dataset"], cell["agent"]) == (dataset, "evor")
        for task, seed in itertools.product(cell["tasks"], cell["seeds"])
    }
    short = []
    for dial, (label, others) in DIALS.items():
        for value in [float(search[dial]) for search in manifest["dials"] if _stay(search, others)]:
            found = {(row["task"], row["seed"]) for row in played if _stay(row, others) and float(row[dial]) == value}
            if missing := wanted - found:
                short.append(f"{label} {value:g}: {len(missing)} of {len(wanted)}")
    seeds = len({seed for _, seed in wanted})
    return f"{dataset}: {data}; after {last} updates; {episodes} episodes of each task and of {seeds} seeds." + (
        f" Not played yet, of tasks x seeds: {'; '.join(short)}." if short else ""
    )


def _draw_dial(axis: Any, rows: list[Row], dial: str) -> None:
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
