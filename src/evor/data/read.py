"""Datasets from Python: a path, an OGBench name or arrays in memory -> a dataset, or its episodes."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evor.data.source import ArrayData, Dataset, NpzData, OgbenchData, load_episodes
from evor.errors import EvorError
from evor.runtime import arguments
from evor.types import Episodes

Data = str | os.PathLike[str] | Mapping[str, Any]  # what a caller may give
NAME = re.compile(r"[a-z0-9-]+-v\d+")  # how OGBench's datasets are called


def read_dataset(
    data: Data,
    *,
    data_folder: str | os.PathLike[str] | None = None,
    tasks: Sequence[int] = (1,),
    sparse_rewards: bool = False,
) -> Episodes:
    """Read a dataset into memory, checked as training checks it.

    `data` is one of three:
        an npz file, or a folder of them, by its path;
        arrays under the names of such a file: observations [N, O], actions [N, A], rewards [N],
        terminations [N] and truncations [N] of 0 and 1, and where you have them next_observations [N, O]. Actions lie in
        [-1, 1], or inside action_low [A] and action_high [A] where these are given;
        the name of an OGBench dataset. Its files lie in `data_folder`, else in ./data or in OGBench's own place. `tasks`
        are the single tasks (1 to 5) that label its rewards; with `sparse_rewards` these are -1 until everything is done.

    A row is one step of an environment, episodes lie end to end. Data of your own is task 1.

    Returns `Episodes`: float32 arrays with one row of rewards for every task, and `notes` on what is legal but worth
    saying. Raises EvorError, in one sentence, on what can't be trusted: it names the array and the first bad value.
    """
    return load_episodes(find_dataset(data, data_folder=data_folder, tasks=tasks, sparse_rewards=sparse_rewards))


def find_dataset(data: Any, *, data_folder: Any, tasks: Any, sparse_rewards: Any) -> Dataset:
    """The dataset that is meant by the arguments of `read_dataset`. Raises EvorError."""
    numbers = _task_numbers(tasks)
    folder = None if data_folder is None else arguments.folder(data_folder)
    if isinstance(data, str) and (folder is not None or (is_name(data) and not Path(data).exists())):
        return OgbenchData(name=data, tasks=numbers, folder=folder, sparse_rewards=bool(sparse_rewards))
    for given, name in (
        (folder is not None, "data_folder"),
        (numbers != (1,), "tasks"),
        (sparse_rewards, "sparse_rewards"),
    ):
        if given:
            raise EvorError(f"{name} goes with the name of an OGBench dataset; leave it out for data of your own.")
    if isinstance(data, Mapping):
        return ArrayData(data)
    if not isinstance(data, str | os.PathLike):
        raise EvorError(
            f"data is {arguments.shown(data)}; give a path, an OGBench name, or a dict of arrays such as "
            "{'observations': ..., 'actions': ...}."
        )
    return NpzData(arguments.folder(data))


def is_name(text: str) -> bool:
    """Whether a text is written as OGBench's datasets are called."""
    return NAME.fullmatch(text) is not None


def _task_numbers(tasks: Any) -> tuple[int, ...]:
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        raise EvorError(f"tasks is {arguments.shown(tasks)}; give a tuple of task numbers such as (1, 2).")
    return tuple(arguments.count(1, task=task) for task in tasks)
