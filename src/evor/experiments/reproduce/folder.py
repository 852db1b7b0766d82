"""A reproduction's folder: manifest.json, results.csv and timings.csv, and cells/ with a run folder each."""

import contextlib
import json
import sys
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

from evor.agents.environments import told
from evor.errors import EvorError
from evor.experiments.reproduce.matrices import ENTRIES, Matrix, protocol
from evor.experiments.reproduce.rows import RESULT_COLUMNS, RowsByKey, key_of
from evor.experiments.reproduce.scales import Scale
from evor.experiments.reproduce.scores import SCORED, scored_key
from evor.experiments.reproduce.suite import Cell, Suite, agent_config, cells, evaluations, search
from evor.runtime.files import check_ours, hold_own, read_json, write_json
from evor.search.extraction import Extraction
from evor.search.labels import search_settings
from evor.training.config import differences, from_json, to_json

Remaining = list[
    tuple[int, list[tuple[Extraction, dict[str, Any]]]]
]  # updates, then searches with the heads of their rows


@contextlib.contextmanager
def locked(out: Path) -> Generator[None]:
    """Make `out` and keep it. Raises EvorError where another process works in it, or it holds something else."""
    marks = [out / "manifest.json", out / "results.csv"]  # a lost manifest is made again
    check_ours(out, next(filter(Path.exists, marks), marks[0]), kind="reproduction")
    out.mkdir(parents=True, exist_ok=True)
    with hold_own(out, "evor reproduce"):
        yield


def open_reproduction(out: Path, suite: Suite, *, scale: Scale, rows: RowsByKey) -> None:
    """Make `out`, which holds these rows, a reproduction of the suite's matrix at this scale, or find that it is.

    manifest.json lists all there is to run. Raises EvorError, and changes nothing, where `out` is another's or holds rows of
    agents that were set up differently.
    """
    matrix, path = suite.matrix, out / "manifest.json"
    everything = cells(Suite(matrix.name, matrix), scale)
    wanted = {"matrix": matrix.name, "scale": scale.name, "protocol": protocol(matrix, scale)}
    kept = _stored(path, wanted)
    agents = list(dict.fromkeys(cell.agent for cell in everything))
    _check_recipes(everything, scale, rows=rows, protocol=wanted["protocol"], recipes=kept["recipes"], out=out)
    for agent, dataset in dict.fromkeys((cell.agent, cell.dataset) for cell in everything):
        name = recipe_name(agent, scale, dataset=dataset, recipes=kept["recipes"])
        kept["recipes"].setdefault(agent, {})[name] = _agent_recipe(agent, scale, dataset=dataset)
    manifest = wanted | {
        "lead": matrix.lead,
        "scored": _scored(everything, scale),
        "agents": {agent: _about(agent, scale, agents=agents, matrix=everything) for agent in agents},
        "cells": [{"name": cell.name, **cell._asdict()} for cell in everything],
        "dials": [_search_columns(extraction) for extraction in matrix.further],
        "remark": matrix.plan(scale).remark,
    }
    write_json(path, manifest | kept)


def _stored(path: Path, wanted: dict[str, str]) -> dict[str, Any]:
    """Notes and recipes of a manifest, none where there is no file. Raises EvorError where it is of another matrix or scale."""
    kept: dict[str, Any] = {"notes": {}, "recipes": {}}
    if not path.exists():
        return kept
    try:
        stored = {"matrix": "paper"} | kept | read_json(path, "scale", "protocol")  # once there was one matrix alone
    except EvorError as error:
        raise EvorError(f"{error} Or remove it: rows that are of today's recipes are kept.") from error
    if {name: stored[name] for name in wanted} != wanted:
        raise EvorError(
            f"{path.parent} is a reproduction of {stored['matrix']} at scale {stored['scale']} ({stored['protocol']}); this one "
            f"is of {wanted['matrix']} at scale {wanted['scale']} ({wanted['protocol']}). Choose another --out."
        )
    kept = {name: stored[name] for name in kept}
    if broken := [name for name, content in kept.items() if not isinstance(content, dict)]:
        raise EvorError(f"{path} is damaged ({broken[0]!r} is no dict); restore it or start anew.")
    return kept


def _scored(matrix: list[Cell], scale: Scale) -> dict[str, list[int]]:
    """Updates whose evaluations make the score, by dataset; and by dataset and agent where they are fewer."""
    scored: dict[str, list[int]] = {}
    for cell in sorted(matrix, key=lambda cell: -cell.longer):
        steps = list(scale.played_steps(cell.longer))[-SCORED:]
        if scored.setdefault(cell.dataset, steps) != steps:
            scored[scored_key(cell.dataset, cell.agent)] = steps
    return scored


