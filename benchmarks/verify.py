"""Results of `evor verify`, for docs/results: `make verify` runs it and writes verify.json, verify.md and verify.png.

verify.json keeps every measure but the quantile functions, which the page in runs/verify and verify.png draw.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evor.experiments.verify.bounds import TEMPERATURES
from evor.experiments.verify.page import draw_distribution
from evor.experiments.verify.problems import tree
from evor.report.figures import look, save_figure, subplots
from evor.runtime.files import read_json, write_json, write_text

RUN, WIDE, RESULTS = Path("runs/verify"), Path("runs/verify-wide"), Path("docs/results")
BULKY = ("quantiles", "exact", "observation")
DRAWN = ("flow-td", "flow-td-dataset-return", "sample-backup-1", "sample-backup-50")

BEST_ACTION = (
    "With best-action, targets search as the default's do: the exact distribution is that of the policy that takes the best of 4 draws "
    "of the behaviour at every later step. It is known in the trees."
)
GUIDE = [
    "The problems are those of `src/evor/experiments/verify/problems.py`. Their data are written as a user's npz, and trained through the "
    "run folder. The question is whether an objective learns the return distribution. So everything else is better than in the "
    "default recipe:",
    "",
    "* batches of rows_per_pair rows for every state and action, but at least 1,024 rows in all and at most 3,072;",
    "* sines of the return in the value's input;",
    "* the second-order solver, read with 20 steps.",
    "",
    'The method "default" has the solver, the input and the 10 flow steps that `evor train` has without options, and the '
    "dataset's action in its targets. The other methods are objectives of [EVOR](../agents/evor.md), where sample-backup-5 is SampleBackup with n = 5. With policy-action, a "
    "target's next action comes from the base policy. With dataset-return, FlowTd takes the end of its path from the dataset.",
    BEST_ACTION,
    "",
    "| problem | what happens |",
    "| --- | --- |",
    "| coin | +1 or -1 at the end of one step |",
    "| gaussian, negative-exponential | one step, a reward from that distribution |",
    "| chain-2, chain-10 | +1 or -1 at each step, discounted |",
    "| corridor, cut-corridor | -1 a step until a door is found, after a geometric time; the second is cut after 20 steps |",
    "| fork | 0.5 for certain, or 2 with probability 0.2 and -0.25 otherwise: the mean and the upper tail choose differently |",
    "| deterministic-tree, slippery-tree | two decisions with unequal odds; in the second the dynamics are random too |",
    "| hidden-intent | an intent that no observation shows decides both rewards: n = 1 and n > 1 have different limits |",
    "| slope | a continuous state; the reward's mean and spread change along it |",
    "",
    "In the tables below:",
    "",
    "* **W1** is the 1-Wasserstein distance between the learned and the exact distribution.",
    "* **Best backup** is SampleBackup with the n of 1, 5 and 50 whose W1 is smallest. The bound asks that one of them learns the "
    "distribution. It allows 0.1 for chain-10, corridor and cut-corridor, and 0.05 elsewhere.",
    "* **slope** is not tabular. It has only the bounds of one-step backups, MonteCarlo and FlowTd.",
    "* **Temperatures that choose otherwise** are the tau_R at which the learned distributions of the fork choose another action "
    "than the exact ones. The table counts them.",
    "* **Equal numbers.** Some objectives are the same mathematics: past the longest episode all n are alike. Then one training "
    "stands for both.",
    "* **Blank cells.** Cut episodes hold no complete returns.",
    "* **Excess CRPS** (the continuous ranked probability score) is that of the learned distribution beyond that of the exact one.",
    "* **PIT** (the probability integral transform) is flat for the exact distribution. The table has the share of its histogram "
    "that would have to move to make it flat.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    if not parser.parse_args().page_only:
        gather()
    write_text(RESULTS / "verify.md", page(read_json(RESULTS / "verify.json")))


def gather() -> None:
    """Write verify.json and verify.png from the runs."""
    report = read_json(RUN / "verify.json")
    if (path := WIDE / "verify.json").exists():
        report["wide"] = {key: value for key, value in read_json(path).items() if key != "cells"}
    draw(report, RESULTS / "verify.png")
    for cell in report["cells"]:
        cell["probes"] = [{k: rounded(v) for k, v in probe.items() if k not in BULKY} for probe in cell["probes"]]
    write_json(RESULTS / "verify.json", report)


def rounded(value: Any) -> Any:
    """Seven digits: enough for the page, where the root of a small excess CRPS is taken."""
    return [rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.7g}")


def page(report: dict[str, Any]) -> str:
    search_settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    missed = [check for check in report["checks"] if not check["holds"]]
    verdict = f"{len(report['checks']) - len(missed)} of {len(report['checks'])} bounds hold."
    parts = [
        "# Learned return distributions against exact ones",
        "",
        "Does each objective learn the return distribution? `evor verify` trains all of them on small problems whose return "
        "distribution is known exactly.",
        "",
        f"`make verify`: {search_settings}; {report['hardware']['cpu']}, jax {report['versions']['jax']}, commit "
        f"{report['commit']}.",
        "",
        "Errors are in standard deviations of the exact distribution. (Where the return is certain, they are in standard "
        "deviations of all returns.) Each number is the worst over a problem's states and actions. "
        f"{verdict}",
        "",
        "![quantile functions](verify.png)",
        "",
        *guide(report),
        "",
        "## Bounds",
        "",
        "| bound | problem | method | measured | at most | result |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    parts += [
        f"| {c['name']} | {c['problem']} | {c['method']} | {c['measured']:.3f} | {c['bound']:g} | "
        f"{'holds' if c['holds'] else '**does not hold**'} |"
        for c in report["checks"]
    ]
    parts += [line for check in missed if check["name"].endswith(": mean") for line in ("", why(report, check))]
    if "wide" in report:
        parts += ["", wide(report["wide"])]
    measured: dict[str, Callable[[dict[str, Any]], float]] = {
        "1-Wasserstein distance": lambda probe: probe["wasserstein"],
        "Error of the mean": lambda probe: probe["mean_error"],
        "Error of the standard deviation": lambda probe: probe["std_error"],
        "Root of the excess CRPS": lambda probe: probe["excess_crps"] ** 0.5,
        "PIT: share of the histogram that would have to move": lambda probe: (
            np.abs(np.array(probe["pit"]) - 0.1).sum() / 2
        ),
    }
    for place, temperature in enumerate(TEMPERATURES):
        measured[f"Error of Q* at {temperature:g} sd"] = lambda probe, place=place: probe["q_error"][place]
    for title, measure in measured.items():
        parts += ["", f"## {title}", "", *table(report, measure)]
    return "\n".join([*parts, "", *luck()]) + "\n"


def guide(report: dict[str, Any]) -> list[str]:
    """The guide, without what the report does not hold."""
    searched = any(cell["method"].endswith("best-action") for cell in report["cells"])
    return [line for line in GUIDE if searched or line != BEST_ACTION]


def why(report: dict[str, Any], check: dict[str, Any]) -> str:
    """A missed bound on the mean: where, and how all methods err there."""
    cells = {cell["method"]: cell for cell in report["cells"] if cell["problem"] == check["problem"]}
    errors = [abs(probe["mean_error"]) for probe in cells[check["method"]]["probes"]]
    place = int(np.argmax(errors))
    probe, unit = cells[check["method"]]["probes"][place], cells[check["method"]]["return_std"]
    others = ", ".join(f"{name} {cell['probes'][place]['mean_error']:+.3f}" for name, cell in cells.items())
    return (
        f"{check['name']}, {check['problem']}: missed at the distribution of mean {probe['mean']:.2f} and standard "
        f"deviation {probe['std']:.2f}. The error is {errors[place] * probe['unit']:.4f} in reward, or "
        f"{errors[place] * probe['unit'] / unit:.4f} standard deviations of all returns. Errors there by method, in standard "
        f"deviations of this distribution: {others}."
    )


def wide(report: dict[str, Any]) -> str:
    """Results of the default's own networks where the small ones miss a bound."""
    search_settings, checks = report["settings"], report["checks"]
    measured = "; ".join(
        f"{c['name'].removeprefix('default: ')} {c['measured']:.3f} (at most {c['bound']:g})" for c in checks
    )
    return (
        f"The default on {checks[0]['problem']} with networks of its own size ({' x '.join(map(str, search_settings['hidden']))}, "
        f"{search_settings['updates']:,} updates, commit {report['commit']}): {measured}. The atoms there lie close together. With sines "
        "of the return small networks resolve them, too, as the other methods show. But sines cost the maze half of its "
        "episodes ([return distribution or mean](law-or-mean.md), one seed). So the default does without."
    )


