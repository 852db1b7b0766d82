"""A run folder of an imitation: what it is of, and what is written beside its seeds."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError
from evor.imitation import demonstrations
from evor.imitation.config import ImitationConfig
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.guitar import Counts, Played, roll_out
from evor.imitation.worlds import World
from evor.runtime.files import append_text, read_json, write_json, write_npz
from evor.runtime.provenance import provenance
from evor.training.config import differences, shortened

KIND = "imitation"
EVALUATIONS = "evaluations.jsonl"
REFERENCES = "references.json"
POSITIONS = "positions.npz"
ACTOR = "actor.safetensors"
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Demonstrations to imitate, and the world of the learner."""

    env: str
    make_world: Callable[[int], World]
    expert: Demonstrations | None
    offline: Demonstrations | None
    body: dict[str, Any]  # how the learner's body differs, for config.json
    model: str | None = None  # XML of a changed model


def identity_of(config: Any) -> Any:
    """Settings as plain JSON values, every record with its type."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {item.name: identity_of(getattr(config, item.name)) for item in dataclasses.fields(config)}
        return {"type": type(config).__name__, **fields}
    return [identity_of(value) for value in config] if isinstance(config, tuple) else config


def _digest(data: Demonstrations | None) -> str | None:
    if data is None:
        return None
    hasher = hashlib.sha256()
    for name in demonstrations.ARRAYS:
        if (array := getattr(data, name)) is not None:
            hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()[:16]


def keep_identity(out: Path, config: ImitationConfig, *, task: Task) -> None:
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


def keep_references(out: Path, config: ImitationConfig, *, task: Task) -> None:
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
