"""The tightrope MDP, its exact returns, and what each method returns in closed form. Imports no JAX.

From a platform, action 0 steps onto a rope and action 1 onto a bridge. At every step the rope shows a fair new bit: who
repeats it stays, who does not falls. The bridge asks for a code, one bit per step, which may be learned. The expert sees
the bit and walks the rope. The learner does not see it: this is the misspecification.

Shapes: T time steps of an episode, S = 5 states, 2 actions.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError, fraction, integer

PLATFORM, ROPE_0, ROPE_1, BRIDGE, GONE = range(5)
NAMES = ("platform", "rope, bit 0", "rope, bit 1", "bridge", "gone")
TRUE_U = 0.1  # of the true reward
HIDDEN_BIT = (0, 1, 1, 2, 3)  # what the learner sees of each state
SEEN_BIT = (0, 1, 2, 3, 4)  # the same for a learner without misspecification

Actions = Float[np.ndarray, "T 5 2"]  # probabilities of both actions at every time and state
States = Float[np.ndarray, "T 5"]  # probabilities of the states at every time
Rewards = Float[np.ndarray, "T 5"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the tightrope."""

    horizon: int = 10  # Steps of an episode.
    # Rewards r_u are discriminated for u in 0 and this value. A reward r_u tells bridge from rope by u.
    u_max: float = 0.5
    # Chance per step of a random action of the agent that crossed the bridge and left the offline data.
    tremble: float = 0.5
    seed: int = 0  # Seed of the bridge's code and of the sampled searches.

    def __post_init__(self):
        integer(2, horizon=self.horizon)
        fraction(u_max=self.u_max, tremble=self.tremble)
        integer(0, seed=self.seed)


class Tightrope(NamedTuple):
    """An MDP with this many steps, whose bridge asks for this code."""

    horizon: int
    code: tuple[int, ...]

    @property
    def far(self) -> int:
        """Time from which the bridge pays."""
        return self.horizon // 2

    def transitions(self) -> Float[np.ndarray, "T 5 2 5"]:
        """Probabilities of the next state."""
        return _transitions(self)

    def rewards(self, u: float) -> Rewards:
        """The reward r_u: 1 on platform and rope; on the bridge 1 - u, and 0 before `far`; 0 when gone."""
        r = np.zeros((self.horizon, 5))
        r[:, [PLATFORM, ROPE_0, ROPE_1]] = 1
        r[self.far :, BRIDGE] = 1 - u
        return r


@functools.lru_cache(maxsize=32)
def _transitions(world: Tightrope) -> Float[np.ndarray, "T 5 2 5"]:
    p = np.zeros((world.horizon, 5, 2, 5))
    p[:, PLATFORM, 0, [ROPE_0, ROPE_1]] = 0.5
    p[:, PLATFORM, 1, BRIDGE] = 1
    for bit, state in enumerate((ROPE_0, ROPE_1)):
        p[:, state, bit, [ROPE_0, ROPE_1]] = 0.5
        p[:, state, 1 - bit, GONE] = 1
    times, code = np.arange(world.horizon), np.array(world.code)
    p[times, BRIDGE, code, BRIDGE] = 1
    p[times, BRIDGE, 1 - code, GONE] = 1
    p[:, GONE, :, GONE] = 1
    p.flags.writeable = False
    return p


def make(settings: Settings) -> Tightrope:
    """A tightrope whose code is drawn fairly, but for its bits 1 and 2: were they equal, a constant guess would cross."""
    code = np.random.default_rng(settings.seed).integers(0, 2, settings.horizon)
    code[1:3] = (1, 0)[: settings.horizon - 1]
    return Tightrope(settings.horizon, tuple(code.tolist()))


# Policies and what they do.


def expert(world: Tightrope) -> Actions:
    """Step onto the rope, and repeat every bit."""
    actions = constant(world, 0)
    actions[:, ROPE_1] = (0, 1)
    return actions


def crossing(world: Tightrope, tremble: float) -> Actions:
    """Step onto the bridge, and follow its code with a random action now and then."""
    actions = constant(world, 1)
    for time, bit in enumerate(world.code):
        actions[time, BRIDGE] = tremble / 2
        actions[time, BRIDGE, bit] = 1 - tremble / 2
    return actions


