"""Episodes -> the sums that training learns from: rewards-to-go, n-step sums and where they bootstrap."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evor.errors import EvorError
from evor.types import Episodes

NEGLIGIBLE = 0.01  # a reward-to-go counts as complete once discount^steps falls below this


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


class Clock(NamedTuple):
    """What every part must know of the whole data set: where its episodes are cut. Rows after the first; -1 for none."""

    cut: int  # last row of the longest episode that is cut
    cut_known: int  # its last row whose action is known
    known: int  # the same of all episodes

    @staticmethod
    def read(episodes: Episodes) -> "Clock":
        """The clock of these episodes alone."""
        start, end = _extent(episodes.ends)
        is_cut = episodes.bootstrap_only[end]
        length, known = end - start, last_known_action(episodes) - start
        return Clock(int(length[is_cut].max(initial=-1)), int(known[is_cut].max(initial=-1)), int(known.max()))

    def merge(self, other: "Clock") -> "Clock":
        """The clock of both together."""
        return Clock(*map(max, self, other))


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


def complete(episodes: Episodes, clock: Clock, discount: float) -> Bool[np.ndarray, " N"]:
    """Rows whose reward-to-go is complete, chosen by their distance to the cut and never by whether the task finished.

    Rows at least K steps before the cut count. An episode that ends by finishing would have been cut at the longest
    recorded cut of the data set, so it is held to the same clock; where nothing is ever cut, every row is complete.
    """
    if clock.cut < 0:
        return ~episodes.bootstrap_only
    start, end = _extent(episodes.ends)
    is_cut = episodes.bootstrap_only[end]
    rows = np.arange(len(start))
    remaining = np.where(is_cut, end - rows, clock.cut - (rows - start))
    return remaining >= completeness_horizon(discount)


def n_step_sums(
    episodes: Episodes,
    clock: Clock,
    discount: float,
    num_steps: int,
    chunk_length: int = 1,
    next_action_known: bool = True,
) -> Sums:
    """Sums of up to `num_steps` rewards and where they bootstrap.

    A finish ends the sum (discount 0). A cut bootstraps: from the last row whose chunk of actions is known where
    `next_action_known` is asked for, else from the last known state. Weight 0 marks rows that teach the value
    nothing: a chunk that leaves the episode or no room for one step.

    Bootstrapping from the last recorded action forgets that nothing finished after it. So an episode that finishes
    where others of the data set are cut is held to the same clock and bootstraps there too, or finishes would be
    counted too often.
    """
    if num_steps < chunk_length:
        raise EvorError(f"n_steps {num_steps} is below chunk_length {chunk_length}; a sum must cover its chunk.")
    rows = np.arange(len(episodes.ends))
    start, end = _extent(episodes.ends)
    is_cut = episodes.bootstrap_only[end]
    last_known = last_known_action(episodes)
    room = np.where(is_cut & next_action_known, last_known - chunk_length + 1, end)
    latest = np.full(len(rows), len(rows))  # row beyond which a finish is not seen: none
    outlived = clock.known > clock.cut_known  # by a finish: cuts were accidents then
    if next_action_known and clock.cut_known >= chunk_length and not outlived:
        latest[~is_cut] = (start + clock.cut_known - chunk_length + 1)[~is_cut]
    bootstrap = np.minimum(rows + num_steps, np.minimum(room, latest))
    steps = np.maximum(bootstrap - rows, 0)
    bootstrap = rows + steps

    finish = _next_finish(episodes.masks, end)
    finished = finish < np.minimum(rows + num_steps, latest)
    total = reward_to_go(episodes, discount)
    decay = discount ** steps.astype(np.float64)
    rewards = np.where(finished, total, total - decay * total[:, bootstrap])
    chunk_known = (rows + chunk_length - 1 <= last_known) | (finish < rows + chunk_length)
    # Where the next chunk is drawn anew, all of this one lies before it.
    weights = chunk_known & (finished | (steps >= (1 if next_action_known else chunk_length)))
    return Sums(rewards, np.where(finished, 0.0, decay), weights.astype(np.float32), bootstrap)


def last_known_action(episodes: Episodes) -> Int[np.ndarray, " N"]:
    """Find, for each row, the last row of its episode whose action was recorded."""
    _, end = _extent(episodes.ends)
    return end - ~episodes.action_known[end]


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
