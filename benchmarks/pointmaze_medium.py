"""README's table: the default recipe on pointmaze-medium-navigate, five tasks x three seeds in one vmapped run.

Writes docs/results/pointmaze-medium.csv (one row per episode) and .json (how it was made), then README. Interrupted, it
continues where it stopped; the wall times of finished parts are kept.
"""

import json
import time
from pathlib import Path

import readme

from evor.config import RunConfig, to_json
from evor.data.generate import generate
from evor.evaluate import evaluate, file_name
from evor.extract import Extraction, Prior, SoftmaxOf
from evor.files import write_json, write_text
from evor.parallel import default_workers
from evor.train import train

DATASET = "pointmaze-medium-navigate-v0"
TRANSITIONS = 1_000_000  # as in the official data
STEPS = 10_000
EPISODES = 50
EXTRACTIONS: tuple[Extraction, ...] = (Prior(), SoftmaxOf(32))
RUN = Path("runs/pointmaze-medium")
DATA = Path("data/results")
RESULTS = Path("docs/results")


def main() -> None:
    if not (DATA / f"{DATASET}.npz").exists():
        generate(DATASET, TRANSITIONS, 0, default_workers(), DATA)
    config = RunConfig(
        dataset=DATASET, data=str(DATA), tasks=(1, 2, 3, 4, 5), seeds=3, steps=STEPS, checkpoint_every=STEPS // 10
    )
    times = RUN / "wall_seconds.json"
    wall = json.loads(times.read_text()) if times.exists() else {}
    started = time.monotonic()
    train(config, RUN, resume=True)
    if "train" not in wall:
        wall["train"] = round(time.monotonic() - started, 1)
        write_json(times, wall)
    for extraction in EXTRACTIONS:
        name = file_name(extraction)
        if name not in wall:
            started = time.monotonic()
            evaluate(RUN, extraction, EPISODES)
            wall[name] = round(time.monotonic() - started, 1)
            write_json(times, wall)
    parts = [(RUN / "evaluations" / f"{file_name(extraction)}.csv").read_text() for extraction in EXTRACTIONS]
    RESULTS.mkdir(exist_ok=True)
    body = parts[0] + "".join(part.split("\n", 1)[1] for part in parts[1:])
    write_text(RESULTS / "pointmaze-medium.csv", body)
    made = {
        "command": "make results",
        "data": f"{TRANSITIONS:,} transitions generated with `evor data generate {DATASET} --seed 0`, not the official file",
        "wall_seconds": wall,
        "config": to_json(config),
        **json.loads((RUN / "provenance.json").read_text()),
    }
    write_json(RESULTS / "pointmaze-medium.json", made)
    readme.main()


if __name__ == "__main__":
    main()