def constant(world: Tightrope, action: int) -> Actions:
    """The same action everywhere."""
    actions = np.zeros((world.horizon, 5, 2))
    actions[:, :, action] = 1
    return actions


def values(world: Tightrope, actions: Actions, *, rewards: Rewards) -> tuple[Float[np.ndarray, "T 5 2"], States]:
    """The exact sum of rewards from every time on: of each action, followed by the policy, and of the policy."""
    p = world.transitions()
    q, v = np.zeros((world.horizon, 5, 2)), np.zeros((world.horizon + 1, 5))
    for time in reversed(range(world.horizon)):
        q[time] = rewards[time][:, None] + p[time] @ v[time + 1]
        v[time] = (actions[time] * q[time]).sum(axis=1)
    return q, v[:-1]


def expected_return(world: Tightrope, actions: Actions, *, u: float) -> float:
    """The exact expected sum of r_u over an episode."""
    return float(values(world, actions, rewards=world.rewards(u))[1][0, PLATFORM])


def visited(world: Tightrope, actions: Actions) -> States:
    """Probabilities of the states at every time."""
    p, states = world.transitions(), np.zeros((world.horizon, 5))
    states[0, PLATFORM] = 1
    for time in range(world.horizon - 1):
        states[time + 1] = np.einsum("s,sa,sab->b", states[time], actions[time], p[time])
    return states


def recorded(world: Tightrope, actions: Actions) -> States:
    """Distribution at every time of the states that a dataset of the policy holds. A fall ends an episode."""
    states = visited(world, actions)
    states[:, GONE] = 0
    return states / states.sum(axis=1, keepdims=True)


def cloned(world: Tightrope, demonstrators: list[Actions], *, sees: tuple[int, ...] = HIDDEN_BIT) -> Actions:
    """Exact behaviour cloning of as many episodes of each demonstrator, by a learner that sees so much of a state.

    Where there are no data it takes action 0.
    """
    joint = np.sum([visited(world, actions)[:, :, None] * actions for actions in demonstrators], axis=0)
    grouped = pooled(joint, sees)
    total = grouped.sum(axis=2, keepdims=True)
    return np.where(total > 0, grouped / np.where(total > 0, total, 1), np.array([1.0, 0.0]))


def pooled(amounts: Float[np.ndarray, "T 5 2"], sees: tuple[int, ...]) -> Float[np.ndarray, "T 5 2"]:
    """Amounts summed over the states that look the same."""
    return looking_alike(sees) @ amounts


def looking_alike(sees: tuple[int, ...]) -> Float[np.ndarray, "5 5"]:
    """1 for every pair of states that look the same."""
    return (np.array(sees)[:, None] == np.array(sees)).astype(float)


# Closed forms.


def on_the_rope(horizon: int) -> float:
    """Return of the best that a learner can do on the rope, K: the chance to stay halves with every bit."""
    return 1 + 2 * (1 - 2.0 ** -(horizon - 1))


def over_the_bridge(horizon: int, u: float) -> float:
    """Return of a crossing under r_u, B(u)."""
    return 1 + (1 - u) * (horizon - horizon // 2)


def threshold(horizon: int) -> float:
    """The u at which rope and bridge are worth the same. A discriminator that sees more prefers a fall off the rope."""
    return 1 - (on_the_rope(horizon) - 1) / (horizon - horizon // 2)


def cloned_crossing(horizon: int, *, tremble: float, u: float) -> float:
    """Return under r_u of a clone of the agent that crossed the bridge with random actions."""
    stays = 1 - tremble / 2
    return 1 + (1 - u) * sum(stays ** (time - 1) for time in range(horizon // 2, horizon))


def completeness_error(horizon: int, time: int) -> float:
    """Error of reward-agnostic policy completeness at a time under the expert's states: half of what the rope is worth."""
    return 1 - 2.0 ** -(horizon - 1 - time) if time else 0.0


def check_world(world: Tightrope) -> None:
    """Raise EvorError where the code lets a constant guess cross, or has another length than the episode."""
    if len(world.code) != world.horizon or set(world.code) - {0, 1}:
        raise EvorError(f"code is {world.code}; give a bit for each of the {world.horizon} steps.")
    if world.horizon > 2 and world.code[1] == world.code[2]:
        raise EvorError(f"code is {world.code}; bits 1 and 2 must differ, or a constant guess crosses the bridge.")
