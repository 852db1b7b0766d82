"""Environments to imitate in, by name, and who demonstrates there."""

from collections.abc import Callable
from pathlib import Path

from evor.errors import EvorError, nearest
from evor.imitation import demonstrations, ledge
from evor.imitation.config import ImitationConfig, default_learner
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.discriminator import Entries
from evor.imitation.run import Task
from evor.imitation.worlds import World
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


def default_config(env: str) -> ImitationConfig:
    """The settings that `evor imitate ENV` begins from."""
    return LEDGE if env == ledge.NAME else ImitationConfig()


def world_maker(env: str) -> Callable[[int], World]:
    """A function that makes so many copies of an environment. Raises EvorError where there is none of this name."""
    if env == ledge.NAME:
        return ledge.Ledge
    raise EvorError(f"there is no environment {env!r}; {nearest(env, [ledge.NAME])}")


def demonstrated(name: str, *, episodes: int, tremble: float, seed: int) -> Demonstrations:
    """Record episodes of a demonstrator. Raises EvorError where there is none of this name."""
    if name in ledge.DEMONSTRATORS:
        return ledge.demonstrated(name, episodes=episodes, tremble=tremble, seed=seed)
    raise EvorError(f"there is no demonstrator {name!r}; {nearest(name, ledge.DEMONSTRATORS)}")


def make_task(env: str, *, demos: Path | None, offline: Path | None) -> Task:
    """Read the demonstrations, and make the environment. Raises EvorError."""
    make = world_maker(env)
    return Task(
        env=env,
        make_world=make,
        expert=None if demos is None else demonstrations.read(demos),
        offline=None if offline is None else demonstrations.read(offline),
        body={},
    )
