"""Data larger than memory, on disk: summaries of its files and its columns, laid out once into a cache beside them.

A part is one file, or some small ones that follow each other. A process holds at most one part in memory. Everything in
the cache is named by what it was made from, written under a private name and never replaced, so that any number of
processes may use it at once. A part that one of them makes, others wait for.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import numpy as np

from evor.data.columns import check_targets, check_transitions, lay_out
from evor.data.formats.archive import contents
from evor.data.load import check_bounds, check_sizes, join
from evor.data.outliers import describe_outliers
from evor.data.parts import Part, open_part, read_cached, undamaged, write_cached, write_part
from evor.data.returns import Clock
from evor.data.standardisation import DataStatistics
from evor.data.summary import Reading, Summary, describe, merge, summarise
from evor.data.suspects import Rows
from evor.errors import EvorError, why
from evor.runtime.files import sweep
from evor.runtime.locks import waited_for
from evor.runtime.parallel import Local, Ray, parallel_map
from evor.runtime.progress import progress_bar
from evor.types import DataSpec, digest

CACHE = ".evor"  # folder beside the files
FORMAT = 2  # of the cache; another one goes by other names
PART_BYTES = 2**25  # of small files that are laid out together
Read = Callable[[Path], Reading]


class Store(NamedTuple):
    """A dataset that is laid out."""

    parts: tuple[Part, ...]
    files: tuple[Path, ...]
    summary: Summary
    statistics: DataStatistics
    digest: str
    notes: tuple[str, ...]

    def pieces(self) -> Iterator[Rows]:
        """All rows, a part at a time."""
        return (part.all_rows() for part in self.parts)


def open_store(
    files: Sequence[Path],
    read: Read,
    *,
    description: dict[str, Any],
    data_spec: DataSpec,
    cache: Path | None = None,
    machines: Local | Ray | None = None,
) -> Store:
    """Lay a dataset out in the folder `cache` (beside the files where it is None); what is there already stays.

    `description` is what else the rows depend on. With `machines`, each part is a job; left out, this process does all.
    Raises EvorError on data that can't be used.
    """
    root = cache or files[0].parent / CACHE
    if machines is not None:  # whose working folder may be another one
        files, root = [file.absolute() for file in files], root.absolute()
    parts = _sources(files, read, description=description, root=root)
    summaries, digests = _scan_all(parts, machines)
    summary = merge(summaries)
    check_transitions(summary.transitions)
    laid_out = _lay_out_all(parts, data_spec, clock=Clock(*summary.clock), machines=machines)
    check_targets(np.any([part.has_targets for part in laid_out], axis=0), data_spec, tasks=summary.tasks)
    statistics = laid_out[0].statistics
    for part in laid_out[1:]:
        statistics = statistics.merge(part.statistics)
    names = [file.name for file in files]
    whole = _Source(files, read, description=description, root=root)
    notes = describe(summary, names) + _outliers(whole, laid_out, summary=summary, names=names)
    # With the format: a run on blocks of another one can't go on with these.
    identity = sha256(" ".join([f"blocks {FORMAT}", *digests]).encode()).hexdigest()[:16]
    return Store(
        parts=tuple(laid_out), files=tuple(files), summary=summary, statistics=statistics, digest=identity, notes=notes
    )


def _sources(files: Sequence[Path], read: Read, *, description: dict[str, Any], root: Path) -> list["_Source"]:
    """Parts of a dataset: a file each, or some small ones that follow each other."""
    groups: list[list[Path]] = []
    bytes_left = 0
    for file in files:
        try:
            size = contents(file).bytes
        except EvorError:
            read(file)  # says what is wrong, as it does without a cache
            raise
        bytes_left -= size
        if bytes_left < 0:
            groups.append([])
            bytes_left = PART_BYTES - size
        groups[-1].append(file)
    return [_Source(group, read, description=description, root=root, is_only=len(files) == 1) for group in groups]


class _Source:
    """Files that become one part, and the places in the cache of what is made from them."""

    def __init__(
        self, files: Sequence[Path], read: Read, *, description: dict[str, Any], root: Path, is_only: bool = False
    ):
        self.files, self._read, self._description, self._root = tuple(files), read, description, root
        self._contents = {file: contents(file) for file in files}
        self._is_only = is_only
        self._held: Reading | None = None  # a single file is read once

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}  # rows stay in their process

    def path(self, suffix: str, *more: Any) -> Path:
        """A path in the cache for what is made from these files."""
        identity = [FORMAT, [self._contents[file].checksums for file in self.files], self._description, *more]
        key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return self._root / f"{self.files[0].stem}-{key}{suffix}"

    def folder(self, data_spec: DataSpec, clock: Clock) -> Path:
        """The folder of the part."""
        return self.path("", list(clock), _asked(data_spec))

    def reading(self, file: Path) -> Reading:
        """Read and check one of the files."""
        if self._held is not None:
            return self._held
        reading = self._read(file)
        if contents(file) != self._contents[file]:
            raise EvorError(f"{file} was changed while it was read; start again when it is complete.")
        self._held = reading if self._is_only else None
        return reading

    def release(self) -> None:
        """Drop the rows in memory."""
        self._held = None

    @contextlib.contextmanager
    def making(self, path: Path) -> Generator[bool]:
        """Tell inside whether `path` is to be made, which no other process does meanwhile. It is waited for.

        Raises EvorError where the cache can't be written.
        """
        if _is_made(path):
            yield False
            return
        with self._writing(), waited_for(self.root() / f".{path.name}.lock"):
            yield not _is_made(path)

    def root(self) -> Path:
        """The folder of the cache. Raises EvorError where it can't be made."""
        with self._writing():
            self._root.mkdir(parents=True, exist_ok=True)
        return self._root

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """Write below the cache's root. Raises EvorError where that can't be."""
        try:
            yield
        except OSError as error:
            raise EvorError(
                f"{self._root} can't be written ({why(error)}); free some space, or choose another place with cache (--cache)."
            ) from error


