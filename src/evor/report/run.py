"""Rows and arrays left by evaluate -> one self-contained page. Imports no JAX."""

import html
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from evor.errors import EvorError
from evor.report.config import read_config
from evor.report.evaluations import SETTING, Row, read_rows, stem_of
from evor.report.figures import ACCENT, MUTED, figure_html, look, subplots
from evor.report.html import PAGE, STYLE
from evor.report.maze import maze_sections
from evor.runtime.files import read_json, read_json_lines, write_text

Setting = tuple[str, ...]
ORIGIN = {"versions": {str: str}, "hardware": {"cpu": str, "device": str}, "commit": str | None}
SEEDS = 100  # that are listed


@look()
def write_report(runs: list[Path]) -> Path:
    """Write report/index.html into the first run, from the evaluations of all (of its losses, where nothing can be played).

    Raises EvorError where a run that could be played has no evaluations.
    """
    if not runs:
        raise EvorError("no run given; name at least one run folder.")
    sections = [_run_section(run) for run in runs]
    title = "evor: " + ", ".join(run.name for run in runs)
    page = PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(sections))
    path = runs[0] / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    write_text(path, page)
    return path


def read_evaluations(run: Path) -> dict[int, list[Row]]:
    """All episodes that a run's checkpoints played, by updates, the newest checkpoint first. Raises EvorError where there are none."""
    rows: dict[int, list[Row]] = defaultdict(list)
    for path in sorted((run / "evaluations").glob("*.csv")):
        for row in read_rows(path):
            rows[row["updates"]].append(row)
    if not rows:
        raise EvorError(f"{run} has no evaluations; run `evor evaluate {run}` first.")
    return {updates: rows[updates] for updates in sorted(rows, reverse=True)}


def group(rows: list[Row]) -> dict[Setting, list[Row]]:
    """Rows by search setting, fewest candidates first."""
    by_setting: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        by_setting[tuple(str(row[name]) for name in SETTING)].append(row)
    order = sorted(by_setting, key=lambda s: (float(s[1]), s[0] != "Prior", s[2:]))
    return {setting: by_setting[setting] for setting in order}


def success_by_seed(rows: list[Row]) -> np.ndarray:
    """Mean success of each seed, over its tasks and episodes."""
    seeds = sorted({row["seed"] for row in rows})
    return np.array([np.mean([row["success"] for row in rows if row["seed"] == seed]) for seed in seeds])


def success_interval(rows: list[Row]) -> tuple[float, float]:
    """95 % Wilson interval of the success rate, over episodes."""
    n, p, z = len(rows), float(np.mean([row["success"] for row in rows])), 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def _run_section(run: Path) -> str:
    config = read_config(run)
    origin = read_json(run / "provenance.json", **ORIGIN)
    metrics = read_json_lines(run / "metrics.jsonl", step=int, seed=int, task=int)
    if config["dataset"] is None and not any((run / "evaluations").glob("*.csv")):
        updates = metrics[-1]["step"] if metrics else 0
        parts = [
            _heading(run, config, updates=updates),
            UNPLAYED,
            _losses(metrics),
            _footer(config, origin, reward_rule="none"),
        ]
        return "\n".join(parts)
    (updates, rows), *others = read_evaluations(run).items()
    groups = group(rows)
    parts = [_heading(run, config, updates=updates), *_played(rows), _others(others)]
    parts += maze_sections(run, {setting: stem_of(rows[0]) for setting, rows in groups.items()}, updates=updates)
    parts.append(_losses(metrics))
    parts.append(_footer(config, origin, reward_rule=str(rows[0]["reward_rule"])))
    return "\n".join(parts)


def _heading(run: Path, config: dict[str, Any], *, updates: int) -> str:
    agent = config["agent"]
    objective = agent.get("objective")
    objective = objective if isinstance(objective, dict) else {}
    n_steps = objective.get("n_steps", agent.get("n_steps"))
    how = ", ".join(map(str, filter(None, [agent["type"], objective.get("type"), n_steps and f"n = {n_steps}"])))
    details = [
        f"{html.escape(config['dataset'] or config['data'] or '')}",
        f"task{'s' * (len(config['tasks']) > 1)} {', '.join(map(str, config['tasks']))}",
        f"{config['num_seeds']} seed{'s' * (config['num_seeds'] > 1)}",
        f"{updates:,} updates",
        html.escape(how),
    ]
    return f"<h1>{html.escape(run.name)}</h1><p class=facts>{' · '.join(details)}</p>"


def _played(rows: list[Row]) -> list[str]:
    """A table and a figure for each environment: a run on data of a user's own may have played several."""
    names = sorted({str(row["dataset"]) for row in rows})
    parts = []
    for name in names:
        groups = group([row for row in rows if row["dataset"] == name])
        parts += [f"<h2>{html.escape(name)}</h2>"] if len(names) > 1 else []
        parts += [_table(groups), _scaling(groups)]
    return parts


def _number(number: float, digits: str = ".2f") -> str:
    """A number, or a dash where there is none, as of success where an environment tells of none."""
    return "–" if np.isnan(number) else format(number, digits)


