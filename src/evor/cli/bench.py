"""`evor bench`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from evor.cli.options import Tabled, options, write_document


def bench_options() -> Any:
    """The options with their defaults."""
    from evor.experiments.bench.plan import PARTS
    from evor.experiments.bench.timings import SIZES, TIMED

    @dataclass(frozen=True, kw_only=True)
    class Bench(Tabled):
        """Time updates, decisions, data, files and environments. Print tables and write OUT/bench.json.

        With all presets it takes about twelve minutes on two cores. Decisions and many networks are those of
        `without-search`, the default with the dataset's action in targets. They are left out where --presets leaves it out.
        """

        out: Path = Path("runs/bench")  # Folder for bench.json.
        repeats: int = 5  # How often each measure is repeated.
        seconds: float = 2.0  # Time for each measure, about.
        sizes: Annotated[
            tuple[str, ...],
            arg(help=f"Sizes of networks and data, of {', '.join(SIZES)}.", help_behavior_hint="(default: all)"),
        ] = tuple(SIZES)
        presets: Annotated[
            tuple[str, ...], arg(help=f"Agents to time, of {', '.join(TIMED)}.", help_behavior_hint="(default: all)")
        ] = tuple(TIMED)
        parts: Annotated[
            tuple[str, ...], arg(help=f"What to time, of {', '.join(PARTS)}.", help_behavior_hint="(default: all)")
        ] = PARTS
        hours: float = math.inf  # Begin no measure after this time.
        resume: bool = False  # Keep the measures that OUT holds already.

    return Bench()


def bench(arguments: list[str]) -> None:
    from evor.experiments.bench.plan import bench as run

    a = options("evor bench", arguments, defaults=bench_options())
    report = run(
        a.out,
        repeats=a.repeats,
        seconds=a.seconds,
        sizes=a.sizes,
        presets=a.presets,
        parts=a.parts,
        hours=a.hours,
        resume=a.resume,
    )
    if a.json:
        write_document(report)
