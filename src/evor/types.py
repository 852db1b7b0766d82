"""The vocabulary. Every other file speaks in these types.

Shapes, in every annotation of the library:
    N rows of a dataset        B transitions of a batch     O observation dim    A action dim
    K tasks                    C candidates                 Z returns per candidate
    H chunk length times A     (the width of what a network sees as one action)
"""

import functools
import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from evor.errors import EvorError
from evor.runtime.words import interval

ACTION_TOLERANCE = 1e-6  # rounding a float64 action to float32 may leave [-1, 1] by this much


class Spec(NamedTuple):
    """Sizes that only the data know."""

    observation_dim: int
    action_dim: int


@dataclass(frozen=True)
class ActionBounds:
    """The least and the largest value of every entry of an action, in the units of the data.

    Networks see (action - centre) / half, which lies in [-1, 1]. With bounds -1 and 1 this changes no bit. An entry whose
    bounds are equal is constant: networks see 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @staticmethod
    def unit(action_dim: int) -> "ActionBounds":
        """The bounds -1 and 1 of every entry."""
        return ActionBounds((-1.0,) * action_dim, (1.0,) * action_dim)

    @staticmethod
    def read(low: Any, high: Any) -> "ActionBounds":
        """The bounds in two arrays [A], to float32, in which actions are learned."""
        return ActionBounds(*(tuple(np.atleast_1d(np.asarray(side, np.float32)).tolist()) for side in (low, high)))

    @functools.cached_property
    def is_unit(self) -> bool:
        return self == ActionBounds.unit(len(self.low))

    @functools.cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest values as arrays [A], float32."""
        return np.array(self.low, np.float32), np.array(self.high, np.float32)

    @functools.cached_property
    def tolerance(self) -> np.ndarray:
        """Distances by which rounding may leave the bounds, [A]."""
        low, high = np.array(self.low), np.array(self.high)
        return np.maximum(ACTION_TOLERANCE * (high - low) / 2, np.finfo(np.float32).eps * np.maximum(-low, high))

    def outside(self, actions: Any) -> tuple[int, ...]:
        """Indices of the first number of `actions` [..., A] beyond its bounds or not a number, () where there is none."""
        tolerance = self.tolerance
        inside = (actions >= np.array(self.low) - tolerance) & (actions <= np.array(self.high) + tolerance)
        return () if inside.all() else tuple(map(int, np.argwhere(~inside)[0]))

    def scale(self, own: Any) -> Any:
        """Actions [..., A] as networks see them, float32."""
        if self.is_unit:
            return own
        centre, half = self._centre_and_half
        return np.clip((own - centre) / np.where(half > 0, half, 1), -1, 1).astype(np.float32)

    def unscale(self, scaled: Any) -> Any:
        """Actions [..., A] of networks in the units of the data, inside the bounds; float32."""
        if self.is_unit:
            return np.clip(scaled, -1, 1)
        centre, half = self._centre_and_half
        return np.clip(centre + half * scaled, *self.sides).astype(np.float32)

    @functools.cached_property
    def _centre_and_half(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.low), np.array(self.high)
        return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)

    def of_entry(self, entry: int) -> str:
        """The bounds of one entry as a text: "[-2, 2]"."""
        return interval(self.low[entry], self.high[entry])

    def __str__(self) -> str:
        texts = [self.of_entry(entry) for entry in range(len(self.low))]
        return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


class Episodes(NamedTuple):
    """Trajectories laid end to end, with one reward column per task.

    A row is one environment step. Nothing crosses a row where `ends` is true. A row where `bootstrap_only` is true
    has no known successor: it serves as the state (and, where `action_known`, the action) that a sum bootstraps from.
    """

    observations: Float[np.ndarray, "N O"]
    actions: Float[np.ndarray, "N A"]  # inside their bounds
    rewards: Float[np.ndarray, "K N"]
    masks: Float[np.ndarray, "K N"]  # 0 where the task is finished (no bootstrap), else 1
    ends: Bool[np.ndarray, " N"]  # last row of an episode
    bootstrap_only: Bool[np.ndarray, " N"]
    action_known: Bool[np.ndarray, " N"]
    tasks: tuple[int, ...]
    notes: tuple[str, ...] = ()  # what was accepted and should be said
    declared_bounds: ActionBounds | None = None  # of actions in other units than [-1, 1]

    @property
    def action_bounds(self) -> ActionBounds:
        return self.declared_bounds or ActionBounds.unit(self.spec.action_dim)

    @property
    def spec(self) -> Spec:
        return Spec(self.observations.shape[1], self.actions.shape[1])


def digest(episodes: Episodes) -> str:
    """Digest of all arrays that training reads."""
    hasher = sha256()
    for array in episodes[:7]:
        hasher.update(np.ascontiguousarray(array).data)
    if episodes.declared_bounds:
        hasher.update(np.array([episodes.declared_bounds.low, episodes.declared_bounds.high]).tobytes())
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
    next_action_taken: bool = False  # targets bootstrap from no other action than the dataset's
