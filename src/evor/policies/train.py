"""Training from Python: data -> a run whose policies act."""

import dataclasses
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evor.agents.environments import told
from evor.agents.registry import AGENTS, AgentConfig, preset
from evor.data.read import Data, find_dataset
from evor.data.source import ArrayData, Dataset, OgbenchData
from evor.errors import EvorError
from evor.policies.load import Run, open_run
from evor.runtime import arguments
from evor.runtime.files import check_ours
from evor.runtime.progress import console, hushed
from evor.runtime.provenance import check_device
from evor.runtime.records import union_members
from evor.training.config import RunConfig, plain, reasons
from evor.training.data import needs_rewards
from evor.training.over_base import over_proposals, read_proposals
from evor.training.sharding import Devices
from evor.training.train import Training


def train(
    data: Data,
    *,
    out: str | os.PathLike[str],
    updates: int = 100_000,
    base_updates: int | None = None,
    agent: str | AgentConfig = "default",
    data_folder: str | os.PathLike[str] | None = None,
    tasks: Sequence[int] = (1,),
    sparse_rewards: bool = False,
    seed: int = 0,
    num_seeds: int = 1,
    resume: bool = True,
    memory_gb: float | None = None,
    cache: str | os.PathLike[str] | None = None,
    proposals: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10_000,
    log_every: int = 500,
    devices: int | None = None,
    batch_devices: int = 1,
    quiet: bool = False,
) -> Run:
    """Train on a dataset into the run folder `out`, and return the run:

        run = evor.train(arrays, out="runs/mine", updates=20_000)
        action = run.policy().act(observation)

    `data`, `data_folder`, `tasks` and `sparse_rewards` are those of `evor.read_dataset`: a path, arrays, or an OGBench
    name. `agent` is a preset's name, which stands for its settings on this dataset (`evor.preset(name, dataset)`), or a
    config such as `evor.Evor(chunk_length=5)`. All tasks and the seeds `seed`, `seed + 1`, ... (`num_seeds` of them) are
    trained together. A base policy that is trained before the value makes `base_updates` (None: as many as `updates`).
    `memory_gb` caps what a dataset on disk takes of the memory: a larger one is laid out in the folder `cache` (beside the
    data where it is None) and trained on block by block. A progress bar goes to stderr, unless `quiet`. `proposals` is a
    folder of `evor.propose`: only the value is trained then, over the base policy that made them, and a preset's chunks and
    sums are as long as theirs.

    A checkpoint is written every `checkpoint_every` updates and means of the losses every `log_every`. Ctrl-C saves one
    more and raises KeyboardInterrupt. The same call goes on from the newest, and ends bit-identical to a run that was
    never stopped; on a run that is finished it trains nothing. More `updates` extend it. With resume=False a folder that
    holds a run is refused. Seeds and tasks are split over `devices` (None: as many of this machine's as divide them), and
    each batch over `batch_devices`. A run may go on with other numbers of them; it is then equal up to rounding.

    Raises EvorError, in one sentence and before anything is written, where an argument or the data are wrong, where
    `out` holds another run or something else, or where another process trains in it; later, where a loss is not finite
    or the disk is full. It never ends the process.
    """
    counts: dict[str, Any] = {"seed": seed, "num_seeds": num_seeds, "updates": updates}
    counts |= {"base_updates": base_updates, "checkpoint_every": checkpoint_every, "log_every": log_every}
    with hushed(quiet):
        folder = arguments.folder(out)
        dataset = find_dataset(data, data_folder=data_folder, tasks=tasks, sparse_rewards=sparse_rewards)
        chosen = _config_of(agent, dataset)
        folders = {"cache": cache, "proposals": proposals}
        given = {name: None if path is None else str(arguments.folder(path)) for name, path in folders.items()}
        if isinstance(agent, str) and given["proposals"]:
            chosen = over_proposals(chosen, read_proposals(given["proposals"]))
        if not isinstance(dataset, OgbenchData):
            dataset = dataset._replace(needs_rewards=needs_rewards(chosen))
        config = _config(dataset, chosen, counts=counts, memory_gb=memory_gb, folders=given)
        return _train(config, folder, dataset=dataset, resume=resume, devices=_devices(devices, batch_devices))


