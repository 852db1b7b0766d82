"""The page of the tightrope, in one self-contained file: a picture of the MDP, the table, and the bound. Imports no JAX."""

import html
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from evor.report.figures import ACCENT, BASE, MUTED, WALL, figure_html, look, subplots
from evor.report.html import PAGE, STYLE, contents, paragraph, section, table
from evor.runtime.files import write_text

METHODS = {
    "expert": "expert",
    "bc": "BC on expert data",
    "bc_union": "BC on expert and offline data",
    "bc_offline": "BC on offline data",
    "filter": "FILTER",
    "guitar": "GUITAR",
    "mm": "MM, exact best response",
}
INTRODUCTION = (
    "The expert walks a rope and sees a bit that tells it how to stay. The learner does not see the bit. There is a bridge, too, "
    "which anybody can learn to cross, and which the expert never uses. Offline data of another agent lead over it."
)
RESETS = (
    "FILTER resets to expert states, which lie on the rope. There the learner falls whatever it does, so the search learns "
    "nothing about the bridge. GUITAR resets to states of the offline data as well. It uses no action of these data."
)
NODES = {  # places in the picture
    "platform": (0.0, 0.0),
    "rope": (2.2, 1.0),
    "bridge": (2.2, -1.0),
    "gone": (4.6, 0.0),
}


@look()
def write_page(report: dict[str, Any], path: Path) -> None:
    """Write the page of a report of `evor imitate tightrope`."""
    body = "\n".join(
        [
            section("The world", paragraph(INTRODUCTION), _picture(), paragraph(RESETS)),
            section("Returns", _returns(report)),
            section("What is proved", *(paragraph(claim) for claim in claims(report)), _bound(report)),
            section("A discriminator that sees too much", paragraph(TOO_MUCH), _too_much(report)),
            section("Steps of the environment", _sampled(report)) if report["sampled"] else "",
        ]
    )
    head = "<h1>The tightrope</h1><p class=facts>inverse reinforcement learning where the learner can't follow the expert</p>"
    parts = [head, contents(body, "this page"), body, _footer(report)]
    write_text(path, PAGE.format(title="evor imitate tightrope", style=STYLE, body="\n".join(parts)))


def claims(report: dict[str, Any]) -> list[str]:
    """The theory's statements with the numbers of a report, a sentence or two each."""
    complete, ipm = report["completeness"], report["ipm"]
    settings, limit = report["settings"], report["threshold"]
    sees = "more" if settings["u_max"] > limit else "no more"
    return [
        f"FILTER loses what the completeness errors add up to, exactly: expert minus FILTER is "
        f"{complete['expert_minus_filter']:.4f}, and the errors sum to {complete['sum']:.4f}. The bound is attained.",
        f"GUITAR's largest gap under the reward class is {ipm['guitar']:.4f}. The best policy that its resets cover has "
        f"{ipm['best_covered']:.4f}, and the discriminator's regret is {ipm['regret']:.4f} per round.",
        f"The discriminator may tell bridge from rope by u up to {settings['u_max']:g}, {sees} than the threshold {limit:.4f}. "
        f"Above it the learner prefers to fall off the rope, whatever the resets.",
    ]


TOO_MUCH = (
    "The reward class bounds how well a discriminator tells the bridge from the rope. Up to the threshold, crossing the bridge "
    "is the better imitation. Above it, a fall off the rope is, because it looks more like the expert. So what a "
    "discriminator sees must not reveal the misspecification."
)


def _returns(report: dict[str, Any]) -> str:
    lines = []
    for name, label in METHODS.items():
        mean, realisable = report["mean_over_rounds"].get(name), report["realisable"].get(name)
        cells = (report[name], report["closed_form"][name], mean, realisable)
        lines.append([label, *("" if cell is None else f"{cell:.4f}" for cell in cells)])
    caption = (
        f"Expected returns under the true reward r_u, u = {report['true_u']:g}, in {report['settings']['horizon']} steps. FILTER, "
        f"GUITAR and MM play {report['rounds']} rounds. In each the discriminator weighs its rewards by Hedge (exponential weights), "
        "and the learner answers with its best policy, by exact PSDP (policy search by dynamic programming). The first column is "
        "the last round."
    )
    head = ("method", "return", "closed form", "mean over rounds", "learner sees the bit")
    return table(caption, head, rows=lines, main="return")


