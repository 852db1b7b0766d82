"""The main job in one command: data, training, search, report."""

import shutil
import time
from pathlib import Path
from typing import Any

from evor.config import RunConfig
from evor.data.generate import generate_once
from evor.errors import at_least
from evor.evaluate import evaluate, settings
from evor.extract import Extraction, Prior, SoftmaxOf
from evor.files import check_ours, write_json, write_text
from evor.progress import console
from evor.provenance import provenance, versions
from evor.report import print_summary, write_report
from evor.train import train

DATASET = "pointmaze-medium-navigate-v0"
TASK = 1


def demo(
    out: Path, data: Path, seed: int, transitions: int, steps: int, episodes: int, num_candidates: tuple[int, ...]
) -> None:
    """Generate (or reuse) data, train on task 1, evaluate the base policy and searches, write summary.json and the report into `out`.

    Replaces an earlier demo in `out`. The last checkpoint counts: nothing is chosen on the evaluation.
    """
    at_least(1, transitions=transitions, episodes=episodes)
    folder = data / f"{transitions}-seed{seed}"
    config = RunConfig(
        dataset=DATASET, data=str(folder), tasks=(TASK,), seed=seed, steps=steps, checkpoint_every=max(1, steps // 5)
    )
    extractions: list[Extraction] = [Prior(), *(SoftmaxOf(count) for count in sorted(num_candidates))]
    started = time.monotonic()
    mark = out / "demo.txt"  # what may be replaced by the next demo
    check_ours(out, mark, "demo")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text(mark, "This folder was made by `evor demo`; the next demo replaces it.\n")
    generate_once(DATASET, transitions, seed, folder)
    training = time.monotonic()
    train(config, out)
    train_seconds = time.monotonic() - training
    # The largest search first: the report's pictures are of it.
    rows = {extraction: evaluate(out, extraction, episodes) for extraction in reversed(extractions)}
    evaluations = [_summarise(extraction, rows[extraction]) for extraction in extractions]
    summary = {
        "dataset": DATASET,
        "transitions": transitions,
        "task": TASK,
        "seed": seed,
        "updates": steps,
        "train_seconds": round(train_seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "versions": versions(),
        "hardware": provenance()["hardware"],
        "commit": provenance()["commit"],
        "evaluations": evaluations,
    }
    write_json(out / "summary.json", summary)
    page = write_report([out])
    summary["total_seconds"] = round(time.monotonic() - started, 1)
    write_json(out / "summary.json", summary)
    print_summary(evaluations)
    console.print(f"{summary['total_seconds']:.0f} s in all. Open {page}", highlight=False, markup=False)


def _summarise(extraction: Extraction, rows: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = {name: settings(extraction)[name] for name in ("extraction", "num_candidates")}
    for name in ("return_temperature", "action_temperature"):
        temperature = settings(extraction)[name]
        chosen[name] = None if temperature == "" else temperature
    return {
        **chosen,
        "episodes": len(rows),
        "success": sum(row["success"] for row in rows) / len(rows),
        "mean_length": sum(row["length"] for row in rows) / len(rows),
    }
