"""The pictures of a maze: trajectories, value, return laws of candidates, an animated rollout. Imports no JAX."""

import io
from itertools import pairwise
from pathlib import Path

import imageio.v3 as imageio
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle, Rectangle

from evor.report.evaluations import SettingFiles, drawings, in_order
from evor.report.figures import ACCENT, BASE, FLOOR, MUTED, WALL, figure_html, image_html, subplots
from evor.report.task_arrays import Arrays

SHOWN_EPISODES = 12
FRAMES = 80
FRAME_MILLISECONDS = 70


def maze_sections(run: Path, files: dict[tuple[str, ...], str], *, updates: int) -> list[str]:
    """HTML sections for the first task of a maze run that its checkpoint of so many updates has played; none for other runs."""
    stored = drawings(run / "evaluations").read()
    drawn = {task: maze for task, maze in stored.items() if "drawing" in maze and maze["drawing"][0] == updates}
    if not drawn:
        return []
    task = min(drawn)
    maze = drawn[task]
    base = next((file for setting, file in files.items() if setting[0] == "Prior"), None)
    searches = [(float(setting[1]), file) for setting, file in files.items() if setting[0] != "Prior"]
    sections = []
    pair = {}
    if base and searches:
        count, search = max(searches)
        pair = {
            "base policy": (trajectories(run, base, task=task, updates=updates)[:SHOWN_EPISODES], BASE),
            f"search, {int(count)} candidates": (
                trajectories(run, search, task=task, updates=updates)[:SHOWN_EPISODES],
                ACCENT,
            ),
        }
    if pair and all(paths for paths, _ in pair.values()):  # they may have played other tasks
        sections.append(f"<h2>The same policy, without and with search (task {task})</h2>")
        sections.append(
            image_html(
                _animation(maze, pair),
                "gif",
                caption=f"The first {SHOWN_EPISODES} episodes, played together. The ring is the goal.",
            )
        )
        sections.append(_paths(maze, pair))
    sections += [_value_map(maze, task), _return_distributions(maze)]
    return sections


def trajectories(run: Path, file: str, *, task: int, updates: int | None = None) -> list[np.ndarray]:
    """Places [length + 1, 2] of the stored episodes of an evaluation, in their order; none where another checkpoint played."""
    arrays = SettingFiles(run / "evaluations", file).drawn.read().get(task, {})
    other = updates is not None and "played" in arrays and arrays["played"][0] != updates  # version 0.1.0 kept one
    return [] if other else [trajectory[:, :2] for trajectory in in_order(arrays)]


