"""Exact policy search by dynamic programming (PSDP), and Hedge over the rewards that a discriminator may choose.

PSDP goes backwards in time. At each time it takes, for all that the learner sees, the action that is best on average over
the reset states there, given what it has chosen for later. Where no reset state lies, nothing says what is best.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from evor.imitation.tightrope.world import (
    HIDDEN_BIT,
    Actions,
    Rewards,
    States,
    Tightrope,
    constant,
    crossing,
    expected_return,
    expert,
    looking_alike,
    pooled,
    recorded,
    values,
)

ROUNDS = 200  # of Hedge


# Where episodes of the search begin.


@dataclass(frozen=True)
class ExpertStates:
    """States of the expert, as in FILTER."""

    def states(self, world: Tightrope) -> States:
        return recorded(world, expert(world))


@dataclass(frozen=True)
class ExpertAndOfflineStates:
    """Half expert states and half states of the offline data, as in GUITAR."""

    tremble: float  # Chance per step of a random action in the offline data.

    def states(self, world: Tightrope) -> States:
        return (recorded(world, expert(world)) + recorded(world, crossing(world, self.tremble))) / 2


@dataclass(frozen=True)
class EveryState:
    """Every state alike, which makes PSDP the exact best response of MM."""

    def states(self, world: Tightrope) -> States:
        return np.full((world.horizon, 5), 0.2)


Resets = ExpertStates | ExpertAndOfflineStates | EveryState


def search(
    world: Tightrope,
    states: States,
    *,
    rewards: Rewards,
    sees: tuple[int, ...] = HIDDEN_BIT,
    elsewhere: int = 0,
) -> Actions:
    """PSDP with exact values from these reset states. `elsewhere` is the action where there is no reset state.

    Of equal actions it takes action 0.
    """
    p, actions, alike = world.transitions(), constant(world, elsewhere), looking_alike(sees)
    covered, following = states @ alike > 0, np.zeros(5)
    for time in reversed(range(world.horizon)):
        q = rewards[time][:, None] + p[time] @ following
        weighted = alike @ (states[time][:, None] * q)
        best = weighted[:, 1] > weighted[:, 0] + 1e-12
        chosen = np.where(covered[time], best, elsewhere)
        actions[time, :, 1] = chosen
        following = np.where(chosen, q[:, 1], q[:, 0])
    actions[:, :, 0] = 1 - actions[:, :, 1]
    return actions


def completeness_errors(
    world: Tightrope,
    states: States,
    *,
    policy: Actions,
    rewards: Rewards,
    sees: tuple[int, ...] = HIDDEN_BIT,
) -> Float[np.ndarray, " T"]:
    """Shortfall at every time of the learner's best action behind the best of all, followed by `policy`.

    Averages are over the reset states. The largest one over policies of the learner's class and over rewards is the error of
    reward-agnostic policy completeness.
    """
    q, _ = values(world, policy, rewards=rewards)
    unrestricted = (states * q.max(axis=2)).sum(axis=1)
    weighted = pooled(states[:, :, None] * q, sees)
    firsts = [sees.index(seen) for seen in dict.fromkeys(sees)]
    return unrestricted - weighted[:, firsts].max(axis=2).sum(axis=1)


# The game of learner and discriminator.


class Game(NamedTuple):
    """Result of Hedge: the last round's policy, the mean return under the true reward, gaps, and regret."""

    last: Actions
    mean_return: float
    gaps: dict[float, float]  # by u: expert minus learner under r_u, mean over rounds
    regret: float  # of the discriminator, per round

    @property
    def ipm(self) -> float:
        """The largest gap that the reward class finds between the expert and the mean of all rounds."""
        return max(self.gaps.values())


@dataclass
class Hedge:
    """Weights over rewards r_u, which grow exponentially with the gap that each finds."""

    us: tuple[float, ...]
    rate: float
    logits: np.ndarray = field(init=False)

    def __post_init__(self):
        self.logits = np.zeros(len(self.us))

    def weights(self) -> np.ndarray:
        grown = np.exp(self.logits - self.logits.max())
        return grown / grown.sum()

    def learn(self, gaps: np.ndarray) -> None:
        self.logits = self.logits + self.rate * gaps


def rate(horizon: int, rounds: int = ROUNDS) -> float:
    """The step of Hedge over two rewards whose gaps are at most the horizon, for the smallest bound on regret."""
    return math.sqrt(8 * math.log(2) / rounds) / horizon


def play(
    world: Tightrope,
    resets: Resets,
    *,
    u_max: float,
    true_u: float,
    sees: tuple[int, ...] = HIDDEN_BIT,
    elsewhere: int = 0,
    rounds: int = ROUNDS,
) -> Game:
    """Let Hedge over u in {0, u_max} play against exact PSDP: every round the learner answers the mean reward."""
    hedge = Hedge((0.0, u_max), rate(world.horizon, rounds))
    shown, states = expert(world), resets.states(world)
    of_expert = np.array([expected_return(world, shown, u=u) for u in hedge.us])
    answers: dict[bytes, tuple[np.ndarray, float]] = {}  # by policy: few ever occur
    gaps, returns, found = [], [], []
    actions = constant(world, 0)
    for _ in range(rounds):
        weights = hedge.weights()
        mean_u = float(weights @ hedge.us)  # a mixture of rewards is the reward of the mean u
        actions = search(world, states, rewards=world.rewards(mean_u), sees=sees, elsewhere=elsewhere)
        if (policy := actions.tobytes()) not in answers:
            of_learner = np.array([expected_return(world, actions, u=u) for u in hedge.us])
            answers[policy] = of_expert - of_learner, expected_return(world, actions, u=true_u)
        gap, true_return = answers[policy]
        gaps.append(gap)
        returns.append(true_return)
        found.append(weights @ gap)
        hedge.learn(gap)
    mean = np.mean(gaps, axis=0)
    return Game(
        last=actions,
        mean_return=float(np.mean(returns)),
        gaps=dict(zip(hedge.us, mean.tolist(), strict=True)),
        regret=float(mean.max() - np.mean(found)),
    )


def crossing_rounds(horizon: int, *, u_max: float, limit: float, rounds: int = ROUNDS) -> int:
    """Rounds in which the learner crosses the bridge, in closed form: until the mean u reaches the threshold `limit`.

    While it crosses, the odds of u_max grow by the same factor in every round; once it falls, they stay.
    """
    growth = rate(horizon, rounds) * u_max * (horizon - horizon // 2)
    return sum(u_max / (1 + math.exp(-growth * number)) < limit for number in range(rounds))
