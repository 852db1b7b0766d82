"""OGBench's environments, through `ogbench` itself."""

import functools
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from evor.errors import EvorError, nearest

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
    remedy = "In a clone of evor, `pip install '.[ogbench]'` installs it."
    if sys.version_info >= (3, 13):
        remedy = (
            "In a clone of evor, `make setup` installs it (pip can't on Python 3.13: dm_control asks for labmaze, which has "
            "no wheel there)."
        )
    return (
        f"OGBench's datasets and environments need the package {package}, which is missing. {remedy} "
        "Data of your own need no such package."
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


def dataset_names() -> list[str]:
    """Names of the state-based, single-task-capable OGBench datasets, such as `pointmaze-medium-navigate-v0`."""
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
    """Raise EvorError unless OGBench knows this dataset."""
    if dataset.endswith(".npz") or Path(dataset).is_dir():
        raise EvorError(
            f"{dataset} is a file or folder, not a dataset's name; give it as --data {dataset}, in Python without data_folder."
        )
    if dataset not in (names := dataset_names()):
        raise EvorError(f"unknown dataset {dataset!r}; {nearest(dataset, names)}")


def environment_name(dataset: str) -> str:
    """`pointmaze-medium-navigate-v0` -> `pointmaze-medium-v0`."""
    *stem, _, version = dataset.split("-")
    return "-".join([*stem, version])


def make_environment(dataset: str, task: int) -> Any:
    """The single-task gymnasium environment of a dataset. Raises EvorError on an unknown task."""
    if task not in TASKS:
        raise EvorError(f"{dataset} has tasks 1 to 5; task {task} does not exist.")
    stem = environment_name(dataset).removesuffix("-v0")
    return make(f"{stem}-singletask-task{task}-v0")
