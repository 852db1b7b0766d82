"""`evor evaluate` and `evor sweep`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import options
from evor.errors import EvorError
from evor.runtime.progress import screen

if TYPE_CHECKING:
    from evor.search.extraction import SoftmaxOf
from evor.search.extraction import SoftmaxOf


@dataclass(frozen=True)
class _Play:
    """What both verbs ask: which run, and what of it is played."""

    run: Positional[Path]
    episodes: int = 50
    evaluation_seed: int = 0
    tasks: Annotated[tuple[int, ...], arg(help="Of the run's tasks; all where left out.")] = ()
    seeds: Annotated[tuple[int, ...], arg(help="Of the run's seeds, by their numbers; all where left out.")] = ()
    step: Annotated[tuple[int, ...], arg(help="Checkpoints to play, by their updates; the newest where left out.")] = ()
    parallel: Annotated[
        int | None, arg(help="Episodes played at once; as many as fit into half of the free memory where left out.")
    ] = None
    env: Annotated[
        str | None, arg(help="module:function that makes the gymnasium environment of a run on your own data.")
    ] = None
    resume: Annotated[bool, arg(help="Don't play again what is there: tasks and seeds with all their episodes.")] = (
        False
    )

    def limits(self) -> dict[str, Any]:
        """The arguments of `rollouts.evaluate` beside the run and its searches; None for all."""
        names = ("episodes", "evaluation_seed", "tasks", "seeds", "step", "parallel", "env", "resume")
        return {name: None if (value := getattr(self, name)) == () else value for name in names}


def evaluate(arguments: list[str]) -> None:
    from evor.policies.load import open_run
    from evor.rollouts import evaluate
    from evor.search.extraction import Extraction, SoftmaxOf

    @dataclass(frozen=True)
    class Evaluate(_Play):
        """Play RUN's tasks, with the agent's own search unless --extraction prior | best-of | softmax-of chooses one.

        --extraction.* are its options. Rows are written as episodes end; several processes may play one run.
        """

        extraction: Extraction = field(default_factory=SoftmaxOf)

    a = options("evor evaluate", arguments, defaults=Evaluate(tyro.MISSING))
    flags = {word.split("=", 1)[0] for word in arguments if word.startswith("--extraction")}
    if flags and "--extraction" not in flags:  # dials of the agent's own search
        a = options(
            "evor evaluate", arguments, defaults=Evaluate(tyro.MISSING, extraction=open_run(a.run).default_search)
        )
    chosen = a.extraction if flags else None
    rows = evaluate.evaluate(a.run, chosen, **a.limits())
    _print_rows([(f"{rows[0]['extraction']} {rows[0]['num_candidates']}", rows)])


def sweep(arguments: list[str]) -> None:
    from evor.rollouts import evaluate

    @dataclass(frozen=True)
    class Sweep(_Play):
        """Cross num_candidates x return_temperature x action_temperature on one trained RUN."""

        num_candidates: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
        return_temperature: tuple[float, ...] = (1.0,)
        action_temperature: tuple[float, ...] = (1e-3,)

    a = options("evor sweep", arguments, defaults=Sweep(tyro.MISSING))
    grid = sweep_grid(a.num_candidates, a.return_temperature, action_temperatures=a.action_temperature)
    labels = [f"{e.num_candidates}, tau_R {e.return_temperature:g}, tau_Q {e.action_temperature:g}" for e in grid]
    _print_rows(list(zip(labels, evaluate.sweep(a.run, grid, **a.limits()), strict=True)))


def _print_rows(results: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """Print a line per search, checkpoint and task. Mean returns stand where an environment tells of no success."""
    from rich.table import Table

    told = all(row["success"] == row["success"] for _, rows in results for row in rows)  # none is NaN
    score = "success" if told else "return"
    table = Table("search", "updates", "task", "seeds x episodes", score if told else "mean return", "mean length")
    for label, rows in results:
        for updates, task in sorted({(row["updates"], row["task"]) for row in rows}):
            part = [row for row in rows if (row["updates"], row["task"]) == (updates, task)]
            num_seeds = len({row["seed"] for row in part})
            mean, length = (sum(row[key] for row in part) / len(part) for key in (score, "length"))
            counts = f"{num_seeds} x {len(part) // num_seeds}"
            number = f"{mean:.3f}" if told else f"{mean:.4g}"
            table.add_row(label, str(updates), str(task), counts, number, f"{length:.1f}")
    screen.print(table)


def sweep_grid(
    num_candidates: tuple[int, ...], return_temperatures: tuple[float, ...], *, action_temperatures: tuple[float, ...]
) -> "list[SoftmaxOf]":
    """Every combination of the three dials. Raises EvorError where one has no value."""
    from evor.search.extraction import SoftmaxOf

    lengths = {
        "num_candidates": len(num_candidates),
        "return_temperature": len(return_temperatures),
        "action_temperature": len(action_temperatures),
    }
    if empty := [name for name, length in lengths.items() if not length]:
        raise EvorError(f"--{empty[0].replace('_', '-')} names no value; give at least one.")
    return [
        SoftmaxOf(n, return_temperature=r, action_temperature=a)
        for n in num_candidates
        for r in return_temperatures
        for a in action_temperatures
    ]
