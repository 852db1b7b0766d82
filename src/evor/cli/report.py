"""`evor report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from evor.cli.options import Quiet, options
from evor.runtime.progress import console


def report_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Report(Quiet):
        """Write a page with the results of runs: report/index.html in the first RUN."""

        # Run folders. Their evaluations go on one page.
        runs: Positional[tuple[Path, ...]]

    return Report(runs=tyro.MISSING)


def report(arguments: list[str]) -> None:
    from evor.report.run import is_on_own_data, write_report

    a = options("evor report", arguments, defaults=report_options())
    missing = {run: _predict(run) for run in a.runs if is_on_own_data(run)}
    console.print(f"wrote {write_report(list(a.runs), missing)}")


def _predict(run: Path) -> str:
    """Predict along the run's held-out trajectories, and say on the terminal why that can't be done."""
    from evor.policies.held_out import predict_held_out

    if missing := predict_held_out(run):
        console.print(missing, style="yellow")
    return missing
