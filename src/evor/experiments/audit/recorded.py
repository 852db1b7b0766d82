"""Held-out episodes: which data are refused, and the rows whose realised returns are compared with predictions."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evor.data import source
from evor.data.read import find_dataset, is_name
from evor.data.returns import Clock, Extents, Returns, completeness_horizon, n_step_sums, outlasting
from evor.data.source import Dataset, OgbenchData
from evor.data.suspects import identities, rows_of
from evor.errors import EvorError
from evor.policies.load import Run
from evor.policies.policy import Policy
from evor.report.statistics import in_deviations
from evor.runtime import arguments
from evor.runtime.words import counted
from evor.training.config import read_identity
from evor.training.data import load_episodes
from evor.types import Episodes, digest

NEEDED = 10  # episodes: an interval of fewer is too narrow by far
SHARE = 0.01  # of a column's standard deviation: observations that differ by less are one state
UNCHECKED = (
    "an export does not hold the digest of its training data, so it was not checked that these data are held out"
)


class HeldOut(NamedTuple):
    """Held-out episodes of one task."""

    title: str
    episodes: Episodes
    notes: tuple[str, ...]  # on what could not be checked


class Recorded(NamedTuple):
    """Rows at which a decision was recorded to its end, and what it came to."""

    rows: Int[np.ndarray, " R"]
    episode: Int[np.ndarray, " R"]  # numbers of episodes
    realised: Float[np.ndarray, " R"]  # discounted sum of the next `window` rewards, in the reward's own units
    window: int
    is_complete: bool  # what follows the window is negligible, or nothing does

    def at(self, index: np.ndarray) -> "Recorded":
        """Some of the rows."""
        return self._replace(rows=self.rows[index], episode=self.episode[index], realised=self.realised[index])


def read_held_out(data: Any, policy: Policy, *, run: Run | None, sparse_rewards: bool) -> HeldOut:
    """Read the episodes that a value is audited on.

    Raises EvorError on data of other sizes, without rewards, or that the run was trained on.
    """
    dataset = _dataset(data, policy, run=run, sparse_rewards=sparse_rewards)
    episodes = source.load_episodes(dataset)
    title = str(data) if isinstance(data, str | os.PathLike) else dataset.title
    if episodes.spec != policy.spec:
        (o, a), (wanted_o, wanted_a) = episodes.spec, policy.spec
        raise EvorError(
            f"{title} has observations of {o} and actions of {a} numbers, and the value was trained on {wanted_o} and "
            f"{wanted_a}; give held-out episodes of the same robot."
        )
    if episodes.action_bounds != policy.action_bounds:
        raise EvorError(
            f"{title} has actions in {episodes.action_bounds}, and the value was trained on actions in "
            f"{policy.action_bounds}; give data in the same units, with the same action_low and action_high."
        )
    notes = (UNCHECKED,) if run is None else _check_unseen(episodes, run, title=title)
    index = dataset.tasks.index(policy.origin["task"]) if isinstance(dataset, OgbenchData) else 0
    only = slice(index, index + 1)
    of_task = episodes._replace(rewards=episodes.rewards[only], masks=episodes.masks[only], tasks=(1,))
    return HeldOut(title=title, episodes=of_task, notes=notes)


def _dataset(data: Any, policy: Policy, *, run: Run | None, sparse_rewards: bool) -> Dataset:
    """The dataset that is meant. Files for a value of an OGBench task get the rewards of that task."""
    name = policy.origin["dataset"] if run is None else run.config.dataset
    if name is None or not is_name(str(name)):
        return find_dataset(data, data_folder=None, tasks=(1,), sparse_rewards=sparse_rewards)
    folder = None if data == name and not Path(name).exists() else arguments.folder(data)
    if run is None:
        return OgbenchData(name, (policy.origin["task"],), folder=folder, sparse_rewards=sparse_rewards)
    if sparse_rewards and not run.config.sparse_rewards:
        raise EvorError(
            f"sparse_rewards (--sparse-rewards) is for exports, and {run.folder} was trained without; leave it out."
        )
    return OgbenchData(name, run.config.tasks, folder=folder, sparse_rewards=run.config.sparse_rewards)


def _check_unseen(episodes: Episodes, run: Run, *, title: str) -> tuple[str, ...]:
    """Raise EvorError where the run was trained on these data, or on some of the episodes. Returns what was not checked."""
    remedy = "A verdict needs episodes that training has not seen: take some out of the data, train without them, and give those."
    assert run.folder is not None
    if digest(episodes) == (known := read_identity(run.folder / "config.json")["data_digest"]):
        raise EvorError(f"{run.folder} was trained on {title} (digest {known}). {remedy}")
    try:
        if run.config.memory_gb is not None:
            raise EvorError("they are larger than memory")
        trained = load_episodes(run.config)
    except EvorError as error:
        return (f"single episodes were not looked for in the training data, which can't be read now ({error})",)
    seen = {identity for identity, _ in identities(rows_of(trained))}
    again = [number for number, (identity, _) in enumerate(identities(rows_of(episodes))) if identity in seen]
    if again:
        raise EvorError(
            f"{counted(len(again), 'episode')} of {title} {'is' if len(again) == 1 else 'are'} in the data that {run.folder} was "
            f"trained on (counted from 0, the first is {again[0]}). {remedy}"
        )
    return ()


def compared_rows(held_out: HeldOut, *, discount: float, chunk_length: int) -> Recorded:
    """Find the rows whose realised return is known.

    It is the discounted sum of the first `window` rewards from a row, or of those up to the finish. The window is as long as
    discount^window stays above 1 %, as in training: what follows is negligible. Where episodes are cut too early for that, it is
    half of their median length. Rows count by their distance to the cut and never by their outcome (see `complete` in
    data/returns.py). Raises EvorError where fewer than NEEDED episodes have such a row.
    """
    episodes = held_out.episodes
    of_episodes = Extents.read(episodes)
    extents, clock = of_episodes.by_row(), Clock.read(of_episodes)
    lengths = of_episodes.end - of_episodes.start + 1
    number = np.repeat(np.arange(len(lengths)), lengths)
    known = np.arange(len(number)) + chunk_length - 1 <= extents.last_known
    windows = [(int(lengths.max()), True)]
    if clock.cut >= 0:
        half = max(chunk_length, int(np.median(lengths[of_episodes.is_cut])) // 2)
        windows = [(max(chunk_length, completeness_horizon(discount)), True), (half, False)]
    count = 0
    for window, is_complete in windows:
        counts = known if clock.cut < 0 else known & outlasting(extents, clock=clock, steps=window)
        rows = np.flatnonzero(counts)
        if (count := len(np.unique(number[rows]))) >= NEEDED:
            sums = n_step_sums(
                episodes,
                Returns.read(episodes, discount),
                num_steps=max(window, chunk_length),
                chunk_length=chunk_length,
                next_action_known=False,
            )
            # To float32: equal sums are equal, however they were added up.
            realised = sums.rewards[0, rows].astype(np.float32).astype(np.float64)
            return Recorded(rows=rows, episode=number[rows], realised=realised, window=window, is_complete=is_complete)
    raise EvorError(
        f"{held_out.title} has {count} episodes that are long enough to know a return from, of {len(lengths)}, and at least "
        f"{NEEDED} are needed for an interval; hold out more episodes."
    )


def thinned(recorded: Recorded, number: int) -> Recorded:
    """Keep at most so many rows: evenly spaced episodes, and evenly spaced rows of each."""
    ends = np.flatnonzero(np.diff(recorded.episode)) + 1
    parts = np.split(np.arange(len(recorded.rows)), ends)
    parts = [parts[i] for i in _spaced(len(parts), number)]
    most = max(1, number // len(parts))
    return recorded.at(np.concatenate([part[_spaced(len(part), most)] for part in parts]))


def _spaced(length: int, number: int) -> np.ndarray:
    """Choose at most so many of the first `length` whole numbers, evenly spaced."""
    return np.arange(length) if length <= number else ((np.arange(number) + 0.5) * length / number).astype(int)


def repeated_states(
    recorded: Recorded, observations: Float[np.ndarray, "N O"], *, number: int
) -> tuple[Recorded, np.ndarray]:
    """Find states that several episodes went through: their rows, one of each episode, and the number of their state.

    Observations are one state where they are equal after rounding to SHARE of each column's standard deviation. At most
    `number` rows, those of the states with the most episodes.
    """
    own = observations[recorded.rows].astype(np.float64)
    _, state = np.unique(np.rint(in_deviations(own, SHARE * own.std(axis=0))), axis=0, return_inverse=True)
    pairs = np.stack([state.ravel(), recorded.episode], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)  # ordered by state
    state = state.ravel()[first]
    count = np.bincount(state)[state]
    order = np.lexsort((state, -count))[:number]  # the last state may lose some of its rows
    order = order[np.bincount(state[order])[state[order]] > 1]
    return recorded.at(first[order]), state[order]
