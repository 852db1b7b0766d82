"""The data of a config: which dataset it names, what its agent asks of it, and the columns that come of both."""

from pathlib import Path
from typing import Any

from evor.agents.contract import Head
from evor.agents.registry import AGENTS, AgentConfig
from evor.data import source
from evor.data.blocks import Blocks
from evor.data.columns import Columns, arrange
from evor.data.in_memory import InMemoryData
from evor.data.source import Dataset, NpzData, OgbenchData
from evor.data.standardisation import Standardisation
from evor.errors import EvorError
from evor.runtime.files import expand
from evor.runtime.parallel import Local, Ray
from evor.training.config import RunConfig
from evor.training.over_base import Proposals, changed_by, check_over_base, read_proposals
from evor.types import DataSpec, Episodes, Spec


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
    agent = AGENTS[type(config.agent)]
    first = agent.base_first(config.agent)
    draws = 0 if first is None else config.num_seeds * first.num_proposals
    return agent.data_spec(config.agent)._replace(num_draws=draws)


def cache_of(config: RunConfig) -> Path | None:
    """The folder for what `memory_gb` lays out, None for the data's own."""
    return expand(config.cache) if config.cache else None


def lay_out(config: RunConfig, machines: Local | Ray) -> None:
    """Lay out the data of a config where its cap does not hold them, a job per part. Raises EvorError."""
    source.lay_out(
        dataset_of(config),
        data_spec_of(config),
        memory_gb=config.memory_gb,
        cache=cache_of(config),
        machines=machines,
    )


def open_data(config: RunConfig, dataset: Dataset | None = None) -> InMemoryData | Blocks:
    """The columns that a config trains on: in memory, or block by block under its cap. Raises EvorError.

    They are of `dataset` where it is given, as arrays in memory are, which no config can name.
    """
    proposals = proposals_of(config)
    check_over_base(config, proposals)
    spec = data_spec_of(config)
    options = {} if proposals is None else {"examine": proposals.check}
    data = source.open_columns(
        dataset_of(config) if dataset is None else dataset,
        spec if proposals is None else spec._replace(num_draws=proposals.number),
        batch_size=config.agent.learning.batch_size,
        seed=config.seed,
        memory_gb=config.memory_gb,
        cache=cache_of(config),
        **options,
    )
    return data if proposals is None else data.changed(changed_by(proposals, data))


def proposals_of(config: RunConfig) -> Proposals | None:
    """The proposals that a config names. Raises EvorError where they can't be read."""
    return read_proposals(config.proposals) if config.proposals else None


def imported(config: RunConfig, spec: Spec, *, dataset: Dataset | None = None) -> dict[str, Any]:
    """Labels and names that `evor data import` left beside the data, {} where it made none of these sizes."""
    given = dataset_of(config) if dataset is None else dataset
    content = given.imported() if isinstance(given, NpzData) else {}
    if not content or sum(width for _, width in content["observations"]) != spec.observation_dim:
        return {}
    return {"imported": content}


def load_episodes(config: RunConfig) -> Episodes:
    """The data that a config names, in memory. Raises EvorError."""
    return source.load_episodes(dataset_of(config))


def prepare(config: RunConfig, episodes: Episodes) -> tuple[Columns, Standardisation]:
    """Episodes laid out as the agent of a config wants them."""
    arranged = arrange(episodes, data_spec_of(config))
    return arranged.columns, arranged.scale
