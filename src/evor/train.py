"""Training: from a config and data to a run folder. Killed and resumed, it ends bit-identical."""

import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evor import checkpoint
from evor.config import RunConfig, differences, from_json, to_json
from evor.errors import EvorError
from evor.files import read_json, write_json, write_text
from evor.progress import console, progress_bar
from evor.provenance import provenance
from evor.source import open_data
from evor.update import State, initial_state, make_runner

CALL_SECONDS = 2.0  # aim of one compiled call: soon enough for Ctrl-C, long enough for many networks to take turns


def train(config: RunConfig, out: Path, resume: bool = False) -> None:
    """Train into the run folder `out`: config.json, provenance.json, metrics.jsonl, timings.jsonl, checkpoints/.

    Raises EvorError before anything is written where the request or the data are wrong. Interrupted by SIGINT or
    SIGTERM it saves a checkpoint and raises SystemExit.
    """
    training = Training(config, out, resume)
    if training.step >= config.steps:
        console.print(f"{out} is finished: {training.step} updates.", highlight=False)
    try:
        training.advance(config.steps)
    except SystemExit:
        console.print("continue with --resume.", highlight=False)
        raise


class Training:
    """A run folder and the state that grows in it. `train` drives it to its end, `reproduce` in laps."""

    def __init__(self, config: RunConfig, out: Path, resume: bool):
        exists = (out / "config.json").exists()
        if exists and not resume:
            raise EvorError(f"{out} already holds a run; continue it with --resume or choose another --out.")
        self._data = data = open_data(config)
        identity = {"config": to_json(config), "spec": data.spec._asdict(), "data_digest": data.digest}
        if exists:
            before = read_json(out / "config.json", "config")
            # As today's config: an option that is younger than the run had its default. Files may move: the digest
            # tells whether they are the same.
            stored = dataclasses.replace(from_json(before["config"], RunConfig), data=config.data)
            before["config"] = to_json(stored)
            if changed := differences(before, identity):
                raise EvorError(
                    f"{out} was started differently ({'; '.join(changed)}); use the same options or another --out."
                )
        for note in data.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
        console.print(
            f"{data.num_rows:,} transitions, {config.seeds} seeds x {len(config.tasks)} tasks -> {out}", highlight=False
        )
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", identity)
        _record_provenance(out / "provenance.json")
        self._config, self._out = config, out
        self._checkpoints.mkdir(exist_ok=True)
        self._state, self._run = make_runner(config, data.at(0), initial_state(config, data.spec))
        if found := checkpoint.newest(self._checkpoints):
            arrays, _, complaints = found
            for complaint in complaints:
                console.print(complaint, style="yellow", highlight=False, markup=False)
            saved = checkpoint.unflatten(
                {"state": self._state, "standardisation": data.scale}, arrays, self._checkpoints
            )
            self._state = jax.tree.map(jnp.asarray, saved["state"])
        self.step = int(self._state.step)
        checkpoint.set_aside(self._checkpoints, self.step)
        for name in ("metrics.jsonl", "timings.jsonl"):
            _cut_log(out / name, self.step)
        self._call = 1  # updates in the next compiled call
        self._seconds = 0.0  # of training, since this was opened

    @property
    def _checkpoints(self) -> Path:
        return self._out / "checkpoints"

    def advance(self, until: int, deadline: float = math.inf) -> bool:
        """Update until step `until` and save; False where `deadline` (of time.monotonic()) came first. Saves anyhow."""
        config = self._config
        if self.step >= until:
            return True
        started = time.monotonic() - self._seconds
        notes = ""
        with _interruption() as interrupted, progress_bar("train", config.steps, self.step, "updates") as advance:
            while self.step < until:
                count = min(
                    self._call,
                    _until(self.step, config.log_every),
                    _until(self.step, config.checkpoint_every),
                    until - self.step,
                    self._data.until(self.step),
                )
                before = time.monotonic()
                self._state = jax.block_until_ready(self._run(self._state, self._data.at(self.step), count))
                seconds = time.monotonic() - before
                self.step += count
                if self._call > 1:
                    self._call = max(1, int(count * min(CALL_SECONDS / max(seconds, 1e-6), 4)))
                    notes = f"{count / seconds:.0f}/s {_losses(self._state, self.step, config)}"
                else:
                    self._call = 8  # the first call was mostly compilation
                _check_finite(self._state, self.step, config, self._out)
                advance(count, notes)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    self._log(time.monotonic() - started)
                stop, late = interrupted(), time.monotonic() > deadline
                if self.step % config.checkpoint_every == 0 or self.step == until or stop or late:
                    tree = {"state": self._state, "standardisation": self._data.scale}
                    checkpoint.save_checkpoint(self._checkpoints, self.step, tree, {})
                if stop and self.step < config.steps:
                    console.print(f"interrupted at {self.step} updates, saved.", highlight=False)
                    raise SystemExit(128 + stop)
                if late:
                    break
        self._seconds = time.monotonic() - started
        return self.step >= until

    def _log(self, seconds: float) -> None:
        """Write the means since the last line, and begin anew."""
        _log(self._out, self._state, self._config, self.step, seconds)
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        self._state = self._state._replace(
            policy_sums=zeros(self._state.policy_sums), value_sums=zeros(self._state.value_sums)
        )


