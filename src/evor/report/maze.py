"""The pictures of a maze's tasks: trajectories, value, return distributions of candidates, an animation. Imports no JAX."""

import io
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle, Rectangle

from evor.report.evaluations import BASE_POLICY, SettingFiles, drawings, in_order
from evor.report.figures import (
    ACCENT,
    BASE,
    FLOOR,
    MUTED,
    WALL,
    figure_html,
    image_html,
    pictures_html,
    png,
    subplots,
)
from evor.report.html import paragraph, section
from evor.report.task_arrays import Arrays
from evor.runtime.words import counted

SHOWN_EPISODES = 12
FRAMES = 80
FRAME_MILLISECONDS = 70
DISTRIBUTIONS = (
    "The value predicts for each candidate action a whole distribution of the discounted reward-to-go: of this action followed "
    "by {after}. So one good action shifts it a little; a search takes such a step at every decision, and the "
    "little shifts add up."
)

Played = dict[str, tuple[list[np.ndarray], str]]  # by name: trajectories [T + 1, 2] and their colour


def maze_sections(
    run: Path,
    files: dict[tuple[str, ...], str],
    *,
    updates: int,
    after: str = "the behaviour policy that recorded the data",
) -> list[str]:
    """HTML sections for all tasks of a maze run that its checkpoint of so many updates has played; none for other runs.

    `after` says whose actions a predicted return is of, after the first one.
    """
    stored = drawings(run / "evaluations").read()
    drawn = {task: stored[task] for task in sorted(stored) if "drawing" in stored[task]}
    drawn = {task: maze for task, maze in drawn.items() if maze["drawing"][0] == updates}
    played = {task: _played(run, files, task=task, updates=updates) for task in drawn}
    sections = [
        section("Trajectories", *_trajectories(drawn, played)),
        section("Learned value map", *(_value_map(maze, task, after=after) for task, maze in drawn.items())),
        section(
            "Return distributions of candidate actions",
            paragraph(DISTRIBUTIONS.format(after=after)) if drawn else "",
            *(_distributions(maze, task) for task, maze in drawn.items()),
        ),
    ]
    return list(filter(None, sections))


def _played(run: Path, files: dict[tuple[str, ...], str], *, task: int, updates: int) -> Played:
    """The stored trajectories of a task: those of the base policy, and of the search with the most candidates."""
    base = [file for setting, file in files.items() if setting[0] == BASE_POLICY][:1]
    searches = [(float(setting[1]), file) for setting, file in files.items() if setting[0] != BASE_POLICY]
    chosen = [("base policy", file, BASE) for file in base]
    if searches:
        count, file = max(searches)
        chosen.append((f"search, {int(count)} candidate{'s' * (count > 1)}", file, ACCENT))
    shown = {
        name: (trajectories(run, file, task=task, updates=updates)[:SHOWN_EPISODES], colour)
        for name, file, colour in chosen
    }
    return {name: (paths, colour) for name, (paths, colour) in shown.items() if paths}


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


def _trajectories(drawn: dict[int, Arrays], played: dict[int, Played]) -> list[str]:
    """Draw an animation of the first task that both have played, and the paths of every task."""
    parts = []
    both = next((task for task, paths in played.items() if len(paths) > 1), None)
    if both is not None:
        moving, still = _animation(drawn[both], played[both])
        count = max(len(trails) for trails, _ in played[both].values())
        episodes = f"the first {count} episodes, played together" if count > 1 else "the first episode"
        caption = f"The same policy without and with search on task {both}: {episodes}. The ring is the goal."
        picture = image_html(moving, "gif", caption=caption, still=still)
        parts.append(f"<details open><summary>Animation (close it to stop it)</summary>{picture}</details>")
    return parts + [_paths(drawn[task], task, paths=paths) for task, paths in played.items() if paths]


def arrived(maze: Arrays, paths: list[np.ndarray], *, by: float = math.inf) -> int:
    """Number of episodes that have ended at the goal, as the environment counts it, by a step. Others end where they are cut."""
    ended = [path[-1] for path in paths if len(path) - 1 <= by]
    return sum(bool(np.linalg.norm(place - maze["goal"]) <= maze["goal_tolerance"]) for place in ended)


def _paths(maze: Arrays, task: int, *, paths: Played) -> str:
    pictures = {}
    for name, (trails, colour) in paths.items():
        figure, axis = subplots(figsize=(4.4, 4.5), layout="constrained")
        draw_map(axis, maze)
        for trail in trails:
            axis.plot(*trail.T, color=colour, alpha=0.45, linewidth=1, zorder=2)
            axis.plot(*trail[-1], "o", color=colour, markersize=4.5, markeredgecolor="white", zorder=5)
        length = np.mean([len(trail) - 1 for trail in trails])
        axis.set_title(f"{name}: {length:.0f} steps on average", color=colour)
        alt = f"Map of task {task}: {arrived(maze, trails)} of {counted(len(trails), 'episode')} of the {name} end at the goal."
        pictures[alt] = figure
    number = max(len(trails) for trails, _ in paths.values())
    caption = (
        f"The first {f'{number} episodes' if number > 1 else 'episode'} of the lowest seed. A dot marks where an episode ended, the "
        "square where all start, the ring the goal."
    )
    return f"<h3>Trajectories of task {task}</h3>" + pictures_html(pictures, caption)


