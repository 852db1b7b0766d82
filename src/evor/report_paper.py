"""results.csv of a reproduction -> the paper's tables and figures, with intervals. Imports no JAX."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor import published
from evor.errors import EvorError
from evor.files import read_json, write_text
from evor.report_ablations import dial_figures
from evor.statistics import (
    bold,
    estimate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from evor.style import ACCENT, save_figure

Row = dict[str, Any]
COMPARABLE = {  # where these differ, among rows that share the columns behind them, nothing is averaged
    **dict.fromkeys(("ogbench", "mujoco", "reward_rule", "protocol"), ()),
    "data": ("dataset",),
    "recipe": ("dataset", "agent"),
}
SCORED = 3  # last evaluations that make the score
THRESHOLDS = np.linspace(0, 1, 101)[:-1]


def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    rows = read_results(out / "results.csv")
    if not rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    manifest = read_json(out / "manifest.json", "scored", "cells", "notes")
    scores = score_table(rows, manifest["scored"])
    parts = [
        _head(rows),
        *_dataset_tables(scores, rows, manifest),
        *_aggregates(scores, out),
        *dial_figures(rows, out),
        _costs(out),
    ]
    path = out / "results.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def read_results(path: Path) -> list[Row]:
    """Rows with their numbers parsed. Raises EvorError where rows must not be averaged."""
    try:
        with open(path, newline="") as file:
            rows = [
                row
                | {name: int(row[name]) for name in ("task", "seed", "updates")}
                | {"success": float(row["success"])}
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise EvorError(f"{path} is damaged ({error!r}); restore it or start anew with another --out.") from error
    check_comparable(rows, path)
    return rows


def check_comparable(rows: Iterable[Row], path: Path) -> None:
    """Raise EvorError where rows of the file at `path` must not be averaged."""
    for name, within in COMPARABLE.items():
        kinds: dict[tuple, set[Any]] = defaultdict(set)
        for row in rows:
            kinds[tuple(row[column] for column in within)].add(row[name])
        for group, found in kinds.items():
            if len(found) > 1:
                place = f" of {', '.join(group)}" if group else ""
                raise EvorError(
                    f"{path}: rows{place} differ in {name} ({' | '.join(sorted(found))}) and can't be averaged; remove the "
                    "rows of one kind, and their folders below cells/."
                )


Scores = dict[str, dict[str, dict[int, dict[int, float]]]]  # data set -> agent -> task -> seed -> success


def score_table(rows: list[Row], scored: dict[str, Sequence[int]]) -> Scores:
    """Mean success after a data set's `scored` updates, of every task and seed that was played after all of them."""
    curves: dict[tuple, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["suite"] == "paper":
            curve, updates = curves[row["dataset"], row["agent"], row["task"], row["seed"]], row["updates"]
            if updates in curve:
                raise EvorError(
                    f"{row['agent']} on {row['dataset']}, task {row['task']}, seed {row['seed']} was played twice after "
                    f"{updates} updates; keep the rows of one search."
                )
            curve[updates] = row["success"]
    found: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for (dataset, agent, task, seed), curve in sorted(curves.items()):
        if set(scored[dataset]) <= set(curve):
            found[dataset][agent][task][seed] = float(np.mean([curve[updates] for updates in scored[dataset]]))
    return found


def square(by_task: dict[Any, dict[int, float]], tasks: Iterable[Any]) -> np.ndarray:
    """[T, S] of the seeds that every task has."""
    tasks = list(tasks)
    seeds = sorted(set.intersection(*(set(by_task[task]) for task in tasks)))
    return np.array([[by_task[task][seed] for seed in seeds] for task in tasks])


def means_by_seed(by_agent: dict[str, dict[int, dict[int, float]]], tasks: Sequence[int]) -> dict[str, np.ndarray]:
    """Mean over the tasks [S], of every agent that has played them all with a seed."""
    tables = {agent: square(found, tasks) for agent, found in by_agent.items() if set(tasks) <= set(found)}
    return {agent: table.mean(axis=0) for agent, table in tables.items() if table.size}


def _head(rows: list[Row]) -> str:
    def every(name: str) -> str:
        return "; ".join(sorted({row[name] for row in rows}))

    return (
        "# Reproduction of the paper's experiment\n\n"
        f"Success in percent: mean ± standard deviation over seeds of the mean of the last {SCORED} evaluations; **bold** "
        "within 95 % of the best of ours. Published columns are the paper's, under the conditions above each table, and "
        "compare to nothing else here.\n\n"
        f"Ours: {every('protocol')}. Success from the state before the step (reward rule {every('reward_rule')!r}). "
        f"evor {every('evor')}, jax {every('jax')}, ogbench {every('ogbench')}, mujoco {every('mujoco')}, "
        f"python {every('python')}; {every('hardware')}; commit {every('commit')}."
    )


def _dataset_tables(scores: Scores, rows: list[Row], manifest: dict[str, Any]) -> list[str]:
    """One table per data set of the matrix, with a labelled place for every cell that has no score."""
    parts = []
    for dataset in dict.fromkeys([cell["dataset"] for cell in manifest["cells"]] + list(scores)):
        mine = [cell for cell in manifest["cells"] if cell["dataset"] == dataset]
        by_agent = scores.get(dataset, {})
        agents = list(dict.fromkeys([cell["agent"] for cell in mine] + list(by_agent)))
        begun = {(row["agent"], row["task"]) for row in rows if row["dataset"] == dataset}
        wanted = {(cell["agent"], task) for cell in mine for task in cell["tasks"]}
        theirs = [agent for agent in published.AGENTS if published.conditions(dataset)]
        data = "; ".join(sorted({row["data"] for row in rows if row["dataset"] == dataset})) or "none yet"
        parts += [f"\n## {dataset}\n", f"Ours: {data}."]
        if theirs:
            parts[-1] += f" Published: {published.conditions(dataset)}."
        heads = agents + [f"{published.AGENTS[agent]}, published" for agent in theirs]
        parts += ["", f"| task | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
        tasks = sorted({task for _, task in wanted} | {task for by_task in by_agent.values() for task in by_task})
        for task in tasks:
            labels = dict.fromkeys(agents, "not at this scale")
            labels |= {agent: "not run" for agent in agents if (agent, task) in wanted}
            labels |= {agent: "unfinished" for agent in agents if (agent, task) in begun}
            cells = _cells(means_by_seed(by_agent, [task]), labels)
            cells += [published.task(dataset, task, agent) or "" for agent in theirs]
            parts.append(f"| {task} | {' | '.join(cells)} |")
        for label, chosen in _means(by_agent, tasks).items():
            same = set(chosen) == {1, 2, 3, 4, 5}
            cells = _cells(means_by_seed(by_agent, chosen), dict.fromkeys(agents, ""))
            cells += [(published.overall(dataset, agent) or "") if same else "" for agent in theirs]
            parts.append(f"| **{label}** | {' | '.join(cells)} |")
        counts = ", ".join(f"{agent} {_span(map(len, by_task.values()))}" for agent, by_task in by_agent.items())
        parts.append(f"\nSeeds of a task: {counts or 'none yet'}.")
        for name, why in manifest["notes"].items():
            folder, cell = name.split("/", 1)
            if folder == dataset:
                parts.append(f"\n{cell.replace('/', ', ')}: {why}.")
    return parts


def _span(counts: Iterable[int]) -> str:
    """`3`, or `1 to 3`."""
    found = sorted(set(counts))
    return " to ".join(map(str, dict.fromkeys((found[0], found[-1]))))


def _means(by_agent: dict[str, dict[int, dict[int, float]]], tasks: list[int]) -> dict[str, tuple[int, ...]]:
    """The mean over all tasks, and over those that every agent with a score has played where these are fewer."""
    found = {"mean": tuple(tasks)}
    if by_agent:
        common = tuple(sorted(set.intersection(*(set(by_task) for by_task in by_agent.values()))))
        if common and common != tuple(tasks):
            found[f"mean of {', '.join(map(str, common))}"] = common
    return found


def _cells(found: dict[str, np.ndarray], labels: dict[str, str]) -> list[str]:
    """`97 ± 3` for every agent, in bold where it is near the best, its label where there is no score."""
    best = bold({agent: float(values.mean()) for agent, values in found.items()})
    cells = []
    for agent, label in labels.items():
        if agent not in found:
            cells.append(label)
            continue
        values = 100 * found[agent]
        spread = f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else ""
        cells.append(f"**{values.mean():.0f}**{spread}" if agent in best else f"{values.mean():.0f}{spread}")
    return cells


def summary(out: Path) -> list[str]:
    """Lines of a table for README: mean success over an agent's tasks by data set, with the number of seeds."""
    rows, manifest = read_results(out / "results.csv"), read_json(out / "manifest.json", "scored", "cells")
    scores = score_table(rows, manifest["scored"])
    agents = list(dict.fromkeys(cell["agent"] for cell in manifest["cells"]))
    lines = [f"| data set, tasks | {' | '.join(agents)} |", "| --- |" + " --- |" * len(agents)]
    for dataset, by_agent in scores.items():
        wanted: dict[str, set[int]] = defaultdict(set)
        for cell in manifest["cells"]:
            if cell["dataset"] == dataset:
                wanted[cell["agent"]] |= set(cell["tasks"])
        begun = {row["agent"] for row in rows if row["dataset"] == dataset}
        for tasks in sorted({tuple(by_task) for by_task in by_agent.values()}, reverse=True):
            labels = {agent: "unfinished" if agent in begun else "not run" for agent in agents}
            labels |= {agent: "not at this scale" for agent in agents if not set(tasks) <= wanted[agent]}
            found = means_by_seed(by_agent, tasks)
            cells = [
                f"{told} ({len(found[agent])})" if agent in found else told
                for agent, told in zip(agents, _cells(found, labels), strict=True)
            ]
            lines.append(f"| {dataset}, {', '.join(map(str, tasks))} | {' | '.join(cells)} |")
    return lines


def _aggregates(scores: Scores, out: Path) -> list[str]:
    """Interquartile mean, probability of improvement and profiles; what is side by side is of the same tasks."""
    pooled: dict[str, dict[tuple[str, int], dict[int, float]]] = defaultdict(dict)
    for dataset, by_agent in scores.items():
        for agent, by_task in by_agent.items():
            pooled[agent] |= {(dataset, task): by_seed for task, by_seed in by_task.items()}
    agents = list(pooled)
    if not agents:
        return []
    lead = "evor" if "evor" in pooled else agents[0]
    shared = sorted(set.intersection(*(set(by_task) for by_task in pooled.values())))
    parts = [
        "\n## Over tasks and seeds\n",
        "Interquartile mean with its stratified bootstrap 95 % interval, over every task an agent played and over the "
        f"{len(shared)} that all of them played; chance that {lead} beats it, over the tasks both played.\n",
        f"| agent | tasks x seeds | IQM of its tasks | IQM of the {len(shared)} | P({lead} better) |",
        "| --- | --- | --- | --- | --- |",
    ]
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for index, agent in enumerate(agents):
        mine = square(pooled[agent], pooled[agent])
        if not mine.size:
            parts.append(f"| {agent} | its tasks share no seed | | | |")
            continue
        both = sorted(set(pooled[lead]) & set(pooled[agent]))
        better = same = ""
        if both and agent != lead:
            better = _told(probability_of_improvement, *(square(pooled[name], both) for name in (lead, agent)))
        if shared:
            table = square(pooled[agent], shared)
            same = _told(interquartile_mean, table)
            if table.size:
                colour = ACCENT if agent == lead else plt.get_cmap("Dark2")(index % 8)
                axis.plot(100 * THRESHOLDS, performance_profile(table, THRESHOLDS), label=agent, color=colour)
        shape = f"{mine.shape[0]} x {mine.shape[1]}"
        parts.append(f"| {agent} | {shape} | {_told(interquartile_mean, mine)} | {same} | {better} |")
    if not shared:
        plt.close(figure)
        return parts
    axis.set(xlabel="success above, percent", ylabel="share of tasks x seeds", ylim=(-0.02, 1.02))
    axis.set_title(f"the {len(shared)} tasks that all played", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, out / "profiles.png")
    return [*parts, "\n![performance profiles](profiles.png)"]


def _told(statistic: Callable[..., float], *tables: np.ndarray) -> str:
    return str(estimate(statistic, *tables)) if all(table.size for table in tables) else ""


def _costs(out: Path) -> str:
    """What cells took, from timings.csv."""
    path = out / "timings.csv"
    if not path.exists():
        return ""
    found: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            dataset, agent, _ = row["cell"].split("/")
            found[dataset, agent][row["cell"]].append(row)
    lines = [
        "\n## Cost\n",
        "Of a cell, all its tasks together: median over cells. An evaluation is of all tasks and seeds; hours are those of "
        "training and playing.\n",
        "| data set | agent | cells | s per update | s per evaluation | hours per cell | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (dataset, agent), by_cell in sorted(found.items()):
        costs = []
        for rows in by_cell.values():
            update = float(np.nanmedian([float(row["seconds_per_update"]) for row in rows]))
            steps = [int(row["evaluation"].split("_")[0]) for row in rows]
            played = sum(float(row["seconds"]) for row in rows)
            settings = {row["evaluation"].rsplit("_", 1)[0] for row in rows}
            hours = (update * max(steps) + played) / 3600
            costs.append((update, played / len(settings), hours, max(float(row["peak_mib"]) for row in rows)))
        update, evaluation, hours, peak = np.median(costs, axis=0)
        lines.append(
            f"| {dataset} | {agent} | {len(costs)} | {update:.4f} | {evaluation:.0f} | {hours:.2f} | {peak:.0f} |"
        )
    return "\n".join(lines)
