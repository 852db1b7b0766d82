"""Predicted returns of a policy's value, in the few numbers that a table or a page needs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from evor.agents.registry import AGENTS
from evor.policies.policy import Policy
from evor.report.calibration import LEVELS
from evor.search.extraction import Extraction, action_steps, in_steps_of

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
    steps = {}
    if AGENTS[type(policy.config)].policy_steps is not None:
        usual = policy.default_search
        steps = {"flow_steps": action_steps(in_steps_of(usual if extraction is None else extraction, usual))}
    returns = policy.quantiles(observations, actions, num_nodes=NODES, **steps)
    # They lie at (i + 1/2) / NODES, which is what numpy calls hazen.
    levels = np.quantile(returns, LEVELS, axis=-1, method="hazen")
    return Predicted(mean=returns.mean(axis=-1), quantiles=levels.T)
