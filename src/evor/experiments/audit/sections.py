"""Sections of an audit's page about acting: the gain of a choice, play, and alarms. Imports no JAX."""

from typing import Any

import numpy as np

from evor.experiments.audit.choices import BASE as BASE_POLICY
from evor.experiments.audit.choices import BEST, CHOSEN
from evor.experiments.audit.evidence import Compared, failures
from evor.experiments.audit.explained import ALARMS, CHOICE, CONTROLS, EMPTY, NOT_PLAYED, PLAYED, second_opinion
from evor.report.figures import ACCENT, BASE, MUTED, pictures_html, subplots
from evor.report.html import paragraph, section, table
from evor.runtime.words import counted

COLOURS = (ACCENT, BASE, "#0f7a55")
STYLES = ("-", "--", ":")
SIZE = (4.6, 3.6)


def choice_section(report: dict[str, Any]) -> str:
    """Tell what a choice gains, by the scores that chose and by a second opinion."""
    told = report["choice"]
    figure, axis = subplots(figsize=SIZE, layout="constrained")
    lines = told["by_number"]
    counts = [line["candidates"] for line in lines]
    for key, label, colour in (("own", "by the scores that chose", BASE), ("second", "by the second opinion", ACCENT)):
        if all(line[key] is not None for line in lines):
            value, low, high = np.array([line[key] for line in lines]).T
            axis.fill_between(counts, low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(counts, value, "o-", color=colour, label=label)
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set(xlabel="candidates", ylabel="value less the mean of all proposals")
    axis.legend(frameon=False, fontsize=8.5)
    rows = [
        [name, f"{gains['own']:.3g}", EMPTY if gains["second"] is None else f"{gains['second']:.3g}"]
        for name, gains in told["controls"].items()
    ]
    own = told["controls"][BEST]["own"]
    spread, deviations = told["spread"], told["score_std"]
    columns = ", ".join(f"{column:.2f}" for column in spread["columns"])
    return section(
        "Does choosing gain?",
        paragraph(CHOICE),
        paragraph(second_opinion(told["opinion"])),
        pictures_html(
            {f"Gain of the best of {counts[-1]} candidates by the search's scores: {own:.3g}.": figure},
            "Gain of the best of the first n proposals. The bands are 95 % intervals over episodes.",
        ),
        table(
            f"Value of what is taken, less the mean of all {report['num_candidates']} proposals; {counted(report['decisions'], 'state')}.",
            ("choice", "by the search's scores", "by the second opinion"),
            rows=rows,
        ),
        paragraph(CONTROLS.format(search=CHOSEN, base=BASE_POLICY), kind="note"),
        paragraph(
            f"Proposals of a state spread by {spread['mean']:.2f} standard deviations of the recorded actions (entries: {columns}); in "
            f"{spread['alone']:.1%} of the states they are all the same. Their scores spread by {deviations['candidates']:.3g}, and the "
            f"mean scores of the states by {deviations['states']:.3g}."
        ),
    )


def played_section(told: dict[str, Any] | None) -> str:
    """Tell what each choice came to in play; empty cells where nothing was played."""
    if told is None:
        names = ("search", "base policy", "random of N", "medoid of N", "pass@N")
        rows = [[name, EMPTY, EMPTY] for name in names]
        head = ("choice", "score", "search less this one")
        return section(
            "Played", table("Success on the same episodes.", head, rows=rows), paragraph(NOT_PLAYED, kind="note")
        )
    digits = ".2f" if told["of"] == "success" else ".3g"
    rows = [
        [name, format(one["score"], digits), "" if name == CHOSEN else format(one["less"], digits)]
        for name, one in told["ways"].items()
    ]
    caption = f"Mean {told['of']} of {counted(told['episodes'], 'episode')}, the same first states for each."
    head = ("choice", told["of"], "search less this one")
    return section("Played", table(caption, head, rows=rows, main=told["of"]), paragraph(PLAYED, kind="note"))


def alarm_section(told: dict[str, Any], *, compared: Compared, signals: dict[str, np.ndarray]) -> str:
    """Draw the alarm curve of each signal."""
    text = ALARMS.format(share=f"{told['failures']:.0%}", threshold=f"{told['threshold']:.4g}")
    if not told["auroc"]:
        return section("Alarms", paragraph(text), paragraph(f"AUROC: {EMPTY}, for nearly all rows have one outcome."))
    failed = failures(compared.realised)
    figure, axis = subplots(figsize=(4.4, 4.2), layout="constrained")
    axis.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.2)
    for (name, signal), colour, style in zip(signals.items(), COLOURS, STYLES, strict=False):
        order = np.argsort(-signal, kind="stable")
        hit = np.append(0, np.cumsum(failed[order])) / failed.sum()
        miss = np.append(0, np.cumsum(~failed[order])) / (~failed).sum()
        axis.plot(miss, hit, style, color=colour, label=name)
    axis.set(
        xlabel="share of the other rows with an alarm", ylabel="share of the failures with an alarm", aspect="equal"
    )
    axis.legend(frameon=False, fontsize=8.5, loc="lower right")
    rows = [[name, f"{area:.2f}"] for name, area in told["auroc"].items()]
    alt = f"Alarm curves: {', '.join(f'{name} {area.value:.2f}' for name, area in told['auroc'].items())}."
    return section(
        "Alarms",
        paragraph(text),
        pictures_html(
            {alt: figure},
            "Each curve: alarms at all thresholds of a signal. A signal on the dashed line tells nothing.",
        ),
        table("Area under the alarm curve: 0.5 is chance.", ("signal", "AUROC"), rows=rows, main="AUROC"),
    )
