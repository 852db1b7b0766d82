"""Scripted data in OGBench's own format, made by the behaviour of OGBench's generation scripts.

Every episode has a seed of its own, so a file depends on the seed alone and not on the number of processes.
"""

import contextlib
import functools
import itertools
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor import randomness
from evor.data.npz import read_npz
from evor.data.ogbench import check_installed, environment_name, make
from evor.errors import EvorError, at_least, nearest
from evor.runtime.files import read_arrays, write_json, write_npz
from evor.runtime.locks import hold
from evor.runtime.parallel import default_workers, spread
from evor.runtime.progress import progress_bar
from evor.runtime.provenance import commit, provenance, versions

Rows = dict[str, np.ndarray]

POINT_NOISE = 0.5  # standard deviation of the walker's action noise (OGBench's commands)
ANT_NOISE = 0.2
ANT_INPUTS, ANT_TORQUES = 29, 8  # of a walker
PLAN_NOISE = 0.1
PLAN_NOISE_SMOOTHING = 0.5
STITCH_CELLS = 4  # a stitch goal lies this many cells away
STACKING = {"single": (0.0, 0.0), "double": (0.0, 0.25)}  # range of an episode's stacking probability; else 0.5
PIECE = 1000  # transitions that an interruption may cost a process
DTYPES = {"terminals": bool, "button_states": np.int64}  # else float32


class Piece(NamedTuple):
    """Some episodes in a file of their own, kept until all are there."""

    path: Path
    episodes: range


class Plan(NamedTuple):
    """What a data set's files are made of: equal plans are equal files."""

    dataset: str
    seed: int
    num_train: int  # episodes of NAME.npz
    num_episodes: int  # with those of NAME-val.npz
    episode_transitions: int
    expert: Path | None


class Recipe(NamedTuple):
    """How one data set is made: transitions per episode, and the function that plays one episode."""

    episode_transitions: int
    play: Any  # (environment, kind, generator, walk) -> Rows


Walk = Callable[[Any, np.ndarray], np.ndarray]  # (maze, unit vector towards the sub-goal) -> action without noise


