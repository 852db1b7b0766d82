"""`evor data check`: what is in a dataset, and what training will make of it."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from evor.data.formats.npz import find_validation
from evor.data.source import Dataset, NpzData, OgbenchData, Survey, survey
from evor.data.summary import FEW_REWARDS, Summary, Task
from evor.data.suspects import action_facts, describe_actions, describe_episodes
from evor.envs.ogbench import REWARD_RULE
from evor.runtime.memory import size_text
from evor.runtime.progress import screen
from evor.runtime.provenance import versions
from evor.runtime.words import counted, interval
from evor.types import DataSpec


def check_data(
    dataset: Dataset, data_spec: DataSpec, *, memory_gb: float | None = None, cache: Path | None = None
) -> dict[str, Any]:
    """Print a table of facts and a list of notes, and return them. Raises EvorError on what training would refuse."""
    data = survey(dataset, data_spec, memory_gb=memory_gb, cache=cache)
    actions = action_facts(data.pieces, data.summary.action_bounds)
    imported = dataset.import_notes() if isinstance(dataset, NpzData) else ()
    notes = (*imported, *data.notes, *describe_actions(actions), *describe_episodes(data.pieces))
    content = {
        "title": dataset.title,
        "facts": _description(dataset, data.summary) | {"memory for training": size_text(data.memory_bytes)},
        "tasks": [_task(data, k) for k in range(len(data.summary.tasks))],
        "actions": actions,
        "notes": list(notes),
    }
    _print(content)
    return content


def _task(data: Survey, k: int) -> dict[str, Any]:
    """Summary of the rewards of the task at position `k`. Shares are of all rows."""
    summary, task = data.summary, data.summary.by_task[k]
    return {
        "task": summary.tasks[k],
        "rewards": "none" if summary.lacks_rewards else _rewards(task),
        "episodes": _episodes(summary),
        "finished_episodes": task.finished_episodes,
        "finished_rows": task.finished_rows / summary.rows,
        "complete_returns": float(data.complete / summary.rows),
        "return_mean": float(data.scale.return_mean[k]),
        "return_std": float(data.scale.return_std[k]),
    }


def _print(content: dict[str, Any]) -> None:
    facts = Table("what", "value", title=content["title"], title_justify="left")
    for name, value in content["facts"].items():
        facts.add_row(name, value)
    screen.print(facts)
    tasks = Table(
        "task", "rewards", "finished episodes", "finished rows", "complete returns", "return mean", "return std"
    )
    for task in content["tasks"]:
        tasks.add_row(
            str(task["task"]),
            task["rewards"],
            f"{task['finished_episodes']} of {task['episodes']}",
            f"{task['finished_rows']:.3%}",
            f"{task['complete_returns']:.1%}",
            f"{task['return_mean']:.4g}",
            f"{task['return_std']:.4g}",
        )
    screen.print(tasks)
    acted = Table("action", "bounds", "from", "to", "at bounds", "middle 98 %")
    for fact in content["actions"]:
        acted.add_row(
            str(fact["entry"]),
            interval(*fact["bounds"]),
            f"{fact['low']:.4g}",
            f"{fact['high']:.4g}",
            f"{fact['at_bounds']:.2%}",
            "constant" if fact["constant"] else f"{fact['middle']:.0%}",
        )
    screen.print(acted)
    for note in content["notes"] or ["nothing wrong was found"]:
        screen.print(f"note: {note}")


def _description(dataset: Dataset, summary: Summary) -> dict[str, str]:
    episodes = _episodes(summary)
    installed = versions()
    description = {
        "observations": f"{[summary.rows, summary.spec.observation_dim]}, from {min(summary.low):.4g} to "
        f"{max(summary.high):.4g}",
        "actions": f"{[summary.rows, summary.spec.action_dim]}, from {summary.action_range[0]:.4g} to "
        f"{summary.action_range[1]:.4g}",
        "transitions": f"{summary.transitions:,}",
        "episodes": f"{episodes}: {summary.lengths[0][0]} to {counted(summary.lengths[-1][0], 'row')}, median {_median(summary)}",
        "ends": f"{summary.finished} finished, {episodes - summary.finished} cut",
        "versions": ", ".join(f"{name} {installed[name]}" for name in ("evor", "ogbench", "mujoco")),
    }
    if isinstance(dataset, NpzData):
        beside = [path.name for path in find_validation(dataset.path)]
        description["validation"] = ", ".join(beside) if beside else "none (files named *-val.npz are never trained on)"
    if isinstance(dataset, OgbenchData):
        description["reward timing"] = f"{REWARD_RULE!r}: from the state before the step, in data and environment"
    return description


def _episodes(summary: Summary) -> int:
    return sum(count for _, count in summary.lengths)


def _median(summary: Summary) -> int:
    """The median length of the episodes."""
    lengths, counts = np.array(summary.lengths).T
    ends = np.cumsum(counts)
    middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
    return int(lengths[np.searchsorted(ends, middle, side="right")].mean())


def _rewards(task: Task) -> str:
    if len(task.rewards) <= FEW_REWARDS:
        return ", ".join(f"{value:g}" for value in task.rewards)
    return f"from {task.low:.4g} to {task.high:.4g}"
