"""The return of an episode, beside what the value predicted of it."""

import numpy as np
from jaxtyping import Float

from evor.policies.policy import Policy
from evor.policies.predicted import predict
from evor.report.evaluations import RETURNS, Row
from evor.rollouts.play import Episode
from evor.search.extraction import Extraction
from evor.training.config import RunConfig
from evor.training.data import data_spec_of


def discounted_return(rewards: Float[np.ndarray, " T"], discount: float) -> float:
    """The sum of discount^t times the reward of step t."""
    return float(rewards @ discount ** np.arange(len(rewards)))


def returns_of(policy: Policy, episode: Episode, *, config: RunConfig, extraction: Extraction | None = None) -> Row:
    """The RETURNS of an episode: its discounted return, and the distribution that the value predicted at its first decision.

    Both are in the rewards that the run was trained on. All are "" where there is no value, or where it has diverged.
    """
    if not policy.has_value:
        return dict.fromkeys(RETURNS, "")
    rewards = np.where(episode.rewards < 0, -1.0, 0.0) if config.sparse_rewards else episode.rewards
    realised = discounted_return(rewards, data_spec_of(config).discount)
    chunk = episode.first_action if policy.config.chunk_length > 1 else episode.first_action[0]
    predicted = predict(policy, episode.observations[:1], actions=chunk[None], extraction=extraction)
    numbers = [realised, float(predicted.mean[0]), *map(float, predicted.quantiles[0])]
    if not np.isfinite(numbers).all():
        return dict.fromkeys(RETURNS, "")
    return {name: round(number, 6) for name, number in zip(RETURNS, numbers, strict=True)}
