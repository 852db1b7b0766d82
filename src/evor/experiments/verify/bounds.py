"""Bounds that learned return distributions must keep in `evor verify`. Imports no JAX."""

from typing import Any, NamedTuple

import numpy as np

from evor.distributions import measures
from evor.experiments.verify.problems import PROBLEMS

CaseResult = dict[str, Any]  # a problem, a method, and measures at every state and action

TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of Q*, in standard deviations of the exact distribution
BACKUPS = ("sample-backup-1", "sample-backup-5", "sample-backup-50")
LONG = ("chain-10", "corridor", "cut-corridor")
TABULAR = tuple(name for name in PROBLEMS if name != "slope")


class BoundCheck(NamedTuple):
    """One bound: the worst value found, where, and the bound."""

    name: str
    problem: str
    method: str
    measured: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.bound


def check_bounds(cells: list[CaseResult]) -> list[dict[str, Any]]:
    """Every bound that the cells at hand can answer."""
    by_name = {(cell["problem"], cell["method"]): cell for cell in cells}
    results: list[BoundCheck] = []

    def bound(name: str, cell: CaseResult, *, measured: float, limit: float) -> None:
        results.append(
            BoundCheck(name=name, problem=cell["problem"], method=cell["method"], measured=measured, bound=limit)
        )

    for problem in PROBLEMS:
        backups = [by_name[problem, method] for method in BACKUPS if (problem, method) in by_name]
        learners = {"default": by_name.get((problem, "default"))}
        if len(backups) == len(BACKUPS):
            learners["best backup"] = min(backups, key=lambda cell: worst(cell, "wasserstein"))
        for name, cell in learners.items():
            if problem in TABULAR and cell:
                bound(f"{name}: W1", cell, measured=worst(cell, "wasserstein"), limit=0.1 if problem in LONG else 0.05)
                bound(f"{name}: mean", cell, measured=worst(cell, "mean_error"), limit=0.02)
                bound(f"{name}: Q* at 1 sd and more", cell, measured=_worst_q(cell, 1.0), limit=0.05)
        if cell := by_name.get((problem, "sample-backup-1")):
            bound("one-step backup: W1", cell, measured=worst(cell, "wasserstein"), limit=0.15)
        if cell := by_name.get((problem, "sample-backup-1-best-action")):
            bound("search in targets: W1 to the improved policy", cell, measured=worst(cell, "wasserstein"), limit=0.05)
        if cell := by_name.get((problem, "monte-carlo")):
            bound("Monte Carlo: W1", cell, measured=worst(cell, "wasserstein"), limit=0.05)
        if cell := by_name.get((problem, "flow-td")):
            bound("FlowTd: mean", cell, measured=worst(cell, "mean_error"), limit=0.02)
            bound("FlowTd: W1 to Normal(Q, 1)", cell, measured=worst(cell, "wasserstein_to_unit_normal"), limit=0.05)
    for method in (*BACKUPS, "monte-carlo", "default"):
        if cell := by_name.get(("fork", method)):
            bound("fork: temperatures that choose otherwise", cell, measured=_fork_misses(cell), limit=0)
    return [{**check._asdict(), "holds": check.holds} for check in results]


def worst(cell: CaseResult, name: str) -> float:
    """The largest error of a cell over the states and actions of its problem."""
    return max(abs(probe[name]) for probe in cell["probes"])


def _worst_q(cell: CaseResult, least: float) -> float:
    picked = [index for index, temperature in enumerate(TEMPERATURES) if temperature >= least]
    return max(abs(probe["q_error"][index]) for probe in cell["probes"] for index in picked)


def _fork_misses(cell: CaseResult) -> float:
    """Number of readings that choose otherwise than the exact ones: the mean, and Q* at 1 sd of the risky action and less."""
    exact = PROBLEMS["fork"].probes(None)
    learned = [np.array(probe["quantiles"]) for probe in cell["probes"]]
    unit = exact[1].distribution.std
    misses = int(
        np.argmax([quantiles.mean() for quantiles in learned])
        != np.argmax([probe.distribution.mean for probe in exact])
    )
    for temperature in (factor * unit for factor in TEMPERATURES if factor <= 1):
        right = np.argmax([probe.distribution.log_mean_exp(temperature) for probe in exact])
        misses += int(
            np.argmax([measures.log_mean_exp_of_quantiles(quantiles, temperature) for quantiles in learned]) != right
        )
    return misses
