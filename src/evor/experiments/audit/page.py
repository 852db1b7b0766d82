"""The page of an audit: verdict, measurements and pictures in one self-contained file. Imports no JAX."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from evor.experiments.audit.evidence import FEWEST_STATES, NEIGHBOURS, PLACEBOS, Compared
from evor.experiments.audit.explained import ADVANTAGE, CALIBRATION, CUT, EMPTY, LIMITS, RANKING, window_note
from evor.experiments.audit.sections import SIZE, alarm_section, choice_section, played_section
from evor.report.calibration import Predictions
from evor.report.figures import ACCENT, MUTED, look, pictures_html, subplots
from evor.report.html import PAGE, STYLE, contents, paragraph, section, table
from evor.report.predictions import HEAD, draw_predictions, numbers
from evor.report.statistics import MIDDLE, Estimate
from evor.runtime.files import name_of, write_text
from evor.runtime.words import counted

DOTS = 500  # that are drawn
TENTHS = 10
# Answers in words: of what can show that a value ranks, and of what can only object.
SHOWN = {"yes": "use it", "few": "few candidates", "no": "not shown"}
ALLOWED = {"yes": "no objection", "few": "few candidates", "no": "do not use it"}


class Drawn(NamedTuple):
    """Arrays behind the pictures."""

    compared: Compared
    predictions: Predictions
    signals: dict[str, np.ndarray]


@look()
def write_page(report: dict[str, Any], drawn: Drawn, *, path: Path) -> None:
    """Write the page."""
    settings = report["settings"]
    name = name_of(Path(settings["run"]))
    parts = [
        _checks(report["verdict"], played=report["played"] is not None),
        _ranking(report, drawn),
        _calibration(report, drawn),
        choice_section(report),
        played_section(report["played"]),
        alarm_section(report["alarm"], compared=drawn.compared, signals=drawn.signals),
        section("What the verdict can't say", *(paragraph(text) for text in LIMITS)),
        _footer(report),
    ]
    body = "\n".join(filter(None, parts))
    facts = (
        f"task {report['task']} · seed {report['seed']} · {settings['updates']:,} updates · {report['search']} of "
        f"{report['num_candidates']} · {settings['data']}"
    )
    head = [
        f"<h1>Audit of {html.escape(name)}</h1>",
        paragraph(facts, kind="facts"),
        f"<p><strong>{html.escape(report['verdict']['sentence'])}</strong></p>",
        *(paragraph(f"Note: {note}.", kind="note") for note in report["notes"]),
        contents(body, "this page"),
    ]
    write_text(path, PAGE.format(title=html.escape(f"evor audit: {name}"), style=STYLE, body="\n".join([*head, body])))


def _checks(verdict: dict[str, Any], *, played: bool) -> str:
    shows = 3 if played else 2
    rows = [
        [
            one["name"],
            one["measured"],
            one["rule"],
            (SHOWN if place < shows else ALLOWED)[one["answer"]],
        ]
        for place, one in enumerate(verdict["checks"])
    ]
    caption = (
        f"The best answer of the first {'three' if played else 'two'} rows counts; each of the others can only lower it. In brackets: 95 % intervals over "
        "episodes."
    )
    return section("Verdict", table(caption, ("check", "measured", "threshold", "answer"), rows=rows, main="answer"))


def _ranking(report: dict[str, Any], drawn: Drawn) -> str:
    told, compared = report["ranking"], drawn.compared
    figure, axis = subplots(figsize=SIZE, layout="constrained")
    index = np.linspace(0, len(compared.realised) - 1, min(DOTS, len(compared.realised))).astype(int)
    some = Predictions(*(column[index] for column in drawn.predictions))
    if report["is_complete"]:
        draw_predictions(axis, some)
    else:
        axis.plot(some.mean, some.realised, "o", color=ACCENT, markersize=4, alpha=0.6, markeredgewidth=0)
        axis.set(xlabel="predicted return", ylabel=f"sum of {report['window']} rewards")
    by_tenth, other = subplots(figsize=SIZE, layout="constrained")
    means = _draw_tenths(other, compared)
    across, within, advantage = told["across"], told["within"], told["advantage"]
    luck = {name: _reach(values) for name, values in told["luck"].items()}
    inside = f"inside {counted(within['states'], 'state')} that several episodes went through"
    rows = [
        ["across states", _or_empty(across), luck["across"], counted(report["rows"], "row")],
        [
            "advantage of the recorded action",
            _or_empty(advantage["correlation"]),
            luck["advantage"],
            counted(report["decisions"], "row"),
        ],
        [inside, _or_empty(within["correlation"]), "", counted(within["rows"], "row")],
    ]
    exact = (
        ""
        if np.isnan(told["exact"])
        else f" A value whose distributions were exactly right would reach {told['exact']:.2f}."
    )
    pictures = {
        f"Realised against predicted returns; their rank correlation is {across.value:.2f}.": figure,
        f"Mean realised return by tenths of the predicted one, from {means[0]:.2f} to {means[-1]:.2f}.": by_tenth,
    }
    return section(
        "Does it rank?",
        paragraph(RANKING.format(followed=report["followed"], discount=report["discount"]) + exact),
        paragraph(window_note(report)),
        pictures_html(
            pictures,
            "Left: one dot per recorded row, predicted mean and realised return; the bar is the predicted 80 % interval, and on the "
            "dashed line both are equal. Right: rows in tenths by their predicted return, and the mean realised return of each.",
        ),
        table(
            f"Correlations with realised returns; {counted(report['episodes_compared'], 'episode')}.",
            ("correlation", "measured", "95 % of random networks", "rows"),
            rows=rows,
            main="measured",
        ),
        paragraph(f"One unit of predicted advantage led to {advantage['slope']:.2f} units of return.")
        if np.isfinite(advantage["slope"].value)
        else "",
        paragraph(ADVANTAGE.format(fewest=FEWEST_STATES, nearest=NEIGHBOURS, count=PLACEBOS), kind="note"),
    )


def _reach(values: list[float]) -> str:
    """The middle 95 % of correlations of random networks."""
    low, high = np.quantile(values, MIDDLE)
    return EMPTY if np.isnan(low) else f"{low:.2f} to {high:.2f}"


def _draw_tenths(axis: Axes, compared: Compared) -> list[float]:
    order = np.argsort(compared.mean, kind="stable")
    parts = [part for part in np.array_split(order, TENTHS) if len(part)]
    means = [float(compared.realised[part].mean()) for part in parts]
    axis.bar(range(1, len(means) + 1), np.array(means) - min(means), bottom=min(means), color=ACCENT)
    axis.set(xlabel="tenth of the rows, by predicted return", ylabel="mean realised return")
    return means


def _calibration(report: dict[str, Any], drawn: Drawn) -> str:
    told, outside = report["calibration"], report["outside"]
    bounds = paragraph(
        f"The rewards allow returns from {outside['low']:.4g} to {outside['high']:.4g}. Of the predicted returns {outside['returns']:.1%} "
        f"lie beyond, and of their means {outside['means']:.1%}."
    )
    if told is None:
        return section("Calibration", paragraph(f"Calibration: {EMPTY}. {CUT}"), bounds)
    line = numbers("held-out rows", drawn.predictions)
    parts = [
        paragraph(CALIBRATION.format(followed=report["followed"])),
        table(
            f"Predicted less realised return: {told['shift']:.3g}.",
            ("data", "rows", HEAD[2], "mean realised", *HEAD[4:]),
            rows=[line],
        ),
    ]
    if "crps" in told:
        figure, axis = subplots(figsize=SIZE, layout="constrained")
        axis.bar((np.arange(len(told["pit"])) + 0.5) / len(told["pit"]), told["pit"], width=0.09, color=ACCENT)
        axis.axhline(1 / len(told["pit"]), linestyle="--", color=MUTED)
        axis.set(xlabel="place of the realised return in the predicted distribution (PIT)", ylabel="share of rows")
        alt = f"Histogram of the PIT: {', '.join(f'{share:.2f}' for share in told['pit'])}."
        rows = [[name, f"{loss:.3g}"] for name, loss in told["crps"].items()]
        parts += [
            pictures_html(
                {alt: figure}, "Where the predicted distributions are right, all bars reach the dashed line."
            ),
            table(
                "CRPS, in reward units: smaller is better.", ("predicted distribution", "CRPS"), rows=rows, main="CRPS"
            ),
        ]
    else:
        parts.append(paragraph(f"This value predicts one number, so PIT, CRPS and coverage are {EMPTY}.", kind="note"))
    return section("Calibration", *parts, bounds)


def _or_empty(estimate: Estimate) -> str:
    return EMPTY if np.isnan(estimate.value) else f"{estimate:.2f}"


def _footer(report: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items() if value not in (None, False))
    installed = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        f"<footer><p>{html.escape(settings)}. {html.escape(installed)}. {html.escape(report['hardware']['cpu'])}. "
        f"Commit {report['commit'] or 'unknown'}.</p></footer>"
    )
