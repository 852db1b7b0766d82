"""What `evor verify` found, for docs/results: `make verify` runs it and writes verify.json, verify.md and verify.png.

verify.json keeps every measure but the quantile functions, which the page in runs/verify and verify.png draw.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from evor.files import atomic_path, write_json, write_text
from evor.style import ACCENT, BASE, WALL

RUN, RESULTS = Path("runs/verify"), Path("docs/results")
BULKY = ("quantiles", "exact", "observation", "pit")
DRAWN = ("flow-td", "flow-td-dataset-return", "sample-backup-1", "sample-backup-50")


GUIDE = [
    "The laws are those of `src/evor/data/toy.py`, written as a user's npz and trained through the run folder. What is asked "
    "is whether an objective learns the law, so everything else is better than the default recipe: batches of rows_per_pair "
    "rows for every state and action (but at least 1,024 rows in all and at most 3,072), sines of the return in the value's "
    "input, and the second-order solver, read with 20 steps. The default's ten Euler steps alone leave a unit normal with a "
    "standard deviation of 0.88.",
    "",
    "| problem | what happens |",
    "| --- | --- |",
    "| coin | +1 or -1 at the end of one step |",
    "| gaussian, negative-exponential | one step, a reward from that law |",
    "| chain-2, chain-10 | +1 or -1 at each step, discounted |",
    "| corridor, cut-corridor | -1 a step until a door is found, a geometric time; the second is cut after 20 steps |",
    "| fork | 0.5 for certain, or 2 with probability 0.2 and -0.25 otherwise: the mean and the upper tail choose differently |",
    "| deterministic-tree, slippery-tree | two decisions with unequal odds; in the second the dynamics are random too |",
    "| hidden-intent | an intent that no observation shows decides both rewards: n = 1 and n > 1 have different limits |",
    "| slope | a continuous state; the reward's mean and spread change along it |",
    "",
    '"Best backup" is SampleBackup with the n of 1, 5 and 50 whose W1 is smallest: the bound asks that one of them learn the '
    "law. It allows 0.1 for chain-10 and the corridors, 0.05 elsewhere; slope, which is not tabular, has the bounds of one-step "
    "backups, MonteCarlo and FlowTd. Where two objectives are the same mathematics (past the longest episode all n are alike), "
    'one training stands for both. A blank cell: cut episodes hold no whole returns. "Temperatures that choose otherwise" '
    "counts the tau_R at which the learned laws of the fork choose another action than the exact ones.",
]


def main() -> None:
    report = json.loads((RUN / "verify.json").read_text())
    write_text(RESULTS / "verify.md", page(report))
    draw(report, RESULTS / "verify.png")
    for cell in report["cells"]:
        cell["probes"] = [{k: rounded(v) for k, v in probe.items() if k not in BULKY} for probe in cell["probes"]]
    write_json(RESULTS / "verify.json", report)


def rounded(value: Any) -> Any:
    return [rounded(v) for v in value] if isinstance(value, list) else round(value, 5)


def page(report: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    missed = [check for check in report["checks"] if not check["holds"]]
    verdict = f"{len(report['checks']) - len(missed)} of {len(report['checks'])} bounds hold."
    parts = [
        "# Learned return laws against exact ones",
        "",
        f"`make verify`: {settings}; {report['hardware']['cpu']}, jax {report['versions']['jax']}, commit "
        f"{report['commit']}. Errors are in standard deviations of the exact law (of all returns where it is certain), the "
        f"worst over the problem's states and actions. {verdict}",
        "",
        "![quantile functions](verify.png)",
        "",
        *GUIDE,
        "",
        "## Bounds",
        "",
        "| bound | problem | method | measured | at most | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    parts += [
        f"| {c['name']} | {c['problem']} | {c['method']} | {c['measured']:.3f} | {c['bound']:g} | "
        f"{'holds' if c['holds'] else '**does not hold**'} |"
        for c in report["checks"]
    ]
    for name, title in (
        ("wasserstein", "1-Wasserstein distance"),
        ("mean_error", "Error of the mean"),
        ("excess_crps", "Excess CRPS"),
    ):
        parts += ["", f"## {title}", "", *table(report, name)]
    return "\n".join(parts) + "\n"


def table(report: dict[str, Any], name: str) -> list[str]:
    methods = list(dict.fromkeys(cell["method"] for cell in report["cells"]))
    by_problem: dict[str, dict[str, float]] = {}
    for cell in report["cells"]:
        worst = max(abs(probe[name]) for probe in cell["probes"])
        by_problem.setdefault(cell["problem"], {})[cell["method"]] = worst
    lines = [f"| problem | {' | '.join(methods)} |", "| --- |" + " --- |" * len(methods)]
    lines += [
        f"| {problem} | {' | '.join(f'{row[m]:.3f}' if m in row else '' for m in methods)} |"
        for problem, row in by_problem.items()
    ]
    return lines


def draw(report: dict[str, Any], path: Path) -> None:
    """Rows: problems. Columns: what FlowTd and SampleBackup learn where the law is widest."""
    problems = list(dict.fromkeys(cell["problem"] for cell in report["cells"]))
    figure, axes = plt.subplots(len(problems), len(DRAWN), figsize=(9, 1.35 * len(problems)), sharex=True)
    for row, problem in zip(axes, problems, strict=True):
        cells = {cell["method"]: cell for cell in report["cells"] if cell["problem"] == problem}
        for axis, method in zip(row, DRAWN, strict=True):
            axis.tick_params(labelsize=6)
            if method not in cells:
                axis.axis("off")
                continue
            probe = max(cells[method]["probes"], key=lambda probe: probe["std"])
            u = (np.arange(len(probe["exact"])) + 0.5) / len(probe["exact"])
            axis.plot(u, probe["exact"], color=WALL, linewidth=3, alpha=0.35)
            axis.plot(u, probe["quantiles"], color=BASE if method.startswith("flow-td") else ACCENT, linewidth=1.1)
            axis.set_title(f"{problem}, {method}", fontsize=6)
    figure.tight_layout(pad=0.4)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
