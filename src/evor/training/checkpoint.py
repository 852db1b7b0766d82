"""Training state on disk: one safetensors file per checkpoint, whole or absent, verified when read. No pickle."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evor.errors import EvorError, why
from evor.runtime.files import atomic_path, numbered
from evor.runtime.tensors import bytes_of, open_tensors, write_tensors
from evor.training import upgrade

KEEP = 3


def save_arrays(path: Path, tree: Any, *, metadata: dict[str, Any]) -> None:
    """Write every array of a pytree and metadata (plain JSON), with a digest of both. On failure the old file, if any, stays."""
    arrays = flatten(tree)
    # One key: safetensors keeps no order.
    header = {"evor": json.dumps({"metadata": metadata, "digest": _digest(arrays, metadata)})}
    with atomic_path(path) as temporary:
        write_tensors(temporary, arrays, metadata=header)


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and the metadata. Raises EvorError where the file is cut or damaged."""
    try:
        with open_tensors(path) as file:
            header = json.loads((file.metadata() or {}).get("evor", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        whole = _is_whole(arrays, header)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # damaged bytes make parsers raise anything
        raise EvorError(f"{path} is cut or damaged ({why(error)}).") from error
    if not whole:
        raise EvorError(f"{path} is damaged: its contents do not match its digest.")
    return upgrade.arrays(arrays), header["metadata"]


def _is_whole(arrays: dict[str, np.ndarray], header: Any) -> bool:
    """Whether a file is as it was written. Version 0.1.0 took a digest of the arrays' names and bytes alone."""
    metadata = header.get("metadata")
    if not isinstance(metadata, dict):
        return False
    if "digest" in header:
        return header["digest"] == _digest(arrays, metadata)
    return header.get("sha256") == _digest_0_1_0(arrays)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """`{"policy/network/mlp/weights/0": array, ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(template: Any, arrays: dict[str, np.ndarray], *, where: Path) -> Any:
    """Arrays in the structure of `template`. Raises EvorError on a missing array or another shape."""

    def pick(path: Any, leaf: Any) -> np.ndarray:
        name = _name(path)
        if name not in arrays:
            raise EvorError(f"{where} lacks {name}; it was written by another agent or version.")
        if arrays[name].shape != leaf.shape:
            raise EvorError(f"{where}: {name} has shape {arrays[name].shape}, not {leaf.shape}; the config changed.")
        return arrays[name]

    return jax.tree_util.tree_map_with_path(pick, template)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:09d}.safetensors"


def save_checkpoint(
    folder: Path, step: int, *, tree: Any, metadata: dict[str, Any], every: int, keep: Collection[int] = ()
) -> None:
    """Write a checkpoint, then `prune`. So an interrupted run ends with the checkpoints of one that was not."""
    folder.mkdir(exist_ok=True)
    save_arrays(checkpoint_path(folder, step), tree, metadata={"step": step, **metadata})
    prune(folder, every, keep={step, *keep})


def prune(folder: Path, every: int, *, keep: Collection[int]) -> None:
    """Drop all checkpoints but those of the steps `keep` and the newest few that a run saves anyhow, at multiples of `every` updates."""
    there = _by_step(folder)
    regular = [step for step in there if step % every == 0]
    for step, old in there.items():
        if step not in regular[-KEEP:] and step not in keep:
            old.unlink(missing_ok=True)


def _by_step(folder: Path) -> dict[int, Path]:
    return numbered(folder, "step_", suffix=".safetensors")


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return list(_by_step(folder).values())


def steps(folder: Path) -> list[int]:
    """The numbers of updates after which there are checkpoints."""
    return list(_by_step(folder))


class Newest(NamedTuple):
    """The newest readable checkpoint, and what was said of newer, unreadable ones."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    complaints: list[str]


def newest(folder: Path) -> Newest | None:
    """Read the newest readable checkpoint, None where there is no file. Raises EvorError where there are files and none can
    be read.
    """
    complaints: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            arrays, metadata = load_arrays(path)
            if not isinstance(metadata.get("step"), int):
                raise EvorError(f"{path} is no checkpoint of a run.")
            return Newest(arrays, metadata, complaints)
        except EvorError as error:
            complaints.append(f"{error} Falling back to the checkpoint before it.")
    if complaints:
        raise EvorError(
            f"none of the {len(complaints)} checkpoints in {folder} can be read; restore one, or train anew into another folder."
        )
    return None


def at_step(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The checkpoint after `step` updates: arrays and metadata. Raises EvorError, listing the steps that there are."""
    path = checkpoint_path(folder, step)
    if not path.is_file():
        found = steps(folder)
        there = f"there are those of {', '.join(map(str, found))}" if found else "there is none at all"
        raise EvorError(f"{folder} holds no checkpoint of {step} updates; {there}.")
    return load_arrays(path)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints beyond `step`, which could not be read, so that they count no more."""
    for number, path in _by_step(folder).items():
        if number > step:
            path.rename(path.with_name(f"{path.name}.damaged"))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _digest(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> str:
    kinds = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    digest = hashlib.sha256(json.dumps([metadata, kinds], sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(bytes_of(arrays[name]))
    return digest.hexdigest()


def _digest_0_1_0(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(bytes_of(arrays[name]))
    return digest.hexdigest()
