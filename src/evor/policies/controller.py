"""Controllers of control loops: a policy, its search, the seeds of its decisions and the chunk that is being played."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from evor.envs.observations import Observation, flat_observation
from evor.errors import EvorError
from evor.nn.engine import pinned
from evor.policies.base_policy import with_arrays, with_leading_axis
from evor.policies.inputs import keys_of
from evor.policies.policy import Policy
from evor.runtime import arguments
from evor.search.extraction import Extraction


class VectorController:
    """Decides for many control loops in one call, for each as a `Controller` with its seed would.

    Decision i of a loop draws its noise from the key fold_in(key of the loop's seed, i).
    """

    @pinned
    def __init__(self, policy: Policy, *, extraction: Extraction | None = None, seeds: UInt32[np.ndarray, " L"]):
        self._policy, self._extraction = policy, extraction
        self._keys = keys_of(seeds)
        self._decided = np.zeros(len(seeds), np.int32)  # decisions made by each loop

    @pinned
    def decide(
        self,
        loops: Int[np.ndarray, " B"] | Sequence[int],
        observations: Float[np.ndarray, "B O"],
        *,
        given: Mapping[str, Any] | None = None,
    ) -> Float[np.ndarray, "B chunk A"]:
        """The next chunk of actions for these loops, one action long where the agent does not chunk.

        `given` are the observations by their keys, where they have some: a base policy of the user's own gets these.
        A loop may be given twice, as padding: it gets the same chunk twice and has made one decision.
        Compiles once for each number of rows.
        """
        rows = np.asarray(loops)
        keys = _fold(self._keys, rows, decisions=self._decided[rows])
        self._decided[np.unique(rows)] += 1
        actions = self._policy._act_with_keys(observations, keys, extraction=self._extraction, given=given)
        return actions.reshape(len(rows), -1, self._policy.spec.action_dim)


class Controller:
    """Acts step by step: every decision draws a seed of its own, and a chunk is played to its end.

    One controller drives one robot or environment, from one thread:

        controller = Controller(evor.load("robot"), extraction=evor.SoftmaxOf(32))
        controller.reset(seed=0)
        while True:
            action = controller.act(observation)
    """

    def __init__(self, policy: Policy, *, extraction: Extraction | None = None, seed: int = 0):
        if not isinstance(policy, Policy):
            raise EvorError(f"policy is {arguments.shown(policy)}; give the policy that evor.load(folder) returns.")
        self._policy, self._extraction = policy, policy._search(extraction)
        self.reset(seed)

    @property
    def policy(self) -> Policy:
        """The policy that decides."""
        return self._policy

    @property
    def extraction(self) -> Extraction:
        """The search that it decides by."""
        return self._extraction

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: the rest of a chunk is dropped. The same seed and observations give the same actions.

        Raises EvorError where the seed is no non-negative int.
        """
        self._loop = VectorController(self._policy, extraction=self._extraction, seeds=arguments.seeds(seed, 1))
        self._chunk: list[np.ndarray] = []

    def act(self, observation: Float[np.ndarray, " O"] | Observation) -> Float[np.ndarray, " A"]:
        """The action [A] of this step: the next one of the chunk, or the first of a new decision.

        Raises EvorError on an observation that is not [O] or not finite, at every step.
        """
        width = self._policy.spec.observation_dim
        row = arguments.array(observation=flat_observation(observation, self._policy.observation_keys))
        if row.shape != (width,):
            raise EvorError(
                f"observation has shape {list(row.shape)}; a controller drives one robot: [{width}] is needed."
            )
        if not self._chunk:
            given = None
            if isinstance(observation, Mapping):
                given = with_leading_axis(with_arrays(observation, self._policy.observation_keys))
            self._chunk = list(self._loop.decide([0], row[None], given=given)[0])
        return self._chunk.pop(0)


@jax.jit
def _fold(keys: Key[Array, " L"], rows: Int[np.ndarray, " B"], *, decisions: Int[np.ndarray, " B"]) -> Key[Array, " B"]:
    """The keys of these loops for their next decisions."""
    return jax.vmap(jax.random.fold_in)(keys[rows], decisions)
