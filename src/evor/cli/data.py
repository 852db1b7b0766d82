"""`evor data`: generate, download, import, check and propose."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from evor.cli.machines import Machines, MachinesWithoutGpu
from evor.cli.options import Quiet, Tabled, options, write_document
from evor.cli.over_base import OverBase
from evor.cli.rules import one_of
from evor.runtime.progress import console, screen
from evor.runtime.words import counted


def data_generate_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Generate(Quiet, MachinesWithoutGpu):
        """Make a dataset in OGBench's format with OGBench's own scripted policies: DATASET.npz and DATASET-val.npz.

        From 10 million transitions on it is a folder DATASET of shards, to train on under --memory-gb. The same seed gives
        the same files, whatever plays the episodes: processes of this machine, or with --ray those of a cluster. The same
        command resumes what was interrupted.
        """

        name: Positional[str]  # Name of an OGBench dataset, such as pointmaze-medium-navigate-v0.
        transitions: int = 1_000_000  # Transitions of the training data.
        seed: int = 0  # Seed of the data.
        out: Path = Path("data")  # Folder for the files.
        # For antmaze only: npz file of a locomotion policy, layers w0 b0 w1 b1 w2 b2.
        expert: Annotated[Path | None, arg(metavar="FILE")] = None

    return Generate(name=tyro.MISSING)


def data_generate(arguments: list[str]) -> None:
    from evor.data.scripted.generate import generate

    a = options("evor data generate", arguments, defaults=data_generate_options())
    path = generate(a.name, a.transitions, seed=a.seed, folder=a.out, expert=a.expert, machines=a.machines())
    if path.is_dir():
        console.print(f"wrote the folder {path}, shards of a million transitions; train on it under --memory-gb")
    else:
        console.print(f"wrote {path} and {path.stem}-val.npz")


def data_import_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Import(Quiet, MachinesWithoutGpu):
        """Make npz files from recordings of other programs: Minari, LeRobot, D4RL, robomimic, or npz with other names.

        A folder or a file is told by what is in it; the id of a Minari dataset is looked for under MINARI_DATASETS_PATH.
        Several sources become one dataset. What finishes an episode is never guessed. The same command resumes what was
        interrupted. With --workers or --ray each source is a job.
        """

        # Processes side by side on this machine, each with a source at a time. Left out: this process alone.
        workers: int | None = None
        # Files, folders, or ids of Minari datasets.
        sources: Annotated[Positional[tuple[str, ...]], arg(help_behavior_hint="(required)")]
        # Folder for the npz files and import.json.
        out: Path
        # Columns that make the observation, in this order. Left out: the format's own.
        observation_keys: tuple[str, ...] | None = None
        # Column of the actions. Left out: the format's own.
        action_key: str | None = None
        # Column of the rewards; or steps, for -1 per step until success; or none, for behaviour cloning. Left out: the
        # format's own column.
        reward: str | None = None
        # What finishes an episode: column:NAME, where that is 1; reward, above 0, or reward:THRESHOLD; all or none of the
        # episodes; or file:CSV, with the columns episode and success. Left out: the recorded terminations.
        success: str | None = None
        # Name of a set of episodes that a robomimic file holds, such as train. Bounds of actions are those of all.
        mask: str | None = None
        # Episodes of each source, by their places from 0: 0:40 for the first 40, 40: for the others. Bounds of actions are
        # those of all. Left out: all.
        episodes: Annotated[str | None, arg(metavar="FROM:TO")] = None
        # Steps after which an episode was cut, for D4RL files and npz files that do not say.
        max_episode_steps: int | None = None
        # Least value of every entry of an action, or one for all. Left out: what the format declares, else that of all data.
        action_low: tuple[float, ...] | None = None
        # Largest value of every entry of an action, or one for all.
        action_high: tuple[float, ...] | None = None
        # Clip actions beyond the bounds, as environments do. Left out: they are refused.
        clip_actions: FlagCreatePairsOff[bool] = False
        # The most that a file may unpack to.
        max_gb: float = 100.0

    return Import(sources=tyro.MISSING, out=tyro.MISSING)


def data_import(arguments: list[str]) -> None:
    from evor.data.importing import Request, import_data

    a = options("evor data import", arguments, defaults=data_import_options())
    asked = {item.name: getattr(a, item.name) for item in fields(Request)}
    request = Request(**{name: value for name, value in asked.items() if value is not None})
    content = import_data(request, a.machines(1))
    counts = content["counts"]
    console.print(
        f"wrote {a.out}: {counted(counts['rows'], 'row')} of {counted(counts['episodes'], 'episode')}, {counts['finished_episodes']:,} "
        f"finished; dropped {counted(counts['dropped_rows'], 'row')} after a finish"
    )


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
        tasks: Annotated[tuple[int, ...], arg(help_behavior_hint="(default: all)")] = ()
        # Agent whose needs are checked, as in `evor train`.
        preset: Annotated[names, arg(help_behavior_hint="(default: default; bc for data without rewards)")] = "default"
        # Cap on the data in memory. Larger data are prepared for training a file at a time. Left out: no cap.
        memory_gb: float | None = None
        # Folder for data that are prepared under a cap. Left out: beside the data.
        cache: str | None = None

    return Check()


def data_check(arguments: list[str]) -> None:
    from evor.agents.registry import preset
    from evor.data.inspect import check_data
    from evor.data.source import NpzData
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
    is_given = any(word.startswith("--preset") for word in arguments)
    if not is_given and isinstance(files := dataset_of(config), NpzData) and not files.has_rewards():
        config = replace(config, agent=preset("bc", None))
    content = check_data(dataset_of(config), data_spec_of(config), memory_gb=config.memory_gb, cache=cache_of(config))
    if a.json:
        write_document(content)


def data_download_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Download(Quiet):
        """Download an official OGBench dataset into ~/.ogbench/data: DATASET.npz and DATASET-val.npz.

        The same command continues what broke off. Files are compared with SHA256SUMS in that folder.
        """

        name: Positional[str]  # Name of an OGBench dataset, such as pointmaze-medium-navigate-v0.
        # Addresses of folders with the same files, which are asked before those of EVOR_MIRRORS and the official one.
        mirrors: tuple[str, ...] | None = None
        # Download nothing: print the address of each file, and where to copy it.
        list: FlagCreatePairsOff[bool] = False

    return Download(name=tyro.MISSING)


def data_download(arguments: list[str]) -> None:
    from evor.data.download import download, list_files

    a = options("evor data download", arguments, defaults=data_download_options())
    if not a.list:
        download(a.name, mirrors=a.mirrors or ())
        return
    for address, path in list_files(a.name, mirrors=a.mirrors or ()):
        screen.print(f"{address} {path}", soft_wrap=True)


def data_propose_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Propose(Quiet, OverBase, Machines):
        """Draw proposals of a base policy of your own at every row of a dataset, for `evor train --proposals`.

        They are compared with the data's actions first. The same command resumes what was interrupted. With --workers or
        --ray, each process opens a base policy of its own.
        """

        # Processes side by side on this machine, each with a base policy of its own. Left out: this process alone.
        workers: int | None = None
        # An npz file, a folder of npz files, or the name of an OGBench dataset.
        data: Positional[str]
        # The base policy: python:module:function, openpi:ws://host:8000 or lerobot:FOLDER. Left out: only rows.npz and
        # proposals.json are written, and you write proposals.npy.
        base: str | None = None
        # Folder for the proposals.
        out: Path
        # Proposals of a row.
        num: int = 8
        # Actions of each that are kept: as many as will be executed.
        chunk_length: int = 1
        # Where the files of an OGBench dataset are.
        data_folder: Path | None = None
        # Cap on the data in memory. Larger data are laid out on disk first. Left out: no cap.
        memory_gb: float | None = None

    return Propose(data=tyro.MISSING, out=tyro.MISSING)


def data_propose(arguments: list[str]) -> None:
    from evor.policies.propose import propose

    a = options("evor data propose", arguments, defaults=data_propose_options())
    propose(
        a.data,
        out=a.out,
        num=a.num,
        chunk_length=a.chunk_length,
        data_folder=a.data_folder,
        memory_gb=a.memory_gb,
        machines=a.machines(1),
        **a.given_base(),
    )
