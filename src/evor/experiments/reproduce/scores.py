"""Scores to compare, one per dataset, agent, task and seed, from results.csv and its neighbours. Imports no JAX."""

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError
from evor.report.evaluations import BASE_POLICY
from evor.runtime.files import read_csv, read_json

ResultRow = dict[str, Any]
ByAgent = dict[str, dict[int, dict[int, float]]]  # agent -> task -> seed -> a number
Scores = dict[str, ByAgent]  # of success, by dataset
COMPARABLE = {  # where these differ, among rows that share the columns behind them, nothing is averaged
    **dict.fromkeys(("ogbench", "mujoco", "reward_rule", "protocol"), ()),
    "data": ("dataset",),
    "recipe": ("dataset", "agent"),
}
MANIFEST = {
    "scored": {str: [int]},
    "cells": [{"name": str, "dataset": str, "tasks": [int], "agent": str, "seeds": [int]}],
    "notes": {str: str},
    "recipes": {str: dict},
}
ABOUT = {  # younger parts of it
    "agents": {str: {"preset": str, "about": str, "options": str, "search": str}},
    "dials": [{"num_candidates": int, "return_temperature": int | float, "action_temperature": int | float}],
    "remark": str,
}
YOUNGEST = {"matrix": "paper", "lead": "evor"}  # of manifests that do not say it
TEXTS = (*COMPARABLE, "suite", "dataset", "agent", "extraction", "num_candidates", "return_temperature", "action_temperature",
         "evor", "jax", "python", "hardware", "commit")  # fmt: skip
SCORED = 3  # last evaluations that make the score


class Results(NamedTuple):
    """Results of a reproduction so far."""

    rows: list[ResultRow]
    manifest: dict[str, Any]
    times: list[ResultRow]

    def scores(self, statistic: Callable[[list[float]], float] = statistics.fmean) -> Scores:
        """See `score_table`."""
        manifest = self.manifest
        return score_table(self.rows, manifest["scored"], matrix=manifest["matrix"], statistic=statistic)

    def scored(self, dataset: str, agent: str) -> list[int]:
        """Updates whose evaluations make the score of an agent. Fewer than those of its dataset where it is expensive."""
        scored = self.manifest["scored"]
        return scored.get(scored_key(dataset, agent), scored.get(dataset, []))

    def fewer(self, dataset: str) -> dict[str, int]:
        """The last scored updates of the agents of a dataset that have fewer than its others."""
        agents = dict.fromkeys(cell["agent"] for cell in self.manifest["cells"] if cell["dataset"] == dataset)
        last = {agent: max(self.scored(dataset, agent), default=0) for agent in agents}
        return {agent: updates for agent, updates in last.items() if updates < max(last.values())}

    def further(self, dataset: str) -> list[ResultRow]:
        """Rows of the lead's last checkpoint on a dataset, by its own search and by the further ones."""
        key = dataset, self.manifest["lead"]
        last = max(self.scored(*key), default=0)
        return [row for row in self.rows if (row["dataset"], row["agent"]) == key and row["updates"] == last]

    def seeds(self, dataset: str, columns: Iterable[str]) -> tuple[list[int], list[int]]:
        """Seeds of the lead that have played every further search with every task, and the others.

        Searches are told apart by these columns, which hold numbers.
        """

        def point(row: ResultRow) -> tuple[float, ...]:
            return tuple(float(row[column]) for column in columns)

        columns, played = tuple(columns), self.further(dataset)
        cells = [c for c in self.manifest["cells"] if (c["dataset"], c["agent"]) == (dataset, self.manifest["lead"])]
        tasks = {task for cell in cells for task in cell["tasks"]}
        points = {(row["seed"], row["task"], *point(row)) for row in played if row["extraction"] != BASE_POLICY}
        wanted = set(itertools.product(tasks, map(point, self.manifest["dials"])))
        seeds = sorted({row["seed"] for row in played} | {seed for cell in cells for seed in cell["seeds"]})
        whole = [seed for seed in seeds if all((seed, task, *at) in points for task, at in wanted)]
        return whole, [seed for seed in seeds if seed not in whole]


def scored_key(dataset: str, agent: str) -> str:
    """Name of an agent's scored updates, where they are not those of its dataset."""
    return f"{dataset}/{agent}"


def told_seeds(whole: list[int], short: list[int]) -> str:
    """Seeds that a figure shows: those that have played every point, and where there are none, all of them."""
    if not whole:
        return "no seed has played every point yet, so points differ in seeds"
    missing = f"; left out until they have played every point: {', '.join(map(str, short))}" if short else ""
    return f"seeds {', '.join(map(str, whole))}{missing}"


def told_episodes(rows: Iterable[ResultRow]) -> str:
    """`10 episodes`, or `5 or 10 episodes` where rows differ; `no episodes` of none."""
    counts = sorted({int(row["episodes"]) for row in rows})
    return f"{' or '.join(map(str, counts)) or 'no'} episode{'s' * (counts != [1])}"


