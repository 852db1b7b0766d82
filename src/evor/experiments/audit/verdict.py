"""The rule from measurements to a verdict. Imports no JAX.

Three measurements can show that a value ranks, and the best answer of them counts:

* Actions. Recorded actions that the value prefers led to more than others nearby. The correlation is small also for an exact value,
  because one action of many decides little. 0.1 is needed to use it, 0.05 for few candidates. On a maze, 60 random networks
  were above 0.05 once and never above 0.1; a trained value had 0.24.
* States. Where predicted and realised returns have a rank correlation of 0.3, the better predicted of two rows is the better one
  in 60 % of all pairs (1/2 + arcsin(2 sin(pi rho / 6)) / pi of a normal copula). It says nothing about actions at one state, so it is
  good for few candidates.
* Play. A success above that of the base policy, on the same episodes, is what the others predict.

The lower end of an interval must reach the threshold. On small problems a value that learned nothing ranks by luck: where more than 5 % of random
networks reach the correlation, the answer is one step lower, and where more than 20 % do, the correlation shows nothing.

Every other check can only lower the answer, and the verdict is the lowest:

* Intervals below 0, of any of these, say that the value prefers worse actions.
* A choice is confirmed where the second opinion's gain is above 0. It holds with many candidates where at least 90 % of the
  largest gain is left at all of them. Where it shrinks, more candidates find more errors of the value.
* Bounds. Where more than 5 % of the predicted means are returns that no rewards can give, the value extrapolates.
"""

import math
from enum import IntEnum
from typing import NamedTuple

from evor.report.statistics import Estimate

ACTS, ACTS_LITTLE = 0.1, 0.05  # correlations of advantages
RANKS = 0.3  # a rank correlation
LUCK, MUCH_LUCK = 0.05, 0.2  # of the random networks
KEPT = 0.9  # of the largest gain
ALLOWED = 0.05  # of the predicted means
EQUAL = 0.5  # of the states
FEW = 4  # candidates: the best of 4 normal scores lies half as far above the mean as that of 32 does


class Answer(IntEnum):
    """Answer of a check, the worst first."""

    NO = 0
    FEW = 1
    YES = 2


WORDS = {Answer.NO: "do not use it", Answer.FEW: "use it with few candidates", Answer.YES: "use it"}


class Evidence(NamedTuple):
    """Measurements that a verdict rests on; None where something could not be measured."""

    across: Estimate  # rank correlation of predicted and realised returns
    across_luck: float  # share of random networks that reach it
    advantage: Estimate  # correlation of advantages of recorded actions and what they led to
    advantage_luck: float  # share of random networks that reach it
    within: Estimate | None  # rank correlation inside states
    candidates: int  # of a decision
    equal: float  # share of the states whose proposals are all the same action
    confirmed: Estimate | None  # the second opinion's gain of the best of all candidates
    kept: float | None  # that gain, as a share of the largest one with fewer candidates
    best_number: int | None  # candidates of the largest one
    outside: float  # share of predicted means that no rewards can give
    played: Estimate | None  # success of the search less that of the base policy, on the same episodes


class Check(NamedTuple):
    """One check, its threshold and its answer."""

    name: str
    measured: str
    rule: str
    answer: Answer


class Verdict(NamedTuple):
    """The verdict, in a word and in a sentence."""

    answer: Answer
    sentence: str
    checks: list[Check]
    candidates: int | None  # at most, where they are to be few

    @property
    def word(self) -> str:
        """One of WORDS."""
        return WORDS[self.answer]


def decide(evidence: Evidence) -> Verdict:
    """Decide: the best answer of what shows that it ranks, lowered by every other check."""
    shows = [_actions(evidence), _states(evidence), *_success(evidence)]
    lowers = [*_prefers(evidence), _differ(evidence), *_confirmed(evidence), _allowed(evidence)]
    ranks = max(shows, key=lambda check: check.answer)
    answer = min(ranks.answer, *(check.answer for check in lowers))
    told = [check for check in lowers if check.answer is answer is not Answer.YES]
    if ranks.answer is answer:
        named = {check.name for check in told}  # a correlation below 0 is told once, as what it speaks against
        told = (
            [*(check for check in shows if check.name not in named), *told] if answer is Answer.NO else [ranks, *told]
        )
    few = evidence.best_number if evidence.kept is not None and evidence.kept < KEPT else None
    number = min(few or FEW, FEW, evidence.candidates) if answer is Answer.FEW else None
    most = f" (at most {number})" if number else ""
    why = "; ".join(f"{check.name} is {check.measured} ({check.rule})" for check in told)
    more = "; the interval reaches further, so more held-out episodes may show it" if _is_open(evidence, ranks) else ""
    unplayed = UNPLAYED if evidence.played is None and answer is not Answer.NO else ""
    sentence = f"{WORDS[answer][0].upper()}{WORDS[answer][1:]}{most}: {why}{more}{unplayed}."
    return Verdict(answer=answer, sentence=sentence, checks=[*shows, *lowers], candidates=number)


