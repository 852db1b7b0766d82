"""Held-out trajectories of a run on own data: stored predictions, and the section that draws them. Imports no JAX."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError
from evor.report.about import followed
from evor.report.calibration import Predictions
from evor.report.figures import ACCENT, BASE, MUTED, pictures_html, subplots
from evor.report.html import paragraph, section, table
from evor.report.predictions import HEAD, draw_predictions, numbers
from evor.runtime.files import read_arrays, write_npz

ALONG = "Value along {} trajectories"  # held-out or recorded ones: those that training saw are not held out
DISTRIBUTIONS = "Return distributions along {} trajectories"
MATCH = "Predicted against recorded returns"
SHAPES = {
    "step": 1,
    "mean": 1,
    "quantiles": 2,
    "realised": 1,
    "complete": 1,
    "shown": 1,
    "nodes": 2,
}  # axes of each array


class Trajectory(NamedTuple):
    """One recorded episode, and what the value predicts at some of its steps."""

    step: np.ndarray  # [T]
    mean: np.ndarray  # [T]
    quantiles: np.ndarray  # [T, 5], at calibration.LEVELS
    realised: np.ndarray  # [T] recorded reward-to-go
    complete: np.ndarray  # [T]: whether all of it that counts was recorded
    shown: np.ndarray  # [D]: steps whose whole distribution is there
    nodes: np.ndarray  # [D, Z]: quantiles at midpoints


class HeldOut(NamedTuple):
    """Content of report/held_out.npz."""

    updates: int
    seed: int
    unseen: bool  # by training; else they are its last episodes
    trajectories: list[Trajectory]


def place(run: Path) -> Path:
    """Place of a run's held-out predictions."""
    return run / "report" / "held_out.npz"


def store(run: Path, stored: HeldOut) -> None:
    """Write them. Raises EvorError where there is no room."""
    arrays = {"run": np.array([stored.updates, stored.seed, stored.unseen])}
    for index, trajectory in enumerate(stored.trajectories):
        arrays |= {f"{index}/{name}": array for name, array in trajectory._asdict().items()}
    place(run).parent.mkdir(exist_ok=True)
    write_npz(place(run), arrays)


def read(run: Path) -> HeldOut | None:
    """Read what is stored, None where nothing is. Raises EvorError where the file is damaged."""
    if not place(run).exists():
        return None
    arrays = read_arrays(place(run))
    try:
        updates, seed, unseen = map(int, arrays.pop("run"))
        count = len({name.partition("/")[0] for name in arrays})
        stored = [Trajectory(*(arrays[f"{index}/{name}"] for name in SHAPES)) for index in range(count)]
        for trajectory in stored:
            _check(trajectory)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise EvorError(f"{place(run)} is damaged; remove it, and `evor report` makes it anew.") from error
    return HeldOut(updates=updates, seed=seed, unseen=bool(unseen), trajectories=stored)


def _check(trajectory: Trajectory) -> None:
    """Raise ValueError unless the arrays fit together."""
    rows, shown = len(trajectory.step), len(trajectory.shown)
    for (name, axes), array in zip(SHAPES.items(), trajectory, strict=True):
        wanted = shown if name in ("shown", "nodes") else rows
        odd = name == "quantiles" and array.shape[1:] != (5,)
        if array.ndim != axes or len(array) != wanted or array.dtype.kind not in "biuf" or odd or not rows:
            raise ValueError(name)


def held_out_sections(run: Path, config: dict[str, Any], *, missing: str = "") -> list[str]:
    """Sections about the stored predictions; `missing` says why there are no newer ones."""
    stored = read(run)
    told = paragraph(missing, kind="note") if missing else ""
    if stored is None or not stored.trajectories:
        return [
            section(ALONG.format("recorded"), told or paragraph("No predictions are stored for this run.", kind="note"))
        ]
    which = "held-out" if stored.unseen else "recorded"
    return [
        section(ALONG.format(which), told, paragraph(_meaning(stored, config)), _values(stored)),
        section(DISTRIBUTIONS.format(which), _distributions(stored)),
        section(MATCH, *_match(stored)),
    ]


