"""All steps that a learner made, from which minibatches are drawn."""

import numpy as np

from evor.imitation.learning import Rows


class Replay:
    """All steps of the learner, in the order in which they were made."""

    def __init__(self, capacity: int, *, observation: int, action: int):
        self.rows = np.zeros((capacity, 2 * observation + action + 2), np.float32)
        self.size = 0
        self._widths = observation, action

    def add(self, rows: Rows) -> None:
        """Append steps."""
        joined = np.concatenate([*rows[:3], rows.reward[:, None], rows.terminated[:, None]], axis=1)
        self.rows[self.size : self.size + len(joined)] = joined
        self.size += len(joined)

    def batches(self, number: int, size: int, *, generator: np.random.Generator) -> Rows:
        """So many batches, drawn evenly with replacement."""
        observation, action = self._widths
        drawn = self.rows[generator.integers(0, self.size, (number, size))]
        first, second, third = np.split(drawn[..., :-2], (observation, observation + action), axis=-1)
        return Rows(first, second, third, drawn[..., -2], drawn[..., -1] > 0)
