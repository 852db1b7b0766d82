"""Statistics of a choice among proposals: what it gains, beside controls that do not look at the value. Imports no JAX.

By its own scores the chosen proposal always looks better than the mean: errors of the value are chosen, too (the winner's
curse). A gain counts where an opinion that had no part in the choice confirms it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evor.report.statistics import Estimate, in_deviations, mean_by_episode

CHOSEN, BEST, BASE, RANDOM, MEDOID = "search", "best of N", "base policy", "random of N", "medoid of N"
BLOCK = 64  # decisions whose distances are computed at once


class Choices(NamedTuple):
    """Scores [D, C] of the same proposals: those of the search, those that choose, and those of the second opinion."""

    scores: Float[np.ndarray, "D C"]
    by: Float[np.ndarray, "D C"]
    second: Float[np.ndarray, "D C"] | None


def medoid(candidates: Float[np.ndarray, "D C *A"], std: Float[np.ndarray, " A"]) -> Int[np.ndarray, " D"]:
    """Index of the candidate with the least sum of distances to the others, in standard deviations of each entry."""
    scaled = in_deviations(candidates, std).reshape(*candidates.shape[:2], -1)
    index = np.empty(len(scaled), int)
    for start in range(0, len(scaled), BLOCK):
        part = scaled[start : start + BLOCK]
        distances = np.sqrt(((part[:, :, None] - part[:, None]) ** 2).sum(axis=-1))
        index[start : start + BLOCK] = distances.sum(axis=2).argmin(axis=1)
    return index


def spread(candidates: Float[np.ndarray, "D C *A"], std: Float[np.ndarray, " A"]) -> dict[str, Any]:
    """Spread of the proposals of a state: of each entry in standard deviations of the recorded actions, and their mean."""
    own = candidates.reshape(*candidates.shape[:2], -1, candidates.shape[-1])
    inside = np.sqrt(own.astype(np.float64).var(axis=1).mean(axis=(0, 1)))  # [A]
    columns = in_deviations(inside, std)
    alone = (own == own[:, :1]).all(axis=(1, 2, 3)).mean()
    return {"mean": float(columns.mean()), "columns": columns.tolist(), "alone": float(alone)}


def controls(
    choices: Choices,
    candidates: Float[np.ndarray, "D C *A"],
    *,
    index: Int[np.ndarray, " D"],
    std: Float[np.ndarray, " A"],
    episode: Int[np.ndarray, " D"],
) -> dict[str, dict[str, Estimate | None]]:
    """Value of the proposal that each way to choose takes, less the mean of all: by the search's scores, and by the second opinion.

    The base policy takes its first proposal.
    """
    count, number = choices.scores.shape
    ways = {
        CHOSEN: index,
        BEST: choices.by.argmax(axis=1),
        BASE: np.zeros(count, int),
        RANDOM: np.random.default_rng(0).integers(0, number, count),
        MEDOID: medoid(candidates, std),
    }
    return {
        name: {
            "own": _gain(choices.scores, taken, episode=episode),
            "second": None if choices.second is None else _gain(choices.second, taken, episode=episode),
        }
        for name, taken in ways.items()
    }


def gain_by_number(choices: Choices, episode: Int[np.ndarray, " D"]) -> list[dict[str, Any]]:
    """Gain of the best of the first n candidates, for n = 1, 2, 4, ...: by the scores that choose, and by the second opinion."""
    number = choices.by.shape[1]
    lines = []
    for count in sorted({*(2**power for power in range(number.bit_length())), number}):
        taken = choices.by[:, :count].argmax(axis=1)
        own = _gain(choices.by, taken, episode=episode)
        second = None if choices.second is None else _gain(choices.second, taken, episode=episode)
        lines.append({"candidates": count, "own": own, "second": second})
    return lines


def _gain(scores: np.ndarray, taken: np.ndarray, *, episode: np.ndarray) -> Estimate:
    gains = scores[np.arange(len(scores)), taken] - scores.mean(axis=1)
    return mean_by_episode(episode, gains)
