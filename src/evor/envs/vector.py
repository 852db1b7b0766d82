"""Environments of one task, stepped together: in this process, or shared out to processes of their own.

Where an accelerator takes the decisions, one core that steps every environment in turn holds it up; there, each core
steps its share. What comes out is the same: an environment's randomness is its own.
"""

import atexit
import functools
import math
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.random import mtrand

from evor.envs.ogbench import make_environment
from evor.errors import EvorError
from evor.runtime.memory import free_memory, give_back
from evor.runtime.parallel import exit_with_parent

# MiB of an environment, with room to spare. Measured after a reset and three steps: 2 of every maze, 143 to 180 of cube,
# scene and puzzle (OGBench compiles the meshes and textures of the arm anew for each).
MAZE_MIB, ARM_MIB = 4.0, 180.0
KEPT_MIB = 512  # that environments may take when nothing is played


class Step(NamedTuple):
    """Result of a chunk of actions."""

    observations: list[np.ndarray]  # one for every action that was taken: none are after the end
    rewards: list[float]  # one for each of them
    ended: bool
    success: float  # 0 before the end; NaN where the environment tells of none

    @property
    def reward(self) -> float:
        """Their sum."""
        total = 0.0
        for reward in self.rewards:  # not `sum`, which compensates from Python 3.12 on
            total += reward
        return total


@runtime_checkable
class Environments(Protocol):
    """Numbered environments of a task."""

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        """First observations; environment i draws from states[i], three seeds."""
        ...

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        """Take a chunk of actions [h, A] in each environment named."""
        ...


def environments(dataset: str, task: int, *, count: int, workers: int) -> Environments:
    """`count` environments, in `workers` processes where that is more than one. Use them inside `own_generator`.

    They are kept for the next call; those that it has no use for are closed then, or by `trim`.
    """
    return (
        _MultiProcess(dataset, task, count=count, workers=workers)
        if workers > 1
        else InProcess(_made(dataset, task, count=count))
    )


