"""README's table: the default recipe on pointmaze-medium-navigate, five tasks x three seeds in one run, in both precisions.

Writes docs/results/pointmaze-medium.csv (one row per episode) and .json (how it was made), the same with -bfloat16, then
README. Interrupted, it continues where it stopped; the wall times of finished parts are kept.
"""

import argparse
import json
import time
from pathlib import Path

import readme

from evor.agents.registry import PRESETS
from evor.data.scripted.generate import generate_once
from evor.nn.ops import Precision
from evor.rollouts.evaluate import evaluate, file_name
from evor.runtime.files import write_json, write_text
from evor.runtime.records import replace
from evor.search.extraction import Extraction, Prior, SoftmaxOf
from evor.training.config import RunConfig, to_json
from evor.training.train import train

DATASET = "pointmaze-medium-navigate-v0"
TRANSITIONS = 1_000_000  # as in the official data
STEPS = 10_000
EPISODES = 50
EXTRACTIONS: tuple[Extraction, ...] = (Prior(), SoftmaxOf(32))
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
RUNS, DATA, RESULTS = Path("runs"), Path("data/results"), Path("docs/results")


def study(precision: Precision) -> None:
    """Train, play and write one precision."""
    name = "pointmaze-medium" + ("" if precision == "float32" else f"-{precision}")
    run = RUNS / name
    agent = replace(PRESETS["default"], precision=precision)
    config = RunConfig(
        dataset=DATASET,
        data=str(DATA),
        tasks=(1, 2, 3, 4, 5),
        num_seeds=3,
        updates=STEPS,
        checkpoint_every=STEPS // 10,
        agent=agent,
    )
    times = run / "wall_seconds.json"
    wall = json.loads(times.read_text()) if times.exists() else {}
    started = time.monotonic()
    train(config, run, resume=True)
    if "train" not in wall:
        wall["train"] = round(time.monotonic() - started, 1)
        write_json(times, wall)
    for extraction in EXTRACTIONS:
        if (search := file_name(extraction)) not in wall:
            started = time.monotonic()
            evaluate(run, extraction, episodes=EPISODES)
            wall[search] = round(time.monotonic() - started, 1)
            write_json(times, wall)
    parts = [(run / "evaluations" / f"{file_name(extraction)}.csv").read_text() for extraction in EXTRACTIONS]
    RESULTS.mkdir(exist_ok=True)
    body = parts[0] + "".join(part.split("\n", 1)[1] for part in parts[1:])
    write_text(RESULTS / f"{name}.csv", body)
    made = {
        "command": "make results",
        "data": f"{TRANSITIONS:,} transitions generated with `evor data generate {DATASET} --seed 0`, not the official file",
        "wall_seconds": wall,
        "config": to_json(config),
        **json.loads((run / "provenance.json").read_text()),
    }
    write_json(RESULTS / f"{name}.json", made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    arguments = parser.parse_args()
    generate_once(DATASET, TRANSITIONS, seed=0, folder=DATA)
    for precision in arguments.precisions:
        study(precision)
    readme.main()


if __name__ == "__main__":
    main()
