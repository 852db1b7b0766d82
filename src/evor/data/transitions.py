"""Episodes -> the columns that training samples from: n-step sums, bootstrap rows, chunks, standardisation."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.errors import EvorError
from evor.types import DataNeeds, Episodes

NEGLIGIBLE = 0.01  # a reward-to-go counts as complete once discount^steps falls below this
STD_FLOOR = 1e-4  # of the largest |return|: below it a return is constant for our purposes


class Standardisation(NamedTuple):
    """z = (Z - mean) / std for returns (one per task), the same for observations. Travels in the checkpoint."""

    observation_mean: Float[Array | np.ndarray, " O"]
    observation_std: Float[Array | np.ndarray, " O"]
    return_mean: Float[Array | np.ndarray, " *K"]
    return_std: Float[Array | np.ndarray, " *K"]


class Columns(NamedTuple):
    """What the sampler gathers from, one entry per row; in training, rewards and observations are standardised."""

    observations: Float[Array | np.ndarray, "N O"]
    actions: Float[Array | np.ndarray, "N A"]
    rows: Int[Array | np.ndarray, " S"]  # rows that may be drawn
    last: Int[Array | np.ndarray, " N"]  # last row of the same episode whose action is known
    bootstrap: Int[Array | np.ndarray, " N"]  # row where the n-step sum bootstraps
    rewards: Float[Array | np.ndarray, "K N"]
    discounts: Float[Array | np.ndarray, "K N"]  # discount^steps * mask
    weights: Float[Array | np.ndarray, "K N"]
    rewards_to_go: Float[Array | np.ndarray, "K N"] | None  # complete ones; other rows then have weight 0
    count: Int[Array | np.ndarray, ""]  # of `rows`; behind them may be padding


class Sums(NamedTuple):
    """n-step sums in the reward's own units."""

    rewards: Float[np.ndarray, "K N"]
    discounts: Float[np.ndarray, "K N"]
    weights: Float[np.ndarray, "K N"]
    bootstrap: Int[np.ndarray, " N"]


def reward_to_go(episodes: Episodes, discount: float) -> Float[np.ndarray, "K N"]:
    """Discounted reward sum from each row to the finish or, at a cut, as far as it was recorded (float64).

    Doubles the summed horizon each pass: after pass p, `total[i]` covers 2^p rows.
    """
    recorded = ~episodes.bootstrap_only | (episodes.masks == 0)
    total = np.where(recorded, episodes.rewards.astype(np.float64), 0.0)
    weight = discount * (episodes.masks * ~episodes.ends).astype(np.float64)
    step = 1
    while step < total.shape[1] and weight.any():
        total[:, :-step] += weight[:, :-step] * total[:, step:]
        weight[:, :-step] *= weight[:, step:]
        weight[:, -step:] = 0
        step *= 2
    return total


def completeness_horizon(discount: float) -> int:
    """Steps K with discount^K negligible: 459 at 0.99, where 1 % is left."""
    if discount >= 1:
        raise EvorError("discount 1 never makes a cut reward-to-go complete; use a discount below 1.")
    return math.ceil(math.log(NEGLIGIBLE) / math.log(discount)) if discount > 0 else 1


def complete(episodes: Episodes, discount: float) -> Bool[np.ndarray, " N"]:
    """Rows whose reward-to-go is complete, chosen by their distance to the cut and never by whether the task finished.

    Rows at least K steps before the cut count. An episode that ends by finishing would have been cut at the longest
    recorded cut, so it is held to the same clock; where nothing is ever cut, every row is complete.
    """
    start, end = _extent(episodes.ends)
    is_cut = episodes.bootstrap_only[end]
    if not is_cut.any():
        return ~episodes.bootstrap_only
    rows = np.arange(len(start))
    limit = int((end - start)[is_cut].max())  # steps recorded before the longest cut
    remaining = np.where(is_cut, end - rows, limit - (rows - start))
    return remaining >= completeness_horizon(discount)


