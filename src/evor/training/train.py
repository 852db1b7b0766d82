"""Training: from a config and data to a run folder. Killed and resumed, it ends bit-identical."""

import functools
import json
import math
import signal
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evor.agents.contract import BaseFirst
from evor.agents.registry import AGENTS
from evor.data.columns import Columns
from evor.data.source import Dataset
from evor.errors import EvorError, Terminated
from evor.nn.engine import pinned
from evor.runtime.files import append_text, write_json
from evor.runtime.progress import console, progress_bar
from evor.training import checkpoint
from evor.training.config import RunConfig
from evor.training.folder import CHECKPOINTS, SAVED, Opened, open_folder
from evor.training.proposals import ProposalStore, visited, with_draws
from evor.training.sharding import MOST, Devices, put_columns
from evor.training.update import State

BASE = "base"  # the run folder of a base policy that is trained first, inside that of the run
PROPOSALS = "proposals"
CALL_SECONDS = 2.0  # aim of one compiled call: soon enough for Ctrl-C, long enough for many networks to take turns


def train(config: RunConfig, out: Path, *, resume: bool = False, devices: Devices = MOST) -> None:
    """Train into the run folder `out`: config.json, provenance.json, metrics.jsonl, timings.jsonl, checkpoints/.

    On the same devices a run that is resumed ends bit-identical; on another number of them, equal up to rounding.
    Raises EvorError before anything is written where the request or the data are wrong. Interrupted by SIGINT or
    SIGTERM it saves a checkpoint and raises KeyboardInterrupt (Terminated, which is one, after SIGTERM).
    """
    with Training.open(config, out, resume=resume, devices=devices) as training:
        if training.step >= config.updates:
            console.print(f"{out} is finished: {training.step} updates. More --updates extend it.")
        try:
            training.advance(config.updates)
        except KeyboardInterrupt:
            console.print("continue with --resume.")
            raise


class Training:
    """A run folder, locked, and the state that grows in it. `train` drives it to its end, `reproduce` in several calls.

    Used in a `with` statement, or closed with `close`. Raises EvorError where another process trains in the folder.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        *,
        opened: Opened,
        dataset: Dataset | None,
        devices: Devices,
        keep: Collection[int] = (),
    ):
        self._first = AGENTS[type(config.agent)].base_first(config.agent)
        self._prepared = self._first is None  # whether the base is trained and its draws are made
        if (mesh := opened.mesh) is not None and self._prepared:
            opened = opened._replace(data=opened.data.changed(lambda _, columns: put_columns(columns, mesh=mesh)))
        self._config, self._out, self._opened, self._dataset, self._devices = config, out, opened, dataset, devices
        self._keep = keep
        self._data, self._run, self._state = opened.data, opened.run, opened.state
        self._logged = opened.logged  # step of the last line of metrics.jsonl
        self.step = int(opened.state.step)
        self._call = 1  # updates in the next compiled call
        self._seconds = 0.0  # of training, since this was opened

    @classmethod
    @pinned
    def open(
        cls,
        config: RunConfig,
        out: Path,
        *,
        resume: bool,
        dataset: Dataset | None = None,
        devices: Devices = MOST,
        keep: Collection[int] = (),
    ) -> "Training":
        """Read the data and the run folder, or make one. Raises EvorError before anything is written.

        Checkpoints after the updates `keep` stay, beside the newest few. `dataset` stands for the data that the config names, see `evor.training.data.open_data`.
        """
        opened = open_folder(config, out, resume=resume, devices=devices, dataset=dataset)
        return cls(config, out, opened=opened, dataset=dataset, devices=devices, keep=keep)

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back."""
        self._opened.lock.release()

    def _save(self) -> None:
        tree = {"state": self._state, "standardisation": self._data.scale}
        metadata = {"logged": self._logged, "identity": self._opened.identity}
        checkpoint.save_checkpoint(
            self._out / CHECKPOINTS,
            self.step,
            tree=tree,
            metadata=metadata,
            every=self._config.checkpoint_every,
            keep=self._keep,
        )
        write_json(self._out / SAVED, {"step": self.step})

    @pinned
    def advance(self, until: int, deadline: float = math.inf) -> bool:
        """Update until step `until` and save; False where `deadline` (of time.monotonic()) came first. Saves anyhow."""
        config = self._config
        if self.step >= until:
            return True
        if self._first and not self._prepared and not self._prepare(self._first, deadline):
            return False
        started = time.monotonic() - self._seconds
        notes = ""
        with (
            interruption() as interrupted,
            progress_bar("train", config.updates, done=self.step, unit="updates") as advance,
        ):
            while self.step < until:
                count = min(
                    self._call,
                    _until(self.step, config.log_every),
                    _until(self.step, config.checkpoint_every),
                    until - self.step,
                    self._data.updates_left(self.step),
                )
                before = time.monotonic()
                self._state = jax.block_until_ready(self._run(self._state, self._data.columns(self.step), count))
                seconds = time.monotonic() - before
                self.step += count
                if self._call > 1:
                    self._call = max(1, int(count * min(CALL_SECONDS / max(seconds, 1e-6), 4)))
                    notes = f"{count / seconds:.0f}/s {_losses(self._state, self.step - self._logged)}"
                else:
                    self._call = 8  # the first call was mostly compilation
                _check_finite(self._state, self.step, config=config, out=self._out)
                advance(count, notes)
                if self.step % config.log_every == 0 or self.step == config.updates:
                    self._log(time.monotonic() - started)
                stop, late = interrupted(), time.monotonic() > deadline
                if self.step % config.checkpoint_every == 0 or self.step == until or stop or late:
                    self._save()
                if stop and self.step < config.updates:
                    console.print(f"interrupted at {self.step} updates, saved.")
                    raise Terminated if stop == signal.SIGTERM else KeyboardInterrupt
                if late:
                    break
        self._seconds = time.monotonic() - started
        return self.step >= until

    def _prepare(self, first: BaseFirst, deadline: float) -> bool:
        """Train the base policy and draw its proposals; False where `deadline` came first. What is done is kept.

        Once the run has a checkpoint, its base is the one in there.
        """
        folder, config = self._out / BASE, self._config
        if self.step == 0:
            alone = replace(config, agent=first.agent, updates=config.base_updates or config.updates, base_updates=None)
            with Training.open(alone, folder, resume=True, dataset=self._dataset, devices=self._devices) as training:
                if not training.advance(alone.updates, deadline):
                    return False
                self._state = self._state._replace(base=jax.tree.map(jnp.copy, training._state.base))

        # On one device, which draws; and a copy: blocks are read while an update has given the state's away.
        base = jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), self._state.base)

        def rows(index: int, columns: Columns) -> Columns:
            return visited(config, columns, block=index, total=self._opened.data.num_rows)

        def store(index: int, columns: Columns) -> ProposalStore:
            drawn = columns.bootstrap[columns.sampled_rows[: int(columns.count)]]
            return ProposalStore(
                folder / PROPOSALS / f"block{index}",
                agent=first.agent,
                base=base,
                seeds=config.all_seeds,
                observations=columns.observations[drawn],
                number=first.num_proposals,
                block=index,
            )

        def complete(index: int, columns: Columns) -> Columns:
            columns = rows(index, columns)
            return put_columns(with_draws(columns, store(index, columns).read()), mesh=self._opened.mesh)

        with interruption() as interrupted:
            for index in range(self._data.num_blocks):
                columns = rows(index, self._opened.data.block(index))
                if store(index, columns).draw(lambda: interrupted() or time.monotonic() > deadline):
                    continue
                if stop := interrupted():
                    console.print("interrupted while drawing proposals, saved.")
                    raise Terminated if stop == signal.SIGTERM else KeyboardInterrupt
                return False
        self._data, self._prepared = self._opened.data.changed(complete), True
        return True

    def _log(self, seconds: float) -> None:
        """Write the means since the last line, and begin anew."""
        _log(
            self._out, self._state, config=self._config, step=self.step, count=self.step - self._logged, seconds=seconds
        )
        self._logged = self.step
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        self._state = self._state._replace(
            base_sums=zeros(self._state.base_sums), head_sums=zeros(self._state.head_sums)
        )


