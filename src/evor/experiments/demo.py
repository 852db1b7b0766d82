"""The main job in one command: data, training, search, report."""

import shutil
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from evor.data.scripted.generate import generate_once
from evor.envs.ogbench import check_installed
from evor.errors import at_least
from evor.report.evaluations import search_name
from evor.report.run import write_report
from evor.rollouts.evaluate import evaluate
from evor.runtime.files import check_ours, write_json, write_text
from evor.runtime.locks import hold
from evor.runtime.progress import console, screen
from evor.runtime.provenance import provenance, versions
from evor.search.extraction import Extraction, Prior, SoftmaxOf
from evor.search.labels import search_settings
from evor.training.config import RunConfig
from evor.training.folder import LOCK
from evor.training.train import train

DATASET = "pointmaze-medium-navigate-v0"
TASK = 1
DEMO_LOCK = ".demo.lock"  # training locks the folder by itself
MARK = "demo.txt"  # says that what is MADE may be replaced by the next demo
MADE = ("base", "checkpoints", "config.json", "evaluations", "metrics.jsonl", "provenance.json", "report", "saved.json",
        "summary.json", "timings.jsonl")  # fmt: skip


def demo(
    out: Path,
    data: Path,
    *,
    seed: int,
    transitions: int,
    updates: int,
    episodes: int,
    num_candidates: tuple[int, ...],
) -> dict[str, Any]:
    """Generate (or reuse) data, train on task 1, evaluate the base policy and searches, write summary.json and the report into `out`.

    Returns the summary. Replaces an earlier demo in `out`. The last checkpoint counts: nothing is chosen on the evaluation.
    """
    at_least(1, transitions=transitions, episodes=episodes)
    check_installed()
    config = RunConfig(
        dataset=DATASET,
        data=str(data / f"{transitions}-seed{seed}"),
        tasks=(TASK,),
        seed=seed,
        updates=updates,
        checkpoint_every=max(1, updates // 5),
    )
    extractions: list[Extraction] = [Prior(), *(SoftmaxOf(count) for count in sorted(num_candidates))]
    check_ours(out, out / MARK, kind="demo")
    out.mkdir(parents=True, exist_ok=True)
    with hold(out / DEMO_LOCK, "evor demo"):
        _empty(out)
        return _play_demo(config, out, transitions=transitions, extractions=extractions, episodes=episodes)


def _empty(out: Path) -> None:
    """Remove an earlier demo, unless a process trains in it. What no demo makes stays: with `--out .` the data are there, too."""
    with hold(out / LOCK, "evor demo"):
        write_text(out / MARK, "The run in this folder was made by `evor demo`; the next demo replaces it.\n")
        for path in (out / name for name in MADE):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _play_demo(
    config: RunConfig, out: Path, *, transitions: int, extractions: list[Extraction], episodes: int
) -> dict[str, Any]:
    started = time.monotonic()
    generate_once(DATASET, transitions, seed=config.seed, folder=Path(config.data or ""))
    training = time.monotonic()
    train(config, out)
    train_seconds = time.monotonic() - training
    # The largest search first: the report's pictures are of it.
    rows = {extraction: evaluate(out, extraction, episodes=episodes) for extraction in reversed(extractions)}
    evaluations = [_summarise(extraction, rows[extraction]) for extraction in extractions]
    summary = {
        "dataset": DATASET,
        "transitions": transitions,
        "task": TASK,
        "seed": config.seed,
        "updates": config.updates,
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
    console.print(f"{summary['total_seconds']:.0f} s in all. Open {page}")
    return summary


def _summarise(extraction: Extraction, rows: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = {name: search_settings(extraction)[name] for name in ("extraction", "num_candidates")}
    for name in ("return_temperature", "action_temperature"):
        temperature = search_settings(extraction)[name]
        chosen[name] = None if temperature == "" else temperature
    return {
        **chosen,
        "episodes": len(rows),
        "success": sum(row["success"] for row in rows) / len(rows),
        "mean_length": sum(row["length"] for row in rows) / len(rows),
    }


def print_summary(evaluations: list[dict[str, Any]]) -> None:
    """The demo's table on the terminal."""
    table = Table("search", "candidates", "episodes", "success", "mean length")
    for row in evaluations:
        cells = (search_name(row["extraction"]), row["num_candidates"], row["episodes"], f"{row['success']:.2f}")
        table.add_row(*map(str, cells), f"{row['mean_length']:.0f}")
    screen.print(table)
