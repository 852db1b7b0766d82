"""Learning curves of a run: losses over its updates, and success of the checkpoints that were played. Imports no JAX."""

from collections import defaultdict
from typing import Any

import matplotlib
import numpy as np

from evor.report.evaluations import Row
from evor.report.figures import ACCENT, figure_html, pictures_html, subplots
from evor.report.html import section, terms
from evor.report.success import Setting, group, label, success_interval

MEANINGS = {
    "policy/loss": "Mean squared error of the base policy's flow: how far its velocity is from the one that leads to the "
    "data's actions. It levels off above 0, since actions at one observation differ.",
    "value/loss": "Error of the value: of the flow that makes returns, or of the critic. It levels off above 0 where returns are "
    "uncertain; its targets move while it learns.",
    "critic/loss": "Mean squared error of the critics. It levels off above 0 where returns are uncertain; their targets move while "
    "they learn.",
}
ACTORS = {  # what the actor of an agent descends; it is no error, and may be negative
    "Fql": "What the actor descends: the squared distance of its actions from the flow's, minus the critics' value of its actions, "
    "each with its weight.",
    "Iql": "What the actor descends: minus the log-density of the data's actions, where better actions weigh more.",
    "Rebrac": "What the actor descends: the squared distance of its actions from the data's, with its weight, minus the critics' value "
    "of its actions divided by the size of that value.",
    "Sorl": "What the actor descends: flow matching on the data's actions, self-consistency of few steps with many, and minus the "
    "critics' value of its actions divided by the size of that value, each with its weight.",
}
CURVES = 60  # that are drawn of a loss


def learning_section(metrics: list[dict[str, Any]], evaluations: dict[int, list[Row]], *, agent: str) -> str:
    """Losses from metrics.jsonl, and success over checkpoints where a search has played several. Nothing of no lines."""
    return section("Learning curve", _losses(metrics, agent), _checkpoints(evaluations))


def _losses(lines: list[dict[str, Any]], agent: str) -> str:
    names = [name for name in (lines[0] if lines else ()) if name.endswith("/loss")]
    names = [name for name in names if all(isinstance(line.get(name), float) for line in lines)]
    if len(lines) < 2 or not names:
        return ""
    pictures = {}
    for name in names:
        figure, axis = subplots(figsize=(4.5, 2.9), layout="constrained")
        curves = defaultdict(list)
        for line in lines:
            curves[line["seed"], line["task"]].append((line["step"], line[name]))
        for key in sorted(curves)[:CURVES]:
            axis.plot(*zip(*curves[key], strict=True), color=ACCENT, alpha=0.6, linewidth=1.2)
        axis.set(title=name, xlabel="updates")
        first, last = (np.mean([curve[index][1] for curve in curves.values()]) for index in (0, -1))
        pictures[f"{name} over updates: {first:.3g} at first, {last:.3g} at last, on average over curves."] = figure
    meanings = MEANINGS | ({"actor/loss": ACTORS[agent]} if agent in ACTORS else {})
    return pictures_html(
        pictures, "Losses, averaged between log lines (metrics.jsonl). One curve per seed and task."
    ) + terms({name: meaning for name, meaning in meanings.items() if name in names})


def _checkpoints(evaluations: dict[int, list[Row]]) -> str:
    """Success over updates, a line for each search that has played several checkpoints."""
    curves: dict[Setting, list[tuple[float, float, float, float]]] = defaultdict(list)
    for updates, rows in sorted(evaluations.items()):
        for setting, played in group(rows).items():
            mean = float(np.mean([row["success"] for row in played]))
            curves[setting].append((updates, mean, *success_interval(played)))
    curves = {setting: points for setting, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    figure, axis = subplots(figsize=(6.4, 3.3), layout="constrained")
    told = []
    for index, (setting, points) in enumerate(curves.items()):
        x, y, low, high = np.array(points).T
        colour = ACCENT if len(curves) == 1 else matplotlib.colormaps["viridis"](index / len(curves))
        name = label(setting, among=list(curves))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(x, y, "o-", color=colour, label=name)
        told.append(f"{name}: " + ", ".join(f"{mean:.2f} at {updates:.0f}" for updates, mean, *_ in points))
    axis.set(xlabel="updates", ylabel="success", ylim=(-0.03, 1.05))
    axis.legend(frameon=False, fontsize=8)
    return figure_html(
        figure,
        "Share of episodes that solved the task, by the updates of the checkpoint that played them. The band is Wilson's 95 % "
        "interval over episodes; checkpoints may have played different numbers of them.",
        alt=f"Success over updates. {'; '.join(told)}.",
    )
