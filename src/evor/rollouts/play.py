"""Play a policy in environments."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evor.envs.own import OwnEnvironments
from evor.envs.randomness import own_generator
from evor.envs.vector import Environments, environments, fitting
from evor.nn.batching import on_cpu
from evor.nn.engine import pinned
from evor.policies.controller import VectorController
from evor.policies.policy import Policy
from evor.runtime.parallel import default_workers
from evor.runtime.progress import console
from evor.search.extraction import Extraction

LONG = 10_000  # steps of an episode without an end, after which an endless one is likely
SHRINK = 4  # a batch of decisions is cut by this once so few episodes are left


class Episode(NamedTuple):
    """One finished episode."""

    success: float  # 1 where the task was solved, else 0; NaN where the environment does not tell
    total_reward: float  # undiscounted
    length: int
    observations: np.ndarray  # [length + 1, O]
    rewards: np.ndarray  # [length]
    first_action: (
        np.ndarray
    )  # [chunk, A]: what the first decision chose, one action long where the agent does not chunk


Ended = Callable[[int, Episode], None]


@pinned
def play(
    policy: Policy,
    environment: str | OwnEnvironments,
    *,
    task: int,
    extraction: Extraction,
    episodes: int,
    evaluation_seed: int,
    ended: Ended = lambda index, episode: None,
    max_episode_steps: float = math.inf,
    parallel: float | None = None,
) -> list[Episode]:
    """Play episodes of a task, or of a user's environments; `ended(index, episode)` is called as each ends.

    `environment` names an OGBench dataset, or holds environments of a user's own.
    An episode is cut after `max_episode_steps` steps (and the rest of a chunk), which is a failure. Episodes are stepped together in waves of one
    size, at most `parallel` at once (as many as fit into half of the free memory where it is left out). Episode e is reset
    and acted with seeds derived from (evaluation_seed, task, e) alone: it is the same in every wave, to rounding.
    numpy's global generator stays as it was.
    """
    most = environment.parallel if isinstance(environment, OwnEnvironments) else parallel or fitting(environment)
    waves = max(1, math.ceil(episodes / most))
    size = math.ceil(episodes / waves)
    seeds = episode_seeds(evaluation_seed, task, episodes=episodes)
    played: list[Episode] = []
    with own_generator():
        if isinstance(environment, OwnEnvironments):
            worlds = environment.hold(size)
        else:
            # An accelerator has the cores' time for environments; on a CPU the networks have it.
            worlds = environments(environment, task, count=size, workers=1 if on_cpu() else default_workers())
        for start in range(0, episodes, size):

            def note(index: int, episode: Episode, start: int = start) -> None:
                ended(start + index, episode)

            played += _wave(
                policy,
                worlds,
                seeds=seeds[start : start + size],
                extraction=extraction,
                size=size,
                ended=note,
                max_episode_steps=max_episode_steps,
            )
    return played


def episode_seeds(evaluation_seed: int, task: int, *, episodes: int) -> list[np.ndarray]:
    """Three seeds for each episode: of numpy's generator, of the action space, of the reset and the decisions."""
    return [state.generate_state(3) for state in np.random.SeedSequence([evaluation_seed, task]).spawn(episodes)]


def _wave(
    policy: Policy,
    worlds: Environments,
    *,
    seeds: Sequence[np.ndarray],
    extraction: Extraction,
    size: int,
    ended: Ended,
    max_episode_steps: float,
) -> list[Episode]:
    """Play one episode for each of the seeds; decisions begin in a batch of `size`."""
    observations = [[observation] for observation in worlds.reset(seeds)]
    controller = VectorController(
        policy, extraction=extraction, seeds=np.array([state[2] for state in seeds], np.uint32)
    )
    totals = np.zeros(len(seeds))
    rewards: list[list[float]] = [[] for _ in seeds]
    first: dict[int, np.ndarray] = {}
    played: dict[int, Episode] = {}
    live = list(range(len(seeds)))
    noted = False
    while live:
        if not noted and math.isinf(max_episode_steps) and len(observations[live[0]]) > LONG:
            noted = True
            console.print(
                f"note: an episode has not ended after {LONG:,} steps; max_episode_steps (--max-episode-steps) cuts episodes "
                "of an environment without a time limit."
            )
        while len(live) <= size // SHRINK:  # rarely, for each size is compiled
            size = -(-size // SHRINK)
        rows = (live + live[-1:] * size)[:size]
        current = np.stack([observations[index][-1] for index in rows]).astype(np.float32)
        chunks = np.array(controller.decide(rows, current))  # a copy: environments may write into it
        first = first or dict(enumerate(chunks[: len(seeds)].copy()))
        for index, step in worlds.step(dict(zip(live, chunks, strict=False))).items():
            observations[index] += step.observations
            rewards[index] += step.rewards
            totals[index] += step.reward
            if step.ended or len(observations[index]) > max_episode_steps:
                live.remove(index)
                trajectory = np.array(observations[index], np.float32)
                played[index] = Episode(
                    success=step.success,
                    total_reward=float(totals[index]),
                    length=len(trajectory) - 1,
                    observations=trajectory,
                    rewards=np.array(rewards[index]),
                    first_action=first[index],
                )
                ended(index, played[index])
    return [played[index] for index in range(len(seeds))]
