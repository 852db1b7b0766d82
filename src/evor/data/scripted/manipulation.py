"""Manipulation: an open-loop plan with smoothed noise per sub-task, a new sub-task whenever one is done."""

from typing import Any

import numpy as np

from evor.data.scripted.recorder import Walk, append, empty_rows

PLAN_NOISE = 0.1
PLAN_NOISE_SMOOTHING = 0.5
STACKING = {"single": (0.0, 0.0), "double": (0.0, 0.25)}  # range of an episode's stacking probability; else 0.5


def play_manipulation(environment: Any, kind: str, generator: np.random.Generator, walk: Walk) -> dict[str, list]:
    """Play one episode of plans. Scene episodes whose cube leaves the visible space are thrown away and replayed."""
    del kind, walk  # only play data is made, and an arm does not walk
    agents = _oracles(environment)
    name = environment.spec.id
    while True:
        rows = _play_plans(environment, agents, name=name, generator=generator)
        if "scene" not in name or _is_healthy(np.array(rows["qpos"])):
            return rows


def _play_plans(environment: Any, agents: dict, *, name: str, generator: np.random.Generator) -> dict[str, list]:
    observation, info = environment.reset(seed=int(generator.integers(2**31)))
    stacking = next((generator.uniform(*STACKING[size]) for size in STACKING if size in name), 0.5)
    agent = agents[info["privileged/target_task"]]
    agent.reset(observation, info)
    rows = empty_rows()
    done = False
    while not done:
        action = np.clip(np.array(agent.select_action(observation, info)), -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        done = terminated or truncated
        if agent.done:
            agent_observation, agent_info = environment.unwrapped.set_new_target(p_stack=stacking)
            agent = agents[agent_info["privileged/target_task"]]
            agent.reset(agent_observation, agent_info)
        append(rows, observation, action=action, done=done, info=info)
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
