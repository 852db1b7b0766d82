"""Opening what training left: a run folder with every seed's and task's networks, or one exported policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.base import is_frozen
from evor.agents.registry import AGENTS, AgentConfig
from evor.data.standardisation import Standardisation
from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.policies.base_policy import TIMEOUT, open_base
from evor.policies.decision import Networks
from evor.policies.exports import is_export, read_export
from evor.policies.policy import Policy
from evor.policies.searched import SearchedPolicy
from evor.runtime import arguments
from evor.runtime.progress import console
from evor.search.extraction import Extraction
from evor.training import checkpoint, upgrade
from evor.training.config import RunConfig, check_identity, from_json, read_identity
from evor.training.update import state_shapes
from evor.types import Spec

ORIGIN = ("dataset", "task", "seed", "updates")  # the provenance that an export holds


class Run(NamedTuple):
    """A run, read once: the networks of every seed and task after `step` updates. `evor.train` returns one."""

    config: RunConfig
    spec: Spec
    step: int
    base: Any  # leading axis S
    head: Any  # leading axes S, K
    standardisation: Standardisation  # returns lead with K
    folder: Path | None = None  # that it was read from
    imported: dict[str, Any] | None = None  # what `evor data import` said of the data
    proposals: dict[str, Any] | None = None  # of the frozen base policy that the values were trained over

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {_contents(self.config)}, {self.step} updates)"

    @property
    def default_search(self) -> Extraction:
        """The search used when none is given."""
        return AGENTS[type(self.config.agent)].default_search(self.config.agent)

    @pinned
    def policy(self, task: int | None = None, seed: int | None = None, *, base: Any = None) -> Policy:
        """The policy of one task and seed; either may be left out where the run has only one.

        With `base`, a base policy of your own proposes the actions, see `load`. Raises EvorError, listing what there is, on a
        task or seed that the run does not have, and where the choice is left open.
        """
        config = self.config
        for name, wanted, there in (("task", task, config.tasks), ("seed", seed, config.all_seeds)):
            if wanted is None and len(there) > 1:
                here = self.folder or "this run"
                raise EvorError(f"{here} holds several {name}s: {_contents(config)}; choose a {name} (--{name}).")
        task = config.tasks[0] if task is None else task
        seed = config.seed if seed is None else seed
        if task not in config.tasks or seed not in config.all_seeds:
            raise EvorError(f"no task {task!r}, seed {seed!r} here; {_contents(config)}.")
        k, s = config.tasks.index(task), config.all_seeds.index(seed)
        own = jax.tree.map(lambda leaf: leaf[s], self.base)
        head = jax.tree.map(lambda leaf: leaf[s, k], self.head)
        networks = AGENTS[type(config.agent)].inference_networks(own, head, config=config.agent)
        scale = self.standardisation
        of_task = {name: np.asarray(array[k]) for name, array in scale._asdict().items() if name.startswith("return_")}
        scale = scale._replace(**of_task)
        origin: dict[str, Any] = {
            "dataset": config.dataset or config.data,
            "task": task,
            "seed": seed,
            "updates": self.step,
        }
        origin |= {"imported": self.imported} if self.imported else {}
        origin |= {"base": self.proposals["base"]} if self.proposals else {}
        return _policy(config.agent, self.spec, networks=Networks(*networks, scale), origin=origin, base=base)


@pinned
def open_run(folder: str | Path, step: int | None = None) -> Run:
    """Read the config of a run and its newest readable checkpoint, or the one after `step` updates.

    `~` in the path is the home folder. Raises EvorError where there is no such run or checkpoint, or it is damaged.
    """
    folder = arguments.folder(folder)
    path = folder / "config.json"
    if not folder.exists():
        raise EvorError(f"{folder} does not exist; give a run folder, as `evor train` and evor.train write it.")
    if is_export(folder):
        raise EvorError(
            f"{folder} is an exported policy, and a run folder is needed; evor.load opens it, and evor.evaluate plays it."
        )
    if not path.is_file():
        raise EvorError(f"{folder} is not a run: it has no config.json; give the folder that training wrote.")
    stored = read_identity(path)
    config, spec = from_json(stored["config"], RunConfig), Spec(**stored["spec"])
    arrays, metadata = _read_checkpoint(folder, step)
    check_identity(metadata, stored, folder=folder)
    if type(updates := metadata.get("step")) is not int:
        raise EvorError(f"the checkpoint of {folder} is damaged (its step is {arguments.shown(updates)}); restore it.")
    parts = ("state/base/", "state/head/")
    seeds = {array.shape[0] for name, array in arrays.items() if name.startswith(parts) and array.ndim}
    if seeds != {config.num_seeds}:  # before anything is made for every seed
        raise EvorError(f"{path} names {config.num_seeds} seeds, which the checkpoint does not hold; restore it.")
    state = _shapes(lambda: state_shapes(config, spec), path)
    scale = _scale_shapes(spec, (len(config.tasks),))
    arrays = upgrade.with_bounds(arrays, spec.action_dim)
    template = {"state": {"base": state.base, "head": state.head}, "standardisation": scale}
    saved = checkpoint.unflatten(template, arrays, where=folder)
    networks = saved["state"]
    return Run(
        config=config,
        spec=spec,
        step=updates,
        base=networks["base"],
        head=networks["head"],
        standardisation=saved["standardisation"],
        folder=folder,
        imported=stored.get("imported"),
        proposals=stored.get("proposals"),
    )


def open_if_trained(folder: str | Path) -> Run | None:
    """Open a run as `open_run` does, None where it has no checkpoint. Raises EvorError on one that is damaged or edited."""
    folder = arguments.folder(folder)
    if (folder / "config.json").is_file() and not checkpoint.checkpoints(folder / "checkpoints"):
        read_identity(folder / "config.json")
        return None
    return open_run(folder)


def _read_checkpoint(folder: Path, step: int | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if step is not None:
        return checkpoint.at_step(folder / "checkpoints", arguments.count(0, step=step))
    newest = checkpoint.newest(folder / "checkpoints")
    if newest is None:
        raise EvorError(f"{folder} has no checkpoint; resume its training, or restore {folder / 'checkpoints'}.")
    arrays, metadata, complaints = newest
    for complaint in complaints:
        console.print(complaint, style="yellow")
    return arrays, metadata


@pinned
def load(
    path: str | Path,
    task: int | None = None,
    *,
    seed: int | None = None,
    step: int | None = None,
    base: Any = None,
    base_timeout: float = TIMEOUT,
) -> Policy:
    """Open a run folder or an exported policy. If a run has several tasks or seeds, say which one.

    `step` opens an earlier checkpoint of a run, by its number of updates. `~` in the path is the home folder.

    With `base`, a base policy of your own proposes the actions, and the trained value chooses among them. It is a text
    (python:module:function, openpi:ws://host:8000, lerobot:FOLDER), a function (observations, num, seed) that returns
    [B, num, horizon, A], or an object with such a method `sample`. One call of it may take `base_timeout` seconds.

    Raises EvorError where there is nothing to open, or where the choice is left open.
    """
    folder = arguments.folder(path)
    given = {"task": task, "seed": seed, "step": step}
    asked = {name: arguments.count(0, **{name: value}) for name, value in given.items() if value is not None}
    if not folder.exists():
        raise EvorError(f"{folder} does not exist; give a run folder or an exported policy.")
    if is_export(folder):
        return _load_export(folder, asked, base=base, timeout=base_timeout)
    run = open_run(folder, asked.get("step"))
    opened = None if base is None else open_base(base, timeout=base_timeout)
    return run.policy(asked.get("task"), asked.get("seed"), base=opened)


def _contents(config: RunConfig) -> str:
    return f"tasks {list(config.tasks)}, seeds {list(config.all_seeds)}"


def _policy(config: AgentConfig, spec: Spec, *, networks: Networks, origin: dict[str, Any], base: Any) -> Policy:
    """A policy, over a base policy of the user's own where one is given or needed."""
    networks = jax.tree.map(jnp.asarray, networks)
    if base is None and not is_frozen(config):
        return Policy(config, spec, networks=networks, origin=origin)
    opened = None if base is None else open_base(base)
    return SearchedPolicy(config, spec, networks=networks, origin=origin, base=opened)


def _load_export(folder: Path, asked: dict[str, int], *, base: Any, timeout: float) -> Policy:
    (config, spec, origin), arrays = read_export(folder)
    there = {"task": origin["task"], "seed": origin["seed"], "step": origin["updates"]}
    for name, wanted in asked.items():
        if wanted != there[name]:
            raise EvorError(f"{folder} holds {name} {there[name]}, not {wanted}.")
    shapes = _shapes(lambda: _network_shapes(config, spec), folder)
    networks = checkpoint.unflatten(
        Networks(*shapes, _scale_shapes(spec, ())), upgrade.with_bounds(arrays, spec.action_dim), where=folder
    )
    opened = None if base is None else open_base(base, timeout=timeout)
    return _policy(config, spec, networks=networks, origin=origin, base=opened)


def _network_shapes(config: AgentConfig, spec: Spec) -> tuple[Any, Any]:
    """The two networks that act, as shapes."""
    agent = AGENTS[type(config)]

    def make() -> tuple[Any, Any]:
        key = jax.random.key(0)
        base, head = agent.base.init(config, spec, key=key), agent.head.init(config, spec, key=key)
        return agent.inference_networks(base, head, config=config)

    return jax.eval_shape(make)


def _shapes(make: Callable[[], Any], path: Path) -> Any:
    """Call `make`. Raises EvorError where a stored config is one that no networks can have."""
    try:
        return make()
    except Exception as error:
        reason = arguments.shown(error, str)
        raise EvorError(f"{path} describes no networks of this version of evor ({reason}); restore it.") from error


def _scale_shapes(spec: Spec, tasks: tuple[int, ...]) -> Standardisation:
    observation: Any = jax.ShapeDtypeStruct((spec.observation_dim,), np.float32)
    action: Any = jax.ShapeDtypeStruct((spec.action_dim,), np.float32)
    returns: Any = jax.ShapeDtypeStruct(tasks, np.float32)
    return Standardisation(
        observation_mean=observation,
        observation_std=observation,
        return_mean=returns,
        return_std=returns,
        return_min=returns,
        return_max=returns,
        action_low=action,
        action_high=action,
    )
