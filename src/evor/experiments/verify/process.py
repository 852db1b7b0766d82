"""Finite Markov processes: episodes drawn from them, and their exact return distributions by enumeration.

What a learner sees of a process is its observations. Where two states share one (a hidden intent), the return
distribution depends on how far a backup looks, and both answers are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from evor.distributions.exact import Atoms, ReturnDistribution, mixture
from evor.errors import EvorError

NEGLIGIBLE_MASS = 1e-9  # of futures that go on: enumeration stops there


class Probe(NamedTuple):
    """A place where the return distribution is known."""

    observation: Float[np.ndarray, " O"]
    action: Float[np.ndarray, " A"]
    distribution: ReturnDistribution


class Branch(NamedTuple):
    """A branch that can follow a state: an action, a reward and the next state (None: the task is finished)."""

    probability: float
    action: float
    reward: float
    state: int | None


def _chances(branches: Sequence[Branch]) -> dict[float, float]:
    """Probability of each action."""
    chances: dict[float, float] = {}
    for branch in branches:
        chances[branch.action] = chances.get(branch.action, 0.0) + branch.probability
    return chances


def _best_of(branches: Sequence[Branch], means: dict[float, float], *, num_candidates: int) -> tuple[Branch, ...]:
    """The branches, where an action is as likely as that it is the best of so many draws."""
    chances, taken = _chances(branches), {}
    left = 1.0  # probability of an action that is no better
    for action in sorted(chances, key=means.__getitem__, reverse=True):
        rest = max(0.0, left - chances[action])
        taken[action], left = left**num_candidates - rest**num_candidates, rest
    return tuple(
        branch._replace(probability=branch.probability / chances[branch.action] * taken[branch.action])
        for branch in branches
    )


@dataclass(frozen=True, eq=False)
class Process:
    """States with their observations, and the branches of each; behaviour and dynamics in one table."""

    observations: tuple[int, ...]  # of each state; equal ones can't be told apart. A learner sees them one-hot
    branches: tuple[tuple[Branch, ...], ...]
    start: tuple[float, ...]  # probability of each state at the first step
    discount: float
    time_limit: int | None = None  # steps after which an episode is cut

    def draw(self, generator: np.random.Generator, num_episodes: int) -> dict[str, np.ndarray]:
        """All episodes step by step together, then laid end to end."""
        state = generator.choice(len(self.start), num_episodes, p=self.start)
        live = np.arange(num_episodes)
        steps: list[tuple[np.ndarray, ...]] = []
        while len(live):
            here = state[live]
            action, reward = np.zeros(len(live)), np.zeros(len(live))
            after = np.full(len(live), -1)
            for s in np.unique(here):
                rows, branches = np.flatnonzero(here == s), self.branches[s]
                drawn = generator.choice(len(branches), len(rows), p=[branch.probability for branch in branches])
                action[rows] = np.array([branch.action for branch in branches])[drawn]
                reward[rows] = np.array([branch.reward for branch in branches])[drawn]
                after[rows] = np.array([-1 if branch.state is None else branch.state for branch in branches])[drawn]
            finished = after < 0
            cut = ~finished & (self.time_limit is not None and len(steps) + 1 == self.time_limit)
            steps.append((live, self._seen(np.take(self.observations, here)), action, reward, finished, cut))
            state[live] = after
            live = live[~finished & ~cut]
        return end_to_end([np.concatenate(parts) for parts in zip(*steps, strict=True)])

    def horizon(self) -> int | None:
        """Steps of the longest episode; None where there is no longest."""
        live, steps = set(range(len(self.start))), 0
        while live and steps <= len(self.branches):
            live, steps = {b.state for state in live for b in self.branches[state] if b.state is not None}, steps + 1
        return None if live else steps

    def decides(self) -> bool:
        """Whether actions differ before the last step: what is done later changes the return of what is done now."""
        return self.horizon() not in (None, 1) and any(len(_chances(branches)) > 1 for branches in self.branches)

    def _seen(self, observation: Int[np.ndarray, "*B"]) -> Float[np.ndarray, "*B O"]:
        return np.eye(max(self.observations) + 1)[observation]

    def probes(self, num_steps: int | None) -> tuple[Probe, ...]:
        """The return distribution at every observation and action that occur; with n = 1, of the process that observations
        alone make.

        Raises EvorError where states share an observation and n > 1 does not reach the end: that fixed point is neither
        of the two distributions.
        """
        hidden, horizon = len(set(self.observations)) < len(self.observations), self.horizon()
        if hidden and num_steps not in (None, 1) and (horizon is None or num_steps < horizon):
            raise EvorError(
                f"n is {num_steps}; where an intent is hidden the distribution is known for 1 and for {horizon} or more."
            )
        process = self._as_observed() if num_steps == 1 else self
        distributions = process._distributions()
        weights = process._expected_visits()
        groups: dict[tuple[int, float], list[tuple[float, Atoms]]] = {}
        for (state, action), distribution in distributions.items():
            chance = _chances(process.branches[state])[action]
            groups.setdefault((process.observations[state], action), []).append((weights[state] * chance, distribution))
        return tuple(
            Probe(observation=self._seen(np.array(observation)), action=np.array([action]), distribution=mixture(parts))
            for (observation, action), parts in sorted(groups.items())
        )

    def improved(self, num_candidates: int) -> "Process":
        """The process under the policy that takes the best of so many draws of the behaviour, by its own mean return.

        States are changed from the end backwards, so the process must end. Raises EvorError where it may go on for ever.
        """
        horizon = self.horizon()
        if horizon is None:
            raise EvorError(
                "the process may go on for ever; the improved policy is known where episodes have a longest."
            )
        process = self
        for _ in range(horizon):  # after k rounds the last k decisions of every episode are the improved ones
            means = {key: distribution.mean for key, distribution in process._distributions().items()}
            process = replace(
                self,
                branches=tuple(
                    _best_of(
                        branches,
                        {action: means[state, action] for action in _chances(branches)},
                        num_candidates=num_candidates,
                    )
                    for state, branches in enumerate(self.branches)
                ),
            )
        return process

    def soft_value(self, state: int, action: float, *, temperature: float) -> float:
        """Q* of an agent that chooses its actions, at the price of temperature x KL from the behaviour, and not its luck.

        Under deterministic dynamics this is tau log E exp(Z / tau) of the behaviour's return distribution (Theorem 1; with a discount the
        temperature of the next state is tau / discount). Elsewhere the reading exceeds it: it takes luck for choice.
        """
        branches = [branch for branch in self.branches[state] if branch.action == action]
        total, later = sum(branch.probability for branch in branches), temperature / self.discount
        value = 0.0
        for branch in branches:
            ahead = 0.0
            if branch.state is not None:
                chances = _chances(self.branches[branch.state])
                q = [self.soft_value(branch.state, after, temperature=later) for after in chances]
                ahead = later * float(logsumexp(np.array(q) / later, b=np.array(list(chances.values()))))
            value += branch.probability / total * (branch.reward + self.discount * ahead)
        return value

    def _distributions(self) -> dict[tuple[int, float], Atoms]:
        """The return distribution of every state and action, by enumeration from the end backwards."""
        nothing = Atoms(np.zeros(1), np.ones(1))
        per_state = [nothing] * len(self.branches)
        going = np.ones(len(self.branches))  # probability of not having finished within the steps enumerated
        while going.max() > NEGLIGIBLE_MASS:
            per_state = [self._backup(branches, per_state) for branches in self.branches]
            going = np.array(
                [sum(b.probability * going[b.state] for b in row if b.state is not None) for row in self.branches]
            )
        distributions = {}
        for state, branches in enumerate(self.branches):
            for action in {branch.action for branch in branches}:
                distributions[state, action] = self._backup([b for b in branches if b.action == action], per_state)
        return distributions

    def _backup(self, branches: Sequence[Branch], per_state: list[Atoms]) -> Atoms:
        parts = []
        for branch in branches:
            if branch.state is None:
                parts.append((branch.probability, Atoms(np.array([branch.reward]), np.ones(1))))
            else:
                after = per_state[branch.state]
                shifted = Atoms(branch.reward + self.discount * after.values, after.weights)
                parts.append((branch.probability, shifted))
        return mixture(parts)

    def _expected_visits(self) -> Float[np.ndarray, " S"]:
        """Expected visits of each state in an episode without a time limit."""
        move = np.zeros((len(self.branches),) * 2)
        for state, branches in enumerate(self.branches):
            for branch in branches:
                if branch.state is not None:
                    move[state, branch.state] += branch.probability
        return np.linalg.solve(np.eye(len(move)) - move.T, np.array(self.start))

    def _as_observed(self) -> "Process":
        """One state per observation: what a one-step backup can know."""
        seen = sorted(set(self.observations))
        visits = self._expected_visits()
        index = {state: seen.index(observation) for state, observation in enumerate(self.observations)}
        merged: list[list[Branch]] = [[] for _ in seen]
        total = np.bincount([index[s] for s in range(len(visits))], visits)
        start = np.bincount([index[s] for s in range(len(visits))], self.start)
        for state, branches in enumerate(self.branches):
            share = visits[state] / total[index[state]]
            merged[index[state]] += [
                branch._replace(
                    probability=share * branch.probability,
                    state=None if branch.state is None else index[branch.state],
                )
                for branch in branches
            ]
        return Process(
            observations=tuple(seen),
            branches=tuple(map(tuple, merged)),
            start=tuple(start),
            discount=self.discount,
            time_limit=self.time_limit,
        )


def end_to_end(columns: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Steps of many episodes, in order of time -> episodes end to end, with the next observation of every row."""
    episode, observations, actions, rewards, terminations, truncations = columns
    order = np.argsort(episode, kind="stable")
    return {
        "observations": observations[order].reshape(len(order), -1).astype(np.float32),
        "actions": actions[order, None].astype(np.float32),
        "rewards": rewards[order].astype(np.float32),
        "terminations": terminations[order],
        "truncations": truncations[order],
    }
