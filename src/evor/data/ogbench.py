"""OGBench data sets and environments, through `ogbench` itself."""

import functools
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.files import check_actions, check_flags, check_rows
from evor.data.load import load
from evor.data.npz import read_npz
from evor.data.summary import Precision, Reading, Remark
from evor.errors import EvorError, nearest
from evor.runtime.files import expand
from evor.types import Episodes

OFFICIAL_FOLDER = Path("~/.ogbench/data")
REWARD_RULE = "pre"  # OGBench >= 1.2: single-task reward and termination are computed from the state before the step
TASKS = (1, 2, 3, 4, 5)


@functools.cache
def _gymnasium() -> Any:
    """Gymnasium with OGBench's environments in its registry, and MuJoCo loaded.

    Raises EvorError where they are not installed, or where MuJoCo can't be loaded with the MUJOCO_GL that is set.
    """
    with warnings.catch_warnings(), _without_display():
        warnings.simplefilter("ignore")  # gymnasium and glfw warn on import about things a user can't change
        try:
            for name in ("ogbench", "mujoco", "dm_control.mjcf"):  # the first registers environments
                import_module(name)  # the others read MUJOCO_GL now, and never again
            import gymnasium
        except ModuleNotFoundError as error:
            raise EvorError(_how_to_install(error.name)) from error
        except Exception as error:  # whatever a renderer's loader raises
            raise EvorError(
                f"MuJoCo can't be loaded with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error}); "
                "evor needs no renderer: set MUJOCO_GL=disable, or unset it."
            ) from error
    return gymnasium


@contextmanager
def _without_display() -> Generator[None]:
    """Set MUJOCO_GL to `disable` inside, where it is unset: importing MuJoCo then looks for no display.

    A program around evor keeps its environment. If it renders with `mujoco.Renderer`, it imports mujoco first.
    """
    if "MUJOCO_GL" in os.environ:
        yield
        return
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]


def _how_to_install(package: str | None) -> str:
    """A sentence on a package that OGBench needs."""
    remedy = "`pip install 'evor[ogbench]'` installs it."
    if sys.version_info >= (3, 13):
        remedy = (
            "`make setup` in a clone of evor installs it (pip can't on Python 3.13: dm_control asks for labmaze, which has "
            "no wheel there)."
        )
    return (
        f"OGBench's data sets and environments need the package {package}, which is missing. {remedy} "
        "Data of your own (--data FILE.npz) need no such package."
    )


def check_installed() -> None:
    """Raise EvorError where OGBench is not installed: to be called before hours of work that end in its environments."""
    _gymnasium()


def make(name: str, **options: Any) -> Any:
    """The gymnasium environment of this name. It warns of nothing that a user can't change. Raises EvorError, see above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _quiet()(_gymnasium().make(name, **options))


@functools.cache
def _quiet() -> Any:
    """A wrapper for manipulation environments, which warn of float64 whenever they make an action space."""

    class Quiet(_gymnasium().Wrapper):
        def reset(self, **options: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return super().reset(**options)

        @property
        def action_space(self) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return super().action_space

    return Quiet


def known_datasets() -> list[str]:
    """Names of the state-based, single-task-capable OGBench data sets, such as `pointmaze-medium-navigate-v0`."""
    kinds = {"maze": ("navigate", "stitch", "explore"), "soccer": ("navigate", "stitch")}
    names = []
    for identifier in _gymnasium().registry:
        if not identifier.endswith("-singletask-v0") or identifier.startswith("visual"):
            continue
        stem = identifier.removesuffix("-singletask-v0")
        fitting = next((kinds[word] for word in kinds if word in stem), ("play", "noisy"))
        names += [f"{stem}-{kind}-v0" for kind in fitting]
    return names


def check_name(dataset: str) -> None:
    """Raise EvorError unless OGBench knows this data set."""
    if dataset.endswith(".npz") or Path(dataset).is_dir():
        raise EvorError(f"{dataset} is a file or folder, not a data set's name; give it as --data {dataset}.")
    if dataset not in (known := known_datasets()):
        raise EvorError(f"unknown dataset {dataset!r}; {nearest(dataset, known)}")


def environment_name(dataset: str) -> str:
    """`pointmaze-medium-navigate-v0` -> `pointmaze-medium-v0`."""
    *stem, _, version = dataset.split("-")
    return "-".join([*stem, version])


def make_environment(dataset: str, task: int) -> Any:
    """The single-task gymnasium environment of a data set. Raises EvorError on an unknown task."""
    if task not in TASKS:
        raise EvorError(f"{dataset} has tasks 1 to 5; task {task} does not exist.")
    stem = environment_name(dataset).removesuffix("-v0")
    return make(f"{stem}-singletask-task{task}-v0")


def official_folders() -> list[Path]:
    """The folder of OGBench's own downloads; none where the system knows no home folder."""
    try:
        return [expand(OFFICIAL_FOLDER)]
    except EvorError:
        return []