def n_step_sums(
    episodes: Episodes, discount: float, num_steps: int, chunk_length: int = 1, next_action_known: bool = True
) -> Sums:
    """Sums of up to `num_steps` rewards and where they bootstrap.

    A finish ends the sum (discount 0). A cut bootstraps: from the last row whose chunk of actions is known where
    `next_action_known` is asked for, else from the last known state. Weight 0 marks rows that teach the value
    nothing: a chunk that leaves the episode or no room for one step.

    Bootstrapping from the last recorded action forgets that nothing finished after it. So an episode that finishes
    where others are cut is held to the same clock and bootstraps there too, or finishes would be counted too often.
    """
    if num_steps < chunk_length:
        raise EvorError(f"n_steps {num_steps} is below chunk_length {chunk_length}; a sum must cover its chunk.")
    rows = np.arange(len(episodes.ends))
    start, end = _extent(episodes.ends)
    is_cut = episodes.bootstrap_only[end]
    last_known = last_known_action(episodes)
    room = np.where(is_cut & next_action_known, last_known - chunk_length + 1, end)
    clock = np.full(len(rows), len(rows))  # no row
    limit = int((last_known - start)[is_cut].max(initial=-1))
    outlived = (last_known - start).max() > limit  # by a finish: cuts were accidents then
    if next_action_known and limit >= chunk_length and not outlived:
        clock[~is_cut] = (start + limit - chunk_length + 1)[~is_cut]
    bootstrap = np.minimum(rows + num_steps, np.minimum(room, clock))
    steps = np.maximum(bootstrap - rows, 0)
    bootstrap = rows + steps

    finish = _next_finish(episodes.masks, end)
    finished = finish < np.minimum(rows + num_steps, clock)
    total = reward_to_go(episodes, discount)
    decay = discount ** steps.astype(np.float64)
    rewards = np.where(finished, total, total - decay * total[:, bootstrap])
    chunk_known = (rows + chunk_length - 1 <= last_known) | (finish < rows + chunk_length)
    # Where the next chunk is drawn anew, all of this one lies before it.
    weights = chunk_known & (finished | (steps >= (1 if next_action_known else chunk_length)))
    return Sums(rewards, np.where(finished, 0.0, decay), weights.astype(np.float32), bootstrap)


def describe_short_episodes(episodes: Episodes, num_steps: int) -> tuple[str, ...]:
    """A note where some episode is shorter than the sums asked for."""
    shortest = int(np.diff(np.flatnonzero(episodes.ends), prepend=-1).min())
    if shortest >= num_steps:
        return ()
    return (f"the shortest episode has {shortest} rows, fewer than n_steps {num_steps}: sums stop at its end",)


def last_known_action(episodes: Episodes) -> Int[np.ndarray, " N"]:
    """For each row, the last row of its episode whose action was recorded."""
    _, end = _extent(episodes.ends)
    return end - ~episodes.action_known[end]


class Moments(NamedTuple):
    """Count, mean and variance (times the count) of some rows; `largest` is of absolute values."""

    count: int
    mean: Float[np.ndarray, " M"]
    scatter: Float[np.ndarray, " M"]
    largest: Float[np.ndarray, " M"]

    def merge(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub & LeVeque 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * other.count / count,
            self.scatter + other.scatter + shift**2 * self.count * other.count / count,
            np.maximum(self.largest, other.largest),
        )


def moments(rows: Float[np.ndarray, "M N"]) -> Moments:
    """Along the last axis."""
    width, count = rows.shape
    if not count:
        return Moments(0, np.zeros(width), np.zeros(width), np.zeros(width))
    return Moments(count, rows.mean(axis=1), rows.var(axis=1) * count, np.abs(rows).max(axis=1))


class Facts(NamedTuple):
    """What standardisation needs to know of some episodes; facts of parts merge into facts of the whole."""

    observations: Moments
    rewards: Moments
    returns: Moments  # complete rewards-to-go
    recorded: Moments  # for want of these: recorded parts R, the discounts D of what is missing, and R + D

    def merge(self, other: "Facts") -> "Facts":
        return Facts(*(mine.merge(theirs) for mine, theirs in zip(self, other, strict=True)))


def facts(episodes: Episodes, discount: float) -> Facts:
    """Facts of one part of the data."""
    rows = ~episodes.bootstrap_only
    usable = complete(episodes, discount) & rows
    recorded = np.empty((3 * len(episodes.tasks), 0))
    if not usable.any():
        sums = n_step_sums(episodes, discount, len(episodes.ends), next_action_known=False)
        part, missing = sums.rewards[:, rows], sums.discounts[:, rows]
        recorded = np.concatenate([part, missing, part + missing])
    return Facts(
        moments(episodes.observations.astype(np.float64).T),
        moments(episodes.rewards[:, rows].astype(np.float64)),
        moments(reward_to_go(episodes, discount)[:, usable]),
        moments(recorded),
    )


def _closed(found: Facts, discount: float) -> Moments:
    """Of recorded returns R + D mean / (1 - discount): closed with the mean reward continued for ever."""
    part, missing, _ = np.split(found.recorded.mean, 3)
    scatter, spread, both = np.split(found.recorded.scatter, 3)
    largest, most, _ = np.split(found.recorded.largest, 3)
    factor = found.rewards.mean / (1 - discount)
    total = scatter + factor**2 * spread + factor * (both - scatter - spread)  # the last is twice the covariance
    return Moments(found.recorded.count, part + factor * missing, np.maximum(total, 0), largest + np.abs(factor) * most)


