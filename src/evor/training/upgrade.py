"""Upgrades of files that earlier versions wrote: configs of runs and agents, and arrays of checkpoints."""

import dataclasses
from typing import Any

import numpy as np

from evor.runtime import renamed

ARRAYS = {  # beginnings of names
    "state/policy_sums/": "state/base_sums/policy/",
    "state/value_sums/": "state/head_sums/value/",
    "state/policy/": "state/base/",
    "state/value/": "state/head/",
}


def run(content: Any) -> Any:
    """The stored config of a run: its updates were called steps, and the number of its seeds was called seeds."""
    return renamed.run_config(content)


def agent(content: Any, kind: Any) -> Any:
    """The stored config of an agent.

    A next action had another name and stored nothing, one setting said what is standardised, and there were no bounds.
    """
    if not isinstance(content, dict):
        return content
    chosen = content.get("next_action")
    if isinstance(chosen, dict) and chosen.get("type") in ("Searched", "BestAction"):
        renamed: dict[str, Any] = {"num_stored": 0} | chosen | {"type": "BestAction"}
        steps, reading = renamed.pop("flow_steps", None), renamed.get("reading")
        if isinstance(reading, dict):
            renamed["reading"] = {"flow_steps": None} | reading | ({} if steps is None else {"flow_steps": steps})
        content = content | {"next_action": renamed}
    names = {item.name for item in dataclasses.fields(kind)}
    if "return_bounds" in names:
        content = {"return_bounds": {"type": "NoBounds"}} | content
    if "standardise" not in content:
        return content
    both = {"standardise_observations", "standardise_returns"} & names
    rest = {name: value for name, value in content.items() if name != "standardise"}
    return rest | dict.fromkeys(sorted(both), content["standardise"])


def arrays(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint: its bases were called policies, its heads values, and returns had no bounds."""
    named = {_renamed(name): array for name, array in named.items()}
    for name, bound in (("return_min", -np.inf), ("return_max", np.inf)):
        if "standardisation/return_mean" in named:
            named.setdefault(f"standardisation/{name}", np.full_like(named["standardisation/return_mean"], bound))
    return named


def with_bounds(named: dict[str, np.ndarray], action_dim: int) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, in which actions had no bounds: they lay in [-1, 1]."""
    bounds = {"standardisation/action_low": -1, "standardisation/action_high": 1}
    return {name: np.full(action_dim, bound, np.float32) for name, bound in bounds.items()} | named


def _renamed(name: str) -> str:
    for old, new in ARRAYS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
