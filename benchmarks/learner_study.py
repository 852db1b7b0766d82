"""The study of the learner: recipes of one change each, beside the baselines: `make learner-study` (docs/results/learner-study.md).

A job is one cell (a dataset and a size), recipe and seed: it trains all tasks together and plays the last three of ten
checkpoints, and at the last one other numbers of candidates. What is in the CSV is finished; what is not is played anew. A job
that trains resumes from runs/learner-study. Recipes that need the same base policy share it. `--cells`, `--recipes` and `--seeds` narrow it; the page shows whatever there is.
"""

import argparse
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study import Study, interquartile, of, table

from evor.agents.evor import Evor
from evor.agents.next_action import BestAction, DatasetAction
from evor.agents.qc import Qc
from evor.agents.registry import AGENTS, PRESETS, AgentConfig
from evor.agents.scalar import Scalar
from evor.data.scripted.generate import generate_once, is_ant
from evor.experiments.reproduce.timing import seconds_per_update
from evor.nn.ensemble import SeveralValues
from evor.nn.objectives import SampleBackup
from evor.policies.load import Run, open_run
from evor.report.statistics import BOLD, bold, estimate, probability_of_improvement
from evor.rollouts.play import play
from evor.runtime.files import read_json
from evor.runtime.progress import console
from evor.runtime.provenance import provenance
from evor.runtime.records import replace
from evor.runtime.words import counted
from evor.search.extraction import BestOf, Extraction, SoftmaxOf
from evor.search.readings import Quadrature
from evor.training.config import RunConfig, to_json
from evor.training.train import BASE, train
from evor.types import NoBounds

DATA, RUNS, RESULTS = Path("data/results"), Path("runs/learner-study"), Path("docs/results/learner-study.csv")
UNDISTURBED = 0.1  # quantile of a run's seconds per update: the machine is shared
EPISODES = 10  # of a task, seed and checkpoint
CANDIDATES = (4, 32, 128)  # at the last checkpoint; the last three are played with PLAYED
PLAYED = 32  # but see `own_candidates`
READING = Quadrature(8, flow_steps=2)  # the default's has 10 quantiles, since an exact distribution asks for them


class Cell(NamedTuple):
    """A dataset, and the size at which recipes learn from it."""

    dataset: str
    transitions: int
    tasks: tuple[int, ...]
    updates: int
    hidden: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 3e-4
    max_episode_steps: int = 600  # failures are as long
    sparse_rewards: bool = False

    @property
    def title(self) -> str:
        return self.dataset + " with sparse rewards" * self.sparse_rewards


