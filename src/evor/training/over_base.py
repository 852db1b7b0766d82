"""A value over a frozen base policy: the proposals that its targets look up, and what such a run may ask for."""

import hashlib
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from evor.agents.base import Frozen, is_frozen
from evor.agents.next_action import BestAction, DatasetAction
from evor.agents.registry import AGENTS, AgentConfig
from evor.data.columns import Columns
from evor.data.standardisation import Standardisation
from evor.data.suspects import Pieces, Rows
from evor.errors import EvorError, why
from evor.runtime.files import expand, read_json
from evor.runtime.records import replace
from evor.training.comparison import check_alike, compare, recorded
from evor.training.config import RunConfig
from evor.training.drawn import TOLD
from evor.types import ActionBounds

NAME = "proposals"  # NAME.npy, beside TOLD
READ = 4096  # rows that are checked at a time
IDENTIFIED = 1000  # rows that tell one file from another


class Proposals(NamedTuple):
    """Proposals of a base policy at every row of a dataset, in the units of its actions."""

    folder: Path
    array: Float[np.ndarray, "N K h A"]  # on disk
    data: str  # which rows they are of, see `rows_digest`
    base: str | None  # name of the policy; None where somebody else wrote them

    @property
    def number(self) -> int:
        """Proposals of a row."""
        return self.array.shape[1]

    @property
    def chunk_length(self) -> int:
        """Actions of a proposal."""
        return self.array.shape[2]

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that a run keeps of them: whose they are, and a digest."""
        hasher = hashlib.sha256(self.data.encode())
        hasher.update(np.ascontiguousarray(self.array[:IDENTIFIED]).tobytes())
        sizes = {"number": self.number, "chunk_length": self.chunk_length}
        return {"base": self.base, **sizes, "digest": hasher.hexdigest()[:16]}

    def check(self, pieces: Pieces, bounds: ActionBounds) -> None:
        """Raise EvorError where they are of other data, not finite, or in other units; tell how they compare."""
        rows = list(pieces())
        there = (sum(len(piece.actions) for piece in rows), rows[0].actions.shape[1])
        if self.data != rows_digest(rows) or (len(self.array), self.array.shape[3]) != there:
            raise EvorError(
                f"{self.folder} holds proposals for other data; make those of these data with `evor data propose`."
            )
        for start in range(0, len(self.array), READ):
            if not (finite := np.isfinite(self.array[start : start + READ])).all():
                row = start + int(np.argwhere(~finite)[0][0])
                raise EvorError(f"{self.folder}/{NAME}.npy is not finite in row {row}; write that row again.")
        at = recorded(rows, self.chunk_length)
        if len(at.rows):
            name = self.base or str(self.folder)
            check_alike(compare(self.array[at.rows], at.actions, bounds=bounds), name=name, bounds=bounds)

    def with_rows(self, columns: Columns, scale: Standardisation, *, first_row: int) -> Columns:
        """Columns with proposals where each sampled row's sum bootstraps; they begin at a row of the dataset."""
        rows = first_row + np.asarray(columns.bootstrap)[np.asarray(columns.sampled_rows)]
        scaled = np.empty((1, len(rows), self.number, self.chunk_length * self.array.shape[3]), np.float32)
        for start in range(0, len(rows), READ):
            part = rows[start : start + READ]
            own = np.clip(self.array[part], *scale.action_bounds.sides).reshape(-1, self.array.shape[3])
            scaled[0, start : start + READ] = scale.actions(own).reshape(len(part), self.number, -1)
        return columns._replace(proposals=jnp.asarray(scaled))


def rows_digest(pieces: Iterable[Rows]) -> str:
    """Digest of the observations and actions of all rows, however they are cut into pieces."""
    observations, actions = hashlib.sha256(), hashlib.sha256()
    for piece in pieces:
        observations.update(np.ascontiguousarray(piece.observations, np.float32).tobytes())
        actions.update(np.ascontiguousarray(piece.actions, np.float32).tobytes())
    return hashlib.sha256(observations.digest() + actions.digest()).hexdigest()[:16]


