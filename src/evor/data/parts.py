"""A part of a dataset on disk: a folder of arrays, finished or not there."""

import contextlib
import json
import os
import shutil
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.bounds import RewardRange
from evor.data.columns import Columns, Layout, has_targets
from evor.data.load import piece
from evor.data.outliers import Piece
from evor.data.standardisation import DataStatistics, Moments
from evor.data.suspects import Rows
from evor.errors import EvorError, why
from evor.runtime.files import unique, write_json
from evor.types import Episodes

ON_DISK = {"sampled_rows": "rows", "last_action_row": "last"}  # names of files, where they are not those of columns


class Part(NamedTuple):
    """Some rows of a dataset, laid out; each array is read where it is needed."""

    folder: Path
    rows: int
    statistics: DataStatistics
    has_targets: np.ndarray
    has_full_returns: bool

    def array(self, name: str) -> np.ndarray:
        """An array on disk. Raises EvorError where it is gone or damaged."""
        with undamaged(self.folder):
            return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def columns(self, low: int, high: int) -> Columns:
        """Columns of the rows from `low` to `high`, counted from the first of them."""
        rows, span = self.array("rows"), slice(low, high)
        picked = rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)] - low
        return Columns(
            observations=self.array("observations")[span],
            actions=self.array("actions")[span],
            sampled_rows=picked,
            last_action_row=self.array("last")[span] - low,
            bootstrap=self.array("bootstrap")[span] - low,
            rewards=self.array("rewards")[:, span],
            discounts=self.array("discounts")[:, span],
            weights=self.array("weights")[:, span],
            rewards_to_go=self.array("rewards_to_go")[:, span] if self.has_full_returns else None,
            count=np.array(len(picked), np.int32),
        )

    def all_rows(self) -> Rows:
        """Arrays that facts of actions and episodes are made of."""
        return Rows(
            observations=self.array("observations"),
            actions=self.array("actions"),
            action_known=self.array("action_known"),
            starts=self.array("starts")[:-1],
        )

    def piece(self) -> Piece:
        """Arrays in which outliers are looked for."""
        return Piece(
            observations=self.array("observations"),
            rewards=self.array("own_rewards"),
            transitions=self.array("rows"),
            action_known=self.array("action_known"),
        )


def write_part(folder: Path, layout: Layout, *, episodes: Episodes) -> None:
    """Write all of a part's folder, or nothing of it."""
    all_rows = piece(episodes)
    arrays = {ON_DISK.get(name, name): array for name, array in layout.columns._asdict().items()} | {
        "starts": np.append(0, np.flatnonzero(episodes.ends) + 1),
        "own_rewards": all_rows.rewards,
        "action_known": all_rows.action_known,
    }
    partial = folder.with_name(f".{folder.name}.{unique()}.partial")
    try:
        partial.mkdir()
        content = {
            "rows": len(episodes.ends),
            "arrays": {
                name: _save(partial / f"{name}.npy", array) for name, array in arrays.items() if array is not None
            },
            "facts": {name: _plain(part) for name, part in layout.statistics._asdict().items()},
            "teaches": has_targets(layout.columns).tolist(),
        }
        write_cached(partial / "shard.json", content)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _plain(part: Moments | RewardRange) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in part._asdict().items()}


def _statistics(plain: dict[str, Any]) -> DataStatistics:
    of_rewards = plain["range"]
    return DataStatistics(
        **{name: _moments(of_part) for name, of_part in plain.items() if name != "range"},
        range=RewardRange(**{name: np.array(of_rewards[name], float) for name in RewardRange._fields}),
    )


def _moments(plain: dict[str, Any]) -> Moments:
    arrays = {name: np.array(plain[name], float) for name in Moments._fields if name != "count"}
    return Moments(count=int(plain["count"]), **arrays)


def _save(path: Path, array: np.ndarray) -> int:
    """Write an array down to the disk; its size there."""
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _publish(partial: Path, folder: Path) -> None:
    """Give a finished folder its name. Where another process was faster, its folder stays: it holds the same."""
    try:
        partial.rename(folder)
    except OSError:
        if (folder / "shard.json").exists():
            return
        if not folder.exists():
            raise
        aside = folder.with_name(f".{folder.name}.{unique()}.partial")  # it was damaged; processes that read it go on
        folder.rename(aside)
        partial.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)


def open_part(folder: Path) -> Part:
    """A part that is laid out. Raises EvorError where it is damaged."""
    with undamaged(folder):
        content = read_cached(folder / "shard.json")
        for name, size in content["arrays"].items():
            if (folder / f"{name}.npy").stat().st_size != size:
                raise ValueError(f"{name}.npy is truncated")
        part = Part(
            folder=folder,
            rows=int(content["rows"]),
            statistics=_statistics(content["facts"]),
            has_targets=np.array(content["teaches"], bool),
            has_full_returns="rewards_to_go" in content["arrays"],
        )
        if len(part.array("last")) != part.rows:
            raise ValueError("its arrays have other rows")
        return part


def write_cached(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file of the cache, with a digest: it is trusted as the data are."""
    write_json(path, content | {"sha256": _digest(json.loads(json.dumps(content)))})


def read_cached(path: Path) -> Any:
    """The content of a JSON file of the cache. Raises ValueError where it is not as it was written."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("sha256") != _digest(content):
        raise ValueError("it does not match its digest")
    return content


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def undamaged(path: Path) -> Generator[None]:
    """Read from the cache. Raises EvorError, with a remedy, on whatever goes wrong."""
    try:
        yield
    except PermissionError:  # another user's
        raise
    except Exception as error:
        raise EvorError(f"{path} is damaged ({why(error)}); remove it, and it is made again.") from error
