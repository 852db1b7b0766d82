"""Scales of a reproduction: datasets, tasks, agents and seeds, updates and evaluations.

A new agent enters with its presets (agents/registry.py).
"""

import math
from typing import NamedTuple

from evor.agents.registry import PRESETS
from evor.errors import EvorError, nearest
from evor.experiments.reproduce.scores import SCORED
from evor.nn.ops import Precision

# Every preset is an agent of the tables, where these two go by other names.
ENTRIES = {{"default": "evor", "paper": "evor-paper"}.get(preset, preset): preset for preset in PRESETS}
EVERYTHING = tuple(ENTRIES)
SIBLINGS = ("fql", "ifql", "iql", "rebrac", "value-flows", "sorl")  # of other papers than EVOR's
PAPERS = tuple(agent for agent in ENTRIES if agent not in SIBLINGS)
CHEAP = tuple(agent for agent in PAPERS if not agent.startswith("qc-"))
PAPER_DATASETS = (
    "pointmaze-medium-navigate-v0",
    "cube-double-play-v0",
    "scene-play-v0",
    "antmaze-large-navigate-v0",
    "antmaze-large-stitch-v0",
)
ALL_TASKS = (1, 2, 3, 4, 5)


class Part(NamedTuple):
    """A block of the matrix."""

    dataset: str
    tasks: tuple[int, ...]
    agents: tuple[str, ...]


class Scale(NamedTuple):
    """Size at which a suite is run. Worker processes receive it pickled."""

    name: str
    parts: tuple[Part, ...]
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
    longer: tuple[tuple[str, int], ...] = ()  # datasets that need more updates, and how often as many
    max_episode_steps: float = math.inf  # steps after which an episode is cut
    remark: str = ""  # what a reader of its page should know

    @property
    def protocol(self) -> str:
        """Everything that makes scores comparable, in one line of results.csv."""
        width = "x".join(map(str, self.hidden))
        faster = f" at {self.learning_rate_factor:g} x the learning rate" if self.learning_rate_factor != 1 else ""
        longer = "".join(f", {factor} x both on {dataset}" for dataset, factor in self.longer)
        cut = f" cut at {self.max_episode_steps} steps" if math.isfinite(self.max_episode_steps) else ""
        raw = " (float32 where returns are not standardised)" if self.precision != "float32" else ""
        return (
            f"{self.updates} updates{faster}, nets {width} in {self.precision}{raw}, {self.episodes} episodes{cut} every "
            f"{self.evaluate_every}{longer}, last {SCORED}"
        )

    def updates_on(self, dataset: str) -> int:
        """The same for every agent."""
        return self.updates * self._factor(dataset)

    def evaluate_every_on(self, dataset: str) -> int:
        """Updates from one evaluation to the next."""
        return self.evaluate_every * self._factor(dataset)

    def played_steps_on(self, dataset: str) -> range:
        """The numbers of updates after which cells are played."""
        every = self.evaluate_every_on(dataset)
        return range(every, self.updates_on(dataset) + 1, every)[-self.played :]

    def _factor(self, dataset: str) -> int:
        return dict(self.longer).get(dataset, 1)


SMOKE = Scale(
    name="smoke",
    parts=(
        Part(dataset="pointmaze-medium-navigate-v0", tasks=(1, 2), agents=PAPERS),
        *(
            Part(dataset=dataset, tasks=(1,), agents=PAPERS)
            for dataset in (
                "antmaze-large-navigate-v0",
                "antmaze-large-stitch-v0",
                "cube-single-play-v0",
                "cube-double-play-v0",
                "scene-play-v0",
            )
        ),
        Part(dataset="cube-single-play-v0", tasks=(1,), agents=SIBLINGS),
    ),
    seeds=1,
    updates=30,
    evaluate_every=10,
    episodes=1,
    hidden=(32, 32),
    transitions=2000,
    batch_size=32,
    max_episode_steps=100,
    remark="A rehearsal of everything, in minutes. Its scores say nothing about the agents.",
)
SMALL = Scale(
    name="small",
    parts=(
        Part(dataset="pointmaze-medium-navigate-v0", tasks=ALL_TASKS, agents=CHEAP),
        Part(
            dataset="cube-single-play-v0",
            tasks=(1, 2),
            agents=(*CHEAP, *(agent for agent in SIBLINGS if agent != "value-flows")),
        ),
        Part(dataset="pointmaze-medium-navigate-v0", tasks=(1, 2), agents=("qc-1", "qc-5", *SIBLINGS)),
    ),
    seeds=3,
    updates=10_000,
    evaluate_every=1_000,
    episodes=10,
    hidden=(256, 256, 256),
    transitions=300_000,
    learning_rate_factor=3.0,  # for few updates: with 1 a cube needs several times as many
    precision="bfloat16",
    longer=(("cube-single-play-v0", 5),),  # where 10,000 updates are too few for every agent
    remark="Hours on two cores; Cost, below, says what each cell took. QC's targets take the best of 32 actions. This is expensive on "
    "a CPU, so QC plays two tasks of one maze. Agents of other papers than EVOR's play two tasks of each dataset. The targets of Value "
    "Flows solve several flows of returns, so it plays the maze alone. Acting as `evor-paper` does is expensive, too: 50 samples in "
    "float32, in episodes that fail and last to their end.",
)
# Appendix E, with products of bfloat16.
FULL = Scale(
    name="full",
    parts=tuple(Part(dataset=dataset, tasks=ALL_TASKS, agents=EVERYTHING) for dataset in PAPER_DATASETS),
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
FULL_300K_TF32 = FULL_300K._replace(
    name="full-300k-tf32",
    parts=(Part(dataset="pointmaze-medium-navigate-v0", tasks=ALL_TASKS, agents=("evor",)),),
    precision="tensorfloat32",
)
SCALES = {scale.name: scale for scale in (SMOKE, SMALL, FULL, FULL_300K, FULL_300K_TF32)}


def find_scale(name: str) -> Scale:
    """The scale that goes by this name. Raises EvorError where there is none."""
    if name not in SCALES:
        raise EvorError(f"there is no --scale {name!r} to reproduce; {nearest(name, SCALES)}")
    return SCALES[name]
