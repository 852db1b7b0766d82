"""Rows of the suite `sorl` -> its scaling figures, when acting and in training. Imports no JAX."""

from pathlib import Path
from typing import Any

import numpy as np

from evor.experiments.reproduce.scores import ResultRow, Results, means_by_seed, told_episodes, told_seeds
from evor.report.evaluations import SETTING, Row
from evor.report.figures import save_figure, subplots
from evor.report.grid import Grid, draw_grid, grids
from evor.report.success import group

POINT = ("flow_steps", "num_candidates")  # of the grid


def scaling_figures(results: Results, out: Path) -> list[str]:
    """Success over flow steps and candidates, and over the steps that training went through. Nothing of another matrix."""
    return [*_acting(results, out), *_training(results, out)]


def _acting(results: Results, out: Path) -> list[str]:
    played = [row for row in results.rows if row["suite"] == "scaling"]
    if not played:
        return []
    parts = [
        "\n## Scaling when acting\n",
        "The last checkpoint of `sorl`, played in other numbers of flow steps (M) and candidates (N). Left: success by both. A "
        "decision takes N x M evaluations of the actor; M of them follow each other. Middle and right: the same numbers along one axis "
        "each. Intervals are Wilson's 95 % intervals over all episodes. They are too narrow where episodes of one network succeed or "
        "fail together.",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in played):
        whole, short = results.seeds(dataset, POINT)
        shown = [row for row in results.further(dataset) if row["seed"] in (whole or short)]
        for grid in grids(group([episode for row in shown for episode in _episodes(row)])):
            name = f"scaling-{dataset}.png"
            save_figure(draw_grid(grid), out / name)
            data = " and ".join(sorted({row["data"] for row in shown}))
            tasks = ", ".join(map(str, sorted({row["task"] for row in shown})))
            last = max(results.scored(dataset, results.manifest["lead"]))
            parts += [
                f"\n![{dataset}]({name})",
                f"\n{dataset}, task {tasks}: {data}; after {last} updates; {told_episodes(shown)} of each task and seed; "
                f"{told_seeds(whole, short)}. {_ends(grid)}",
            ]
    return parts


def _episodes(row: ResultRow) -> list[Row]:
    """The episodes that a row is the mean of, as the report has them."""
    setting = {name: row.get(name, "") for name in SETTING}
    solved = round(row["success"] * row["episodes"])
    return [setting | {"success": float(index < solved)} for index in range(row["episodes"])]


def _ends(grid: Grid) -> str:
    """Say whether success rises along both axes by more than its intervals, from the least to the most of each."""
    last_step, last_count = len(grid.steps) - 1, len(grid.candidates) - 1
    first, most = grid.candidates[0], grid.steps[-1]
    steps, counts = (f"{values[0]} to {values[-1]}" for values in (grid.steps, grid.candidates))
    sequential = f"From {steps} flow steps, with {first} candidate{'s' * (first > 1)}"
    parallel = f"From {counts} candidates, in {most} flow steps"
    one, finest, widest = (0, 0), (last_step, 0), (last_step, last_count)
    return (
        f"{_rise(grid, start=one, end=finest, told=sequential)} {_rise(grid, start=finest, end=widest, told=parallel)}"
    )


def _rise(grid: Grid, *, start: tuple[int, int], end: tuple[int, int], told: str) -> str:
    def point(place: tuple[int, int]) -> str:
        return f"{100 * grid.success[place]:.0f} [{100 * grid.low[place]:.0f}, {100 * grid.high[place]:.0f}]"

    if np.isnan([grid.success[start], grid.success[end]]).any():
        return f"{told}: not played yet."
    if grid.low[end] > grid.high[start]:
        change = "it rises by more than its intervals"
    elif grid.high[end] < grid.low[start]:
        change = "it falls by more than its intervals"
    else:
        change = "the intervals overlap, so this does not show a rise"
    return f"{told}, success goes from {point(start)} to {point(end)}: {change}."


# Training through 1, 2, 4 or 8 steps.


def _training(results: Results, out: Path) -> list[str]:
    scores = {dataset: by_steps for dataset, by_steps in scores_by_steps(results).items() if len(by_steps) > 1}
    if not scores:
        return []
    figure, axes = subplots(1, len(scores), figsize=(1 + 3.5 * len(scores), 3), sharey=True, squeeze=False)
    told = []
    for axis, (dataset, by_steps) in zip(axes[0], scores.items(), strict=True):
        told.append(_draw_training(axis, dataset, by_steps=by_steps))
    axes[0][0].set(ylabel="success, percent")
    save_figure(figure, out / "trained-steps.png")
    return [
        "\n## Scaling in training\n",
        "Critics are trained for up to 1, 2, 4 or 8 flow steps, and their gradient passes through as many. All act by the best of eight "
        "candidates in eight steps. Scores are those of the tables, of the tasks that all of them have played; bars are ± one standard deviation over seeds.",
        "\n![success by trained steps](trained-steps.png)",
        *told,
    ]


def scores_by_steps(results: Results) -> dict[str, dict[int, np.ndarray]]:
    """Success in percent of each seed by dataset and trained steps, over the tasks that all of the agents have played."""
    steps_of = _trained_steps(results.manifest)
    found: dict[str, dict[int, np.ndarray]] = {}
    for dataset, by_agent in results.scores().items():
        trained = {agent: by_agent[agent] for agent in steps_of if agent in by_agent}
        tasks = sorted(set.intersection(*map(set, trained.values()))) if trained else []
        means = means_by_seed(trained, tasks) if tasks else {}
        found[dataset] = {steps_of[agent]: 100 * of_seeds for agent, of_seeds in means.items()}
    return found


def _trained_steps(manifest: dict[str, Any]) -> dict[str, int]:
    """Agents of one kind, with the largest number of steps that each is trained through."""
    steps = {
        agent: recipe["agent"]["trained_steps"]
        for agent, recipes in manifest["recipes"].items()
        for recipe in recipes.values()
        if "trained_steps" in recipe.get("agent", {})
    }
    return dict(sorted(steps.items(), key=lambda pair: pair[1]))


def _draw_training(axis: Any, dataset: str, *, by_steps: dict[int, np.ndarray]) -> str:
    """Draw success against the trained steps. Returns it as a line of text."""
    steps = sorted(by_steps)
    middle = [by_steps[step].mean() for step in steps]
    spread = [by_steps[step].std(ddof=1) if len(by_steps[step]) > 1 else 0.0 for step in steps]
    axis.errorbar(steps, middle, spread, fmt="o-", capsize=3)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set(xlabel="steps in training", ylim=(-3, 103), title=dataset)
    points = [
        f"{step}: {mean:.0f} ± {deviation:.0f} ({len(by_steps[step])} seeds)"
        if len(by_steps[step]) > 1
        else f"{step}: {mean:.0f}"
        for step, mean, deviation in zip(steps, middle, spread, strict=True)
    ]
    return f"\n{dataset}, by steps in training: {'; '.join(points)}."
