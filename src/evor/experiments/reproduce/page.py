"""results.csv of a reproduction -> the paper's tables and figures, with intervals. Imports no JAX."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from evor.errors import EvorError
from evor.experiments.reproduce import published
from evor.experiments.reproduce.ablations import dial_figures
from evor.experiments.reproduce.scores import SCORED, Results, Row, Scores, means_by_seed, read_reproduction, square
from evor.report.figures import ACCENT, look, save_figure, subplots
from evor.report.statistics import bold, estimate, interquartile_mean, performance_profile, probability_of_improvement
from evor.runtime.files import write_text

ByAgent = dict[str, dict[int, dict[int, float]]]  # agent -> task -> seed -> a number
THRESHOLDS = np.linspace(0, 1, 101)[:-1]


@look()
def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    found = read_reproduction(out)
    rows, manifest, times = found
    if not rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    scores = found.scores()
    parts = [
        _head(rows, scores, manifest),
        *_agents(rows, manifest["agents"]),
        *_dataset_tables(found),
        *_aggregates(scores, manifest, out),
        *dial_figures(rows, manifest, out),
        *_costs(times, manifest["scored"]),
    ]
    path = out / "results.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _head(rows: list[Row], scores: Scores, manifest: dict[str, Any]) -> str:
    def every(name: str) -> str:
        return "; ".join(sorted({row[name] for row in rows}))

    whole = sum(
        len(by_seed) for by_agent in scores.values() for by_task in by_agent.values() for by_seed in by_task.values()
    )
    wanted = sum(len(cell["tasks"]) * len(cell["seeds"]) for cell in manifest["cells"])
    remark = f"{manifest['remark']}\n\n" if manifest["remark"] else ""
    return (
        f"# Reproduction of the paper's experiment\n\n{remark}"
        "`evor` is this library's default recipe; the paper's own is `evor-paper`, the one to hold against its published "
        "numbers. What its objective learns instead of the law of the return is in docs/math.md of evor's repository, and what "
        "that costs in a maze in docs/results/law-or-mean.md. "
        f"{whole} of {wanted} scores (data set x agent x task x seed) are there.\n\n"
        f"A score is the success in percent over the last {SCORED} evaluations of a run; tables give its mean ± standard deviation "
        "over seeds (of n - 1; in rows of means, of the seeds' means). Every evaluation starts from the same states, whatever the "
        "checkpoint, seed or agent; their range is the highest less the lowest of a run, averaged over runs. Episodes of one network start alike and often "
        "succeed or fail together, so that a score tells less than their number says. **Bold** is within 95 % of the best of ours, whatever their numbers of seeds. "
        '"unfinished": scores are missing, and the same command goes on. Published columns are the paper\'s, under the '
        "conditions above each table, and compare to nothing else here.\n\n"
        f"Ours: {every('protocol')}. Success from the state before the step (reward rule {every('reward_rule')!r}). "
        f"evor {every('evor')}, jax {every('jax')}, ogbench {every('ogbench')}, mujoco {every('mujoco')}, "
        f"python {every('python')}; {every('hardware')}."
    )


def _agents(rows: list[Row], told: dict[str, dict[str, str]]) -> list[str]:
    """What each agent is, how it acts, and the commits that played it."""
    parts = ["\n## Agents\n", "| agent | what it is | acts by | played at commits |", "| --- | --- | --- | --- |"]
    for agent, about in told.items():
        commits = ", ".join(sorted({row["commit"] for row in rows if row["agent"] == agent} - {""}))
        kind = f"`--preset {about['preset']}`. {about['about']} {about['options']}"
        parts.append(f"| {agent} | {kind} | {about['search']} | {commits} |")
    return parts


def _dataset_tables(found: Results) -> list[str]:
    """One table per data set of the matrix, with a labelled place for every cell that has no score."""
    scores = found.scores()
    last, spread = found.scores(lambda curve: curve[-1]), found.scores(lambda curve: max(curve) - min(curve))
    parts = []
    for dataset in dict.fromkeys([cell["dataset"] for cell in found.manifest["cells"]] + list(scores)):
        by_agent = scores.get(dataset, {})
        further = {
            "of the last evaluation alone": last.get(dataset, {}),
            "range over the evaluations": spread.get(dataset, {}),
        }
        parts += _dataset_table(dataset, by_agent, further, found)
        counts = ", ".join(f"{agent} {_span(map(len, by_task.values()))}" for agent, by_task in by_agent.items())
        parts.append(f"\nSeeds of a task: {counts or 'none yet'}.")
        if short := _short(dataset, by_agent, found.manifest):
            parts.append(f"\nScores that are not there: {', '.join(short)}.")
        for name, why in found.manifest["notes"].items():
            folder, cell = name.split("/", 1)
            if folder == dataset:
                parts.append(f"\n{cell.replace('/', ', ')}: {why.rstrip('.')}.")
    return parts


def _short(dataset: str, by_agent: ByAgent, manifest: dict[str, Any]) -> list[str]:
    """`qc-1 2 of 6` for every agent that lacks scores."""
    wanted: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for cell in manifest["cells"]:
        if cell["dataset"] == dataset:
            wanted[cell["agent"]] |= set(itertools.product(cell["tasks"], cell["seeds"]))
    there = {agent: {(t, s) for t, seeds in tasks.items() for s in seeds} for agent, tasks in by_agent.items()}
    missing = {agent: len(pairs - there.get(agent, set())) for agent, pairs in wanted.items()}
    return [f"{agent} {count} of {len(wanted[agent])}" for agent, count in missing.items() if count]


def _dataset_table(dataset: str, by_agent: ByAgent, further: dict[str, ByAgent], found: Results) -> list[str]:
    """Tasks and their means, below each mean its `further` readings, beside the published numbers."""
    mine = [cell for cell in found.manifest["cells"] if cell["dataset"] == dataset]
    rows = [row for row in found.rows if row["dataset"] == dataset]
    agents = list(dict.fromkeys([cell["agent"] for cell in mine] + list(by_agent)))
    begun = {(row["agent"], row["task"]) for row in rows}
    wanted = {(cell["agent"], task) for cell in mine for task in cell["tasks"]}
    tasks = sorted({task for _, task in wanted} | {task for by_task in by_agent.values() for task in by_task})
    theirs = [agent for agent in published.AGENTS if published.conditions(dataset)]
    data = "; ".join(sorted({row["data"] for row in rows})) or "none yet"
    episodes = " or ".join(sorted({str(row["episodes"]) for row in rows})) or "no"
    scored = ", ".join(map(str, found.manifest["scored"].get(dataset, ())))
    parts = [f"\n## {dataset}\n", f"Ours: {data}; {episodes} episodes after each of {scored} updates."]
    parts[-1] += f" Published: {published.conditions(dataset) or 'the paper has no results on it'}."
    heads = agents + [f"{published.AGENTS[agent]}, published" for agent in theirs]
    parts += ["", f"| task | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for task in tasks:
        cells = _cells(means_by_seed(by_agent, [task]), _labels(agents, [task], wanted, begun))
        cells += [published.task(dataset, task, agent) or "" for agent in theirs]
        parts.append(f"| {task} | {' | '.join(cells)} |")
    for label, chosen in _means(by_agent, tasks).items():
        cells = _cells(means_by_seed(by_agent, chosen), _labels(agents, chosen, wanted, begun))
        same = set(chosen) == {1, 2, 3, 4, 5}
        cells += [(published.overall(dataset, agent) or "") if same else "" for agent in theirs]
        parts.append(f"| **{label}** | {' | '.join(cells)} |")
        for name, other in further.items():
            values = means_by_seed(other, chosen)
            cells = [f"{100 * values[agent].mean():.0f}" if agent in values else "" for agent in agents]
            parts.append(f"| {name} | {' | '.join([*cells, *('' for _ in theirs)])} |")
    return parts


def _labels(
    agents: list[str], tasks: Iterable[int], wanted: set[tuple[str, int]], begun: set[tuple[str, int]]
) -> dict[str, str]:
    """What stands in place of an agent's score, of all these tasks."""
    found = {}
    for agent in agents:
        pairs = {(agent, task) for task in tasks}
        found[agent] = "not at this scale" if not pairs <= wanted else "unfinished" if pairs & begun else "not run"
    return found


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
    found = read_reproduction(out)
    rows, manifest, scores = found.rows, found.manifest, found.scores()
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