def _is_made(path: Path) -> bool:
    """Whether a file of the cache is there, or the folder of a part."""
    return path.exists() if path.suffix == ".json" else (path / "shard.json").exists()


# Jobs: each for a part, in any process.


def _scan(source: _Source, first: Path) -> tuple[int, str]:
    """Write the summary and the digest of a part. Returns how many files it has, and the name of one."""
    with source.making(path := source.path(".json")) as is_missing:
        if is_missing:
            scanned = []
            for file in source.files:
                episodes = (reading := source.reading(file)).episodes
                scanned.append((summarise(reading), digest(episodes)))
                _check_alike(file, scanned[-1][0], first=first, wanted=scanned[0][0])
            content = {
                "digest": sha256(" ".join(of_file for _, of_file in scanned).encode()).hexdigest(),
                "summary": asdict(merge([of_file for of_file, _ in scanned])),
            }
            write_cached(path, content)
    return len(source.files), source.files[-1].name


def _check_alike(file: Path, summary: Summary, *, first: Path, wanted: Summary) -> None:
    check_sizes(file, summary.spec, first=first, wanted=wanted.spec)
    check_bounds(file, summary.action_bounds, first=first, wanted=wanted.action_bounds)


def _lay_out(source: _Source, data_spec: DataSpec, clock: Clock) -> str:
    """Write all of a part's folder, or nothing of it. Returns the name of a file of it."""
    with source.making(folder := source.folder(data_spec, clock)) as is_missing:
        if is_missing:
            episodes = join([source.reading(file).episodes for file in source.files])
            layout = lay_out(episodes, data_spec, clock=clock)
            write_part(folder, layout, episodes=episodes)
    return source.files[0].name


def _scan_all(sources: Sequence[_Source], machines: Local | Ray | None) -> tuple[list[Summary], list[str]]:
    """A summary and a digest of every part."""
    missing = [source for source in sources if not _is_made(source.path(".json"))]
    first = sources[0].files[0]
    with _progress("scan", sum(len(source.files) for source in missing)) as advance:
        for done in _each(_scan, [(source, first) for source in missing], machines=machines):
            advance(*done)
    summaries, digests = [], []
    for source in sources:
        with undamaged(path := source.path(".json")):
            content = read_cached(path)
            summaries.append(cattrs.structure(content["summary"], Summary))
            digests.append(content["digest"])
        _check_alike(source.files[0], summaries[-1], first=first, wanted=summaries[0])
    return summaries, digests


def _lay_out_all(
    sources: Sequence[_Source], data_spec: DataSpec, *, clock: Clock, machines: Local | Ray | None
) -> list[Part]:
    """Every part's columns, in the data's units."""
    folders = [source.folder(data_spec, clock) for source in sources]
    jobs = [(source, data_spec, clock) for source, folder in zip(sources, folders, strict=True) if not _is_made(folder)]
    if jobs:
        sweep(folders[0].parent)
    with _progress("lay out", len(jobs), unit="parts") as advance:
        for name in _each(_lay_out, jobs, machines=machines):
            advance(1, name)
    for source in sources:
        source.release()
    return [open_part(folder) for folder in folders]


def _each(function: Callable[..., Any], jobs: list[tuple], *, machines: Local | Ray | None) -> Iterator[Any]:
    """Results of function(*job) for every job, whose first field is its part."""
    if machines is None or not jobs:
        return (function(*job) for job in jobs)
    return parallel_map(function, jobs, machines, shared=jobs[0][0].root())


def _outliers(whole: _Source, parts: Sequence[Part], *, summary: Summary, names: Sequence[str]) -> tuple[str, ...]:
    """Notes on outliers, which are looked for once."""
    with whole.making(path := whole.path("-outliers.json", list(names))) as is_missing:
        if is_missing:
            notes = describe_outliers(lambda: (part.piece() for part in parts), summary, names=names)
            write_cached(path, {"notes": notes})
    with undamaged(path):
        return tuple(read_cached(path)["notes"])


def _asked(data_spec: DataSpec) -> dict[str, Any]:
    """Settings that the columns in the data's own units depend on.

    Not on what will be standardised. The names of folders hold `standardise` all the same, as they did when it was one
    of the fields: what was laid out then is found again.
    """
    asked = data_spec._asdict()
    asked["whole_returns"] = asked.pop("full_returns")  # its name in the names of folders
    if not asked.pop("next_action_taken") and asked["next_action_known"] and asked["chunk_length"] > 1:
        asked["whole_chunks"] = True  # earlier versions had sums shorter than a chunk there
    for name in ("standardise_observations", "standardise_returns", "return_bounds", "num_draws"):
        del asked[name]
    return asked | {"standardise": True, "range": True}  # with the range of rewards, which earlier versions left out


@contextlib.contextmanager
def _progress(title: str, total: int, *, unit: str = "files") -> Generator[Callable[..., None]]:
    """A progress bar, where there is something to do."""
    if not total:
        yield lambda *_: None
        return
    with progress_bar(title, total, unit=unit) as advance:
        yield advance