def _check_finite(state: State, step: int, *, config: RunConfig, out: Path) -> None:
    """Raise EvorError where a loss is not finite; what was saved before stays."""
    for name, sums in _loss_sums(state).items():
        broken = np.argwhere(~np.isfinite(np.asarray(sums)))
        if len(broken):
            where = [f"seed {config.all_seeds[broken[0][0]]}", *(f"task {config.tasks[k]}" for k in broken[0][1:])]
            raise EvorError(
                f"the {name.removesuffix('/loss')}'s loss of {', '.join(where)} is not finite after {step} updates; try a lower "
                f"learning_rate (--agent.learning-rate) and look at the data with `evor data check`. {out} keeps its last checkpoint."
            )


def _until(step: int, every: int) -> int:
    return every - step % every


def _losses(state: State, count: int) -> str:
    sums = _loss_sums(state).items()
    return " ".join(f"{name.removesuffix('/loss')} {np.asarray(sum_).mean() / count:.3f}" for name, sum_ in sums)


def _loss_sums(state: State) -> dict[str, jax.Array]:
    """Sums of the losses by name: of the base's networks [S], then of the head's [S, K]."""
    return {name: sums for name, sums in (state.base_sums | state.head_sums).items() if name.endswith("/loss")}


def _log(out: Path, state: State, *, config: RunConfig, step: int, count: int, seconds: float) -> None:
    """Write one line per seed and task: means over the `count` updates since the last line."""
    of_base = {name: np.asarray(sums) / count for name, sums in state.base_sums.items()}
    of_head = {name: np.asarray(sums) / count for name, sums in state.head_sums.items()}
    text = ""
    for s, seed in enumerate(config.all_seeds):
        for k, task in enumerate(config.tasks):
            line: dict[str, Any] = {"step": step, "seed": seed, "task": task}
            line |= {name: float(means[s]) for name, means in of_base.items()}
            line |= {name: float(means[s, k]) for name, means in of_head.items()}
            text += json.dumps(line) + "\n"
    append_text(out / "metrics.jsonl", text)
    append_text(out / "timings.jsonl", json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


@contextmanager
def interruption() -> Generator[Callable[[], int]]:
    """Yield a function that tells which signal has asked to stop (0: none). A second signal acts as usual."""
    received = 0

    def note(number: int, _: Any) -> None:
        nonlocal received
        received = number
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not in the main thread, which owns the signals
        pass
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
