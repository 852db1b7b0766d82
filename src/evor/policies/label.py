"""Values of recorded actions, frame by frame: a table beside a dataset, which stays as it is."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from evor.data.formats.arrow import pyarrow
from evor.data.read import Data, find_dataset
from evor.data.source import OgbenchData, load_episodes
from evor.data.suspects import rows_of
from evor.errors import EvorError
from evor.policies.base_policy import TIMEOUT
from evor.policies.load import load
from evor.policies.policy import Policy
from evor.policies.predicted import predict, recorded_actions
from evor.policies.searched import SearchedPolicy
from evor.report.calibration import LEVELS
from evor.runtime import arguments
from evor.runtime.files import atomic_path
from evor.runtime.progress import console, hushed, progress_bar
from evor.runtime.words import counted
from evor.search.extraction import BestOf
from evor.training.over_base import read_proposals, rows_digest
from evor.types import Episodes

ROWS = 256  # that are computed at once


def label(
    run: str | os.PathLike[str],
    data: Data,
    *,
    out: str | os.PathLike[str],
    base: Any = None,
    base_timeout: float = TIMEOUT,
    proposals: str | os.PathLike[str] | None = None,
    num: int = 8,
    task: int | None = None,
    seed: int | None = None,
    step: int | None = None,
    data_folder: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Path:
    """Write what a trained value says of every recorded frame into the parquet file `out`, which needs pyarrow.

    A row has `episode_index` and `frame_index`, from 0 in the order of the data; `value`, the mean return of the recorded
    action; its quantiles `q10` to `q90`; and `advantage`, the score of this action minus the mean score of proposals at the
    same observation. Scores are means, too, of fewer quantiles in fewer flow steps, as a search reads them. All are in the
    reward's own units. Where the agent chunks, actions are chunks, and frames without a whole one have empty cells.

    The proposals are those in the folder `proposals`, or `num` draws of `base` (see `load`), or of the run's own base policy.
    One call of `base` may take `base_timeout` seconds.

    Raises EvorError where the policy has no value or nothing proposes, on data of other sizes or bounds, and where `out`
    does not end in .parquet, can't be written, or is something else.
    """
    path, number = arguments.folder(out), arguments.count(1, num=num)
    parquet = pyarrow("pyarrow.parquet")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise EvorError(f"out (--out) {path} {what}; give a file in a folder that exists.")
    if not os.access(path.parent, os.W_OK):  # told before anything is computed
        raise EvorError(f"out (--out) {path} can't be written; give a file in a folder that can be written.")
    if path.suffix != ".parquet":
        raise EvorError(f"out (--out) is {path}, and the table is a parquet file; give {path.with_suffix('.parquet')}.")
    if path.exists() and not _is_label(path, parquet):
        raise EvorError(f"out (--out) {path} exists and is no table of evor label; give another file.")
    if base is not None and proposals is not None:
        raise EvorError("base and proposals (--base, --proposals) are both given; give one of the two.")
    with hushed(quiet):
        policy = load(arguments.folder(run), task, seed=seed, step=step, base=base, base_timeout=base_timeout)
        if not policy.has_value:
            raise EvorError(f"a {type(policy.config).__name__} policy has no value to label with; train another agent.")
        dataset = find_dataset(data, data_folder=data_folder, tasks=(1,), sparse_rewards=False)
        episodes = load_episodes(dataset if isinstance(dataset, OgbenchData) else dataset._replace(needs_rewards=False))
        if episodes.spec != policy.spec or episodes.action_bounds != policy.action_bounds:
            raise EvorError(
                f"{dataset.title} has other sizes or bounds ({_recorded_as(episodes)}) than the data of {run} "
                f"({_recorded_as(policy)}); label the data that it was trained on, or data that were recorded alike."
            )
        stored = None if proposals is None else _stored(proposals, episodes, policy=policy)
        if stored is None and isinstance(policy, SearchedPolicy):
            policy.require_base()
        table = _table(policy, episodes, stored=stored, number=number)
        with atomic_path(path) as temporary:
            parquet.write_table(pyarrow().table(table), temporary)
        console.print(f"wrote {path}: {counted(len(table['value']), 'frame')}")
    return path


def _recorded_as(data: Episodes | Policy) -> str:
    """Sizes and bounds in words."""
    (observation, action), bounds = data.spec, data.action_bounds
    return f"observations of {observation} numbers, actions of {action} in {bounds}"


def _is_label(path: Path, parquet: Any) -> bool:
    """Whether a file is a table that this wrote."""
    try:
        names = parquet.read_schema(path).names
    except Exception:  # whatever damaged bytes make a parser raise
        return False
    return {"episode_index", "frame_index", "value", "advantage"} <= set(names)


def _stored(folder: Any, episodes: Episodes, *, policy: Policy) -> Float[np.ndarray, "N K h A"]:
    """Proposals in a folder for these data. Raises EvorError."""
    read = read_proposals(arguments.folder(folder))
    if read.data != rows_digest([rows_of(episodes)]) or read.chunk_length != policy.config.chunk_length:
        raise EvorError(
            f"{folder} holds proposals for other data, or of another chunk_length; make those of these data."
        )
    return read.array


def _table(policy: Policy, episodes: Episodes, *, stored: Any, number: int) -> dict[str, np.ndarray]:
    rows = np.flatnonzero(episodes.action_known)
    starts = np.append(0, np.flatnonzero(episodes.ends)[:-1] + 1)
    episode = np.searchsorted(starts, rows, side="right") - 1
    values = np.full((len(rows), 2 + len(LEVELS)), np.nan, np.float32)
    whole = _whole(episodes, rows, length=policy.config.chunk_length)
    with progress_bar("label", len(whole), unit="frames") as advance:
        for start in range(0, len(whole), ROWS):
            part = whole[start : start + ROWS]
            values[part] = _of_rows(policy, episodes, rows=rows[part], stored=stored, number=number)
            advance(len(part))
    quantiles = {f"q{100 * level:.0f}": values[:, 2 + index] for index, level in enumerate(LEVELS)}
    frame = rows - starts[episode]
    return {
        "episode_index": episode,
        "frame_index": frame,
        "value": values[:, 0],
        **quantiles,
        "advantage": values[:, 1],
    }


def _whole(episodes: Episodes, rows: Int[np.ndarray, " F"], *, length: int) -> Int[np.ndarray, " W"]:
    """Places among the rows from which on a whole chunk was recorded."""
    ends = np.flatnonzero(episodes.ends)
    last = ends[np.searchsorted(ends, rows)]
    return np.flatnonzero(rows + length - 1 <= last - ~episodes.action_known[last])


def _of_rows(
    policy: Policy, episodes: Episodes, *, rows: Int[np.ndarray, " B"], stored: Any, number: int
) -> Float[np.ndarray, "B 7"]:
    """Value, advantage and quantiles of the recorded actions."""
    length = policy.config.chunk_length
    observations = episodes.observations[rows]
    taken = recorded_actions(policy, episodes, rows=rows)
    if stored is None:
        proposed = policy.decide(observations, rows, extraction=BestOf(number)).candidates
    else:
        own = np.clip(np.asarray(stored[rows]), *policy.action_bounds.sides)
        proposed = own if length > 1 else own[:, :, 0]
    candidates = np.concatenate([taken[:, None], proposed], axis=1)
    scores = policy.choose(observations, candidates, seed=0, extraction=BestOf()).scores
    predicted = predict(policy, observations, actions=taken)
    advantage = scores[:, 0] - scores[:, 1:].mean(axis=1)
    return np.column_stack([predicted.mean, advantage, predicted.quantiles])
