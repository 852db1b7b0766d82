"""`evor reproduce`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import options


def reproduce(arguments: list[str]) -> None:
    from evor.experiments.reproduce.runner import reproduce as run
    from evor.experiments.reproduce.scales import ENTRIES, SCALES, find_scale
    from evor.experiments.reproduce.suite import SUITES, find_suite

    @dataclass(frozen=True)
    class Reproduce:
        """Train, play and tabulate every cell of a suite. Run again, it resumes; finished cells stay.

        paper: all agents. ablations: the last checkpoints of `evor` under other searches, one dial at a time. --scale smoke
        takes minutes, small half a day of two cores (docs/results/paper-small tells each cell's cost), full a card.
        """

        suite: Annotated[Positional[str], arg(help=f"One of {', '.join(SUITES)}.")]
        out: Annotated[
            Path, arg(help="Holds manifest.json, cells/, results.csv, timings.csv and the page, results.md.")
        ]
        scale: Annotated[str, arg(help=f"One of {', '.join(SCALES)}.")] = "small"
        only: Annotated[
            tuple[str, ...],
            arg(help=f"Datasets, agents ({', '.join(ENTRIES)}) and tasks (task3) to keep: those of all that is named."),
        ] = ()
        seeds: Annotated[int | None, arg(help="Fewer or more than the scale's own.")] = None
        hours: Annotated[float, arg(help="Stop cleanly before so much time has passed.")] = math.inf
        data: Annotated[
            Path,
            arg(help="Holds NAME.npz, or a folder NAME of shards; what is in neither place is generated below it."),
        ] = Path("data")
        expert: Annotated[Path | None, arg(help="The ant's navigation policy, see `evor data generate`.")] = None
        memory_gb: Annotated[float | None, arg(help="Cap on a run's data in memory, for datasets in shards.")] = None
        workers: Annotated[int | None, arg(help="Processes; one per core where left out, one at scale full.")] = None

    a = options("evor reproduce", arguments, defaults=Reproduce(tyro.MISSING, tyro.MISSING))
    run(
        find_suite(a.suite),
        find_scale(a.scale),
        out=a.out,
        data=a.data,
        only=a.only,
        hours=a.hours,
        seeds=a.seeds,
        expert=a.expert,
        memory_gb=a.memory_gb,
        workers=a.workers,
    )
