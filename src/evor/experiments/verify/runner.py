"""Does the value learn the law? Every objective on every problem whose law is known, through training itself.

A cell is one problem and one objective: a run folder like any other, trained by `train`, read by `load`, and measured
against the exact law at every state and action of the problem. Finished cells are kept, unfinished ones resume.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.table import Table

from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction, NextAction, PolicyAction
from evor.agents.registry import PRESETS
from evor.distributions import measures
from evor.distributions.laws import Law, Normal
from evor.errors import EvorError, at_least, nearest
from evor.experiments.verify.bounds import BACKUPS, TEMPERATURES, checks, worst
from evor.experiments.verify.page import write_page
from evor.experiments.verify.problems import PROBLEMS, Probe, write
from evor.nn.flow import AdamsBashforth
from evor.nn.learner import Learning
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo, Objective, SampleBackup
from evor.policies.load import load
from evor.runtime.files import check_ours, read_json, write_json
from evor.runtime.locks import hold
from evor.runtime.parallel import spread
from evor.runtime.progress import console, progress_bar, screen
from evor.runtime.provenance import provenance
from evor.training.config import RunConfig, differences
from evor.training.train import train

QUANTILES = 256  # of a learned law
NODES = 2048  # that read its Q*: at 0.3 standard deviations of a normal they reach as far as the integrand does
IDLE = (8,)  # width of a base policy that nobody asks
BATCHES = 1024, 3072  # at least, at most
READ_STEPS = 20  # ten leave a law seven times narrower than the noise off by 0.1 of its standard deviation
KEPT = 64  # of these quantiles, in verify.json
SAVED = 500  # updates between checkpoints


class Method(NamedTuple):
    """What is verified: an objective and where its next action comes from."""

    objective: Objective
    next_action: NextAction
    shipped: bool = False  # with the solver, the inputs and the steps of reading that `evor train` has by default


METHODS: dict[str, Method] = {
    "flow-td": Method(FlowTd(), DatasetAction()),
    "flow-td-policy-action": Method(FlowTd(), PolicyAction()),
    "flow-td-dataset-return": Method(FlowTd(z1=DatasetReturn()), DatasetAction()),
    "monte-carlo": Method(MonteCarlo(), DatasetAction()),
    "sample-backup-1": Method(SampleBackup(1), DatasetAction()),
    "sample-backup-1-policy-action": Method(SampleBackup(1), PolicyAction()),
    "sample-backup-5": Method(SampleBackup(5), DatasetAction()),
    "sample-backup-50": Method(SampleBackup(50), DatasetAction()),
    "default": Method(PRESETS["default"].objective, PRESETS["default"].next_action, shipped=True),
}


@dataclass(frozen=True)
class Settings:
    """How every cell is trained: small networks, big batches and, but for the method "default", sines of the return.

    The mass of an atom is decided where paths part, and that is learned from few rows: with 150 of a state and action in
    a batch, 3 000 updates leave the mean of a four-atom law off by 0.04 standard deviations; with 500, by less than 0.01.

    Without the sines, close atoms are smeared.
    """

    episodes: int = 300_000
    updates: int = 3_000
    seed: int = 0
    hidden: tuple[int, ...] = (64, 64, 64)
    return_frequencies: int = 4
    learning_rate: float = 3e-3
    rows_per_pair: int = 512  # of a batch, for every state and action; a batch has 1 024 rows at least, 3 072 at most
    target_rate: float = 0.01

    def __post_init__(self):
        at_least(1, episodes=self.episodes, updates=self.updates, rows_per_pair=self.rows_per_pair)
        at_least(1, hidden=min(self.hidden, default=0))
        at_least(0, seed=self.seed)


def verify(
    problems: tuple[str, ...], methods: tuple[str, ...], settings: Settings, workers: int, out: Path
) -> dict[str, Any]:
    """Train and measure problems x methods into `out`; verify.json and index.html tell of every finished cell there.

    Raises EvorError on an unknown name, or where `out` was made with other settings.
    """
    for name, known in [*((p, PROBLEMS) for p in problems), *((x, METHODS) for x in methods)]:
        if name not in known:
            raise EvorError(f"nothing is called {name!r}; {nearest(name, known)}")
    at_least(1, workers=workers, problems=len(problems), methods=len(methods))
    wanted = [(problem, method) for problem in problems for method in methods if _answerable(problem, method)]
    pairs = dict.fromkeys((problem, _twin(problem, method)) for problem, method in wanted)
    for problem, method in pairs:
        _config(problem, method, settings, out)  # what can't be trained is said before anything is written
    check_ours(out, out / "settings.json", "verification")
    out.mkdir(parents=True, exist_ok=True)
    with hold(out / ".lock", "evor verify"):
        _claim(out, settings)
        return _train_and_measure(pairs, settings, workers, out)


def _train_and_measure(pairs: Iterable[tuple[str, str]], settings: Settings, workers: int, out: Path) -> dict[str, Any]:
    """Train every pair of problem and method that is not measured yet; write verify.json and the page."""
    cells = [(out, *pair, settings) for pair in pairs]
    open_cells = [cell for cell in cells if not (_folder(*cell[:3]) / "measures.json").exists()]
    with progress_bar("verify", len(cells), len(cells) - len(open_cells), "cells") as advance:
        for name in spread(_cell, open_cells, workers, one_core=True):
            advance(1, name)
    found = [
        read_json(path, "problem", "method", "probes") | {"method": method}
        for problem in PROBLEMS
        for method in METHODS
        if (path := _folder(out, problem, _twin(problem, method)) / "measures.json").exists()
    ]
    report = {
        "settings": json.loads(json.dumps(asdict(settings))),
        "checks": checks(found),
        "cells": found,
        **provenance(),
    }
    write_json(out / "verify.json", report)
    write_page(report, out / "index.html")
    return report


def _claim(out: Path, settings: Settings) -> None:
    """Make `out` this verification's, or find that it is."""
    wanted, path = json.loads(json.dumps(asdict(settings))), out / "settings.json"
    if path.exists() and (changed := differences(read_json(path), wanted)):
        raise EvorError(f"{out} was made with other settings ({'; '.join(changed)}); choose another --out.")
    write_json(path, wanted)


