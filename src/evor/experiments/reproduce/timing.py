"""Durations of a training, by the clocks in its run folder."""

import itertools
import math
from pathlib import Path

import numpy as np

from evor.runtime.files import read_json, read_json_lines
from evor.training.config import RunConfig
from evor.training.drawn import TOLD
from evor.training.train import BASE, PROPOSALS


def seconds_per_update(run: Path, quantile: float = 0.5) -> float:
    """Median (or another quantile) over the intervals of a run's log: compilation and resumes stand aside."""
    lines = read_json_lines(run / "timings.jsonl")
    rates = [
        (later["seconds"] - earlier["seconds"]) / (later["step"] - earlier["step"])
        for earlier, later in itertools.pairwise(lines)
        if later["seconds"] > earlier["seconds"] and later["step"] > earlier["step"]
    ]
    return float(np.quantile(rates, quantile)) if rates else math.nan


def whole_seconds_per_update(run: Path, config: RunConfig) -> float:
    """The same, with the share that an update has of the base policy that is trained first, and of its draws."""
    base = run / BASE
    if not base.is_dir():
        return seconds_per_update(run)
    drawn = sum(read_json(path, seconds=float)["seconds"] for path in (base / PROPOSALS).glob(f"*/{TOLD}"))
    trained = seconds_per_update(base) * (config.base_updates or config.updates)
    return seconds_per_update(run) + (trained + drawn) / config.updates


def resumes(run: Path) -> int:
    """Number of times that a run was resumed, by its clock."""
    lines = read_json_lines(run / "timings.jsonl")
    return sum(later["seconds"] < earlier["seconds"] for earlier, later in itertools.pairwise(lines))
