"""The matrix of the paper's experiment: its agents, scales and cells, and how each cell is trained and played.

A new agent enters with its presets (see config.py).
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from evor.agents.registry import AGENTS, PRESETS, AgentConfig
from evor.errors import EvorError, at_least, nearest
from evor.experiments.reproduce.scores import SCORED
from evor.nn.ops import Precision
from evor.runtime.records import replace
from evor.search.extraction import Extraction, SoftmaxOf
from evor.search.readings import RandomSamples
from evor.training.config import RunConfig

# Every preset is an agent of the tables, where these two go by other names.
ENTRIES = {{"default": "evor", "paper": "evor-paper"}.get(preset, preset): preset for preset in PRESETS}
PAPER_SEARCH = SoftmaxOf(32, 1.0, 1e-3, RandomSamples(50))  # Tables 3-4
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
    """How large a suite is run."""

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
    longer: Mapping[str, int] = MappingProxyType({})  # how often as many updates on data sets that need more
    max_episode_steps: float = math.inf  # steps after which an episode is cut
    remark: str = ""  # what a reader of its page should know

    def updates_on(self, dataset: str) -> int:
        """The same for every agent."""
        return self.updates * self.longer.get(dataset, 1)

    def evaluate_every_on(self, dataset: str) -> int:
        return self.evaluate_every * self.longer.get(dataset, 1)


EVERYTHING = tuple(ENTRIES)
CHEAP = tuple(agent for agent in ENTRIES if not agent.startswith("qc-"))
FULL = Scale(
    tuple(Part(dataset, ALL_TASKS, EVERYTHING) for dataset in PAPER_DATASETS),
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
FULL_300K = FULL._replace(updates=300_000, evaluate_every=50_000, played=SCORED)
SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (
            Part("pointmaze-medium-navigate-v0", (1, 2), EVERYTHING),
            *(
                Part(dataset, (1,), EVERYTHING)
                for dataset in (
                    "antmaze-large-navigate-v0",
                    "antmaze-large-stitch-v0",
                    "cube-single-play-v0",
                    "cube-double-play-v0",
                    "scene-play-v0",
                )
            ),
        ),
        seeds=1,
        updates=30,
        evaluate_every=10,
        episodes=1,
        hidden=(32, 32),
        transitions=2000,
        batch_size=32,
        max_episode_steps=100,
        remark="A test of the plumbing, in minutes: its scores say nothing of the agents.",
    ),
    "small": Scale(
        (
            Part("pointmaze-medium-navigate-v0", ALL_TASKS, CHEAP),
            Part("cube-single-play-v0", (1, 2), CHEAP),
            Part("pointmaze-medium-navigate-v0", (1, 2), ("qc-1", "qc-5")),
        ),
        seeds=3,
        updates=10_000,
        evaluate_every=1_000,
        episodes=10,
        hidden=(256, 256, 256),
        transitions=300_000,
        learning_rate_factor=3.0,  # for few updates: with 1 a cube needs several times as many
        precision="bfloat16",
        longer={"cube-single-play-v0": 5},  # where 10,000 updates teach nobody anything
        remark="Hours on two cores; what each cell took is under Cost. The best of 32 in QC's targets is dear on a CPU: two "
        "tasks of one maze. So is acting by the paper's 50 samples in float32, in episodes that fail and last to their end.",
    ),
    # Appendix E, with products of bfloat16.
    "full": FULL,
    # What half an hour on a card allows; and what its precision costs.
    "full-300k": FULL_300K,
    "full-300k-tf32": FULL_300K._replace(
        parts=(Part("pointmaze-medium-navigate-v0", ALL_TASKS, ("evor",)),), precision="tensorfloat32"
    ),
}
SUITES: dict[str, tuple[Extraction, ...]] = {
    "paper": (),
    # Figures 1-5: the last checkpoint of `evor` under other searches.
    "ablations": (
        *(SoftmaxOf(2**power) for power in range(8)),
        *(SoftmaxOf(32, temperature) for temperature in (0.0, 0.1, 0.3, 3.0, 10.0, math.inf)),
        *(SoftmaxOf(32, 1.0, temperature) for temperature in (0.0, 1e-2, 1e-1, 1.0, 10.0, math.inf)),
    ),
}


class Cell(NamedTuple):
    """One run folder of the matrix."""

    dataset: str
    tasks: tuple[int, ...]
    agent: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        tasks, seeds = "".join(map(str, self.tasks)), "-".join(map(str, self.seeds))
        return f"{self.dataset}/{self.agent}/tasks{tasks}-seed{seeds}"


def cells(suite: str, scale: str, only: Iterable[str] = (), seeds: int | None = None) -> list[Cell]:
    """The matrix, seed by seed. `only` keeps the named data sets, agents and tasks ("task3").

    Raises EvorError on names that are not in it.
    """
    for what, name, known in (("suite", suite, SUITES), ("--scale", scale, SCALES)):
        if name not in known:
            raise EvorError(f"there is no {what} {name!r} to reproduce; {nearest(name, known)}")
    size, only = SCALES[scale], set(only)
    parts = list(size.parts)
    if SUITES[suite]:
        parts = [part._replace(agents=("evor",)) for part in parts if "evor" in part.agents]
    axes = [
        {part.dataset for part in parts},
        {agent for part in parts for agent in part.agents},
        {f"task{task}" for part in parts for task in part.tasks},
    ]
    if unknown := sorted(only.difference(*axes)):
        name = unknown[0]
        hint = (
            f"its tasks are {', '.join(sorted(axes[2]))}"
            if name.startswith("task")
            else nearest(name, set().union(*axes))
        )
        raise EvorError(f"--only {name!r} is in no cell of {suite} at scale {scale}; {hint}")
    datasets, agents, tasks = (axis & only or axis for axis in axes)
    count = seeds if seeds is not None else size.seeds
    at_least(1, seeds=count)
    groups = [tuple(range(count))] if size.together else [(seed,) for seed in range(count)]
    found = [
        Cell(part.dataset, kept, agent, group)
        for group in groups
        for part in parts
        for agent in part.agents
        if part.dataset in datasets
        and agent in agents
        and (kept := tuple(task for task in part.tasks if f"task{task}" in tasks))
    ]
    if not found:
        there = "; ".join(
            f"{part.dataset}, tasks {', '.join(map(str, part.tasks))}, {', '.join(part.agents)}"
            for part in parts
            if part.dataset in datasets
        )
        raise EvorError(
            f"--only {' '.join(sorted(only))} leaves no cell of {suite} at scale {scale}, which has {there}."
        )
    return found


# A cell's training and playing.


def protocol(scale: str) -> str:
    """What makes scores comparable, in one line of results.csv."""
    size = SCALES[scale]
    width = "x".join(map(str, size.hidden))
    faster = f" at {size.learning_rate_factor:g} x the learning rate" if size.learning_rate_factor != 1 else ""
    longer = "".join(f", {factor} x both on {dataset}" for dataset, factor in size.longer.items())
    cut = f" cut at {size.max_episode_steps} steps" if math.isfinite(size.max_episode_steps) else ""
    raw = " (float32 where returns are not standardised)" if size.precision != "float32" else ""
    return (
        f"{size.updates} updates{faster}, nets {width} in {size.precision}{raw}, {size.episodes} episodes{cut} every "
        f"{size.evaluate_every}{longer}, last {SCORED}"
    )


def run_config(cell: Cell, scale: str, data: Path, memory_gb: float | None = None) -> RunConfig:
    """The training run of a cell, under a cap on its data in memory where one is given."""
    every = SCALES[scale].evaluate_every_on(cell.dataset)
    return RunConfig(
        dataset=cell.dataset,
        data=str(data),
        memory_gb=memory_gb,
        tasks=cell.tasks,
        seed=cell.seeds[0],
        seeds=len(cell.seeds),
        steps=SCALES[scale].updates_on(cell.dataset),
        checkpoint_every=every,
        log_every=max(1, every // 10),
        agent=agent_config(cell.agent, scale),
    )


def agent_config(agent: str, scale: str) -> AgentConfig:
    """An agent of the tables at the size of a scale.

    What standardises nothing stays at float32: the steps of bfloat16 near a return of -97 are wider than what actions
    change of it.
    """
    size, preset = SCALES[scale], PRESETS[ENTRIES[agent]]
    return replace(
        preset,
        hidden=size.hidden,
        learning_rate=size.learning_rate_factor * preset.learning.learning_rate,
        final_learning_rate=size.learning_rate_factor * preset.learning.final_learning_rate,
        batch_size=size.batch_size,
        precision=size.precision if preset.standardise_observations else "float32",
    )


def search(agent: str, scale: str) -> Extraction:
    """How an agent of the tables acts."""
    if agent == "evor-paper":
        return PAPER_SEARCH
    config = agent_config(agent, scale)
    return AGENTS[type(config)].default_search(config)


def evaluations(cell: Cell, suite: str, scale: str) -> list[tuple[int, list[Extraction]]]:
    """After how many updates a cell is played, and how; the last checkpoint also under the suite's other searches."""
    usual = search(cell.agent, scale)
    others = [extraction for extraction in SUITES[suite] if extraction != usual]
    steps = played_steps(cell.dataset, scale)
    return [(step, [usual, *(others if step == steps[-1] else ())]) for step in steps]


def played_steps(dataset: str, scale: str) -> range:
    """The numbers of updates after which cells are played."""
    size = SCALES[scale]
    every = size.evaluate_every_on(dataset)
    return range(every, size.updates_on(dataset) + 1, every)[-size.played :]