def _folder(out: Path, problem: str, method: str) -> Path:
    return out / "cells" / problem / method


def _answerable(problem: str, method: str) -> bool:
    """Whether the problem has what the method needs: cut episodes hold no whole returns."""
    return PROBLEMS[problem].time_limit is None or not METHODS[method].objective.whole_returns


def _twin(problem: str, method: str) -> str:
    """The first method that trains the same.

    Past the longest episode, n-step sums are all alike. Wherever next actions come from makes no difference where nothing
    is bootstrapped, or where there is but one action (unless an episode is cut, and the dataset's is not known).
    """
    horizon, time_limit = PROBLEMS[problem].horizon, PROBLEMS[problem].time_limit
    actions = {float(probe.action[0]) for probe in PROBLEMS[problem].probes(None)}
    if horizon == 1 or (len(actions) == 1 and time_limit is None):
        method = method.removesuffix("-policy-action")
    if method not in BACKUPS or horizon is None:
        return method
    needed = min(METHODS[method].objective.n_steps or horizon, horizon)
    return next(name for name in BACKUPS if (METHODS[name].objective.n_steps or 0) >= needed)


# One cell.


def _cell(out: Path, problem: str, method: str, settings: Settings) -> str:
    """Train a cell and write its measures.json."""
    console.quiet = True  # the bar of the whole belongs to the parent process
    data = out / "data" / f"{problem}.npz"
    data.parent.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        write(problem, settings.episodes, settings.seed, data)
    folder = _folder(out, problem, method)
    train(_config(problem, method, settings, data), folder, resume=True)
    write_json(folder / "measures.json", measure(folder, problem, method))
    return f"{problem} {method}"


def _config(problem: str, method: str, settings: Settings, data: Path) -> RunConfig:
    objective, next_action, shipped = METHODS[method]
    default = PRESETS["default"]
    agent = Evor(
        objective,
        next_action,
        value_hidden=settings.hidden,
        return_frequencies=default.return_frequencies if shipped else settings.return_frequencies,
        learning=Learning(
            hidden=IDLE if next_action.from_data else settings.hidden,
            learning_rate=settings.learning_rate,
            batch_size=int(np.clip(settings.rows_per_pair * len(PROBLEMS[problem].probes(None)), *BATCHES)),
        ),
        target_rate=settings.target_rate,
        solver=default.solver if shipped else AdamsBashforth(),
        discount=PROBLEMS[problem].discount,
    )
    return RunConfig(data=str(data), seed=settings.seed, steps=settings.updates, checkpoint_every=SAVED, agent=agent)


