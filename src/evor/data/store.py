"""Data larger than memory, on disk: summaries of its files and its columns, laid out once into a cache beside them.

A part is one file, or some small ones that follow each other. At most one part is held in memory. Everything in the
cache is named by what it was made from, written under a private name and never replaced, so that any number of
processes may use it at once.
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
from evor.runtime.progress import progress_bar
from evor.types import ActionBounds, DataSpec, Episodes, Spec, digest

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
    files: Sequence[Path], read: Read, *, description: dict[str, Any], data_spec: DataSpec, cache: Path | None = None
) -> Store:
    """Lay a dataset out in the folder `cache` (beside the files where it is None); what is there already stays.

    `description` is what else the rows depend on. Raises EvorError on data that can't be used.
    """
    store = _Cache(files, read, description=description, root=cache or files[0].parent / CACHE)
    summaries, digests = store.scan()
    summary = merge(summaries)
    check_transitions(summary.transitions)
    parts = store.lay_out(data_spec, Clock(*summary.clock))
    check_targets(np.any([part.has_targets for part in parts], axis=0), data_spec, tasks=summary.tasks)
    statistics = parts[0].statistics
    for part in parts[1:]:
        statistics = statistics.merge(part.statistics)
    names = [file.name for file in files]
    notes = describe(summary, names) + store.outliers(parts, summary, names=names)
    # With the format: a run on blocks of another one can't go on with these.
    identity = sha256(" ".join([f"blocks {FORMAT}", *digests]).encode()).hexdigest()[:16]
    return Store(
        parts=tuple(parts), files=tuple(files), summary=summary, statistics=statistics, digest=identity, notes=notes
    )


class _Cache:
    """The cache of one dataset, and what fills it."""

    def __init__(self, files: Sequence[Path], read: Read, *, description: dict[str, Any], root: Path):
        self._files, self._read, self._root, self._description = files, read, root, description
        self._held: tuple[Path, Reading] | None = None  # the file that was read last: a single one is read once
        self._spec: Spec | None = None  # of the first file
        self._bounds: ActionBounds | None = None
        self._contents = {}
        for file in files:
            try:
                self._contents[file] = contents(file)
            except EvorError:
                read(file)  # says what is wrong, as it does without a cache
                raise
        self._groups: list[list[Path]] = []
        bytes_left = 0
        for file in files:
            bytes_left -= self._contents[file].bytes
            if bytes_left < 0:
                self._groups.append([])
                bytes_left = PART_BYTES - self._contents[file].bytes
            self._groups[-1].append(file)

    def scan(self) -> tuple[list[Summary], list[str]]:
        """A summary and a digest of every part."""
        paths = [self._name(group, ".json") for group in self._groups]
        summaries, digests = [], []
        missing = sum(len(group) for group, path in zip(self._groups, paths, strict=True) if not path.exists())
        with _progress("scan", missing) as advance:
            for group, path in zip(self._groups, paths, strict=True):
                if not path.exists():
                    scanned = [self._scan_file(file, advance) for file in group]
                    content = {
                        "digest": sha256(" ".join(of_file for _, of_file in scanned).encode()).hexdigest(),
                        "summary": asdict(merge([of_file for of_file, _ in scanned])),
                    }
                    with self._writing():
                        write_cached(path, content)
                with undamaged(path):
                    content = read_cached(path)
                    summaries.append(cattrs.structure(content["summary"], Summary))
                    digests.append(content["digest"])
                self._check_sizes(group[0], summaries[-1])
        return summaries, digests

    def _check_sizes(self, file: Path, of_file: Episodes | Summary) -> None:
        self._spec, self._bounds = self._spec or of_file.spec, self._bounds or of_file.action_bounds
        check_sizes(file, of_file.spec, first=self._files[0], wanted=self._spec)
        check_bounds(file, of_file.action_bounds, first=self._files[0], wanted=self._bounds)

    def _scan_file(self, file: Path, advance: Callable[..., None]) -> tuple[Summary, str]:
        reading = self._reading(file)
        self._check_sizes(file, reading.episodes)
        advance(1, file.name)
        return summarise(reading), digest(reading.episodes)

    def lay_out(self, data_spec: DataSpec, clock: Clock) -> list[Part]:
        """Every part's columns, in the data's units."""
        folders = [self._name(group, "", list(clock), _asked(data_spec)) for group in self._groups]
        missing = sum(not (folder / "shard.json").exists() for folder in folders)
        if missing:
            sweep(self._root)
        with _progress("lay out", missing, unit="parts") as advance:
            for group, folder in zip(self._groups, folders, strict=True):
                if not (folder / "shard.json").exists():
                    self._lay_out(group, folder, data_spec=data_spec, clock=clock)
                    advance(1, group[0].name)
        self._held = None
        return [open_part(folder) for folder in folders]

    def _lay_out(self, group: Sequence[Path], folder: Path, *, data_spec: DataSpec, clock: Clock) -> None:
        """All of a part's folder, or nothing of it."""
        episodes = join([self._reading(file).episodes for file in group])
        layout = lay_out(episodes, data_spec, clock=clock)
        with self._writing():
            write_part(folder, layout, episodes=episodes)

    def outliers(self, parts: Sequence[Part], summary: Summary, *, names: Sequence[str]) -> tuple[str, ...]:
        """Notes on outliers, which are looked for once."""
        path = self._name(self._files, "-outliers.json", list(names))
        if not path.exists():
            notes = describe_outliers(lambda: (part.piece() for part in parts), summary, names=names)
            with self._writing():
                write_cached(path, {"notes": notes})
        with undamaged(path):
            return tuple(read_cached(path)["notes"])

    def _reading(self, file: Path) -> Reading:
        if self._held is None or self._held[0] != file:
            self._held = None  # before the next one is read
            self._held = (file, self._read(file))
            if contents(file) != self._contents[file]:
                raise EvorError(f"{file} was changed while it was read; start again when it is complete.")
        return self._held[1]

    def _name(self, group: Sequence[Path], suffix: str, *more: Any) -> Path:
        """A path in the cache for what is made from these files."""
        identity = [FORMAT, [self._contents[file].checksums for file in group], self._description, *more]
        key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return self._root / f"{group[0].stem}-{key}{suffix}"

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """Write below the cache's root. Raises EvorError where that can't be."""
        try:
            if not self._root.is_dir():
                self._root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise EvorError(
                f"{self._root} can't be written ({why(error)}); free some space, or choose another place with cache (--cache)."
            ) from error


def _asked(data_spec: DataSpec) -> dict[str, Any]:
    """Settings that the columns in the data's own units depend on.

    Not on what will be standardised. The names of folders hold `standardise` all the same, as they did when it was one
    of the fields: what was laid out then is found again.
    """
    asked = data_spec._asdict()
    asked["whole_returns"] = asked.pop("full_returns")  # its name in the names of folders
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
