"""Fills the tables of README and docs from docs/results: `python benchmarks/readme.py`. A test holds the pages to it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import learner_study
import numpy as np

from evor.experiments.reproduce.scales import find_scale
from evor.experiments.reproduce.scores import SCORED
from evor.experiments.reproduce.suite import agent_config, search
from evor.experiments.reproduce.tables import summary
from evor.search.labels import search_settings
from evor.training.config import differences, from_json, to_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(page, path.read_text()))


def filled(page: str, text: str) -> str:
    """A page with the text between its markers replaced."""
    for name, content in PAGES[page].items():
        text = re.sub(
            f"<!-- {name} -->.*?<!-- /{name} -->",
            lambda _, name=name, content=content: f"<!-- {name} -->\n{content()}<!-- /{name} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def demos() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("demo-seed*.json"))]


def headline() -> str:
    """Cost and result, for a reader who has a minute."""
    runs = demos()
    if not runs:
        return ""
    base, best = ([run["evaluations"][i]["success"] for run in runs] for i in (0, -1))
    lengths = [run["evaluations"][-1]["mean_length"] for run in runs]
    minutes = max(run["total_seconds"] for run in runs) / 60
    return (
        f"The demo takes {minutes:.1f} minutes on {cpu(runs[0])}. It learns task 1 of pointmaze-medium from "
        f"{runs[0]['transitions']:,} task-agnostic transitions of a noisy navigation policy. Without search, the base policy "
        f"solves {np.mean(base):.0%} of the episodes. With 32 candidates per decision the same policy solves "
        f"{np.mean(best):.0%}, after {np.mean(lengths):.0f} steps on average ({len(runs)} seeds, "
        f"{runs[0]['evaluations'][0]['episodes']} episodes each).\n"
    )


def cpu(run: dict[str, Any]) -> str:
    count, _, name = run["hardware"]["cpu"].partition(" x ")
    return f"{count} CPU cores ({name})"


def demo_table() -> str:
    runs = demos()
    if not runs:
        return ""
    lines = [
        f"`make demo-results`, seeds {', '.join(str(run['seed']) for run in runs)}. {runs[0]['updates']:,} updates on task 1, "
        f"{runs[0]['evaluations'][0]['episodes']} episodes per cell, last checkpoint.\n",
        "| search | " + " | ".join(f"seed {run['seed']}: success (mean length)" for run in runs) + " |",
        "| --- |" + " --- |" * len(runs),
    ]
    for i, evaluation in enumerate(runs[0]["evaluations"]):
        count = evaluation["num_candidates"]
        label = "base policy" if evaluation["extraction"] == "Prior" else f"{count} candidates"
        cells = [f"{run['evaluations'][i]['success']:.2f} ({run['evaluations'][i]['mean_length']:.0f})" for run in runs]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines.append("| wall time in all | " + " | ".join(f"{run['total_seconds']:.0f} s" for run in runs) + " |")
    return "\n".join(lines) + f"\n\n{origin(runs[0])}\n"


def comparison() -> str:
    """README's table: today's default beside the baselines at equal seconds, with what a reader must know of it."""
    return "\n".join(learner_study.summary(learner_study.finished())) + "\n"


def paper_tables() -> str:
    """One per reproduction in docs/results, for the page of results."""
    parts = []
    for out in reproductions():
        parts += [
            f"{_caption(out)} `evor-paper` finds little in the maze: [why](law-or-mean.md). Data, updates, learning rates and "
            "episodes are not those of the demo. Intervals, every task, published numbers and provenance are on "
            f"[the page of the reproduction]({out.name}/results.md).\n",
            *summary(out),
        ]
    return "\n".join(parts) + "\n" if parts else ""


def reproductions() -> Iterator[Path]:
    """Folders of docs/results that `evor reproduce paper` wrote."""
    manifests = sorted(RESULTS.glob("*/manifest.json"))
    return (path.parent for path in manifests if json.loads(path.read_text()).get("matrix", "paper") == "paper")


def _caption(out: Path) -> str:
    manifest = json.loads((out / "manifest.json").read_text())
    scale = manifest["scale"]
    return (
        f"`evor reproduce paper --scale {scale}`: success in percent, mean ± standard deviation over seeds. "
        f"A score is the mean of a run's last {SCORED} evaluations. "
        "**Bold** is within 95 % of a row's best, whatever the number of seeds. "
        f"{_lead(manifest)} `evor-paper` has the paper's settings."
    )


def _lead(manifest: dict[str, Any]) -> str:
    """Say what the agent `evor` of a reproduction is: today's default, or an earlier one and what has changed since."""
    scale = find_scale(manifest["scale"])
    agent, acts = agent_config("evor", scale), search_settings(search("evor", scale))
    changes = []
    for recipe in manifest["recipes"].get("evor", {}).values():
        then = {name: value for name, value in recipe["search"].items() if name in acts}
        now = {name: acts[name] for name in then}
        of_agent = differences(to_json(from_json(recipe["agent"], type(agent))), to_json(agent))
        changes.append(of_agent + differences(then, now, prefix="search."))
    if not changes or [] in changes:
        return "`evor` is the default agent."
    return f"`evor` is the default of an earlier version. Changed since then: {'; '.join(changes[-1])}."


