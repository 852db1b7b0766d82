"""All measurements of one audit, from predictions to a verdict."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evor.data.bounds import RewardRange
from evor.errors import EvorError
from evor.experiments.audit import choices, evidence
from evor.experiments.audit.page import Drawn
from evor.experiments.audit.playing import play_controls
from evor.experiments.audit.recorded import NEEDED, HeldOut, Recorded, repeated_states, thinned
from evor.experiments.audit.values import Decisions, decisions, other_seeds, predicted, search_for
from evor.experiments.audit.verdict import Evidence, Verdict, decide
from evor.policies.load import Run
from evor.policies.policy import Policy
from evor.policies.predicted import recorded_actions, return_bounds, summary_of
from evor.report.about import followed
from evor.report.calibration import Predictions
from evor.report.statistics import Estimate
from evor.runtime import arguments
from evor.runtime.progress import progress_bar
from evor.training.config import to_json

ROWS = 4000  # whose predicted and realised returns are compared, at most
REPEATED = 1000  # rows of states that were recorded several times, at most


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Settings of an audit."""

    task: int | None = None  # Task of the value. Needed where the run has several.
    seed: int | None = None  # Seed of the value. Needed where the run has several.
    num_candidates: int | None = None  # Candidates of a decision. None: as many as in the agent's own search.
    decisions: int = 2000  # States at which proposals are drawn, at most. Choose fewer for a slow base policy.
    episodes: int = 0  # Episodes to play with the search and with each control.
    env: str | None = None  # Function that makes the environment of a run on data of your own, as module:function.
    sparse_rewards: bool = False  # Whether an exported value of an OGBench task learned from sparse rewards.

    def __post_init__(self):
        arguments.count(0, episodes=self.episodes)
        arguments.count(NEEDED, decisions=self.decisions)
        if self.env is not None and not self.episodes:
            raise EvorError(
                f"env (--env) is {self.env}, and no episodes are to be played in it; give episodes (--episodes), too."
            )
        if self.num_candidates is not None:
            arguments.count(2, num_candidates=self.num_candidates)


def discount_of(policy: Policy) -> float:
    """The discount of the value's returns."""
    config: Any = policy.config
    return config.discount


