"""Environments x act -> one CSV row per episode, and the arrays that the report draws."""

import csv
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evor.data.environments import environments
from evor.data.ogbench import REWARD_RULE, make_environment
from evor.errors import EvorError, at_least
from evor.extract import BestOf, Extraction, Prior, SoftmaxOf
from evor.files import read_arrays, write_csv, write_npz
from evor.layout import on_cpu
from evor.parallel import default_workers
from evor.policy import Policy, keys_of
from evor.progress import progress_bar
from evor.provenance import commit, versions
from evor.run import Run, open_run
from evor.value import Quadrature

SHRINK = 4  # a batch of decisions is cut by this once so few episodes are left
DRAWN_EPISODES = 20  # trajectories kept for the report, of the first seed
CELLS_PER_SIDE = 6  # of the grid on which the report draws a maze cell's value
COLUMNS = (
    "dataset", "task", "seed", "updates", "episode", "extraction", "num_candidates", "return_temperature",
    "action_temperature", "reading", "flow_steps", "max_return", "success", "return", "length", "evaluation_seed", "reward_rule",
    "ogbench", "mujoco", "commit",
)  # fmt: skip


class Episode(NamedTuple):
    """One finished episode."""

    success: float  # 1 where the task was solved, else 0
    total_reward: float  # undiscounted
    length: int
    observations: np.ndarray  # [length + 1, O]


