"""Success by dataset and task, beside the published numbers; a labelled place for every cell that has no score. Imports no JAX."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from evor.experiments.reproduce import published
from evor.experiments.reproduce.scores import ByAgent, Results, means_by_seed, read_reproduction, told_episodes
from evor.report.statistics import bold


def dataset_tables(results: Results) -> list[str]:
    """One table per dataset of the matrix, with a labelled place for every cell that has no score."""
    scores = results.scores()
    last, spread = results.scores(lambda curve: curve[-1]), results.scores(lambda curve: max(curve) - min(curve))
    parts = []
    for dataset in dict.fromkeys([cell["dataset"] for cell in results.manifest["cells"]] + list(scores)):
        by_agent = scores.get(dataset, {})
        further = {
            "of the last evaluation alone": last.get(dataset, {}),
            "range over the evaluations": spread.get(dataset, {}),
        }
        parts += _dataset_table(dataset, results, by_agent=by_agent, further=further)
        counts = ", ".join(f"{agent} {_span(map(len, by_task.values()))}" for agent, by_task in by_agent.items())
        parts.append(f"\nSeeds of a task: {counts or 'none yet'}.")
        if short := _short(dataset, by_agent, manifest=results.manifest):
            parts.append(f"\nScores that are not there: {', '.join(short)}.")
        for name, why in results.manifest["notes"].items():
            folder, cell = name.split("/", 1)
            if folder == dataset:
                parts.append(f"\n{cell.replace('/', ', ')}: {why.rstrip('.')}.")
    return parts


def _short(dataset: str, by_agent: ByAgent, *, manifest: dict[str, Any]) -> list[str]:
    """`qc-1 2 of 6` for every agent that lacks scores."""
    wanted: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for cell in manifest["cells"]:
        if cell["dataset"] == dataset:
            wanted[cell["agent"]] |= set(itertools.product(cell["tasks"], cell["seeds"]))
    there = {agent: {(t, s) for t, seeds in tasks.items() for s in seeds} for agent, tasks in by_agent.items()}
    missing = {agent: len(pairs - there.get(agent, set())) for agent, pairs in wanted.items()}
    return [f"{agent} {count} of {len(wanted[agent])}" for agent, count in missing.items() if count]


def _dataset_table(dataset: str, results: Results, *, by_agent: ByAgent, further: dict[str, ByAgent]) -> list[str]:
    """Tasks and their means, below each mean its `further` readings, beside the published numbers."""
    mine = [cell for cell in results.manifest["cells"] if cell["dataset"] == dataset]
    rows = [row for row in results.rows if row["dataset"] == dataset]
    agents = list(dict.fromkeys([cell["agent"] for cell in mine] + list(by_agent)))
    begun = {(row["agent"], row["task"]) for row in rows}
    wanted = {(cell["agent"], task) for cell in mine for task in cell["tasks"]}
    tasks = sorted({task for _, task in wanted} | {task for by_task in by_agent.values() for task in by_task})
    theirs = published.heads(dataset, tasks)
    data = "; ".join(sorted({row["data"] for row in rows})) or "none yet"
    fewer = results.fewer(dataset)
    scored = ", ".join(map(str, results.manifest["scored"].get(dataset, ())))
    scored += "".join(f" ({agent}: {', '.join(map(str, results.scored(dataset, agent)))})" for agent in fewer)
    parts = [f"\n## {dataset}\n", f"Ours: {data}; {told_episodes(rows)} after each of {scored} updates."]
    parts[-1] += (
        f" Published: {published.conditions(dataset, list(theirs)) or 'the papers have no results on these tasks'}."
    )
    if set(tasks) != {1, 2, 3, 4, 5} and (elsewhere := published.over_five(dataset)):
        parts[-1] += f" Over all five tasks of official data: {elsewhere}."
    heads = [*(f"{agent}, {fewer[agent]} updates" if agent in fewer else agent for agent in agents), *theirs.values()]
    parts += ["", f"| task | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for task in tasks:
        cells = _cells(means_by_seed(by_agent, [task]), _labels(agents, [task], wanted=wanted, begun=begun))
        cells += [published.task(dataset, task, agent=agent) or "" for agent in theirs]
        parts.append(f"| {task} | {' | '.join(cells)} |")
    for label, chosen in _means(by_agent, tasks).items():
        cells = _cells(means_by_seed(by_agent, chosen), _labels(agents, chosen, wanted=wanted, begun=begun))
        same = set(chosen) == {1, 2, 3, 4, 5}
        cells += [(published.overall(dataset, agent) or "") if same else "" for agent in theirs]
        parts.append(f"| **{label}** | {' | '.join(cells)} |")
        for name, other in further.items():
            values = means_by_seed(other, chosen)
            cells = [f"{100 * values[agent].mean():.0f}" if agent in values else "" for agent in agents]
            parts.append(f"| {name} | {' | '.join([*cells, *('' for _ in theirs)])} |")
    return parts


def _labels(
    agents: list[str], tasks: Iterable[int], *, wanted: set[tuple[str, int]], begun: set[tuple[str, int]]
) -> dict[str, str]:
    """Labels in place of an agent's score, for all these tasks."""
    texts = {}
    for agent in agents:
        pairs = {(agent, task) for task in tasks}
        texts[agent] = "not at this scale" if not pairs <= wanted else "unfinished" if pairs & begun else "not run"
    return texts


