"""Proposals of a base policy at every row of a dataset, drawn once: what a value over it learns from."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from evor.agents.bc import Bc
from evor.agents.registry import AGENTS
from evor.data.read import Data, find_dataset
from evor.data.source import NpzData, OgbenchData, Survey, survey
from evor.data.suspects import Rows
from evor.errors import EvorError, Terminated
from evor.policies.base_policy import TIMEOUT, BasePolicy, by_keys, draw, open_base
from evor.policies.inputs import keys_in
from evor.runtime import arguments
from evor.runtime.files import check_ours, write_json, write_npz
from evor.runtime.locks import hold
from evor.runtime.progress import console, hushed
from evor.runtime.words import counted
from evor.training.comparison import check_alike, compare, recorded
from evor.training.drawn import TOLD, DrawnRows
from evor.training.over_base import NAME, concatenated, rows_digest
from evor.training.train import interruption

BLOCK = 32  # observations that a base policy gets at once; what is drawn of them is kept
COMPARED = 32  # rows whose proposals are compared before anything is written
ROWS_FILE = "rows.npz"  # the rows that somebody else is to write proposals for


def propose(
    data: Data,
    *,
    base: Any,
    out: str | os.PathLike[str],
    num: int = 8,
    chunk_length: int = 1,
    data_folder: str | os.PathLike[str] | None = None,
    base_timeout: float = TIMEOUT,
    memory_gb: float | None = None,
    quiet: bool = False,
) -> Path:
    """Draw `num` proposals of a base policy at every row of a dataset into the folder `out`, for `evor.train`:

        evor.propose("mine.npz", base="python:my_policy:propose", out="proposals")
        run = evor.train("mine.npz", proposals="proposals", out="runs/mine")

    `base` is a text (python:module:function, openpi:ws://host:8000, lerobot:FOLDER), a function (observations, num, seed)
    that returns [B, num, horizon, A], or an object with such a method `sample`. Of each proposal the first `chunk_length`
    actions are kept: as many as will be executed. With base=None only rows.npz and proposals.json are written, and
    proposals.npy [N, num, chunk_length, A], float32, is yours to write.

    The same call goes on where it was stopped. One call of the base policy may take `base_timeout` seconds. Raises EvorError
    where the base policy can't be reached or used, where its actions are not in the units of the data, and where `out`
    holds proposals of something else.
    """
    sizes = arguments.count(1, num=num), arguments.count(1, chunk_length=chunk_length)
    folder = arguments.folder(out)
    with hushed(quiet):
        check_ours(folder, folder / TOLD, kind="folder of proposals")
        dataset = find_dataset(data, data_folder=data_folder, tasks=(1,), sparse_rewards=False)
        keys = keys_in({"imported": dataset.imported()}) if isinstance(dataset, NpzData) else ()
        if not isinstance(dataset, OgbenchData):
            dataset = dataset._replace(needs_rewards=False)
        surveyed = survey(dataset, AGENTS[Bc].data_spec(Bc(chunk_length=sizes[1])), memory_gb=memory_gb)
        rows = list(surveyed.pieces())
        identity = _identity(rows, surveyed, sizes=sizes)
        if base is None:
            _lay_out(folder, rows, identity=identity)
        else:
            _draw(
                folder,
                open_base(base, timeout=base_timeout),
                rows=rows,
                surveyed=surveyed,
                identity=identity,
                keys=keys,
            )
    return folder


def _identity(rows: list[Rows], surveyed: Survey, *, sizes: tuple[int, int]) -> dict[str, Any]:
    """Identity of the proposals, as proposals.json has it: the data, and the shape."""
    return {
        "data": rows_digest(rows),
        "rows": sum(len(piece.observations) for piece in rows),
        "number": sizes[0],
        "chunk_length": sizes[1],
        "width": surveyed.summary.spec.action_dim,
    }


def _shape(identity: dict[str, Any]) -> tuple[int, ...]:
    return tuple(identity[name] for name in ("rows", "number", "chunk_length", "width"))


def _draw(
    folder: Path,
    base: BasePolicy,
    *,
    rows: list[Rows],
    surveyed: Survey,
    identity: dict[str, Any],
    keys: tuple[tuple[str, int], ...],
) -> None:
    """Compare, then draw what is missing. Raises KeyboardInterrupt where that is interrupted; what is drawn stays."""
    _, num, chunk_length, width = _shape(identity)

    def at(observations: np.ndarray, seed: int) -> np.ndarray:
        given, count = by_keys(observations, keys), len(observations)
        drawn = draw(base, given, rows=count, num=num, seed=seed, chunk_length=chunk_length, width=width)
        return drawn[:, :, :chunk_length]

    total = identity["rows"]
    bounds = surveyed.summary.action_bounds
    if not (folder / f"{NAME}.npy").exists():
        compared = recorded(rows, chunk_length, number=COMPARED)
        if len(compared.rows):
            seen = np.concatenate([concatenated(rows, row, stop=row + 1) for row in compared.rows])
            check_alike(compare(at(seen, 0), compared.actions, bounds=bounds), name=base.name, bounds=bounds)
    files = DrawnRows(
        folder, (NAME,), shape=_shape(identity), block=BLOCK, identity=identity | {"base": base.name}, keep=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / ".lock", "evor data propose"), interruption() as interrupted:
        complete = files.draw(
            lambda index, row: at(concatenated(rows, row, stop=min(row + BLOCK, total)), row), interrupted
        )
    if not complete:
        console.print(f"interrupted; the same command goes on with {folder}.")
        raise Terminated if interrupted() == signal.SIGTERM else KeyboardInterrupt
    console.print(f"wrote {folder}: {counted(total, 'row')}, {num} proposals of {counted(chunk_length, 'action')} each")


def _lay_out(folder: Path, rows: list[Rows], *, identity: dict[str, Any]) -> None:
    """Write everything but the proposals, which somebody else writes."""
    if (folder / TOLD).exists():
        raise EvorError(f"{folder} holds proposals already; choose another folder, or remove it.")
    lengths = np.concatenate([np.diff(np.append(piece.starts, len(piece.observations))) for piece in rows])
    folder.mkdir(parents=True, exist_ok=True)
    write_npz(
        folder / ROWS_FILE,
        {
            "observations": concatenated(rows, 0, stop=identity["rows"]),
            "episode": np.repeat(np.arange(len(lengths)), lengths),
            "step": np.concatenate([np.arange(length) for length in lengths]),
        },
    )
    write_json(folder / TOLD, identity | {"base": None, "seconds": 0.0})
    console.print(
        f"wrote {folder / ROWS_FILE}; write proposals of its rows as {folder / NAME}.npy, float32 {list(_shape(identity))}."
    )
