"""The page of what `evor verify` measured, in one self-contained file. Imports no JAX."""

import html
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from evor.distributions.exact import Normal
from evor.distributions.measures import midpoints
from evor.experiments.verify.bounds import CaseResult, worst
from evor.report.figures import ACCENT, BASE, WALL, figure_html, look, subplots
from evor.report.html import PAGE, STYLE, section, table
from evor.runtime.files import write_text


@look()
def write_page(report: dict[str, Any], path: Path) -> None:
    """Bounds, the table of distances, and learned beside exact quantile functions of every problem."""
    cells: dict[str, dict[str, CaseResult]] = {}
    for cell in report["cells"]:
        cells.setdefault(cell["problem"], {})[cell["method"]] = cell
    body = [
        "<h1>evor verify</h1><p class=facts>learned return distributions against exact ones</p>",
        _checks(report["checks"]),
        _table(cells),
        section("Quantile functions", *(_figure(problem, row) for problem, row in cells.items())),
        _footer(report),
    ]
    write_text(path, PAGE.format(title="evor verify", style=STYLE, body="\n".join(body)))


def _checks(checks: list[dict[str, Any]]) -> str:
    lines = [
        [
            check["name"],
            check["problem"],
            check["method"],
            f"{check['measured']:.3f}",
            f"{check['bound']:g}",
            "holds" if check["holds"] else "does not hold",
        ]
        for check in checks
    ]
    caption = (
        "Worst over the states and actions of the problem, in units of the distribution's standard deviation there (of the whole "
        "dataset's where the return is certain)."
    )
    head = ("bound", "problem", "method", "measured", "at most", "result")
    return section("Bounds", table(caption, head, rows=lines, main="measured"))


def _table(cells: dict[str, dict[str, CaseResult]]) -> str:
    methods = list(dict.fromkeys(method for row in cells.values() for method in row))
    lines = [
        [problem, *(f"{worst(row[m], 'wasserstein'):.3f}" if m in row else "" for m in methods)]
        for problem, row in cells.items()
    ]
    caption = (
        "Worst over states and actions. FlowTd learns an expectation: its distribution is Normal(Q, 1) in units of the "
        "dataset's return, whatever the true distribution (docs/math.md)."
    )
    return section("1-Wasserstein distance", table(caption, ("problem", *methods), rows=lines))


def _figure(problem: str, row: dict[str, CaseResult]) -> str:
    """The state and action whose return distribution is widest, one panel per method."""
    figure, axes = subplots(1, len(row), figsize=(1.9 * len(row) + 0.6, 2.2), sharey=True, squeeze=False)
    for axis, (method, cell) in zip(axes[0], row.items(), strict=True):
        probe = draw_distribution(axis, cell)
        axis.set_title(method.replace("-policy-action", "\npolicy action"), fontsize=7.5)
        axis.text(0.04, 0.93, f"W1 {probe['wasserstein']:.3f} sd", transform=axis.transAxes, fontsize=7, va="top")
        axis.tick_params(labelsize=7)
    axes[0][0].set_ylabel("return", fontsize=8)
    widest = max(next(iter(row.values()))["probes"], key=lambda probe: probe["std"])
    return figure_html(
        figure,
        f"{problem}, observation {widest['observation']}, action {widest['action']}: return against its quantile; "
        "exact (grey), learned (colour), FlowTd's limit Normal(Q, 1) in units of the dataset's returns (dotted).",
    )


def draw_distribution(axis: Axes, cell: CaseResult) -> dict[str, Any]:
    """Draw exact and learned quantiles where the return distribution is widest. Returns that state and action.

    FlowTd with z1 from the model gets its limit too, Normal(Q, 1) in units of the dataset's returns.
    """
    probe = max(cell["probes"], key=lambda probe: probe["std"])
    u = midpoints(len(probe["exact"]))
    expects = cell["method"] in ("flow-td", "flow-td-policy-action")
    axis.plot(u, probe["exact"], color=WALL, linewidth=3.5, alpha=0.35)
    axis.plot(u, probe["quantiles"], color=BASE if cell["method"].startswith("flow-td") else ACCENT, linewidth=1.3)
    if expects:
        axis.plot(u, Normal(probe["mean"], cell["return_std"]).quantile(u), ":", color="black", linewidth=1)
    return probe


def _footer(report: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    installed = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        f"<footer><p>{html.escape(settings)}. {html.escape(installed)}. {html.escape(report['hardware']['cpu'])}. "
        f"Commit {report['commit'] or 'unknown'}.</p></footer>"
    )