def _sampled(report: dict[str, Any]) -> str:
    lines = [
        [
            METHODS[row["method"]].removesuffix(", exact best response"),
            str(row["horizon"]),
            str(row["episodes"]),
            f"{row['crosses']:.2f}",
            f"{row['steps']:,.0f}",
        ]
        for row in report["sampled"]
    ]
    caption = (
        "PSDP from sampled episodes, for the true reward. Without resets, as in MM, random actions must lead to the time that is "
        "searched: the chance halves with every step of the bridge."
    )
    head = ("resets of", "horizon", "episodes per time", "share that crosses", "steps, mean")
    return table(caption, head, rows=lines, main="share that crosses")


def _picture() -> str:
    figure, axes = subplots(figsize=(7.2, 3.2))
    axes.set_axis_off()
    axes.set_xlim(-0.7, 5.6)
    axes.set_ylim(-2.05, 2.05)
    for name, (x, y) in NODES.items():
        colour = {"rope": BASE, "bridge": ACCENT}.get(name, WALL)
        box = FancyBboxPatch(
            (x - 0.5, y - 0.22), 1.0, 0.44, boxstyle="round,pad=0.06", facecolor="white", edgecolor=colour
        )
        axes.add_patch(box)
        axes.text(x, y, name, ha="center", va="center", color=colour, fontweight="bold")
    _arrow(axes, (0.45, 0.3), end=(1.6, 0.95), text="action 0", place=(0.65, 0.85))
    _arrow(axes, (0.45, -0.3), end=(1.6, -0.95), text="action 1", place=(0.65, -0.85))
    _arrow(axes, (2.8, 0.9), end=(4.2, 0.3), text="other action", place=(3.75, 0.85))
    _arrow(axes, (2.8, -0.9), end=(4.2, -0.3), text="other action", place=(3.75, -0.85))
    _loop(axes, 1.3, text="repeats the bit: stays, and sees a new fair bit", rises=True)
    _loop(axes, -1.3, text="follows the code: stays; pays from half-time on", rises=False)
    return figure_html(
        figure,
        "The tightrope. On the rope every step asks for a fair bit that only the expert sees. On the bridge it asks for the next "
        "bit of a fixed code.",
        alt="Platform, from which action 0 leads to the rope and action 1 to the bridge; a wrong action on either leads to gone.",
    )


def _arrow(
    axes: Axes, start: tuple[float, float], *, end: tuple[float, float], text: str, place: tuple[float, float]
) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": MUTED})
    axes.text(*place, text, ha="center", va="center", fontsize=8.5, color=MUTED)


def _loop(axes: Axes, y: float, *, text: str, rises: bool) -> None:
    bend = "arc3,rad=-1.2" if rises else "arc3,rad=1.2"
    arrow = {"arrowstyle": "->", "color": MUTED, "connectionstyle": bend}
    axes.annotate("", (2.45, y), (1.95, y), arrowprops=arrow)
    axes.text(2.2, y + (0.58 if rises else -0.58), text, ha="center", va="center", fontsize=8.5, color=MUTED)


def _bound(report: dict[str, Any]) -> str:
    figure, axes = subplots(figsize=(5.4, 2.6))
    errors = report["completeness"]["errors"]
    axes.bar(range(len(errors)), errors, color=BASE)
    axes.plot(range(len(errors)), report["completeness"]["closed_form"], ".", color=WALL)
    axes.set_xlabel("time")
    axes.set_ylabel("completeness error")
    return figure_html(
        figure,
        "How far the learner's best action on the expert's states lies behind the expert's, by time: computed (bars), and 0 on the platform, then 1 - 2^-(H-1-t) (dots).",
    )


def _too_much(report: dict[str, Any]) -> str:
    figure, axes = subplots(figsize=(5.4, 2.6))
    rows = report["by_u_max"]
    axes.step([row["u_max"] for row in rows], [row["guitar"] for row in rows], ".-", where="mid", color=ACCENT)
    axes.axvline(report["threshold"], color=MUTED, linestyle=":")
    axes.set_xlabel("u_max")
    axes.set_ylabel("return of GUITAR")
    return figure_html(figure, "GUITAR's return by how much its discriminator sees, and the threshold (dotted).")


def _footer(report: dict[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    return (
        f"<footer><p>{html.escape(settings)}. evor {html.escape(str(report['versions']['evor']))}, commit "
        f"{report['commit'] or 'unknown'}.</p></footer>"
    )
