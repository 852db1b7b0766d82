"""Settings that differ between environments, for presets that have some.

A preset takes the row of its dataset's environment, or the one in ELSEWHERE. A row is `published`, as the paper or its code
gives it, or `ours`. To add those of another agent, write its preset into the environments and into ELSEWHERE.
"""

import re
from typing import Any, NamedTuple

from evor.nn.critics import Mean, Minimum


class Row(NamedTuple):
    """Fields of an agent's config, and where their values are from."""

    settings: dict[str, Any]
    source: str


def published(**settings: Any) -> Row:
    """A row as the paper or its code gives it."""
    return Row(settings, "published")


def ours(**settings: Any) -> Row:
    """A row of this library."""
    return Row(settings, "ours")


# By environment, which is a dataset's name without its version, and by preset.
ENVIRONMENTS: dict[str, dict[str, Row]] = {
    "antmaze-large-navigate": {
        "sorl": published(improvement_weight=500.0, discount=0.99, aggregation=Minimum()),
    },
    "antmaze-giant-navigate": {
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Minimum()),
    },
    "humanoidmaze-medium-navigate": {
        "sorl": published(improvement_weight=100.0, discount=0.995, aggregation=Mean()),
    },
    "humanoidmaze-large-navigate": {
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Mean()),
    },
    "antsoccer-arena-navigate": {
        "sorl": published(improvement_weight=500.0, discount=0.995, aggregation=Mean()),
    },
    "cube-single-play": {
        "sorl": published(improvement_weight=10.0, discount=0.99, aggregation=Mean()),
    },
    "cube-double-play": {
        "sorl": published(improvement_weight=50.0, discount=0.99, aggregation=Mean()),
    },
    "scene-play": {
        "sorl": published(improvement_weight=100.0, discount=0.99, aggregation=Mean()),
    },
}
ELSEWHERE: dict[str, Row] = {  # environments of which nothing is published, and data of one's own
    "sorl": ours(improvement_weight=100.0, discount=0.99, aggregation=Mean()),
}


def row_of(preset: str, dataset: str | None) -> Row | None:
    """The row of a preset on a dataset, which is None for data of one's own; None where the preset has no rows at all."""
    environment = re.sub(r"-v\d+$", "", dataset or "")
    return ENVIRONMENTS.get(environment, {}).get(preset, ELSEWHERE.get(preset))


def told(preset: str, dataset: str | None, *, config: Any) -> str:
    """Settings that a config has from the row of a preset, in a line; "" where it has none of one."""
    row = row_of(preset, dataset)
    kept = {name: value for name, value in row.settings.items() if _of(config, name) == value} if row else {}
    if not row or not kept:
        return ""
    values = ", ".join(f"{name} {_shown(value)}" for name, value in kept.items())
    return f"{preset} on {dataset or 'your own data'}: {values} ({row.source})."


def _of(config: Any, name: str) -> Any:
    """A field of a config, or of its inlined `learning`."""
    return getattr(config, name) if hasattr(config, name) else getattr(config.learning, name)


def _shown(value: Any) -> str:
    """A number as it is read, and the name of a choice."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str | tuple) else type(value).__name__
