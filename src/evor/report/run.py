"""Rows and arrays left by evaluate -> one self-contained page. Imports no JAX."""

import html
import itertools
import math
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evor.errors import EvorError
from evor.report.about import about, facts, followed, provenance
from evor.report.config import read_config
from evor.report.evaluations import Row, read_files, stem_of
from evor.report.figures import look
from evor.report.grid import grid_section
from evor.report.held_out import held_out_sections
from evor.report.html import PAGE, STYLE, below, contents, paragraph
from evor.report.learning import learning_section
from evor.report.maze import maze_sections
from evor.report.predictions import predictions_section
from evor.report.success import candidates_section, group, success_section
from evor.runtime.files import listed, name_of, read_json, read_json_lines, write_text

ORIGIN = {"versions": {str: str}, "hardware": {"cpu": str, "device": str}, "commit": str | None}


@look()
def write_report(runs: list[Path], missing: Mapping[Path, str] | None = None) -> Path:
    """Write report/index.html into the first run: of each run what its evaluations, logs and held-out predictions tell.

    `missing` says of a run on own data why its held-out predictions could not be made.
    Raises EvorError where a run that could be played has no evaluations.
    """
    if not runs:
        raise EvorError("no run given; name at least one run folder.")
    bodies = [_run_body(run, (missing or {}).get(run, "")) for run in runs]
    names = ", ".join(map(name_of, runs))
    if len(bodies) > 1:
        parts = [below(body, f"run-{number}") for number, body in enumerate(bodies, 1)]
        bodies = [f"<h1>{len(runs)} runs</h1>", contents("".join(parts), "this page"), *parts]
    page = PAGE.format(title=html.escape(f"evor: {names}"), style=STYLE, body="\n".join(bodies))
    path = runs[0] / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    write_text(path, page)
    return path


def read_evaluations(run: Path) -> dict[int, list[Row]]:
    """All episodes that a run's checkpoints played, by updates, the newest checkpoint first. Raises EvorError where there are none."""
    rows: dict[int, list[Row]] = defaultdict(list)
    for row in itertools.chain(*read_files(run / "evaluations")):
        rows[row["updates"]].append(row)
    if not rows:
        raise EvorError(f"{run} has no evaluations; run `evor evaluate {shlex.quote(str(run))}` first.")
    return {updates: rows[updates] for updates in sorted(rows, reverse=True)}


def is_on_own_data(run: Path) -> bool:
    """Whether a run was trained on data of the user's own. Raises EvorError where it is no run."""
    return read_config(run)["dataset"] is None


def _run_body(run: Path, missing: str) -> str:
    config = read_config(run)
    agent = str(config["agent"]["type"])
    origin = read_json(run / "provenance.json", **ORIGIN)
    metrics = read_json_lines(run / "metrics.jsonl", step=int, seed=int, task=int)
    title = f'<h1 id="run">{html.escape(name_of(run))}</h1>'
    if config["dataset"] is None:
        updates = metrics[-1]["step"] if metrics else 0
        evaluations = read_evaluations(run) if listed(run / "evaluations", "*.csv") else {}
        played = _own_environments(evaluations, config)
        parts = [
            *played,
            learning_section(metrics, evaluations if _is_one_with_success(evaluations) else {}, agent=agent),
            *held_out_sections(run, config, missing=missing),
            provenance(config, origin, reward_rule="own" if played else ""),
        ]
        head = [
            title,
            facts(config, updates=updates),
            about(config, updates=updates),
            paragraph(OWN_DATA.format("" if played else HOW_TO_PLAY)),
        ]
    else:
        evaluations = read_evaluations(run)
        updates, rows = next(iter(evaluations.items()))
        groups = group(rows)
        files = {setting: stem_of(rows[0]) for setting, rows in groups.items()}
        parts = [
            success_section(groups, {other: evaluations[other] for other in evaluations if other != updates}),
            candidates_section(groups),
            grid_section(groups),
            learning_section(metrics, evaluations, agent=agent),
            predictions_section(groups, config),
            *maze_sections(run, files, updates=updates, after=followed(config)),
            provenance(config, origin, reward_rule=str(rows[0]["reward_rule"])),
        ]
        head = [title, facts(config, updates=updates), about(config, updates=updates), paragraph(PLAYED)]
    body = "\n".join(filter(None, parts))
    return "\n".join([*head, contents(body, name_of(run)), body])


def _is_one_with_success(evaluations: dict[int, list[Row]]) -> bool:
    """Whether one environment alone was played, and told of success: its curve over checkpoints means something."""
    rows = list(itertools.chain(*evaluations.values()))
    return len({row["dataset"] for row in rows}) == 1 and not any(math.isnan(row["success"]) for row in rows)


def _own_environments(played: dict[int, list[Row]], config: dict[str, Any]) -> list[str]:
    """Sections of what was played in environments of the user's own, each under its name, by the newest checkpoint there."""
    by_name: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for updates, rows in played.items():
        for row in rows:
            by_name[str(row["dataset"])][updates].append(row)
    parts = []
    for name, evaluations in sorted(by_name.items()):
        (updates, rows), *others = evaluations.items()
        groups, earlier = group(rows), updates != next(iter(played))
        where = f" in {name}" + f", after {updates:,} updates" * earlier
        parts += [success_section(groups, dict(others), where=where), candidates_section(groups, where=where)]
        parts += [grid_section(groups, where=where), predictions_section(groups, config, where=where)]
    return parts


PLAYED = (
    "Afterwards the checkpoints played episodes in the environment, and this page shows what came of it. A return is the sum of "
    "an episode's rewards, in the reward's own units; a discounted return counts later rewards less."
)
OWN_DATA = (
    "The data are your own. This page compares what the value predicts with what was recorded. {}A reward-to-go is the "
    "discounted sum of the rewards from a step to the end."
)
HOW_TO_PLAY = "To see the policy play in an environment of yours, run `evor evaluate RUN --env module:make_env` first. "
