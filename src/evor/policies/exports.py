"""One policy in a folder of its own: policy.safetensors and, written last, policy.json."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.agents.registry import AgentConfig
from evor.errors import EvorError
from evor.runtime.arguments import shown
from evor.runtime.files import read_json, write_json
from evor.runtime.locks import hold
from evor.runtime.provenance import versions
from evor.training import checkpoint
from evor.training.config import from_json, spec_from_json, to_json
from evor.types import Spec

ARRAYS, DESCRIPTION, LOCK = "policy.safetensors", "policy.json", ".lock"


class Description(NamedTuple):
    """Description of a policy: everything besides its arrays."""

    config: AgentConfig
    spec: Spec
    origin: dict[str, Any]  # dataset, task, seed, updates

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        content = {"config": to_json(self.config, AgentConfig), "spec": self.spec._asdict(), "origin": self.origin}
        return json.loads(json.dumps(content))


def write_export(folder: Path, description: Description, *, networks: Any, overwrite: bool) -> None:
    """Write both files, with `overwrite` in place of another policy's.

    Raises EvorError where the folder holds a policy or a run, is in use, or can't be written.
    """
    try:
        _check_free(folder, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder / LOCK, "an export"):
            _check_free(folder, overwrite)
            _write(folder, description, networks=networks)
    except OSError as error:
        raise EvorError(
            f"{folder} could not be written ({error.strerror}); free some space or choose another folder."
        ) from error


def _write(folder: Path, description: Description, *, networks: Any) -> None:
    content = description.to_json()
    checkpoint.save_arrays(folder / ARRAYS, networks, metadata={"policy": content})
    try:
        write_json(folder / DESCRIPTION, content | {"versions": versions()})
    except BaseException:  # neither half stays: an older description would go with arrays of another policy
        for name in (DESCRIPTION, ARRAYS):
            (folder / name).unlink(missing_ok=True)
        raise


def _check_free(folder: Path, overwrite: bool) -> None:
    if (folder / DESCRIPTION).exists() and not overwrite:
        raise EvorError(
            f"{folder} already holds a policy; replace it (overwrite=True, --overwrite) or choose another folder."
        )
    if (folder / "config.json").exists():
        raise EvorError(f"{folder} holds a run; export into a folder of its own.")
    if folder.is_file():
        raise EvorError(f"{folder} is a file; export into a folder.")


def is_export(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def read_export(folder: Path) -> tuple[Description, dict[str, np.ndarray]]:
    """The description and the arrays by name. Raises EvorError where one is damaged, or of another policy."""
    path = folder / DESCRIPTION
    description = _description(read_json(path, config=dict, spec=dict, origin=dict), path)
    arrays, metadata = checkpoint.load_arrays(folder / ARRAYS)
    # Exports of version 0.1.0 say nothing of it.
    if "policy" in metadata and _description(metadata["policy"], path) != description:
        raise EvorError(
            f"{path} was changed, or is of another policy than {ARRAYS} beside it; export the policy again."
        )
    return description, arrays


def _description(stored: dict[str, Any], path: Path) -> Description:
    """Read a stored description. Raises EvorError where it is damaged."""
    origin = stored["origin"]
    by = stored.get("versions")  # of the file; a checkpoint's copy has none
    writer = by.get("evor") if isinstance(by, dict) else None
    missing = [name for name in ("dataset", "task", "seed", "updates") if name not in origin]
    if missing or any(type(origin[name]) is not int for name in ("task", "seed", "updates")):
        raise EvorError(f"{path} is damaged (its origin is {shown(origin)}); export the policy again.")
    return Description(
        config=from_json(stored["config"], AgentConfig, where=path, writer=writer),
        spec=spec_from_json(stored["spec"], path),
        origin=origin,
    )
