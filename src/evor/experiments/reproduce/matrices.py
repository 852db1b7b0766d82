"""Matrices, each run into a folder of its own: agents on datasets at each scale, and further searches of one agent.

A new agent enters with its presets (agents/registry.py).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from evor.agents.registry import AGENTS, PRESETS
from evor.errors import EvorError
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import SCORED
from evor.search.extraction import Extraction, SoftmaxOf

# Every preset is an agent of the tables, where these two go by other names.
EVERYTHING = {{"default": "evor", "paper": "evor-paper"}.get(preset, preset): preset for preset in PRESETS}
# SORL whose gradient passes through fewer steps.
FEWER_STEPS: dict[str, dict[str, Any]] = {f"sorl-{steps}": {"trained_steps": steps} for steps in (1, 2, 4)}
ENTRIES = EVERYTHING | dict.fromkeys(FEWER_STEPS, "sorl")  # agents of the tables, each with its preset
SIBLINGS = ("fql", "ifql", "iql", "rebrac", "value-flows", "sorl")  # of other papers than EVOR's
PAPERS = tuple(agent for agent in EVERYTHING if agent not in SIBLINGS)
CHEAP = tuple(agent for agent in PAPERS if not agent.startswith("qc-"))
EXPENSIVE = ("qc-1", "qc-5", "value-flows")  # one update takes as long as ten to twenty of the others
ALL_TASKS = (1, 2, 3, 4, 5)


class Part(NamedTuple):
    """A block of a matrix."""

    dataset: str
    tasks: tuple[int, ...]
    agents: tuple[str, ...]
    longer: int = 1  # how often as many updates as the scale has


class Plan(NamedTuple):
    """A matrix at one scale."""

    parts: tuple[Part, ...]
    remark: str = ""  # what a reader of its page should know


class Matrix(NamedTuple):
    """All that is run into one folder."""

    name: str  # in rows of agents that act by their own search
    plans: dict[str, Plan]  # by the names of scales
    lead: str  # the agent that the others are compared with, and whose last checkpoint is played by further searches
    further: tuple[Extraction, ...]
    label: str  # in rows of the further searches

    def plan(self, scale: Scale) -> Plan:
        """Plan of a scale. Raises EvorError where the matrix is not made for it."""
        if scale.name not in self.plans:
            known = ", ".join(self.plans)
            raise EvorError(f"--scale {scale.name} has no matrix of {self.name}; give one of {known}.")
        return self.plans[scale.name]


def protocol(matrix: Matrix, scale: Scale) -> str:
    """Everything that makes scores comparable, in one line of results.csv.

    Updates are those of most agents of a dataset: rows tell their own.
    """
    factors: dict[str, int] = {}
    for part in matrix.plan(scale).parts:
        factors[part.dataset] = max(part.longer, factors.get(part.dataset, 1))
    common = min(factors.values())
    width = "x".join(map(str, scale.hidden))
    faster = f" at {scale.learning_rate_factor:g} x the learning rate" if scale.learning_rate_factor != 1 else ""
    longer = "".join(
        f", {factor // common} x both on {dataset}" for dataset, factor in factors.items() if factor != common
    )
    cut = f" cut at {scale.max_episode_steps} steps" if math.isfinite(scale.max_episode_steps) else ""
    raw = " (float32 where returns are not standardised)" if scale.precision != "float32" else ""
    return (
        f"{common * scale.updates} updates{faster}, nets {width} in {scale.precision}{raw}, {scale.episodes} episodes{cut} "
        f"every {common * scale.evaluate_every}{longer}, last {SCORED}"
    )


# EVOR's.

# Datasets of the tables whose rewards are OGBench's sparse ones, -1 until everything is done; and whose files these are.
SPARSE = {"scene-play-sparse-v0": "scene-play-v0"}
PAPER_DATASETS = (
    "pointmaze-medium-navigate-v0",
    "cube-double-play-v0",
    *SPARSE,
    "scene-play-v0",
    "antmaze-large-navigate-v0",
    "antmaze-large-stitch-v0",
)
MAZE, CUBE = "pointmaze-medium-navigate-v0", "cube-single-play-v0"
FIRST, OTHERS = PAPER_DATASETS[:2], PAPER_DATASETS[2:]
# What comes first where the time may end at any cell. All other agents follow.
ROUNDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (FIRST, ("evor",)),
    (FIRST, ("evor-paper",)),
    (FIRST, ("qc-5", "qc-1")),
    (OTHERS, ("evor",)),
    (FIRST, ("sorl", "fql", "rebrac")),
)


def _in_rounds() -> Iterator[Part]:
    """Every agent on every dataset, ordered."""
    for datasets, agents in ROUNDS:
        yield from (Part(dataset, ALL_TASKS, agents) for dataset in datasets)
    for dataset in PAPER_DATASETS:
        earlier = {agent for datasets, agents in ROUNDS if dataset in datasets for agent in agents}
        yield Part(dataset, ALL_TASKS, tuple(agent for agent in EVERYTHING if agent not in earlier))


FULL_PLAN = Plan(tuple(_in_rounds()))
PAPER = Matrix(
    name="paper",
    lead="evor",
    plans={
        "smoke": Plan(
            (
                Part(MAZE, (1, 2), PAPERS),
                *(Part(dataset, (1,), PAPERS) for dataset in ("antmaze-large-navigate-v0", "antmaze-large-stitch-v0")),
                Part(CUBE, (1,), (*PAPERS, *SIBLINGS)),
                *(Part(dataset, (1,), PAPERS) for dataset in ("cube-double-play-v0", "scene-play-v0")),
                *(Part(dataset, (1,), ("evor",)) for dataset in SPARSE),
            ),
            "A rehearsal of everything, in minutes. Its scores say nothing about the agents.",
        ),
        "small": Plan(
            (
                Part(MAZE, ALL_TASKS, tuple(agent for agent in EVERYTHING if agent not in EXPENSIVE), longer=5),
                # where 10,000 updates are too few for every agent
                Part(CUBE, (1, 2), (*CHEAP, *(agent for agent in SIBLINGS if agent not in EXPENSIVE)), longer=25),
                Part(CUBE, (1, 2), ("value-flows",), longer=5),
                Part(MAZE, ALL_TASKS, EXPENSIVE),
            ),
            "Hours on two cores; Cost, below, says what each cell took. QC's targets take the best of 32 actions, and those of "
            "Value Flows solve several flows of returns. This is expensive on a CPU, so these agents make a fifth of the "
            "others' updates, and QC plays the maze alone. Acting as `evor-paper` does is expensive, too: 50 samples in "
            "float32, in episodes that fail and last to their end.",
        ),
        "full": FULL_PLAN,
        "full-300k": FULL_PLAN,
        "full-300k-tf32": Plan((Part(MAZE, ALL_TASKS, ("evor",)),)),
    },
    # Figures 1-5: around the paper's search, which is not the default.
    further=(
        *(SoftmaxOf(2**power, return_temperature=1.0, action_temperature=1e-3) for power in range(8)),
        *(
            SoftmaxOf(32, return_temperature=temperature, action_temperature=1e-3)
            for temperature in (0.0, 0.1, 0.3, 3.0, 10.0, math.inf)
        ),
        *(
            SoftmaxOf(32, return_temperature=1.0, action_temperature=temperature)
            for temperature in (0.0, 1e-2, 1e-1, 1.0, 10.0, math.inf)
        ),
    ),
    label="ablations",
)

# SORL's.

DEFAULT_TASKS = {  # of OGBench's names NAME-singletask-v0
    "antmaze-large-navigate-v0": 1,
    "antmaze-giant-navigate-v0": 1,
    "humanoidmaze-medium-navigate-v0": 1,
    "humanoidmaze-large-navigate-v0": 1,
    "antsoccer-arena-navigate-v0": 4,
    "cube-single-play-v0": 2,
    "cube-double-play-v0": 2,
    "scene-play-v0": 2,
}
FIELD = ("sorl", "fql", "ifql", "iql", "rebrac", "bc", "evor")
SORL_FULL = Plan(
    (
        *(Part(dataset, ALL_TASKS, FIELD) for dataset in DEFAULT_TASKS),
        *(Part(dataset, ALL_TASKS, tuple(FEWER_STEPS)) for dataset in ("antmaze-large-navigate-v0", CUBE)),
    ),
    "SORL's paper has eight seeds.",
)
SORL_SEARCH = AGENTS[type(PRESETS["sorl"])].default_search(PRESETS["sorl"])
SORL = Matrix(
    name="sorl",
    lead="sorl",
    plans={
        "smoke": Plan(
            (
                *(Part(dataset, (task,), ("sorl",)) for dataset, task in DEFAULT_TASKS.items()),
                Part(CUBE, (2,), (*FIELD[1:], *FEWER_STEPS)),
            ),
            "A rehearsal of everything, in minutes. Its scores say nothing about the agents.",
        ),
        "small": Plan(
            (
                *(Part(dataset, (task,), FIELD, longer=25) for dataset, task in DEFAULT_TASKS.items()),
                Part(CUBE, (2,), tuple(FEWER_STEPS), longer=25),
            ),
            "Of each environment its default task alone, with small networks and few updates: a day on two cores for each "
            "dataset that can be generated. Give --only to choose.",
        ),
        "full": SORL_FULL,
        "full-300k": SORL_FULL,
    },
    # Test-time scaling: sequential by flow steps, parallel by candidates.
    further=tuple(
        dataclasses.replace(SORL_SEARCH, num_candidates=count, flow_steps=steps)
        for steps in (1, 2, 4, 8)
        for count in (1, 2, 4, 8, 16, 32)
    ),
    label="scaling",
)
