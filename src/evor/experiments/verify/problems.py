"""Problems whose return law is known exactly: data as a user would bring it, and the law to hold a value to.

Most are finite Markov processes: their law is enumerated. What a learner sees is the process's observation; where two
states share one (a hidden intent), the law depends on how far a backup looks, and both answers are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from evor.distributions.laws import Atoms, Law, NegativeExponential, Normal, mixture
from evor.errors import EvorError, at_least, nearest
from evor.runtime.files import write_npz

NEGLIGIBLE_MASS = 1e-9  # of futures that go on: enumeration stops there


class Probe(NamedTuple):
    """Where a law is known."""

    observation: Float[np.ndarray, " O"]
    action: Float[np.ndarray, " A"]
    law: Law


class Problem(NamedTuple):
    """A data set that can be drawn at any size, and its laws."""

    discount: float
    draw: Callable[[np.random.Generator, int], dict[str, np.ndarray]]  # (generator, episodes) -> a user's arrays
    probes: Callable[[int | None], tuple[Probe, ...]]  # n of the backup (None: all rewards) -> laws of its fixed point
    horizon: int | None  # steps of the longest episode; None where there is no longest
    time_limit: int | None = None  # steps after which an episode is cut


def write(name: str, num_episodes: int, seed: int, path: Path) -> None:
    """Draw the data of PROBLEMS[name] into an npz file such as a user would bring. Raises EvorError."""
    at_least(1, num_episodes=num_episodes)
    if name not in PROBLEMS:
        raise EvorError(f"no problem is called {name!r}; {nearest(name, PROBLEMS)}.")
    write_npz(path, PROBLEMS[name].draw(np.random.default_rng(seed), num_episodes))


# Finite Markov processes.


class Branch(NamedTuple):
    """What can follow a state: an action, a reward and the next state (None: the task is finished)."""

    probability: float
    action: float
    reward: float
    state: int | None


@dataclass(frozen=True, eq=False)
class Process:
    """States with their observations, and the branches of each; behaviour and dynamics in one table."""

    observations: tuple[int, ...]  # of each state; equal ones can't be told apart. A learner sees them one-hot
    branches: tuple[tuple[Branch, ...], ...]
    start: tuple[float, ...]  # probability of each state at the first step
    discount: float
    time_limit: int | None = None  # steps after which an episode is cut

    def problem(self) -> Problem:
        return Problem(self.discount, self.draw, self.probes, self._horizon(), self.time_limit)

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
        return _lay_out([np.concatenate(parts) for parts in zip(*steps, strict=True)])

    def _horizon(self) -> int | None:
        live, steps = set(range(len(self.start))), 0
        while live and steps <= len(self.branches):
            live, steps = {b.state for state in live for b in self.branches[state] if b.state is not None}, steps + 1
        return None if live else steps

    def _seen(self, observation: Int[np.ndarray, "*B"]) -> Float[np.ndarray, "*B O"]:
        return np.eye(max(self.observations) + 1)[observation]

    def probes(self, num_steps: int | None) -> tuple[Probe, ...]:
        """The law at every observation and action that occur; with n = 1, of the process that observations alone make.

        Raises EvorError where states share an observation and n > 1 does not reach the end: that fixed point is neither
        law.
        """
        hidden, horizon = len(set(self.observations)) < len(self.observations), self._horizon()
        if hidden and num_steps not in (None, 1) and (horizon is None or num_steps < horizon):
            raise EvorError(
                f"n is {num_steps}; where an intent is hidden the law is known for 1 and for {horizon} or more."
            )
        process = self._as_observed() if num_steps == 1 else self
        laws = process._laws()
        weights = process._visits()
        groups: dict[tuple[int, float], list[tuple[float, Atoms]]] = {}
        for (state, action), law in laws.items():
            chance = sum(branch.probability for branch in process.branches[state] if branch.action == action)
            groups.setdefault((process.observations[state], action), []).append((weights[state] * chance, law))
        return tuple(
            Probe(self._seen(np.array(observation)), np.array([action]), mixture(parts))
            for (observation, action), parts in sorted(groups.items())
        )

    def soft_value(self, state: int, action: float, temperature: float) -> float:
        """Q* of an agent that chooses its actions, at the price of temperature x KL from the behaviour, and not its luck.

        Under deterministic dynamics this is tau log E exp(Z / tau) of the behaviour's law (Theorem 1; with a discount the
        temperature of the next state is tau / discount). Elsewhere the reading exceeds it: it takes luck for choice.
        """
        branches = [branch for branch in self.branches[state] if branch.action == action]
        total, later = sum(branch.probability for branch in branches), temperature / self.discount
        value = 0.0
        for branch in branches:
            ahead = 0.0
            if branch.state is not None:
                chances: dict[float, float] = {}
                for after in self.branches[branch.state]:
                    chances[after.action] = chances.get(after.action, 0.0) + after.probability
                q = [self.soft_value(branch.state, after, later) for after in chances]
                ahead = later * float(logsumexp(np.array(q) / later, b=np.array(list(chances.values()))))
            value += branch.probability / total * (branch.reward + self.discount * ahead)
        return value

    def _laws(self) -> dict[tuple[int, float], Atoms]:
        """The law of the return for every state and action, by enumeration from the end backwards."""
        nothing = Atoms(np.zeros(1), np.ones(1))
        per_state = [nothing] * len(self.branches)
        going = np.ones(len(self.branches))  # probability of not having finished within the steps enumerated
        while going.max() > NEGLIGIBLE_MASS:
            per_state = [self._backup(branches, per_state) for branches in self.branches]
            going = np.array(
                [sum(b.probability * going[b.state] for b in row if b.state is not None) for row in self.branches]
            )
        laws = {}
        for state, branches in enumerate(self.branches):
            for action in {branch.action for branch in branches}:
                laws[state, action] = self._backup([b for b in branches if b.action == action], per_state)
        return laws

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

    def _visits(self) -> Float[np.ndarray, " S"]:
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
        visits = self._visits()
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
        return Process(tuple(seen), tuple(map(tuple, merged)), tuple(start), self.discount, self.time_limit)


def _lay_out(columns: list[np.ndarray]) -> dict[str, np.ndarray]:
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


def coin() -> Process:
    """+1 or -1 at the end of one step."""
    return Process((0,), ((Branch(0.5, 0.0, 1.0, None), Branch(0.5, 0.0, -1.0, None)),), (1.0,), 0.9)


def chain(length: int) -> Process:
    """+1 or -1 at each of `length` steps, discounted: 2^length equally likely returns from the first state."""
    after = [*range(1, length), None]
    branches = tuple(tuple(Branch(0.5, 0.0, sign, state) for sign in (1.0, -1.0)) for state in after)
    return Process(tuple(range(length)), branches, (1.0,) + (0.0,) * (length - 1), 0.9)


def corridor(time_limit: int | None = None, leave: float = 0.1) -> Process:
    """-1 at every step until the door is found, with probability `leave` each time: T is geometric.

    The return is -(1 - discount^T) / (1 - discount).
    """
    step = (Branch(leave, 0.0, -1.0, None), Branch(1 - leave, 0.0, -1.0, 0))
    return Process((0,), (step,), (1.0,), 0.9, time_limit)


def fork() -> Process:
    """Action -0.5 pays 0.5 for certain; action +0.5 pays 2 with probability 0.2 and -0.25 otherwise: mean 0.2."""
    step = (Branch(0.5, -0.5, 0.5, None), Branch(0.1, 0.5, 2.0, None), Branch(0.4, 0.5, -0.25, None))
    return Process((0,), (step,), (1.0,), 0.9)


def tree(slip: float = 0.0) -> Process:
    """Two decisions, left or right with unequal odds, each its own reward; with `slip` the other state may follow.

    slip = 0 is deterministic dynamics under a stochastic behaviour (Theorem 1).
    """
    rewards = ((0.2, -0.1), (1.0, -1.0), (-0.5, 0.6))
    branches = []
    for state, pair in enumerate(rewards):
        row = []
        for side, (chance, action, reward) in enumerate(zip((0.4, 0.6), (-0.5, 0.5), pair, strict=True)):
            children = (2 * state + 1, 2 * state + 2)
            if children[0] >= len(rewards):
                row.append(Branch(chance, action, reward, None))
            else:
                row.append(Branch(chance * (1 - slip), action, reward, children[side]))
                row += [Branch(chance * slip, action, reward, children[1 - side])] if slip else []
        branches.append(tuple(row))
    return Process(tuple(range(len(rewards))), tuple(branches), (1.0,) + (0.0,) * (len(rewards) - 1), 0.9)


def hidden_intent() -> Process:
    """An intent drawn at the start decides the sign of both rewards, and no observation shows it.

    Looking two steps or more, the return is +-(1 + discount); a one-step backup sees two independent signs.
    """
    branches = []
    for sign in (1.0, -1.0):
        first = len(branches)
        branches += [(Branch(1.0, 0.0, sign, first + 1),), (Branch(1.0, 0.0, sign, None),)]
    return Process((0, 1, 0, 1), tuple(branches), (0.5, 0.0, 0.5, 0.0), 0.9)


# One step, a continuous reward.


def one_step(law: Normal | NegativeExponential) -> Problem:
    """A single state and a reward drawn from `law`."""

    def draw(generator: np.random.Generator, num_episodes: int) -> dict[str, np.ndarray]:
        rewards = law.quantile(generator.uniform(size=num_episodes))
        every, none = np.ones(num_episodes, bool), np.zeros(num_episodes, bool)
        zeros = np.zeros(num_episodes)
        return _lay_out([np.arange(num_episodes), zeros, zeros, rewards, every, none])

    return Problem(0.9, draw, lambda num_steps: (Probe(np.zeros(1), np.zeros(1), law),), 1)


def slope() -> Problem:
    """A continuous state: s in [-1, 1] without reward, then x = -s with a reward Normal(sin(pi x / 2), (0.3 + 0.2 x)^2).

    Observations are (state, step).
    """
    discount = 0.9

    def reward_law(state: Any) -> tuple[Any, Any]:
        return np.sin(np.pi / 2 * state), 0.3 + 0.2 * state

    def draw(generator: np.random.Generator, num_episodes: int) -> dict[str, np.ndarray]:
        first = generator.uniform(-1, 1, num_episodes)
        mean, std = reward_law(-first)
        last = mean + std * generator.normal(size=num_episodes)
        zeros, none = np.zeros(num_episodes), np.zeros(num_episodes, bool)
        every = ~none
        episodes = np.arange(num_episodes)
        two = np.concatenate
        observations = two([np.stack([first, zeros], 1), np.stack([-first, zeros + 1], 1)])
        rewards, terminations = two([zeros, last]), two([none, every])
        return _lay_out([two([episodes] * 2), observations, two([zeros] * 2), rewards, terminations, two([none] * 2)])

    def probes(num_steps: int | None) -> tuple[Probe, ...]:
        found = []
        for state in np.linspace(-0.9, 0.9, 7):
            for step, place, factor in ((0, -state, discount), (1, state, 1.0)):
                mean, std = reward_law(place)
                law = Normal(float(factor * mean), float(factor * std))
                found.append(Probe(np.array([state, step]), np.zeros(1), law))
        return tuple(found)

    return Problem(discount, draw, probes, 2)


PROBLEMS: dict[str, Problem] = {
    "coin": coin().problem(),
    "gaussian": one_step(Normal(0.5, 2.0)),
    "negative-exponential": one_step(NegativeExponential(1.0)),
    "chain-2": chain(2).problem(),
    "chain-10": chain(10).problem(),
    "corridor": corridor().problem(),
    "cut-corridor": corridor(time_limit=20).problem(),
    "fork": fork().problem(),
    "deterministic-tree": tree().problem(),
    "slippery-tree": tree(slip=0.3).problem(),
    "hidden-intent": hidden_intent().problem(),
    "slope": slope(),
}
