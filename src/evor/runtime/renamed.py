"""Settings of a run that earlier versions called otherwise: what a stored config.json may say."""

from typing import Any

RUN_CONFIG = {"steps": "updates", "seeds": "num_seeds"}  # until version 0.2.0


def run_config(content: Any) -> Any:
    """The stored config of a run, its settings called as they are today.

    One that is there under both names keeps its own, which no config has.
    """
    if not isinstance(content, dict):
        return content
    names = {old: new for old, new in RUN_CONFIG.items() if new not in content}
    return {names.get(name, name): value for name, value in content.items()}


def as_stored(name: str, content: dict[str, Any]) -> str:
    """Name that a stored config of a run has for today's setting `name`."""
    old = next((old for old, new in RUN_CONFIG.items() if new == name), name)
    return old if old in content and name not in content else name
