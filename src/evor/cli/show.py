"""`evor show`."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from evor.cli.options import Tabled, options, write_document
from evor.cli.over_base import base_argument
from evor.runtime.progress import screen
from evor.runtime.words import interval

VERSIONS = ("evor", "python", "jax", "ogbench")  # that the table names


def show_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Show(Tabled):
        """Show what is in RUN, a run folder or an exported policy, and how to use it."""

        # A run folder that `evor train --out` or `evor imitate --out` wrote, or a folder that `evor export --out` wrote.
        run: Positional[Path]

    return Show(run=tyro.MISSING)


def show(arguments: list[str]) -> None:
    from evor.report.config import is_imitation
    from evor.report.contents import read_contents

    a = options("evor show", arguments, defaults=show_options())
    if is_imitation(a.run):
        from evor.imitation.page import read_run, told

        imitation = told(read_run(a.run))
        _print_imitation(imitation)
        if a.json:
            write_document(imitation)
        return
    contents = read_contents(a.run)
    _print(contents)
    if a.json:
        write_document(contents | {"use": _use(contents)})


def _print(contents: dict[str, Any]) -> None:
    from rich.table import Table

    kind = {"run": "run folder", "export": "exported policy"}[contents["kind"]]
    table = Table("what", "value", title=f"{contents['folder']}: {kind}", title_justify="left")
    for name, value in _lines(contents).items():
        if value:
            table.add_row(name, value)
    screen.print(table)
    for line in _use(contents):
        screen.print(line, soft_wrap=True)


def _print_imitation(contents: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("what", "value", title=f"{contents['folder']}: imitation", title_justify="left")
    method = dict(contents["method"])
    shares = ", ".join(f"{name} {value}" for name, value in method.items() if name != "type")
    lines = {
        "environment": contents["env"],
        "method": f"{method['type']} ({shares})" if shares else method["type"],
        "reward": contents["reward"],
        "body": ", ".join(f"{name} {value}" for name, value in contents["body"].items()),
        "returns of others": ", ".join(f"{name} {value:.1f}" for name, value in contents["references"].items()),
        **{
            f"seed {seed}": f"return {done['return']:.1f} after {done['step']:,} of {contents['steps']:,} steps, {done['all_steps']:,} in all"
            for seed, done in contents["seeds"].items()
        },
        "commit": contents["commit"] or "",
    }
    for name, value in lines.items():
        if value:
            table.add_row(name, value)
    screen.print(table)
    screen.print(f"On the command line: `evor report {shlex.quote(contents['folder'])}`", soft_wrap=True)


def _lines(contents: dict[str, Any]) -> dict[str, str]:
    """The rows of the table; empty ones are left out."""
    config, data, origin = contents["config"], contents["data"], contents["trained_with"]
    installed, machine = origin.get("versions", {}), origin.get("hardware", {})
    updates = contents["checkpoints"]
    return {
        "agent": contents["agent"],
        "data": ", ".join(
            text
            for text in (data["dataset"], data.get("files"), f"digest {data['digest']}" if "digest" in data else "")
            if text
        ),
        "labels": data.get("labels", ""),
        "observations": ", ".join(f"{key} [{width}]" for key, width in data.get("observations", ())),
        "action bounds": _bounds(contents["action_bounds"]),
        "sizes": f"observations {contents['observation_dim']}, actions {contents['action_dim']}",
        "tasks": _listed(contents["tasks"]),
        "seeds": _listed(contents["seeds"]),
        "return std": ", ".join(f"{value:.4g} (task {task})" for task, value in contents["return_std"].items()),
        "updates": f"{updates[-1] if updates else 0}" + (f" of {config['updates']}" if "updates" in config else ""),
        "checkpoints": _listed(updates) if contents["kind"] == "run" else "",
        "last metrics": ", ".join(f"{name} {value:.4g}" for name, value in contents.get("metrics", {}).items()),
        "evaluations": "\n".join(_evaluation(line, data["dataset"]) for line in contents.get("evaluations", ())),
        "versions": ", ".join(f"{name} {installed[name]}" for name in VERSIONS if name in installed),
        "hardware": ", ".join(machine[name] for name in ("cpu", "device") if name in machine),
        "commit": origin.get("commit") or "",
    }


def _bounds(pairs: list[list[float]]) -> str:
    """Bounds of actions in a line: once where they are the same for all entries."""
    texts = [interval(low, high) for low, high in pairs]
    return ", ".join(dict.fromkeys(texts) if len(set(texts)) == 1 else texts)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _evaluation(line: dict[str, Any], dataset: str | None) -> str:
    """An evaluation in a line. It names what was played where that is not the dataset of the run."""
    from evor.report.evaluations import search_name

    tasks = f"task{'s' * (len(line['tasks']) > 1)} {_listed(line['tasks'])}"
    told = not math.isnan(line["success"])  # an environment of the user's own may tell of no success
    score = f"success {line['success']:.3f}" if told else f"mean return {line['return']:.4g}"
    where = "" if line["dataset"] == dataset else f" of {line['dataset']}"
    guidance = f", {line['guidance']}, weight {line['weight']:g}" if line["guidance"] else ""
    return (
        f"{search_name(line['extraction'])}, candidates {line['num_candidates']}{guidance}, {line['updates']} updates, {tasks}: "
        f"{score} in {line['episodes']} episodes{where}"
    )


def _use(contents: dict[str, Any]) -> list[str]:
    """Lines on how to act with it, and what to run next."""
    folder = contents["folder"]
    chosen = [
        f"{name}={there[0]}"
        for name, there in (("task", contents["tasks"]), ("seed", contents["seeds"]))
        if len(there) > 1
    ]
    base = contents["base"]  # without it, nothing proposes
    of_base = [] if base is None else [base_argument(base)]
    base_flag = "" if base is None else f" --base {shlex.quote(base or 'POLICY')}"
    act = f"policy = evor.load({', '.join([repr(folder), *chosen, *of_base])}); action = policy.act(observation)"
    if contents["kind"] == "export":
        return [f"In Python: {act}"]
    quoted = shlex.quote(folder)
    if not contents["checkpoints"]:
        return [f"There is no checkpoint yet. Continue with `evor train ... --out {quoted} --resume`."]
    flags = "".join(f" --{text.replace('=', ' ')}" for text in chosen)
    played = f"evor evaluate {quoted}{base_flag}" if contents["data"]["dataset"] else f"evor report {quoted}"
    return [f"In Python: {act}", f"On the command line: `{played}`, `evor export {quoted}{flags} --out FOLDER`"]
