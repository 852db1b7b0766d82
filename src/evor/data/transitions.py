"""Episodes -> the columns that training samples from: n-step sums, bootstrap rows, chunks, standardisation."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.errors import EvorError
from evor.types import Episodes

NEGLIGIBLE = 0.01  # a reward-to-go counts as complete once discount^steps falls below this
STD_FLOOR = 1e-4  # of the largest |return|: below it a return is constant for our purposes


class Standardisation(NamedTuple):
    """z = (Z - mean) / std for returns (one per task), the same for observations. Travels in the checkpoint."""

    observation_mean: Float[Array | np.ndarray, " O"]
    observation_std: Float[Array | np.ndarray, " O"]
    return_mean: Float[Array | np.ndarray, " *K"]
    return_std: Float[Array | np.ndarray, " *K"]


class Columns(NamedTuple):
    """What the sampler gathers from, one entry per row; rewards and observations are standardised."""

    observations: Float[Array | np.ndarray, "N O"]
    actions: Float[Array | np.ndarray, "N A"]
    rows: Int[Array | np.ndarray, " S"]  # rows that may be drawn
    last: Int[Array | np.ndarray, " N"]  # last row of the same episode whose action is known
    bootstrap: Int[Array | np.ndarray, " N"]  # row where the n-step sum bootstraps
    rewards: Float[Array | np.ndarray, "K N"]
    discounts: Float[Array | np.ndarray, "K N"]  # discount^steps * mask
    weights: Float[Array | np.ndarray, "K N"]
    rewards_to_go: Float[Array | np.ndarray, "K N"] | None  # complete ones; other rows then have weight 0


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
    """Steps K with discount^K negligible: 459 at 0.99 (method, section 3: 1 %)."""
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
    nothing: an incomplete chunk or no room for one step.

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
    weights = chunk_known & (finished | (steps > 0))
    return Sums(rewards, np.where(finished, 0.0, decay), weights.astype(np.float32), bootstrap)


def describe_short_episodes(episodes: Episodes, num_steps: int | None) -> tuple[str, ...]:
    """A note where some episode is shorter than the sums asked for."""
    shortest = int(np.diff(np.flatnonzero(episodes.ends), prepend=-1).min())
    if num_steps is None or shortest >= num_steps:
        return ()
    return (f"the shortest episode has {shortest} rows, fewer than n_steps {num_steps}: sums stop at its end",)


def last_known_action(episodes: Episodes) -> Int[np.ndarray, " N"]:
    """For each row, the last row of its episode whose action was recorded."""
    _, end = _extent(episodes.ends)
    return end - ~episodes.action_known[end]


def standardisation(episodes: Episodes, discount: float, enabled: bool) -> Standardisation:
    """Means and standard deviations of observations and of complete rewards-to-go; 0 and 1 where not enabled.

    Where no episode is long enough for a complete reward-to-go, the recorded part is closed with the mean reward.
    """
    num_tasks, width = len(episodes.tasks), episodes.observations.shape[1]
    if not enabled:
        return Standardisation(
            np.zeros(width, np.float32), np.ones(width, np.float32), np.zeros(num_tasks), np.ones(num_tasks)
        )
    observations = episodes.observations.astype(np.float64)
    std = observations.std(axis=0)
    usable = complete(episodes, discount) & ~episodes.bootstrap_only
    if usable.any():
        total = reward_to_go(episodes, discount)[:, usable]
    else:
        sums = n_step_sums(episodes, discount, len(episodes.ends), next_action_known=False)
        mean_reward = episodes.rewards[:, ~episodes.bootstrap_only].mean(axis=1, keepdims=True)
        total = (sums.rewards + sums.discounts * mean_reward / (1 - discount))[:, ~episodes.bootstrap_only]
    largest = np.abs(total).max(axis=1)
    floor = np.where(largest > 0, STD_FLOOR * largest, 1.0)
    return Standardisation(
        observations.mean(axis=0).astype(np.float32),
        np.where(std > 1e-6 * (np.abs(observations).max(axis=0) + 1e-30), std, 1).astype(np.float32),
        total.mean(axis=1),
        np.maximum(total.std(axis=1), floor),
    )


def lay_out(
    episodes: Episodes,
    *,
    discount: float,
    num_steps: int,
    chunk_length: int,
    next_action_known: bool,
    whole_returns: bool,
    standardise: bool,
) -> tuple[Columns, Standardisation]:
    """Everything training needs from the data, once. Raises EvorError where no row can be learned from.

    `whole_returns` adds the reward-to-go of every row and leaves out those where it is incomplete.

    In standardised units the backup z1 = (sum + discount^n mask (mean + std z') - mean) / std keeps its form:
    z1 = reward + discount z' with reward = (sum - mean + discount^n mask mean) / std.
    """
    rows = np.flatnonzero(~episodes.bootstrap_only)
    if not len(rows):
        raise EvorError("the data holds no transition: every row is the last of its episode; record longer episodes.")
    scale = standardisation(episodes, discount, standardise)
    sums = n_step_sums(episodes, discount, num_steps, chunk_length, next_action_known)
    weights = sums.weights * complete(episodes, discount) if whole_returns else sums.weights
    teaching = weights[:, rows].any(axis=1)
    if not teaching.all():
        task = episodes.tasks[int(np.flatnonzero(~teaching)[0])]
        remedy = (
            f"episodes are cut before {completeness_horizon(discount)} steps, where discount {discount} is still felt; "
            "use an objective that bootstraps"
            if whole_returns
            else "no row has a known next action; let the policy supply it (--agent.next-action policy-action)"
        )
        raise EvorError(f"no row of task {task} can teach the value: {remedy}.")
    mean, std = scale.return_mean[:, None], scale.return_std[:, None]
    columns = Columns(
        ((episodes.observations - scale.observation_mean) / scale.observation_std).astype(np.float32),
        episodes.actions,
        rows.astype(np.int32),
        last_known_action(episodes).astype(np.int32),
        sums.bootstrap.astype(np.int32),
        ((sums.rewards - mean + sums.discounts * mean) / std).astype(np.float32),
        sums.discounts.astype(np.float32),
        weights.astype(np.float32),
        ((reward_to_go(episodes, discount) - mean) / std).astype(np.float32) if whole_returns else None,
    )
    return columns, scale


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
