"""The vocabulary. Every other file speaks in these types.

Shapes, in every annotation of the library:
    N rows of a dataset        B transitions of a batch     O observation dim    A action dim
    K tasks                    C candidates                 Z returns per candidate
    H chunk length times A     (the width of what a network sees as one action)
"""

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from evor.errors import EvorError

ACTION_TOLERANCE = 1e-6  # rounding a float64 action to float32 may leave [-1, 1] by this much


class Spec(NamedTuple):
    """Sizes that only the data know."""

    observation_dim: int
    action_dim: int


class Episodes(NamedTuple):
    """Trajectories laid end to end, with one reward column per task.

    A row is one environment step. Nothing crosses a row where `ends` is true. A row where `bootstrap_only` is true
    has no known successor: it serves as the state (and, where `action_known`, the action) that a sum bootstraps from.
    """

    observations: Float[np.ndarray, "N O"]
    actions: Float[np.ndarray, "N A"]  # in [-1, 1]
    rewards: Float[np.ndarray, "K N"]
    masks: Float[np.ndarray, "K N"]  # 0 where the task is finished (no bootstrap), else 1
    ends: Bool[np.ndarray, " N"]  # last row of an episode
    bootstrap_only: Bool[np.ndarray, " N"]
    action_known: Bool[np.ndarray, " N"]
    tasks: tuple[int, ...]
    notes: tuple[str, ...] = ()  # what was accepted and should be said

    @property
    def spec(self) -> Spec:
        return Spec(self.observations.shape[1], self.actions.shape[1])


def digest(episodes: Episodes) -> str:
    """Digest of all arrays that training reads."""
    hasher = sha256()
    for array in episodes[:7]:
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()[:16]


class Transition(NamedTuple):
    """One training example, already standardised (a batch has a leading axis B on every field)."""

    observation: Float[Array, " O"]
    action: Float[Array, " H"]
    action_mask: Float[Array, " H"]  # 0 on entries of a chunk that lie past the episode's end
    next_observation: Float[Array, " O"]  # where the n-step sum bootstraps
    next_action: Float[Array, " H"]  # the dataset's own action there
    next_proposals: Float[Array, "P H"]  # stored draws of the base policy there; P is 0 where none are stored


class Outcome(NamedTuple):
    """Rewards of one transition under one task (leading axes K, B for all tasks of a batch)."""

    reward: Float[Array, ""]  # standardised n-step sum
    discount: Float[Array, ""]  # discount^n * mask: 0 when the task finished within the sum
    weight: Float[Array, ""]  # 1 where the value may learn from this row, else 0
    reward_to_go: Float[Array, ""]  # standardised sum of all rewards; NaN unless the objective asked for it
    return_min: Float[Array, ""]  # standardised bounds of this task's returns, infinite where there are none
    return_max: Float[Array, ""]


@dataclass(frozen=True)
class RewardBounds:
    """The least and the largest return that the rewards in the data allow."""


@dataclass(frozen=True)
class GivenBounds:
    """Bounds of the return, given in the reward's units."""

    lowest: float = -math.inf  # The least possible return, in reward units.
    highest: float = math.inf  # The largest possible return, in reward units.

    def __post_init__(self):
        if not self.lowest < self.highest:
            raise EvorError(
                f"return bounds are {self.lowest:g} and {self.highest:g}; the first must be the smaller one."
            )


@dataclass(frozen=True)
class NoBounds:
    """No bounds: a learned return may be any number."""


ReturnBounds = RewardBounds | GivenBounds | NoBounds


class DataSpec(NamedTuple):
    """Data layout that an agent asks for."""

    discount: float
    num_steps: int  # rewards in a sum, before it bootstraps
    chunk_length: int  # actions per decision
    next_action_known: bool  # a sum bootstraps from a row whose action is the dataset's
    full_returns: bool  # rows need their complete reward-to-go
    standardise_observations: bool
    standardise_returns: bool
    return_bounds: ReturnBounds  # of what is bootstrapped and of what is read
    num_draws: int = 0  # actions that are stored for a row, of all seeds together
