"""Questions to the networks: predicted returns of recorded actions, and scores of proposals by two opinions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evor.agents.registry import AGENTS
from evor.experiments.audit.explained import NOISES, SEEDS
from evor.experiments.audit.recorded import Recorded
from evor.policies.load import Run
from evor.policies.policy import Policy
from evor.policies.predicted import predict_quantiles, recorded_actions
from evor.search.extraction import BestOf, Extraction, SoftmaxOf
from evor.search.readings import RandomSamples
from evor.types import Episodes

ROWS = 256  # that are computed at once
HALF = 10  # returns of each half of the noises

Advance = Callable[[int], None]


class Decisions(NamedTuple):
    """Proposals at some recorded states and what they score, in the reward's own units."""

    candidates: Float[np.ndarray, "D C *A"]
    index: Int[np.ndarray, " D"]  # that the search takes
    scores: Float[np.ndarray, "D C"]
    taken: Float[np.ndarray, " D"]  # scores of the recorded actions
    by: Float[np.ndarray, "D C"]  # scores that choose, where another opinion values
    second: Float[np.ndarray, "D C"] | None  # scores of the second opinion; None where there is none
    opinion: str | None  # SEEDS, NOISES or None


def search_for(policy: Policy, number: int | None) -> BestOf | SoftmaxOf:
    """The search that is audited: the agent's own where it chooses among candidates, else the best one."""
    usual: Any = policy.default_search
    search = usual if isinstance(usual, BestOf | SoftmaxOf) else BestOf(flow_steps=usual.flow_steps)
    return search if number is None else dataclasses.replace(search, num_candidates=number)


def predicted(
    policy: Policy, episodes: Episodes, *, recorded: Recorded, advance: Advance, with_path: bool = False
) -> tuple[Float[np.ndarray, "R Z"], Float[np.ndarray, " R"] | None]:
    """Predict the return distribution of each recorded action (ordered quantiles), and how bent its flow path is.

    The path is straight where one solver step gives the same return as all of them: bent is the mean distance of both. None of
    a value without a flow, and of one that knows of flow steps: there they change what is predicted.
    """
    nodes, bent = [], []
    for start in range(0, len(recorded.rows), ROWS):
        rows = recorded.rows[start : start + ROWS]
        observations, actions = episodes.observations[rows], recorded_actions(policy, episodes, rows=rows)
        nodes.append(predict_quantiles(policy, observations, actions=actions))
        if with_path and AGENTS[type(policy.config)].policy_steps is None:
            straight = policy.quantiles(observations, actions, num_nodes=nodes[-1].shape[1], flow_steps=1)
            bent.append(np.abs(straight - nodes[-1]).mean(axis=1))
        advance(len(rows))
    distances = np.concatenate(bent) if bent else None
    has_path = distances is not None and bool(distances.any())
    return np.sort(np.concatenate(nodes).astype(np.float64), axis=1), distances if has_path else None


def decisions(
    policy: Policy,
    episodes: Episodes,
    *,
    recorded: Recorded,
    search: BestOf | SoftmaxOf,
    others: list[Policy],
    has_spread: bool,
    advance: Advance,
) -> Decisions:
    """Draw proposals at recorded states and score them: by the search, and by a second opinion.

    That is the mean of the values of the run's other seeds. Of one seed, one half of the noises chooses and the other half
    values; a scalar critic has no noises, so then there is none.
    """
    parts = []
    for start in range(0, len(recorded.rows), ROWS):
        rows = recorded.rows[start : start + ROWS]
        observations = episodes.observations[rows]
        decided = policy.decide(observations, rows, extraction=search)

        def scores(of: Policy, candidates: Any, reading: Extraction = search, seed: Any = 0) -> np.ndarray:
            given = observations  # noqa: B023 - called within this turn of the loop
            return of.choose(given, candidates, seed=seed, extraction=reading).scores.astype(np.float64)

        taken = recorded_actions(policy, episodes, rows=rows)[:, None]
        of_search, second = decided.scores.astype(np.float64), None
        by = of_search
        if others:
            second = np.mean([scores(other, decided.candidates) for other in others], axis=0)
        elif has_spread:
            reading = RandomSamples(HALF, flow_steps=search.reading.flow_steps)
            halves = dataclasses.replace(search, reading=reading)
            by, second = (scores(policy, decided.candidates, halves, seed) for seed in (1, 2))
        alike = scores(policy, taken, seed=rows)[:, 0]  # at the noises of the proposals, where a search draws some
        parts.append((decided.candidates, decided.index, of_search, alike, by, second))
        advance(len(rows))
    *columns, seconds = zip(*parts, strict=True)
    candidates, index, of_search, taken, by = (np.concatenate(column) for column in columns)
    second = None if seconds[0] is None else np.concatenate(seconds)
    opinion = SEEDS if others else NOISES if second is not None else None
    return Decisions(candidates, index, of_search, taken, by, second, opinion)


def other_seeds(run: Run | None, policy: Policy) -> list[Policy]:
    """The values of a run's other seeds, of the same task. They score proposals, and propose none themselves."""
    if run is None:
        return []
    return [run.policy(policy.origin["task"], seed) for seed in run.config.all_seeds if seed != policy.origin["seed"]]