def luck() -> list[str]:
    """A table of how much the exact reading takes luck for choice where the dynamics are random."""
    process = tree(slip=0.3)
    lines = [
        "## How much luck is read as choice",
        "",
        "A search by Q\\* reads the luck of random dynamics as if the agent could choose it. The table shows how much, for the "
        "first state of slippery-tree. From the exact Q\\* of the behaviour's return distribution, it subtracts the value of an "
        "agent that can't choose its luck. That agent pays the same price for its choices ([the "
        "mathematics](../math.md#what-follows-for-the-search)). "
        "The unit is the standard deviation of the distribution. The difference is 0 where dynamics are deterministic, and never "
        "negative.",
        "",
        f"| action | {' | '.join(f'tau_R = {t:g} sd' for t in TEMPERATURES)} |",
        "| --- |" + " --- |" * len(TEMPERATURES),
    ]
    for probe in process.probes(None):
        if probe.observation[0]:
            distribution, action = probe.distribution, float(probe.action[0])
            excess = [
                (
                    distribution.log_mean_exp(t * distribution.std)
                    - process.soft_value(0, action, temperature=t * distribution.std)
                )
                / distribution.std
                for t in TEMPERATURES
            ]
            lines.append(f"| {action:g} | {' | '.join(f'{value:.3f}' for value in excess)} |")
    return lines


