"""The stored config of a run, for those who read it without JAX."""

from pathlib import Path
from typing import Any

from evor.errors import EvorError
from evor.runtime import renamed
from evor.runtime.files import read_json

CONFIG = {
    **dict.fromkeys(("dataset", "data"), str | None),
    **dict.fromkeys(("seed", "num_seeds"), int),
    "tasks": [int],
    "agent": {"type": str},
}


def read_config(run: Path) -> dict[str, Any]:
    """The config in a run's config.json, its settings called as they are today, whichever version wrote it.

    Raises EvorError where there is no such file, or where it is damaged.
    """
    path = run / "config.json"
    if not path.is_file():
        raise EvorError(f"{run} is not a run: it has no config.json; give the folder that `evor train --out` wrote.")
    refuse_imitation(run)
    stored = read_json(path, config=dict)["config"]
    kinds = {renamed.as_stored(name, stored): kind for name, kind in CONFIG.items()}
    return renamed.run_config(read_json(path, config=kinds)["config"])


def has_own_base(agent: dict[str, Any]) -> bool:
    """Whether the value of an agent's config was trained over a base policy of the user's own, which stayed as it was."""
    base = agent.get("base")
    return isinstance(base, dict) and base.get("type") == "Frozen"


def is_imitation(folder: Path) -> bool:
    """Whether a folder is what `evor imitate` wrote."""
    path = folder / "config.json"
    stored = read_json(path) if path.is_file() else None
    return isinstance(stored, dict) and stored.get("kind") == "imitation"


def refuse_imitation(folder: Path) -> None:
    """Raise EvorError where a folder is of an imitation, whose policy is no run's."""
    if is_imitation(folder):
        raise EvorError(
            f"{folder} is an imitation; `evor show` and `evor report` read it, and `evor imitate demos` plays its policy."
        )
