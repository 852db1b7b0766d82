"""Names of an extraction: for tables, CSV columns and files."""

from dataclasses import asdict
from typing import Any

from evor.search.extraction import Extraction, Guided, Prior, action_steps
from evor.search.guidance import Guidance
from evor.search.readings import Reading


def describe(extraction: Extraction) -> str:
    """`SoftmaxOf 32` for bars and tables."""
    return (
        "base policy" if isinstance(extraction, Prior) else f"{type(extraction).__name__} {extraction.num_candidates}"
    )


def search_settings(extraction: Extraction, base: str = "") -> dict[str, Any]:
    """The extraction as CSV columns, and the name of a base policy of the user's own.

    The base policy has no temperatures; BestOf and Guided are action temperature 0.
    """
    columns = {
        "extraction": type(extraction).__name__,
        "num_candidates": extraction.num_candidates,
        "return_temperature": "",
        "action_temperature": "",
        "reading": "",
        "flow_steps": action_steps(extraction),
        "max_return": "",  # of earlier versions, which knew no bounds of the rewards
        "guidance": "",
        "weight": "",
        "base": base,
    }
    if not isinstance(extraction, Prior):
        columns["return_temperature"] = float(extraction.return_temperature)
        columns["action_temperature"] = float(getattr(extraction, "action_temperature", 0.0))
        columns["reading"] = _with_numbers(extraction.reading)
    if isinstance(extraction, Guided):
        columns["guidance"] = _with_numbers(extraction.guidance)
        columns["weight"] = float(extraction.weight)
    return columns


def _with_numbers(choice: Reading | Guidance) -> str:
    """`Quadrature-16-3`, `InsideFlow`."""
    return "-".join([type(choice).__name__, *(str(number) for number in asdict(choice).values() if number is not None)])
