"""A run folder of an imitation: config.json, provenance.json, and a folder for each seed. The same command resumes it.

Of a seed: metrics.jsonl (a line for each update of the discriminator), evaluations.jsonl (a line for each evaluation),
checkpoints/, and replay.bin, to which steps are only appended. A run that is killed ends as if nothing had been.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.bc import Bc
from evor.errors import EvorError
from evor.imitation import demonstrations
from evor.imitation.clone import policy_of, train_clone
from evor.imitation.config import ImitationConfig
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.discriminator import TrueReward, scale_of
from evor.imitation.guitar import Counts, Imitation, Played, roll_out
from evor.imitation.resets import ExpertStates, OfflineStates, RollIn, resets_of
from evor.imitation.worlds import World
from evor.runtime.files import (
    append_text,
    check_ours,
    read_json,
    read_json_lines,
    sweep,
    write_json,
    write_npz,
    write_text,
)
from evor.runtime.locks import hold
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.training import checkpoint
from evor.training.config import differences, shortened

KIND = "imitation"
EVALUATIONS = "evaluations.jsonl"
REFERENCES = "references.json"
POSITIONS = "positions.npz"
ACTOR = "actor.safetensors"
CLONE = Bc()


@dataclass(frozen=True, kw_only=True)
class Task:
    """Demonstrations to imitate, and the world of the learner."""

    env: str
    make_world: Callable[[int], World]
    expert: Demonstrations | None
    offline: Demonstrations | None
    body: dict[str, Any]  # how the learner's body differs, for config.json
    model: str | None = None  # XML of a changed model


def imitate(config: ImitationConfig, task: Task, *, out: Path) -> None:
    """Imitate with every seed into `out`. Raises EvorError before anything is written where something is wrong."""
    _check(config, task)
    check_ours(out, out / "config.json", kind="imitation")
    out.mkdir(parents=True, exist_ok=True)
    with hold(out / ".lock", "evor imitate"):
        _keep_identity(out, config, task=task)
        if task.model is not None:
            write_text(out / "body.xml", task.model)
        _keep_references(out, config, task=task)
        console.print(f"{_told(config, task)} -> {out}")
        for seed in config.seeds:
            folder = out / f"seed{seed}"
            folder.mkdir(exist_ok=True)
            for each in (out, folder, folder / "checkpoints"):
                sweep(each, seconds=0)
            if isinstance(config.method, Bc):
                _clone_alone(config, config.method, task=task, seed=seed, folder=folder)
            else:
                _Seed(config, task, seed=seed, folder=folder).run()


def identity_of(config: Any) -> Any:
    """Settings as plain JSON values, every record with its type."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {item.name: identity_of(getattr(config, item.name)) for item in dataclasses.fields(config)}
        return {"type": type(config).__name__, **fields}
    return [identity_of(value) for value in config] if isinstance(config, tuple) else config


def _check(config: ImitationConfig, task: Task) -> None:
    world, resets = task.make_world(1), resets_of(config.method)
    config.discriminator_sees.entries(world.spec)
    to_expert = any(isinstance(reset, ExpertStates) for reset in resets)
    if task.expert is not None:
        demonstrations.check(task.expert, world, option="--demos", states=to_expert, actions=True)
    elif to_expert or isinstance(config.method, Bc) or not isinstance(config.reward, TrueReward):
        raise EvorError("there are no demonstrations to imitate; give --demos FILE.")
    to_offline = any(isinstance(reset, OfflineStates) for reset in resets)
    if to_offline and task.offline is None:
        raise EvorError(
            "this method resets to offline states, and there are none; give --offline FILE, or --method filter."
        )
    if task.offline is not None:
        demonstrations.check(task.offline, world, option="--offline", states=to_offline, actions=False)


def _told(config: ImitationConfig, task: Task) -> str:
    others = f", {len(task.offline)} offline steps" if task.offline is not None else ""
    shown = f", {len(task.expert)} expert steps" if task.expert is not None else ""
    return f"{task.env}: {type(config.method).__name__}, {type(config.reward).__name__}{shown}{others}"


