"""Explanations on the page of an audit: what was measured, how, and what it can't say. Imports no JAX."""

from typing import Any

SEEDS, NOISES = "other seeds", "other noises"  # second opinions
EMPTY = "not measured"

RANKING = (
    "A value is useful for a choice if higher predictions are followed by higher returns. Predictions are for the recorded action at "
    "a recorded state, followed by {followed}; the realised return is the discounted sum (discount {discount:g}) of what the data's "
    "own behaviour collected afterwards. Where the value is that of a better policy, a difference in level is expected. So the order "
    "counts here and not the level. The recorded return is one draw, which bounds the correlation."
)
ADVANTAGE = (
    "A value can rank states and yet not tell actions apart, so two rows of the table look at actions. The advantage is the score of the "
    "recorded action less the mean score of the proposals at its state. Advantage and realised return are taken less their means over the "
    "{nearest} nearest rows of other episodes, so that what the state itself is worth cancels. Inside states: observations are the "
    "same state where they are equal after rounding to a hundredth of each column's standard deviation. One row of each episode "
    "counts, and ranks are those inside a state; it is measured from {fewest} such states on. One action of many decides little of a "
    "return, so small correlations are expected also of an exact value. A value that learned nothing ranks by luck: {count} networks "
    "with random weights tell how well."
)
CALIBRATION = (
    "The predicted distribution is that of the recorded action followed by {followed}, and the realised returns are those of the "
    "data's behaviour. Where the two differ, so do the levels, and these numbers tell by how much. They are no part of the verdict."
)
CHOICE = (
    "The gain of a choice is the value of what is taken less the mean of all proposals of the state. By the scores that chose, it is "
    "always above 0, because errors of the value are chosen, too. An opinion that had no part in the choice corrects this."
)
CONTROLS = (
    "{search}: what the run's search takes. {base}: its first proposal. Medoid: the proposal with the least distance to the "
    "others. The first proposal and a random one gain 0 on average. What they show is chance, and every audit with these data and as "
    "many decisions draws the same proposals. The medoid may gain or lose. Only play tells how much a control helps."
)
PLAYED = (
    "All choices meet the same first states. The interval of a difference is one over episodes, of the same episode played twice. "
    "pass@N: any of N attempts of the base policy with other noises succeeds, which is what a perfect choice among whole "
    "attempts could reach."
)
NOT_PLAYED = "Nothing was played. Give --episodes, and for data of your own --env, to fill these cells."
ALARMS = (
    "A failure is a row whose realised return is among the lowest quarter. Equal returns count alike, so here {share} of the rows are "
    "failures, with returns of at most {threshold}. Three signals may predict it: a low predicted mean, a wide predicted distribution (90 % less 10 % quantile), and a "
    "bent flow path (the mean distance between returns of one solver step and of all of them)."
)
LIMITS = (
    "Recorded data show what followed recorded actions. What follows an action that the search takes and the data never took is "
    "only known by playing.",
    "Intervals are percentile bootstraps over whole episodes. Of fewer than about 30 episodes they are somewhat too narrow.",
    "The verdict is about data like the held-out ones. Another scene, task or robot needs another audit.",
)

CUT = (
    "A prediction is of the whole return, and the realised returns here are sums over a window of rewards (see above)."
)


def second_opinion(kind: str | None) -> str:
    """Say whose the second opinion is."""
    if kind == SEEDS:
        return (
            "The second opinion is the mean of the values of the run's other seeds. They learned from the same data with other "
            "initial weights and batches, so errors that the data cause may be shared."
        )
    if kind == NOISES:
        return (
            "The run has one seed. So one half of the noises of the return chose, and the other half scored the choice. Errors of the "
            "networks are in both halves: train a run of two seeds (--num-seeds 2) for a second opinion that can contradict."
        )
    return (
        "There is no second opinion: the run has one seed, and its value has no noises. Train a run of two seeds "
        "(--num-seeds 2) for one."
    )


def window_note(report: dict[str, Any]) -> str:
    """Say which rows count, and what their realised return is."""
    rows = (
        "Rows count by their distance to the end of the recording and never by their outcome: finished episodes are held to the "
        "longest recorded cut."
    )
    if report["is_complete"]:
        return f"A realised return sums up to {report['window']} rewards, after which less than 1 % is left. {rows}"
    return (
        f"The episodes are cut before later rewards have become negligible. So the realised returns here are the sums of the next {report['window']} "
        f"rewards, half of the median length of a cut episode, without any bootstrapped value. {rows} Such sums can be ranked, "
        "and their level can't be compared with a prediction of the whole return."
    )