def measure(run: Path, problem: str, method: str) -> dict[str, Any]:
    """The learned law against the exact one, at every probe. Errors are in units of the law's standard deviation.

    Where the law has none (a certain return), the unit is the standard deviation of the whole data set's returns.
    """
    policy = load(run)
    probes = PROBLEMS[problem].probes(METHODS[method].objective.n_steps)
    places = np.stack([probe.observation for probe in probes]), np.stack([probe.action for probe in probes])
    steps = PRESETS["default"].flow_steps if METHODS[method].shipped else READ_STEPS
    quantiles = np.sort(policy.quantiles(*places, QUANTILES, steps).astype(np.float64))
    data_std = policy.return_std
    q = np.array(
        [
            [
                policy.value(place.observation, place.action, temperature / data_std, NODES, steps)
                for temperature in temperatures(place.law, data_std)
            ]
            for place in probes
        ],
        np.float64,
    )
    return {
        "problem": problem,
        "method": method,
        "return_std": data_std,
        "probes": [_measure_law(*each, data_std) for each in zip(probes, quantiles, q, strict=True)],
    }


def _unit(law: Law, data_std: float) -> float:
    return law.std if law.std > 1e-6 * data_std else data_std


def temperatures(law: Law, data_std: float) -> list[float]:
    """In reward units, at which Q* is compared."""
    return [factor * _unit(law, data_std) for factor in TEMPERATURES]


def _measure_law(
    probe: Probe,
    quantiles: Float[np.ndarray, " Z"],
    q: Float[np.ndarray, " temperatures"],
    data_std: float,
) -> dict[str, Any]:
    law, unit = probe.law, _unit(probe.law, data_std)
    exact_q = np.array([law.log_mean_exp(temperature) for temperature in temperatures(law, data_std)])
    fine = measures.midpoints(8 * QUANTILES)
    outcomes = law.quantile(fine)
    limit = Normal(law.mean, data_std)  # of FlowTd
    kept = quantiles.reshape(KEPT, -1).mean(axis=1)
    return {
        "observation": probe.observation.tolist(),
        "action": probe.action.tolist(),
        "unit": unit,
        "mean": law.mean,
        "std": law.std,
        "wasserstein": measures.wasserstein(quantiles, law) / unit,
        "excess_crps": measures.excess_crps(quantiles, law) / unit,
        "mean_error": (quantiles.mean() - law.mean) / unit,
        "std_error": (quantiles.std() - law.std) / unit,
        "q": exact_q.tolist(),
        "q_error": ((q - exact_q) / unit).tolist(),
        "pit": measures.pit(np.tile(quantiles, (len(fine), 1)), outcomes, 0.02 * unit).tolist(),
        "wasserstein_to_unit_normal": measures.wasserstein(quantiles, limit) / data_std,
        "quantiles": kept.tolist(),
        "exact": law.quantile(measures.midpoints(KEPT)).tolist(),
    }


def print_table(report: dict[str, Any]) -> None:
    """W1 by problem and method, then every bound in a line."""
    methods = list(dict.fromkeys(cell["method"] for cell in report["cells"]))
    table = Table("W1 / sd", *methods)
    for problem in dict.fromkeys(cell["problem"] for cell in report["cells"]):
        row = {cell["method"]: cell for cell in report["cells"] if cell["problem"] == problem}
        table.add_row(
            problem, *(f"{worst(row[method], 'wasserstein'):.3f}" if method in row else "" for method in methods)
        )
    screen.print(table)
    for check in report["checks"]:
        verdict = "holds" if check["holds"] else "does not hold"
        screen.print(
            f"{check['name']}, {check['problem']} ({check['method']}): {check['measured']:.3f}, "
            f"at most {check['bound']:g}: {verdict}",
            soft_wrap=True,
        )