def _check_finite(state: State, step: int, config: RunConfig, out: Path) -> None:
    """Raise EvorError where a loss is not finite; what was saved before stays."""
    for part, sums in (("policy", state.policy_sums), ("value", state.value_sums)):
        broken = np.argwhere(~np.isfinite(np.asarray(sums.get("loss", 0.0))))
        if len(broken):
            place = [f"seed {config.all_seeds[broken[0][0]]}", *(f"task {config.tasks[k]}" for k in broken[0][1:])]
            raise EvorError(
                f"the {part}'s loss of {', '.join(place)} is not finite after {step} updates; try a lower "
                f"--agent.learning-rate and look at the data with `evor data check`. {out} keeps its last checkpoint."
            )


def _record_provenance(path: Path) -> None:
    """Where the run began, and every different place where it was resumed."""
    now = provenance()
    if not path.exists():
        write_json(path, now)
        return
    stored = read_json(path, *now)
    before = [stored, *stored.get("resumed", [])][-1]
    if any(before[name] != now[name] for name in now):
        write_json(path, stored | {"resumed": [*stored.get("resumed", []), now]})


def _until(step: int, every: int) -> int:
    return every - step % every


def _losses(state: State, step: int, config: RunConfig) -> str:
    count = step % config.log_every or config.log_every
    parts = {"policy": state.policy_sums, "value": state.value_sums}
    return " ".join(f"{name} {float(sums['loss'].mean()) / count:.3f}" for name, sums in parts.items() if sums)


def _log(out: Path, state: State, config: RunConfig, step: int, seconds: float) -> None:
    """One line per seed and task: means over the updates since the last line."""
    count = step % config.log_every or config.log_every
    policy = {name: np.asarray(sums) / count for name, sums in state.policy_sums.items()}
    value = {name: np.asarray(sums) / count for name, sums in state.value_sums.items()}
    with open(out / "metrics.jsonl", "a") as file:
        for s, seed in enumerate(config.all_seeds):
            for k, task in enumerate(config.tasks):
                line: dict[str, Any] = {"step": step, "seed": seed, "task": task}
                line |= {f"policy/{name}": float(values[s]) for name, values in policy.items()}
                line |= {f"value/{name}": float(values[s, k]) for name, values in value.items()}
                file.write(json.dumps(line) + "\n")
    with open(out / "timings.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Drop lines past the checkpoint, and a line that was half written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            keep = line.endswith("\n") and json.loads(line)["step"] <= step
        except (json.JSONDecodeError, KeyError, TypeError):
            keep = False
        if keep:
            kept.append(line)
    write_text(path, "".join(kept))


@contextmanager
def _interruption() -> Generator[Callable[[], int]]:
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
    except ValueError:  # not in the main thread: signals stay with whoever owns them
        pass
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