def table(report: dict[str, Any], measure: Callable[[dict[str, Any]], float]) -> list[str]:
    """The worst over a problem's states and actions."""
    methods = list(dict.fromkeys(cell["method"] for cell in report["cells"]))
    by_problem: dict[str, dict[str, float]] = {}
    for cell in report["cells"]:
        worst = max(abs(measure(probe)) for probe in cell["probes"])
        by_problem.setdefault(cell["problem"], {})[cell["method"]] = worst
    lines = [f"| problem | {' | '.join(methods)} |", "| --- |" + " --- |" * len(methods)]
    lines += [
        f"| {problem} | {' | '.join(f'{row[m]:.3f}' if m in row else '' for m in methods)} |"
        for problem, row in by_problem.items()
    ]
    return lines


@look()
def draw(report: dict[str, Any], path: Path) -> None:
    """Rows: problems. Columns: what FlowTd (with its limit, dotted) and SampleBackup learn where the distribution is widest."""
    problems = list(dict.fromkeys(cell["problem"] for cell in report["cells"]))
    figure, axes = subplots(len(problems), len(DRAWN), figsize=(9, 1.35 * len(problems)), sharex=True)
    for row, problem in zip(axes, problems, strict=True):
        cells = {cell["method"]: cell for cell in report["cells"] if cell["problem"] == problem}
        for axis, method in zip(row, DRAWN, strict=True):
            axis.tick_params(labelsize=6)
            if method not in cells:
                axis.axis("off")
                continue
            draw_distribution(axis, cells[method])
            axis.set_title(f"{problem}, {method}", fontsize=6)
    figure.tight_layout(pad=0.4)
    save_figure(figure, path, dpi=90)


if __name__ == "__main__":
    main()
