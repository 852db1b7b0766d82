"""The study of imitation: the ledge, and MuJoCo bodies that differ from the expert's: `make imitate-results`.

A cell is a world, a body and a method; a job is a cell and a seed. Oracles come first, because they tell the tightrope index
before any method is run. What is in docs/results/imitate-results.csv is finished; a job that trains resumes from
runs/imitate-results. `--worlds`, `--bodies`, `--methods` and `--seeds` narrow it; the page shows whatever there is.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study import Study, of

from evor.cli.main import main as evor
from evor.imitation.page import LABELS, read_run
from evor.report.statistics import estimate, interquartile_mean, probability_of_improvement
from evor.runtime.files import read_json
from evor.runtime.progress import console
from evor.runtime.provenance import provenance

RUNS, RESULTS = Path("runs/imitate-results"), Path("docs/results/imitate-results.csv")
EXPERT = Path("docs/results/experts/Hopper-v5.safetensors")
COST = EXPERT.with_suffix(".json")  # its command, its cost, and its curve
ORACLE = "oracle"
FASTER = "--learner.precision bfloat16"
# The discriminator sees neither the height nor the action: other limbs and motors change what these mean.
SEES = "--discriminator-sees entries --discriminator-sees.observation 1 2 3 4 5 6 7 8 9 10"
HALF = 61_440  # steps of the policy that leaves offline data; of the methods, too. An oracle takes twice as many


class World(NamedTuple):
    """An environment, what its methods share, and the settings of each, as words of `evor imitate`."""

    env: str
    shared: str
    methods: dict[str, str]
    bodies: dict[str, str]


BC = "--method bc --method.batch-size 128 --method.precision bfloat16"
WORLDS = {
    "ledge": World(
        env="ledge",
        shared="--steps 60000",
        methods={
            ORACLE: "--method guitar --reward true-reward",
            "guitar": "--method guitar",
            "filter": "--method filter",
            "mm": "--method mm",
            "bc": f"{BC} --method.hidden 64 64",
            "guitar, the discriminator sees everything": "--method guitar --discriminator-sees everything",
            "guitar, the released reward": "--method guitar --reward free --reward.pairs 512",
        },
        bodies={"same": ""},
    ),
    "hopper": World(
        env="Hopper-v5",
        shared=f"--reward-every 1024 --evaluate-every 10240 --search-horizon 200 {FASTER}",
        methods={
            ORACLE: f"--method guitar --reward true-reward --steps {2 * HALF}",
            "guitar": f"--method guitar {SEES} --steps {HALF}",
            "filter": f"--method filter {SEES} --steps {HALF}",
            "mm": f"--method mm {SEES} --steps {HALF}",
            "bc": f"{BC} --method.hidden 256 256 --steps {HALF}",
        },
        bodies={"same": "", "gear 0.7": "--body.gear 0.7", "limb 1.2": "--body.limb 1.2"},
    ),
}


class Job(NamedTuple):
    """A seed of a cell."""

    world: str
    body: str
    method: str
    seed: int

    @property
    def place(self) -> Path:
        return RUNS / self.world / _name(self.body)

    @property
    def folder(self) -> Path:
        return self.place / _name(self.method)

    @property
    def words(self) -> list[str]:
        """The command."""
        world = WORLDS[self.world]
        files = f"--demos {self.place}/expert.npz"
        files += "" if self.method in ("bc", "mm", "filter") else f" --offline {self.place}/offline.npz"
        options = f"{world.methods[self.method]} {world.shared} {world.bodies[self.body]}"
        return f"imitate {world.env} {files} {options} --seeds {self.seed} --out {self.folder}".split()


def _name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.replace(", ", "-"))


def record(world: str, body: str) -> None:
    """Write the demonstrations of the expert, and the offline data of a policy that plays the learner's body."""
    place = Job(world, body, "", 0).place
    if (place / "offline.npz").exists():
        return
    if world == "ledge":
        sources = {"expert": "ledge --episodes 2", "offline": "ledge-bridge --episodes 45 --tremble 0.3"}
    else:
        changed, half = WORLDS[world].bodies[body], place / "half"
        command(f"imitate expert {WORLDS[world].env} --steps {HALF} {FASTER} {changed} --out {half}")
        sources = {"expert": f"{EXPERT} --episodes 10", "offline": f"{half} --episodes 25"}
    for name, words in sources.items():
        command(f"imitate demos {words} --out {place}/{name}.npz")


