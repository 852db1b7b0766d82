"""`evor data`: generate, check and download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import options
from evor.runtime.progress import console


def data_generate(arguments: list[str]) -> None:
    from evor.data.scripted.generate import generate
    from evor.runtime.parallel import default_workers

    @dataclass(frozen=True)
    class Generate:
        """Write NAME.npz and NAME-val.npz in OGBench's format. The same seed gives the same file, whatever WORKERS is.

        Interrupted, the same command goes on.
        """

        name: Positional[str]
        transitions: int = 1_000_000
        seed: int = 0
        workers: int = default_workers()
        out: Path = Path("data")
        expert: Annotated[Path | None, arg(help="antmaze only: the npz of a walker, layers w0 b0 w1 b1 w2 b2.")] = None

    a = options("evor data generate", arguments, defaults=Generate(tyro.MISSING))
    path = generate(a.name, a.transitions, seed=a.seed, workers=a.workers, folder=a.out, expert=a.expert)
    console.print(f"wrote {path} and {path.stem}-val.npz")


def data_check(arguments: list[str]) -> None:
    from evor.agents.registry import preset
    from evor.data.inspect import check_data
    from evor.training.config import RunConfig
    from evor.training.data import cache_of, data_spec_of, dataset_of

    @dataclass(frozen=True)
    class Check:
        """Say what is in a data set: an OGBench name, or --data with a file or folder of your own."""

        dataset: Positional[str | None] = None
        data: Annotated[str | None, arg(help="An npz file or a folder of them; with a name, where that file lies.")] = (
            None
        )
        tasks: Annotated[tuple[int, ...], arg(help="Tasks of an OGBench data set; all five where none is named.")] = ()
        preset: str = "default"
        memory_gb: Annotated[
            float | None,
            arg(help="Cap on the data in memory: larger data are laid out for training, a file at a time."),
        ] = None
        cache: Annotated[str | None, arg(help="Folder for what is laid out; beside the data where left out.")] = None

    a = options("evor data check", arguments, defaults=Check())
    tasks = a.tasks or ((1, 2, 3, 4, 5) if a.dataset else (1,))
    config = RunConfig(
        dataset=a.dataset, data=a.data, memory_gb=a.memory_gb, tasks=tasks, cache=a.cache, agent=preset(a.preset)
    )
    check_data(dataset_of(config), data_spec_of(config), memory_gb=config.memory_gb, cache=cache_of(config))


def data_download(arguments: list[str]) -> None:
    from evor.data.download import download

    @dataclass(frozen=True)
    class Download:
        """Fetch NAME.npz and NAME-val.npz from OGBench into ~/.ogbench/data."""

        name: Positional[str]

    download(options("evor data download", arguments, defaults=Download(tyro.MISSING)).name)
