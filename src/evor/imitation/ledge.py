"""The ledge: a small continuous world with a tightrope in it. No JAX.

From a platform (x < 1) a narrow beam and a winding bridge lead on; elsewhere is a fall. Gusts blow on the beam. The expert
feels a gust before it blows and leans against it. The learner does not feel it, and can only cross the bridge, which is
slower and must be found: it begins two units beside the start.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.imitation.demonstrations import Demonstrations, record
from evor.imitation.worlds import Stepped
from evor.types import Spec

NAME = "ledge"
HORIZON = 150
EDGE, SIDE = 1.0, 3.0  # of the platform
BEAM = 0.15  # half of its width
BRIDGE = 0.35
GUST, GUSTY = 1.2, 0.3  # strength, and the share of steps
FORWARD, SIDEWAYS, SHELTERED = 0.05, 0.15, 0.7  # speeds, and the factor of the forward speed on the bridge
PAY = 10.0  # of one unit of progress

Numbers = Float[np.ndarray, " n"]


def middle(x: Numbers) -> Numbers:
    """The y of the middle of the bridge."""
    return 2 + 0.5 * np.sin(1.5 * (x - EDGE))


class Ledge:
    """Copies of the ledge. A state is x, y and the gust that blows next."""

    name = NAME
    spec = Spec(observation_dim=4, action_dim=2)
    horizon = HORIZON
    state_width = 3
    version = ""

    def __init__(self, count: int):
        self.count = count
        self._x, self._y, self._gust = np.zeros((3, count))

    def reset(self, copies: Int[np.ndarray, " k"], generator: np.random.Generator) -> Float[np.ndarray, "k O"]:
        self._x[copies] = 0
        self._y[copies] = generator.uniform(-0.1, 0.1, len(copies))
        self._gust[copies] = _gusts(generator, len(copies))
        return self.observations()[copies]

    def restore(
        self,
        copies: Int[np.ndarray, " k"],
        states: Float[np.ndarray, "k 3"],
        *,
        observations: Float[np.ndarray, "k O"],
    ) -> Float[np.ndarray, "k O"]:
        self._x[copies], self._y[copies], self._gust[copies] = states.T
        return self.observations()[copies]

    def step(self, actions: Float[np.ndarray, "n A"], generator: np.random.Generator) -> Stepped:
        forward, sideways = np.clip(actions, -1, 1).T
        blows = np.where(self.on_beam(), self._gust, 0)
        ahead = FORWARD * (1 + forward) * np.where(self.on_bridge(), SHELTERED, 1)
        self._x = self._x + ahead
        self._y = self._y + SIDEWAYS * (sideways + blows)
        self._gust = _gusts(generator, self.count)
        on_platform = (self._x < EDGE) & (np.abs(self._y) <= SIDE)
        terminated = ~(on_platform | self.on_beam() | self.on_bridge())
        return Stepped(observations=self.observations(), rewards=PAY * ahead, terminated=terminated)

    def states(self) -> Float[np.ndarray, "n 3"]:
        return np.stack([self._x, self._y, self._gust], axis=1)

    def resume(self, states: Float[np.ndarray, "n 3"], *, observations: Float[np.ndarray, "n O"]) -> None:
        self.restore(np.arange(self.count), states, observations=observations)

    def positions(self) -> Float[np.ndarray, "n 2"]:
        return np.stack([self._x, self._y], axis=1)

    def observations(self) -> Float[np.ndarray, "n O"]:
        """Observations of the learner, without the gust."""
        x, y = self._x, self._y
        return np.stack([x / 5 - 1, y, np.sin(1.5 * (x - EDGE)), (x < EDGE) * 1.0], axis=1).astype(np.float32)

    def on_beam(self) -> Bool[np.ndarray, " n"]:
        return (self._x >= EDGE) & (np.abs(self._y) <= BEAM)

    def on_bridge(self) -> Bool[np.ndarray, " n"]:
        return (self._x >= EDGE) & (np.abs(self._y - middle(self._x)) <= BRIDGE)

    # Who demonstrates. Neither sees an observation: they know the state.

    def expert(self) -> Float[np.ndarray, "n A"]:
        """Run along the beam, and lean against the gust that is about to blow."""
        felt = np.where(self.on_beam(), self._gust, 0)
        return np.stack([np.ones(self.count), np.clip(-felt - self._y / SIDEWAYS, -1, 1)], axis=1)

    def crosser(self) -> Float[np.ndarray, "n A"]:
        """Go to where the bridge begins, and follow its middle."""
        on_platform = self._x < EDGE
        wanted = np.where(on_platform, middle(np.full(self.count, EDGE)), middle(self._x + 2 * FORWARD * SHELTERED))
        waits = on_platform & (np.abs(self._y - wanted) > BRIDGE / 2) & (self._x + 2 * FORWARD >= EDGE)
        return np.stack([np.where(waits, -1.0, 1.0), np.clip((wanted - self._y) / SIDEWAYS, -1, 1)], axis=1)


def _gusts(generator: np.random.Generator, count: int) -> Numbers:
    blows, sign = generator.random((2, count))
    return np.where(blows < GUSTY, np.where(sign < 0.5, -GUST, GUST), 0.0)


# Who demonstrates, by the name that `evor imitate demos` takes.
DEMONSTRATORS: dict[str, Callable[[Ledge], Float[np.ndarray, "n A"]]] = {
    "ledge": Ledge.expert,
    "ledge-bridge": Ledge.crosser,
}


def demonstrated(name: str, *, episodes: int, tremble: float, seed: int = 0) -> Demonstrations:
    """Record one of the demonstrators."""
    act = DEMONSTRATORS[name]
    return record(Ledge(1), lambda world, _: act(world), episodes=episodes, tremble=tremble, seed=seed)