def fitting(dataset: str, processes: int = 1) -> float:
    """Number of environments of a dataset that may be open at once: at least one, infinity where free memory is unknown.

    They may take half of the free memory, of which each of so many `processes` that play at once has its share. Those
    that this process has open already count as free: they are used again or closed.
    """
    usable = (free_memory() + 2**20 * _held_mib()) / 2 / processes
    return max(1.0, usable // (2**20 * _mib(dataset))) if math.isfinite(usable) else math.inf


def trim() -> None:
    """Close kept environments where they take more than KEPT_MIB, so that a program that has evaluated gets it back."""
    if _held_mib() > KEPT_MIB:
        for worlds in _worlds.values():
            _close(worlds)
        _worlds.clear()
        _end_processes()


def _mib(dataset: str) -> float:
    return ARM_MIB if dataset.startswith(("cube", "scene", "puzzle")) else MAZE_MIB


def _held_mib() -> float:
    """Memory in MiB of the open environments, in this process and its worker processes."""
    here = sum((len(worlds) * _mib(dataset) for (dataset, _), worlds in _worlds.items()), 0.0)
    return here + sum(count * _mib(dataset) for dataset, count in _shared.items())


class World(NamedTuple):
    """An environment, and what stands for numpy's global generator whenever it draws: it has one of its own."""

    environment: Any
    generator: np.random.BitGenerator


class InProcess:
    """Environments of this process, stepped in turn."""

    def __init__(self, worlds: Sequence[World]):
        self._all = worlds

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [_reset(world, state) for world, state in zip(self._all, states, strict=False)]

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        steps = {}
        for index, chunk in chunks.items():
            mtrand.set_bit_generator(self._all[index].generator)  # mazes that teleport draw at every step
            steps[index] = _step(self._all[index].environment, chunk)
        return steps


_worlds: dict[tuple[str, int], list[World]] = {}  # of the last task played: environments are slow to build
_shared: dict[str, int] = {}  # how many are open in processes


def _made(dataset: str, task: int, *, count: int) -> list[World]:
    for other in [key for key in _worlds if key != (dataset, task)]:
        _close(_worlds.pop(other))
    worlds = _worlds.setdefault((dataset, task), [])
    _close(worlds, count)
    while len(worlds) < count:
        worlds.append(World(make_environment(dataset, task), np.random.MT19937(0)))
    return worlds


def _close(worlds: list[World], kept: int = 0) -> None:
    """Close all but the first so many."""
    if len(worlds) > kept:
        while len(worlds) > kept:
            worlds.pop().environment.close()
        give_back()


def _reset(world: World, state: np.ndarray) -> np.ndarray:
    """Seed the environment, and numpy's global generator and the action space, from which OGBench draws too."""
    mtrand.set_bit_generator(world.generator)
    np.random.seed(state[0])
    world.environment.action_space.seed(int(state[1]))
    observation, _ = world.environment.reset(seed=int(state[2]))
    return observation


def _step(environment: Any, chunk: np.ndarray) -> Step:
    observations, rewards, success, ended = [], [], math.nan, False
    for action in chunk:
        observation, reward, terminated, truncated, info = environment.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        if ended := bool(terminated or truncated):
            success = float(info.get("success", math.nan))
            break
        success = 0.0 if "success" in info else math.nan
    return Step(observations=observations, rewards=rewards, ended=ended, success=success)


class _MultiProcess:
    """Environment i lives in process i % workers, where it has the number i // workers."""

    def __init__(self, dataset: str, task: int, *, count: int, workers: int):
        self._pipes = _processes(workers)
        _shared.clear()
        _shared[dataset] = count
        self._ask([("make", (dataset, task, len(range(worker, count, workers)))) for worker in range(workers)])
        self._pipes = self._pipes[:count]

    def reset(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        size = len(self._pipes)
        answers = self._ask([("reset", list(states[worker::size])) for worker in range(size)])
        return [answers[index % size][index // size] for index in range(len(states))]

    def step(self, chunks: dict[int, np.ndarray]) -> dict[int, Step]:
        size = len(self._pipes)
        shares: list[dict[int, np.ndarray]] = [{} for _ in range(size)]
        for index, chunk in chunks.items():
            shares[index % size][index // size] = chunk
        answers = self._ask([("step", share) for share in shares])
        return {index: answers[index % size][index // size] for index in chunks}

    def _ask(self, messages: list[tuple[str, Any]]) -> list[Any]:
        """Every process its own message; they work at the same time."""
        try:
            for pipe, message in zip(self._pipes, messages, strict=True):
                pipe.send(message)
            answers = [pipe.recv() for pipe in self._pipes]
        except (EOFError, ConnectionError) as error:
            _end_processes()
            raise EvorError(
                "A process that steps environments was killed. Is there memory for so many? num_envs (--parallel) plays fewer at once."
            ) from error
        except BaseException:  # Ctrl-C: answers left in the pipes would be read as those to later messages
            _end_processes()
            raise
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


_started: list[Any] = []  # processes


@functools.cache
def _processes(workers: int) -> list[Connection]:
    """Started once, ended with this process."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        _started.append(process)
        theirs.close()
        pipes.append(ours)
    atexit.register(_end_processes)
    return pipes


def _end_processes() -> None:
    for process in _started:
        process.kill()
    for process in _started:
        process.join()
    _started.clear()
    _shared.clear()
    _processes.cache_clear()


def _serve(pipe: Connection) -> None:
    """Answer until the parent is gone. Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()
    mine: Any = None
    while True:
        name, content = pipe.recv()
        try:
            if name == "make":
                dataset, task, count = content
                mine, answer = InProcess(_made(dataset, task, count=count)), None
            else:
                answer = getattr(mine, name)(content)
        except Exception as error:  # raised again where it was asked for
            answer = error
        pipe.send(answer)
