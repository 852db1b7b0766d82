"""OGBench datasets and environments, through `ogbench` itself."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.archive import read_npz
from evor.data.formats.npz import check_actions, check_flags, check_rows
from evor.data.load import load
from evor.data.summary import Precision, Reading, Remark
from evor.envs.ogbench import check_name, dataset_names, environment_name, make_environment
from evor.errors import EvorError
from evor.runtime.files import expand, listed
from evor.types import Episodes

OFFICIAL_FOLDER = Path("~/.ogbench/data")


def official_folders() -> list[Path]:
    """The folder of OGBench's own downloads; none where the system knows no home folder."""
    try:
        return [expand(OFFICIAL_FOLDER)]
    except EvorError:
        return []


def find_shards(dataset: str, folder: Path | None) -> list[Path]:
    """The files of a dataset: NAME.npz, or the shards in the folder NAME, in `folder` where given, else in ./data, else in
    OGBench's own place.

    `folder` may also be the file itself, or hold the shards: every npz in it but validation (`*-val.npz`).
    """
    check_name(dataset)
    if folder is not None and folder.is_file():
        return [folder]
    if folder is not None and not folder.exists():
        raise EvorError(f"{folder} does not exist; give the folder of {dataset}.npz or of its shards.")
    folders = [folder] if folder is not None else [Path("data"), *official_folders()]
    for candidate in folders:
        if (candidate / f"{dataset}.npz").is_file():
            return [candidate / f"{dataset}.npz"]
        if shards := _shards(candidate / dataset):
            return shards
    shards = _shards(folder or Path())
    named = [file for file in shards if file.stem in dataset_names()]
    if folder is not None and shards and not named:
        return shards
    raise EvorError(
        f"{dataset}.npz is not in {' or '.join(map(str, folders))}; make it with "
        f"`evor data generate {dataset}` or fetch it with `evor data download {dataset}`."
    )


def _shards(folder: Path) -> list[Path]:
    return [file for file in listed(folder, "*.npz") if not file.stem.endswith("-val")]


def load_dataset(
    dataset: str, tasks: tuple[int, ...], *, folder: Path | None = None, sparse_rewards: bool = False
) -> Episodes:
    """Read a dataset and label it for the given single tasks, as `ogbench.make_env_and_datasets` does.

    Its rewards are minus the number of things left to do; sparse ones are -1 until there are none.
    """
    read = functools.partial(load_shard, dataset, tasks=tasks, sparse_rewards=sparse_rewards)
    return load(find_shards(dataset, folder), read).episodes


def load_shard(dataset: str, path: Path, *, tasks: tuple[int, ...], sparse_rewards: bool) -> Reading:
    """Read one file of a dataset and label it. Raises EvorError on what can't be trusted."""
    check_name(dataset)
    names = ("observations", "actions", "terminals", "qpos")
    arrays = read_npz(path, names, optional=("qvel", "button_states"), remedy=_remedy(dataset, path))
    check_rows(path, arrays)
    check_actions(path, arrays["actions"])
    check_flags(path, arrays, "terminals")
    precision = Precision.read(arrays["observations"])
    for name in ("observations", "actions"):
        arrays[name] = arrays[name].astype(np.float32, copy=False)
    rewards, masks = [], []
    for task in tasks:
        labels = _label(dataset, task, path=path, arrays=arrays)
        rewards.append(np.where(labels[0] < 0, -1, 0).astype(np.float32) if sparse_rewards else labels[0])
        masks.append(labels[1])
    # The last row of a trajectory has no successor; its action is the dataset's own next action at a cut.
    last = arrays["terminals"].astype(bool)
    remarks = (
        () if last.any() else (Remark("terminals are 0 in every row: only the last one is known to end an episode"),)
    )
    last[-1] = True
    episodes = Episodes(
        observations=arrays["observations"],
        actions=np.clip(arrays["actions"], -1, 1),
        rewards=np.stack(rewards),
        masks=np.stack(masks),
        ends=last,
        bootstrap_only=last,
        action_known=np.ones(len(last), bool),
        tasks=tuple(tasks),
    )
    return Reading(episodes=episodes, precision=precision, remarks=remarks)


def _label(dataset: str, task: int, *, path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and masks of a file's rows under a task, by OGBench itself."""
    environment = make_environment(dataset, task)
    from ogbench.relabel_utils import relabel_dataset

    _check_columns(path, arrays, dataset=dataset, environment=environment)
    data = dict(arrays)
    relabel_dataset(environment_name(dataset), environment, data)
    environment.close()
    return data["rewards"], data["masks"]


def _remedy(dataset: str, path: Path) -> str:
    """Tell how to get a damaged file again."""
    if path.parent in official_folders():
        return f"fetch it again with `evor data download {dataset}`"
    return f"make it again with `evor data generate {dataset}` (or fetch it with `evor data download {dataset}`)"


def _check_columns(path: Path, arrays: dict[str, np.ndarray], *, dataset: str, environment: Any) -> None:
    """Raise EvorError where a file is of another environment."""
    wanted = {
        "observations": environment.observation_space.shape,
        "actions": environment.action_space.shape,
        "qpos": (environment.unwrapped.model.nq,),
    }
    for name, shape in wanted.items():
        if arrays[name].shape[1:] != shape:
            raise EvorError(
                f"{path}: {name} have shape {list(arrays[name].shape)}, of {dataset} they have [N, {shape[0]}]; "
                "name the dataset that the file is of."
            )
