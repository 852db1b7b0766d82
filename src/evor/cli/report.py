"""`evor report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from evor.cli.options import options
from evor.runtime.progress import console


def report(arguments: list[str]) -> None:
    from evor.report.run import is_on_own_data, write_report

    @dataclass(frozen=True)
    class Report:
        """Write report/index.html into the first RUN, from the evaluations of all of them.

        A run on own data gets what its value predicts along held-out trajectories.
        """

        runs: Positional[tuple[Path, ...]]

    a = options("evor report", arguments, defaults=Report(tyro.MISSING))
    missing = {run: _predict(run) for run in a.runs if is_on_own_data(run)}
    console.print(f"wrote {write_report(list(a.runs), missing)}")


def _predict(run: Path) -> str:
    """Predict along the run's held-out trajectories, and say on the terminal why that can't be done."""
    from evor.policies.held_out import predict_held_out

    if missing := predict_held_out(run):
        console.print(missing, style="yellow")
    return missing
