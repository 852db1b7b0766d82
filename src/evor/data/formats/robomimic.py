"""HDF5 files of robomimic, and those of the same skeleton: LIBERO, mimicgen, robocasa.

`data/demo_0`, `data/demo_1`, ... hold `actions`, `rewards`, `dones` and `obs/KEY`. `dones` marks the last row whatever
happened, so it is no termination; nothing in the file says which demonstrations succeeded.
"""

from pathlib import Path

import numpy as np

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
    same_rows,
    successors,
    vector,
)
from evor.errors import EvorError
from evor.types import ActionBounds

OBSERVATIONS = ("obs", "observations")  # what the group is called


def open_robomimic(path: Path, wanted: Wanted) -> Recording:
    """Open a file. Raises EvorError on what can't be read."""
    file = Hdf5(path, max_gb=wanted.max_gb)
    there = _demos(file, None)
    demos = there if wanted.mask is None else _demos(file, wanted.mask)
    first = f"data/{demos[0]}"
    group = next((name for name in OBSERVATIONS if file.is_group(f"{first}/{name}")), None)
    if group is None:
        raise EvorError(
            f"{path}: {first} holds {', '.join(file.names(first))} and no observations. Make them with robomimic's "
            "dataset_states_to_obs.py, then import what that wrote."
        )
    shapes = {name: file.shape(f"{first}/{group}/{name}") for name in file.below(f"{first}/{group}")}
    images = [name for name, shape in shapes.items() if len(shape) > 2]
    flat = sorted(name for name in shapes if name not in images)
    keys = pick(path, wanted.observation_keys or flat, there=[*shapes], what="observation")
    if not keys:
        raise EvorError(f"{path} has no observations but images ({', '.join(images)}): {FEATURES}.")
    action_key = wanted.action_key or "actions"
    reader = _Reader(file, demos, group=group, keys=keys, action_key=action_key)
    lengths = tuple(reader.length(demo) for demo in demos)
    if not any(lengths):
        raise EvorError(f"{path}: every demonstration is empty; record at least one step.")
    one = reader.read(demos[int(np.argmax(lengths))], ())
    width = one.actions.shape[1]
    others = [name for name in there if name not in demos]
    acted = [name for name in others if file.is_dataset(f"data/{name}/{action_key}")]
    return Recording(
        kind="robomimic HDF5",
        path=path,
        files=(path,),
        keys=tuple((key, column.shape[1]) for key, column in zip(keys, one.observations, strict=True)),
        not_read=tuple(name for name in [*flat, *images] if name not in keys),
        action_key=action_key,
        action_dim=width,
        bounds=ActionBounds.unit(width) if action_key == "actions" else None,
        reward_key="rewards" if file.is_dataset(f"{first}/rewards") else None,
        has_terminations=False,
        names=tuple(demos),
        lengths=lengths,
        episodes=lambda start, columns: (reader.read(demo, columns) for demo in demos[start:]),
        actions=lambda: map(reader.actions, [*demos, *acted]),  # of all masks, so that they have the same bounds
        others=tuple(others),
        other_rows=sum(map(reader.length, acted)),
    )


def _demos(file: Hdf5, mask: str | None) -> list[str]:
    """Names of the demonstrations, in the order of their numbers: those of a mask where one is given."""
    there = sorted((name for name in file.names("data") if file.is_group(f"data/{name}")), key=by_number)
    if mask is None:
        demos = there
    else:
        pick(file.path, [mask], there=file.names("mask"), what="mask")
        chosen = set(file.texts(f"mask/{mask}"))
        if lost := sorted(chosen - set(there)):
            raise EvorError(f"{file.path}: the mask {mask} names {lost[0]}, which is not in data; name another mask.")
        demos = [name for name in there if name in chosen]
    if not demos:
        raise EvorError(f"{file.path} holds no demonstration{f' of the mask {mask}' if mask else ''}; record one.")
    return demos


class _Reader:
    """Demonstrations of a file."""

    def __init__(self, file: Hdf5, demos: list[str], *, group: str, keys: tuple[str, ...], action_key: str):
        self._file = file
        self._group, self._keys, self._action_key = group, keys, action_key
        paths = [f"data/{demo}/next_{group}/{key}" for demo in demos if self.length(demo) for key in keys]
        self._has_next = all(map(file.is_dataset, paths))

    def length(self, demo: str) -> int:
        name = f"data/{demo}/{self._action_key}"
        if not self._file.is_dataset(name):
            there = ", ".join(self._file.names(f"data/{demo}"))
            raise EvorError(
                f"{self._file.path}: data/{demo} has no {self._action_key} (it holds {there}); name the column in action_key "
                "(--action-key), or remove this demonstration."
            )
        shape = self._file.shape(name)
        return shape[0] if shape else 0

    def actions(self, demo: str) -> np.ndarray:
        """The actions of one demonstration."""
        name = f"data/{demo}/{self._action_key}"
        return check_actions(self._file.read(name), f"{self._file.path}: {name}")

    def read(self, demo: str, more: tuple[str, ...]) -> Episode:
        """One demonstration. Raises EvorError where its columns don't fit together."""
        place = f"{self._file.path}: data/{demo}"
        actions = self.actions(demo)
        columns = {}
        for name in more:
            pick(self._file.path, [name], there=self._file.below(f"data/{demo}"), what="column")
            columns[name] = vector(self._file.read(f"data/{demo}/{name}"), f"{place}/{name}")
        same_rows(place, {self._action_key: len(actions)} | {name: len(column) for name, column in columns.items()})
        before, after = successors(self._observed(demo, self._group), len(actions), place=place)
        following = after
        if after is None and self._has_next and len(actions):
            following = self._observed(demo, f"next_{self._group}")
        if following is not None:
            same_rows(
                place,
                {"actions": len(actions)}
                | {f"next {key}": len(c) for key, c in zip(self._keys, following, strict=True)},
            )
        return Episode(demo, before, actions, columns, following)

    def _observed(self, demo: str, group: str) -> tuple[np.ndarray, ...]:
        """The keys of a group of observations."""
        names = [f"data/{demo}/{group}/{key}" for key in self._keys]
        return tuple(matrix(self._file.read(name), f"{self._file.path}: {name}") for name in names)
