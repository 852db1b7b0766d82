"""Suites of the matrices and their cells, and how each cell is trained and played."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from evor.agents.registry import AGENTS, AgentConfig, preset
from evor.errors import EvorError, at_least, nearest
from evor.experiments.reproduce.matrices import ENTRIES, FEWER_STEPS, PAPER, SORL, SPARSE, Matrix, Part
from evor.experiments.reproduce.scales import Scale
from evor.runtime.records import replace
from evor.search.extraction import Extraction, SoftmaxOf
from evor.search.readings import RandomSamples
from evor.training.config import RunConfig

PAPER_SEARCH = SoftmaxOf(32, return_temperature=1.0, action_temperature=1e-3, reading=RandomSamples(50))  # Tables 3-4


class Suite(NamedTuple):
    """Part of a matrix that one command runs."""

    name: str
    matrix: Matrix
    everyone: bool = True  # all agents, or the lead alone
    further: bool = True  # the further searches of the lead, too


SUITES = {
    suite.name: suite
    for suite in (Suite("paper", PAPER, further=False), Suite("ablations", PAPER, everyone=False), Suite("sorl", SORL))
}


def find_suite(name: str) -> Suite:
    """The suite that goes by this name. Raises EvorError where there is none."""
    if name not in SUITES:
        raise EvorError(f"there is no suite {name!r} to reproduce; {nearest(name, SUITES)}")
    return SUITES[name]


class Cell(NamedTuple):
    """One run folder of the matrix."""

    dataset: str  # as the tables call it
    tasks: tuple[int, ...]
    agent: str
    seeds: tuple[int, ...]
    longer: int = 1  # how often as many updates as the scale has

    @property
    def source(self) -> str:
        """OGBench's name of the dataset, whatever its rewards."""
        return source_of(self.dataset)

    @property
    def name(self) -> str:
        """A path below the folder of all cells."""
        tasks, seeds = "".join(map(str, self.tasks)), "-".join(map(str, self.seeds))
        return f"{self.dataset}/{self.agent}/tasks{tasks}-seed{seeds}"


def source_of(dataset: str) -> str:
    """OGBench's name of a dataset of the tables."""
    return SPARSE.get(dataset, dataset)


def cells(suite: Suite, scale: Scale, *, only: Iterable[str] = (), seeds: int | None = None) -> list[Cell]:
    """The matrix, seed by seed. `only` keeps the named datasets, agents and tasks ("task3").

    Raises EvorError on names that are not in it.
    """
    only, parts = set(only), list(suite.matrix.plan(scale).parts)
    if not suite.everyone:
        lead = suite.matrix.lead
        parts = [part._replace(agents=(lead,)) for part in parts if lead in part.agents]
    axes = [
        {part.dataset for part in parts},
        {agent for part in parts for agent in part.agents},
        {f"task{task}" for part in parts for task in part.tasks},
    ]
    matrix = f"{suite.name} at scale {scale.name}"
    if unknown := sorted(only.difference(*axes)):
        raise EvorError(f"--only {unknown[0]!r} is in no cell of {matrix}; {_hint(unknown[0], axes)}")
    datasets, agents, tasks = (axis & only or axis for axis in axes)
    count = seeds if seeds is not None else scale.seeds
    at_least(1, num_seeds=count)
    groups = [tuple(range(count))] if scale.together else [(seed,) for seed in range(count)]
    matrix_cells = [
        Cell(dataset=part.dataset, tasks=kept, agent=agent, seeds=group, longer=part.longer)
        for group in groups
        for part in parts
        for agent in part.agents
        if part.dataset in datasets
        and agent in agents
        and (kept := tuple(task for task in part.tasks if f"task{task}" in tasks))
    ]
    if not matrix_cells:
        there = _listed(part for part in parts if part.dataset in datasets)
        raise EvorError(f"--only {' '.join(sorted(only))} leaves no cell of {matrix}, which has {there}.")
    return matrix_cells


def _hint(name: str, axes: list[set[str]]) -> str:
    """Hint for a name of --only that is in no cell."""
    if name.startswith("task"):
        return f"its tasks are {', '.join(sorted(axes[2]))}"
    return nearest(name, set().union(*axes))


def _listed(parts: Iterable[Part]) -> str:
    return "; ".join(
        f"{part.dataset}, tasks {', '.join(map(str, part.tasks))}, {', '.join(part.agents)}" for part in parts
    )


# A cell's training and playing.


def run_config(cell: Cell, scale: Scale, *, data: Path, memory_gb: float | None = None) -> RunConfig:
    """The training run of a cell, under a cap on its data in memory where one is given."""
    every = cell.longer * scale.evaluate_every
    return RunConfig(
        dataset=cell.source,
        data=str(data),
        memory_gb=memory_gb,
        tasks=cell.tasks,
        sparse_rewards=cell.dataset in SPARSE,
        seed=cell.seeds[0],
        num_seeds=len(cell.seeds),
        updates=cell.longer * scale.updates,
        checkpoint_every=every,
        log_every=max(1, every // 10),
        agent=agent_config(cell.agent, scale, dataset=cell.dataset),
    )


def agent_config(agent: str, scale: Scale, *, dataset: str | None = None) -> AgentConfig:
    """An agent of the tables at the size of a scale, with its settings on a dataset.

    What standardises nothing stays at float32: the steps of bfloat16 near a return of -97 are wider than what actions
    change of it.
    """
    config = preset(ENTRIES[agent], dataset and source_of(dataset))
    return replace(
        config,
        **FEWER_STEPS.get(agent, {}),
        hidden=scale.hidden,
        learning_rate=scale.learning_rate_factor * config.learning.learning_rate,
        final_learning_rate=scale.learning_rate_factor * config.learning.final_learning_rate,
        batch_size=scale.batch_size,
        precision=scale.precision if config.standardise_observations else "float32",
    )


def search(agent: str, scale: Scale) -> Extraction:
    """The search that an agent of the tables uses."""
    if agent == "evor-paper":
        return PAPER_SEARCH
    config = agent_config(agent, scale)
    return AGENTS[type(config)].default_search(config)


def evaluations(cell: Cell, suite: Suite, *, scale: Scale) -> list[tuple[int, list[Extraction]]]:
    """Evaluations of a cell: after how many updates, and by which searches; the lead's last checkpoint also by further ones."""
    usual, matrix = search(cell.agent, scale), suite.matrix
    further = matrix.further if suite.further and cell.agent == matrix.lead else ()
    others = [extraction for extraction in further if extraction != usual]
    steps = scale.played_steps(cell.longer)
    return [(step, [usual, *(others if step == steps[-1] else ())]) for step in steps]