def command(words: str) -> None:
    """Run `evor` with these words. Raises SystemExit where it fails."""
    if status := evor(words.split()):
        raise SystemExit(status)


def run(job: Job) -> list[dict[str, Any]]:
    """Train a job, or go on with it. Returns its one row."""
    console.quiet = True
    started = time.process_time()
    command(" ".join(job.words))
    seconds = time.process_time() - started
    done = read_run(job.folder)
    last = done.seeds[job.seed][-1]
    index = dict(zip(done.seeds, done.indices, strict=True)).get(job.seed) if job.method == ORACLE else None
    row = {
        **job._asdict(),
        "steps": last["step"],
        "all_steps": last["all_steps"],
        "return": float(done.final[list(done.seeds).index(job.seed)]),
        "episodes": len(last["returns"]),
        **{name: done.references.get(name, math.nan) for name in ("expert", "offline", "random")},
        **{f"survives_{name}": index[name] if index else math.nan for name in ("expert", "offline")},
        "cpu_seconds": round(seconds, 1),
        "commit": provenance()["commit"],
    }
    return [row]


# What is finished, and the page.


def page(rows: list[dict[str, Any]], origin: dict[str, Any]) -> str:
    """Returns by world, body and method, the tightrope index first."""
    parts = [
        "# Do resets help an imitation?",
        "",
        "`make imitate-results` plays [the methods](../concepts/imitation.md) where the learner can't do what the expert did. "
        f"{origin['hardware']['cpu']}; evor {origin['versions']['evor']}, jax {origin['versions']['jax']}, mujoco "
        f"{origin['versions']['mujoco']}. Every row of the CSV names its commit.",
        "",
        "* **Return.** The sum of the environment's own rewards, 10 episodes from the start without noise, after the last step: the "
        "interquartile mean over seeds, with its 95 % bootstrap interval where there are several.",
        "* **Score.** (return - random) / (oracle - random), with the mean over seeds and the oracle's best seed.",
        "* **Oracle.** SAC on the true reward in the learner's body, with GUITAR's resets; the best of its evaluations. It is no upper "
        "bound: after so few steps an imitation may return more, and then its score is above 1.",
        "* **Seeds.** Those of a hopper scatter widely. An interval over three seeds is little more than their range. "
        "[What is measured](../concepts/imitation.md#what-is-measured) says what the tables show.",
        "* **All steps.** Those of the learner, of rollouts for the discriminator, and of roll-ins.",
        "* **CPU seconds.** Of one seed, compilation included. Other programs ran on the same core, so they are upper bounds.",
    ]
    for name, world in WORLDS.items():
        parts += ["", f"## {world.env}", "", f"All methods: `{world.shared}`. Each:", ""]
        parts += [f"* {shown(method)}: `{words}`" for method, words in world.methods.items()]
        parts += cost_of_expert(name)
        for body in world.bodies:
            parts += table(name, body, rows)
    return "\n".join(parts) + "\n"


def cost_of_expert(world: str) -> list[str]:
    """Say what the committed expert is, and what it took."""
    if WORLDS[world].env != EXPERT.stem or not COST.exists():
        return []
    told = read_json(COST)
    return [
        "",
        f"The expert was trained by `{told['command']}`, which was stopped after {told['interrupted_after']:,} steps and "
        f"{told['cpu_seconds'] / 60:.1f} minutes of CPU. The policy of its best evaluation, after {told['step']:,} steps, is "
        f"`{EXPERT}` ({EXPERT.stat().st_size / 1e6:.2f} MB). In 10 other episodes it returns {told['return']:.0f} "
        f"({told['least']:.0f} to {told['most']:.0f}).",
    ]


