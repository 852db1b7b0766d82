"""Predicted against realised returns: the section of a run's own episodes. Imports no JAX."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evor.report.about import discount, followed
from evor.report.calibration import Predictions, calibration, share
from evor.report.evaluations import RETURNS, Row
from evor.report.figures import ACCENT, BASE, MUTED, pictures_html, subplots
from evor.report.html import paragraph, section, table
from evor.report.success import BASE_POLICY, NONE, Setting, label

TITLE = "Predicted against realised returns"
FELT = 0.01  # weight of the rewards after an episode's end, above which it was cut too early
HEAD = (
    "search",
    "episodes",
    "mean predicted",
    "mean realised",
    "above the line",
    "in the 50 % interval",
    "in the 80 % interval",
)
UNKNOWN = (
    "The evaluations of this checkpoint store no predicted returns: the agent has no value, or an older version of evor "
    "played them. evor evaluate without --resume plays them again and stores what the value predicts."
)


def predictions_section(groups: dict[Setting, list[Row]], config: dict[str, Any], *, where: str = "") -> str:
    """Show what the value said at the first decision of each episode, and the return that came."""
    read = {setting: predictions(rows) for setting, rows in groups.items()}
    pairs = {setting: told for setting, told in read.items() if told is not None}
    if not pairs:
        return section(f"{TITLE}{where}", paragraph(UNKNOWN, kind="note"))
    names = {setting: label(setting, among=list(pairs)) for setting in pairs}
    caption = (
        "Episodes of the newest checkpoint, all tasks and seeds. Returns are discounted and in the reward's own units."
    )
    return section(
        f"{TITLE}{where}",
        paragraph(_meaning(config)),
        _pictures(pairs, names),
        table(caption, HEAD, rows=[numbers(names[setting], told) for setting, told in pairs.items()]),
        paragraph(
            "The 50 % interval goes from the 25 % to the 75 % quantile of the predicted return distribution, the 80 % interval "
            "from the 10 % to the 90 % quantile. Of well-calibrated predictions about 50 % and 80 % of the returns lie inside.",
            kind="note",
        ),
        _cut([row for setting in pairs for row in groups[setting]], config),
    )


def predictions(rows: list[Row]) -> Predictions | None:
    """The predictions that are stored with some rows, None where there are none."""
    told = np.array([[row[name] for name in RETURNS] for row in rows if "" not in (row[name] for name in RETURNS)])
    if not len(told):
        return None
    realised, mean, *quantiles = told.astype(float).T
    return Predictions(mean=mean, quantiles=np.stack(quantiles, axis=1), realised=realised)


def numbers(name: str, pairs: Predictions) -> list[str]:
    """A line of the table. One number as a prediction has no intervals."""
    told = calibration(pairs)
    inside = [share(told.inside[percent], told.count) if pairs.has_spread else NONE for percent in (50, 80)]
    means = [f"{told.predicted:.2f}", f"{told.realised:.2f}"]
    return [name, str(told.count), *means, share(told.above, told.count), *inside]


def draw_predictions(axis: Axes, pairs: Predictions, *, colour: str = ACCENT) -> None:
    """Realised return against the predicted mean, the 80 % interval as a bar, and the line where both are equal."""
    low, high = pairs.quantiles[:, 0], pairs.quantiles[:, -1]
    least, most = min(low.min(), pairs.realised.min()), max(high.max(), pairs.realised.max())
    margin = 0.05 * float(most - least) or 1.0
    limits = (float(least) - margin, float(most) + margin)
    axis.plot(limits, limits, "--", color=MUTED, linewidth=1.2, zorder=1)
    if pairs.has_spread:
        axis.hlines(pairs.realised, low, high, color=colour, alpha=0.25, linewidth=1.2, zorder=2)
    axis.plot(pairs.mean, pairs.realised, "o", color=colour, markersize=4.5, alpha=0.75, markeredgewidth=0, zorder=3)
    axis.locator_params(nbins=5)
    axis.set(xlim=limits, ylim=limits, aspect="equal", xlabel="predicted return", ylabel="realised return")


def _meaning(config: dict[str, Any]) -> str:
    gamma = discount(config)
    factor = "" if gamma is None else f" (discount {gamma:g})"
    return (
        f"At the first decision of an episode the value predicts the distribution of the discounted return{factor} of the action "
        f"that is taken. It is the return of this action followed by {followed(config)}. The episode itself was played by "
        "the search of its row. Where both play alike, the returns show how well the value is calibrated. Those of a search that "
        "plays better are expected above the line, and those of one that plays worse below it."
    )


def _pictures(pairs: dict[Setting, Predictions], names: dict[Setting, str]) -> str:
    """The base policy, and the search with the most candidates."""
    base = [setting for setting in pairs if setting[0] == BASE_POLICY][:1]
    searches = [setting for setting in pairs if setting[0] != BASE_POLICY]
    most = [max(searches, key=lambda setting: float(setting[1]))] if searches else []
    pictures = {}
    for setting in base + most:
        figure, axis = subplots(figsize=(4.3, 4.1), layout="constrained")
        draw_predictions(axis, pairs[setting], colour=BASE if setting[0] == BASE_POLICY else ACCENT)
        axis.set_title(names[setting])
        told = calibration(pairs[setting])
        alt = (
            f"{names[setting]}: {share(told.above, told.count)} episodes above the line of equal predicted and realised "
            f"return; means {told.predicted:.2f} predicted, {told.realised:.2f} realised."
        )
        pictures[alt] = figure
    return pictures_html(
        pictures,
        "One dot per episode: the mean of the predicted return distribution and the return that came. The bar is the "
        "predicted 80 % interval; the dashed line is where both returns are equal.",
    )


def _cut(rows: list[Row], config: dict[str, Any]) -> str:
    """A line about episodes that ended without success while later rewards would still have counted."""
    gamma = discount(config)
    early = [row for row in rows if row["success"] != 1 and gamma is not None and gamma ** row["length"] > FELT]
    if not early:
        return ""
    told = share(len(early), len(rows))
    if any(row["reward_rule"] == "own" for row in early):  # a user's environment may also end where it fails
        text = (
            f"{told} episodes ended without a success before later rewards had become negligible. Where a time limit cut them, "
            "their realised returns lack what would have followed."
        )
    else:
        text = (
            f"{told} episodes were cut at the time limit before later rewards had become negligible: their realised returns lack "
            "what would have followed."
        )
    return paragraph(text, kind="note")