def find_shards(dataset: str, folder: Path | None) -> list[Path]:
    """The files of a data set: NAME.npz in `folder` where given, else in ./data, else in OGBench's own place.

    `folder` may also be the file itself, or hold the data set as shards: every npz in it but validation (`*-val.npz`).
    """
    check_name(dataset)
    if folder is not None and folder.is_file():
        return [folder]
    if folder is not None and not folder.exists():
        raise EvorError(f"{folder} does not exist; give the folder of {dataset}.npz or of its shards.")
    places = [folder] if folder is not None else [Path("data"), *official_folders()]
    for place in places:
        if (place / f"{dataset}.npz").is_file():
            return [place / f"{dataset}.npz"]
    shards = sorted(file for file in (folder or Path()).glob("*.npz") if not file.stem.endswith("-val"))
    named = [file for file in shards if file.stem in known_datasets()]
    if folder is not None and shards and not named:
        return shards
    raise EvorError(
        f"{dataset}.npz is not in {' or '.join(map(str, places))}; make it with "
        f"`evor data generate {dataset}` or fetch it with `evor data download {dataset}`."
    )


def load_dataset(
    dataset: str, tasks: tuple[int, ...], folder: Path | None = None, sparse_rewards: bool = False
) -> Episodes:
    """Read a data set and label it for the given single tasks, as `ogbench.make_env_and_datasets` does.

    Its rewards are minus the number of things left to do; sparse ones are -1 until there are none.
    """
    read = functools.partial(load_shard, dataset, tasks, sparse_rewards)
    return load(find_shards(dataset, folder), read).episodes


def load_shard(dataset: str, tasks: tuple[int, ...], sparse_rewards: bool, path: Path) -> Reading:
    """Read one file of a data set and label it. Raises EvorError on what can't be trusted."""
    check_name(dataset)
    names = ("observations", "actions", "terminals", "qpos")
    arrays = read_npz(path, names, ("qvel", "button_states"), remedy=_remedy(dataset, path))
    check_rows(path, arrays)
    check_actions(path, arrays["actions"])
    check_flags(path, arrays, "terminals")
    precision = Precision.read(arrays["observations"])
    for name in ("observations", "actions"):
        arrays[name] = arrays[name].astype(np.float32, copy=False)
    rewards, masks = [], []
    for task in tasks:
        labels = _label(dataset, task, path, arrays)
        rewards.append(np.where(labels[0] < 0, -1, 0).astype(np.float32) if sparse_rewards else labels[0])
        masks.append(labels[1])
    # The last row of a trajectory has no successor; its action is the dataset's own next action at a cut.
    last = arrays["terminals"].astype(bool)
    remarks = (
        () if last.any() else (Remark("terminals are 0 in every row: only the last one is known to end an episode"),)
    )
    last[-1] = True
    episodes = Episodes(
        arrays["observations"],
        np.clip(arrays["actions"], -1, 1),
        np.stack(rewards),
        np.stack(masks),
        ends=last,
        bootstrap_only=last,
        action_known=np.ones(len(last), bool),
        tasks=tuple(tasks),
    )
    return Reading(episodes, precision, remarks)


def _label(dataset: str, task: int, path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and masks of a file's rows under a task, by OGBench itself."""
    environment = make_environment(dataset, task)
    from ogbench.relabel_utils import relabel_dataset

    _check_columns(path, arrays, dataset, environment)
    data = dict(arrays)
    relabel_dataset(environment_name(dataset), environment, data)
    environment.close()
    return data["rewards"], data["masks"]


def _remedy(dataset: str, path: Path) -> str:
    """How to get a damaged file again."""
    if path.parent in official_folders():
        return f"fetch it again with `evor data download {dataset}`"
    return f"make it again with `evor data generate {dataset}` (or fetch it with `evor data download {dataset}`)"


def _check_columns(path: Path, arrays: dict[str, np.ndarray], dataset: str, environment: Any) -> None:
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
                "name the data set that the file is of."
            )