def _table(groups: dict[Setting, list[Row]]) -> str:
    tasks = sorted({int(row["task"]) for rows in groups.values() for row in rows})
    head = "".join(f"<th>task {task}</th>" for task in tasks) if len(tasks) > 1 else ""
    lines = []
    for setting, rows in groups.items():
        per_task = [[row["success"] for row in rows if row["task"] == task] for task in tasks]
        cells = "".join(f"<td>{_number(np.mean(part)) if part else '–'}</td>" for part in per_task)
        cells = cells if len(tasks) > 1 else ""
        seeds = success_by_seed(rows)
        low, high = success_interval(rows)
        told = not np.isnan(seeds.mean())
        spread = f" ± {seeds.std(ddof=1):.2f}" if len(seeds) > 1 and told else ""
        chosen = "".join(f"<td>{html.escape(part) or '–'}</td>" for part in setting)
        lines.append(
            f"<tr>{chosen}{cells}"
            f"<td class=main>{_number(seeds.mean())}{spread}</td>"
            f"<td>{f'{low:.2f} to {high:.2f}' if told else '–'}</td>"
            f"<td>{np.mean([row['return'] for row in rows]):.4g}</td>"
            f"<td>{np.mean([row['length'] for row in rows]):.0f}</td><td>{len(rows)}</td></tr>"
        )
    return (
        "<h2>Success</h2><table><tr><th>search</th><th>candidates</th><th>τ<sub>R</sub></th><th>τ<sub>Q</sub></th><th>reading</th><th>flow steps</th><th>max return</th>"
        f"{head}<th>success</th><th>95 % interval</th><th>mean return</th><th>mean length</th><th>episodes</th></tr>{''.join(lines)}</table>"
        "<p class=note>The newest checkpoint that was played. Mean over the tasks and episodes played, ± the standard deviation over seeds where there are "
        "several; the interval is Wilson's, over episodes. Temperatures are in units of the return's standard deviation.</p>"
    )


def _others(others: list[tuple[int, list[Row]]]) -> str:
    """A line about the evaluations that the page does not show."""
    counts = ", ".join(f"{updates:,} updates ({len(rows)} episode{'s' * (len(rows) > 1)})" for updates, rows in others)
    return f"<p class=note>Earlier checkpoints were played too, see evaluations/: {counts}.</p>" if others else ""


def _scaling(groups: dict[Setting, list[Row]]) -> str:
    """Success against candidates, one line per pair of temperatures; the base policy stands at one candidate."""
    if any(np.isnan(row["success"]) for rows in groups.values() for row in rows):
        return ""
    lines: dict[tuple[str, ...], list[tuple[float, float, float, float]]] = defaultdict(list)
    base: list[tuple[float, float, float, float]] = []
    for setting, rows in groups.items():
        point = (float(setting[1]), float(np.mean([row["success"] for row in rows])), *success_interval(rows))
        if setting[0] == "Prior":
            base.append(point)
        else:
            lines[setting[0], *setting[2:]].append(point)
    figure, axis = subplots(figsize=(7, 3.4))
    for index, (label, points) in enumerate(lines.items()):
        # One candidate is the base policy, so a line may begin there.
        joined = base + points if len(points) > 1 and not any(point[0] == 1 for point in points) else points
        x, y, low, high = np.array(sorted(joined)).T
        colour = ACCENT if len(lines) == 1 else matplotlib.colormaps["viridis"](index / len(lines))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(
            x, y, "o-", color=colour, label=f"{label[0]}, τR {label[1]}, τQ {label[2]}, {label[3]}, {label[4]} steps"
        )
    if base:
        axis.axhline(base[0][1], color=MUTED, linestyle=":", linewidth=1.5)
        transform = axis.get_yaxis_transform()
        axis.text(0.99, min(base[0][1] + 0.03, 0.95), "base policy", ha="right", color=MUTED, transform=transform)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set(xlabel="candidates per decision", ylabel="success", ylim=(-0.03, 1.05))
    if len(lines) > 1:
        axis.legend(frameon=False, fontsize=8)
    return "<h2>More search, no retraining</h2>" + figure_html(
        figure, "Success against the number of candidates; the band is the 95 % interval over episodes."
    )


def _losses(lines: list[dict[str, Any]]) -> str:
    names = [name for name in (lines[0] if lines else ()) if name.endswith("/loss")]
    names = [name for name in names if all(isinstance(line.get(name), float) for line in lines)]
    if len(lines) < 2 or not names:
        return ""
    figure, axes = subplots(1, len(names), figsize=(4.5 * len(names), 2.8), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for key in sorted({(line["seed"], line["task"]) for line in lines}):
            points = [(line["step"], line[name]) for line in lines if (line["seed"], line["task"]) == key]
            axis.plot(*zip(*points, strict=True), color=ACCENT, alpha=0.6, linewidth=1.2)
        axis.set(title=name, xlabel="updates")
    return "<h2>Training</h2>" + figure_html(figure, "Losses, averaged between log lines; one curve per seed and task.")


def _footer(config: dict[str, Any], origin: dict[str, Any], *, reward_rule: str) -> str:
    installed = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    seeds = ", ".join(str(config["seed"] + i) for i in range(min(config["num_seeds"], SEEDS)))
    more = " and more" * (config["num_seeds"] > SEEDS)
    return (
        f"<footer><p>Seeds {seeds}{more}. {html.escape(installed)}. {html.escape(origin['hardware']['cpu'])}, "
        f"{html.escape(origin['hardware']['device'])}. Commit {origin['commit'] or 'unknown'}. "
        f"Environment rewards: {html.escape(reward_rule)}.</p>"
        f"<details><summary>config</summary><pre>{html.escape(json.dumps(config, indent=2))}</pre></details></footer>"
    )


UNPLAYED = (
    "<p class=note>Trained on data of your own: there is no environment here to play, so this page has no success. "
    "<code>evor.load(run)</code> acts, and tells the law of its returns.</p>"
)
