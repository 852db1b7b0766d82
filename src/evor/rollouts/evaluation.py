"""Evaluating from Python: a policy plays an OGBench task, or any gymnasium environment with Box actions."""

import functools
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from evor.data.read import is_name
from evor.envs.observations import Keys
from evor.envs.ogbench import dataset_names, make_environment
from evor.envs.own import OwnEnvironments
from evor.envs.vector import trim
from evor.errors import EvorError, nearest
from evor.policies.base_policy import OBSERVATION
from evor.policies.inputs import keys_in
from evor.policies.policy import Policy
from evor.report.statistics import Estimate, estimate, mean
from evor.rollouts.play import Episode, episode_seeds, play
from evor.rollouts.returns import discounted_return
from evor.runtime import arguments
from evor.runtime.progress import hushed, progress_bar
from evor.search.extraction import Extraction

if TYPE_CHECKING:
    from gymnasium import Env

DISCOUNT = 0.99  # of an agent that learns no value


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Evaluation:
    """Results of the episodes of an evaluation. Arrays have one entry per episode, in the order of their seeds."""

    environment: str  # what was played
    extraction: Extraction  # the search that chose the actions
    discount: float  # of `discounted_return`
    success: Bool[np.ndarray, " E"] | None  # None where the environment tells of none
    total_reward: Float[np.ndarray, " E"]  # undiscounted sum of the rewards, in the environment's units
    discounted_return: Float[np.ndarray, " E"]  # sum of discount^t times the reward of step t
    length: Int[np.ndarray, " E"]  # steps
    seeds: UInt32[np.ndarray, " E"]  # of each reset, and of the episode's decisions

    @functools.cached_property
    def mean_success(self) -> Estimate | None:
        """Share of episodes that succeeded, with its 95 % bootstrap interval over episodes; None where none is told."""
        return None if self.success is None else _mean(self.success)

    @functools.cached_property
    def mean_total_reward(self) -> Estimate:
        """Mean undiscounted return, with its 95 % bootstrap interval over episodes."""
        return _mean(self.total_reward)

    @functools.cached_property
    def mean_discounted_return(self) -> Estimate:
        """Mean discounted return, with its 95 % bootstrap interval over episodes."""
        return _mean(self.discounted_return)

    def __len__(self) -> int:
        return len(self.length)

    def __repr__(self) -> str:
        success = f"success {self.mean_success:.2f}, " if self.mean_success else ""
        return (
            f"Evaluation({len(self)} episodes of {self.environment}: {success}total reward "
            f"{self.mean_total_reward:.4g}, mean length {self.length.mean():.4g})"
        )


