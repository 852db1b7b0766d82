"""Arrays that the report draws of a maze: the value everywhere, and the return distributions of candidate actions."""

import math

import numpy as np

from evor.envs.ogbench import make_environment
from evor.envs.randomness import own_generator
from evor.policies.policy import Policy
from evor.policies.predicted import steps_of_value
from evor.search.extraction import BestOf, Prior, action_steps

CELLS_PER_SIDE = 6  # of the grid on which the report draws a maze cell's value


def is_maze(dataset: str) -> bool:
    return dataset.startswith("pointmaze")


def draw_maze(
    policy: Policy,
    dataset: str,
    *,
    task: int,
    trajectory: np.ndarray,
    num_candidates: int = 32,
    num_states: int = 3,
) -> dict[str, np.ndarray]:
    """The map, the value on a grid, and candidates with their return quantiles along a trajectory [T + 1, O] of the task."""
    with own_generator():
        maze = make_environment(dataset, task).unwrapped
        maze.reset(seed=0)
    free = np.argwhere(maze.maze_map == 0)
    offsets = (np.arange(CELLS_PER_SIDE) + 0.5) / CELLS_PER_SIDE - 0.5
    dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
    centres = np.array([maze.ij_to_xy(cell) for cell in free])
    grid = (centres[:, None] + maze._maze_unit * np.stack([dx, dy], -1).reshape(1, -1, 2)).reshape(-1, 2)
    along = trajectory[:, : policy.spec.observation_dim]
    states = along[np.linspace(0, len(along) - 1, num_states + 1).astype(int)[:-1]]
    actions = propose_candidates(policy, states, count=num_candidates)
    quantiles = [
        policy.quantiles(
            np.repeat(state[None], len(candidates), 0), candidates, num_nodes=256, **steps_of_value(policy)
        )
        for state, candidates in zip(states, actions, strict=True)
    ]
    return {
        "map": maze.maze_map,
        "unit": np.array([maze._maze_unit, maze._offset_x, maze._offset_y]),
        "goal": np.array(maze.cur_goal_xy),
        "goal_tolerance": np.array(maze._goal_tol),
        "start": np.array(maze.ij_to_xy(maze.cur_task_info["init_ij"])),
        "grid": grid,
        "value": best_value(policy, grid.astype(np.float32)),
        "states": states,
        "actions": actions,
        "quantiles": np.stack(quantiles),
    }


def propose_candidates(policy: Policy, states: np.ndarray, *, count: int) -> np.ndarray:
    """[S, count, A]: base-policy draws at each state."""
    seeds = np.tile(np.arange(count), len(states))
    return policy.act(np.repeat(states, count, 0), seeds, extraction=Prior(_flow_steps(policy))).reshape(
        len(states), count, -1
    )


def best_value(policy: Policy, states: np.ndarray, *, num_candidates: int = 8, batch: int = 256) -> np.ndarray:
    """[S]: the mean return of the best of a few candidates at each state, in reward units."""
    values = []
    for start in range(0, len(states), batch):
        part = states[start : start + batch]
        padded = np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
        action = policy.act(padded, 0, extraction=BestOf(num_candidates, flow_steps=_flow_steps(policy)))
        told = policy.value(padded, action, return_temperature=math.inf, num_nodes=10, **steps_of_value(policy))
        values.append(told[: len(part)])
    return np.concatenate(values)


def _flow_steps(policy: Policy) -> int:
    """Flow steps of an action in the policy's own search."""
    return action_steps(policy.default_search)
