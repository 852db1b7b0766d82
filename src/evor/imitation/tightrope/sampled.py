"""PSDP from sampled episodes, and how many steps of the environment it takes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.imitation.tightrope.search import EveryState, Resets
from evor.imitation.tightrope.world import (
    BRIDGE,
    GONE,
    HIDDEN_BIT,
    PLATFORM,
    Actions,
    Rewards,
    Tightrope,
    constant,
    visited,
)

SEEN = len(set(HIDDEN_BIT))


@dataclass(frozen=True)
class NoResets:
    """Reset to the start alone, as in MM: random actions lead to the time that is searched."""


class Sampled(NamedTuple):
    """Policy of a sampled search, and the steps of the environment that it took."""

    actions: Actions
    steps: int

    def crosses(self, world: Tightrope) -> bool:
        """Whether the policy is on the bridge at the last step, always."""
        return bool(visited(world, self.actions)[-1, BRIDGE] > 1 - 1e-9)


def sampled_search(
    world: Tightrope,
    resets: Resets | NoResets,
    *,
    rewards: Rewards,
    episodes: int,
    generator: np.random.Generator,
) -> Sampled:
    """PSDP from so many episodes for every time: reset, one random action, then what was chosen for later.

    A step counts while the episode lasts: after a fall nothing is simulated. What was never tried is not chosen.
    """
    assert not isinstance(resets, EveryState)  # no search can reset there
    p, actions, steps = world.transitions(), constant(world, 0), 0
    start = None if isinstance(resets, NoResets) else resets.states(world)
    seen = np.array(HIDDEN_BIT)
    for time in reversed(range(world.horizon)):
        if start is None:
            states, taken = _roll_in(p, time, episodes=episodes, generator=generator)
            steps += taken
        else:
            states = generator.choice(5, episodes, p=start[time])
        first = generator.integers(0, 2, episodes)
        steps += int((states != GONE).sum())
        now = _next(p[time], states, chosen=first, generator=generator)
        returns = np.zeros(episodes)
        for later in range(time + 1, world.horizon):
            returns += rewards[later][now]
            steps += int((now != GONE).sum())
            now = _next(p[later], now, chosen=actions[later].argmax(axis=1)[now], generator=generator)
        means = _means(seen[states], first, returns=returns)
        actions[time] = np.eye(2)[(means[:, 1] > means[:, 0]).astype(int)[seen]]
    return Sampled(actions, steps)


def _roll_in(
    p: Float[np.ndarray, "T 5 2 5"], time: int, *, episodes: int, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " E"], int]:
    """States after `time` random actions from the start, and the steps that were simulated."""
    states, steps = np.full(episodes, PLATFORM), 0
    for earlier in range(time):
        steps += int((states != GONE).sum())
        states = _next(p[earlier], states, chosen=generator.integers(0, 2, episodes), generator=generator)
    return states, steps


def _next(
    p: Float[np.ndarray, "5 2 5"],
    states: Int[np.ndarray, " E"],
    *,
    chosen: Int[np.ndarray, " E"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " E"]:
    bounds = p[states, chosen].cumsum(axis=1)
    return np.minimum((generator.random(len(states))[:, None] >= bounds).sum(axis=1), GONE)


def _means(
    seen: Int[np.ndarray, " E"], first: Int[np.ndarray, " E"], *, returns: Float[np.ndarray, " E"]
) -> Float[np.ndarray, "V 2"]:
    """Mean return of each action where the learner sees the same, minus infinity where it was never tried."""
    place = seen * 2 + first
    count = np.bincount(place, minlength=2 * SEEN)
    total = np.bincount(place, returns, minlength=2 * SEEN)
    tried: Bool[np.ndarray, " 2V"] = count > 0
    return np.where(tried, total / np.maximum(count, 1), -np.inf).reshape(SEEN, 2)