SCENE = Cell("scene-play-v0", 300_000, (1, 2), 20_000, learning_rate=9e-4, max_episode_steps=500)
ANT = Cell("antmaze-large-navigate-v0", 300_000, (1, 3), 20_000, learning_rate=9e-4, max_episode_steps=1000)
CELLS = {
    "navigate": Cell("pointmaze-medium-navigate-v0", 1_000_000, (1, 2, 3, 4, 5), 10_000),
    "stitch": Cell("pointmaze-medium-stitch-v0", 600_000, (1, 2, 3, 4, 5), 20_000, learning_rate=9e-4),
    "cube": Cell("cube-single-play-v0", 300_000, (1, 2), 50_000, (128, 128, 128), 1e-3, 200),
    "double": Cell("cube-double-play-v0", 1_000_000, (1, 2), 30_000, learning_rate=9e-4, max_episode_steps=500),
    "scene": SCENE,
    "scene-sparse": SCENE._replace(sparse_rewards=True),
    "ant-navigate": ANT,
    "ant-stitch": ANT._replace(dataset="antmaze-large-stitch-v0"),
}
WIDE, NARROW = BestAction(8, num_stored=16), BestAction(4, num_stored=4)
SOFT = replace(WIDE, action_temperature=SoftmaxOf.action_temperature)
LEAST = SeveralValues(2, pessimism=1.0)
DEFAULT, HALF = "default: n = 10, best of 8", "default, half the updates"
SINGLE = "default, in float32"
FASTER = ("default, half the updates, 3 x the learning rate", "n = 20, half the updates, 3 x the learning rate")
SEARCHED = "scalar, n = 10, best of 8, equal seconds"
ONE_STEP = "scalar, n = 1, the dataset's action, equal seconds"
FAR = "n = 20, half the updates"  # for the cells whose learning rate is high already
# In the order of their interest. Those of `EQUAL_SECONDS` have as many updates as fit into the seconds of `DEFAULT`.
RECIPES: dict[str, AgentConfig] = {
    DEFAULT: Evor(SampleBackup(10), next_action=WIDE),
    SINGLE: Evor(SampleBackup(10), next_action=WIDE),
    HALF: Evor(SampleBackup(10), next_action=WIDE),
    FASTER[0]: Evor(SampleBackup(10), next_action=WIDE),
    FASTER[1]: Evor(SampleBackup(20), next_action=WIDE),
    FAR: Evor(SampleBackup(20), next_action=WIDE),
    SEARCHED: Scalar(10, next_action=WIDE),
    "scalar, equal seconds": Scalar(20, next_action=DatasetAction()),
    ONE_STEP: Scalar(1, next_action=DatasetAction()),
    "qc-1, equal seconds": Qc(num_candidates=4),
    "qc-5, equal seconds": Qc(chunk_length=5),
    "n = 10, softmax of 8": Evor(SampleBackup(10), next_action=SOFT),
    "n = 1, softmax of 8": Evor(SampleBackup(1), next_action=SOFT),
    "flow-td, softmax of 8": replace(PRESETS["flow-td"], next_action=SOFT),
    "n = 20, best of 4": Evor(SampleBackup(20), next_action=NARROW),
    "n = 20, best of 8": Evor(SampleBackup(20), next_action=WIDE),
    "n = 5, best of 8": Evor(SampleBackup(5), next_action=WIDE),
    "n = 1, best of 8": Evor(SampleBackup(1), next_action=WIDE),
    "n = 20, the dataset's action": Evor(SampleBackup(20), next_action=DatasetAction()),
    "version 0.1: that without bounds": Evor(SampleBackup(20), next_action=DatasetAction(), return_bounds=NoBounds()),
    "n = 10, best of 8, no bounds": Evor(SampleBackup(10), next_action=WIDE, return_bounds=NoBounds()),
    "n = 10, best of 8 and the dataset's action": Evor(
        SampleBackup(10), next_action=replace(WIDE, dataset_action=True)
    ),
    "n = 5, best of 8, chunks of 5": Evor(SampleBackup(5), next_action=WIDE, chunk_length=5),
    "n = 10, best of 8, the least of two values": Evor(SampleBackup(10), next_action=WIDE, values=LEAST),
    "n = 5, best of 8, chunks of 5, the least of two values": Evor(
        SampleBackup(5), next_action=WIDE, chunk_length=5, values=LEAST
    ),
    "n = 1, the dataset's action": Evor(SampleBackup(1), next_action=DatasetAction()),
    "n = 5, the dataset's action, chunks of 5": Evor(SampleBackup(5), next_action=DatasetAction(), chunk_length=5),
    "scalar, n = 10, best of 8": Scalar(10, next_action=WIDE),
    "scalar": Scalar(20, next_action=DatasetAction()),
    "qc-1": Qc(num_candidates=4),
    "qc-5": Qc(chunk_length=5),
    "flow-td": PRESETS["flow-td"],
    "flow-td, the least of two values": replace(PRESETS["flow-td"], values=LEAST),
}
# Updates as a share of those of the others, by cell, from the seconds of earlier runs on one core with bfloat16: the
# column of seconds tells what became of it.
EQUAL_SECONDS = {
    SEARCHED: dict.fromkeys(CELLS, 1.5),
    "scalar, equal seconds": dict.fromkeys(CELLS, 4.4) | {"stitch": 4.9},
    ONE_STEP: dict.fromkeys(CELLS, 4.4) | {"stitch": 4.9},
    "qc-1, equal seconds": dict.fromkeys(CELLS, 0.6) | {"navigate": 0.9, "stitch": 1.0},
    "qc-5, equal seconds": dict.fromkeys(CELLS, 0.1) | {"navigate": 0.16, "stitch": 0.18},
}
SUMMARY = {  # columns of README's table
    DEFAULT: "evor",
    "flow-td": "flow-td",
    SEARCHED: "scalar",
    "scalar, equal seconds": "scalar-sarsa",
    "qc-1, equal seconds": "qc-1",
    "qc-5, equal seconds": "qc-5",
}
PLAY = ("cube", "double", "scene", "scene-sparse")
RULED = {cell: "flow-td" if cell in PLAY else DEFAULT for cell in CELLS}  # docs/tutorials/choose-the-recipe.md
SHARES = EQUAL_SECONDS | {recipe: dict.fromkeys(CELLS, 0.5) for recipe in (HALF, *FASTER, FAR)}


