"""The page of imitation runs: a table, curves over the learner's steps and over all steps, and the ledge. Imports no JAX."""

import html
import io
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from evor.errors import EvorError
from evor.imitation.ledge import BEAM, BRIDGE, EDGE, HORIZON, NAME, SIDE, middle
from evor.imitation.worlds import environment_id
from evor.report.figures import ACCENT, BASE, MUTED, WALL, figure_html, image_html, look, png, subplots
from evor.report.html import PAGE, STYLE, contents, paragraph, section, table, terms
from evor.report.statistics import estimate, interquartile_mean, probability_of_improvement
from evor.runtime.files import name_of, numbered, read_arrays, read_json, read_json_lines, write_text

KIND = "imitation"
COLOURS = {"Guitar": ACCENT, "Filter": BASE, "Mm": MUTED, "Bc": "#8a4fb3"}
LABELS = {"Guitar": "GUITAR", "Filter": "FILTER", "Mm": "MM", "Bc": "BC"}
STYLES: tuple[Any, ...] = ("-", (0, (7, 2)), (0, (2, 1.5)))  # of runs of one colour
SAME = "the expert's body"
FRAMES, FRAME_MILLISECONDS = 50, 90
EXPLAINED = {
    "learner's steps": "steps of the environment that the learner learns from",
    "all steps": "those, rollouts for the discriminator, and roll-ins of a clone; evaluations are not counted",
    "return": "sum of the environment's own rewards, which no method sees but the oracle; from the start, without noise",
    "score": "(return - random) / (oracle - random), where a run with the true reward and the same body, the oracle, is on the "
    "page: its best seed; random are random actions in this body",
}


@dataclass(frozen=True)
class Run:
    """A run folder: its config, what it is compared with, and the evaluations of each seed."""

    folder: Path
    config: dict[str, Any]
    references: dict[str, float]
    seeds: dict[int, list[dict[str, Any]]]
    indices: list[dict[str, float]]  # of its seeds, where it is an oracle

    @property
    def method(self) -> str:
        return self.config["config"]["method"]["type"]

    @property
    def is_oracle(self) -> bool:
        """Whether it was trained on the true reward."""
        return self.config["config"]["reward"]["type"] == "TrueReward"

    @property
    def label(self) -> str:
        """The method and the folder: two runs of a method may differ in settings."""
        return f"{'oracle, ' * self.is_oracle}{LABELS[self.method]} ({name_of(self.folder)})"

    @property
    def body(self) -> str:
        """Differences of its body from the expert's."""
        return ", ".join(f"{name} {value}" for name, value in self.config["body"].items())

    @property
    def final(self) -> np.ndarray:
        """Mean return of the last evaluation of each seed, and of an oracle's best, whose policy is kept."""
        means = [[np.mean(line["returns"]) for line in lines] for lines in self.seeds.values()]
        return np.array([max(each) if self.is_oracle else each[-1] for each in means])


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises EvorError where no seed has been evaluated yet."""
    config = read_json(folder / "config.json", env=str, config={"method": {"type": str}, "reward": {"type": str}})
    folders, seeds = numbered(folder, "seed"), {}
    for seed, path in folders.items():
        if lines := read_json_lines(
            path / "evaluations.jsonl", step=int, all_steps=int, returns=[float], lengths=[int]
        ):
            seeds[seed] = lines
    if not seeds:
        raise EvorError(f"{folder} has no evaluation yet; let `evor imitate` go on first.")
    indices = [
        read_json(path, expert=float, offline=float, steps=int, states=int)
        for each in folders.values()
        if (path := each / "index.json").exists()
    ]
    references = read_json(folder / "references.json")
    return Run(folder=folder, config=config, references=references, seeds=seeds, indices=indices)


def told(run: Run) -> dict[str, Any]:
    """Settings and results of a run, as plain JSON values."""
    config, origin = run.config, read_json(run.folder / "provenance.json")
    return {
        "kind": KIND,
        "folder": str(run.folder),
        "env": config["env"],
        "method": config["config"]["method"],
        "reward": config["config"]["reward"]["type"],
        "body": config["body"],
        "steps": config["config"]["steps"],
        "references": run.references,
        "seeds": {
            seed: {name: lines[-1][name] for name in ("step", "all_steps")} | {"return": float(final)}
            for (seed, lines), final in zip(run.seeds.items(), run.final, strict=True)
        },
        "commit": origin["commit"],
    }


@look()
def write_report(folders: list[Path]) -> Path:
    """Write report/index.html into the first run, with all runs on it. Raises EvorError where they are of several worlds."""
    runs = [read_run(folder) for folder in folders]
    envs = {environment_id(run.config["env"]) for run in runs}
    if len(envs) > 1:
        raise EvorError(f"the runs are in {' and '.join(sorted(envs))}; give runs of one environment.")
    (env,) = envs
    body = "\n".join(
        filter(
            None,
            [
                section("Returns", _table(runs), *_comparisons(runs), terms(EXPLAINED)),
                section("The tightrope index", *found) if (found := _index(runs)) else "",
                section("Learning", _curves(runs)),
                section("The ledge", *_ledge(runs)) if env == NAME else "",
                section("Bodies", *_bodies(runs)),
            ],
        )
    )
    title = f"<h1>Imitation in {html.escape(env)}</h1>"
    parts = [title, contents(body, "this page"), body, _footer(runs)]
    path = folders[0] / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    write_text(path, PAGE.format(title=html.escape(f"evor: imitation in {env}"), style=STYLE, body="\n".join(parts)))
    return path


def _table(runs: list[Run]) -> str:
    alike = _by_body(runs)
    names = dict.fromkeys(name for run in runs for name in run.references)
    lines = []
    for body, of_body in alike.items():
        references = {name: value for run in of_body for name, value in run.references.items()}
        told = f" ({body or SAME})" if len(alike) > 1 else ""
        lines += [[f"{name}{told}", f"{references[name]:.1f}", "", "", "", ""] for name in names if name in references]
    for run in runs:
        statistic = estimate(interquartile_mean, run.final[None])
        oracle = max((other.final.max() for other in alike[run.body] if other.is_oracle), default=None)
        score = ""
        if oracle is not None and oracle > (random := run.references["random"]):
            score = f"{(run.final.mean() - random) / (oracle - random):.2f}"
        last = [lines_[-1] for lines_ in run.seeds.values()]
        steps = [f"{np.mean([line[name] for line in last]):,.0f}" for name in ("step", "all_steps")]
        each = ", ".join(f"{value:.1f}" for value in run.final)
        lines.append([run.label, f"{statistic:.1f}", each, score, *steps])
    head = ("run", "return, IQM", "seeds", "score", "learner's steps", "all steps")
    caption = "The last evaluation of every seed (the best of an oracle), with a 95 % bootstrap interval over seeds where there are several."
    return table(caption, head, rows=lines, main="return, IQM")


def _by_body(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs whose learners have the same body."""
    return {body: [run for run in runs if run.body == body] for body in dict.fromkeys(run.body for run in runs)}