def evaluate(
    folder: Path,
    extraction: Extraction | None = None,
    episodes: int = 50,
    evaluation_seed: int = 0,
    tasks: tuple[int, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
) -> list[dict[str, Any]]:
    """Play every task and seed of a run and write evaluations/*.csv, trajectories/*.npz and, for mazes, maze.npz.

    Without an extraction the agent's own search plays. Repeatable: episode e of a task is reset and acted with seeds
    derived from (evaluation_seed, e) alone. Returns the new rows; rows of other tasks, seeds and evaluation seeds stay
    in the file while the checkpoint is the same.
    Raises EvorError where the run has no environment.
    """
    run = open_run(folder)
    if run.config.dataset is None:
        raise EvorError(f"{folder} was trained on data of your own, so there is no environment to play; use evor.load.")
    at_least(1, episodes=episodes)
    at_least(0, evaluation_seed=evaluation_seed)
    tasks, seeds = tasks or run.config.tasks, seeds or run.config.all_seeds
    policies = {(task, seed): run.select(task, seed) for task in tasks for seed in seeds}
    extraction = extraction or run.default_search
    out, name = folder / "evaluations", file_name(extraction)
    kept, drawn_before = _kept(out / name, run.step, {(task, seed, evaluation_seed) for task, seed in policies})
    rows: list[dict[str, Any]] = []
    drawn: dict[str, np.ndarray] = {}
    with progress_bar(f"evaluate {describe(extraction)}", len(policies) * episodes, unit="episodes") as advance:
        for (task, seed), policy in policies.items():
            played = play(policy, run.config.dataset, task, extraction, episodes, evaluation_seed, advance)
            rows += [_row(run, task, seed, extraction, i, evaluation_seed, e) for i, e in enumerate(played)]
            if seed == seeds[0]:
                drawn |= {f"{task}/{i}": e.observations for i, e in enumerate(played[:DRAWN_EPISODES])}
    out.mkdir(exist_ok=True)
    write_npz(out / f"{name}.npz", drawn_before | drawn)
    _write_csv(out / f"{name}.csv", kept + rows)
    drawable = all(policy.judges and policy.config.chunk_length == 1 for policy in policies.values())
    if is_maze(run.config.dataset) and drawable:
        drawing = np.array([run.step, extraction.num_candidates])
        before = _drawings(out / "maze.npz", run.step)
        improved = tuple(t for t in tasks if f"{t}/drawing" not in before or before[f"{t}/drawing"][1] < drawing[1])
        arrays = draw_maze(policies, improved, seeds[0], drawn, run.config.dataset)
        if improved:
            write_npz(out / "maze.npz", before | arrays | {f"{task}/drawing": drawing for task in improved})
    return rows


def play(
    policy: Policy,
    dataset: str,
    task: int,
    extraction: Extraction,
    episodes: int,
    evaluation_seed: int,
    advance: Callable[[int], None] = lambda count: None,
    max_episode_steps: float = math.inf,
) -> list[Episode]:
    """Step all episodes together; `advance(1)` is called as each ends, or is cut at `max_episode_steps` steps (a failure)."""
    # An accelerator has the cores' time for environments; on a CPU the networks have it.
    worlds = environments(dataset, task, episodes, 1 if on_cpu() else default_workers())
    root = np.random.SeedSequence([evaluation_seed, task])
    seeds = [sequence.generate_state(3) for sequence in root.spawn(episodes)]
    observations = [[observation] for observation in worlds.reset(seeds)]
    keys = keys_of(np.array([state[2] for state in seeds], np.uint32))
    rewards = np.zeros(episodes)
    played: dict[int, Episode] = {}
    live = list(range(episodes))
    size = episodes  # of a decision's batch: it shrinks as episodes end, rarely, for each size is compiled
    decision = 0
    while live:
        while len(live) <= size // SHRINK:
            size = -(-size // SHRINK)
        rows = (live + live[-1:] * size)[:size]
        current = np.stack([observations[index][-1] for index in rows]).astype(np.float32)
        now = _fold(keys, np.array(rows), decision)
        chunks = policy._act_with_keys(current, now, extraction).reshape(size, -1, policy.spec.action_dim)
        decision += 1
        for index, step in worlds.step(dict(zip(live, chunks, strict=False))).items():
            observations[index] += step.observations
            rewards[index] += step.reward
            if step.ended or len(observations[index]) > max_episode_steps:
                live.remove(index)
                trajectory = np.array(observations[index], np.float32)
                played[index] = Episode(step.success, float(rewards[index]), len(trajectory) - 1, trajectory)
                advance(1)
    return [played[index] for index in range(episodes)]


@jax.jit
def _fold(keys: jax.Array, rows: np.ndarray, decision: int) -> jax.Array:
    """The keys of these rows for one decision."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys[rows], decision)


# Rows and names.


def describe(extraction: Extraction) -> str:
    """`SoftmaxOf 32` for bars and tables."""
    return type(extraction).__name__ + ("" if isinstance(extraction, Prior) else f" {extraction.num_candidates}")


def settings(extraction: Extraction) -> dict[str, Any]:
    """The extraction as CSV columns. The base policy has no temperatures; BestOf is action temperature 0; "" is no bound."""
    columns = {
        "extraction": type(extraction).__name__,
        "num_candidates": extraction.num_candidates,
        "return_temperature": "",
        "action_temperature": "",
        "reading": "",
        "flow_steps": extraction.flow_steps,
        "max_return": "",
    }
    if not isinstance(extraction, Prior):
        (count,) = asdict(extraction.reading).values()
        columns["return_temperature"] = float(extraction.return_temperature)
        columns["action_temperature"] = float(getattr(extraction, "action_temperature", 0.0))
        columns["reading"] = f"{type(extraction.reading).__name__}-{count}"
        if math.isfinite(extraction.max_return):
            columns["max_return"] = float(extraction.max_return)
    return columns


def file_name(extraction: Extraction) -> str:
    """One file per setting."""
    parts = [str(value) for value in settings(extraction).values() if value != ""]
    return "_".join(parts).lower()


def _row(
    run: Run, task: int, seed: int, extraction: Extraction, index: int, evaluation_seed: int, episode: Episode
) -> dict[str, Any]:
    installed = versions()
    return {
        "dataset": run.config.dataset,
        "task": task,
        "seed": seed,
        "updates": run.step,
        "episode": index,
        **settings(extraction),
        "success": int(episode.success),
        "return": round(episode.total_reward, 6),
        "length": episode.length,
        "evaluation_seed": evaluation_seed,
        "reward_rule": REWARD_RULE + (", trained on sparse rewards" if run.config.sparse_rewards else ""),
        "ogbench": installed["ogbench"],
        "mujoco": installed["mujoco"],
        "commit": commit() or "",
    }


def _kept(
    stem: Path, updates: int, replaced: set[tuple[int, int, int]]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows and trajectories of an earlier evaluation of the same checkpoint, without the cells that are played anew."""
    if not stem.with_name(f"{stem.name}.csv").exists():
        return [], {}
    with open(stem.with_name(f"{stem.name}.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["updates"]) == updates]
    if not rows:
        return [], {}
    drawn = stem.with_name(f"{stem.name}.npz")
    arrays = read_arrays(drawn) if drawn.exists() else {}
    cell = ("task", "seed", "evaluation_seed")
    return [row for row in rows if tuple(int(row[name]) for name in cell) not in replaced], arrays


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    order = ("task", "seed", "evaluation_seed", "episode")
    write_csv(path, COLUMNS, sorted(rows, key=lambda row: [int(row[name]) for name in order]))


# What the report draws of a maze.


def is_maze(dataset: str) -> bool:
    return dataset.startswith("pointmaze")


def _drawings(path: Path, updates: int) -> dict[str, np.ndarray]:
    """What is drawn already of the tasks of this checkpoint; `TASK/drawing` is (updates, candidates)."""
    stored = read_arrays(path) if path.exists() else {}
    tasks = {name.split("/")[0] for name, array in stored.items() if name.endswith("/drawing") and array[0] == updates}
    return {name: array for name, array in stored.items() if name.split("/")[0] in tasks}


def draw_maze(
    policies: dict[tuple[int, int], Policy],
    tasks: tuple[int, ...],
    seed: int,
    trajectories: dict[str, np.ndarray],
    dataset: str,
    num_candidates: int = 32,
    num_states: int = 3,
) -> dict[str, np.ndarray]:
    """Per task: the map, its value on a grid, and candidates with their return quantiles along the first episode."""
    arrays: dict[str, np.ndarray] = {}
    for task in tasks:
        maze = make_environment(dataset, task).unwrapped
        maze.reset()
        policy = policies[task, seed]
        free = np.argwhere(maze.maze_map == 0)
        offsets = (np.arange(CELLS_PER_SIDE) + 0.5) / CELLS_PER_SIDE - 0.5
        dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
        centres = np.array([maze.ij_to_xy(cell) for cell in free])
        grid = (centres[:, None] + maze._maze_unit * np.stack([dx, dy], -1).reshape(1, -1, 2)).reshape(-1, 2)
        along = trajectories[f"{task}/0"][:, : policy.spec.observation_dim]
        states = along[np.linspace(0, len(along) - 1, num_states + 1).astype(int)[:-1]]
        actions = propose_candidates(policy, states, num_candidates)
        arrays |= {
            f"{task}/map": maze.maze_map,
            f"{task}/unit": np.array([maze._maze_unit, maze._offset_x, maze._offset_y]),
            f"{task}/goal": np.array(maze.cur_goal_xy),
            f"{task}/goal_tolerance": np.array(maze._goal_tol),
            f"{task}/start": np.array(maze.ij_to_xy(maze.cur_task_info["init_ij"])),
            f"{task}/grid": grid,
            f"{task}/value": best_value(policy, grid.astype(np.float32)),
            f"{task}/states": states,
            f"{task}/actions": actions,
            f"{task}/quantiles": np.stack(
                [
                    policy.quantiles(np.repeat(x[None], len(a), 0), a, num_nodes=256)
                    for x, a in zip(states, actions, strict=True)
                ]
            ),
        }
    return arrays


def propose_candidates(policy: Policy, states: np.ndarray, count: int) -> np.ndarray:
    """[S, count, A]: base-policy draws at each state."""
    seeds = np.tile(np.arange(count), len(states))
    return policy.act(np.repeat(states, count, 0), seeds, Prior()).reshape(len(states), count, -1)


def best_value(policy: Policy, states: np.ndarray, num_candidates: int = 8, batch: int = 256) -> np.ndarray:
    """[S]: the mean return of the best of a few candidates at each state, in reward units."""
    values = []
    for start in range(0, len(states), batch):
        part = states[start : start + batch]
        padded = np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
        action = policy.act(padded, 0, BestOf(num_candidates))
        values.append(policy.value(padded, action, math.inf, Quadrature().num_nodes)[: len(part)])
    return np.concatenate(values)


def sweep_grid(
    num_candidates: tuple[int, ...], return_temperatures: tuple[float, ...], action_temperatures: tuple[float, ...]
) -> list[SoftmaxOf]:
    """Every combination of the three dials. Raises EvorError where one has no value."""
    lengths = {
        "num_candidates": len(num_candidates),
        "return_temperature": len(return_temperatures),
        "action_temperature": len(action_temperatures),
    }
    if empty := [name for name, length in lengths.items() if not length]:
        raise EvorError(f"--{empty[0].replace('_', '-')} names no value; give at least one.")
    return [SoftmaxOf(n, r, a) for n in num_candidates for r in return_temperatures for a in action_temperatures]
