"""A run folder: what is read and refused when it is opened, and what is written before the first update."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from evor.agents.registry import AGENTS
from evor.data.blocks import Blocks
from evor.data.in_memory import InMemoryData
from evor.data.source import Dataset
from evor.errors import EvorError
from evor.nn.learner import Progress
from evor.runtime.files import read_json, read_json_lines, sweep, write_json, write_text
from evor.runtime.locks import Lock, hold
from evor.runtime.progress import console
from evor.runtime.provenance import provenance
from evor.runtime.words import counted
from evor.training import checkpoint, upgrade
from evor.training.config import (
    RunConfig,
    check_identity,
    from_json,
    read_identity,
    run_differences,
    shortened,
    to_json,
)
from evor.training.data import imported, open_data, proposals_of
from evor.training.proposals import visited
from evor.training.sharding import Devices, Split, mesh_of, split_of
from evor.training.update import State, initial_state, make_runner, put_state

LOCK = ".lock"  # held while a process trains in the folder
SAVED = "saved.json"  # the step of the last checkpoint: without it, lost checkpoints would look like none
CHECKPOINTS = "checkpoints"


class Opened(NamedTuple):
    """A run folder that is ready for the next update, and locked."""

    lock: Lock
    data: InMemoryData | Blocks
    identity: dict[str, Any]  # config, spec and data digest
    run: Callable[..., State]  # (state, columns, count) -> state after so many updates
    state: State
    logged: int  # step of the last line of metrics.jsonl
    mesh: Mesh | None  # the devices that train; None: one


def open_folder(
    config: RunConfig, out: Path, *, resume: bool, devices: Devices, dataset: Dataset | None = None
) -> Opened:
    """Read the data and the run in `out`, or begin one. Raises EvorError, and then has written nothing.

    `dataset` stands for the data that the config names, see `open_data`. The folder is locked until the lock is released. EvorError, too, where another process trains in it.
    """
    split = split_of(config, devices)
    mesh = mesh_of(split)
    _refuse_another(out, resume)
    lock = hold(out / LOCK, "evor train") if out.is_dir() else None
    try:
        data = open_data(config, dataset)
        if lock is None:  # a new folder: nothing is written before the data are read
            out.mkdir(parents=True, exist_ok=True)
            lock = hold(out / LOCK, "evor train")
            _refuse_another(out, resume)  # in which another process has trained meanwhile
        identity = {"config": to_json(config), "spec": data.spec._asdict(), "data_digest": data.digest}
        if (proposals := proposals_of(config)) is not None:
            identity["proposals"] = proposals.identity
        newest = checkpoint.newest(out / CHECKPOINTS)
        before = _read_config(config, out, identity=identity, newest=newest)
        columns = visited(config, data.columns(0), block=0, total=data.num_rows)
        fresh, run = make_runner(config, columns, initial_state(config, data.spec), mesh=mesh)
        state, metadata = _restored(
            config, out, newest=newest, fresh=fresh, data=data, identity=identity, before=before
        )
        state = put_state(state, mesh=mesh)
        if (step := int(state.step)) > config.updates:
            raise EvorError(f"{out} has made {step} updates already; train for {step} updates or more.")
        for note in (*data.notes, *_idle(config)):
            console.print(f"note: {note}")
        runs = f"{counted(config.num_seeds, 'seed')} x {counted(len(config.tasks), 'task')}"
        where = "" if mesh is None else f" on {counted(split.devices, 'device')}"
        console.print(f"{counted(data.num_rows, 'transition')}, {runs}{where} -> {out}")
        labelled = imported(config, data.spec, dataset=dataset)
        if labelled:
            console.print(f"labels: {labelled['imported']['labels']}")
        extension = _extension(config, step, before=before)
        _prepare(out, step, identity=identity | labelled | extension, split=split)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    logged = int(metadata["logged"])
    return Opened(lock=lock, data=data, identity=identity, run=run, state=state, logged=logged, mesh=mesh)


def _idle(config: RunConfig) -> list[str]:
    """A note on an option of the run that its agent has no use for."""
    if config.base_updates is None or AGENTS[type(config.agent)].base_first(config.agent):
        return []
    return [f"base_updates {config.base_updates} changes nothing: no base policy is trained before the value here"]


def _prepare(out: Path, step: int, *, identity: dict[str, Any], split: Split) -> None:
    """Write what must be there before the next update, and drop what lies past the checkpoint."""
    for folder in (out, out / CHECKPOINTS):
        sweep(folder, seconds=0)
    write_json(out / "config.json", identity)
    # Before the first line of a log: one without this file is taken for a run of version 0.1.0, see `_saved`.
    write_json(out / SAVED, {"step": step})
    _record_provenance(out / "provenance.json", split)
    (out / CHECKPOINTS).mkdir(exist_ok=True)
    checkpoint.set_aside(out / CHECKPOINTS, step)
    for name in ("metrics.jsonl", "timings.jsonl"):
        _cut_log(out / name, step)


def _read_config(
    config: RunConfig, out: Path, *, identity: dict[str, Any], newest: checkpoint.Newest | None
) -> dict[str, Any]:
    """Read this run's config.json, {} where there is none. Raises EvorError where it was edited, or is another run's."""
    path = out / "config.json"
    if not path.exists():
        return {}
    before = read_identity(path)
    if newest is not None:
        check_identity(newest.metadata, before, folder=out)
    if changed := run_differences(before, identity):
        raise EvorError(
            f"{out} was started differently ({shortened(changed)}); use the same data and options, or another folder."
        )
    if config.updates < (started := from_json(before["config"], RunConfig).updates):
        raise EvorError(
            f"{out} was started for {started} updates, and {config.updates} are fewer; train for {started} or more."
        )
    return before


def _restored(
    config: RunConfig,
    out: Path,
    *,
    newest: checkpoint.Newest | None,
    fresh: State,
    data: InMemoryData | Blocks,
    identity: dict[str, Any],
    before: dict[str, Any],
) -> tuple[State, dict[str, Any]]:
    """The state of the newest readable checkpoint and its metadata; `fresh` where nothing was saved yet.

    Raises EvorError where what was saved is gone, or is of another run.
    """
    folder, saved = out / CHECKPOINTS, _saved(out, before)
    if newest is None and saved:
        raise EvorError(
            f"{out} has lost its checkpoints (its last one was made after {saved} updates); restore "
            f"{folder}, or train anew into another folder."
        )
    if newest is None:
        return fresh, {"logged": 0}
    arrays, metadata, complaints = newest
    if metadata["step"] < saved and not complaints:
        complaints = [f"the checkpoint of {saved} updates is gone; going on from {metadata['step']}."]
    for complaint in complaints:
        console.print(complaint, style="yellow")
    check_identity(metadata, identity, folder=out)
    template = {"state": fresh, "standardisation": data.scale}
    arrays = upgrade.with_bounds(arrays, data.spec.action_dim)
    restored = checkpoint.unflatten(template, arrays, where=folder)["state"]
    every = from_json(before["config"], RunConfig).log_every if before else config.log_every
    logged = metadata["step"] - metadata["step"] % every  # as version 0.1.0 did, which does not say
    return restored, {"logged": logged} | metadata


def _saved(out: Path, before: dict[str, Any]) -> int:
    """Step of the last checkpoint that was saved here, as far as the folder shows; 0 for none."""
    if (out / SAVED).exists():
        return int(read_json(out / SAVED, step=int)["step"])
    if not before:
        return 0
    # Version 0.1.0 wrote no such file: a log beyond the first checkpoint tells that there was one.
    every = from_json(before["config"], RunConfig).checkpoint_every
    steps = [line["step"] for line in read_json_lines(out / "metrics.jsonl", step=int)]
    return max(steps, default=0) // every * every


def _extension(config: RunConfig, step: int, *, before: dict[str, Any]) -> dict[str, Any]:
    """Entry of config.json about updates that are added to the run. Says what becomes of the learning rate."""
    extended = before.get("extended", [])
    if not before or config.updates == (started := from_json(before["config"], RunConfig).updates):
        return {"extended": extended} if extended else {}
    learning = config.agent.learning
    was, now = (learning.rate(Progress(step, steps)) for steps in (started, config.updates))
    last = learning.final_learning_rate
    console.print(
        f"extended from {started} to {config.updates} updates. The learning rate at update {step} is {now:.3g} "
        f"(before: {was:.3g}); it goes to {last:.3g} at update {config.updates}.",
    )
    return {"extended": [*extended, {"at": step, "from": started, "to": config.updates}]}


def _record_provenance(path: Path, split: Split) -> None:
    """Record where the run began, and every different place or split over devices with which it was resumed."""
    now = provenance() | {"devices": split._asdict()}
    if not path.exists():
        write_json(path, now)
        return
    one = {"devices": Split()._asdict()}  # as earlier versions trained, which do not say
    stored = one | read_json(path, *(now.keys() - one))
    before = [stored, *stored.get("resumed", [])][-1]
    if any((one | before)[name] != now[name] for name in now):
        write_json(path, stored | {"resumed": [*stored.get("resumed", []), now]})


def _cut_log(path: Path, step: int) -> None:
    """Drop lines past the checkpoint, and a last line that was half written."""
    lines = [line for line in read_json_lines(path, step=int) if line["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _refuse_another(out: Path, resume: bool) -> None:
    if not resume and (out / "config.json").exists():
        raise EvorError(f"{out} already holds a run; resume it (--resume, or resume=True) or choose another folder.")
