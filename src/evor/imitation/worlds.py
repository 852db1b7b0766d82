"""Worlds to imitate in: copies of an environment, stepped together, whose states can be saved and restored. No JAX."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from evor.types import Spec


def environment_id(name: str) -> str:
    """The id of an environment: its name without the module that registers it, as in `my_module:MyEnv-v0`."""
    return name.rpartition(":")[2]


class Stepped(NamedTuple):
    """Result of one step of every copy. Time limits are not among the ends: who steps counts."""

    observations: Float[np.ndarray, "n O"]
    rewards: Float[np.ndarray, " n"]  # the true ones, which imitation never sees
    terminated: Bool[np.ndarray, " n"]
    executed: Float[np.ndarray, "n A"] | None = None  # actions, where a body may make others of those that it is given


@runtime_checkable
class World(Protocol):
    """Copies of an environment. Actions lie in [-1, 1]. Copies whose episodes ended may be stepped with the others; what they
    then return counts nowhere, until they are reset.
    """

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def horizon(self) -> int:
        """Steps of an episode at most."""
        ...

    @property
    def count(self) -> int:
        """Number of copies."""
        ...

    @property
    def state_width(self) -> int:
        """Entries of a state in demonstrations."""
        ...

    @property
    def version(self) -> str:
        """Version of the simulator, whose states another one may not understand. Empty where there is one only."""
        ...

    def reset(self, copies: Int[np.ndarray, " k"], generator: np.random.Generator) -> Float[np.ndarray, "k O"]:
        """Begin episodes in these copies. Returns their first observations."""
        ...

    def restore(
        self,
        copies: Int[np.ndarray, " k"],
        states: Float[np.ndarray, "k S"],
        *,
        observations: Float[np.ndarray, "k O"],
    ) -> Float[np.ndarray, "k O"]:
        """Put these copies into states of demonstrations. Returns what is observed there.

        `observations` are those that were seen in these states: an environment may keep parts of an observation that are
        no part of its state.
        """
        ...

    def step(self, actions: Float[np.ndarray, "n A"], generator: np.random.Generator) -> Stepped:
        """Take one action in every copy. What is random draws from the generator."""
        ...

    def states(self) -> Float[np.ndarray, "n S"]:
        """Everything that `resume` needs. Its first `state_width` entries are what demonstrations store."""
        ...

    def resume(self, states: Float[np.ndarray, "n S"], *, observations: Float[np.ndarray, "n O"]) -> None:
        """Go on in all copies from states that `states` returned, exactly. `observations` were seen there."""
        ...


@runtime_checkable
class OnPlane(Protocol):
    """A world whose copies have a place on a plane, which reports draw."""

    def positions(self) -> Float[np.ndarray, "n 2"]: ...


@runtime_checkable
class Grounded(Protocol):
    """A world whose copies stand on the ground."""

    @property
    def touched(self) -> bool:
        """Whether any copy has touched the ground so far. True, too, of bodies that need no ground."""
        ...