class Job(NamedTuple):
    """One training run and all that is played of it."""

    cell: str
    recipe: str
    seed: int

    @property
    def folder(self) -> Path:
        name = "".join(c if c.isalnum() else "-" for c in self.recipe.lower().replace(" = ", "").replace("'", ""))
        return RUNS / self.cell / name / f"seed{self.seed}"


def agent_of(job: Job) -> AgentConfig:
    size = CELLS[job.cell]
    rate = size.learning_rate * (3 if job.recipe in FASTER else 1)
    precision = "float32" if job.recipe == SINGLE else "bfloat16"
    agent = replace(RECIPES[job.recipe], learning_rate=rate, hidden=size.hidden, precision=precision)
    return replace(agent, final_learning_rate=rate) if isinstance(agent, Qc) else agent


def config_of(job: Job) -> RunConfig:
    cell = CELLS[job.cell]
    updates = round(cell.updates * SHARES.get(job.recipe, {}).get(job.cell, 1.0) / 100) * 100
    return RunConfig(
        dataset=cell.dataset,
        data=str(DATA),
        tasks=cell.tasks,
        sparse_rewards=cell.sparse_rewards,
        seed=job.seed,
        updates=updates,
        base_updates=cell.updates if job.recipe in EQUAL_SECONDS else None,
        checkpoint_every=updates // 10,
        log_every=max(1, updates // 50),
        agent=agent_of(job),
    )


def search(run: Run, candidates: int) -> Extraction:
    """The agent's own search with so many candidates."""
    kind = run.default_search
    assert isinstance(kind, BestOf | SoftmaxOf)
    return replace(kind, num_candidates=candidates, reading=READING if kind.reading == Quadrature() else kind.reading)


def own_candidates(agent: AgentConfig) -> int:
    """Candidates that an agent acts with: QC has as many as its targets compare."""
    return agent.num_candidates if isinstance(agent, Qc) else PLAYED


class Evaluation(NamedTuple):
    """Episodes of one task, by a search with so many candidates after so many updates."""

    updates: int
    candidates: int
    task: int


def wanted(job: Job) -> list[Evaluation]:
    """List all that is played of a job: the last three checkpoints by its own search, the last one by all."""
    config = config_of(job)
    own, last = own_candidates(config.agent), config.updates
    return [
        Evaluation(step, candidates, task)
        for step in range(last - 2 * config.checkpoint_every, last + 1, config.checkpoint_every)
        for candidates in CANDIDATES
        for task in CELLS[job.cell].tasks
        if candidates == own or step == last
    ]


def missing(job: Job, rows: list[dict[str, Any]]) -> list[Evaluation]:
    """List what is played of a job and is not among the rows."""
    there = {Evaluation(*(row[name] for name in Evaluation._fields)) for row in of(rows, **job._asdict())}
    return [each for each in wanted(job) if each not in there]


def run(job: Job, left: list[Evaluation]) -> list[dict[str, Any]]:
    """Train a job and play what is left; a row for each."""
    console.quiet = True
    config, cell = config_of(job), CELLS[job.cell]
    borrow(job)
    train(config, job.folder, resume=True)
    seconds, made = costs(job, config), provenance()
    checkpoints = {updates: open_run(job.folder, updates) for updates in {each.updates for each in left}}
    rows = []
    for each in left:
        opened = checkpoints[each.updates]
        episodes = play(
            opened.policy(each.task, job.seed),
            cell.dataset,
            task=each.task,
            extraction=search(opened, each.candidates),
            episodes=EPISODES,
            evaluation_seed=0,
            max_episode_steps=cell.max_episode_steps,
        )
        rows.append(
            {
                **job._asdict(),
                "task": each.task,
                "updates": each.updates,
                "candidates": each.candidates,
                "episodes": EPISODES,
                "success": float(np.mean([episode.success for episode in episodes])),
                "length": float(np.mean([episode.length for episode in episodes])),
                **seconds,
                "commit": made["commit"],
                "processor": made["hardware"]["cpu"],
            }
        )
    return rows


def borrow(job: Job) -> None:
    """Take the base policy of another job, where it is the same run: draws are made with it alone."""
    ours, agent = job.folder / BASE, agent_of(job)
    if ours.exists() or not AGENTS[type(agent)].base_first(agent):
        return
    wanted = to_json(config_of(job))
    for theirs in sorted((RUNS / job.cell).glob(f"*/seed{job.seed}/{BASE}")):
        there = read_json(theirs / "config.json")["config"]
        same = all(there[name] == wanted[name] for name in ("dataset", "tasks", "seed", "num_seeds"))
        finished = open_run(theirs).step == there["updates"] == (wanted["base_updates"] or wanted["updates"])
        learning = ("hidden", "learning_rate", "precision", "batch_size", "flow_steps", "chunk_length")
        if same and finished and all(there["agent"][name] == wanted["agent"].get(name) for name in learning):
            shutil.copytree(theirs, ours)
            return


def costs(job: Job, config: RunConfig) -> dict[str, float]:
    """Seconds of all tasks: of the base policy, of its draws, and of the updates."""
    base = job.folder / BASE
    drawn = [read_json(path)["seconds"] for path in base.glob("proposals/*/proposals.json")]
    of_base = seconds_per_update(base, UNDISTURBED) * open_run(base).step if base.exists() else 0.0
    return {
        "base_seconds": round(of_base, 1),
        "draw_seconds": sum(drawn),
        "update_seconds": round(seconds_per_update(job.folder, UNDISTURBED) * config.updates, 1),
    }


# What is finished, and the page.


def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of jobs that lack none."""
    jobs = [Job(*(row[name] for name in Job._fields)) for row in rows]
    whole = {job for job in set(jobs) if not missing(job, rows)}
    return [row for row, job in zip(rows, jobs, strict=True) if job in whole]


def own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by the agents' own searches."""
    return [row for row in rows if row["candidates"] == own_candidates(RECIPES[row["recipe"]])]


def swing(rows: list[dict[str, Any]]) -> float:
    """Range of success over the last three evaluations, the mean over tasks and seeds."""
    groups = {(row["task"], row["seed"]) for row in rows}
    return float(np.mean([np.ptp([row["success"] for row in of(rows, task=t, seed=s)]) for t, s in groups]))


def page(rows: list[dict[str, Any]], origin: dict[str, Any]) -> str:
    """Success, stability and cost by cell and recipe; candidates; the chance that the default is better."""
    rows = complete(rows)
    usual = Counter(row["processor"] for row in rows).most_common(1)[0][0]
    parts = [
        "# Which recipe learns best?",
        "",
        f"`make learner-study`: each recipe changes one setting of [EVOR](../agents/evor.md) or is a baseline. Data are generated; "
        f"{usual}, bfloat16 where a row does not say float32. Every row of the CSV names its commit and processor.",
        "",
        f"* **Success.** The mean over tasks, seeds and the last three of ten evaluations: {EPISODES} episodes of a task, seed "
        f"and evaluation. The agent's own search has {PLAYED} candidates, and that of qc-1 has 4; the default's reading has 8 quantiles here, not 10. "
        "In brackets is the interquartile mean over tasks x seeds with its 95 % bootstrap interval.",
        "* **By task.** The mean over seeds of each task, in the order of their numbers.",
        "* **Range.** The largest minus the smallest success of the last three evaluations, the mean over tasks and seeds.",
        "* **Seconds.** Of all tasks of a seed together: the base policy (where it is trained first), its draws, and the updates at "
        f"the fastest tenth of their rate. The machine is shared. Where the processor is not {usual}, it is named; compare seconds of one processor only.",
        f"* **Equal seconds.** A baseline with as many updates as fit into the seconds of the first recipe on {usual}, about.",
        "* **scalar, n = 10, best of 8** is `--preset scalar`: it has the default's targets, with an expectation. **scalar** alone sums 20 "
        "rewards and continues with the dataset's action. **scalar, n = 1, the dataset's action** is flow-td with an expectation.",
        "* **qc-1** compares 4 candidates, in targets and when it acts: the number of its authors for single actions. **qc-5** "
        "compares 32.",
        "* **flow-td** has no bounds of returns. In pointmaze navigate and on cube-double, its rows are of commits when it had, and the draws of its "
        "targets were clipped. This mattered little: clipped draws solved .89 of cube-single (three seeds) and .43 of the scene. The rows "
        "of cube-single are of the commit that they name with this one change.",
        "* A recipe that a table lacks was not run there.",
    ]
    for name, cell in CELLS.items():
        inside = of(rows, cell=name)
        if not inside:
            continue
        parts += [
            "",
            f"## {cell.title}: {cell.transitions:,} transitions, {cell.updates:,} updates, nets "
            f"{' x '.join(map(str, cell.hidden))}, learning rate {cell.learning_rate:g}",
            "",
            "| recipe | seeds | updates | success | by task | range | seconds: base + draws + updates |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        widths = [
            "",
            "Success at the last checkpoint by number of candidates:",
            "",
            "| recipe | " + " | ".join(map(str, CANDIDATES)) + " |",
            "| --- |" + " --- |" * len(CANDIDATES),
        ]
        for recipe in RECIPES:
            mine = of(inside, recipe=recipe)
            if not mine:
                continue
            main = own(mine)
            success, last = table(main), max(row["updates"] for row in mine)
            parts.append(
                f"| {recipe} | {success.shape[1]} | {last:,.0f} | {success.mean():.3f} [{interquartile(success)}] | "
                f"{' '.join(f'{mean:.2f}' for mean in success.mean(axis=1))} | {swing(main):.2f} | "
                f"{seconds_of(mine, usual)} |"
            )
            cells = [f"{table(of(mine, candidates=n, updates=last)).mean():.3f}" for n in CANDIDATES]
            widths.append(f"| {recipe} | {' | '.join(cells)} |")
        parts += widths
    parts += ["", *chances(rows)]
    return "\n".join(parts) + "\n"


def seconds_of(rows: list[dict[str, Any]], usual: str) -> str:
    """`28 + 36 + 381`: medians over the rows of the usual processor; without any, of another one, which is named."""
    where = usual if any(row["processor"] == usual for row in rows) else rows[0]["processor"]
    timed = of(rows, processor=where)
    parts = [float(np.median([row[f"{part}_seconds"] for row in timed])) for part in ("base", "draw", "update")]
    return " + ".join(f"{part:.0f}" for part in parts) + (f" ({where})" if where != usual else "")


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """README's table: success in percent by cell, of the default and of what it is compared with, and what a reader must know."""
    lines = [f"| dataset, tasks | {' | '.join(SUMMARY.values())} |", "| --- |" + " --- |" * len(SUMMARY)]
    rows = own(complete(rows))
    for name, cell in CELLS.items():
        inside = of(rows, cell=name)
        means = {recipe: 100 * table(mine).mean(axis=0) for recipe in SUMMARY if (mine := of(inside, recipe=recipe))}
        best = bold({recipe: float(found.mean()) for recipe, found in means.items()})
        cells = [_percent(means[recipe], recipe in best) if recipe in means else "not run" for recipe in SUMMARY]
        if means:
            lines.append(f"| {cell.title}, {', '.join(map(str, cell.tasks))} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "`make learner-study`: success in percent, mean ± standard deviation over seeds. A score is the mean of a run's last three "
        f"evaluations, with {PLAYED} candidates, and 4 for `qc-1`. `evor` is the default agent. `flow-td` makes as many updates, the others "
        "as many as fit into the same seconds. `scalar` is evor with an expectation instead of a return distribution; `scalar-sarsa` sums 20 "
        f"rewards and does not search in its targets. **Bold** is within {1 - BOLD:.0%} of a row's best, whatever the number of seeds. "
        "[Which recipe learns best](docs/results/learner-study.md) has the sizes, the other recipes and the intervals.",
    ]


def _percent(by_seed: np.ndarray, is_best: bool) -> str:
    """`**84** ± 3 (3 seeds)`."""
    told = f"**{by_seed.mean():.0f}**" if is_best else f"{by_seed.mean():.0f}"
    return f"{told} ± {by_seed.std(ddof=1):.0f} ({len(by_seed)} seeds)" if len(by_seed) > 1 else f"{told} (1 seed)"


def chances(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on the chance that a run is better than one of a baseline: of the default, and of the recipe that the rule names."""
    rows = own(rows)
    default = chances_of(rows, DEFAULT, dict.fromkeys(CELLS, DEFAULT))
    ruled = chances_of(rows, "the recipe of the rule", RULED)
    if not default:
        return []
    return [
        "## Chance that a run is better than one of a baseline",
        "",
        "The rule of [choosing the recipe](../tutorials/choose-the-recipe.md) names the default for mazes and flow-td for play data "
        "(the cubes and the scene). It was made from the cells of pointmaze, the cubes and the scene, so its chances there are not those of "
        "new data. Antmaze was run later. Ties count a half.",
        "",
        *default,
        *ruled,
    ]


def chances_of(rows: list[dict[str, Any]], name: str, recipes: dict[str, str]) -> list[str]:
    """Lines on the chance that the recipes of the cells are better than each baseline, over the tasks of all cells where both were run.

    Of one seed there is no interval. So the cells with several are told apart, where they are not all.
    """
    lines = []
    for baseline in EQUAL_SECONDS:
        pairs = [[of(rows, cell=cell, recipe=recipe) for recipe in (recipes[cell], baseline)] for cell in CELLS]
        tables = [[table(part) for part in pair] for pair in pairs if all(pair)]
        repeated = [pair for pair in tables if min(part.shape[1] for part in pair) > 1]
        for chosen in [tables] if len(repeated) in (0, len(tables)) else [tables, repeated]:
            if chosen:
                seeds = min(part.shape[1] for pair in chosen for part in pair)
                ours, theirs = (np.concatenate([pair[side][:, :seeds] for pair in chosen]) for side in (0, 1))
                found = estimate(probability_of_improvement, ours, theirs)
                where = counted(len(chosen), "cell") if chosen is tables else f"{len(chosen)} of these cells"
                told = f"{seeds} seeds" if seeds > 1 else "one seed, so there is no interval"
                lines.append(f"* {name} against {baseline}, {where}, {told}: {found:.2f}")
    return lines


STUDY = Study(RESULTS, words=("cell", "recipe"), page=page)
finished = STUDY.finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", nargs="+", choices=list(CELLS), help="left out: all, but for the ant without --expert"
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--expert", type=Path, help="npz of the ant's locomotion policy, for the cells of antmaze")
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if arguments.page_only:
        STUDY.write_page()
        return
    rows = finished()
    walks = arguments.expert is not None
    chosen = arguments.cells or [name for name, cell in CELLS.items() if walks or not is_ant(cell.dataset)]
    for name in chosen:
        dataset = CELLS[name].dataset
        expert = arguments.expert if is_ant(dataset) else None
        generate_once(dataset, CELLS[name].transitions, seed=0, folder=DATA, expert=expert)
    jobs = [Job(cell, recipe, seed) for seed in arguments.seeds for cell in chosen for recipe in arguments.recipes]
    left = [(job, lacking) for job in jobs if (lacking := missing(job, rows))]
    STUDY.carry_out(run, left, done=len(jobs) - len(left))


if __name__ == "__main__":
    main()
