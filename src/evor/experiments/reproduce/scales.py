"""Scales of a reproduction: updates and evaluations, networks and generated data. Matrices say what is run at each."""

import math
from typing import NamedTuple

from evor.errors import EvorError, nearest
from evor.experiments.reproduce.scores import SCORED
from evor.nn.ops import Precision


class Scale(NamedTuple):
    """Size at which a suite is run. Worker processes receive it pickled."""

    name: str
    seeds: int
    updates: int
    evaluate_every: int
    episodes: int
    hidden: tuple[int, ...]
    transitions: int  # of generated data
    batch_size: int = 256
    learning_rate_factor: float = 1.0  # on every agent's own
    precision: Precision = "float32"
    played: int = SCORED  # evaluations, the last ones
    together: bool = False  # the seeds of a cell as one vmapped run, for a machine with room for it
    max_episode_steps: float = math.inf  # steps after which an episode is cut

    @property
    def workers(self) -> int | None:
        """Processes on one machine, None for one per core. A GPU has two: one trains while the other plays."""
        return 2 if self.together else None

    def played_steps(self, longer: int) -> range:
        """The numbers of updates after which a cell with `longer` times as many is played."""
        every = longer * self.evaluate_every
        return range(every, longer * self.updates + 1, every)[-self.played :]


SMOKE = Scale(
    name="smoke",
    seeds=1,
    updates=30,
    evaluate_every=10,
    episodes=1,
    hidden=(32, 32),
    transitions=2000,
    batch_size=32,
    max_episode_steps=100,
)
SMALL = Scale(
    name="small",
    seeds=3,
    updates=2_000,  # its matrices have multiples
    evaluate_every=200,
    episodes=10,
    hidden=(256, 256, 256),
    transitions=300_000,
    learning_rate_factor=3.0,  # for few updates: with 1 a cube needs several times as many
    precision="bfloat16",
)
# Appendix E, with products of bfloat16.
FULL = Scale(
    name="full",
    seeds=3,
    updates=1_000_000,
    evaluate_every=100_000,
    episodes=50,
    hidden=(512, 512, 512, 512),
    transitions=1_000_000,
    precision="bfloat16",
    played=10,
    together=True,
)
# Sizes that half an hour on a GPU allows; and the cost of its precision.
FULL_300K = FULL._replace(name="full-300k", updates=300_000, evaluate_every=50_000, played=SCORED)
FULL_300K_TF32 = FULL_300K._replace(name="full-300k-tf32", precision="tensorfloat32")
SCALES = {scale.name: scale for scale in (SMOKE, SMALL, FULL, FULL_300K, FULL_300K_TF32)}


def find_scale(name: str) -> Scale:
    """The scale that goes by this name. Raises EvorError where there is none."""
    if name not in SCALES:
        raise EvorError(f"there is no --scale {name!r} to reproduce; {nearest(name, SCALES)}")
    return SCALES[name]
