"""Opening what training left: a run folder with every seed's and task's networks, or one exported policy."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evor import checkpoint
from evor.config import AGENTS, AgentConfig, RunConfig, check_identity, from_json
from evor.data.transitions import Standardisation
from evor.errors import EvorError
from evor.extract import Extraction
from evor.files import expand, read_json
from evor.policy import Networks, Policy
from evor.progress import console
from evor.types import Spec
from evor.update import state_shapes


class Run(NamedTuple):
    """A run folder, read once: every seed's and task's networks."""

    config: RunConfig
    spec: Spec
    step: int
    policy: Any  # leading axis S
    value: Any  # leading axes S, K
    standardisation: Standardisation  # returns lead with K

    @property
    def default_search(self) -> Extraction:
        """How its agent acts where nobody says."""
        return AGENTS[type(self.config.agent)].default_search(self.config.agent)

    def select(self, task: int, seed: int) -> Policy:
        """The policy of one task and seed. Raises EvorError, listing what there is."""
        config = self.config
        if task not in config.tasks or seed not in config.all_seeds:
            raise EvorError(f"no task {task}, seed {seed} here; {_contents(config)}.")
        k, s = config.tasks.index(task), config.all_seeds.index(seed)
        policy = jax.tree.map(lambda leaf: leaf[s], self.policy)
        value = jax.tree.map(lambda leaf: leaf[s, k], self.value)
        acting = AGENTS[type(config.agent)].acting(policy, value, config.agent)
        scale = self.standardisation
        scale = scale._replace(return_mean=np.asarray(scale.return_mean[k]), return_std=np.asarray(scale.return_std[k]))
        origin = {"dataset": config.dataset or config.data, "task": task, "seed": seed, "updates": self.step}
        return Policy(config.agent, self.spec, jax.tree.map(jnp.asarray, Networks(*acting, scale)), origin)


def open_run(folder: Path, step: int | None = None) -> Run:
    """Read a run's config and its newest readable checkpoint, or that of `step` updates. Raises EvorError."""
    if not (folder / "config.json").is_file():
        raise EvorError(f"{folder} is not a run: it has no config.json; give the folder that `evor train --out` wrote.")
    stored = read_json(folder / "config.json", "config", "spec", "data_digest")
    config, spec = from_json(stored["config"], RunConfig), Spec(**stored["spec"])
    found = checkpoint.newest(folder / "checkpoints") if step is None else _checkpoint_of(folder, step)
    if found is None:
        raise EvorError(f"{folder} has no readable checkpoint; continue its training with --resume.")
    arrays, metadata, complaints = found
    check_identity(metadata, stored, folder)
    for complaint in complaints:
        console.print(complaint, style="yellow")
    state = state_shapes(config, spec)
    num_tasks, width = len(config.tasks), spec.observation_dim
    scale = Standardisation(*(np.empty(n) for n in (width, width, num_tasks, num_tasks)))
    template = {"state": {"policy": state.policy, "value": state.value}, "standardisation": scale}
    saved = checkpoint.unflatten(template, arrays, folder)
    networks = saved["state"]
    return Run(config, spec, metadata["step"], networks["policy"], networks["value"], saved["standardisation"])


def _checkpoint_of(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
    path = checkpoint.checkpoint_path(folder / "checkpoints", step)
    if not path.is_file():
        there = [int(other.stem.removeprefix("step_")) for other in checkpoint.checkpoints(path.parent)]
        raise EvorError(f"{folder} has no checkpoint of {step} updates; it has those of {there or 'none'}.")
    return *checkpoint.load_arrays(path), []


def load(path: str | Path, task: int | None = None, seed: int | None = None) -> Policy:
    """Open a run folder or an exported policy. Of a run with several tasks or seeds, say which one.

    Raises EvorError where there is nothing to open, or where the choice is left open.
    """
    folder = expand(path)
    if (folder / "policy.json").is_file():
        return _load_export(folder, task, seed)
    run = open_run(folder)
    for name, given, there in (("task", task, run.config.tasks), ("seed", seed, run.config.all_seeds)):
        if given is None and len(there) > 1:
            raise EvorError(f"{folder} holds several {name}s: {_contents(run.config)}; choose with {name}=...")
    task = run.config.tasks[0] if task is None else task
    return run.select(task, run.config.seed if seed is None else seed)


def _contents(config: RunConfig) -> str:
    return f"tasks {list(config.tasks)}, seeds {list(config.all_seeds)}"


def _load_export(folder: Path, task: int | None, seed: int | None) -> Policy:
    stored = read_json(folder / "policy.json", "config", "spec", "origin")
    config, spec, origin = from_json(stored["config"], AgentConfig), Spec(**stored["spec"]), stored["origin"]
    for name, given in (("task", task), ("seed", seed)):
        if given is not None and given != origin[name]:
            raise EvorError(f"{folder} holds {name} {origin[name]}, not {given}.")
    arrays, _ = checkpoint.load_arrays(folder / "policy.safetensors")
    agent = AGENTS[type(config)]

    def shapes() -> tuple[Any, Any]:
        key = jax.random.key(0)
        return agent.acting(agent.init_policy(config, spec, key), agent.init_value(config, spec, key), config)

    width = spec.observation_dim
    scale = Standardisation(np.empty(width), np.empty(width), np.empty(()), np.empty(()))
    networks = checkpoint.unflatten(Networks(*jax.eval_shape(shapes), scale), arrays, folder)
    return Policy(config, spec, jax.tree.map(jnp.asarray, networks), origin)