class Audit:
    """One audit: a policy, held-out episodes, and the rows that are compared."""

    def __init__(
        self, policy: Policy, run: Run | None, *, held_out: HeldOut, recorded: Recorded, settings: AuditSettings
    ):
        self._policy, self._run, self._held_out, self._all = policy, run, held_out, recorded
        self._settings, self._search = settings, search_for(policy, settings.num_candidates)
        self._std = held_out.episodes.actions[recorded.rows].std(axis=0)

    def report(self, environment: Any) -> tuple[dict[str, Any], Drawn]:
        """Measure everything; environment None plays nothing."""
        episodes, compared_at = self._held_out.episodes, thinned(self._all, ROWS)
        repeated, state = repeated_states(self._all, episodes.observations, number=REPEATED)
        deciding = thinned(self._all, self._settings.decisions)
        total = len(compared_at.rows) + len(repeated.rows) + len(deciding.rows)
        with progress_bar("audit", total, unit="rows") as advance:
            nodes, bent = predicted(self._policy, episodes, recorded=compared_at, advance=advance, with_path=True)
            compared = evidence.Compared(compared_at.episode, nodes, compared_at.realised)
            same = evidence.within_states(self._compared(repeated, advance), state)
            decided = decisions(
                self._policy,
                episodes,
                recorded=deciding,
                search=self._search,
                others=other_seeds(self._run, self._policy),
                has_spread=compared.has_spread,
                advance=advance,
            )
        near = evidence.neighbours(episodes.observations[deciding.rows], deciding.episode)
        advantage = decided.taken - decided.scores.mean(axis=1)
        choice = self._choice(decided, deciding)
        content = {
            **self._facts(compared_at, deciding),
            "ranking": {
                **evidence.ranking(compared),
                "within": same,
                "advantage": evidence.advantages(
                    deciding.episode, advantage=advantage, realised=deciding.realised, near=near
                ),
                "luck": self._luck(deciding, decided, near=near),
            },
            "calibration": evidence.calibrated(compared, _predictions(compared)) if self._all.is_complete else None,
            "outside": evidence.outside(compared, self._bounds()),
            "choice": choice,
            "alarm": evidence.alarms(compared, bent),
            "played": None
            if environment is None
            else play_controls(
                self._policy, environment, search=self._search, std=self._std, episodes=self._settings.episodes
            ),
        }
        verdict = decide(_evidence(content))
        drawn = Drawn(compared, _predictions(compared), evidence.signals(compared, bent))
        return {"verdict": _told(verdict)} | content, drawn

    def _luck(self, deciding: Recorded, decided: Decisions, *, near: np.ndarray) -> dict[str, list[float]]:
        """Correlations of random networks with the same returns."""
        taken = recorded_actions(self._policy, self._held_out.episodes, rows=deciding.rows)
        flat = decided.candidates.reshape(*decided.candidates.shape[:2], -1)
        told = evidence.chance(
            self._held_out.episodes.observations[deciding.rows],
            taken=taken.reshape(len(taken), -1),
            candidates=flat,
            realised=deciding.realised,
            near=near,
        )
        return {name: values.tolist() for name, values in told.items()}

    def _compared(self, recorded: Recorded, advance: Any) -> evidence.Compared:
        if not len(recorded.rows):
            return evidence.Compared(recorded.episode, np.zeros((0, 1)), recorded.realised)
        nodes, _ = predicted(self._policy, self._held_out.episodes, recorded=recorded, advance=advance)
        return evidence.Compared(recorded.episode, nodes, recorded.realised)

    def _facts(self, compared_at: Recorded, deciding: Recorded) -> dict[str, Any]:
        origin, config = self._policy.origin, to_json(self._policy.config, type(self._policy.config))
        agent = {"type": type(self._policy.config).__name__} | config
        return {
            "task": origin["task"],
            "seed": origin["seed"],
            "base": origin.get("base"),
            "followed": followed({"agent": agent}),
            "discount": discount_of(self._policy),
            "episodes": int(self._held_out.episodes.ends.sum()),
            "episodes_compared": len(np.unique(compared_at.episode)),
            "rows": len(compared_at.rows),
            "decisions": len(deciding.rows),
            "window": self._all.window,
            "is_complete": self._all.is_complete,
            "search": type(self._search).__name__,
            "num_candidates": self._search.num_candidates,
            "notes": list(self._held_out.notes),
        }

    def _bounds(self) -> tuple[float, float]:
        """Bounds of the return: the agent's own, else those of the held-out rewards."""
        own = return_bounds(self._policy)
        low, high = RewardRange.read(self._held_out.episodes).return_bounds(discount_of(self._policy))
        low, high = float(low[0]), float(high[0])
        return own[0] if np.isfinite(own[0]) else low, own[1] if np.isfinite(own[1]) else high

    def _choice(self, decided: Decisions, deciding: Recorded) -> dict[str, Any]:
        scored = choices.Choices(decided.scores, decided.by, decided.second)
        across = float(decided.scores.mean(axis=1).std())
        return {
            "opinion": decided.opinion,
            "controls": choices.controls(
                scored, decided.candidates, index=decided.index, std=self._std, episode=deciding.episode
            ),
            "by_number": choices.gain_by_number(scored, deciding.episode),
            "spread": choices.spread(decided.candidates, self._std),
            "score_std": {"candidates": float(decided.scores.std(axis=1).mean()), "states": across},
        }


def _predictions(compared: evidence.Compared) -> Predictions:
    told = summary_of(compared.nodes)
    return Predictions(mean=told.mean, quantiles=told.quantiles, realised=compared.realised)


def _evidence(content: dict[str, Any]) -> Evidence:
    """Gather what the verdict rests on."""
    ranking, choice, played = content["ranking"], content["choice"], content["played"]
    seconds = [  # one candidate is no choice, and its gain chance
        (line["second"], line["candidates"])
        for line in choice["by_number"]
        if line["second"] is not None and line["candidates"] > 1
    ]
    largest, number = max(seconds, key=lambda one: one[0].value) if seconds else (None, None)
    last: Estimate | None = seconds[-1][0] if seconds else None
    within = ranking["within"]["correlation"]
    advantage, luck = ranking["advantage"]["correlation"], ranking["luck"]
    return Evidence(
        across=ranking["across"],
        across_luck=float((np.array(luck["across"]) >= ranking["across"].value).mean()),
        advantage_luck=float((np.array(luck["advantage"]) >= advantage.value).mean()),
        within=None if np.isnan(within.value) else within,
        advantage=advantage,
        candidates=content["num_candidates"],
        equal=choice["spread"]["alone"],
        confirmed=last,
        kept=last.value / largest.value if last is not None and largest is not None and largest.value > 0 else None,
        best_number=number,
        outside=content["outside"]["means"],
        played=None if played is None else played["ways"][choices.BASE]["less"],
    )


def _told(verdict: Verdict) -> dict[str, Any]:
    checks = [check._asdict() | {"answer": check.answer.name.lower()} for check in verdict.checks]
    return {
        "word": verdict.word,
        "sentence": verdict.sentence,
        "candidates": verdict.candidates,
        "checks": checks,
    }