UNPLAYED = (
    "; play before you rely on it (--episodes), for recorded data can't show what follows actions that were never taken"
)
ACTIONS = "the correlation of advantages of recorded actions with what they led to"
STATES = "the rank correlation of predicted and realised returns"
WITHIN = "the rank correlation inside states"
SECOND = "the gain of the choice by a second opinion"
PLAYED = "the success of the search less that of the base policy"


def _is_open(evidence: Evidence, ranks: Check) -> bool:
    """Whether nothing shows that the value ranks, and an interval includes the threshold: the data may be too few."""
    reaches = evidence.advantage.high >= ACTS_LITTLE or evidence.across.high >= RANKS
    return ranks.answer is Answer.NO and reaches


def _lucky(answer: Answer, estimate: Estimate, *, luck: float) -> tuple[Answer, str]:
    """The answer, lower where random networks reach as much, and the measurement in words."""
    if math.isnan(estimate.value):  # all realised returns, or all predictions, are equal
        return answer, "not measurable"
    steps = 2 if luck > MUCH_LUCK else 1 if luck > LUCK else 0
    lower = Answer(max(answer - steps, Answer.NO))
    return lower, f"{estimate:.2f}, reached by {luck:.0%} of random networks"


def _actions(evidence: Evidence) -> Check:
    low = evidence.advantage.low  # a NaN is no proof
    answer = Answer.YES if low >= ACTS else Answer.FEW if low >= ACTS_LITTLE else Answer.NO
    answer, told = _lucky(answer, evidence.advantage, luck=evidence.advantage_luck)
    rule = f"use it from a lower end of {ACTS:g}, few candidates from {ACTS_LITTLE:g}"
    return Check(ACTIONS, told, rule, answer)


def _states(evidence: Evidence) -> Check:
    answer = Answer.FEW if evidence.across.low >= RANKS else Answer.NO
    answer, told = _lucky(answer, evidence.across, luck=evidence.across_luck)
    return Check(STATES, told, f"few candidates from a lower end of {RANKS:g}", answer)


def _success(evidence: Evidence) -> list[Check]:
    if evidence.played is None:
        return []
    answer = Answer.YES if evidence.played.low > 0 else Answer.NO
    return [Check(PLAYED, f"{evidence.played:.2f}", "use it from a lower end above 0", answer)]


def _prefers(evidence: Evidence) -> list[Check]:
    """The correlation inside states, and every interval that lies below 0."""
    rule = "interval not below 0; else do not use it"
    below = {ACTIONS: evidence.advantage, STATES: evidence.across, PLAYED: evidence.played}
    checks = [Check(name, f"{one:.2f}", rule, Answer.NO) for name, one in below.items() if one and one.high < 0]
    if evidence.within is not None:
        answer = Answer.NO if evidence.within.high < 0 else Answer.YES
        checks.append(Check(WITHIN, f"{evidence.within:.2f}", rule, answer))
    return checks


def _allowed(evidence: Evidence) -> Check:
    return Check(
        "the share of predicted means that no rewards can give",
        f"{evidence.outside:.1%}",
        f"at most {ALLOWED:.0%}; else few candidates",
        Answer.YES if evidence.outside <= ALLOWED else Answer.FEW,
    )


def _differ(evidence: Evidence) -> Check:
    return Check(
        "the share of states whose proposals are all the same",
        f"{evidence.equal:.1%}",
        f"at most {EQUAL:.0%}; else there is nothing to choose: do not use it",
        Answer.YES if evidence.equal <= EQUAL else Answer.NO,
    )


def _confirmed(evidence: Evidence) -> list[Check]:
    if evidence.confirmed is None:
        return []
    gain = evidence.confirmed
    answer = Answer.YES if gain.low > 0 else Answer.NO if gain.high < 0 else Answer.FEW
    checks = [
        Check(SECOND, f"{gain:.3g}", "interval above 0; below 0 do not use it, around 0 few candidates", answer),
    ]
    if evidence.kept is not None and answer is Answer.YES:
        rule = f"at least {KEPT:.0%}; else few candidates"
        name = f"the share of the largest gain ({evidence.best_number} candidates) that all candidates keep"
        checks.append(Check(name, f"{evidence.kept:.0%}", rule, Answer.YES if evidence.kept >= KEPT else Answer.FEW))
    return checks
