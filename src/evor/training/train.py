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

from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.runtime.files import append_text, read_json, read_json_lines, sweep, write_json, write_text
from evor.runtime.locks import hold
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.training import checkpoint
from evor.training.config import RunConfig, check_identity, from_json, read_identity, run_differences, to_json
from evor.training.data import open_data
from evor.training.update import State, initial_state, learning_rate, make_runner

LOCK = ".lock"  # held while a process trains in the folder
SAVED = "saved.json"  # the step of the last checkpoint: without it, lost checkpoints would look like none
CALL_SECONDS = 2.0  # aim of one compiled call: soon enough for Ctrl-C, long enough for many networks to take turns


def train(config: RunConfig, out: Path, resume: bool = False) -> None:
    """Train into the run folder `out`: config.json, provenance.json, metrics.jsonl, timings.jsonl, checkpoints/.

    Raises EvorError before anything is written where the request or the data are wrong. Interrupted by SIGINT or
    SIGTERM it saves a checkpoint and raises SystemExit.
    """
    with Training(config, out, resume) as training:
        if training.step >= config.steps:
            console.print(f"{out} is finished: {training.step} updates. More --steps extend it.")
        try:
            training.advance(config.steps)
        except SystemExit:
            console.print("continue with --resume.")
            raise


class Training:
    """A run folder, locked, and the state that grows in it. `train` drives it to its end, `reproduce` in several calls.

    Used in a `with` statement, or closed with `close`. Raises EvorError where another process trains in the folder.
    """

    @pinned
    def __init__(self, config: RunConfig, out: Path, resume: bool):
        _refuse_another(out, resume)
        self._lock = hold(out / LOCK, "evor train") if out.is_dir() else None
        try:
            self._open(config, out, resume)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.release()

    def _open(self, config: RunConfig, out: Path, resume: bool) -> None:
        self._config, self._out = config, out
        self._data = data = open_data(config)
        self._identity = {"config": to_json(config), "spec": data.spec._asdict(), "data_digest": data.digest}
        if self._lock is None:  # a new folder: nothing is written before the data are read
            out.mkdir(parents=True, exist_ok=True)
            self._lock = hold(out / LOCK, "evor train")
            _refuse_another(out, resume)  # in which another process has trained meanwhile
        before = self._read_config()
        state, self._run = make_runner(config, data.at(0), initial_state(config, data.spec))
        self._state, metadata = self._newest(state, before)
        self.step = int(self._state.step)
        self._logged = int(metadata["logged"])  # step of the last line of metrics.jsonl
        if self.step > config.steps:
            raise EvorError(f"{out} has made {self.step} updates already; give --steps {self.step} or more.")

        for note in data.notes:
            console.print(f"note: {note}")
        console.print(
            f"{data.num_rows:,} transitions, {config.seeds} seeds x {len(config.tasks)} tasks -> {out}",
        )
        for folder in (out, self._checkpoints):
            sweep(folder, seconds=0)
        write_json(out / "config.json", self._identity | self._extension(before))
        # Before the first line of a log: one without this file is taken for a run of version 0.1.0, see `_saved`.
        write_json(out / SAVED, {"step": self.step})
        _record_provenance(out / "provenance.json")
        self._checkpoints.mkdir(exist_ok=True)
        checkpoint.set_aside(self._checkpoints, self.step)
        for name in ("metrics.jsonl", "timings.jsonl"):
            _cut_log(out / name, self.step)
        self._call = 1  # updates in the next compiled call
        self._seconds = 0.0  # of training, since this was opened

    def _read_config(self) -> dict[str, Any]:
        """What config.json holds of this run, {} where there is none. Raises EvorError where it is another run's."""
        path = self._out / "config.json"
        if not path.exists():
            return {}
        before = read_identity(path)
        if changed := run_differences(before, self._identity):
            raise EvorError(
                f"{self._out} was started differently ({'; '.join(changed)}); use the same options or another --out."
            )
        if self._config.steps < (started := from_json(before["config"], RunConfig).steps):
            raise EvorError(
                f"{self._out} was started for {started} updates, and --steps {self._config.steps} is fewer; "
                f"give {started} or more."
            )
        return before

    def _newest(self, state: State, before: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        """The state of the newest readable checkpoint and its metadata; `state` where nothing was saved yet.

        Raises EvorError where what was saved is gone, or is of another run.
        """
        saved = self._saved(before)
        found = checkpoint.newest(self._checkpoints)
        if found is None and saved:
            raise EvorError(
                f"{self._out} has lost its checkpoints (its last one was made after {saved} updates); restore "
                f"{self._checkpoints}, or train anew into another --out."
            )
        if found is None:
            return state, {"logged": 0}
        arrays, metadata, complaints = found
        if metadata["step"] < saved and not complaints:
            complaints = [f"the checkpoint of {saved} updates is gone; going on from {metadata['step']}."]
        for complaint in complaints:
            console.print(complaint, style="yellow")
        check_identity(metadata, self._identity, self._out)
        template = {"state": state, "standardisation": self._data.scale}
        restored = checkpoint.unflatten(template, arrays, self._checkpoints)["state"]
        every = from_json(before["config"], RunConfig).log_every if before else self._config.log_every
        logged = metadata["step"] - metadata["step"] % every  # as version 0.1.0 did, which does not say
        return jax.tree.map(jnp.asarray, restored), {"logged": logged} | metadata

    def _saved(self, before: dict[str, Any]) -> int:
        """The step of the last checkpoint ever saved here, as far as the folder tells; 0 for none."""
        if (self._out / SAVED).exists():
            return int(read_json(self._out / SAVED, step=int)["step"])
        if not before:
            return 0
        # Version 0.1.0 wrote no such file: a log beyond the first checkpoint tells that there was one.
        every = from_json(before["config"], RunConfig).checkpoint_every
        steps = [line["step"] for line in read_json_lines(self._out / "metrics.jsonl", step=int)]
        return max(steps, default=0) // every * every

    def _extension(self, before: dict[str, Any]) -> dict[str, Any]:
        """What config.json says of updates that were added to the run, and the sentence about the learning rate."""
        extended = before.get("extended", [])
        config = self._config
        if not before or config.steps == (started := from_json(before["config"], RunConfig).steps):
            return {"extended": extended} if extended else {}
        was, now = (learning_rate(dataclasses.replace(config, steps=n), self.step) for n in (started, config.steps))
        last = config.agent.final_learning_rate
        console.print(
            f"extended from {started} to {config.steps} updates. The learning rate at update {self.step} is {now:.3g} "
            f"(before: {was:.3g}); it goes to {last:.3g} at update {config.steps}.",
        )
        return {"extended": [*extended, {"at": self.step, "from": started, "to": config.steps}]}

    def _save(self) -> None:
        tree = {"state": self._state, "standardisation": self._data.scale}
        metadata = {"logged": self._logged, "identity": self._identity}
        checkpoint.save_checkpoint(self._checkpoints, self.step, tree, metadata, self._config.checkpoint_every)
        write_json(self._out / SAVED, {"step": self.step})

    @property
    def _checkpoints(self) -> Path:
        return self._out / "checkpoints"

    @pinned
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
                    notes = f"{count / seconds:.0f}/s {_losses(self._state, self.step - self._logged)}"
                else:
                    self._call = 8  # the first call was mostly compilation
                _check_finite(self._state, self.step, config, self._out)
                advance(count, notes)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    self._log(time.monotonic() - started)
                stop, late = interrupted(), time.monotonic() > deadline
                if self.step % config.checkpoint_every == 0 or self.step == until or stop or late:
                    self._save()
                if stop and self.step < config.steps:
                    console.print(f"interrupted at {self.step} updates, saved.")
                    raise SystemExit(128 + stop)
                if late:
                    break
        self._seconds = time.monotonic() - started
        return self.step >= until

    def _log(self, seconds: float) -> None:
        """Write the means since the last line, and begin anew."""
        _log(self._out, self._state, self._config, self.step, self.step - self._logged, seconds)
        self._logged = self.step
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


def _losses(state: State, count: int) -> str:
    parts = {"policy": state.policy_sums, "value": state.value_sums}
    return " ".join(f"{name} {float(sums['loss'].mean()) / count:.3f}" for name, sums in parts.items() if sums)


def _log(out: Path, state: State, config: RunConfig, step: int, count: int, seconds: float) -> None:
    """Write one line per seed and task: means over the `count` updates since the last line."""
    policy = {name: np.asarray(sums) / count for name, sums in state.policy_sums.items()}
    value = {name: np.asarray(sums) / count for name, sums in state.value_sums.items()}
    text = ""
    for s, seed in enumerate(config.all_seeds):
        for k, task in enumerate(config.tasks):
            line: dict[str, Any] = {"step": step, "seed": seed, "task": task}
            line |= {f"policy/{name}": float(values[s]) for name, values in policy.items()}
            line |= {f"value/{name}": float(values[s, k]) for name, values in value.items()}
            text += json.dumps(line) + "\n"
    append_text(out / "metrics.jsonl", text)
    append_text(out / "timings.jsonl", json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Drop lines past the checkpoint, and a last line that was half written."""
    lines = [line for line in read_json_lines(path, step=int) if line["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _refuse_another(out: Path, resume: bool) -> None:
    if not resume and (out / "config.json").exists():
        raise EvorError(f"{out} already holds a run; continue it with --resume or choose another --out.")


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
