"""`evor report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from evor.cli.options import options
from evor.runtime.progress import console


def report(arguments: list[str]) -> None:
    from evor.report.run import write_report

    @dataclass(frozen=True)
    class Report:
        """Write report/index.html into the first RUN, from the evaluations of all of them."""

        runs: Positional[tuple[Path, ...]]

    a = options("evor report", arguments, defaults=Report(tyro.MISSING))
    console.print(f"wrote {write_report(list(a.runs))}")