def _value_map(maze: Arrays, task: int, *, after: str) -> str:
    figure, axis = subplots(figsize=(6.4, 4.9), layout="constrained")
    draw_map(axis, maze)
    mesh = draw_value(axis, maze)
    norm: Any = mesh.norm
    ticks = norm.inverse(np.linspace(0, 1, 6))  # even steps in colour, which bends
    bar = figure.colorbar(mesh, ax=axis, shrink=0.85, ticks=ticks, format="%.3g")
    bar.outline.set_visible(False)
    bar.set_label("mean discounted reward-to-go")
    low, high = float(maze["value"].min()), float(maze["value"].max())
    best = maze["grid"][int(np.argmax(maze["value"]))]
    distance = np.linalg.norm(best - maze["goal"])
    return f"<h3>Value of task {task}</h3>" + figure_html(
        figure,
        "Colour: the mean return that the value predicts at each place for the best of 8 candidate actions, followed by "
        f"{after}, in reward units. The ring is the goal, the square the start. Colours are stretched near the highest value.",
        alt=f"Map of task {task}: predicted returns from {low:.1f} to {high:.1f}; the highest lies {distance:.1f} from the goal.",
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


def _distributions(maze: Arrays, task: int) -> str:
    """Per chosen state: the candidates as arrows, and the return distributions of the best, the middle and the worst."""
    pictures = {}
    count = maze["actions"].shape[1]
    states = zip(maze["states"], maze["actions"], maze["quantiles"], strict=True)
    for number, (state, candidates, quantiles) in enumerate(states, 1):
        figure, (above, below) = subplots(2, 1, figsize=(4.4, 6.2), height_ratios=[1, 1.2], layout="constrained")
        means = quantiles.mean(axis=1)
        order = np.argsort(means)
        shade = np.empty(len(means))
        shade[order] = np.linspace(0, 0.8, len(means))  # yellow can't be read on white
        _draw_candidates(above, maze, state=state, candidates=candidates[order], shades=shade[order])
        above.set_title(f"state {number}: {count} candidates")
        chosen = {"worst": order[0], "middle": order[len(order) // 2], "best": order[-1]}
        _draw_shares(below, {f"{name}: mean {means[i]:.2f}": (quantiles[i], shade[i]) for name, i in chosen.items()})
        told = ", ".join(f"{name} {means[index]:.2f}" for name, index in chosen.items())
        pictures[f"State {number} of task {task}. Mean returns of the candidates: {told}."] = figure
    return f"<h3>Candidates of task {task}</h3>" + pictures_html(
        pictures,
        f"{len(pictures)} states along an episode of the search, in their order. Above: the state (dot) and where each candidate "
        "action leads (lines), brighter with a higher mean return. Below: for the worst, the middle and the best candidate, "
        "the share of futures that end above a return (log scale).",
    )


def _draw_candidates(
    axis: Axes, maze: Arrays, *, state: np.ndarray, candidates: np.ndarray, shades: np.ndarray
) -> None:
    draw_map(axis, maze)
    tips = state[:2] + 1.6 * candidates[:, :2]
    segments = np.stack([np.repeat(state[None, :2], len(tips), 0), tips], axis=1)
    colours = matplotlib.colormaps["viridis"](shades)
    axis.add_collection(LineCollection(list(segments), colors=colours, linewidths=2.2, zorder=5))
    axis.plot(*state[:2], "o", color="black", markersize=5, zorder=6)
    reach = 1.25 * maze["unit"][0]
    axis.set(xlim=(state[0] - reach, state[0] + reach), ylim=(state[1] - reach, state[1] + reach))


def _draw_shares(axis: Axes, chosen: dict[str, tuple[np.ndarray, float]]) -> None:
    """Draw the share above every return of each return distribution, given as quantiles at midpoints."""
    for style, (name, (quantiles, shade)) in zip((":", "--", "-"), chosen.items(), strict=True):
        share = 1 - (np.arange(len(quantiles)) + 0.5) / len(quantiles)
        colour = matplotlib.colormaps["viridis"](shade)
        axis.step(np.sort(quantiles), share, style, color=colour, linewidth=2, label=name)
        axis.set(yscale="log", ylim=(share[-1], 1.15))
    axis.set(xlabel="discounted reward-to-go", ylabel="share of futures above")
    axis.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.28))


def _animation(maze: Arrays, pair: Played) -> tuple[bytes, bytes]:
    """Both policies side by side, all shown episodes at once, until the searched ones have arrived: a GIF, and its end as PNG."""
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
            title.set_text(f"{label}: step {time}, {arrived(maze, paths, by=time)} of {len(paths)} arrived")
            for trail, path in zip(trails, paths, strict=True):
                trail.set_data(*path[max(0, time - 60) : time + 1].T)
            heads.set_offsets([path[min(time, len(path) - 1)] for path in paths])
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    stream = io.BytesIO()
    imageio.imwrite(stream, np.stack(frames), extension=".gif", duration=FRAME_MILLISECONDS, loop=0)
    return stream.getvalue(), png(figure)