def evaluate(
    policy: Policy,
    environment: "str | Env | Callable[[], Env]",
    *,
    episodes: int = 50,
    seed: int = 0,
    extraction: Extraction | None = None,
    task: int | None = None,
    num_envs: int | None = None,
    max_episode_steps: int | None = None,
    discount: float | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Play episodes with a policy, and return what each came to:

        evor.evaluate(policy, "pointmaze-medium-navigate-v0", task=2)
        evor.evaluate(policy, lambda: gymnasium.make("MyRobot-v0"), episodes=100)

    `environment` is one of three:
        the name of an OGBench dataset, whose single `task` is played (the policy's own where it is None);
        a gymnasium environment, in which one episode is played after the other. It stays open;
        a function without arguments that makes one. `num_envs` are stepped together (16 where it is None; for OGBench as
        many as fit into half of the free memory), and closed at the end.

    Its actions must be a Box [A] of floats, and its observations a Box [O], with the policy's sizes. A Dict or a Tuple of
    Boxes is put side by side: the keys of imported data, else all in gymnasium's order of flattening. Action bounds that
    differ from the policy's `action_bounds` are noted: actions are not rescaled, only clipped to bounds that are narrower.
    An episode ends where the environment says so, or after `max_episode_steps` (and the rest of a chunk), which is a
    failure. An environment without a time limit needs it.

    Success is `info["success"]` of an episode's last step, as in OGBench. Where no episode has one, there is none (None);
    an episode that has none where others do counts as a failure. `discount` is the agent's where it is None (0.99 of BC).
    The search is the policy's own where `extraction` is None.

    Repeatable: `seeds[e]` of episode e depends on (seed, task, e) alone. It seeds the reset and the decisions, so that
    `env.reset(seed=int(seeds[e]))` and `evor.Controller(policy, seed=int(seeds[e]))` replay the episode. numpy's global
    generator is seeded for each environment, and is the caller's own again afterwards.

    Raises EvorError, in one sentence, on a wrong argument, on spaces that do not fit, and on an observation or reward that
    is not finite. What an environment raises is not caught.
    """
    if not isinstance(policy, Policy):
        raise EvorError(f"policy is {arguments.shown(policy)}; give what evor.load(...) or run.policy(...) returns.")
    discount = _discount_of(policy, discount)
    plan = {
        "task": policy.origin["task"] if task is None else arguments.count(1, task=task),
        "episodes": arguments.count(1, episodes=episodes),
        "evaluation_seed": arguments.count(0, seed=seed),
        "extraction": policy._search(extraction),
        "parallel": None if num_envs is None else arguments.count(1, num_envs=num_envs),
        "max_episode_steps": math.inf
        if max_episode_steps is None
        else arguments.count(1, max_episode_steps=max_episode_steps),
    }
    with hushed(quiet):
        if isinstance(environment, str):
            played, name = _play_ogbench(policy, environment, plan=plan)
        else:
            played, name = _play_own(policy, environment, plan=plan)
    return _evaluation(played, plan=plan, name=name, discount=discount)


def _discount_of(policy: Policy, given: Any) -> float:
    """The discount of the returns: what the caller gave, or the agent's. Raises EvorError."""
    if given is None:
        return getattr(policy.config, "discount", DISCOUNT)
    if not 0 <= (discount := arguments.real(discount=given)) <= 1:
        raise EvorError(f"discount is {discount}; it must lie between 0 and 1.")
    return discount


def _play_ogbench(policy: Policy, dataset: str, *, plan: dict[str, Any]) -> tuple[list[Episode], str]:
    """Play a task of OGBench; its episodes, and what was played."""
    _check_ogbench(policy, dataset, task=plan["task"])
    try:
        return _played(policy, dataset, plan=plan), f"{dataset}, task {plan['task']}"
    finally:
        trim()


def _play_own(policy: Policy, environment: Any, *, plan: dict[str, Any]) -> tuple[list[Episode], str]:
    """Play a user's environments; their episodes, and what was played."""
    if (task := plan["task"]) != policy.origin["task"]:
        raise EvorError(f"task is {task}, which goes with the name of an OGBench dataset; leave it out.")
    own = OwnEnvironments(
        environment,
        spec=policy.spec,
        action_bounds=policy.action_bounds,
        observation_keys=_named_keys(policy),
        num_envs=plan["parallel"],
    )
    with closing(own):
        return _played(policy, own, plan=plan), own.name


def _named_keys(policy: Policy) -> Keys:
    """Columns that the data of a policy named; a base policy of the user's own is given what has no names as `observation`."""
    unnamed = ((OBSERVATION, policy.spec.observation_dim),)
    return () if policy.observation_keys == unnamed and not keys_in(policy.origin) else policy.observation_keys


def _played(policy: Policy, environment: str | OwnEnvironments, *, plan: dict[str, Any]) -> list[Episode]:
    with progress_bar("evaluate", plan["episodes"], unit="episodes") as advance:
        return play(policy, environment, **plan, ended=lambda index, episode: advance(1))


def _evaluation(played: list[Episode], *, plan: dict[str, Any], name: str, discount: float) -> Evaluation:
    success = np.array([episode.success for episode in played])
    states = episode_seeds(plan["evaluation_seed"], plan["task"], episodes=len(played))
    return Evaluation(
        environment=name,
        extraction=plan["extraction"],
        discount=discount,
        success=None if np.isnan(success).all() else success == 1,
        total_reward=np.array([episode.total_reward for episode in played]),
        discounted_return=np.array([discounted_return(episode.rewards, discount) for episode in played]),
        length=np.array([episode.length for episode in played]),
        seeds=np.array([state[2] for state in states], np.uint32),
    )


def _mean(values: np.ndarray) -> Estimate:
    return estimate(mean, values[None].astype(float))


def _check_ogbench(policy: Policy, dataset: str, *, task: int) -> None:
    """Raise EvorError unless this is a dataset of OGBench whose environment has the policy's sizes."""
    if not is_name(dataset):  # said also where OGBench is not installed
        raise EvorError(
            f"environment is {dataset!r}, and a text is the name of an OGBench dataset; give a gymnasium environment or a "
            "function that makes one (for a gymnasium id, `lambda: gymnasium.make(...)`)."
        )
    if dataset not in (names := dataset_names()):
        raise EvorError(f"unknown OGBench dataset {dataset!r}; {nearest(dataset, names)}")
    world = make_environment(dataset, task)
    sizes = tuple(world.observation_space.shape) + tuple(world.action_space.shape)
    world.close()
    if sizes != tuple(policy.spec):
        raise EvorError(
            f"{dataset} has observations of {sizes[0]} and actions of {sizes[1]} numbers, and the policy was trained on "
            f"{policy.spec.observation_dim} and {policy.spec.action_dim}; play the environment of its own data."
        )