def read_reproduction(out: Path) -> Results:
    """Read all of it. Raises EvorError where a file is damaged or rows can't be compared."""
    path = out / "manifest.json"
    manifest, rows = read_json(path, **MANIFEST), read_results(out / "results.csv")
    if not set(ABOUT) <= set(manifest):
        raise EvorError(
            f"{path} is of an older version; run `evor reproduce` with this --out once, which completes it."
        )
    read_json(path, **ABOUT, **{name: str for name in YOUNGEST if name in manifest})
    return Results(rows=rows, manifest=YOUNGEST | manifest, times=_read_times(out / "timings.csv"))


def read_results(path: Path) -> list[ResultRow]:
    """Rows with their numbers parsed. Raises EvorError where rows must not be averaged."""
    numbers = {"task": int, "seed": int, "updates": int, "episodes": int, "success": _share}
    rows = _read(path, dict.fromkeys(TEXTS, str) | numbers)
    check_comparable(rows, path)
    return rows


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError(f"success {text!r} is no share of episodes")
    return float(text)


def _read_times(path: Path) -> list[ResultRow]:
    """Seconds that evaluations took, [] without a file; `cell` is (dataset, agent, tasks and seeds)."""

    def parts(text: str) -> tuple[str, str, str]:
        dataset, agent, rest = text.split("/")
        return dataset, agent, rest

    def evaluation(text: str) -> tuple[int, str]:
        updates, rest = text.split("_", 1)
        return int(updates), rest.rsplit("_", 1)[0]

    numbers = dict.fromkeys(("seconds", "seconds_per_update", "peak_mib"), float)
    return _read(path, {"cell": parts, "evaluation": evaluation, **numbers})


def _read(path: Path, kinds: dict[str, Any]) -> list[ResultRow]:
    remedy = "restore it or start anew with another --out."
    rows: list[ResultRow] = []
    for line, row in enumerate(read_csv(path, None, remedy=remedy, growing=True), 2):
        try:
            rows.append(row | {name: kind(row[name]) for name, kind in kinds.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise EvorError(f"line {line} of {path} is damaged ({error}); {remedy}") from error
    return rows


def check_comparable(rows: Iterable[ResultRow], path: Path) -> None:
    """Raise EvorError where rows of the file at `path` must not be averaged."""
    for name, columns in COMPARABLE.items():
        kinds: dict[tuple, set[Any]] = defaultdict(set)
        for row in rows:
            kinds[tuple(row[column] for column in columns)].add(row[name])
        for group, values in kinds.items():
            if len(values) > 1:
                within = f" of {', '.join(group)}" if group else ""
                raise EvorError(
                    f"{path}: rows{within} differ in {name} ({' | '.join(sorted(values))}) and can't be averaged; remove the "
                    "rows of one kind, and their folders below cells/."
                )


def check_coming(coming: ResultRow, rows: Iterable[ResultRow], *, path: Path) -> None:
    """Raise EvorError where a row to come could not be averaged with those of the file at `path`."""
    for name, columns in COMPARABLE.items():
        for row in rows:
            if row[name] != coming[name] and all(row[column] == coming[column] for column in columns):
                raise EvorError(
                    f"{path} holds rows of {row['dataset']} with {name} {row[name]!r}; here it would be {coming[name]!r}, and "
                    "these can't be averaged. Use the same again, or another --out."
                )


def score_table(
    rows: list[ResultRow],
    scored: dict[str, Sequence[int]],
    *,
    matrix: str = "paper",
    statistic: Callable[[list[float]], float] = statistics.fmean,
) -> Scores:
    """Mean (or another statistic) of the successes after the `scored` updates, in their order.

    Of every task and seed that was played after all of them, by the agents' own searches: rows of the suite `matrix`.
    """
    curves: dict[tuple, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["dataset"] not in scored:
            raise EvorError(f"results hold rows of {row['dataset']}, which is in no cell of this scale; remove them.")
        if row["suite"] == matrix:
            curve, updates = curves[row["dataset"], row["agent"], row["task"], row["seed"]], row["updates"]
            if updates in curve:
                raise EvorError(
                    f"{row['agent']} on {row['dataset']}, task {row['task']}, seed {row['seed']} was played twice after "
                    f"{updates} updates; keep the rows of one search."
                )
            curve[updates] = row["success"]
    scores: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for (dataset, agent, task, seed), curve in sorted(curves.items()):
        wanted = scored.get(scored_key(dataset, agent), scored[dataset])
        if set(wanted) <= set(curve):
            scores[dataset][agent][task][seed] = statistic([curve[updates] for updates in wanted])
    return scores


def square(by_task: dict[Any, dict[int, float]], tasks: Iterable[Any]) -> np.ndarray:
    """[T, S] of the seeds that every task has."""
    tasks = list(tasks)
    seeds = sorted(set.intersection(*(set(by_task[task]) for task in tasks)))
    return np.array([[by_task[task][seed] for seed in seeds] for task in tasks])


def means_by_seed(by_agent: ByAgent, tasks: Sequence[int]) -> dict[str, np.ndarray]:
    """Mean over the tasks [S], of every agent that has played them all with a seed."""
    tables = {agent: square(by_task, tasks) for agent, by_task in by_agent.items() if set(tasks) <= set(by_task)}
    return {agent: table.mean(axis=0) for agent, table in tables.items() if table.size}
