"""`evor report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import Quiet, options
from evor.errors import EvorError
from evor.runtime.progress import console

if TYPE_CHECKING:
    from evor.policies.load import Run


def report_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Report(Quiet):
        """Write a page with the results of runs: report/index.html in the first RUN.

        A run on data of your own gets what its value predicts along held-out trajectories. Runs of `evor imitate` are
        compared with one another.
        """

        # Run folders. Their evaluations go on one page.
        runs: Annotated[Positional[tuple[Path, ...]], arg(help_behavior_hint="(required)")]

    return Report(runs=tyro.MISSING)


def report(arguments: list[str]) -> None:
    from evor.imitation.page import write_report as write_imitation_report
    from evor.policies.load import open_if_trained
    from evor.report.config import is_imitation
    from evor.report.run import is_on_own_data, write_report

    a = options("evor report", arguments, defaults=report_options())
    if any(imitation := [is_imitation(folder) for folder in a.runs]):
        if not all(imitation):
            raise EvorError("some of the runs are imitations and some are not; give runs of one kind.")
        console.print(f"wrote {write_imitation_report(list(a.runs))}")
        return
    opened = {folder: open_if_trained(folder) for folder in a.runs}  # a damaged run gets no page
    missing = {folder: _predict(run) for folder, run in opened.items() if is_on_own_data(folder)}
    console.print(f"wrote {write_report(list(a.runs), missing)}")


def _predict(run: "Run | None") -> str:
    """Predict along the run's held-out trajectories, and say on the terminal why that can't be done."""
    from evor.policies.held_out import predict_held_out

    missing = predict_held_out(run) if run else "Held-out predictions could not be made, for the run has no checkpoint."
    if missing:
        console.print(missing, style="yellow")
    return missing