def _span(counts: Iterable[int]) -> str:
    """`3`, or `1 to 3`."""
    distinct = sorted(set(counts))
    return " to ".join(map(str, dict.fromkeys((distinct[0], distinct[-1]))))


def _means(by_agent: ByAgent, tasks: list[int]) -> dict[str, tuple[int, ...]]:
    """The mean over all tasks, and over those that every agent with a score has played where these are fewer."""
    means = {"mean": tuple(tasks)}
    if by_agent:
        common = tuple(sorted(set.intersection(*(set(by_task) for by_task in by_agent.values()))))
        if common and common != tuple(tasks):
            means[f"mean of {', '.join(map(str, common))}"] = common
    return means


def _cells(successes: dict[str, np.ndarray], labels: dict[str, str]) -> list[str]:
    """`97 ± 3` or `97 (1 seed)` for every agent, in bold where it is near the best, its label where there is no score."""
    best = bold({agent: float(values.mean()) for agent, values in successes.items()})
    cells = []
    for agent, label in labels.items():
        if agent not in successes:
            cells.append(label)
            continue
        values = 100 * successes[agent]
        spread = f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else " (1 seed)"
        cells.append(f"**{values.mean():.0f}**{spread}" if agent in best else f"{values.mean():.0f}{spread}")
    return cells


def summary(out: Path) -> list[str]:
    """Lines of a table for README: mean success over an agent's tasks by dataset, with the number of seeds."""
    results = read_reproduction(out)
    rows, manifest, scores = results.rows, results.manifest, results.scores()
    agents = list(dict.fromkeys(cell["agent"] for cell in manifest["cells"]))
    lines = [f"| dataset, tasks | {' | '.join(agents)} |", "| --- |" + " --- |" * len(agents)]
    for dataset, by_agent in scores.items():
        wanted: dict[str, set[int]] = defaultdict(set)
        for cell in manifest["cells"]:
            if cell["dataset"] == dataset:
                wanted[cell["agent"]] |= set(cell["tasks"])
        begun = {row["agent"] for row in rows if row["dataset"] == dataset}
        for tasks in sorted({tuple(by_task) for by_task in by_agent.values()}, reverse=True):
            labels = {agent: "unfinished" if agent in begun else "not run" for agent in agents}
            labels |= {agent: "not at this scale" for agent in agents if not set(tasks) <= wanted[agent]}
            successes = means_by_seed(by_agent, tasks)
            fewer = results.fewer(dataset)
            cells = [
                f"{told} ({len(successes[agent])} seeds)" if agent in successes and len(successes[agent]) > 1 else told
                for agent, told in zip(agents, _cells(successes, labels), strict=True)
            ]
            cells = [
                f"{told}, {fewer[agent]} updates" if agent in fewer and agent in successes else told
                for agent, told in zip(agents, cells, strict=True)
            ]
            lines.append(f"| {dataset}, {', '.join(map(str, tasks))} | {' | '.join(cells)} |")
    return lines
