"""Demonstrations: what somebody did, and the simulator's states on the way. One npz format; no JAX.

A row is one step: what was observed, the action that was *executed*, the state of the simulator before it, how many steps
the episode had lasted, and what came of it. Where an intended action trembles, the executed one is stored: a replayed
intention ends elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.errors import EvorError, fraction, integer
from evor.imitation.worlds import World, environment_id
from evor.runtime.files import write_npz
from evor.runtime.npz import open_npz
from evor.types import ACTION_TOLERANCE

ARRAYS = {  # name in a file: number of axes, kind
    "observations": (2, "f"),
    "actions": (2, "f"),
    "states": (2, "f"),
    "elapsed": (1, "i"),
    "rewards": (1, "f"),
    "terminations": (1, "b"),
    "truncations": (1, "b"),
}
OPTIONAL = ("actions", "states", "rewards")
REMEDY = "record it again with `evor imitate demos`."


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Episodes laid end to end. Actions, states or rewards may be missing."""

    env: str  # name of the environment
    version: str = ""  # of its simulator
    observations: Float[np.ndarray, "N O"]
    actions: Float[np.ndarray, "N A"] | None
    states: Float[np.ndarray, "N S"] | None
    elapsed: Int[np.ndarray, " N"]
    rewards: Float[np.ndarray, " N"] | None
    terminations: Bool[np.ndarray, " N"]
    truncations: Bool[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def ends(self) -> Bool[np.ndarray, " N"]:
        """Whether a row is the last of its episode. The last row of all is, too."""
        ends = self.terminations | self.truncations
        return np.append(ends[:-1], True)

    def mean_return(self) -> float | None:
        """Mean sum of rewards of the episodes, None where there are no rewards or no episode is whole."""
        if self.rewards is None:
            return None
        starts = np.append(0, np.flatnonzero(self.ends)[:-1] + 1)
        whole = (self.terminations | self.truncations)[np.flatnonzero(self.ends)] & (self.elapsed[starts] == 0)
        sums = np.add.reduceat(self.rewards, starts)[whole]
        return float(sums.mean()) if len(sums) else None

    def lived(self, horizon: int) -> float:
        """Mean share of the horizon that episodes last. One that was only cut lasts to the end."""
        starts = np.append(0, np.flatnonzero(self.ends)[:-1] + 1)
        last = np.flatnonzero(self.ends)
        steps = np.where(self.terminations[last], self.elapsed[last] + 1, horizon)
        assert len(starts) == len(last)
        return float(np.mean(np.minimum(steps, horizon)) / horizon)


def record(
    world: World,
    act: Callable[[Any, np.ndarray], np.ndarray],
    *,
    episodes: int,
    tremble: float,
    seed: int,
) -> Demonstrations:
    """Record so many episodes in one copy of a world. `act` is given the world and what is observed.

    A share `tremble` of actions is random instead, and it is they that are stored.
    """
    integer(1, episodes=episodes)
    integer(0, seed=seed)
    fraction(tremble=tremble)
    generator, rows = np.random.default_rng(seed), []
    copies = np.array([0])
    for _ in range(episodes):
        observation = world.reset(copies, generator)
        for elapsed in range(world.horizon):
            state, action = world.states()[0, : world.state_width], act(world, observation)[0]
            if generator.random() < tremble:
                action = generator.uniform(-1, 1, len(action))
            stepped = world.step(action[None], generator)
            action = action if stepped.executed is None else stepped.executed[0]
            terminated = bool(stepped.terminated[0])
            truncated = not terminated and elapsed + 1 == world.horizon
            rows.append((observation[0], action, state, elapsed, stepped.rewards[0], terminated, truncated))
            observation = stepped.observations
            if terminated:
                break
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Demonstrations(
        env=world.name,
        version=world.version,
        observations=columns[0].astype(np.float32),
        actions=columns[1].astype(np.float32),
        states=columns[2].astype(np.float64),
        elapsed=columns[3].astype(np.int64),
        rewards=columns[4].astype(np.float64),
        terminations=columns[5],
        truncations=columns[6],
    )


def write(demonstrations: Demonstrations, path: Path) -> None:
    """Write an npz file, whole or not at all."""
    arrays = {name: getattr(demonstrations, name) for name in ARRAYS}
    kept = {name: array for name, array in arrays.items() if array is not None}
    write_npz(path, kept | {name: np.array(getattr(demonstrations, name)) for name in ("env", "version")})


def read(path: Path) -> Demonstrations:
    """Read an npz file of demonstrations. Raises EvorError where it is none, or damaged."""
    with open_npz(path, REMEDY) as stored:
        arrays = {name: np.asarray(stored[name]) for name in stored.names if name in (*ARRAYS, "env", "version")}
    for name, (axes, _) in ARRAYS.items():
        if name not in arrays and name not in OPTIONAL:
            raise EvorError(f"{path} lacks {name}, so it holds no demonstrations; {REMEDY}")
        if name in arrays and arrays[name].dtype.kind not in "biuf":
            raise EvorError(f"{path}: {name} has type {arrays[name].dtype}, and real numbers are needed; {REMEDY}")
        if name in arrays and arrays[name].ndim != axes:
            raise EvorError(f"{path}: {name} has {arrays[name].ndim} axes, and {axes} are needed; {REMEDY}")
        if name in arrays and len(arrays[name]) != len(arrays["observations"]):
            raise EvorError(
                f"{path}: {name} has {len(arrays[name])} rows, and observations {len(arrays['observations'])}; {REMEDY}"
            )
        if name in arrays and not np.isfinite(arrays[name]).all():
            row = int(np.argwhere(~np.isfinite(arrays[name]))[0][0])
            raise EvorError(f"{path}: {name} in row {row} is not finite; remove that episode, or {REMEDY}")
    if not len(arrays["observations"]):
        raise EvorError(f"{path} holds no step; {REMEDY}")
    actions = arrays.get("actions")
    if actions is not None and np.abs(actions).max() > 1 + ACTION_TOLERANCE:
        raise EvorError(f"{path}: actions reach {np.abs(actions).max():g}, and they must lie in [-1, 1]; scale them.")
    return Demonstrations(
        env=str(arrays.get("env", "")),
        version=str(arrays.get("version", "")),
        observations=arrays["observations"].astype(np.float32),
        actions=None if actions is None else np.clip(actions, -1, 1).astype(np.float32),
        states=arrays.get("states"),
        elapsed=arrays["elapsed"].astype(np.int64),
        rewards=arrays.get("rewards"),
        terminations=arrays["terminations"].astype(bool),
        truncations=arrays["truncations"].astype(bool),
    )


def check(demonstrations: Demonstrations, world: World, *, option: str, states: bool, actions: bool) -> None:
    """Raise EvorError where demonstrations are not of this world, or lack what is asked for. `option` names them."""
    if environment_id(demonstrations.env) != environment_id(world.name):
        raise EvorError(
            f"{option} holds demonstrations in {demonstrations.env!r}, and the learner lives in {world.name!r}; give those of "
            "the same environment."
        )
    widths = {"observations": world.spec.observation_dim, "actions": world.spec.action_dim}
    for name, width in widths.items():
        array = getattr(demonstrations, name)
        if array is not None and array.shape[1] != width:
            raise EvorError(
                f"{option}: {name} have {array.shape[1]} entries, and those of {world.name} have {width}; record them anew."
            )
    if states and demonstrations.states is None:
        raise EvorError(
            f"{option} holds no states, and this method resets to them; record them, or choose --method mm."
        )
    if states and demonstrations.states is not None and demonstrations.states.shape[1] != world.state_width:
        raise EvorError(
            f"{option}: states have {demonstrations.states.shape[1]} entries, and those of {world.name} have "
            f"{world.state_width}; they were recorded on another body or version."
        )
    if states and demonstrations.version != world.version:
        raise EvorError(
            f"{option} holds states of {demonstrations.version or 'an unknown version'}, and this is {world.version}; record "
            "them anew, or choose --method mm."
        )
    if actions and demonstrations.actions is None:
        raise EvorError(f"{option} holds no actions, and they are what is imitated; give demonstrations with actions.")