def origin(made: dict[str, Any]) -> str:
    names = ("evor", "python", "jax", "ogbench", "mujoco")
    installed = ", ".join(f"{name} {made['versions'][name]}" for name in names)
    return f"{made['hardware']['cpu']}; {installed}; commit {made['commit']}."


def sac_speed() -> str:
    """CPU time of an update of SAC, beside two other libraries."""
    made = json.loads((RESULTS / "sac-speed.json").read_text())
    lines = ["| Library | Version | Update | Time of evor in float32 |", "| --- | --- | --- | --- |"]
    for name, found in made["libraries"].items():
        lines.append(f"| {name} | {found['version']} | {found['milliseconds']:.2f} ms | {found['ratio']:.2f} x |")
    told = (
        f"The medians of {made['blocks']} blocks of {made['updates_of_a_block']} updates each, on one thread, measured in turn. Other "
        f"programs ran on the machine (load {made['load'][0]:.1f}), so the ratios count. {origin(made)}"
    )
    return "\n".join([*lines, "", told, ""])


def cell_end() -> str:
    made = json.loads((RESULTS / "cell-end.json").read_text())
    lines = ["| Rows that are there | ms, the median of 20 ends | 10 % to 90 % |", "| --- | --- | --- |"]
    for result in made["results"]:
        low, median, high = result["milliseconds"]
        lines.append(f"| {result['rows']:,} | {median:.1f} | {low:.1f} to {high:.1f} |")
    told = f"`python benchmarks/cell_end.py`: {cpu(made)}, commit {made['commit'][:7]}."
    return "\n".join([*lines, "", told]) + "\n"


def checkpoints() -> str:
    """Saving and reading a training state."""
    made = json.loads((RESULTS / "checkpoints.json").read_text())
    lines = ["| State | Devices | | Processor time | Memory beyond the state |", "| --- | --- | --- | --- | --- |"]
    for row in made["rows"]:
        devices = "1" if row["devices"] == 1 else f"{row['devices']}, simulated"
        for call, what in (("save", "saved"), ("read", "read")):
            seconds, peak = row[call]["cpu_seconds"], row[call]["peak_mib"]
            lines.append(f"| {row['mib']:,.0f} MiB | {devices} | {what} | {seconds:.1f} s | {peak:,.0f} MiB |")
    return "\n".join([*lines, "", f"Other programs ran on the machine. {origin(made)}", ""])


# The markers of each page, and what stands between them.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"headline": headline, "comparison": comparison},
    "docs/index.md": {"headline": headline},
    "docs/concepts/imitation.md": {"sac-speed": sac_speed},
    "docs/concepts/scaling.md": {"checkpoints": checkpoints, "cell end": cell_end},
    "docs/results/index.md": {"demo": demo_table, "paper": paper_tables},
}

if __name__ == "__main__":
    main()
