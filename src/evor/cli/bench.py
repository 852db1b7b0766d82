"""`evor bench`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from evor.cli.options import options


def bench(arguments: list[str]) -> None:
    from evor.agents.registry import PRESETS
    from evor.experiments.bench.plan import PARTS
    from evor.experiments.bench.plan import bench as run
    from evor.experiments.bench.timings import SIZES

    @dataclass(frozen=True)
    class Bench:
        """Time updates, decisions, data, files and environments; print tables and write OUT/bench.json.

        About twelve minutes on two cores with all presets; decisions and many networks are those of `default`, and are
        left out where --presets leaves it out.
        """

        out: Path = Path("runs/bench")
        repeats: int = 5
        seconds: Annotated[float, arg(help="Of each measure, about.")] = 2.0
        sizes: tuple[str, ...] = tuple(SIZES)
        presets: tuple[str, ...] = tuple(PRESETS)
        parts: tuple[str, ...] = PARTS
        hours: Annotated[float, arg(help="No measure begins after them.")] = math.inf
        resume: Annotated[bool, arg(help="Keep what OUT holds already.")] = False

    a = options("evor bench", arguments, defaults=Bench())
    run(
        a.out,
        repeats=a.repeats,
        seconds=a.seconds,
        sizes=a.sizes,
        presets=a.presets,
        parts=a.parts,
        hours=a.hours,
        resume=a.resume,
    )