def _config(dataset: Dataset, agent: AgentConfig, *, counts: dict[str, Any], memory_gb: Any, folders: Any) -> RunConfig:
    """The config of a run. Raises EvorError, naming the argument of `train` that is wrong."""
    base_updates = counts.pop("base_updates")
    count = {name: arguments.count(int(name != "seed"), **{name: value}) for name, value in counts.items()}
    config = RunConfig(
        dataset=dataset.name if isinstance(dataset, OgbenchData) else None,
        data=_path_of(dataset),
        memory_gb=None if memory_gb is None else arguments.real(memory_gb=memory_gb),
        tasks=dataset.tasks,
        seed=count["seed"],
        num_seeds=count["num_seeds"],
        updates=count["updates"],
        base_updates=None if base_updates is None else arguments.count(1, base_updates=base_updates),
        checkpoint_every=count["checkpoint_every"],
        log_every=count["log_every"],
        sparse_rewards=isinstance(dataset, OgbenchData) and dataset.sparse_rewards,
        **folders,
        agent=agent,
    )
    _check_choices(agent, type(agent).__name__)
    try:
        return plain(config)
    except Exception as error:  # what is no number raises anything
        raise EvorError(f"a setting of the agent has a wrong type: {reasons(error)}.") from error


def _check_choices(config: Any, name: str) -> None:
    """Raise EvorError where a choice among types is something else, in a config or inside it."""
    for field, hint in typing.get_type_hints(type(config)).items():
        kinds = union_members(hint) or ((hint,) if dataclasses.is_dataclass(hint) else ())
        given = getattr(config, field)
        if kinds and not isinstance(given, kinds):
            choices = " or ".join(f"{kind.__name__}()" for kind in kinds)
            raise EvorError(f"{field} of {name} is {arguments.shown(given)}; give {choices}.")
        if dataclasses.is_dataclass(given):
            _check_choices(given, f"{name}.{field}")


def _devices(networks: int | None, batch: int) -> Devices:
    number = None if networks is None else arguments.count(1, devices=networks)
    return Devices(number, arguments.count(1, batch_devices=batch))


def _train(config: RunConfig, folder: Path, *, dataset: Dataset, resume: bool, devices: Devices) -> Run:
    check_device()
    check_ours(folder, folder / "config.json", kind="run")
    with Training.open(config, folder, resume=resume, dataset=dataset, devices=devices) as training:
        if training.step >= config.updates:
            console.print(f"{folder} is finished: {training.step} updates. More updates extend it.")
        try:
            training.advance(config.updates)
        except KeyboardInterrupt:
            console.print("call evor.train again with the same arguments to continue.")
            raise
    return open_run(folder)


def _path_of(dataset: Dataset) -> str | None:
    """The text that a config keeps of where a dataset lies; None for arrays in memory."""
    if isinstance(dataset, ArrayData):
        return None
    path = dataset.folder if isinstance(dataset, OgbenchData) else dataset.path
    return None if path is None else str(path)


def _config_of(agent: str | AgentConfig, dataset: Dataset) -> AgentConfig:
    """The config of an agent on a dataset. Raises EvorError on what is neither a preset's name nor a config."""
    if isinstance(agent, str):
        name, sparse = (dataset.name, dataset.sparse_rewards) if isinstance(dataset, OgbenchData) else (None, False)
        config = preset(agent, name)
        if note := told(agent, name, config=config, sparse_rewards=sparse):
            console.print(f"note: {note}")
        return config
    if type(agent) not in AGENTS:
        names = ", ".join(f"evor.{kind.__name__}" for kind in AGENTS)
        raise EvorError(f"agent is {arguments.shown(agent)}; give a preset's name, or a config of {names}.")
    return agent
