"""Problems whose return distribution is known exactly: data as a user would bring it, and what to hold a value to.

Most are finite Markov processes; the others have one step, or a continuous state.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.distributions.exact import NegativeExponential, Normal
from evor.errors import EvorError, at_least, nearest
from evor.experiments.verify.process import Branch, Probe, Process, end_to_end
from evor.runtime.files import write_npz


class Problem(NamedTuple):
    """A dataset that can be drawn at any size, and its return distributions."""

    discount: float
    draw: Callable[[np.random.Generator, int], dict[str, np.ndarray]]  # (generator, episodes) -> a user's arrays
    probes: Callable[[int | None], tuple[Probe, ...]]  # n of the backup (None: all rewards) -> its fixed point
    horizon: int | None  # steps of the longest episode; None where there is no longest
    time_limit: int | None = None  # steps after which an episode is cut
    improved: Callable[[int], "Problem"] | None = None  # the problem of the best of so many draws, where that is known


def write(name: str, num_episodes: int, *, seed: int, path: Path) -> None:
    """Draw the data of PROBLEMS[name] into an npz file such as a user would bring. Raises EvorError."""
    at_least(1, num_episodes=num_episodes)
    if name not in PROBLEMS:
        raise EvorError(f"no problem is called {name!r}; {nearest(name, PROBLEMS)}.")
    write_npz(path, PROBLEMS[name].draw(np.random.default_rng(seed), num_episodes))


# Finite Markov processes.


def of_process(process: Process) -> Problem:
    """The problem that a process poses."""
    return Problem(
        discount=process.discount,
        draw=process.draw,
        probes=process.probes,
        horizon=process.horizon(),
        time_limit=process.time_limit,
        improved=(lambda number: of_process(process.improved(number))) if process.decides() else None,
    )


def coin() -> Process:
    """+1 or -1 at the end of one step."""
    step = tuple(Branch(probability=0.5, action=0.0, reward=sign, state=None) for sign in (1.0, -1.0))
    return Process(observations=(0,), branches=(step,), start=(1.0,), discount=0.9)


def chain(length: int) -> Process:
    """+1 or -1 at each of `length` steps, discounted: 2^length equally likely returns from the first state."""
    after = [*range(1, length), None]
    return Process(
        observations=tuple(range(length)),
        branches=tuple(
            tuple(Branch(probability=0.5, action=0.0, reward=sign, state=state) for sign in (1.0, -1.0))
            for state in after
        ),
        start=(1.0,) + (0.0,) * (length - 1),
        discount=0.9,
    )


def corridor(time_limit: int | None = None, leave: float = 0.1) -> Process:
    """-1 at every step until the door is found, with probability `leave` each time: T is geometric.

    The return is -(1 - discount^T) / (1 - discount).
    """
    step = (
        Branch(probability=leave, action=0.0, reward=-1.0, state=None),
        Branch(probability=1 - leave, action=0.0, reward=-1.0, state=0),
    )
    return Process(observations=(0,), branches=(step,), start=(1.0,), discount=0.9, time_limit=time_limit)


def fork() -> Process:
    """Action -0.5 pays 0.5 for certain; action +0.5 pays 2 with probability 0.2 and -0.25 otherwise: mean 0.2."""
    step = (
        Branch(probability=0.5, action=-0.5, reward=0.5, state=None),
        Branch(probability=0.1, action=0.5, reward=2.0, state=None),
        Branch(probability=0.4, action=0.5, reward=-0.25, state=None),
    )
    return Process(observations=(0,), branches=(step,), start=(1.0,), discount=0.9)


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
                row.append(Branch(probability=chance, action=action, reward=reward, state=None))
                continue
            for share, after in ((1 - slip, children[side]), (slip, children[1 - side])):
                if share:
                    row.append(Branch(probability=chance * share, action=action, reward=reward, state=after))
        branches.append(tuple(row))
    return Process(
        observations=tuple(range(len(rewards))),
        branches=tuple(branches),
        start=(1.0,) + (0.0,) * (len(rewards) - 1),
        discount=0.9,
    )


def hidden_intent() -> Process:
    """An intent drawn at the start decides the sign of both rewards, and no observation shows it.

    Looking two steps or more, the return is +-(1 + discount); a one-step backup sees two independent signs.
    """
    branches = []
    for sign in (1.0, -1.0):
        first = len(branches)
        branches += [(Branch(probability=1.0, action=0.0, reward=sign, state=state),) for state in (first + 1, None)]
    return Process(observations=(0, 1, 0, 1), branches=tuple(branches), start=(0.5, 0.0, 0.5, 0.0), discount=0.9)


# One step, a continuous reward.


def one_step(distribution: Normal | NegativeExponential) -> Problem:
    """A single state and a reward drawn from `distribution`."""

    def draw(generator: np.random.Generator, num_episodes: int) -> dict[str, np.ndarray]:
        rewards = distribution.quantile(generator.uniform(size=num_episodes))
        every, none = np.ones(num_episodes, bool), np.zeros(num_episodes, bool)
        zeros = np.zeros(num_episodes)
        return end_to_end([np.arange(num_episodes), zeros, zeros, rewards, every, none])

    probe = Probe(observation=np.zeros(1), action=np.zeros(1), distribution=distribution)
    return Problem(discount=0.9, draw=draw, probes=lambda num_steps: (probe,), horizon=1)


def slope() -> Problem:
    """A continuous state: s in [-1, 1] without reward, then x = -s with a reward Normal(sin(pi x / 2), (0.3 + 0.2 x)^2).

    Observations are (state, step).
    """
    discount = 0.9

    def reward_moments(state: Any) -> tuple[Any, Any]:
        return np.sin(np.pi / 2 * state), 0.3 + 0.2 * state

    def draw(generator: np.random.Generator, num_episodes: int) -> dict[str, np.ndarray]:
        first = generator.uniform(-1, 1, num_episodes)
        mean, std = reward_moments(-first)
        last = mean + std * generator.normal(size=num_episodes)
        zeros, none = np.zeros(num_episodes), np.zeros(num_episodes, bool)
        every = ~none
        episodes = np.arange(num_episodes)
        two = np.concatenate
        observations = two([np.stack([first, zeros], 1), np.stack([-first, zeros + 1], 1)])
        rewards, terminations = two([zeros, last]), two([none, every])
        return end_to_end([two([episodes] * 2), observations, two([zeros] * 2), rewards, terminations, two([none] * 2)])

    def probes(num_steps: int | None) -> tuple[Probe, ...]:
        points = []
        for state in np.linspace(-0.9, 0.9, 7):
            for step, position, factor in ((0, -state, discount), (1, state, 1.0)):
                mean, std = reward_moments(position)
                distribution = Normal(float(factor * mean), float(factor * std))
                points.append(Probe(observation=np.array([state, step]), action=np.zeros(1), distribution=distribution))
        return tuple(points)

    return Problem(discount=discount, draw=draw, probes=probes, horizon=2)


PROBLEMS: dict[str, Problem] = {
    "coin": of_process(coin()),
    "gaussian": one_step(Normal(0.5, 2.0)),
    "negative-exponential": one_step(NegativeExponential(1.0)),
    "chain-2": of_process(chain(2)),
    "chain-10": of_process(chain(10)),
    "corridor": of_process(corridor()),
    "cut-corridor": of_process(corridor(time_limit=20)),
    "fork": of_process(fork()),
    "deterministic-tree": of_process(tree()),
    "slippery-tree": of_process(tree(slip=0.3)),
    "hidden-intent": of_process(hidden_intent()),
    "slope": slope(),
}