def _aggregates(scores: Scores, manifest: dict[str, Any], out: Path) -> list[str]:
    """Interquartile mean, probability of improvement and profiles; what is compared is of the same tasks."""
    pooled: dict[str, dict[tuple[str, int], dict[int, float]]] = defaultdict(dict)
    for dataset, by_agent in scores.items():
        for agent, by_task in by_agent.items():
            pooled[agent] |= {(dataset, task): by_seed for task, by_seed in by_task.items()}
    agents = list(pooled)
    if not agents:
        return []
    lead = "evor" if "evor" in pooled else agents[0]
    parts = [
        "\n## Over tasks and seeds\n",
        "Interquartile mean (IQM; a quarter of the scores, rounded down, left out at each end) of success in percent with its stratified bootstrap 95 % interval: of an agent over every task "
        f"it played, and of {lead} over the same ones; and the chance that a seed of {lead} does better than one of the agent on a task "
        "both played, ties counted half. Seeds are drawn anew for each task, as the field does; the tasks of a seed share a "
        "base policy and few seeds differ little, so that these intervals are rather too narrow. Of one seed there is none.\n",
        f"| agent | tasks x seeds | IQM | IQM of {lead} there | P({lead} better) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for agent in agents:
        mine, both = square(pooled[agent], pooled[agent]), sorted(set(pooled[lead]) & set(pooled[agent]))
        columns = [agent, f"{mine.shape[0]} x {mine.shape[1]}" if mine.size else "its tasks share no seed"]
        columns.append(_told(interquartile_mean, ".1f", 100 * mine))
        if both and agent != lead:
            tables = [square(pooled[name], both) for name in (lead, agent)]
            columns.append(_told(interquartile_mean, ".1f", 100 * tables[0]) if set(both) == set(pooled[agent]) else "")
            columns.append(_told(probability_of_improvement, ".2f", *tables))
        else:
            columns += ["", ""]
        parts.append(f"| {' | '.join(columns)} |")
    return [*parts, *_profiles(pooled, lead, manifest, out)]


def _profiles(pooled: dict[str, Any], lead: str, manifest: dict[str, Any], out: Path) -> list[str]:
    """Performance profiles of the agents that have played all their tasks, over those they share."""
    wanted: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for cell in manifest["cells"]:
        wanted[cell["agent"]] |= {(cell["dataset"], task) for task in cell["tasks"]}
    whole = [agent for agent in pooled if wanted[agent] <= set(pooled[agent])]
    shared = sorted(set.intersection(*(set(pooled[agent]) for agent in whole))) if whole else []
    tables = {agent: square(pooled[agent], shared) for agent in whole} if shared else {}
    path = out / "profiles.png"
    if not any(table.size for table in tables.values()):
        path.unlink(missing_ok=True)
        return []
    figure, axis = subplots(figsize=(6.5, 3.2))
    for index, (agent, table) in enumerate(tables.items()):
        if table.size:
            colour = ACCENT if agent == lead else matplotlib.colormaps["Dark2"](index % 8)
            label = f"{agent} ({table.shape[1]} seed{'s' * (table.shape[1] > 1)})"
            profile = performance_profile(table, THRESHOLDS)
            axis.plot(100 * THRESHOLDS, profile, label=label, color=colour, drawstyle="steps-post", alpha=0.8)
    axis.set(xlabel="success above, percent", ylabel="share of tasks x seeds", ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
    tasks = "; ".join(f"{dataset}, task {task}" for dataset, task in shared)
    return [
        f"\n![performance profiles](profiles.png)\n\nOf the agents that have played all their tasks, over those they share: {tasks}."
    ]


def _told(statistic: Callable[..., float], digits: str, *tables: np.ndarray) -> str:
    return format(estimate(statistic, *tables), digits) if all(table.size for table in tables) else ""


def _costs(times: list[Row], scored: dict[str, Sequence[int]]) -> list[str]:
    """What cells took: training them, and playing them by the agent's own search."""
    found: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in times:
        dataset, agent, rest = row["cell"]
        found[dataset, agent][rest].append(row)
    lines, total = [], 0.0
    for (dataset, agent), by_cell in sorted(found.items()):
        costs, hours, are_whole = zip(
            *(_cost(name, rows, scored.get(dataset, ())) for name, rows in by_cell.items()), strict=True
        )
        update, evaluation, peak = np.median(costs, axis=0)
        whole = list(itertools.compress(hours, are_whole))
        total += sum(hours)
        took = f"{np.median(whole):.2f}" if whole else "not whole"
        lines.append(
            f"| {dataset} | {agent} | {len(costs)}, {len(whole)} | {update:.4f} | {evaluation:.0f} | {took} | {peak:.0f} |"
        )
    head = [
        "\n## Cost\n",
        "Of a cell, all its tasks together: median over cells, one to two of which ran at a time. An evaluation is of all its "
        "tasks and seeds; hours are those of training and playing, of cells that were played whole, as timed where they ran ('not whole': of some evaluation there is no time).\n",
        "| data set | agent | cells begun, whole | s per update | s per evaluation | hours per whole cell | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *lines, f"\nIn all {total:.1f} hours of a process."] if lines else []


def _cost(name: str, rows: list[Row], scored: Sequence[int]) -> tuple[tuple[float, float, float], float, bool]:
    """Seconds per update and per evaluation and peak MiB of `tasks12-seed0`; its hours; whether all of it was timed."""
    tasks, _, seeds = name.removeprefix("tasks").partition("-seed")
    played: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        updates, search = row["evaluation"]
        played[updates][search].append(row["seconds"])
    own = next(iter(played[min(played)]))  # other searches play the last checkpoint alone
    evaluations = {updates: sum(searches[own]) for updates, searches in played.items()}
    update = float(np.nanmedian([row["seconds_per_update"] for row in rows]))
    costs = update, float(np.mean(list(evaluations.values()))), max(row["peak_mib"] for row in rows)
    whole = {len(searches[own]) for searches in played.values()} == {len(tasks) * len(seeds.split("-"))}
    whole = whole and set(scored) <= set(evaluations)
    return costs, (update * max(evaluations) + sum(evaluations.values())) / 3600, whole