def _digest(data: Demonstrations | None) -> str | None:
    if data is None:
        return None
    hasher = hashlib.sha256()
    for name in demonstrations.ARRAYS:
        if (array := getattr(data, name)) is not None:
            hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()[:16]


def _keep_identity(out: Path, config: ImitationConfig, *, task: Task) -> None:
    """Make `out` this imitation's, or find that it is."""
    path = out / "config.json"
    settings = {name: value for name, value in identity_of(config).items() if name != "seeds"}
    wanted: dict[str, Any] = {"kind": KIND, "env": task.env, "body": task.body, "config": settings}
    wanted |= {"expert": _digest(task.expert), "offline": _digest(task.offline)}
    wanted = json.loads(json.dumps(wanted))
    if path.exists() and (changed := differences(read_json(path), wanted)):
        raise EvorError(f"{out} was started differently ({shortened(changed)}); choose another --out.")
    write_json(path, wanted)
    if not (out / "provenance.json").exists():
        write_json(out / "provenance.json", provenance())


def _keep_references(out: Path, config: ImitationConfig, *, task: Task) -> None:
    """Write what returns are compared with: those of the demonstrations, and of random actions."""
    if (out / REFERENCES).exists():
        return
    world = task.make_world(config.evaluation_episodes)
    generator = np.random.default_rng(0)
    shape = (world.count, world.spec.action_dim)
    played = roll_out(world, lambda _: generator.uniform(-1, 1, shape), generator=generator)
    references = {"random": float(played.returns.mean())}
    for name, data in (("expert", task.expert), ("offline", task.offline)):
        if data is not None and (mean := data.mean_return()) is not None:
            references[name] = mean
    write_json(out / REFERENCES, references)


class _Seed:
    """One seed, and its files."""

    def __init__(self, config: ImitationConfig, task: Task, *, seed: int, folder: Path):
        self._config, self._folder, self._seed = config, folder, seed
        self._env, self._body = task.env, task.body
        clone = None
        if any(isinstance(reset, RollIn) for reset in resets_of(config.method)):
            clone = _clone(config, CLONE, task=task, seed=seed)
        self._run = Imitation(
            config, make_world=task.make_world, expert=task.expert, offline=task.offline, clone=clone, seed=seed
        )
        self._evaluated = task.make_world(config.evaluation_episodes)
        self._saved_rows = 0

    def run(self) -> None:
        """Resume where the newest checkpoint is, and go on to the end."""
        config, run = self._config, self._run
        self._restore()
        told = {"env": self._env, "body": self._body}
        with progress_bar(f"seed {self._seed}", config.steps, done=run.counts.learner, unit="steps") as advance:
            if run.counts.learner == 0:
                self._evaluate()
            while run.counts.learner < config.steps:
                before = run.counts.learner
                run.advance()
                line = {"step": run.counts.learner, "seed": self._seed, "all_steps": run.counts.all}
                append_text(self._folder / "metrics.jsonl", json.dumps(line | run.metrics) + "\n")
                self._check_finite()
                note = ""
                if run.counts.learner % config.evaluate_every == 0 or run.counts.learner >= config.steps:
                    note = f"return {np.mean(self._evaluate().returns):.1f}"
                    self._save()
                advance(run.counts.learner - before, note)
        checkpoint.save_arrays(self._folder / ACTOR, run.networks.learner.actor.network, metadata=told)

    def _evaluate(self) -> Played:
        played = self._run.evaluate(self._evaluated, self._config.evaluation_episodes)
        write_evaluation(self._folder, played, seed=self._seed, counts=self._run.counts)
        return played

    def _check_finite(self) -> None:
        for name, value in self._run.metrics.items():
            if not np.isfinite(value):
                raise EvorError(
                    f"{name} of seed {self._seed} is not finite after {self._run.counts.learner} steps; try a lower "
                    f"--learner.learning-rate. {self._folder} keeps its last checkpoint."
                )

    def _tree(self) -> dict[str, Any]:
        run = self._run
        return {"networks": run.networks, "copies": dataclasses.asdict(run.copies), "world": run.world.states()}

    def _save(self) -> None:
        """Append the new steps, then write the checkpoint that counts them."""
        run = self._run
        new = run.replay.rows[self._saved_rows : run.replay.size]
        with open(self._folder / "replay.bin", "ab") as file:
            file.write(new.tobytes())
        self._saved_rows = run.replay.size
        metadata = {"counts": dataclasses.asdict(run.counts), "rows": run.replay.size}
        checkpoint.save_checkpoint(
            self._folder / "checkpoints",
            run.counts.learner,
            tree=self._tree(),
            metadata=metadata,
            every=self._config.evaluate_every,
        )

    def _restore(self) -> None:
        newest = checkpoint.newest(self._folder / "checkpoints")
        step = newest.metadata["step"] if newest else -1
        for name in ("metrics.jsonl", EVALUATIONS):
            lines = [line for line in read_json_lines(self._folder / name, step=int) if line["step"] <= step]
            if (self._folder / name).exists():
                write_text(self._folder / name, "".join(json.dumps(line) + "\n" for line in lines))
        path = self._folder / "replay.bin"
        if newest is None:
            path.unlink(missing_ok=True)
            return
        run = self._run
        tree = checkpoint.unflatten(self._tree(), newest.arrays, where=self._folder / "checkpoints")
        for complaint in newest.complaints:
            console.print(complaint, style="yellow")
        checkpoint.set_aside(self._folder / "checkpoints", step)
        rows, width = newest.metadata["rows"], run.replay.rows.shape[1]
        kept = np.fromfile(path, np.float32, rows * width) if path.exists() else np.zeros(0, np.float32)
        if kept.size != rows * width:
            raise EvorError(
                f"{path} is cut: {kept.size // width} steps, and {rows} were saved; restore it or start anew."
            )
        with open(path, "r+b") as file:
            file.truncate(rows * width * 4)
        run.replay.rows[:rows], run.replay.size, self._saved_rows = kept.reshape(rows, width), rows, rows
        run.restore(
            jax.tree.map(jnp.asarray, tree["networks"]),
            tree["copies"],
            states=tree["world"],
            counts=Counts(**newest.metadata["counts"]),
        )


