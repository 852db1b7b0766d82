"""`evor reproduce`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.machines import Machines
from evor.cli.options import Tabled, options, write_document
from evor.cli.rules import one_of


def reproduce_options() -> Any:
    """The options with their defaults."""
    from evor.experiments.reproduce.matrices import ENTRIES
    from evor.experiments.reproduce.scales import SCALES
    from evor.experiments.reproduce.suite import SUITES

    names: Any = one_of(SCALES)

    @dataclass(frozen=True, kw_only=True)
    class Reproduce(Tabled, Machines):
        """Run papers' experiments: train, play and tabulate every cell of a suite. The same command resumes them.

        The suite `paper` compares all agents on EVOR's datasets. `ablations` plays its last checkpoints of the agent `evor`
        under other searches, one setting changed at a time. `sorl` compares SORL and the field's baselines on SORL's
        datasets, and plays `sorl` in 1 to 8 flow steps with 1 to 32 candidates. Scale smoke takes minutes, small a day or
        more on two cores, full a GPU.

        `--ray` shares the cells out to a cluster. Left out, scale full has two processes on this machine, which share its
        GPU: one trains while the other plays.
        """

        suite: Annotated[Positional[str], arg(help=f"One of {', '.join(SUITES)}.")]
        # Folder for manifest.json, cells/, results.csv, timings.csv and the page, results.md.
        out: Path
        # How large the experiments are.
        scale: names = "small"
        only: Annotated[
            tuple[str, ...],
            arg(
                help=f"Keep only these datasets, agents ({', '.join(ENTRIES)}) and tasks (task3).",
                help_behavior_hint="(default: all)",
            ),
        ] = ()
        # How many seeds. Left out: as many as the scale has.
        num_seeds: int | None = None
        # Stop cleanly before this much time has passed.
        hours: float = math.inf
        # Folder with NAME.npz, or with a folder NAME of shards. Datasets that are missing are generated below it.
        data: Annotated[Path, arg(metavar="FOLDER")] = Path("data")
        # The ant's locomotion policy, see `evor data generate --help`.
        expert: Annotated[Path | None, arg(metavar="FILE")] = None
        # Cap on the data of a run in memory, for datasets in shards. Left out: no cap.
        memory_gb: float | None = None

    return Reproduce(suite=tyro.MISSING, out=tyro.MISSING)


def reproduce(arguments: list[str]) -> None:
    from evor.experiments.reproduce.runner import reproduce as run
    from evor.experiments.reproduce.scales import find_scale
    from evor.experiments.reproduce.suite import find_suite

    a = options("evor reproduce", arguments, defaults=reproduce_options())
    scale = find_scale(a.scale)
    rows = run(
        find_suite(a.suite),
        scale,
        out=a.out,
        data=a.data,
        only=a.only,
        hours=a.hours,
        seeds=a.num_seeds,
        expert=a.expert,
        memory_gb=a.memory_gb,
        machines=a.machines(scale.workers),
    )
    if a.json:
        write_document({"out": str(a.out), "results": rows})
