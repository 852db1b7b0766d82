"""Sources of the columns that training samples from: all in memory, or block by block under a cap."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evor.data.blocks import Blocks
from evor.data.columns import Columns, arrange, memory_bytes
from evor.data.formats.archive import shapes
from evor.data.formats.npz import find_files, read_arrays, read_episodes
from evor.data.formats.ogbench import find_shards, load_shard
from evor.data.headers import check_memory, check_row_numbers, fits, read_headers
from evor.data.in_memory import InMemoryData, on_device
from evor.data.load import load
from evor.data.standardisation import DataStatistics, Standardisation, standardisation
from evor.data.store import Store, open_store
from evor.data.summary import Reading, Summary, describe_lengths
from evor.data.suspects import Pieces, Rows, rows_of
from evor.errors import EvorError
from evor.runtime.files import folder_of, read_json
from evor.runtime.memory import size_text
from evor.runtime.parallel import Local, Ray
from evor.runtime.provenance import versions
from evor.types import ActionBounds, DataSpec, Episodes, digest


class NpzData(NamedTuple):
    """An npz file of the user's own, or a folder of them: one task, number 1."""

    path: Path
    tasks: tuple[int, ...] = (1,)
    needs_rewards: bool = True  # else zeros stand for rewards that are not there

    @property
    def title(self) -> str:
        return str(self.path)

    def files(self) -> list[Path]:
        return find_files(self.path)

    def has_rewards(self) -> bool:
        """Whether a file holds rewards."""
        return any(shapes(file, "rewards") for file in self.files())

    def read(self, file: Path) -> Reading:
        return read_episodes(file, needs_rewards=self.needs_rewards)

    def description(self) -> dict[str, Any]:
        """Everything that the rows depend on, besides the files."""
        return {} if self.needs_rewards else {"needs_rewards": False}

    def imported(self) -> dict[str, Any]:
        """Read what import.json beside the files says of labels, observations and actions; {} for data that were not imported."""
        path = folder_of(self.path) / IMPORT
        if not path.is_file():
            return {}
        content = read_json(path, labels=str, observations=[list], actions=dict)
        return {name: content[name] for name in ("labels", "observations", "actions")}

    def import_notes(self) -> tuple[str, ...]:
        """Notes that `evor data import` left: the labels, what it dropped, and what was odd in the recordings."""
        path = folder_of(self.path) / IMPORT
        if not path.is_file():
            return ()
        content = read_json(
            path, labels=str, counts={"dropped_rows": int, "clipped_rows": int}, sources=[dict], notes=[str]
        )
        counts = content["counts"]
        notes = [f"imported with these labels: {content['labels']}"]
        notes += [f"{counts['dropped_rows']:,} rows after a finish were dropped"] * (counts["dropped_rows"] > 0)
        notes += [f"actions of {counts['clipped_rows']:,} rows were clipped to the bounds"] * (
            counts["clipped_rows"] > 0
        )
        return (*notes, *content["notes"], *(note for one in content["sources"] for note in one.get("notes", ())))


class OgbenchData(NamedTuple):
    """A dataset of OGBench, with the rewards of some of its tasks."""

    name: str
    tasks: tuple[int, ...]
    folder: Path | None = None  # where its files lie, or the file; searched for where it is None
    sparse_rewards: bool = False  # -1 until everything is done

    @property
    def title(self) -> str:
        return self.name

    def files(self) -> list[Path]:
        return find_shards(self.name, self.folder)

    def read(self, file: Path) -> Reading:
        return load_shard(self.name, file, tasks=self.tasks, sparse_rewards=self.sparse_rewards)

    def description(self) -> dict[str, Any]:
        """Everything that the rows depend on, besides the files."""
        labels = {"dataset": self.name, "tasks": self.tasks, "sparse_rewards": self.sparse_rewards}
        return labels | {"ogbench": versions()["ogbench"]}


class ArrayData(NamedTuple):
    """A user's own data in memory, under the names that an npz file gives them: one task, number 1."""

    arrays: Mapping[str, Any]
    tasks: tuple[int, ...] = (1,)
    needs_rewards: bool = True  # else zeros stand for rewards that are not there

    @property
    def title(self) -> str:
        return "arrays in memory"

    def files(self) -> list[Path]:
        """The name that errors and notes give the arrays; there is no such file."""
        return [Path("data")]

    def read(self, file: Path) -> Reading:
        return read_arrays(self.arrays, str(file), needs_rewards=self.needs_rewards)

    def description(self) -> dict[str, Any]:
        """Everything that the rows depend on, besides the arrays."""
        return {}


IMPORT = "import.json"  # that `evor data import` writes beside its npz files
Dataset = NpzData | OgbenchData | ArrayData


def load_episodes(dataset: Dataset) -> Episodes:
    """A dataset in memory. Raises EvorError."""
    return load(dataset.files(), dataset.read).episodes


class Survey(NamedTuple):
    """Facts about a dataset that training depends on."""

    summary: Summary
    scale: Standardisation
    complete: int  # rows with a complete reward-to-go
    notes: tuple[str, ...]
    memory_bytes: int  # of all columns
    pieces: Pieces  # all rows, some whole episodes at a time