def _meaning(stored: HeldOut, config: dict[str, Any]) -> str:
    """Say what was predicted, and on which episodes."""
    source = (
        "episodes of the validation file (*-val.npz), which training never saw"
        if stored.unseen
        else "the last episodes of the training data, for there is no validation file (*-val.npz): training saw them, so "
        "agreement says less"
    )
    return (
        f"The value of seed {stored.seed} after {stored.updates:,} updates, at recorded states and for the recorded actions of "
        f"{source}. It predicts the discounted reward-to-go of this action followed by {followed(config)}, in the "
        "reward's own units."
    )


def _values(stored: HeldOut) -> str:
    pictures = {}
    for number, one in enumerate((t for t in stored.trajectories if len(t.shown)), 1):
        figure, axis = subplots(figsize=(4.8, 3.2), layout="constrained")
        for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.25)):
            axis.fill_between(
                one.step, one.quantiles[:, low], one.quantiles[:, high], color=ACCENT, alpha=alpha, linewidth=0
            )
        axis.plot(one.step, one.mean, color=ACCENT, label="predicted mean")
        recorded = np.where(one.complete, one.realised, np.nan)
        axis.plot(one.step, recorded, "--", color=BASE, label="recorded")
        axis.set(xlabel="step of the episode", ylabel="discounted reward-to-go", title=f"trajectory {number}")
        axis.legend(frameon=False, fontsize=8.5)
        alt = (
            f"Trajectory {number}: predicted mean {one.mean[0]:.2f} at its first state, {one.mean[-1]:.2f} at its last"
        )
        pictures[f"{alt}."] = figure
    return pictures_html(
        pictures,
        "The longest of the recorded episodes. Line: mean of the predicted return distribution; bands: its 50 % and 80 % intervals. Dashed: the recorded "
        "reward-to-go. It is left out where the recording ends before later rewards have become negligible.",
    )


def _distributions(stored: HeldOut) -> str:
    pictures = {}
    for number, one in enumerate((t for t in stored.trajectories if len(t.shown)), 1):
        figure, axis = subplots(figsize=(4.8, 3.2), layout="constrained")
        level = (np.arange(one.nodes.shape[1]) + 0.5) / one.nodes.shape[1]
        styles = ("-", "--", ":", "-.")
        for index, (step, nodes) in enumerate(zip(one.shown, one.nodes, strict=True)):
            colour = (ACCENT, BASE, "#0f7a55", MUTED)[index % 4]
            axis.plot(np.sort(nodes), level, styles[index % 4], color=colour, linewidth=1.8, label=f"step {step}")
        axis.set(xlabel="discounted reward-to-go", ylabel="share of futures below", title=f"trajectory {number}")
        axis.legend(frameon=False, fontsize=8.5)
        means = ", ".join(
            f"mean {nodes.mean():.2f} at step {step}" for step, nodes in zip(one.shown, one.nodes, strict=True)
        )
        pictures[f"Return distributions of trajectory {number}: {means}."] = figure
    return pictures_html(
        pictures,
        "The whole predicted distribution at a few steps of each trajectory: the share of futures that end below a return. A "
        "steep curve is a certain prediction. A scalar critic predicts one number, which is a vertical line.",
    )


def _match(stored: HeldOut) -> list[str]:
    """Predictions against complete recorded returns, in numbers and as dots."""
    parts = [
        Predictions(mean=t.mean[t.complete], quantiles=t.quantiles[t.complete], realised=t.realised[t.complete])
        for t in stored.trajectories
    ]
    told = Predictions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    if not len(told.realised):
        note = "No recording is long enough for a complete reward-to-go, so there is nothing to compare with."
        return [paragraph(note, kind="note")]
    episodes = sum(bool(t.complete.any()) for t in stored.trajectories)
    figure, axis = subplots(figsize=(4.6, 4.4), layout="constrained")
    draw_predictions(axis, told)
    axis.set_ylabel("recorded return")
    name = f"{episodes} recorded episode{'s' * (episodes > 1)}"
    caption = "States with a complete reward-to-go. States of one episode depend on one another."
    line = numbers(name, told)
    return [
        pictures_html(
            {f"{line[4]} recorded returns lie above the predicted mean.": figure},
            "One dot per recorded state: predicted mean and recorded reward-to-go; the bar is the predicted 80 % interval. On the "
            "dashed line both are equal. Of well-calibrated predictions about 50 % and 80 % of the returns lie in the intervals "
            "of that name (25 % to 75 % and 10 % to 90 % quantile).",
        ),
        table(
            caption,
            ("data", "states", HEAD[2], "mean recorded", *HEAD[4:]),
            rows=[line],
        ),
    ]
