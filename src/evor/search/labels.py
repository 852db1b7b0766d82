"""Names of an extraction: for tables, CSV columns and files."""

from dataclasses import asdict
from typing import Any

from evor.search.extraction import Extraction, Prior


def describe(extraction: Extraction) -> str:
    """`SoftmaxOf 32` for bars and tables."""
    return (
        "base policy" if isinstance(extraction, Prior) else f"{type(extraction).__name__} {extraction.num_candidates}"
    )


def search_settings(extraction: Extraction) -> dict[str, Any]:
    """The extraction as CSV columns. The base policy has no temperatures; BestOf is action temperature 0."""
    columns = {
        "extraction": type(extraction).__name__,
        "num_candidates": extraction.num_candidates,
        "return_temperature": "",
        "action_temperature": "",
        "reading": "",
        "flow_steps": extraction.flow_steps,
        "max_return": "",  # of earlier versions, which knew no bounds of the rewards
    }
    if not isinstance(extraction, Prior):
        (count,) = asdict(extraction.reading).values()
        columns["return_temperature"] = float(extraction.return_temperature)
        columns["action_temperature"] = float(getattr(extraction, "action_temperature", 0.0))
        columns["reading"] = f"{type(extraction.reading).__name__}-{count}"
    return columns
