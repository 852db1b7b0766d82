"""The search and its controls in an environment: all of them on the same episodes."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from evor.data.read import is_name
from evor.errors import EvorError
from evor.experiments.audit.choices import BASE, CHOSEN, MEDOID, RANDOM, medoid
from evor.policies.policy import Policy
from evor.report.statistics import Estimate, estimate, mean
from evor.rollouts.evaluation import evaluate
from evor.runtime.user_code import import_function
from evor.search.extraction import BestOf, Prior, SoftmaxOf

PASSES = 8  # attempts of the base policy at an episode
PASS = f"base policy, best of {PASSES} attempts (pass@{PASSES})"


def environment_for(policy: Policy, env: str | None) -> Any:
    """The environment that a value is played in: that of its OGBench dataset, or what `env`, module:function, makes."""
    name = str(policy.origin["dataset"])
    if env is not None:
        return import_function(env, option="--env", example="my_robot:make_env")
    if not is_name(name):
        raise EvorError(
            "episodes are to be played, and this value was trained on data of your own, so there is no environment; give --env "
            "module:make_env, or leave --episodes out."
        )
    return name


def play_controls(
    policy: Policy, environment: Any, *, search: BestOf | SoftmaxOf, std: np.ndarray, episodes: int
) -> dict[str, Any]:
    """Play every way to choose from the same first states, and the base policy PASSES times with other noises.

    The score of an episode is its success, or its discounted return where the environment tells of none. `less` is the score
    of the search less that of the control on the same episode, with an interval over episodes.
    """

    def scores(of: Policy, extraction: Any) -> tuple[np.ndarray, bool]:
        played = evaluate(of, environment, episodes=episodes, extraction=extraction, quiet=True)
        told = played.success is not None
        return np.asarray(played.success if told else played.discounted_return, float), told

    anyone = SoftmaxOf(
        search.num_candidates, action_temperature=np.inf, reading=search.reading, flow_steps=search.flow_steps
    )
    own, told = scores(policy, search)
    attempts = [scores(_again(policy, number), Prior())[0] for number in range(PASSES)]
    ways = {
        CHOSEN: own,
        BASE: attempts[0],
        RANDOM: scores(policy, anyone)[0],
        MEDOID: scores(_by_medoid(policy, search, std=std), search)[0],
        PASS: np.max(attempts, axis=0),
    }
    return {
        "episodes": episodes,
        "of": "success" if told else "discounted return",
        "ways": {name: {"score": _mean(one), "less": _mean(own - one)} for name, one in ways.items()},
    }


def _mean(values: np.ndarray) -> Estimate:
    return estimate(mean, values[None])


def _acting(policy: Policy, act: Callable[..., np.ndarray]) -> Policy:
    """The policy with another way to act in `play`."""
    changed = copy.copy(policy)
    changed.__dict__["_act_with_keys"] = act
    return changed


def _again(policy: Policy, number: int) -> Policy:
    """The policy at another attempt: with other noises in the same episodes. Attempt 0 is the policy itself."""
    if number == 0:
        return policy

    def act(rows: Any, keys: Any, **options: Any) -> np.ndarray:
        return policy._act_with_keys(rows, jax.vmap(lambda key: jax.random.fold_in(key, number))(keys), **options)

    return _acting(policy, act)


def _by_medoid(policy: Policy, search: BestOf | SoftmaxOf, *, std: np.ndarray) -> Policy:
    """The policy, taking the medoid of its candidates."""

    def act(rows: np.ndarray, keys: Any, *, given: Any = None, **_: Any) -> np.ndarray:
        seeds = np.asarray(jax.random.key_data(keys))[:, -1]
        candidates = policy.decide(rows if given is None else given, seeds, extraction=search).candidates
        return candidates[np.arange(len(rows)), medoid(candidates, std)]

    return _acting(policy, act)
