"""`evor demo`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from evor.cli.options import Tabled, options, write_document


def demo_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Demo(Tabled):
        """Make data for pointmaze-medium-navigate, train on task 1, search with several numbers of candidates, and report."""

        seed: int = 0  # Seed of the data and of training.
        out: Path = Path("runs/demo")  # The run folder. An earlier demo in it is replaced.
        transitions: int = 1_000_000  # Transitions of the data.
        updates: int = 6_000  # Gradient steps of every network.
        episodes: int = 20  # Episodes that each search plays.
        num_candidates: tuple[int, ...] = (4, 16, 32)  # Candidates per decision, a search for each number.
        data: Annotated[Path, arg(metavar="FOLDER")] = Path("data/demo")  # Folder that keeps the data.

    return Demo()


def demo(arguments: list[str]) -> None:
    from evor.experiments.demo import demo as run

    a = options("evor demo", arguments, defaults=demo_options())
    summary = run(
        a.out,
        a.data,
        seed=a.seed,
        transitions=a.transitions,
        updates=a.updates,
        episodes=a.episodes,
        num_candidates=a.num_candidates,
    )
    if a.json:
        write_document(summary)
