"""Proposals of a base policy at every row of a dataset, drawn once: what a value over it learns from."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from evor.agents.bc import Bc
from evor.agents.registry import AGENTS
from evor.data.read import Data, find_dataset
from evor.data.source import NpzData, OgbenchData, Survey, survey
from evor.data.suspects import Rows
from evor.errors import EvorError, Terminated
from evor.policies.base_policy import TIMEOUT, BasePolicy, open_base
from evor.policies.drawing import BLOCK, Request, drawn_on
from evor.policies.inputs import keys_in
from evor.runtime import arguments
from evor.runtime.files import check_ours, write_json, write_npz
from evor.runtime.locks import hold
from evor.runtime.parallel import Local, Ray
from evor.runtime.progress import console, hushed
from evor.runtime.words import counted
from evor.training.comparison import check_alike, compare, recorded
from evor.training.drawn import TOLD, DrawnRows
from evor.training.over_base import NAME, concatenated, rows_digest
from evor.training.train import interruption

HERE = Local(1)  # this process alone
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
    machines: Local | Ray = HERE,
    quiet: bool = False,
) -> Path:
    """Draw `num` proposals of a base policy at every row of a dataset into the folder `out`, for `evor.train`:

        evor.propose("mine.npz", base="python:my_policy:propose", out="proposals")
        run = evor.train("mine.npz", proposals="proposals", out="runs/mine")

    `base` is a text (python:module:function, openpi:ws://host:8000, lerobot:FOLDER), a function (observations, num, seed)
    that returns [B, num, horizon, A], or an object with such a method `sample`. Of each proposal the first `chunk_length`
    actions are kept: as many as will be executed. With base=None only rows.npz and proposals.json are written, and
    proposals.npy [N, num, chunk_length, A], float32, is yours to write.

    With `machines`, processes of this machine or of a Ray cluster draw, each with a base policy of its own, which is then
    given as a text; a seeded policy draws the same. The same call goes on where it was stopped. One call of the base policy
    may take `base_timeout` seconds.

    Raises EvorError where the base policy can't be reached or used, where its actions are not in the units of the data,
    and where `out` holds proposals of something else.
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
            if machines != HERE and not isinstance(base, str):
                raise EvorError(
                    "a base policy that other processes open is given as a text, such as python:my_policy:propose; give one, or "
                    "draw in this process."
                )
            request = Request(
                base, base_timeout, keys=keys, num=num, chunk_length=chunk_length, width=identity["width"]
            )
            _draw(folder, request, rows=rows, surveyed=surveyed, identity=identity, machines=machines)
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
    request: Request,
    *,
    rows: list[Rows],
    surveyed: Survey,
    identity: dict[str, Any],
    machines: Local | Ray,
) -> None:
    """Compare, then draw what is missing. Raises KeyboardInterrupt where that is interrupted; what is drawn stays."""
    policy, bounds = open_base(request.base, timeout=request.timeout), surveyed.summary.action_bounds
    if not (folder / f"{NAME}.npy").exists():
        compared = recorded(rows, request.chunk_length, number=COMPARED)
        if len(compared.rows):
            seen = np.concatenate([concatenated(rows, row, stop=row + 1) for row in compared.rows])
            proposed = request.at(policy, seen, seed=0)
            check_alike(compare(proposed, compared.actions, bounds=bounds), name=policy.name, bounds=bounds)
    identity = identity | {"base": policy.name}
    files = DrawnRows(folder, (NAME,), shape=_shape(identity), block=BLOCK, identity=identity, keep=True)
    folder.mkdir(parents=True, exist_ok=True)
    key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    work = folder.absolute() / f".{key}.work"  # of other processes
    with (
        hold(folder / ".lock", "evor data propose"),
        interruption() as interrupted,
        _blocks(request, work, rows=rows, policy=policy, total=identity["rows"], machines=machines) as block_from,
    ):
        if complete := files.draw(block_from, interrupted):
            shutil.rmtree(work, ignore_errors=True)
    if not complete:
        console.print(f"interrupted; the same command goes on with {folder}.")
        raise Terminated if interrupted() == signal.SIGTERM else KeyboardInterrupt
    drawn = f"{request.num} proposals of {counted(request.chunk_length, 'action')} each"
    console.print(f"wrote {folder}: {counted(identity['rows'], 'row')}, {drawn}")


def _blocks(
    request: Request,
    work: Path,
    *,
    rows: list[Rows],
    policy: BasePolicy,
    total: int,
    machines: Local | Ray,
) -> AbstractContextManager[Callable[[int, int], np.ndarray]]:
    """A function that returns the proposals of the block of rows from a row on, drawn here or on other machines."""

    def observations(start: int, stop: int) -> np.ndarray:
        return concatenated(rows, start, stop=stop)

    def block_from(index: int, row: int) -> np.ndarray:
        return request.at(policy, observations(row, min(row + BLOCK, total)), seed=row)

    if machines == HERE:
        return nullcontext(block_from)
    return drawn_on(machines, request, work=work, total=total, rows=observations)


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
