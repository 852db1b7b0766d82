"""Environments of one task, stepped together: in this process, or shared out to processes of their own.

Where an accelerator takes the decisions, one core that steps every environment in turn holds it up; there, each core
steps its share. What comes out is the same: an environment's randomness is its own once it is reset.
"""

import atexit
import functools
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from evor.data.ogbench import make_environment
from evor.parallel import follow_the_parent


class Step(NamedTuple):
    """What a chunk of actions led to."""

    observations: list[np.ndarray]  # one for every action that was taken: none are after the end
    reward: float  # their sum
    ended: bool
    success: float


@runtime_checkable
class Environments(Protocol):
    """Numbered environments of a task."""

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        """First observations; environment i draws from states[i], three seeds."""
        ...

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        """Take a chunk of actions [h, A] in each environment named."""
        ...


def environments(dataset: str, task: int, count: int, workers: int) -> Environments:
    """`count` environments, in `workers` processes where that is more than one. They are kept for the next call."""
    return _Shared(dataset, task, count, workers) if workers > 1 else _Here(dataset, task, count)


class _Here:
    def __init__(self, dataset: str, task: int, count: int):
        self._all = _made(dataset, task)
        while len(self._all) < count:
            self._all.append(make_environment(dataset, task))

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [_reset(environment, state) for environment, state in zip(self._all, states, strict=False)]

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        return {index: _step(self._all[index], chunk) for index, chunk in chunks.items()}


@functools.lru_cache(maxsize=1)
def _made(dataset: str, task: int) -> list[Any]:
    """Environments are slow to build; those of the last task played are kept."""
    return []


def _reset(environment: Any, state: np.ndarray) -> np.ndarray:
    """OGBench draws from numpy's global generator and from the action space too: seed all three."""
    np.random.seed(state[0])
    environment.action_space.seed(int(state[1]))
    observation, _ = environment.reset(seed=int(state[2]))
    return observation


def _step(environment: Any, chunk: np.ndarray) -> Step:
    observations, total = [], 0.0
    for action in chunk:
        observation, reward, terminated, truncated, info = environment.step(action)
        observations.append(observation)
        total += float(reward)
        if terminated or truncated:
            return Step(observations, total, True, float(info["success"]))
    return Step(observations, total, False, 0.0)


class _Shared:
    """Environment i lives in process i % workers, where it has the number i // workers."""

    def __init__(self, dataset: str, task: int, count: int, workers: int):
        self._pipes = _processes(workers)[: min(workers, count)]
        places = range(len(self._pipes))
        self._ask([("make", (dataset, task, len(range(place, count, len(places))))) for place in places])

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        size = len(self._pipes)
        found = self._ask([("reset", list(states[place::size])) for place in range(size)])
        return [found[index % size][index // size] for index in range(len(states))]

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        size = len(self._pipes)
        shares: list[dict[int, np.ndarray]] = [{} for _ in range(size)]
        for index, chunk in chunks.items():
            shares[index % size][index // size] = chunk
        found = self._ask([("step", share) for share in shares])
        return {index: found[index % size][index // size] for index in chunks}

    def _ask(self, messages: list[tuple[str, Any]]) -> list[Any]:
        """Every process its own message; they work at the same time."""
        for pipe, message in zip(self._pipes, messages, strict=True):
            pipe.send(message)
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


@functools.cache
def _processes(workers: int) -> list[Connection]:
    """Started once, ended with this process."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        atexit.register(process.kill)
        theirs.close()
        pipes.append(ours)
    return pipes


def _serve(pipe: Connection) -> None:
    """Answer until the parent is gone."""
    follow_the_parent()
    mine: Any = None
    while True:
        name, content = pipe.recv()
        try:
            if name == "make":
                mine, answer = _Here(*content), None
            else:
                answer = getattr(mine, name)(content)
        except Exception as error:  # raised again where it was asked for
            answer = error
        pipe.send(answer)
