"""What a control loop holds: a policy, its search, and the rest of the chunk that is being played."""

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError
from evor.policies.policy import Policy
from evor.runtime import arguments
from evor.search.extraction import Extraction


class Controller:
    """Acts step by step: every decision draws a seed of its own, and a chunk is played to its end.

    One controller drives one robot or environment:

        controller = Controller(evor.load("robot"), extraction=evor.SoftmaxOf(32))
        controller.reset(seed=0)
        while True:
            action = controller.act(observation)
    """

    def __init__(self, policy: Policy, *, extraction: Extraction | None = None, seed: int = 0):
        self.policy = policy
        self.extraction = extraction
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: the rest of a chunk is dropped. The same seed and observations give the same actions.

        Raises EvorError where the seed is no non-negative int.
        """
        (self._seed,) = map(int, arguments.seeds(seed, 1))
        self._decided = 0
        self._chunk: list[np.ndarray] = []

    def act(self, observation: Float[np.ndarray, " O"]) -> Float[np.ndarray, " A"]:
        """The action [A] of this step: the next one of the chunk, or the first of a new decision.

        Raises EvorError on an observation that is not [O] or not finite, at every step.
        """
        width = self.policy.spec.observation_dim
        row = arguments.array(observation=observation)
        if row.shape != (width,):
            raise EvorError(
                f"observation has shape {list(row.shape)}; a controller drives one robot: [{width}] is needed."
            )
        if not self._chunk:
            seed = np.random.SeedSequence([self._seed, self._decided]).generate_state(1)
            decided = self.policy.act(row, int(seed[0]), self.extraction)
            self._chunk = list(decided.reshape(-1, self.policy.spec.action_dim))
            self._decided += 1
        return self._chunk.pop(0)
