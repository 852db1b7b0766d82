"""Success of a run's searches: the table, and success against the number of candidates. Imports no JAX."""

from collections import defaultdict

import matplotlib
import numpy as np

from evor.report.evaluations import BASE_POLICY, SETTING, Row, search_name
from evor.report.figures import ACCENT, MUTED, figure_html, subplots
from evor.report.html import paragraph, section, table, terms
from evor.report.statistics import estimate, interquartile_mean

Setting = tuple[str, ...]
NONE = "–"
HEAD = ("search", "N", "τ_R", "τ_Q", "reading", "flow steps", "max return", "guidance", "weight", "base")  # of SETTING
RARE = 6  # the columns of HEAD from here on are shown where a search has them
TERMS = {  # what the columns mean
    "search": "How an action is chosen. The base policy draws one action, without a search: it imitates the data, or is the "
    "actor of an agent that trains one (FQL, IQL, ReBRAC, SORL). BestOf takes the best of N candidate actions, SoftmaxOf draws one "
    "of them by its score, and Guided moves actions towards higher values.",
    "N": "Candidates: actions that the base policy proposes for one decision.",
    "success": "Share of episodes that solved the task, from 0 to 1: the mean over seeds, ± the standard deviation between "
    "seeds where there are several.",
    "95 % interval": "Wilson's interval of the success rate, over all episodes of the row. It says how much the number of "
    "episodes leaves open, not how much another training would differ.",
    "IQM": "Interquartile mean: the mean of the middle half of all tasks x seeds, in brackets its 95 % bootstrap interval, "
    "which resamples seeds within each task.",
    "mean return": "Sum of an episode's rewards in the environment, on average; later rewards count as much as early ones.",
    "mean length": "Environment steps of an episode, on average over solved and unsolved ones.",
    "τ_R": "Return temperature, in standard deviations of the data's returns. It turns the return distribution of a "
    "candidate into its score: infinity is the mean, smaller values give more weight to high returns, 0 is the highest one.",
    "τ_Q": "Action temperature, in the same unit. It says how sharply SoftmaxOf prefers high scores: 0 takes the best "
    "candidate, infinity ignores the scores.",
    "reading": "How the return distribution of a candidate is read: Quadrature-16-3 at 16 of its quantiles, each by 3 flow steps; "
    "RandomSamples-50 by 50 random draws.",
    "flow steps": "Integration steps that turn noise into an action, and into a return where the reading names none of its own.",
    "max return": f"A bound: returns read above it count as it. {NONE} is no bound.",
    "guidance": "Where Guided moves actions along the gradient of the mean return: InsideFlow at each step of the base "
    "policy's flow, AfterChoice in so many steps from the candidate that was taken.",
    "weight": "How far guidance moves an action: the root mean square of its entries, which lie between -1 and 1.",
    "base": f"A base policy of your own, which proposes the actions. {NONE} is the run's.",
}


def group(rows: list[Row]) -> dict[Setting, list[Row]]:
    """Rows by search setting, fewest candidates first."""
    groups: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[name]) for name in SETTING)].append(row)
    order = sorted(groups, key=lambda s: (float(s[1]), s[0] != BASE_POLICY, s[2:]))
    return {setting: groups[setting] for setting in order}


def label(setting: Setting, *, among: list[Setting] | None = None) -> str:
    """A search in a few words; with `among`, what tells it from those is added."""
    if setting[0] == BASE_POLICY:
        words = "base policy"
    else:
        words = f"{setting[0]}, {setting[1]} candidate{'s' * (setting[1] != '1')}"
    others = [other for other in among or [] if other[:2] == setting[:2]]
    different = [index for index in range(2, len(setting)) if len({other[index] for other in others}) > 1]
    return ", ".join([words, *(f"{HEAD[index]} {setting[index] or NONE}" for index in different)])


def success_by_seed(rows: list[Row]) -> np.ndarray:
    """Mean success of each seed, over its tasks and episodes."""
    seeds = sorted({row["seed"] for row in rows})
    return np.array([np.mean([row["success"] for row in rows if row["seed"] == seed]) for seed in seeds])


def success_interval(rows: list[Row]) -> tuple[float, float]:
    """95 % Wilson interval of the success rate, over episodes."""
    n, p, z = len(rows), float(np.mean([row["success"] for row in rows])), 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def number(value: float, digits: str = ".2f") -> str:
    """A number, or a dash in its place, as of success where an environment tells of none."""
    return NONE if np.isnan(value) else format(value, digits)


