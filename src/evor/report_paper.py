"""results.csv of a reproduction -> the paper's tables and figures, with intervals. Imports no JAX."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor import published
from evor.errors import EvorError
from evor.files import write_text
from evor.report_ablations import dial_figures
from evor.scores import SCORED, Row, Scores, means_by_seed, read_reproduction, square
from evor.statistics import (
    bold,
    estimate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from evor.style import ACCENT, save_figure

THRESHOLDS = np.linspace(0, 1, 101)[:-1]


def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    rows, manifest, scores, times = read_reproduction(out)
    if not rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    parts = [
        _head(rows),
        *_agents(rows, manifest["agents"]),
        *_dataset_tables(scores, rows, manifest),
        *_aggregates(scores, out),
        *dial_figures(rows, manifest, out),
        *_costs(times, manifest["scored"]),
    ]
    path = out / "results.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _head(rows: list[Row]) -> str:
    def every(name: str) -> str:
        return "; ".join(sorted({row[name] for row in rows}))

    return (
        "# Reproduction of the paper's experiment\n\n"
        f"Success in percent: the mean of the last {SCORED} evaluations, the only ones that are played, then mean ± standard "
        'deviation over seeds; **bold** within 95 % of the best of ours, whatever their numbers of seeds. "unfinished": '
        "some of these evaluations are missing for every seed, and the same command goes on. Published columns are the "
        "paper's, under the conditions above each table, and compare to nothing else here.\n\n"
        f"Ours: {every('protocol')}. Success from the state before the step (reward rule {every('reward_rule')!r}). "
        f"evor {every('evor')}, jax {every('jax')}, ogbench {every('ogbench')}, mujoco {every('mujoco')}, "
        f"python {every('python')}; {every('hardware')}."
    )


def _agents(rows: list[Row], told: dict[str, dict[str, str]]) -> list[str]:
    """What each agent is, how it acts, and the commits that trained and played it."""
    parts = ["\n## Agents\n", "| agent | what it is | acts by | commits |", "| --- | --- | --- | --- |"]
    for agent, about in told.items():
        commits = sorted({row["commit"] for row in rows if row["agent"] == agent})
        kind = f"`--preset {about['preset']}`. {about['about']} {about['apart']}".strip()
        parts.append(f"| {agent} | {kind} | {about['search']} | {', '.join(commits)} |")
    return parts


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
    """`97 ± 3` or `97 (1 seed)` for every agent, in bold where it is near the best, its label where there is no score."""
    best = bold({agent: float(values.mean()) for agent, values in found.items()})
    cells = []
    for agent, label in labels.items():
        if agent not in found:
            cells.append(label)
            continue
        values = 100 * found[agent]
        spread = f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else " (1 seed)"
        cells.append(f"**{values.mean():.0f}**{spread}" if agent in best else f"{values.mean():.0f}{spread}")
    return cells


def summary(out: Path) -> list[str]:
    """Lines of a table for README: mean success over an agent's tasks by data set, with the number of seeds."""
    rows, manifest, scores, _ = read_reproduction(out)
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
                f"{told} ({len(found[agent])} seeds)" if agent in found and len(found[agent]) > 1 else told
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
    same_head = f" IQM of the {len(shared)} |" if shared else ""
    parts = [
        "\n## Over tasks and seeds\n",
        "Interquartile mean (IQM) of success in percent with its stratified bootstrap 95 % interval, over every task an "
        f"agent played{f' and over the {len(shared)} that all of them played' if shared else ''}; chance that {lead} beats "
        "it, over the tasks both played. Of one seed there is no interval.\n",
        f"| agent | tasks x seeds | IQM of its tasks |{same_head} P({lead} better) |",
        "| --- | --- | --- |" + " --- |" * (1 + bool(shared)),
    ]
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for index, agent in enumerate(agents):
        mine = square(pooled[agent], pooled[agent])
        shape = f"{mine.shape[0]} x {mine.shape[1]}" if mine.size else "its tasks share no seed"
        columns = [agent, shape, _told(interquartile_mean, ".1f", 100 * mine)]
        if shared:
            table = square(pooled[agent], shared)
            columns.append(_told(interquartile_mean, ".1f", 100 * table))
            if table.size:
                colour = ACCENT if agent == lead else plt.get_cmap("Dark2")(index % 8)
                axis.plot(100 * THRESHOLDS, performance_profile(table, THRESHOLDS), label=agent, color=colour)
        both = sorted(set(pooled[lead]) & set(pooled[agent])) if agent != lead else []
        tables = [square(pooled[name], both) for name in (lead, agent)] if both else [np.empty(0)]
        parts.append(f"| {' | '.join([*columns, _told(probability_of_improvement, '.2f', *tables)])} |")
    if not shared:
        plt.close(figure)
        return parts
    axis.set(xlabel="success above, percent", ylabel="share of tasks x seeds", ylim=(-0.02, 1.02))
    axis.set_title(f"the {len(shared)} tasks that all played", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, out / "profiles.png")
    return [*parts, "\n![performance profiles](profiles.png)"]


def _told(statistic: Callable[..., float], digits: str, *tables: np.ndarray) -> str:
    return format(estimate(statistic, *tables), digits) if all(table.size for table in tables) else ""


def _costs(times: list[Row], scored: dict[str, Sequence[int]]) -> list[str]:
    """What cells took: training them, and playing them by the agent's own search."""
    found: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in times:
        dataset, agent, rest = row["cell"]
        found[dataset, agent][rest].append(row)
    lines = []
    for (dataset, agent), by_cell in sorted(found.items()):
        costs, hours = zip(*(_cost(rows, scored.get(dataset, ())) for rows in by_cell.values()), strict=True)
        update, evaluation, peak = np.median(costs, axis=0)
        whole = [spent for spent in hours if spent is not None]
        took = f"{np.median(whole):.2f}" if whole else "not whole"
        lines.append(
            f"| {dataset} | {agent} | {len(costs)}, {len(whole)} | {update:.4f} | {evaluation:.0f} | {took} | {peak:.0f} |"
        )
    head = [
        "\n## Cost\n",
        "Of a cell, all its tasks together: median over cells. An evaluation is of all tasks and seeds; hours are those of "
        "training and playing, of cells whose every evaluation was timed.\n",
        "| data set | agent | cells, of them whole | s per update | s per evaluation | hours per whole cell | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *lines] if lines else []


def _cost(rows: list[Row], scored: Sequence[int]) -> tuple[tuple[float, float, float], float | None]:
    """Seconds per update and per evaluation and peak MiB of a cell; its hours where every evaluation was timed."""
    played: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        updates, search = row["evaluation"]
        played[updates][search].append(row["seconds"])
    own = next(iter(played[min(played)]))  # other searches play the last checkpoint alone
    evaluations = {updates: sum(searches[own]) for updates, searches in played.items()}
    update = float(np.nanmedian([row["seconds_per_update"] for row in rows]))
    costs = update, float(np.mean(list(evaluations.values()))), max(row["peak_mib"] for row in rows)
    even = len({len(searches[own]) for searches in played.values()}) == 1
    whole = even and set(scored) <= set(evaluations)
    return costs, (update * max(evaluations) + sum(evaluations.values())) / 3600 if whole else None