def table(world: str, body: str, rows: list[dict[str, Any]]) -> list[str]:
    """Lines of one body."""
    inside = of(rows, world=world, body=body)
    titles = {"same": "The same body"}
    parts = ["", f"### {titles.get(body, body.capitalize())}", ""] if len(WORLDS[world].bodies) > 1 else [""]
    oracles = of(inside, method=ORACLE)
    if oracles:
        shares = [np.mean([row[f"survives_{name}"] for row in oracles]) for name in ("expert", "offline")]
        parts += [
            f"The tightrope index: the oracle survives 100 steps from {shares[0]:.0%} of the expert's states, and from "
            f"{shares[1]:.0%} of the offline states ({len(oracles)} seed{'s' * (len(oracles) > 1)}).",
            "",
        ]
    if inside:
        told = {name: inside[0][name] for name in ("expert", "random")}
        told["the policy that left offline data"] = next(
            (row["offline"] for row in inside if not math.isnan(row["offline"])), math.nan
        )
        others = ", ".join(f"{name} {value:.0f}" for name, value in told.items() if not math.isnan(value))
        parts += [f"Returns of others: {others}.", ""]
    parts += [
        "| method | return | seeds | score | learner's steps | all steps | CPU seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in WORLDS[world].methods:
        parts.append(line(method, inside, costs=[row["cpu_seconds"] for row in of(rows, world=world, method=method)]))
    pair = [np.array([[row["return"] for row in of(inside, method=method)]]) for method in ("guitar", "filter")]
    if min(each.size for each in pair) > 1:
        chance = estimate(probability_of_improvement, *pair)
        parts += [
            "",
            f"A seed of GUITAR beats one of FILTER with probability {chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}].",
        ]
    return parts


def shown(method: str) -> str:
    """A method as pages write it: GUITAR."""
    name, _, change = method.partition(",")
    return f"{LABELS.get(name.capitalize(), name)}{',' * bool(change)}{change}"


def line(method: str, inside: list[dict[str, Any]], *, costs: list[float]) -> str:
    """One method of a body, or that it was not run."""
    mine = of(inside, method=method)
    if not mine:
        cost = f", about {np.mean(costs):.0f} s of CPU a seed" if costs else ""
        return f"| {shown(method)} | not run{cost} | | | | | |"
    returns = np.array([[row["return"] for row in mine]])
    oracles, score = of(inside, method=ORACLE), ""
    if oracles:
        best, random = max(row["return"] for row in oracles), mine[0]["random"]
        score = f"{(returns.mean() - random) / (best - random):.2f}"
    found = estimate(interquartile_mean, returns)
    interval = f" [{found.low:.1f}, {found.high:.1f}]" if returns.size > 1 else ""
    means = [np.mean([row[name] for row in mine]) for name in ("steps", "all_steps", "cpu_seconds")]
    each = ", ".join(f"{value:.1f}" for value in returns[0])
    return f"| {shown(method)} | {found.value:.1f}{interval} | {each} | {score} | {' | '.join(f'{mean:,.0f}' for mean in means)} |"


STUDY = Study(RESULTS, words=("world", "body", "method"), page=page)
finished = STUDY.finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--bodies", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if arguments.page_only:
        STUDY.write_page()
        return
    rows = finished()
    jobs = [
        Job(world, body, method, seed)
        for seed in arguments.seeds
        for world in arguments.worlds
        for method in arguments.methods or WORLDS[world].methods
        for body in arguments.bodies or WORLDS[world].bodies
    ]
    left = [job for job in jobs if not of(rows, **job._asdict())]
    for world, body in dict.fromkeys((job.world, job.body) for job in left):
        record(world, body)
    STUDY.carry_out(run, [(job,) for job in left], done=len(jobs) - len(left))


if __name__ == "__main__":
    main()
