"""Where training's columns come from: all in memory, or block by block under a cap."""

import functools
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evor.config import AGENTS, RunConfig
from evor.data.blocks import Blocks, lay_out_shards
from evor.data.files import find_files, load_files, read_episodes
from evor.data.ogbench import find_shards, load_dataset, load_shard
from evor.data.transitions import Columns, Standardisation, arrange, describe_short_episodes, memory_bytes
from evor.errors import EvorError
from evor.types import DataNeeds, Episodes, Spec, digest


def load_episodes(config: RunConfig) -> Episodes:
    """The data a config names, in memory. Raises EvorError."""
    _check_named(config)
    if config.dataset is not None:
        return load_dataset(config.dataset, config.tasks, _folder(config), config.sparse_rewards)
    return load_files(Path(config.data or ""))


def _check_named(config: RunConfig) -> None:
    if config.dataset is None and config.data is None:
        raise EvorError("no data given; name an OGBench dataset or give --data FILE.npz.")
    if config.dataset is None and config.tasks != (1,):
        raise EvorError(f"--tasks {list(config.tasks)} needs an OGBench dataset; data of your own is task 1.")
    if config.dataset is None and config.sparse_rewards:
        raise EvorError("--sparse-rewards needs an OGBench dataset; data of your own has the rewards you give it.")


def _folder(config: RunConfig) -> Path | None:
    return Path(config.data) if config.data else None


def needs(config: RunConfig) -> DataNeeds:
    """What this agent asks of the data."""
    return AGENTS[type(config.agent)].needs(config.agent)


def prepare(config: RunConfig, episodes: Episodes) -> tuple[Columns, Standardisation]:
    """The data laid out as this agent wants it."""
    return arrange(episodes, needs(config))


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
    """The data a config names: in memory, or block by block where it sets a cap. Raises EvorError."""
    if config.memory_gb is None:
        episodes = load_episodes(config)
        columns, scale = prepare(config, episodes)
        notes = episodes.notes + describe_short_episodes(episodes, needs(config).num_steps)
        notes += (f"{memory_bytes(columns) / 2**20:.0f} MiB of data in memory",)
        return Resident(
            episodes.spec, scale, digest(episodes), notes, len(columns.rows), jax.tree.map(jnp.asarray, columns)
        )
    _check_named(config)
    if config.dataset is not None:
        files, read = (
            find_shards(config.dataset, _folder(config)),
            functools.partial(load_shard, config.dataset, config.tasks, config.sparse_rewards),
        )
    else:
        files, read = find_files(Path(config.data or "")), read_episodes
    described = {"dataset": config.dataset, "tasks": config.tasks, "sparse_rewards": config.sparse_rewards}
    shards = lay_out_shards(files, read, needs(config), described)
    return Blocks(shards, needs(config), config.memory_gb, config.agent.batch_size, config.seed)
