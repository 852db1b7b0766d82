"""Costs of the cells of a reproduction: seconds per update and per evaluation, hours, and peak memory. Imports no JAX."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evor.experiments.reproduce.scores import ResultRow, Results


class Cost(NamedTuple):
    """Cost of one cell."""

    update: float  # seconds
    evaluation: float  # seconds
    peak_mib: float
    hours: float
    whole: bool  # all of it was timed


def costs(results: Results) -> list[str]:
    """Costs of cells: of training, and of evaluation by the agent's own search."""
    cells: dict[tuple[str, str], dict[str, list[ResultRow]]] = defaultdict(lambda: defaultdict(list))
    for row in results.times:
        dataset, agent, rest = row["cell"]
        cells[dataset, agent][rest].append(row)
    lines, total = [], 0.0
    for (dataset, agent), by_name in sorted(cells.items()):
        scored = results.scored(dataset, agent)
        mine = [_cost(name, rows, scored=scored) for name, rows in by_name.items()]
        update, evaluation, peak = np.median([(c.update, c.evaluation, c.peak_mib) for c in mine], axis=0)
        whole = [cost.hours for cost in mine if cost.whole]
        total += sum(cost.hours for cost in mine)
        took = f"{np.median(whole):.2f}" if whole else "not whole"
        lines.append(
            f"| {dataset} | {agent} | {len(mine)}, {len(whole)} | {update:.4f} | {evaluation:.0f} | {took} | {peak:.0f} |"
        )
    head = [
        "\n## Cost\n",
        "A cell is one run with all its tasks. Numbers are medians over cells, one to two of which ran at a time. An evaluation is of "
        "all the cell's tasks and seeds. An update has its share of a base policy that was trained first, and of its draws. Hours are "
        "those of training and playing, as timed where they ran. They are those of cells "
        'that were played whole. "not whole": of some evaluation there is no time.\n',
        "| dataset | agent | cells begun, whole | s per update | s per evaluation | hours per whole cell | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *lines, f"\nIn total: {total:.1f} process-hours."] if lines else []


def _cost(name: str, rows: list[ResultRow], *, scored: Sequence[int]) -> Cost:
    """Cost of the cell `tasks12-seed0`, evaluated after the `scored` updates."""
    tasks, _, seeds = name.removeprefix("tasks").partition("-seed")
    played: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        updates, search = row["evaluation"]
        played[updates][search].append(row["seconds"])
    own = next(iter(played[min(played)]))  # other searches play the last checkpoint alone
    evaluations = {updates: sum(searches[own]) for updates, searches in played.items()}
    update = float(np.nanmedian([row["seconds_per_update"] for row in rows]))
    complete = {len(searches[own]) for searches in played.values()} == {len(tasks) * len(seeds.split("-"))}
    return Cost(
        update=update,
        evaluation=float(np.mean(list(evaluations.values()))),
        peak_mib=max(row["peak_mib"] for row in rows),
        hours=(update * max(evaluations) + sum(evaluations.values())) / 3600,
        whole=complete and set(scored) <= set(evaluations),
    )
