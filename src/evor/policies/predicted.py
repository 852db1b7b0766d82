"""Predicted returns of a policy's value, in the few numbers that a table or a page needs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evor.agents.registry import AGENTS
from evor.policies.policy import Policy
from evor.report.calibration import LEVELS
from evor.search.extraction import Extraction, action_steps, in_steps_of
from evor.types import Episodes

NODES = 64  # quantiles that a prediction is read at


class Predicted(NamedTuple):
    """Predicted return distributions, in the reward's own units."""

    mean: Float[np.ndarray, " B"]
    quantiles: Float[np.ndarray, "B 5"]  # at LEVELS


def predict(
    policy: Policy,
    observations: Float[np.ndarray, "B O"],
    *,
    actions: Float[np.ndarray, "B *A"],
    extraction: Extraction | None = None,
) -> Predicted:
    """Predict the discounted reward-to-go of each action at its observation. Raises EvorError where there is no value.

    `extraction` is how the policy acts, its own search where it is None. Only values that know of flow steps depend on it.
    """
    return summary_of(predict_quantiles(policy, observations, actions=actions, extraction=extraction))


def predict_quantiles(
    policy: Policy,
    observations: Float[np.ndarray, "B O"],
    *,
    actions: Float[np.ndarray, "B *A"],
    extraction: Extraction | None = None,
) -> Float[np.ndarray, "B Z"]:
    """Predict whole distributions as `predict` does: their quantiles at (i + 1/2) / NODES."""
    return policy.quantiles(observations, actions, num_nodes=NODES, **steps_of_value(policy, extraction=extraction))


def steps_of_value(policy: Policy, *, extraction: Extraction | None = None) -> dict[str, int]:
    """The flow steps that a value is asked for, where it is one of acting in so many: those that the policy acts in."""
    if AGENTS[type(policy.config)].policy_steps is None:
        return {}
    usual = policy.default_search
    return {"flow_steps": action_steps(in_steps_of(usual if extraction is None else extraction, usual))}


def summary_of(returns: Float[np.ndarray, "B Z"]) -> Predicted:
    """Sum up predicted quantiles."""
    # They lie at (i + 1/2) / NODES, which is what numpy calls hazen.
    levels = np.quantile(returns, LEVELS, axis=-1, method="hazen")
    return Predicted(mean=returns.mean(axis=-1), quantiles=levels.T)


def return_bounds(policy: Policy) -> tuple[float, float]:
    """The least and the largest return that the policy's value was trained with, in reward units; infinite where there is none."""
    scale = policy._networks.standardisation
    return float(scale.return_min), float(scale.return_max)


def recorded_actions(policy: Policy, episodes: Episodes, *, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B *A"]:
    """Recorded actions [B, A] at some rows, chunks of them [B, chunk, A] where the agent chunks."""
    chunk = policy.config.chunk_length
    return episodes.actions[rows] if chunk == 1 else episodes.actions[rows[:, None] + np.arange(chunk)]