def read_proposals(given: str | Path) -> Proposals:
    """Open a folder of proposals. Raises EvorError where it is none, or they are not all there."""
    folder = expand(given)
    path = folder / f"{NAME}.npy"
    if not (folder / TOLD).is_file():
        raise EvorError(
            f"{folder} holds no proposals; make them with `evor data propose DATA --base SPEC --out {shlex.quote(str(folder))}`."
        )
    told = read_json(folder / TOLD, data=str, number=int, chunk_length=int, rows=int, width=int)
    shape = tuple(told[name] for name in ("rows", "number", "chunk_length", "width"))
    if not path.is_file():
        raise EvorError(f"{folder} has no {NAME}.npy yet; write it, {list(shape)}, float32, in the order of rows.npz.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise EvorError(
            f"{path} is not complete, or damaged ({why(error)}); the same `evor data propose` goes on with it."
        ) from error
    if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else " in Fortran's order"
        raise EvorError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}{order}; float32 {list(shape)} in C's order is needed."
        )
    return Proposals(folder=folder, array=array, data=told["data"], base=told.get("base"))


def over_proposals(given: AgentConfig, proposals: Proposals) -> AgentConfig:
    """An agent's settings over a frozen base policy: its chunks, and sums as long as one. The search is among those stored.

    Raises EvorError where the agent's base policy can't be frozen.
    """
    agent: Any = given
    if not hasattr(agent, "base"):
        names = " or ".join(kind.__name__ for kind in AGENTS if hasattr(kind(), "base"))
        raise EvorError(
            f"proposals go with {names}, whose base policy may be your own, and not with {type(agent).__name__}; choose "
            "another --agent."
        )
    changes: dict[str, Any] = {
        "base": agent.base if is_frozen(agent) else Frozen(),
        "chunk_length": proposals.chunk_length,
    }
    if hasattr(agent, "n_steps"):
        changes["n_steps"] = proposals.chunk_length
    elif agent.objective.n_steps is not None:
        changes["objective"] = replace(agent.objective, n_steps=proposals.chunk_length)
    if isinstance(chosen := agent.next_action, BestAction):
        number = proposals.number
        changes["next_action"] = replace(chosen, num_candidates=min(chosen.num_candidates, number), num_stored=number)
    return replace(agent, **changes)


def check_over_base(config: RunConfig, proposals: Proposals | None) -> None:
    """Raise EvorError where the settings of a run do not go with a frozen base policy, or with these proposals."""
    agent: Any = config.agent
    if not is_frozen(agent):
        if proposals is not None:
            raise EvorError(
                "proposals go with a base policy of your own; choose it (--agent.base frozen, base=Frozen())."
            )
        return
    spec = AGENTS[type(agent)].data_spec(agent)
    chosen = getattr(agent, "bootstraps_with", agent.next_action)
    if isinstance(chosen, DatasetAction):
        return
    if proposals is None:
        raise EvorError(
            f"{type(chosen).__name__} needs proposals of the frozen base policy; give --proposals, or learn from the data's own "
            "actions (--agent.next-action dataset-action)."
        )
    if spec.chunk_length != proposals.chunk_length:
        raise EvorError(
            f"chunk_length is {spec.chunk_length}, and the proposals have {proposals.chunk_length} actions; give "
            f"--agent.chunk-length {proposals.chunk_length}, or make others."
        )
    if isinstance(chosen, BestAction) and chosen.num_candidates > proposals.number:
        raise EvorError(
            f"num_candidates is {chosen.num_candidates}, and a row has {proposals.number} proposals; compare fewer "
            "(--agent.next-action.num-candidates), or make more."
        )
    if spec.num_steps != spec.chunk_length and not agent.base.cloned_this_data:
        raise EvorError(
            f"n_steps is {spec.num_steps}, and a chunk has {spec.chunk_length}: the other rewards would be those of the "
            f"policy that recorded the data. Give n_steps {spec.chunk_length}, or, if your policy was trained on these very "
            "data, --agent.base.cloned-this-data."
        )


def changed_by(proposals: Proposals, data: Any) -> Callable[[int, Columns], Columns]:
    """The change of each block of columns: proposals where its sums bootstrap."""
    return lambda index, columns: proposals.with_rows(columns, data.scale, first_row=data.first_row(index))


def concatenated(pieces: Sequence[Rows], start: int, *, stop: int) -> Float[np.ndarray, "B O"]:
    """Observations of some rows of the whole dataset."""
    parts, first = [], 0
    for piece in pieces:
        low, high = max(start - first, 0), min(stop - first, len(piece.observations))
        if low < high:
            parts.append(np.asarray(piece.observations[low:high], np.float32))
        first += len(piece.observations)
    return np.concatenate(parts)
