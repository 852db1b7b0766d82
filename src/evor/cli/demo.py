"""`evor demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from evor.cli.options import options


def demo(arguments: list[str]) -> None:
    from evor.experiments.demo import demo as run

    @dataclass(frozen=True)
    class Demo:
        """Generate pointmaze-medium-navigate, train on task 1, search with 4, 16 and 32 candidates, write the report."""

        seed: int = 0
        out: Path = Path("runs/demo")
        transitions: int = 1_000_000
        updates: int = 10_000
        episodes: int = 20
        num_candidates: tuple[int, ...] = (4, 16, 32)
        data: Annotated[Path, arg(help="Where the generated data is kept.")] = Path("data/demo")

    a = options("evor demo", arguments, defaults=Demo())
    run(
        a.out,
        a.data,
        seed=a.seed,
        transitions=a.transitions,
        updates=a.updates,
        episodes=a.episodes,
        num_candidates=a.num_candidates,
    )