def survey(
    dataset: Dataset, data_spec: DataSpec, *, memory_gb: float | None = None, cache: Path | None = None
) -> Survey:
    """Look at a dataset under a cap on its memory. Raises EvorError on what training would refuse."""
    return _survey(data_spec, _read(dataset, data_spec, memory_gb=memory_gb, cache=cache))


def lay_out(
    dataset: Dataset, data_spec: DataSpec, *, memory_gb: float | None, machines: Local | Ray, cache: Path | None = None
) -> None:
    """Lay out what a cap does not hold in memory, a job per part, so that training finds it. Raises EvorError."""
    files = dataset.files()
    if not _fits(dataset, files, data_spec=data_spec, memory_gb=memory_gb):
        _open_store(dataset, files, data_spec=data_spec, cache=cache, machines=machines)


def _fits(dataset: Dataset, files: list[Path], *, data_spec: DataSpec, memory_gb: float | None) -> bool:
    """Whether the data are to be held in memory. Raises EvorError where they can't be, with or without a cap."""
    if isinstance(dataset, ArrayData):
        return True
    headers, num_tasks = read_headers(files), len(dataset.tasks)
    is_whole = memory_gb is None or fits(headers, data_spec, num_tasks=num_tasks, memory_gb=memory_gb)
    check_row_numbers(headers, in_one_piece=is_whole)
    if memory_gb is None:
        check_memory(headers, data_spec, num_tasks=num_tasks, title=dataset.title)
    return is_whole


def _open_store(
    dataset: Dataset, files: list[Path], *, data_spec: DataSpec, cache: Path | None, machines: Local | Ray | None = None
) -> Store:
    return open_store(
        files, dataset.read, description=dataset.description(), data_spec=data_spec, cache=cache, machines=machines
    )


class _Loaded(NamedTuple):
    """A dataset in memory, laid out."""

    summary: Summary
    statistics: DataStatistics
    notes: tuple[str, ...]
    episodes: Episodes
    columns: Columns
    scale: Standardisation

    def pieces(self) -> list[Rows]:
        """All rows."""
        return [rows_of(self.episodes)]


def _read(dataset: Dataset, data_spec: DataSpec, *, memory_gb: float | None, cache: Path | None) -> _Loaded | Store:
    """A dataset in memory, or on disk where the cap does not hold it."""
    if memory_gb is not None and isinstance(dataset, ArrayData):
        raise EvorError("memory_gb needs data on disk; write the arrays with numpy.savez, and give the file.")
    files = dataset.files()
    if not _fits(dataset, files, data_spec=data_spec, memory_gb=memory_gb):
        return _open_store(dataset, files, data_spec=data_spec, cache=cache)
    loaded = load(files, dataset.read)
    episodes = loaded.episodes
    columns, scale, statistics = arrange(episodes, data_spec)
    return _Loaded(
        summary=loaded.summary,
        statistics=statistics,
        notes=episodes.notes,
        episodes=episodes,
        columns=columns,
        scale=scale,
    )


def _survey(data_spec: DataSpec, read: _Loaded | Store) -> Survey:
    summary, statistics = read.summary, read.statistics
    notes = read.notes + describe_lengths(summary, data_spec.num_steps)
    if not statistics.returns.count:
        notes += (
            "returns can't be measured exactly here, because some episodes were cut before later rewards became negligible; "
            "the unit of returns is estimated, and training is not affected otherwise",
        )
    return Survey(
        summary=summary,
        scale=standardisation(statistics, data_spec, action_bounds=summary.action_bounds),
        complete=statistics.returns.count,
        notes=notes,
        memory_bytes=memory_bytes(
            summary.spec,
            data_spec,
            rows=summary.rows,
            transitions=summary.transitions,
            num_tasks=len(summary.tasks),
        ),
        pieces=read.pieces,
    )


def open_columns(
    dataset: Dataset,
    data_spec: DataSpec,
    *,
    batch_size: int,
    seed: int,
    memory_gb: float | None = None,
    cache: Path | None = None,
    examine: Callable[[Pieces, ActionBounds], None] = lambda pieces, bounds: None,
) -> InMemoryData | Blocks:
    """The columns of a dataset: in memory, or block by block where a cap does not hold them. Raises EvorError.

    `examine` sees all rows in their own units, and the bounds of their actions.
    """
    read = _read(dataset, data_spec, memory_gb=memory_gb, cache=cache)
    surveyed = _survey(data_spec, read)
    examine(surveyed.pieces, surveyed.summary.action_bounds)
    if isinstance(read, Store):
        store = read._replace(notes=surveyed.notes)
        return Blocks(store, data_spec, memory_gb=memory_gb or 0, batch_size=batch_size, seed=seed)
    notes = (*surveyed.notes, f"{size_text(surveyed.memory_bytes)} of data in memory")
    spec, scale, identity, columns = read.summary.spec, read.scale, digest(read.episodes), read.columns
    num_rows = len(columns.sampled_rows)
    del read, surveyed  # the rows as they were read
    return InMemoryData(
        spec=spec,
        scale=scale,
        digest=identity,
        notes=notes,
        num_rows=num_rows,
        all_columns=on_device(columns._asdict()),
    )