def standardisation(found: Facts, discount: float, enabled: bool) -> Standardisation:
    """Means and standard deviations of observations and of complete rewards-to-go; 0 and 1 where not enabled.

    Where no episode is long enough for a complete reward-to-go, the recorded part is closed with the mean reward.
    """
    observations = found.observations
    returns = found.returns if found.returns.count else _closed(found, discount)
    width, num_tasks = len(observations.mean), len(returns.mean)
    if not enabled:
        return Standardisation(
            np.zeros(width, np.float32), np.ones(width, np.float32), np.zeros(num_tasks), np.ones(num_tasks)
        )
    std = np.sqrt(observations.scatter / observations.count)
    floor = np.where(returns.largest > 0, STD_FLOOR * returns.largest, 1.0)
    return Standardisation(
        observations.mean.astype(np.float32),
        np.where(std > 1e-6 * (observations.largest + 1e-30), std, 1).astype(np.float32),
        returns.mean,
        np.maximum(np.sqrt(returns.scatter / returns.count), floor),
    )


class Layout(NamedTuple):
    """Columns in the data's own units, and what is needed to standardise them."""

    columns: Columns
    facts: Facts


def lay_out(episodes: Episodes, needs: DataNeeds) -> Layout:
    """Everything training needs from some episodes, but for their units. Raises EvorError where no row is a transition."""
    rows = np.flatnonzero(~episodes.bootstrap_only)
    if not len(rows):
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")
    sums = n_step_sums(episodes, needs.discount, needs.num_steps, needs.chunk_length, needs.next_action_known)
    weights = sums.weights * complete(episodes, needs.discount) if needs.whole_returns else sums.weights
    columns = Columns(
        episodes.observations,
        episodes.actions,
        rows.astype(np.int32),
        last_known_action(episodes).astype(np.int32),
        sums.bootstrap.astype(np.int32),
        sums.rewards,
        sums.discounts,
        weights.astype(np.float32),
        reward_to_go(episodes, needs.discount) if needs.whole_returns else None,
        np.array(len(rows), np.int32),
    )
    return Layout(columns, facts(episodes, needs.discount))


def standardise(columns: Columns, scale: Standardisation) -> Columns:
    """Columns in standardised units, float32.

    There the backup z1 = (sum + discount^n mask (mean + std z') - mean) / std keeps its form: z1 = reward + discount z'
    with reward = (sum - mean + discount^n mask mean) / std.
    """
    mean, std = scale.return_mean[:, None], scale.return_std[:, None]
    to_go = columns.rewards_to_go
    return columns._replace(
        observations=((columns.observations - scale.observation_mean) / scale.observation_std).astype(np.float32),
        rewards=((columns.rewards - mean + columns.discounts * mean) / std).astype(np.float32),
        discounts=np.asarray(columns.discounts, np.float32),
        rewards_to_go=None if to_go is None else ((to_go - mean) / std).astype(np.float32),
    )


def check_teaching(teaches: Bool[np.ndarray, " K"], tasks: tuple[int, ...], needs: DataNeeds) -> None:
    """Raise EvorError where no row can teach the value of some task."""
    if teaches.all():
        return
    if needs.whole_returns:
        remedy = (
            f"episodes are cut before {completeness_horizon(needs.discount)} steps, where discount {needs.discount} is still "
            "felt, and those that finish are held to that clock, or only the fast would count; use an objective that bootstraps"
        )
    elif needs.chunk_length > 1:
        remedy = (
            f"no episode holds a chunk of {needs.chunk_length} actions and a state after it; use a shorter chunk_length"
        )
    else:
        remedy = "no row has a known next action; let the policy supply it (--agent.next-action policy-action)"
    raise EvorError(f"no row of task {tasks[int(np.argmin(teaches))]} can teach the value: {remedy}.")


def teaches(columns: Columns) -> Bool[np.ndarray, " K"]:
    """Whether some row teaches each task's value."""
    return np.array([bool(row.any()) for row in np.asarray(columns.weights)[:, columns.rows]])


def arrange(episodes: Episodes, needs: DataNeeds) -> tuple[Columns, Standardisation]:
    """Columns in standardised units, of data that fit into memory. Raises EvorError where no row can be learned from."""
    layout = lay_out(episodes, needs)
    check_teaching(teaches(layout.columns), episodes.tasks, needs)
    scale = standardisation(layout.facts, needs.discount, needs.standardise)
    return standardise(layout.columns, scale), scale


def memory_bytes(columns: Columns) -> int:
    """Bytes that training holds for the data."""
    return sum(array.nbytes for array in columns if array is not None)


def _extent(ends: Bool[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """First and last row of each row's episode."""
    last = np.flatnonzero(ends)
    first = np.append(0, last[:-1] + 1)
    episode = np.searchsorted(last, np.arange(len(ends)))
    return first[episode], last[episode]


def _next_finish(masks: Float[np.ndarray, "K N"], end: Int[np.ndarray, " N"]) -> Float[np.ndarray, "K N"]:
    """First row at or after each row, in the same episode, where the task is finished; infinity where there is none."""
    rows = np.arange(masks.shape[1], dtype=np.float64)
    finish = np.minimum.accumulate(np.where(masks == 0, rows, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return np.where(finish <= end, finish, np.inf)