def generate(
    dataset: str,
    transitions: int,
    seed: int,
    workers: int,
    folder: Path,
    expert: Path | None = None,
    deadline: float = math.inf,
) -> Path:
    """Write NAME.npz (at least `transitions` transitions), NAME-val.npz (a tenth of the episodes, at least one) and
    NAME.json (how they were made).

    They appear under their final names only when complete; interrupted, the same call goes on. An ant needs `expert`,
    the npz of a walker (`load_expert`). Returns the path of NAME.npz. Raises EvorError, and TimeoutError where `deadline`
    (of time.monotonic()) came first.
    """
    recipe = _recipe(dataset)
    check_installed()
    if is_ant(dataset) != (expert is not None):
        raise EvorError(
            f"{dataset} needs a locomotion expert, --expert FILE.npz with the arrays {', '.join(EXPERT)}."
            if expert is None
            else f"{dataset} has no use for an expert; leave --expert away."
        )
    if expert is not None:
        load_expert(expert)
    at_least(1, transitions=transitions, workers=workers)
    at_least(0, seed=seed)
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; choose a folder for --out.")
    num_train = -(-transitions // recipe.episode_transitions)
    plan = Plan(dataset, seed, num_train, num_train + max(1, num_train // 10), recipe.episode_transitions, expert)
    folder.mkdir(parents=True, exist_ok=True)
    path, origin = folder / f"{dataset}.npz", _origin(plan)
    key = sha256(json.dumps([origin, versions(), commit()], sort_keys=True).encode()).hexdigest()[:8]
    partial = folder / f".{dataset}-{key}.partial"  # what is there of the very same file
    with hold(folder / f".{dataset}.lock", "evor data generate"):
        if not path.exists():
            _write(plan, origin, folder, partial, workers, deadline)
        elif not partial.exists():  # else this very call was killed after its last file was there
            raise EvorError(f"{path} exists already; remove it or choose another --out.")
        for left in folder.glob(f".{dataset}*.partial"):  # of other seeds, too: they can't be finished here any more
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path


def _origin(plan: Plan) -> dict[str, Any]:
    """What NAME.json tells of how the files were made."""
    origin = {"dataset": plan.dataset, "transitions": plan.num_train * plan.episode_transitions, "seed": plan.seed}
    if plan.expert is None:
        return origin
    return origin | {"expert": sha256(plan.expert.read_bytes()).hexdigest()}


def _write(plan: Plan, origin: dict[str, Any], folder: Path, partial: Path, workers: int, deadline: float) -> None:
    """Play what is missing in `partial`, and put the three files together."""
    partial.mkdir(exist_ok=True)
    pieces = _pieces(plan, partial)
    left = [piece for piece in pieces if not piece.path.exists()]
    jobs = [(plan.dataset, plan.seed, episode, plan.expert) for piece in left for episode in piece.episodes]
    with (
        progress_bar(
            f"generate {plan.dataset}", plan.num_episodes, plan.num_episodes - len(jobs), "episodes"
        ) as advance,
        contextlib.closing(spread(_play_one, jobs, workers)) as played,
    ):
        for piece in left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{plan.dataset} is not complete; the same call goes on")
            parts = []
            for part in itertools.islice(played, len(piece.episodes)):
                parts.append(part)
                advance(1)
            write_npz(piece.path, _concatenate(parts))
    train, validation = (
        _concatenate([read_arrays(p.path) for p in pieces if (p.episodes.start < plan.num_train) == training])
        for training in (True, False)
    )
    write_npz(folder / f"{plan.dataset}-val.npz", validation)
    write_json(folder / f"{plan.dataset}.json", {"made by": "evor data generate", **origin, **provenance()})
    write_npz(folder / f"{plan.dataset}.npz", train)


def _pieces(plan: Plan, partial: Path) -> list[Piece]:
    """Episodes in files that an interruption keeps; none holds training and validation episodes."""
    step = max(1, PIECE // plan.episode_transitions)
    return [
        Piece(partial / f"{start:06d}.npz", range(start, min(start + step, end)))
        for first, end in ((0, plan.num_train), (plan.num_train, plan.num_episodes))
        for start in range(first, end, step)
    ]


def generate_once(
    dataset: str, transitions: int, seed: int, folder: Path, expert: Path | None = None, deadline: float = math.inf
) -> None:
    """Generate with every core, unless `folder` holds the data set already."""
    if not (folder / f"{dataset}.npz").exists():
        generate(dataset, transitions, seed, default_workers(), folder, expert, deadline)


def generatable() -> list[str]:
    """Names of the data sets this file can make."""
    mazes = [f"pointmaze-{size}-{kind}-v0" for size in ("medium", "large") for kind in ("navigate", "stitch")]
    mazes += [f"antmaze-{size}-{kind}-v0" for size in ("medium", "large") for kind in ("navigate", "stitch")]
    return [*mazes, "cube-single-play-v0", "cube-double-play-v0", "scene-play-v0", "puzzle-3x3-play-v0"]


def _recipe(dataset: str) -> Recipe:
    if dataset not in generatable():
        raise EvorError(f"{dataset!r} can't be generated; {nearest(dataset, generatable())}")
    if "maze" in dataset:
        return Recipe(200 if "stitch" in dataset else 1000, play_maze)
    return Recipe(1000, play_manipulation)


def _concatenate(episodes: list[Rows]) -> Rows:
    return {name: np.concatenate([rows[name] for rows in episodes]) for name in episodes[0]}


def is_ant(dataset: str) -> bool:
    """Whether a data set's walker is the ant."""
    return dataset.startswith("antmaze")


def _play_one(dataset: str, seed: int, episode: int, expert: Path | None) -> Rows:
    recipe = _recipe(dataset)
    environment = _environment(dataset, recipe.episode_transitions + 1)  # the last row has no successor
    state = np.random.SeedSequence([seed, episode]).generate_state(3)
    walk = _glide if expert is None else functools.partial(_walk_ant, load_expert(expert))
    with randomness.own_generator():
        np.random.seed(state[0])  # OGBench's environments and oracles draw from numpy's global generator
        environment.action_space.seed(int(state[1]))
        rows = recipe.play(environment, dataset.split("-")[-2], np.random.default_rng(state[2]), walk)
    return {name: np.asarray(values).astype(DTYPES.get(name, np.float32)) for name, values in rows.items()}


@functools.cache
def _environment(dataset: str, max_episode_steps: int) -> Any:
    """One environment per process and data set."""
    options = {} if "maze" in dataset else {"mode": "data_collection"}
    return make(environment_name(dataset), terminate_at_goal=False, max_episode_steps=max_episode_steps, **options)


# Mazes: a noisy walker heads for the next cell on the shortest path to its goal.


def play_maze(environment: Any, kind: str, generator: np.random.Generator, walk: Walk) -> dict[str, list]:
    """navigate: draw a new goal whenever one is reached. stitch: walk to a cell four steps away and stay."""
    maze = environment.unwrapped
    cells = [(int(i), int(j)) for i, j in np.argwhere(maze.maze_map == 0)]
    corners = [cell for cell in cells if not _is_hallway(maze.maze_map, cell)]
    start = _choice(generator, cells)
    goal = _choice(
        generator, corners if kind == "navigate" else _cells_at(maze.maze_map, start, STITCH_CELLS) or [start]
    )
    observation, _ = environment.reset(
        seed=int(generator.integers(2**31)), options={"task_info": {"init_ij": start, "goal_ij": goal}}
    )
    subgoals: dict[tuple, np.ndarray] = {}  # the shortest path depends on the two cells only
    rows = _empty_rows()
    done = False
    while not done:
        here, there = maze.get_xy(), maze.cur_goal_xy
        pair = (maze.xy_to_ij(here), maze.xy_to_ij(there))
        if pair not in subgoals:
            subgoals[pair] = maze.get_oracle_subgoal(here, there)[0]
        direction = subgoals[pair] - here
        direction = direction / (np.linalg.norm(direction) + 1e-6)
        action = walk(maze, direction)
        noise = POINT_NOISE if walk is _glide else ANT_NOISE
        action = np.clip(action + generator.normal(0, noise, action.shape), -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        done = terminated or truncated
        if info["success"] and kind == "navigate":
            maze.set_goal(_choice(generator, corners))
        _append(rows, observation, action, done, info)
        observation = next_observation
    return rows


def _glide(maze: Any, direction: np.ndarray) -> np.ndarray:
    """The point's action is its direction."""
    return direction


EXPERT = ("w0", "b0", "w1", "b1", "w2", "b2")


@functools.cache
def load_expert(path: Path) -> dict[str, np.ndarray]:
    """The layers of a deterministic walker: 27 numbers of the ant (without x, y) and a unit vector -> 8 torques.

    tanh(gelu(gelu(o w0 + b0) w1 + b1) w2 + b2), gelu in its tanh form. Raises EvorError where the shapes don't chain.
    """
    if not path.is_file():
        raise EvorError(f"--expert {path} does not exist; give the npz of a walker for the ant.")
    layers = read_npz(path, EXPERT)
    shapes = [layers[name].shape for name in EXPERT]
    widths = [ANT_INPUTS, *(shape[0] if shape else 0 for shape in shapes[1:4:2]), ANT_TORQUES]
    wanted = [shape for a, b in itertools.pairwise(widths) for shape in ((a, b), (b,))]
    if shapes != wanted:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in zip(EXPERT, shapes, strict=True))
        raise EvorError(
            f"{path} is no walker for the ant: {found}; w0 must be [{ANT_INPUTS}, h], w1 [h, k], w2 [k, {ANT_TORQUES}]."
        )
    return {name: layer.astype(np.float64) for name, layer in layers.items()}


def _walk_ant(expert: dict[str, np.ndarray], maze: Any, direction: np.ndarray) -> np.ndarray:
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


def _cells_at(maze_map: np.ndarray, start: tuple[int, int], distance: int) -> list[tuple[int, int]]:
    """Free cells at exactly this walking distance, in breadth-first order."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        i, j = queue.popleft()
        for cell in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)):
            if maze_map[cell] == 0 and cell not in steps:
                steps[cell] = steps[(i, j)] + 1
                queue.append(cell)
    return [cell for cell, count in steps.items() if count == distance]


# Manipulation: an open-loop plan with smoothed noise per sub-task, a new sub-task whenever one is done.


def play_manipulation(environment: Any, kind: str, generator: np.random.Generator, walk: Walk) -> dict[str, list]:
    """play: one episode of plans; scene episodes whose cube leaves the visible space are thrown away and replayed."""
    del kind, walk  # only play data is made, and an arm does not walk
    agents = _oracles(environment)
    name = environment.spec.id
    while True:
        rows = _play_plans(environment, agents, name, generator)
        if "scene" not in name or _is_healthy(np.array(rows["qpos"])):
            return rows


def _play_plans(environment: Any, agents: dict, name: str, generator: np.random.Generator) -> dict[str, list]:
    observation, info = environment.reset(seed=int(generator.integers(2**31)))
    stacking = next((generator.uniform(*STACKING[size]) for size in STACKING if size in name), 0.5)
    agent = agents[info["privileged/target_task"]]
    agent.reset(observation, info)
    rows = _empty_rows()
    done = False
    while not done:
        action = np.clip(np.array(agent.select_action(observation, info)), -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        done = terminated or truncated
        if agent.done:
            agent_observation, agent_info = environment.unwrapped.set_new_target(p_stack=stacking)
            agent = agents[agent_info["privileged/target_task"]]
            agent.reset(agent_observation, agent_info)
        _append(rows, observation, action, done, info)
        observation = next_observation
    return rows


def _oracles(environment: Any) -> dict[str, Any]:
    from ogbench.manipspace.oracles.plan import (
        button_plan,
        cube_plan,
        drawer_plan,
        window_plan,
    )

    noise = {"env": environment, "noise": PLAN_NOISE, "noise_smoothing": PLAN_NOISE_SMOOTHING}
    name = environment.spec.id
    if "cube" in name:
        return {"cube": cube_plan.CubePlanOracle(**noise)}
    if "puzzle" in name:
        return {"button": button_plan.ButtonPlanOracle(gripper_always_closed=True, **noise)}
    return {
        "cube": cube_plan.CubePlanOracle(**noise),
        "button": button_plan.ButtonPlanOracle(**noise),
        "drawer": drawer_plan.DrawerPlanOracle(**noise),
        "window": window_plan.WindowPlanOracle(**noise),
    }


def _is_healthy(qpos: np.ndarray) -> bool:
    """OGBench's check for scene: the cube stays in view unless it is in the drawer."""
    y, z = qpos[:, 15], qpos[:, 16]
    too_far_left = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return not ((y >= 0.29).any() or too_far_left.any())


def _empty_rows() -> dict[str, list]:
    return {"observations": [], "actions": [], "terminals": [], "qpos": [], "qvel": []}


def _append(rows: dict[str, list], observation: np.ndarray, action: np.ndarray, done: bool, info: dict) -> None:
    step = [observation, action, done, info["prev_qpos"], info["prev_qvel"]]
    for name, value in zip(("observations", "actions", "terminals", "qpos", "qvel"), step, strict=True):
        rows[name].append(value)
    if "prev_button_states" in info:
        rows.setdefault("button_states", []).append(info["prev_button_states"])


def _choice(generator: np.random.Generator, options: list) -> Any:
    return options[generator.integers(len(options))]
