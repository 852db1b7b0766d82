"""A run folder of an imitation: config.json, provenance.json, and a folder for each seed. The same command resumes it.

Of a seed: metrics.jsonl (a line for each update of the discriminator), evaluations.jsonl (a line for each evaluation),
checkpoints/, replay.bin, to which steps are only appended, and actor.safetensors: the policy of the last evaluation, and with
the true reward that of the best. A run that is killed ends as if nothing had been.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.bc import Bc
from evor.errors import EvorError
from evor.imitation import demonstrations
from evor.imitation.actor import Actor
from evor.imitation.clone import policy_of, train_clone
from evor.imitation.config import ImitationConfig
from evor.imitation.discriminator import Entries, TrueReward, scale_of
from evor.imitation.folder import (
    ACTOR,
    EVALUATIONS,
    INDEX,
    Task,
    keep_identity,
    keep_references,
    write_evaluation,
)
from evor.imitation.guitar import Counts, Imitation, Played, roll_out
from evor.imitation.index import tightrope_index
from evor.imitation.resets import ExpertStates, OfflineStates, RollIn, resets_of
from evor.runtime.files import (
    append_text,
    check_ours,
    hold_own,
    read_json_lines,
    sweep,
    write_json,
    write_text,
)
from evor.runtime.locks import check_in_place
from evor.runtime.progress import console, progress_bar
from evor.training import checkpoint

CLONE = Bc()


def imitate(config: ImitationConfig, task: Task, *, out: Path) -> None:
    """Imitate with every seed into `out`. Raises EvorError before anything is written where something is wrong."""
    _check(config, task)
    check_ours(out, out / "config.json", kind="imitation")
    out.mkdir(parents=True, exist_ok=True)
    with hold_own(out, "evor imitate"):
        keep_identity(out, config, task=task)
        if task.model is not None:
            write_text(out / "body.xml", task.model)
        keep_references(out, config, task=task)
        console.print(f"{_told(config, task)} -> {out}")
        for seed in config.seeds:
            folder = out / f"seed{seed}"
            folder.mkdir(exist_ok=True)
            for each in (folder, folder / "checkpoints"):
                sweep(each, seconds=0)
            if isinstance(config.method, Bc):
                _clone_alone(config, config.method, task=task, seed=seed, folder=folder)
            else:
                _Seed(config, task, seed=seed, folder=folder).run()


def _check(config: ImitationConfig, task: Task) -> None:
    world, resets = task.make_world(1), resets_of(config.method)
    seen, _ = config.discriminator_sees.entries(world.spec)
    if isinstance(config.discriminator_sees, Entries) and (lost := set(seen) & set(task.body.get("hidden", ()))):
        raise EvorError(
            f"discriminator_sees names entry {min(lost)} of the observation, which --body.hidden takes from the learner; "
            "leave it out."
        )
    to_expert = any(isinstance(reset, ExpertStates) for reset in resets)
    compared = _has_index(config, task)
    if task.expert is not None:
        demonstrations.check(task.expert, world, option="--demos", states=to_expert or compared, actions=True)
    elif to_expert or isinstance(config.method, Bc) or not isinstance(config.reward, TrueReward):
        raise EvorError("there are no demonstrations to imitate; give --demos FILE.")
    to_offline = any(isinstance(reset, OfflineStates) for reset in resets)
    if to_offline and task.offline is None:
        raise EvorError(
            "this method resets to offline states, and there are none; give --offline FILE, or --method filter."
        )
    if task.offline is not None:
        demonstrations.check(task.offline, world, option="--offline", states=to_offline or compared, actions=False)
    rolls_in = any(isinstance(reset, RollIn) for reset in resets)
    if rolls_in and all(data is None or data.actions is None for data in (task.expert, task.offline)):
        raise EvorError(
            "this method rolls in with a clone, and there are no actions to clone; give --demos FILE, or --offline FILE with "
            "actions, or leave --method.roll-in out."
        )


def _has_index(config: ImitationConfig, task: Task) -> bool:
    """Whether the policy is one whose survival tells of a tightrope, and there are states to start it from."""
    given = [data is not None and data.states is not None for data in (task.expert, task.offline)]
    return isinstance(config.reward, TrueReward) and all(given)


def _told(config: ImitationConfig, task: Task) -> str:
    others = f", {len(task.offline)} offline steps" if task.offline is not None else ""
    shown = f", {len(task.expert)} expert steps" if task.expert is not None else ""
    return f"{task.env}: {type(config.method).__name__}, {type(config.reward).__name__}{shown}{others}"


class _Seed:
    """One seed, and its files."""

    def __init__(self, config: ImitationConfig, task: Task, *, seed: int, folder: Path):
        self._config, self._folder, self._seed = config, folder, seed
        self._task = task
        clone = None
        if any(isinstance(reset, RollIn) for reset in resets_of(config.method)):
            clone = _clone(config, CLONE, task=task, seed=seed)
        self._run = Imitation(
            config, make_world=task.make_world, expert=task.expert, offline=task.offline, clone=clone, seed=seed
        )
        self._evaluated = task.make_world(config.evaluation_episodes)
        self._saved_rows, self._sum = 0, 0  # steps in replay.bin, and their checksum

    def run(self) -> None:
        """Resume where the newest checkpoint is, and go on to the end."""
        config, run = self._config, self._run
        self._restore()
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
                # A clone's steps are not counted, so a round may end beyond a multiple.
                is_due = run.counts.learner // config.evaluate_every > before // config.evaluate_every
                if is_due or run.counts.learner >= config.steps:
                    note = f"return {np.mean(self._evaluate().returns):.1f}"
                    self._save()
                advance(run.counts.learner - before, note)
        if _has_index(config, self._task):
            self._write_index()

    def _write_index(self) -> None:
        expert, offline = self._task.expert, self._task.offline
        assert expert is not None
        assert offline is not None
        actor, _ = Actor.read(self._folder / ACTOR)
        index = tightrope_index(self._evaluated, actor.mean, expert=expert, offline=offline, seed=self._seed)
        write_json(self._folder / INDEX, index)

    def _evaluate(self) -> Played:
        played = self._run.evaluate(self._evaluated, self._config.evaluation_episodes)
        write_evaluation(self._folder, played, seed=self._seed, counts=self._run.counts)
        means = [np.mean(line["returns"]) for line in read_json_lines(self._folder / EVALUATIONS, returns=[float])]
        if means[-1] == max(means) or not isinstance(self._config.reward, TrueReward):  # imitation sees no return
            told = {"env": self._task.env, "body": self._task.body, "step": self._run.counts.learner}
            checkpoint.save_arrays(self._folder / ACTOR, self._run.networks.learner.actor.network, metadata=told)
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
        new = run.replay.rows[self._saved_rows : run.replay.size].tobytes()
        check_in_place(self._folder / "replay.bin")
        with open(self._folder / "replay.bin", "ab") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        self._saved_rows, self._sum = run.replay.size, zlib.crc32(new, self._sum)
        metadata = {"counts": dataclasses.asdict(run.counts), "rows": run.replay.size, "replay_sum": self._sum}
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
        self._sum = zlib.crc32(kept.data)
        if newest.metadata.get("replay_sum", self._sum) != self._sum:  # earlier versions stored none
            raise EvorError(f"{path} is damaged: its steps are not those that were saved; restore it or start anew.")
        with open(path, "r+b") as file:
            file.truncate(rows * width * 4)
        run.replay.rows[:rows], run.replay.size, self._saved_rows = kept.reshape(rows, width), rows, rows
        run.restore(
            jax.tree.map(jnp.asarray, tree["networks"]),
            tree["copies"],
            states=tree["world"],
            counts=Counts(**newest.metadata["counts"]),
        )


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