def draw_map(axis: Axes, maze: Arrays) -> None:
    """Walls, start and goal."""
    unit, offset_x, offset_y = maze["unit"]
    height, width = maze["map"].shape
    axis.add_patch(
        Rectangle((-offset_x - unit / 2, -offset_y - unit / 2), width * unit, height * unit, color=FLOOR, zorder=-2)
    )
    for i, j in np.argwhere(maze["map"] == 1):
        corner = (j * unit - offset_x - unit / 2, i * unit - offset_y - unit / 2)
        axis.add_patch(Rectangle(corner, unit, unit, color=WALL, linewidth=0.5, zorder=3))
    axis.add_patch(
        Circle(tuple(maze["goal"]), float(maze["goal_tolerance"]), fill=False, color="#17a673", linewidth=2.5, zorder=4)
    )
    axis.plot(*maze["start"], "s", color=MUTED, markersize=6, zorder=4)
    margin = unit / 2 + 0.05
    axis.set(
        xlim=(-offset_x + margin - 0.35 * unit, (width - 1) * unit - offset_x - margin + 0.35 * unit),
        ylim=(-offset_y + margin - 0.35 * unit, (height - 1) * unit - offset_y - margin + 0.35 * unit),
        aspect="equal",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _paths(maze: Arrays, pair: dict[str, tuple[list[np.ndarray], str]]) -> str:
    figure, axes = subplots(1, 2, figsize=(9, 4.6))
    for axis, (label, (paths, colour)) in zip(axes, pair.items(), strict=True):
        draw_map(axis, maze)
        for path in paths:
            axis.plot(*path.T, color=colour, alpha=0.45, linewidth=1, zorder=2)
            axis.plot(*path[-1], "o", color=colour, markersize=4.5, markeredgecolor="white", zorder=5)
        lengths = np.mean([len(path) - 1 for path in paths])
        axis.set_title(f"{label}: {lengths:.0f} steps on average", color=colour)
    figure.tight_layout()
    return figure_html(figure, "Whole trajectories; a dot marks where each episode ended, the square where they start.")


def _value_map(maze: Arrays, task: int) -> str:
    figure, axis = subplots(figsize=(9, 6.6))
    draw_map(axis, maze)
    bar = figure.colorbar(draw_value(axis, maze), ax=axis, shrink=0.85)
    bar.outline.set_visible(False)
    bar.set_label("mean reward-to-go of the best of 8 candidates")
    figure.tight_layout()
    return "<h2>What the value knows</h2>" + figure_html(
        figure,
        f"Expected discounted reward-to-go of the best of 8 candidates, then the data's behaviour, in reward units (task {task}).",
    )


def draw_value(axis: Axes, maze: Arrays, *, span: tuple[float, float] | None = None) -> QuadMesh:
    """Its colours bend, over `span` or all there is: far from the goal returns differ by little."""
    grid, value = maze["grid"], maze["value"]
    low, high = span or (float(value.min()), float(value.max()))
    xs, ys = np.unique(grid[:, 0].round(4)), np.unique(grid[:, 1].round(4))
    image = np.full((len(ys), len(xs)), np.nan)
    image[np.searchsorted(ys, grid[:, 1].round(4)), np.searchsorted(xs, grid[:, 0].round(4))] = value
    half = (xs[1] - xs[0]) / 2
    # Walls leave gaps between cells; the mesh is drawn on the free cells only.
    return axis.pcolormesh(
        _edges(xs, half),
        _edges(ys, half),
        _with_gaps(image, xs, ys=ys, half=half),
        cmap="viridis",
        norm=PowerNorm(0.35, low, high, clip=True),
        zorder=1,
    )


def _edges(centres: np.ndarray, half: float) -> np.ndarray:
    """Cell borders, with an extra cell wherever neighbouring centres are further apart than one cell."""
    borders = [centres[0] - half]
    for left, right in pairwise(centres):
        borders.append(left + half)
        if right - left > 2.5 * half:
            borders.append(right - half)
    return np.array([*borders, centres[-1] + half])


def _with_gaps(image: np.ndarray, xs: np.ndarray, *, ys: np.ndarray, half: float) -> np.ndarray:
    columns = np.flatnonzero(np.diff(xs) > 2.5 * half) + 1
    rows = np.flatnonzero(np.diff(ys) > 2.5 * half) + 1
    return np.insert(np.insert(image, columns, np.nan, axis=1), rows, np.nan, axis=0)


def _return_distributions(maze: Arrays) -> str:
    """Per chosen state: the candidates as arrows, and the return laws of the best, the middle and the worst."""
    states, actions, quantiles = maze["states"], maze["actions"], maze["quantiles"]
    figure, axes = subplots(len(states), 2, figsize=(9, 2.9 * len(states)), width_ratios=[1, 2.1], squeeze=False)
    colours = matplotlib.colormaps["viridis"]
    share = 1 - (np.arange(quantiles.shape[-1]) + 0.5) / quantiles.shape[-1]
    for (left_axis, right), state, candidates, distributions in zip(axes, states, actions, quantiles, strict=True):
        means = distributions.mean(axis=1)
        order = np.argsort(means)
        shade = np.empty(len(means))
        shade[order] = np.linspace(0, 0.95, len(means))
        draw_map(left_axis, maze)
        tips = state[:2] + 1.6 * candidates[:, :2]
        segments = np.stack([np.repeat(state[None, :2], len(tips), 0), tips], axis=1)[order]
        left_axis.add_collection(LineCollection(list(segments), colors=colours(shade[order]), linewidths=2.2, zorder=5))
        left_axis.plot(*state[:2], "o", color="black", markersize=5, zorder=6)
        reach = 1.25 * maze["unit"][0]
        left_axis.set(xlim=(state[0] - reach, state[0] + reach), ylim=(state[1] - reach, state[1] + reach))
        chosen = {"worst": order[0], "middle": order[len(order) // 2], "best": order[-1]}
        for label, index in chosen.items():
            returns = np.sort(distributions[index])
            right.step(
                returns, share, color=colours(shade[index]), linewidth=2, label=f"{label}: mean {means[index]:.2f}"
            )
        right.set(yscale="log", ylim=(share[-1], 1.15), ylabel="share of futures above")
        right.legend(frameon=False, fontsize=8.5, loc="upper right")
    axes[-1][1].set_xlabel("discounted reward-to-go")
    axes[0][1].set_title("return laws of three candidates")
    axes[0][0].set_title(f"{actions.shape[1]} candidates")
    figure.tight_layout()
    return "<h2>The laws behind a choice</h2>" + figure_html(
        figure,
        "Three states along the first searched episode. Left: what the base policy proposes there, brighter has the higher "
        "mean return. Right: the learned law of the reward-to-go for the worst, the middle and the best of them, as the "
        "share of futures that end above a return. All are laws under the data's behaviour, so one good action shifts "
        "them a little; the search adds these little shifts up.",
    )


def _animation(maze: Arrays, pair: dict[str, tuple[list[np.ndarray], str]]) -> bytes:
    """Both policies side by side, all shown episodes at once, until the searched ones have arrived."""
    searched = list(pair.values())[-1][0]
    last = int(max(np.percentile([len(path) for path in searched], 90) * 1.25, 40))
    times = np.linspace(0, last, FRAMES).astype(int)
    figure, axes = subplots(1, 2, figsize=(8, 4.25), dpi=90)
    drawn = []
    for axis, (label, (paths, colour)) in zip(axes, pair.items(), strict=True):
        draw_map(axis, maze)
        title = axis.set_title(label, color=colour)
        trails = [axis.plot([], [], color=colour, alpha=0.35, linewidth=1.2, zorder=2)[0] for _ in paths]
        heads = axis.scatter(*np.array([path[0] for path in paths]).T, s=34, color=colour, edgecolor="white", zorder=6)
        drawn.append((label, paths, title, trails, heads))
    figure.tight_layout()
    canvas = FigureCanvasAgg(figure)
    frames = []
    for time in times:
        for label, paths, title, trails, heads in drawn:
            arrived = sum(len(path) - 1 <= time for path in paths)
            title.set_text(f"{label}: step {time}, {arrived} of {len(paths)} arrived")
            for trail, path in zip(trails, paths, strict=True):
                trail.set_data(*path[max(0, time - 60) : time + 1].T)
            heads.set_offsets([path[min(time, len(path) - 1)] for path in paths])
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    stream = io.BytesIO()
    imageio.imwrite(stream, np.stack(frames), extension=".gif", duration=FRAME_MILLISECONDS, loop=0)
    return stream.getvalue()