def write_evaluation(folder: Path, played: Played, *, seed: int, counts: Counts) -> None:
    """Append a line with the episodes of one evaluation."""
    if played.positions is not None:
        write_npz(folder / POSITIONS, {"positions": played.positions.astype(np.float32), "lengths": played.lengths})
    line = {
        "step": counts.learner,
        "seed": seed,
        "all_steps": counts.all,
        "counts": dataclasses.asdict(counts),
        "returns": played.returns.tolist(),
        "lengths": played.lengths.tolist(),
    }
    append_text(folder / EVALUATIONS, json.dumps(line) + "\n")


# Cloning alone.


def _clone(config: ImitationConfig, settings: Bc, *, task: Task, seed: int) -> Any:
    updates = max(1, config.steps // config.steps_per_update)
    known = [data for data in (task.expert, task.offline) if data is not None]
    scale = scale_of(task.expert, task.make_world(1).spec)
    with progress_bar(f"clone, seed {seed}", updates, unit="updates") as advance:
        network = train_clone(settings, known, scale=scale, updates=updates, seed=seed, advance=advance)
    return policy_of(network, settings, scale=scale)


def _clone_alone(config: ImitationConfig, settings: Bc, *, task: Task, seed: int, folder: Path) -> None:
    """Train a clone and play it once. It is finished, or begun anew."""
    if read_json_lines(folder / EVALUATIONS):
        return
    (folder / EVALUATIONS).unlink(missing_ok=True)  # a line that was half written
    act = _clone(config, settings, task=task, seed=seed)
    world, generator = task.make_world(config.evaluation_episodes), np.random.default_rng([seed, 0])
    played = roll_out(world, lambda o: act(o, generator), generator=generator)
    write_evaluation(folder, played, seed=seed, counts=Counts())
