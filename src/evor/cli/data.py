"""`evor data`: generate, check and download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from evor.cli.options import Quiet, Tabled, options, write_document
from evor.cli.rules import one_of
from evor.runtime.progress import console


def data_generate_options() -> Any:
    """The options with their defaults."""
    from evor.runtime.parallel import default_workers

    @dataclass(frozen=True, kw_only=True)
    class Generate(Quiet):
        """Make a dataset in OGBench's format with OGBench's own scripted policies: DATASET.npz and DATASET-val.npz.

        The same seed gives the same files for any number of workers. The same command resumes what was interrupted.
        """

        name: Positional[str]  # Name of an OGBench dataset, such as pointmaze-medium-navigate-v0.
        transitions: int = 1_000_000  # Transitions of the training data.
        seed: int = 0  # Seed of the data.
        workers: int = default_workers()  # Processes that play side by side.
        out: Path = Path("data")  # Folder for the files.
        expert: Path | None = None  # For antmaze only: npz file of a walking policy, layers w0 b0 w1 b1 w2 b2.

    return Generate(name=tyro.MISSING)


def data_generate(arguments: list[str]) -> None:
    from evor.data.scripted.generate import generate

    a = options("evor data generate", arguments, defaults=data_generate_options())
    path = generate(a.name, a.transitions, seed=a.seed, workers=a.workers, folder=a.out, expert=a.expert)
    console.print(f"wrote {path} and {path.stem}-val.npz")


def data_check_options() -> Any:
    """The options with their defaults."""
    from evor.agents.registry import PRESETS

    names: Any = one_of(PRESETS)

    @dataclass(frozen=True, kw_only=True)
    class Check(Tabled):
        """Summarise a dataset and list its problems: an OGBench DATASET, or data of your own with --data."""

        # Name of an OGBench dataset. Left out: --data is data of your own.
        dataset: Positional[str | None] = None
        # An npz file, or a folder of npz files. With DATASET: where its files are.
        data: str | None = None
        # Tasks of an OGBench dataset, by their numbers.
        tasks: tuple[int, ...] = ()
        # Agent whose needs are checked, as in `evor train`.
        preset: names = "default"
        # Cap on the data in memory. Larger data are prepared for training a file at a time. Left out: no cap.
        memory_gb: float | None = None
        # Folder for data that are prepared under a cap. Left out: beside the data.
        cache: str | None = None

    return Check()


def data_check(arguments: list[str]) -> None:
    from evor.agents.registry import preset
    from evor.data.inspect import check_data
    from evor.training.config import RunConfig
    from evor.training.data import cache_of, data_spec_of, dataset_of

    a = options("evor data check", arguments, defaults=data_check_options())
    tasks = a.tasks or ((1, 2, 3, 4, 5) if a.dataset else (1,))
    config = RunConfig(
        dataset=a.dataset,
        data=a.data,
        memory_gb=a.memory_gb,
        tasks=tasks,
        cache=a.cache,
        agent=preset(a.preset, a.dataset),
    )
    content = check_data(dataset_of(config), data_spec_of(config), memory_gb=config.memory_gb, cache=cache_of(config))
    if a.json:
        write_document(content)


def data_download_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Download(Quiet):
        """Download an official OGBench dataset into ~/.ogbench/data: DATASET.npz and DATASET-val.npz."""

        name: Positional[str]  # Name of an OGBench dataset, such as pointmaze-medium-navigate-v0.

    return Download(name=tyro.MISSING)


def data_download(arguments: list[str]) -> None:
    from evor.data.download import download

    download(options("evor data download", arguments, defaults=data_download_options()).name)
