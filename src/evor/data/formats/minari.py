"""Minari datasets, stored as HDF5, arrow or parquet. An episode has one observation more than it has steps."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.arrow import Arrow, Parquet, numbers, pyarrow
from evor.data.formats.hdf5 import Hdf5
from evor.data.formats.recording import (
    FEATURES,
    Episode,
    Recording,
    Wanted,
    by_number,
    check_actions,
    matrix,
    pick,
    successors,
    vector,
)
from evor.envs.observations import INDEX
from evor.errors import EvorError, why
from evor.runtime.files import expand, listed, read_json
from evor.types import ActionBounds

MAIN = "main_data.hdf5"
WHOLE = "observations"  # the key of observations that are no Dict


def root() -> Path:
    """The folder of Minari's local datasets."""
    return expand(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets")


def find_minari(source: str) -> Path | None:
    """The folder `data` of a dataset, from its id under the local root or its folder; None where there is none."""
    for folder in (Path(source), root() / source):
        for inner in (folder / "data", folder):
            if (inner / "metadata.json").is_file() or (inner / MAIN).is_file():
                return inner
    return None


def open_minari(folder: Path, wanted: Wanted) -> Recording:
    """Open a dataset's folder `data`. Raises EvorError on what can't be read."""
    path = folder / "metadata.json"
    if not path.is_file():
        raise EvorError(f"{path} is missing; copy the whole dataset.")
    content = read_json(path, data_format=str)
    kind = content["data_format"]
    if kind not in ("hdf5", "arrow", "parquet"):
        raise EvorError(f"{path} names the format {kind!r}; hdf5, arrow and parquet are read.")
    storage = (
        _Hdf5Episodes(folder, wanted.max_gb) if kind == "hdf5" else _ArrowEpisodes(folder, kind, max_gb=wanted.max_gb)
    )
    if not storage.names:
        raise EvorError(f"{folder} holds no episodes; copy the whole dataset.")
    spaces = {name: _space(content.get(name), path) for name in ("observation_space", "action_space")}
    _check_actions(spaces["action_space"], path)
    reader = _Reader(folder, storage, wanted=wanted, space=spaces["observation_space"])
    lengths = tuple(map(reader.length, storage.names))
    if not any(lengths):
        raise EvorError(f"{folder}: every episode is empty; record at least one step.")
    one = reader.read(storage.names[int(np.argmax(lengths))], ())
    return Recording(
        kind=f"Minari {kind}",
        path=folder,
        files=(path, *storage.files),
        keys=tuple((key, column.shape[1]) for key, column in zip(reader.keys, one.observations, strict=True)),
        not_read=tuple(key for key in reader.all_keys if key not in reader.keys),
        action_key=reader.action_key,
        action_dim=one.actions.shape[1],
        bounds=_bounds(spaces["action_space"]) if reader.action_key == "actions" else None,
        reward_key="rewards",
        has_terminations=True,
        names=tuple(name.removeprefix("episode_") for name in storage.names),
        lengths=lengths,
        episodes=lambda start, columns: (reader.read(name, columns) for name in storage.names[start:]),
        actions=lambda: map(reader.actions, storage.names),
    )


def _space(stored: Any, path: Path) -> dict[str, Any]:
    """A space as metadata.json has it, {} where it says nothing. Raises EvorError where it is damaged."""
    if stored is None:
        return {}
    try:
        space = json.loads(stored) if isinstance(stored, str) else stored
        return {"type": str(space["type"])} | space
    except (ValueError, TypeError, KeyError) as error:
        raise EvorError(f"{path} is damaged ({why(error)}); copy it again.") from error


def _check_actions(space: dict[str, Any], path: Path) -> None:
    if space and space["type"] != "Box":
        raise EvorError(
            f"{path}: actions are {space['type']}, and discrete actions are not supported; Box actions are needed."
        )


def _bounds(space: dict[str, Any]) -> ActionBounds | None:
    """The bounds that the action space declares, None where it declares none or infinite ones."""
    low, high = (np.asarray(space.get(side, np.inf), np.float64).reshape(-1) for side in ("low", "high"))
    return ActionBounds.read(low, high) if np.isfinite(low).all() and np.isfinite(high).all() else None


class _Reader:
    """Episodes of one storage."""

    def __init__(
        self, folder: Path, storage: "_Hdf5Episodes | _ArrowEpisodes", *, wanted: Wanted, space: dict[str, Any]
    ):
        self._folder, self._storage = folder, storage
        self.action_key = wanted.action_key or "actions"
        there = storage.columns(storage.names[0])
        observed = [name for name in there if name.split("/")[0] == "observations"]
        self._paths = {_key(name.removeprefix("observations/"), space): name for name in observed}
        self.all_keys = sorted(self._paths, key=_order)
        for key in wanted.observation_keys or self.all_keys:
            _check_observation(key, _inside(space, key), place=str(folder))
        self.keys = pick(folder, wanted.observation_keys or self.all_keys, there=self.all_keys, what="observation")
        pick(folder, [self.action_key], there=there, what="column")

    def length(self, episode: str) -> int:
        return self._storage.steps(episode, self.action_key)

    def actions(self, episode: str) -> np.ndarray:
        steps = self.length(episode)
        array = self._storage.read(episode, [self.action_key])[self.action_key]
        return check_actions(array[:steps], f"{self._folder}, {episode}: {self.action_key}")

    def read(self, episode: str, columns: tuple[str, ...]) -> Episode:
        """One episode. Raises EvorError where its columns don't fit together."""
        place = f"{self._folder}, {episode}"
        paths = [self._paths[key] for key in self.keys]
        more = ["terminations", *columns]
        pick(self._folder, columns, there=self._storage.columns(episode), what="column")
        there = self._storage.read(episode, list(dict.fromkeys([*paths, self.action_key, *more])))
        steps = self.length(episode)
        after_step = {
            name: self._after(vector(there[name], f"{place}: {name}"), name, steps=steps, place=place) for name in more
        }
        seen = tuple(matrix(there[path], f"{place}: {path}") for path in paths)
        before, after = successors(seen, steps, place=place)
        return Episode(
            name=episode.removeprefix("episode_"),
            observations=before,
            actions=check_actions(there[self.action_key][:steps], f"{place}: {self.action_key}"),
            columns={name: after_step[name] for name in columns},
            next_observations=after,
            terminations=after_step["terminations"] != 0,
        )

    def _after(self, column: np.ndarray, name: str, *, steps: int, place: str) -> np.ndarray:
        """Values of a column, one for each step. `infos` begin with those of the reset; arrow pads the others by a row."""
        if len(column) == steps:
            return column
        if len(column) == steps + 1 and (name.startswith("infos/") or self._storage.is_padded):
            return column[1:] if name.startswith("infos/") else column[:steps]
        raise EvorError(f"{place}: {name} has {len(column)} rows for {steps} steps; repair or remove this episode.")


def _key(path: str, space: Mapping[str, Any]) -> str:
    """The name of an observation. Entries of a Tuple are _index_0, _index_1, ..., which arrow and parquet call 0, 1, ..."""
    parts = path.split("/")
    for depth, part in enumerate(parts):
        if part.isdigit() and isinstance(_inside(space, "/".join(parts[:depth])).get("subspaces"), list):
            parts[depth] = f"{INDEX}{part}"
    return "/".join(parts)


def _order(key: str) -> tuple[Any, ...]:
    """Gymnasium's order of flattening: names of a Dict sorted, entries of a Tuple by their number."""
    return tuple(by_number(part) if part.removeprefix(INDEX).isdigit() else ((1, 0, part),) for part in key.split("/"))


def _inside(space: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The space of one key, {} where nothing is said of it."""
    for part in [] if key in ("", WHOLE) else key.split("/"):
        inner = space.get("subspaces", {})
        number = part.removeprefix(INDEX)
        if isinstance(inner, list):
            space = inner[int(number)] if number.isdigit() and int(number) < len(inner) else {}
        else:
            space = inner.get(part, {})
    return space


def _check_observation(key: str, space: Mapping[str, Any], *, place: str) -> None:
    if not space or (space["type"] == "Box" and len(space.get("shape", [0])) < 2):
        return
    if space["type"] == "Box":
        raise EvorError(f"{place}: {key} has shape {space['shape']}: {FEATURES}.")
    raise EvorError(
        f"{place}: the observation {key} is a {space['type']} space, and only Box spaces are read; leave it out of "
        "observation_keys (--observation-keys), or store it as numbers."
    )


class _Hdf5Episodes:
    """Episodes of main_data.hdf5: groups episode_0, episode_1, ..."""

    is_padded = False

    def __init__(self, folder: Path, max_gb: float):
        self._file = Hdf5(folder / MAIN, max_gb=max_gb)
        self.files = (folder / MAIN,)
        self.names = sorted((name for name in self._file.names() if name.startswith("episode_")), key=by_number)

    def columns(self, episode: str) -> list[str]:
        return self._file.below(episode)

    def steps(self, episode: str, action_key: str) -> int:
        return (*self._file.shape(f"{episode}/{action_key}"), 0)[0]

    def read(self, episode: str, names: list[str]) -> dict[str, np.ndarray]:
        return {name: self._file.read(f"{episode}/{name}") for name in names}


class _ArrowEpisodes:
    """Episodes in folders of their own: 0, 1, ... Every column has as many rows as there are observations."""

    is_padded = True

    def __init__(self, folder: Path, kind: str, *, max_gb: float):
        self._kind, self._max_gb = kind, max_gb
        self.names = sorted((path.name for path in folder.iterdir() if path.name.isdigit()), key=by_number)
        self._paths = {name: listed(folder / name, f"*.{kind}") for name in self.names}
        for name, paths in self._paths.items():
            if len(paths) != 1:
                raise EvorError(f"{folder / name} holds {len(paths)} {kind} files, and one is needed; copy it again.")
        self.files = tuple(path for (path,) in self._paths.values())

    def columns(self, episode: str) -> list[str]:
        return [name for field in self._open(episode).schema for name in _below(field)]

    def steps(self, episode: str, action_key: str) -> int:
        return max(self._open(episode).rows - 1, 0)

    def read(self, episode: str, names: list[str]) -> dict[str, np.ndarray]:
        file, arrays = self._open(episode), {}
        tables = {name: file.table(name) for name in dict.fromkeys(name.split("/")[0] for name in names)}
        for name in names:
            first, *inner = name.split("/")
            column = tables[first]
            for part in inner:
                if column.type.get_field_index(part) < 0:
                    raise EvorError(f"{file.path} has no column {name}; copy it again.")
                column = column.field(part)
            arrays[name] = numbers(column, f"{file.path}: {name}")
        return arrays

    def _open(self, episode: str) -> Parquet | Arrow:
        (path,) = self._paths[episode]
        return Parquet(path, max_gb=self._max_gb) if self._kind == "parquet" else Arrow(path, max_gb=self._max_gb)


def _below(field: Any) -> Iterator[str]:
    """Paths of the columns inside a field."""
    if not pyarrow().types.is_struct(field.type):
        yield field.name
        return
    for inner in field.type:
        for name in _below(inner):
            yield f"{field.name}/{name}"
