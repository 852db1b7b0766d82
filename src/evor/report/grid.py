"""Success over numbers of candidates and of flow steps, where a sweep has played such a grid. Imports no JAX."""

from collections import defaultdict
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evor.report.evaluations import Row, search_name
from evor.report.figures import MUTED, figure_html, subplots
from evor.report.html import section
from evor.report.success import Setting, success_interval

CANDIDATES, STEPS = 1, 5  # places of the two in a setting


class Grid(NamedTuple):
    """Success of one search at several numbers of candidates [N] and flow steps [M]; NaN where nothing was played."""

    name: str
    candidates: list[int]
    steps: list[int]
    success: np.ndarray  # [M, N]
    low: np.ndarray
    high: np.ndarray


def grids(groups: dict[Setting, list[Row]]) -> list[Grid]:
    """Searches that were played at two numbers of candidates and two of flow steps, at least."""
    families: dict[Setting, dict[tuple[int, int], list[Row]]] = defaultdict(dict)
    for setting, rows in groups.items():
        rest = tuple(value for index, value in enumerate(setting) if index not in (CANDIDATES, STEPS))
        families[rest][int(setting[STEPS]), int(setting[CANDIDATES])] = rows
    return [
        grid
        for rest, cells in families.items()
        if len((grid := _grid(rest[0], cells)).steps) > 1 and len(grid.candidates) > 1
    ]


def _grid(name: str, cells: dict[tuple[int, int], list[Row]]) -> Grid:
    steps, candidates = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    success, low, high = np.full((3, len(steps), len(candidates)), np.nan)
    for (step, count), rows in cells.items():
        place = steps.index(step), candidates.index(count)
        success[place] = np.mean([row["success"] for row in rows])
        low[place], high[place] = success_interval(rows)
    return Grid(search_name(name), candidates, steps, success, low, high)


def grid_section(groups: dict[Setting, list[Row]], *, where: str = "") -> str:
    """The grid as a heat map, and as two curves: more flow steps, and more candidates. Nothing where there is none."""
    if any(np.isnan(row["success"]) for rows in groups.values() for row in rows):
        return ""
    return section(f"Success over flow steps and candidates{where}", *map(_html, grids(groups)))


def draw_grid(grid: Grid) -> Figure:
    """The grid as a heat map, and as two curves: more flow steps, and more candidates."""
    figure, (map_, sequential, parallel) = subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    _draw_map(map_, grid)
    _draw_curves(sequential, grid.steps, grid=grid, lines=grid.candidates, label="N = {}")
    sequential.set(xlabel="flow steps, M", ylabel="success", title="sequential: more flow steps")
    by_candidates = grid._replace(success=grid.success.T, low=grid.low.T, high=grid.high.T)
    _draw_curves(parallel, grid.candidates, grid=by_candidates, lines=grid.steps, label="M = {}")
    parallel.set(xlabel="candidates per decision, N", title="parallel: more candidates")
    return figure


def _html(grid: Grid) -> str:
    told = [
        f"{steps} steps, {count} candidates: {grid.success[i, j]:.2f}"
        for i, steps in enumerate(grid.steps)
        for j, count in enumerate(grid.candidates)
        if not np.isnan(grid.success[i, j])
    ]
    return figure_html(
        draw_grid(grid),
        f"Share of episodes that solved the task under {grid.name}. Left: by flow steps of an action (M, rows) and candidates per "
        "decision (N, columns). A decision takes N x M evaluations of the policy; M of them follow each other. Middle and "
        "right: the same numbers along one axis each, with Wilson's 95 % intervals over episodes.",
        alt=f"Success by flow steps and candidates. {'; '.join(told)}.",
    )


def _draw_map(axis: Any, grid: Grid) -> None:
    axis.imshow(grid.success, cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(grid.candidates)), map(str, grid.candidates))
    axis.set_yticks(range(len(grid.steps)), map(str, grid.steps))
    axis.set(xlabel="candidates per decision, N", ylabel="flow steps, M", title="success")
    for (row, column), value in np.ndenumerate(grid.success):
        text, colour = ("–", MUTED) if np.isnan(value) else (f"{value:.2f}", "white" if value < 0.6 else "black")
        axis.text(column, row, text, ha="center", va="center", color=colour)


def _draw_curves(axis: Any, values: list[int], *, grid: Grid, lines: list[int], label: str) -> None:
    """Draw success [values, lines] against the values, a curve for each of the lines."""
    for index, line in enumerate(lines):
        colour = matplotlib.colormaps["viridis"](index / len(lines))
        there = ~np.isnan(grid.success[:, index])
        x = np.array(values)[there]
        axis.vlines(x, grid.low[there, index], grid.high[there, index], color=colour, linewidth=1.2)
        axis.plot(x, grid.success[there, index], "o-", color=colour, label=label.format(line))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(-0.03, 1.05)
    axis.legend(frameon=False, fontsize=8)
