"""Where training's columns come from: all in memory, or block by block under a cap."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evor.config import AGENTS, RunConfig
from evor.data.arrange import Arranged, Facts, arrange, memory_bytes, standardisation
from evor.data.blocks import Blocks, rows_that_fit
from evor.data.formats.archive import shapes
from evor.data.formats.npz import find_files, read_episodes
from evor.data.formats.ogbench import find_shards, load_shard
from evor.data.load import Loaded, load
from evor.data.store import Store, open_store
from evor.data.summary import Reading, Summary, describe_lengths
from evor.data.transitions import Columns, Standardisation
from evor.errors import EvorError
from evor.runtime.files import expand
from evor.runtime.memory import size_text
from evor.runtime.provenance import versions
from evor.types import DataNeeds, Episodes, Spec, digest


class _Source(NamedTuple):
    """The files that a config names, and how to read one."""

    files: list[Path]
    read: Callable[[Path], Reading]
    description: dict[str, Any]  # what the rows depend on beside the files


def _find(config: RunConfig) -> _Source:
    """Raises EvorError where a config names no data, or some that are not there."""
    if config.dataset is None and config.data is None:
        raise EvorError("no data given; name an OGBench dataset or give --data FILE.npz.")
    if config.dataset is None and config.tasks != (1,):
        raise EvorError(f"--tasks {list(config.tasks)} needs an OGBench dataset; data of your own is task 1.")
    if config.dataset is None and config.sparse_rewards:
        raise EvorError("--sparse-rewards needs an OGBench dataset; data of your own has the rewards you give it.")
    place = expand(config.data) if config.data else None
    if config.dataset is None:
        return _Source(find_files(place or Path()), read_episodes, {})
    labels = {"dataset": config.dataset, "tasks": config.tasks, "sparse_rewards": config.sparse_rewards}
    read = functools.partial(load_shard, config.dataset, config.tasks, config.sparse_rewards)
    return _Source(find_shards(config.dataset, place), read, labels | {"ogbench": versions()["ogbench"]})


def load_episodes(config: RunConfig) -> Episodes:
    """The data a config names, in memory. Raises EvorError."""
    source = _find(config)
    return load(source.files, source.read).episodes


def needs(config: RunConfig) -> DataNeeds:
    """What this agent asks of the data."""
    return AGENTS[type(config.agent)].needs(config.agent)


def prepare(config: RunConfig, episodes: Episodes) -> tuple[Columns, Standardisation]:
    """The data laid out as this agent wants it."""
    arranged = arrange(episodes, needs(config))
    return arranged.columns, arranged.scale


class Survey(NamedTuple):
    """What training makes of a data set."""

    summary: Summary
    scale: Standardisation
    complete: int  # rows with a complete reward-to-go
    notes: tuple[str, ...]
    memory_bytes: int  # of all columns


def _survey(config: RunConfig, summary: Summary, facts: Facts, notes: tuple[str, ...]) -> Survey:
    asked = needs(config)
    notes += describe_lengths(summary, asked.num_steps)
    if not facts.returns.count:
        notes += (
            "no episode is long enough for a complete reward-to-go (finished ones are held to the clock of those that were "
            "cut, or only the fast would count): returns are standardised by an estimate",
        )
    size = memory_bytes(summary.spec, summary.rows, summary.transitions, len(summary.tasks), asked)
    return Survey(summary, standardisation(facts, asked.discount, asked.standardise), facts.returns.count, notes, size)


def survey(config: RunConfig) -> Survey:
    """Look at the data a config names, under its cap. Raises EvorError on what training would refuse."""
    source = _find(config)
    if not _fits(config, source):
        store = _store(config, source)
        return _survey(config, store.summary, store.facts, store.notes)
    loaded, arranged = _in_memory(config, source)
    return _survey(config, loaded.summary, arranged.facts, loaded.episodes.notes)


class Resident(NamedTuple):
    """All columns at once."""

    spec: Spec
    scale: Standardisation
    digest: str
    notes: tuple[str, ...]
    num_rows: int
    columns: Columns

    def at(self, step: int) -> Columns:
        return self.columns

    def until(self, step: int) -> int:
        return sys.maxsize


def open_data(config: RunConfig) -> Resident | Blocks:
    """The data a config names: in memory, or block by block where its cap does not hold them. Raises EvorError."""
    source = _find(config)
    if not _fits(config, source):
        store = _store(config, source)
        store = store._replace(notes=_survey(config, store.summary, store.facts, store.notes).notes)
        return Blocks(store, needs(config), config.memory_gb or 0, config.agent.batch_size, config.seed)
    loaded, arranged = _in_memory(config, source)
    columns, scale, facts = arranged
    known = _survey(config, loaded.summary, facts, loaded.episodes.notes)
    notes = (*known.notes, f"{size_text(known.memory_bytes)} of data in memory")
    on_device = jax.tree.map(jnp.asarray, columns)
    return Resident(loaded.summary.spec, scale, digest(loaded.episodes), notes, len(columns.rows), on_device)


def _in_memory(config: RunConfig, source: _Source) -> tuple[Loaded, Arranged]:
    loaded = load(source.files, source.read)
    return loaded, arrange(loaded.episodes, needs(config))


def _store(config: RunConfig, source: _Source) -> Store:
    cache = expand(config.cache) if config.cache else None
    return open_store(source.files, source.read, source.description, needs(config), cache)


def _fits(config: RunConfig, source: _Source) -> bool:
    """Whether the cap, if there is one, holds all of the data: then they are trained on as if there were none.

    Judged by what the files say of themselves; with next_observations there may be twice as many rows.
    """
    if config.memory_gb is None:
        return True
    rows = 0
    for file in source.files:
        try:
            found = shapes(file, "observations", "actions", "next_observations")
            (count, *of_observation), (_, *of_action) = found["observations"], found["actions"]
        except (EvorError, KeyError, ValueError):
            return False  # whoever reads it says what is wrong
        spec = Spec(*map(int, (*of_observation, *of_action))) if len(of_observation) == len(of_action) == 1 else None
        rows += count * (2 if "next_observations" in found else 1)
        if spec is None or rows > rows_that_fit(config.memory_gb, spec, len(config.tasks), needs(config)):
            return False
    return True
