"""Contents of a run folder or of an exported policy, read from its files alone. Imports no JAX."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evor.errors import EvorError, why
from evor.report.config import has_own_base, read_config
from evor.report.evaluations import SETTING, read_files
from evor.runtime.files import numbered, read_json, read_json_lines
from evor.runtime.tensors import open_tensors

POLICY = "policy.json"  # of an export
LEARNING = ("hidden", "batch_size", "learning_rate", "final_learning_rate", "precision")


def read_contents(folder: Path) -> dict[str, Any]:
    """Contents of a run folder or of an export, as plain JSON values.

    Raises EvorError where the folder is neither, or where a file is damaged.
    """
    if (folder / POLICY).is_file():
        return _read_export(folder)
    if not (folder / "config.json").is_file():
        raise EvorError(
            f"{folder} is no run and no exported policy; give a folder that `evor train --out` or `evor export --out` wrote."
        )
    return _read_run(folder)


def _read_run(run: Path) -> dict[str, Any]:
    config = read_config(run)
    stored = read_json(run / "config.json", spec={"observation_dim": int, "action_dim": int}, data_digest=str)
    checkpoints = numbered(run / "checkpoints", "step_", suffix=".safetensors")
    tasks, first = config["tasks"], config["seed"]
    newest = checkpoints[max(checkpoints)] if checkpoints else None
    std = _return_std(newest) if newest else []
    return {
        "kind": "run",
        "folder": str(run),
        "agent": _agent(config["agent"]),
        "config": config,
        "base": _base(config["agent"], (stored.get("proposals") or {}).get("base")),
        "data": {"dataset": config["dataset"], "files": config["data"], "digest": stored["data_digest"]}
        | _imported(stored.get("imported")),
        "tasks": tasks,
        "seeds": [first + index for index in range(config["num_seeds"])],
        **stored["spec"],
        "return_std": {str(task): value for task, value in zip(tasks, std, strict=False)},
        "action_bounds": _action_bounds(newest) if newest else [],
        "checkpoints": list(checkpoints),
        "metrics": _last_metrics(run),
        "evaluations": _evaluations(run),
        "trained_with": _origin(run / "provenance.json"),
    }


def _read_export(folder: Path) -> dict[str, Any]:
    kinds = {"dataset": str | None, "task": int, "seed": int, "updates": int}
    stored = read_json(
        folder / POLICY, config={"type": str}, spec={"observation_dim": int, "action_dim": int}, origin=kinds
    )
    origin = stored["origin"]
    return {
        "kind": "export",
        "folder": str(folder),
        "agent": _agent(stored["config"]),
        "config": stored["config"],
        "base": _base(stored["config"], origin.get("base")),
        "data": {"dataset": origin["dataset"]} | _imported(origin.get("imported")),
        "tasks": [origin["task"]],
        "seeds": [origin["seed"]],
        **stored["spec"],
        "return_std": {str(origin["task"]): value for value in _return_std(folder / "policy.safetensors")},
        "action_bounds": _action_bounds(folder / "policy.safetensors"),
        "checkpoints": [origin["updates"]],
        "trained_with": {"versions": stored.get("versions", {})},
    }


def _agent(config: dict[str, Any]) -> str:
    """The agent and its choices in a line: `Evor, objective SampleBackup (n_steps 20), hidden [256, 256, 256]`."""
    choices = [f"{name} {_choice(value)}" for name, value in config.items() if isinstance(value, dict)]
    return ", ".join([config["type"], *choices, *_pairs(config, LEARNING)])


def _base(config: dict[str, Any], name: Any) -> str | None:
    """The base policy of the user's own that a value was trained over, "" where it has no name; None for one of the run's."""
    return str(name or "") if has_own_base(config) else None


def _choice(value: dict[str, Any]) -> str:
    plain = [name for name, inner in value.items() if name != "type" and not isinstance(inner, dict)]
    inside = ", ".join(_pairs(value, plain))
    return f"{value.get('type', '')} ({inside})" if inside else str(value.get("type", ""))


def _pairs(config: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{name} {config[name]}" for name in names if name in config]


def _imported(stored: Any) -> dict[str, Any]:
    """Facts that `evor data import` left about the data."""
    if not isinstance(stored, dict):
        return {}
    return {name: stored[name] for name in ("labels", "observations") if name in stored}


def _return_std(path: Path) -> list[float]:
    """The standard deviation of the return of each task, the unit of temperatures."""
    return _numbers(path, "return_std")


def _action_bounds(path: Path) -> list[list[float]]:
    """The least and the largest value of each entry of an action; [] in files of versions without bounds."""
    low, high = (_numbers(path, name) for name in ("action_low", "action_high"))
    return [list(pair) for pair in zip(low, high, strict=True)]


def _numbers(path: Path, ending: str) -> list[float]:
    """The numbers of the array whose name ends so. Raises EvorError where the file can't be read."""
    try:
        with open_tensors(path) as file:
            names = [name for name in file.keys() if name.endswith(ending)]  # noqa: SIM118 - not a mapping
            return [float(value) for name in names for value in file.get_tensor(name).reshape(-1)]
    except PermissionError:
        raise
    except Exception as error:  # damaged bytes make parsers raise anything
        raise EvorError(f"{path} is cut or damaged ({why(error)}); restore it.") from error


def _last_metrics(run: Path) -> dict[str, float]:
    """The means of the last lines of the log, over seeds and tasks."""
    lines = read_json_lines(run / "metrics.jsonl", step=int, seed=int, task=int)
    last = [line for line in lines if line["step"] == lines[-1]["step"]]
    names = [name for name in (last[0] if last else ()) if name not in ("step", "seed", "task")]
    means = {name: sum(line[name] for line in last) / len(last) for name in names}
    return {"updates": last[0]["step"], **means} if last else {}


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluations there are, summed up: a line for each dataset that was played, number of updates and search."""
    found = []
    for rows in read_files(run / "evaluations"):
        for dataset, updates in sorted({(row["dataset"], row["updates"]) for row in rows}):
            part = [row for row in rows if (row["dataset"], row["updates"]) == (dataset, updates)]
            line = {name: part[0][name] for name in SETTING}
            line |= {"dataset": dataset, "updates": updates, "episodes": len(part)}
            line |= {"tasks": sorted({row["task"] for row in part}), "seeds": sorted({row["seed"] for row in part})}
            means = {name: sum(row[name] for row in part) / len(part) for name in ("success", "return")}
            found.append(line | means)
    return sorted(found, key=lambda line: (line["dataset"], line["updates"], line["num_candidates"]))


def _origin(path: Path) -> dict[str, Any]:
    """Versions, hardware and commit of the run: of the last place where it was trained."""
    if not path.is_file():
        return {}
    stored = read_json(path, versions={str: str}, hardware={"cpu": str, "device": str}, commit=str | None)
    last = [stored, *stored.get("resumed", [])][-1]
    return {name: last[name] for name in ("versions", "hardware", "commit") if name in last}