def _about(agent: str, scale: Scale, *, agents: list[str], matrix: list[Cell]) -> dict[str, str]:
    """Describe an agent on the page: the first one's options, the others' where they differ from one before.

    Where an agent has settings by environment, those of its datasets follow.
    """
    config, acts = agent_config(agent, scale), _search_columns(search(agent, scale))
    relatives = [name for name in agents if isinstance(config, type(agent_config(name, scale)))]
    lead = agents[0] if relatives[0] == agent else relatives[0]
    mine, theirs = to_json(config), to_json(agent_config(lead, scale))
    if lead == agent:
        options = _spelled(mine)
    else:
        old, new = ({name: side[name] for name in mine if name in theirs} for side in (theirs, mine))
        options = "; ".join([f"As {lead} in what both have", *differences(old, new)])
        if own := {name: value for name, value in mine.items() if name not in theirs}:
            options += f"; of its own: {_spelled(own)}"
    datasets = dict.fromkeys(cell.source for cell in matrix if cell.agent == agent)
    rows = [told(ENTRIES[agent], name, config=agent_config(agent, scale, dataset=name)) for name in datasets]
    return {
        "preset": ENTRIES[agent],
        "about": (sys.modules[type(config).__module__].__doc__ or "").partition("\n")[0],
        "options": " ".join([f"{options}.", *filter(None, rows)]),
        "search": ", ".join(f"{name} {value}" for name, value in acts.items() if value != "").removeprefix(
            "extraction "
        ),
    }


def _spelled(options: dict[str, Any]) -> str:
    """`objective SampleBackup, n_steps 20; standardise True`."""
    kinds = {name: value if isinstance(value, dict) else {"type": value} for name, value in options.items()}
    return "; ".join(
        ", ".join([f"{name} {kind['type']}", *(f"{key} {value}" for key, value in kind.items() if key != "type")])
        for name, kind in kinds.items()
    )


def read_notes(out: Path) -> dict[str, str]:
    """Why cells are empty, by their names."""
    return read_json(out / "manifest.json", notes=dict)["notes"]


def write_notes(out: Path, notes: dict[str, str]) -> None:
    """Why cells are empty, "" where one no longer is; the others' notes stay."""
    manifest = read_json(out / "manifest.json")
    kept = {cell: why for cell, why in (manifest["notes"] | notes).items() if why}
    write_json(out / "manifest.json", manifest | {"notes": kept})


# How an agent of the tables learns and acts: its recipe, as JSON, by a short name that stays.


def _check_recipes(
    matrix: list[Cell],
    scale: Scale,
    *,
    rows: RowsByKey,
    protocol: str,
    recipes: dict[str, dict[str, Any]],
    out: Path,
) -> None:
    """Raise EvorError where rows are of agents that were set up differently."""
    pairs = {(cell.agent, cell.dataset) for cell in matrix}
    today = {pair: recipe_name(pair[0], scale, dataset=pair[1], recipes=recipes) for pair in pairs}
    for row in rows.values():
        agent, dataset, name = row["agent"], row["dataset"], row["recipe"]
        if row["protocol"] != protocol:
            raise EvorError(
                f"{out / 'results.csv'} holds rows of another protocol ({row['protocol']}); scale {scale.name} is "
                f"{protocol}. Choose another --out."
            )
        if name != today.get((agent, dataset), name):
            stored = recipes.get(agent, {}).get(name)
            new = _agent_recipe(agent, scale, dataset=dataset)
            changed = f" ({'; '.join(differences(stored, new))})" if stored else ""
            raise EvorError(
                f"{out / 'results.csv'} holds {agent} on {dataset} by recipe {name}; today's is {today[agent, dataset]}"
                f"{changed}. Choose another --out, or remove those rows and their folders below cells/."
            )


def recipe_name(agent: str, scale: Scale, *, dataset: str, recipes: dict[str, dict[str, Any]]) -> str:
    """Name of today's recipe among those of the manifest, or a new one. An option younger than a recipe had its default."""
    content = _agent_recipe(agent, scale, dataset=dataset)
    for name, stored in recipes.get(agent, {}).items():
        with contextlib.suppress(EvorError):  # of options that are gone
            then = from_json(stored["agent"], type(agent_config(agent, scale)))
            if stored | {"agent": to_json(then)} == content:
                return name
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _agent_recipe(agent: str, scale: Scale, *, dataset: str) -> dict[str, Any]:
    return {
        "agent": to_json(agent_config(agent, scale, dataset=dataset)),
        "search": _search_columns(search(agent, scale)),
    }


def _search_columns(extraction: Extraction) -> dict[str, Any]:
    """The search as the columns that rows have here. No suite guides, so none says how."""
    return {name: value for name, value in search_settings(extraction).items() if name in RESULT_COLUMNS}


# Rows.


def row_keys(cell: Cell, scale: Scale, *, matrix: Matrix, updates: int, extraction: Extraction) -> list[dict[str, Any]]:
    """Keys of the rows of an evaluation: the columns of ORDER, for every task and seed."""
    label = matrix.name if extraction == search(cell.agent, scale) else matrix.label
    return [
        {
            "suite": label,
            "dataset": cell.dataset,
            "task": task,
            "agent": cell.agent,
            "seed": seed,
            "updates": updates,
            **_search_columns(extraction),
        }
        for task in cell.tasks
        for seed in cell.seeds
    ]


def remaining(cell: Cell, suite: Suite, *, scale: Scale, rows: RowsByKey) -> Remaining:
    """Evaluations of a cell that are not among the rows: after so many updates, these searches of these tasks and seeds."""
    by_checkpoint = [
        (
            updates,
            [
                (extraction, head)
                for extraction in wanted
                for head in row_keys(cell, scale, matrix=suite.matrix, updates=updates, extraction=extraction)
                if key_of(head) not in rows
            ],
        )
        for updates, wanted in evaluations(cell, suite, scale=scale)
    ]
    return [(updates, wanted) for updates, wanted in by_checkpoint if wanted]
