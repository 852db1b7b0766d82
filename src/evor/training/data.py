"""The data of a config: which dataset it names, what its agent asks of it, and the columns that come of both."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.contract import Head
from evor.agents.registry import AGENTS, AgentConfig
from evor.data import source
from evor.data.blocks import Blocks
from evor.data.columns import Columns, arrange
from evor.data.source import Dataset, InMemoryData, NpzData, OgbenchData
from evor.data.standardisation import Standardisation
from evor.errors import EvorError
from evor.runtime.files import expand
from evor.training.config import RunConfig
from evor.types import DataSpec, Episodes


def dataset_of(config: RunConfig) -> Dataset:
    """The dataset that a config names. Raises EvorError where it names none, or options that do not go with it."""
    if config.dataset is None and config.data is None:
        raise EvorError("no data given; name an OGBench dataset or give --data FILE.npz.")
    if config.dataset is None and config.tasks != (1,):
        raise EvorError(f"--tasks {list(config.tasks)} needs an OGBench dataset; data of your own is task 1.")
    if config.dataset is None and config.sparse_rewards:
        raise EvorError("--sparse-rewards needs an OGBench dataset; data of your own has the rewards you give it.")
    folder = expand(config.data) if config.data else None
    if config.dataset is None:
        return NpzData(folder or Path(), needs_rewards=needs_rewards(config.agent))
    return OgbenchData(name=config.dataset, tasks=config.tasks, folder=folder, sparse_rewards=config.sparse_rewards)


def needs_rewards(agent: AgentConfig) -> bool:
    """Whether an agent learns from rewards: one without a head does not."""
    return AGENTS[type(agent)].head != Head()


def data_spec_of(config: RunConfig) -> DataSpec:
    """Data layout that the agent of a config asks for."""
    return AGENTS[type(config.agent)].data_spec(config.agent)


def cache_of(config: RunConfig) -> Path | None:
    """The folder for what `memory_gb` lays out, None for the data's own."""
    return expand(config.cache) if config.cache else None


def open_data(config: RunConfig, dataset: Dataset | None = None) -> InMemoryData | Blocks:
    """The columns that a config trains on: in memory, or block by block under its cap. Raises EvorError.

    They are of `dataset` where it is given, as arrays in memory are, which no config can name.
    """
    return source.open_columns(
        dataset_of(config) if dataset is None else dataset,
        data_spec_of(config),
        batch_size=config.agent.learning.batch_size,
        seed=config.seed,
        memory_gb=config.memory_gb,
        cache=cache_of(config),
    )


def first_columns(config: RunConfig, data: InMemoryData | Blocks) -> Columns:
    """The columns of the first update, with room for the proposals that an agent asks for.

    Raises EvorError where they can't be stored.
    """
    if isinstance(data, Blocks) and AGENTS[type(config.agent)].base_first(config.agent):
        raise EvorError(
            f"memory_gb {config.memory_gb:g} does not hold all data, and this agent stores draws of the base policy for "
            "every row; give more memory, or store none (--agent.next-action.num-stored 0)."
        )
    return with_proposals(config, data.columns(0))


def with_proposals(config: RunConfig, columns: Columns) -> Columns:
    """Columns with room for the proposals that an agent asks for: a shape.

    Of more updates the rows are those of fewer and some more, so that draws stay useful where a run is extended.
    """
    first = AGENTS[type(config.agent)].base_first(config.agent)
    if first is None:
        return columns
    there = len(columns.sampled_rows)
    number = min(there, -(-config.updates * config.agent.learning.batch_size // first.visits))
    rows = np.asarray(columns.sampled_rows)[np.random.default_rng(0).permutation(there)[:number]]
    width = columns.actions.shape[1] * config.agent.chunk_length
    shape: Any = jax.ShapeDtypeStruct((config.num_seeds, number, first.num_proposals, width), jnp.float32)
    return columns._replace(sampled_rows=jnp.asarray(rows), count=jnp.asarray(number, jnp.int32), proposals=shape)


def load_episodes(config: RunConfig) -> Episodes:
    """The data that a config names, in memory. Raises EvorError."""
    return source.load_episodes(dataset_of(config))


def prepare(config: RunConfig, episodes: Episodes) -> tuple[Columns, Standardisation]:
    """Episodes laid out as the agent of a config wants them."""
    arranged = arrange(episodes, data_spec_of(config))
    return arranged.columns, arranged.scale
