"""Episodes -> what training learns returns from: rewards-to-go, which of them are complete, and n-step sums."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.errors import EvorError
from evor.types import Episodes

NEGLIGIBLE = 0.01  # a reward-to-go counts as complete once discount^steps falls below this


class Extents(NamedTuple):
    """First and last rows of episodes: an entry per episode, or per row (`by_row`)."""

    start: Int[np.ndarray, " N"]  # first row
    end: Int[np.ndarray, " N"]  # last row
    is_cut: Bool[np.ndarray, " N"]  # it ends by a cut, not by a finish
    last_known: Int[np.ndarray, " N"]  # last row whose action was recorded

    @staticmethod
    def read(episodes: Episodes) -> "Extents":
        """Find the extent of each episode."""
        end = np.flatnonzero(episodes.ends)
        return Extents(
            start=np.append(0, end[:-1] + 1),
            end=end,
            is_cut=episodes.bootstrap_only[end],
            last_known=end - ~episodes.action_known[end],
        )

    def by_row(self) -> "Extents":
        """Find, for each row, the extent of its episode."""
        lengths = self.end - self.start + 1
        return Extents(*(np.repeat(of_episode, lengths) for of_episode in self))


class Clock(NamedTuple):
    """Time limits of the whole dataset, which every part of it needs: rows after the first; -1 for none."""

    cut: int  # last row of the longest episode that is cut
    cut_known: int  # its last row whose action is known
    last_known: int  # the same of all episodes

    @staticmethod
    def read(extents: Extents) -> "Clock":
        """The clock of these episodes alone."""
        length, lengths_known = extents.end - extents.start, extents.last_known - extents.start
        return Clock(
            cut=int(length[extents.is_cut].max(initial=-1)),
            cut_known=int(lengths_known[extents.is_cut].max(initial=-1)),
            last_known=int(lengths_known.max()),
        )


class Returns(NamedTuple):
    """Rewards-to-go of some episodes, and what else their sums are made from."""

    discount: float
    clock: Clock  # of the whole dataset
    extents: Extents  # by row
    to_go: Float[np.ndarray, "K N"]  # as `reward_to_go` gives them
    complete: Bool[np.ndarray, " N"]  # whether a row's reward-to-go is

    @staticmethod
    def read(episodes: Episodes, discount: float, *, clock: Clock | None = None) -> "Returns":
        """Compute each of them once. Without a clock, these episodes are the whole dataset."""
        of_episodes = Extents.read(episodes)
        clock = Clock.read(of_episodes) if clock is None else clock
        extents = of_episodes.by_row()
        return Returns(
            discount=discount,
            clock=clock,
            extents=extents,
            to_go=reward_to_go(episodes, discount),
            complete=complete(episodes, extents, clock=clock, discount=discount),
        )


class Sums(NamedTuple):
    """Sums of n rewards, in the reward's own units."""

    rewards: Float[np.ndarray, "K N"]
    discounts: Float[np.ndarray, "K N"]  # discount^steps * mask
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


def complete(episodes: Episodes, extents: Extents, *, clock: Clock, discount: float) -> Bool[np.ndarray, " N"]:
    """Rows whose reward-to-go is complete, chosen by their distance to the cut and never by whether the task finished.

    Rows at least K steps before the cut count. An episode that ends by finishing would have been cut at the longest
    recorded cut of the dataset, so it is held to the same clock; where nothing is ever cut, every row is complete.
    """
    if clock.cut < 0:
        return ~episodes.bootstrap_only
    return outlasting(extents, clock=clock, steps=completeness_horizon(discount))


def outlasting(extents: Extents, *, clock: Clock, steps: int) -> Bool[np.ndarray, " N"]:
    """Rows at least so many steps before the cut of their episode, finished ones held to the clock as in `complete`."""
    rows = np.arange(len(extents.start))
    remaining = np.where(extents.is_cut, extents.end - rows, clock.cut - (rows - extents.start))
    return remaining >= steps


def n_step_sums(
    episodes: Episodes,
    returns: Returns,
    *,
    num_steps: int,
    chunk_length: int = 1,
    next_action_known: bool = True,
    next_action_taken: bool = True,
) -> Sums:
    """Sums of up to `num_steps` rewards and where they bootstrap.

    A finish ends the sum (discount 0). A cut bootstraps: from the last row whose chunk of actions is known where
    `next_action_known` is asked for, else from the last known state. Weight 0 marks rows without a value
    target: a chunk that leaves the episode, or no room for one step; of the whole chunk, unless the next one is the
    dataset's (`next_action_known` and `next_action_taken`), which may begin within this one.

    Bootstrapping from the last recorded action forgets that nothing finished after it. So an episode that finishes
    where others of the dataset are cut is held to the same clock and bootstraps there too, or finishes would be
    counted too often.
    """
    if num_steps < chunk_length:
        raise EvorError(f"n_steps {num_steps} is below chunk_length {chunk_length}; a sum must cover its chunk.")
    (start, end, is_cut, last_known), clock, total = returns.extents, returns.clock, returns.to_go
    rows = np.arange(len(end))
    last_bootstrap = np.where(is_cut & next_action_known, last_known - chunk_length + 1, end)
    latest = np.full(len(rows), len(rows))  # row beyond which a finish is not seen: none
    outlived = clock.last_known > clock.cut_known  # by a finish: cuts were accidents then
    if next_action_known and clock.cut_known >= chunk_length and not outlived:
        latest[~is_cut] = (start + clock.cut_known - chunk_length + 1)[~is_cut]
    bootstrap = np.minimum(rows + num_steps, np.minimum(last_bootstrap, latest))
    steps = np.maximum(bootstrap - rows, 0)
    bootstrap = rows + steps

    finish = _next_finish(episodes.masks, end)
    finished = finish < np.minimum(rows + num_steps, latest)
    decay = returns.discount ** steps.astype(np.float64)
    rewards = np.where(finished, total, total - decay * total[:, bootstrap])
    chunk_known = (rows + chunk_length - 1 <= last_known) | (finish < rows + chunk_length)
    # Where the next chunk may be drawn anew, all of this one lies before it.
    least = 1 if next_action_known and next_action_taken else chunk_length
    weights = chunk_known & (finished | (steps >= least))
    return Sums(
        rewards=rewards,
        discounts=np.where(finished, 0.0, decay),
        weights=weights.astype(np.float32),
        bootstrap=bootstrap,
    )


def _next_finish(masks: Float[np.ndarray, "K N"], end: Int[np.ndarray, " N"]) -> Float[np.ndarray, "K N"]:
    """First row at or after each row, in the same episode, where the task is finished; infinity where there is none."""
    rows = np.arange(masks.shape[1], dtype=np.float64)
    finish = np.minimum.accumulate(np.where(masks == 0, rows, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return np.where(finish <= end, finish, np.inf)