def _comparisons(runs: list[Run]) -> list[str]:
    """State how often a seed of GUITAR beats one of FILTER in the same body, of each run. Several are named by their folders."""
    told, alike = [], _by_body(runs)
    for body, of_body in alike.items():
        ours, others = ([r for r in of_body if r.method == name and not r.is_oracle] for name in ("Guitar", "Filter"))
        where = f" ({body or SAME})" if len(alike) > 1 else ""
        for guitar, other in itertools.product(ours, others):
            chance = probability_of_improvement(guitar.final[None], other.final[None])
            several = len(ours) * len(others) > 1
            first, second = (run.label if several else LABELS[run.method] for run in (guitar, other))
            told.append(paragraph(f"A seed of {first} beats a seed of {second} with probability {chance:.2f}{where}."))
    return told


def _index(runs: list[Run]) -> list[str]:
    """Tell from where the oracles survive."""
    lines = []
    for run in runs:
        if not run.indices:
            continue
        expert, offline = (np.mean([index[name] for index in run.indices]) for name in ("expert", "offline"))
        first = run.indices[0]
        lines.append(
            f"{run.label} survives {first['steps']} steps from {expert:.0%} of the expert's states, and from {offline:.0%} of the "
            f"offline states ({first['states']} of each, {len(run.indices)} seed{'s' * (len(run.indices) > 1)})."
        )
    told = "Where the two are equal there is no tightrope, and no reason for GUITAR to win."
    return [paragraph(line) for line in [*lines, told]] if lines else []


