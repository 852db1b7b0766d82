"""Rows of an episode in OGBench's format."""

from collections.abc import Callable
from typing import Any

import numpy as np

Walk = Callable[[Any, np.ndarray], np.ndarray]  # (maze, unit vector towards the sub-goal) -> action without noise


def empty_rows() -> dict[str, list]:
    return {"observations": [], "actions": [], "terminals": [], "qpos": [], "qvel": []}


def append(rows: dict[str, list], observation: np.ndarray, *, action: np.ndarray, done: bool, info: dict) -> None:
    step = [observation, action, done, info["prev_qpos"], info["prev_qvel"]]
    for name, value in zip(("observations", "actions", "terminals", "qpos", "qvel"), step, strict=True):
        rows[name].append(value)
    if "prev_button_states" in info:
        rows.setdefault("button_states", []).append(info["prev_button_states"])
