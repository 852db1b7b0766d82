"""Environments to imitate in, by name, and who demonstrates there."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evor.agents.sac import Sac
from evor.errors import EvorError
from evor.imitation import demonstrations, ledge
from evor.imitation.actor import Actor
from evor.imitation.bodies import Body
from evor.imitation.config import ImitationConfig, default_learner
from evor.imitation.demonstrations import Demonstrations, record
from evor.imitation.discriminator import Entries, Everything, TrueReward
from evor.imitation.folder import ACTOR, Task
from evor.imitation.resets import Mm
from evor.imitation.simulators import Simulator, body_model
from evor.imitation.worlds import World
from evor.nn.learner import Learning
from evor.runtime.files import numbered
from evor.runtime.records import replace

LEDGE = ImitationConfig(
    steps=60_000,
    discriminator_sees=Entries(observation=(0,), action=(0,)),  # how far, and how fast: both ways share these
    learner=replace(default_learner(), hidden=(64, 64)),
    copies=32,
    warm_up=960,
    update_every=96,
    reward_every=480,
    evaluate_every=4_800,
)


EXPERT = ImitationConfig(
    steps=600_000,
    learner=Sac(learning=Learning(hidden=(256, 256), batch_size=128, learning_rate=1e-3, final_learning_rate=0.0)),
    warm_up=5_056,
)


def default_config(env: str) -> ImitationConfig:
    """The settings that `evor imitate ENV` begins from."""
    return LEDGE if env == ledge.NAME else ImitationConfig()


def default_expert(env: str) -> ImitationConfig:
    """The settings that `evor imitate expert ENV` begins from."""
    return LEDGE if env == ledge.NAME else EXPERT


def expert_config(env: str, *, steps: int, seed: int, copies: int, learner: Sac) -> ImitationConfig:
    """Settings of an expert: the true reward, from the start."""
    return dataclasses.replace(
        default_expert(env),
        method=Mm(),
        reward=TrueReward(),
        discriminator_sees=Everything(),
        steps=steps,
        seeds=(seed,),
        copies=copies,
        learner=learner,
    )


def make_task(env: str, *, demos: Path | None, offline: Path | None, body: Body) -> Task:
    """Read the demonstrations, and make the environment for this body. Raises EvorError."""
    make, model = _world_maker(env, body)
    return Task(
        env=env,
        make_world=make,
        expert=None if demos is None else _as_seen(demonstrations.read(demos), body),
        offline=None if offline is None else _as_seen(demonstrations.read(offline), body),
        body=body.differences,
        model=model,
    )


def _as_seen(data: Demonstrations, body: Body) -> Demonstrations:
    """Demonstrations without what is hidden from the learner, so that a clone and a discriminator see what it sees."""
    if not body.hidden:
        return data
    observations = data.observations.copy()
    observations[:, [entry for entry in body.hidden if entry < observations.shape[1]]] = 0
    return replace(data, observations=observations)


def _world_maker(env: str, body: Body) -> tuple[Callable[[int], World], str | None]:
    """A function that makes so many copies of an environment, and the XML of a changed model."""
    if env == ledge.NAME:
        if body != Body():
            raise EvorError(f"the ledge has no body to change ({', '.join(body.differences)}); leave --body out.")
        return ledge.Ledge, None
    model = body_model(env, body)

    def make(count: int) -> World:
        if model is None:
            return Simulator(env, count, body=body)
        with tempfile.TemporaryDirectory(prefix="evor-body-") as folder:  # gymnasium reads files
            path = Path(folder) / "body.xml"
            path.write_text(model)
            return Simulator(env, count, body=body, xml=path)

    return make, model


def demonstrated(expert: str, *, episodes: int, tremble: float, seed: int) -> Demonstrations:
    """Record episodes: of a demonstrator by name, or of the actor in a run folder or file. Raises EvorError."""
    if expert in ledge.DEMONSTRATORS:
        return ledge.demonstrated(expert, episodes=episodes, tremble=tremble, seed=seed)
    path = Path(expert)
    if path.is_dir():
        actors = (each / ACTOR for each in numbered(path, "seed").values())
        path = next(filter(Path.exists, actors), path / ACTOR)
    if not path.is_file():
        raise EvorError(
            f"{expert} is no demonstrator and holds no {ACTOR}; give {' or '.join(ledge.DEMONSTRATORS)}, or the folder of a "
            "finished `evor imitate expert`."
        )
    actor, told = Actor.read(path)
    make, _ = _world_maker(told["env"], Body(**{name: _plain(value) for name, value in told["body"].items()}))
    return record(
        make(1),
        lambda _, observation: actor.mean(observation.astype(np.float32)),
        episodes=episodes,
        tremble=tremble,
        seed=seed,
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