def _curves(runs: list[Run]) -> str:
    figure, axes = subplots(1, 2, figsize=(8.4, 3.2), sharey=True)
    for axis, name, label in zip(axes, ("step", "all_steps"), ("learner's steps", "all steps"), strict=True):
        drawn: list[str] = []
        for run in runs:
            colour = WALL if run.is_oracle else COLOURS[run.method]
            style = STYLES[drawn.count(colour) % len(STYLES)]
            drawn.append(colour)
            if run.method == "Bc":
                axis.axhline(run.final.mean(), color=colour, linestyle="--", label=run.label)
                continue
            for number, lines in enumerate(run.seeds.values()):
                returns = [np.mean(line["returns"]) for line in lines]
                axis.plot(
                    [line[name] / 1000 for line in lines],
                    returns,
                    color=colour,
                    linestyle=style,
                    alpha=0.8,
                    label=run.label if number == 0 else None,
                )
        for reference in {run.references.get("expert") for run in runs} - {None}:
            axis.axhline(reference, color=MUTED, linestyle=":")
        axis.set_xlabel(f"{label}, thousands")
    axes[0].set_ylabel("return")
    axes[0].legend(fontsize=8)
    return figure_html(
        figure,
        "True return of evaluations, a line for each seed; the expert's is dotted, and a clone's dashed. Of several "
        "runs of one method, the second has long dashes, and the third short ones.",
    )


def _bodies(runs: list[Run]) -> list[str]:
    """Differences of the learners' bodies from the expert's."""
    told = {run.label: run.body for run in runs if run.body}
    return [terms(told)] if told else []


def _footer(runs: list[Run]) -> str:
    origin = read_json(runs[0].folder / "provenance.json")
    settings = html.escape(json.dumps({run.label: run.config["config"] for run in runs}, indent=2))
    return (
        f"<footer><p>evor {html.escape(str(origin['versions']['evor']))}, commit {origin['commit'] or 'unknown'}.</p>"
        f'<details><summary>All settings</summary><pre tabindex="0">{settings}</pre></details></footer>'
    )


# The ledge.


def _ledge(runs: list[Run]) -> list[str]:
    """An animation of the last evaluation's episodes, a panel for each run."""
    shown = []
    for run in runs:
        path = run.folder / f"seed{next(iter(run.seeds))}" / "positions.npz"
        if path.is_file():
            stored = read_arrays(path)
            shown.append((run, stored["positions"], stored["lengths"]))
    if not shown:
        return []
    figure, axes = subplots(len(shown), 1, figsize=(7.6, 1.75 * len(shown)), dpi=90, squeeze=False, sharex=True)
    drawn = []
    for (axis,), (run, positions, lengths) in zip(axes, shown, strict=True):
        _draw_map(axis)
        axis.set_title(run.label, fontsize=9)  # for which the layout leaves room
        colour = WALL if run.is_oracle else COLOURS[run.method]
        trails = [axis.plot([], [], color=colour, alpha=0.5, linewidth=1.2)[0] for _ in lengths]
        heads = axis.scatter(*positions[0].T, s=20, color=colour, edgecolor="white", zorder=6)
        drawn.append((axis, run.label, positions, lengths, trails, heads))
    figure.tight_layout(pad=0.8)
    canvas, frames = FigureCanvasAgg(figure), []
    for time in np.linspace(0, max(len(positions) for _, positions, _ in shown) - 1, FRAMES).astype(int):
        for axis, label, positions, lengths, trails, heads in drawn:
            at = np.minimum(time, lengths - 1)
            fallen = int(((time >= lengths - 1) & (lengths < HORIZON)).sum())
            axis.set_title(f"{label}: step {time}, {fallen} of {len(lengths)} have fallen", fontsize=9)
            for episode, trail in enumerate(trails):
                trail.set_data(*positions[: at[episode] + 1, episode].T)
            heads.set_offsets(positions[at, np.arange(len(lengths))])
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    stream = io.BytesIO()
    imageio.imwrite(stream, np.stack(frames), extension=".gif", duration=FRAME_MILLISECONDS, loop=0)
    caption = "Episodes of the last evaluation, first seed. The beam leads straight on, and the bridge winds above it."
    picture = image_html(stream.getvalue(), "gif", caption=caption, still=png(figure))
    return [f"<details open><summary>Animation (close it to stop it)</summary>{picture}</details>"]


def _draw_map(axis: Axes) -> None:
    x = np.linspace(EDGE, 15.2, 300)
    axis.fill_between([-0.3, EDGE], -SIDE, SIDE, color="#e3e8ee")
    axis.fill_between(x, -BEAM, BEAM, color="#e3e8ee")
    axis.fill_between(x, middle(x) - BRIDGE, middle(x) + BRIDGE, color="#e3e8ee")
    axis.set(xlim=(-0.3, 15.2), ylim=(-1.0, 3.2))
    axis.grid(False)
