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
    """The stored config of an agent: a next action had another name, one setting said what is standardised."""
    if not isinstance(content, dict):
        return content
    chosen = content.get("next_action")
    if isinstance(chosen, dict) and chosen.get("type") == "Searched":
        content = content | {"next_action": chosen | {"type": "BestAction"}}
    if "standardise" not in content:
        return content
    both = {"standardise_observations", "standardise_returns"} & {item.name for item in dataclasses.fields(kind)}
    rest = {name: value for name, value in content.items() if name != "standardise"}
    return rest | dict.fromkeys(sorted(both), content["standardise"])


def arrays(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint: its bases were called policies, and its heads values."""
    return {_renamed(name): array for name, array in named.items()}


def _renamed(name: str) -> str:
    for old, new in ARRAYS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
