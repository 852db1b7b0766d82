"""Time until pointmaze-medium-navigate, task 1, is solved: `make time-to-solve` (docs/results/time-to-solve.json).

Solved: the first evaluation of at least 0.95 that the next three follow with at least 0.9; a run at the end of its
schedule keeps its network, so its last evaluation stands for those to come. Each run has one core and stops half an hour
after its start at the latest, evaluations included. All EVOR recipes are played with the default search: the paper's 50
samples choose as its ten quantiles do, where the learned distribution is Normal(Q, 1), and would take six times as long as the
training in between. Interrupted, finished runs are kept. `--agents` runs some of them anew; the others' rows stay.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.agents.registry import PRESETS, AgentConfig
from evor.data.scripted.generate import generate_once
from evor.nn.objectives import SampleBackup
from evor.policies.load import open_run
from evor.rollouts.play import play
from evor.runtime.files import write_json
from evor.runtime.parallel import Local, default_workers, parallel_map
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.train import Training

DATASET, TASK, TRANSITIONS, EPISODES = "pointmaze-medium-navigate-v0", 1, 1_000_000, 20
SECONDS = 1800
DATA, RUNS, RESULTS = Path("data/results"), Path("runs/time-to-solve"), Path("docs/results")


class Case(NamedTuple):
    """An agent, over how many updates its learning rate falls, how often it is played, and how many seeds."""

    agent: AgentConfig
    updates: int
    every: int
    seeds: int
    hidden: tuple[int, ...] = (256, 256, 256)


FAST = "evor: n = 20, the dataset's action, smaller nets"
QUICK = replace(Evor(SampleBackup(20), next_action=DatasetAction()), learning_rate=6e-4)
CASES = {
    "evor": Case(PRESETS["default"], 10_000, 1000, 3),
    FAST: Case(QUICK, 8000, 1000, 3, hidden=(128, 128, 128)),
    "evor-paper": Case(PRESETS["paper"], 1_000_000, 5000, 3),
    "qc-1": Case(PRESETS["qc-1"], 1_000_000, 1000, 1),
}


def run(name: str, seed: int) -> str:
    """Train and play in turns; what was seen goes into job.json."""
    console.quiet = True
    jax.clear_caches()  # every run compiles, and its seconds tell of it
    case, out = CASES[name], folder(name) / f"seed{seed}-{int(time.time())}"  # times don't survive an interruption
    agent = replace(case.agent, hidden=case.hidden, precision="bfloat16")
    config = RunConfig(
        dataset=DATASET,
        data=str(DATA),
        tasks=(TASK,),
        seed=seed,
        updates=case.updates,
        checkpoint_every=case.every,
        agent=agent,
    )
    started, trained, laps = time.monotonic(), 0.0, []
    training = Training.open(config, out, resume=False)
    for updates in range(case.every, case.updates + 1, case.every):
        before = time.monotonic()
        finished = training.advance(updates, started + SECONDS)
        trained += time.monotonic() - before
        if not finished:
            break
        policy = open_run(out).policy(TASK, seed)
        episodes = play(
            policy, DATASET, task=TASK, extraction=policy.default_search, episodes=EPISODES, evaluation_seed=0
        )
        success = float(np.mean([episode.success for episode in episodes]))
        laps.append({"updates": updates, "train_seconds": round(trained, 1), "success": success})
        if solved(name, laps) is not None or time.monotonic() - started > SECONDS:
            break
    made = {"agent": name, "seed": seed, "hidden": case.hidden, "solved": solved(name, laps), "laps": laps}
    write_json(folder(name) / f"seed{seed}.json", made | {"commit": provenance()["commit"]})
    return f"{name} seed {seed}"


def folder(name: str) -> Path:
    return RUNS / "".join(letter if letter.isalnum() else "-" for letter in name)


def solved(name: str, laps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The lap from which on it stays solved."""
    seen = [lap["success"] for lap in laps]
    if laps and laps[-1]["updates"] == CASES[name].updates:
        seen += 3 * seen[-1:]
    for index in range(len(seen) - 3):
        if seen[index] >= 0.95 and min(seen[index + 1 : index + 4]) >= 0.9:
            return laps[index]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", choices=list(CASES), default=list(CASES))
    wanted = parser.parse_args().agents
    generate_once(DATASET, TRANSITIONS, seed=0, folder=DATA)
    jobs = [(name, seed) for name in wanted for seed in range(CASES[name].seeds)]
    left = [(name, seed) for name, seed in jobs if not (folder(name) / f"seed{seed}.json").exists()]
    with progress_bar("time to solve", len(jobs), done=len(jobs) - len(left), unit="runs") as advance:
        for name in parallel_map(run, left, Local(default_workers(), pin_cores=True)):
            advance(1, name)
    path = RESULTS / "time-to-solve.json"
    others = (
        [one for one in json.loads(path.read_text())["runs"] if one["agent"] not in wanted] if path.exists() else []
    )
    runs = others + [json.loads((folder(name) / f"seed{seed}.json").read_text()) for name, seed in jobs]
    runs.sort(key=lambda one: (list(CASES).index(one["agent"]), one["seed"]))
    made = {"dataset": DATASET, "task": TASK, "episodes": EPISODES, "limit_seconds": SECONDS, **provenance()}
    write_json(path, made | {"runs": runs})


if __name__ == "__main__":
    main()
