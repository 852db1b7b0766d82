"""Mazes: a noisy navigation policy heads for the next cell on the shortest path to its goal."""

import functools
import itertools
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.archive import read_npz
from evor.data.scripted.recorder import Walk, append, empty_rows
from evor.errors import EvorError

POINT_NOISE = 0.5  # standard deviation of the action noise (OGBench's commands)
ANT_NOISE = 0.2
ANT_INPUTS, ANT_TORQUES = 29, 8  # of a locomotion policy
STITCH_CELLS = 4  # a stitch goal lies this many cells away


def play_maze(environment: Any, kind: str, generator: np.random.Generator, walk: Walk) -> dict[str, list]:
    """Play one episode. "navigate" draws a new goal whenever one is reached; "stitch" goes to a cell four steps away and stays."""
    maze = environment.unwrapped
    cells = [(int(i), int(j)) for i, j in np.argwhere(maze.maze_map == 0)]
    corners = [cell for cell in cells if not _is_hallway(maze.maze_map, cell)]
    start = _choice(generator, cells)
    goal = _choice(
        generator, corners if kind == "navigate" else _cells_at(maze.maze_map, start, distance=STITCH_CELLS) or [start]
    )
    observation, _ = environment.reset(
        seed=int(generator.integers(2**31)), options={"task_info": {"init_ij": start, "goal_ij": goal}}
    )
    subgoals: dict[tuple, np.ndarray] = {}  # the shortest path depends on the two cells only
    rows = empty_rows()
    done = False
    while not done:
        here, there = maze.get_xy(), maze.cur_goal_xy
        pair = (maze.xy_to_ij(here), maze.xy_to_ij(there))
        if pair not in subgoals:
            subgoals[pair] = maze.get_oracle_subgoal(here, there)[0]
        direction = subgoals[pair] - here
        direction = direction / (np.linalg.norm(direction) + 1e-6)
        action = walk(maze, direction)
        noise = POINT_NOISE if walk is glide else ANT_NOISE
        action = np.clip(action + generator.normal(0, noise, action.shape), -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        done = terminated or truncated
        if info["success"] and kind == "navigate":
            maze.set_goal(_choice(generator, corners))
        append(rows, observation, action=action, done=done, info=info)
        observation = next_observation
    return rows


def glide(maze: Any, direction: np.ndarray) -> np.ndarray:
    """The point's action is its direction."""
    return direction


EXPERT = ("w0", "b0", "w1", "b1", "w2", "b2")


@functools.cache
def load_expert(path: Path) -> dict[str, np.ndarray]:
    """Layers of a deterministic locomotion policy: 27 numbers of the ant (without x, y) and a unit vector -> 8 torques.

    tanh(gelu(gelu(o w0 + b0) w1 + b1) w2 + b2), gelu in its tanh form. Raises EvorError where the shapes don't chain.
    """
    if not path.is_file():
        raise EvorError(f"--expert {path} does not exist; give the npz of a locomotion policy for the ant.")
    layers = read_npz(path, EXPERT)
    shapes = [layers[name].shape for name in EXPERT]
    widths = [ANT_INPUTS, *(shape[0] if shape else 0 for shape in shapes[1:4:2]), ANT_TORQUES]
    wanted = [shape for a, b in itertools.pairwise(widths) for shape in ((a, b), (b,))]
    if shapes != wanted:
        given = ", ".join(f"{name} {list(shape)}" for name, shape in zip(EXPERT, shapes, strict=True))
        raise EvorError(
            f"{path} is no locomotion policy for the ant: {given}; w0 must be [{ANT_INPUTS}, h], w1 [h, k], w2 [k, {ANT_TORQUES}]."
        )
    return {name: layer.astype(np.float64) for name, layer in layers.items()}


def walk_ant(expert: dict[str, np.ndarray], maze: Any, direction: np.ndarray) -> np.ndarray:
    x = np.concatenate([maze.get_ob(ob_type="states")[2:], direction])
    for layer in (0, 1):
        h = x @ expert[f"w{layer}"] + expert[f"b{layer}"]
        x = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return np.tanh(x @ expert["w2"] + expert["b2"])


def _is_hallway(maze_map: np.ndarray, cell: tuple[int, int]) -> bool:
    i, j = cell
    vertical = (maze_map[i - 1, j], maze_map[i + 1, j])
    horizontal = (maze_map[i, j - 1], maze_map[i, j + 1])
    return (vertical == (0, 0) and horizontal == (1, 1)) or (horizontal == (0, 0) and vertical == (1, 1))


def _cells_at(maze_map: np.ndarray, start: tuple[int, int], *, distance: int) -> list[tuple[int, int]]:
    """Free cells at exactly this walking distance, in breadth-first order."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        i, j = queue.popleft()
        for cell in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)):
            if maze_map[cell] == 0 and cell not in steps:
                steps[cell] = steps[(i, j)] + 1
                queue.append(cell)
    return [cell for cell, count in steps.items() if count == distance]


def _choice(generator: np.random.Generator, options: list) -> Any:
    return options[generator.integers(len(options))]