def success_section(groups: dict[Setting, list[Row]], others: dict[int, list[Row]], *, where: str = "") -> str:
    """The table of all searches, and what its columns mean.

    `others` are earlier checkpoints, by updates; `where` stands in the heading.
    """
    tasks = sorted({int(row["task"]) for rows in groups.values() for row in rows})
    several = len({row["seed"] for rows in groups.values() for row in rows}) > 1
    per_task = [f"task {task}" for task in tasks] if len(tasks) > 1 else []
    middle = [
        *per_task,
        "success",
        "95 % interval",
        *(["IQM"] if several else []),
        "mean return",
        "episodes",
        "mean length",
    ]
    shown = [i for i in range(2, len(HEAD)) if i < RARE or any(setting[i] for setting in groups)]
    head = [*HEAD[:2], *middle, *(HEAD[i] for i in shown)]
    lines = []
    for setting, rows in groups.items():
        seeds = success_by_seed(rows)
        low, high = success_interval(rows)
        spread = f" ± {seeds.std(ddof=1):.2f}" if len(seeds) > 1 else ""
        line = []
        for task in tasks if per_task else ():
            of_task = [row["success"] for row in rows if row["task"] == task]
            line.append(number(float(np.mean(of_task))) if of_task else NONE)
        has_success = not np.isnan(seeds.mean())
        line += [number(seeds.mean()) + spread * has_success, f"{low:.2f} to {high:.2f}" if has_success else NONE]
        line += [_iqm(rows) if has_success else NONE] if several else []
        line += [f"{np.mean([row['return'] for row in rows]):.4g}"]
        line += [str(len(rows)), f"{np.mean([row['length'] for row in rows]):.0f}"]
        lines.append([search_name(setting[0]), setting[1], *line, *(setting[i] or NONE for i in shown)])
    caption = (
        "Episodes played by the newest checkpoint, one row per search. Every task and seed that was played counts."
    )
    return section(
        f"Success{where}",
        table(caption, head, rows=lines, main="success"),
        terms({name: meaning for name, meaning in TERMS.items() if name in head}),
        _others(others),
    )


def _iqm(rows: list[Row]) -> str:
    """The interquartile mean with its interval; none where a seed has not played a task."""
    tasks, seeds = (sorted({row[name] for row in rows}) for name in ("task", "seed"))
    played: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in rows:
        played[row["task"], row["seed"]].append(row["success"])
    if len(seeds) < 2 or len(played) < len(tasks) * len(seeds):
        return NONE
    scores = np.array([[np.mean(played[task, seed]) for seed in seeds] for task in tasks])
    return f"{estimate(interquartile_mean, scores):.2f}"


def _others(others: dict[int, list[Row]]) -> str:
    """A line about the evaluations that the table does not show."""
    counts = ", ".join(
        f"{updates:,} updates ({len(rows)} episode{'s' * (len(rows) > 1)})" for updates, rows in others.items()
    )
    return paragraph(f"Earlier checkpoints were played too, see evaluations/: {counts}.", kind="note") if others else ""


def candidates_section(groups: dict[Setting, list[Row]], *, where: str = "") -> str:
    """Success against candidates, one line per search otherwise the same; the base policy stands at one candidate."""
    lines: dict[Setting, list[tuple[float, float, float, float]]] = defaultdict(list)
    base: dict[Setting, tuple[float, float, float, float]] = {}  # by flow steps and the name of a base policy
    for setting, rows in groups.items():
        point = (float(setting[1]), float(np.mean([row["success"] for row in rows])), *success_interval(rows))
        if setting[0] == BASE_POLICY:
            base[setting[5], setting[9]] = point
        else:
            lines[setting[0], *setting[2:]].append(point)
    if any(np.isnan(row["success"]) for rows in groups.values() for row in rows):
        return ""
    figure, axis = subplots(figsize=(6.4, 3.5))
    for index, (name, points) in enumerate(lines.items()):
        # One candidate without guidance is the base policy in as many flow steps, so a line may begin there.
        begins = len(points) > 1 and not name[6] and not any(point[0] == 1 for point in points)
        same = (name[4], name[8])
        joined = [base[same], *points] if begins and same in base else points
        x, y, low, high = np.array(sorted(joined)).T
        colour = ACCENT if len(lines) == 1 else matplotlib.colormaps["viridis"](index / len(lines))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        told = f"{name[0]}, $\\tau_R$ {name[1]}, $\\tau_Q$ {name[2]}, {name[3]}, {name[4]} flow steps"
        told += f", {name[6]}, weight {name[7]}" if name[6] else ""
        axis.vlines(x, low, high, color=colour, linewidth=1.2)
        axis.plot(x, y, "o-", color=colour, label=told)
    if base:
        height = next(iter(base.values()))[1]
        axis.axhline(height, color=MUTED, linestyle=":", linewidth=1.5)
        place = axis.get_yaxis_transform()
        axis.text(0.99, min(height + 0.03, 0.95), "base policy", ha="right", color=MUTED, transform=place)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set(xlabel="candidates per decision, N", ylabel="success", ylim=(-0.03, 1.05))
    if len(lines) > 1:
        axis.legend(frameon=False, fontsize=8)
    points = [
        f"{label(s, among=list(groups))}: {np.mean([row['success'] for row in rows]):.2f}" for s, rows in groups.items()
    ]
    return section(
        f"Success against number of candidates{where}",
        figure_html(
            figure,
            "Share of episodes that solved the task, against the number of candidate actions per decision. The networks are the "
            "same everywhere; only the search changes. Bars and band are Wilson's 95 % intervals over episodes"
            f"{'; the dotted line is the base policy' * bool(base)}.",
            alt=f"Success by search. {'; '.join(points)}.",
        ),
    )
