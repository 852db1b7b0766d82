"""Does the value learn the return distribution? Every objective on every problem where it is known, through training itself.

A case is one problem and one objective: a run folder like any other, trained by `train`, read by `load`, and measured
against the exact distribution at every state and action of the problem. Finished cases are kept, unfinished ones resume.
"""

import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from evor.agents.evor import Evor
from evor.agents.registry import PRESETS
from evor.errors import EvorError, at_least, nearest, widths
from evor.experiments.verify.bounds import check_bounds, worst
from evor.experiments.verify.measure import measure
from evor.experiments.verify.methods import METHODS, answerable, representative
from evor.experiments.verify.page import write_page
from evor.experiments.verify.problems import PROBLEMS, write
from evor.nn.flow import AdamsBashforth
from evor.nn.learner import Learning
from evor.policies.load import load
from evor.runtime.files import check_ours, hold_own, read_json, stamps, write_json
from evor.runtime.locks import waited_for
from evor.runtime.parallel import Local, Ray, parallel_map
from evor.runtime.progress import logged, progress_bar, screen
from evor.runtime.provenance import provenance
from evor.training.config import RunConfig, differences
from evor.training.data import dataset_of
from evor.training.train import Training

IDLE = (8,)  # width of a base policy that is never used
BATCHES = 1024, 3072  # at least, at most
SAVED = 500  # updates between checkpoints


@dataclass(frozen=True)
class VerifySettings:
    """Settings of every case: small networks, big batches and, except in the method "default", sines of the return.

    The mass of an atom is decided where paths part, and that is learned from few rows: with 150 of a state and action in
    a batch, 3 000 updates leave the mean of a four-atom distribution off by 0.04 standard deviations; with 500, by less than 0.01.

    Without the sines, close atoms are smeared.
    """

    episodes: int = 300_000  # Episodes of data for each problem.
    updates: int = 3_000  # Gradient steps of every network.
    seed: int = 0  # Seed of the data and of training.
    hidden: tuple[int, ...] = (64, 64, 64)  # Widths of the hidden layers.
    # Frequencies at which return and time enter the return network. The method `default` has its own.
    return_frequencies: int = 4
    learning_rate: float = 3e-3  # Learning rate of Adam at the first update. It falls linearly to 0.
    rows_per_pair: int = 512  # Rows of a batch for every state and action. A batch has 1024 to 3072 rows.
    target_rate: float = 0.01  # Rate of the moving average of the return network, per update.

    def __post_init__(self):
        at_least(1, episodes=self.episodes, updates=self.updates, rows_per_pair=self.rows_per_pair)
        widths(hidden=self.hidden)
        at_least(0, seed=self.seed)


class Case(NamedTuple):
    """A problem and a method, in a run folder of their own."""

    here: Path  # the driver's working folder
    out: Path
    problem: str
    method: str

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.here / self.out / "cells" / self.problem / self.method

    @property
    def log(self) -> Path:
        """The file for its messages."""
        return self.folder / "log.txt"

    @property
    def results_file(self) -> Path:
        """The file that says that it is finished."""
        return self.folder / "measures.json"


def verify(
    problems: tuple[str, ...], methods: tuple[str, ...], *, settings: VerifySettings, machines: Local | Ray, out: Path
) -> dict[str, Any]:
    """Train and measure problems x methods into `out`, shared out to machines.

    verify.json and index.html tell of every finished case there.

    Raises EvorError on an unknown name, or where `out` was made with other settings.
    """
    for name, choices in [*((p, PROBLEMS) for p in problems), *((x, METHODS) for x in methods)]:
        if name not in choices:
            raise EvorError(f"nothing is called {name!r}; {nearest(name, choices)}")
    at_least(1, problems=len(problems), methods=len(methods))
    wanted = [(problem, method) for problem in problems for method in methods if answerable(problem, method)]
    if not wanted:
        raise EvorError(
            f"no method can be verified on {', '.join(problems)} by {', '.join(methods)}: it needs episodes that are not cut, or a "
            "known improved policy; choose others (--problems, --methods)."
        )
    cases = list(dict.fromkeys(_case(out, problem=problem, method=method) for problem, method in wanted))
    for case in cases:
        _config(case, settings, data=out)  # what can't be trained is said before anything is written
    check_ours(out, out / "settings.json", kind="verification")
    out.mkdir(parents=True, exist_ok=True)
    with hold_own(out, "evor verify"):
        _keep_settings(out, settings)
        return _train_and_measure(cases, settings, machines=machines, out=out)


def _case(out: Path, *, problem: str, method: str) -> Case:
    """The case that answers for this problem and method."""
    return Case(here=Path.cwd(), out=out, problem=problem, method=representative(problem, method))


def _train_and_measure(
    cases: list[Case], settings: VerifySettings, *, machines: Local | Ray, out: Path
) -> dict[str, Any]:
    """Train every case that is not measured yet; write verify.json and the page."""
    unmeasured = [(case, settings) for case in cases if not case.results_file.exists()]
    if isinstance(machines, Local):
        machines = Local(machines.workers, pin_cores=True)
    ended = parallel_map(_run, unmeasured, machines, shared=out, news=_news)
    with progress_bar("verify", len(cases), done=len(cases) - len(unmeasured), unit="cells") as advance, closing(ended):
        for name in ended:
            advance(1, name)
    results = [
        read_json(path, "problem", "method", "probes") | {"method": method}
        for problem in PROBLEMS
        for method in METHODS
        if (path := _case(out, problem=problem, method=method).results_file).exists()
    ]
    report = {
        "settings": json.loads(json.dumps(asdict(settings))),
        "checks": check_bounds(results),
        "cells": results,
        **provenance(),
    }
    write_json(out / "verify.json", report)
    write_page(report, out / "index.html")
    return report


def _keep_settings(out: Path, settings: VerifySettings) -> None:
    """Make `out` this verification's, or find that it is."""
    wanted, path = json.loads(json.dumps(asdict(settings))), out / "settings.json"
    if path.exists() and (changed := differences(read_json(path), wanted)):
        raise EvorError(f"{out} was made with other settings ({'; '.join(changed)}); choose another --out.")
    write_json(path, wanted)


# One case.


def _news(case: Case, settings: VerifySettings) -> list[tuple[int, int]]:
    """Stamps of what a case has written so far."""
    return stamps(case.log, case.folder / "timings.jsonl")


def _run(case: Case, settings: VerifySettings) -> str:
    """Train a case and write its measures.json. Its messages go into a file: the bar of the whole belongs to the driver."""
    with logged(case.log), waited_for(case.folder / ".case.lock"):
        if not case.results_file.exists():
            _train_case(case, settings)
    return f"{case.problem} {case.method}"


def _train_case(case: Case, settings: VerifySettings) -> None:
    named = case.out / "data" / f"{case.problem}.npz"
    data = case.here / named
    data.parent.mkdir(parents=True, exist_ok=True)
    with waited_for(data.with_suffix(".lock")):
        if not data.exists():
            write(case.problem, settings.episodes, seed=settings.seed, path=data)
    config = _config(case, settings, data=named)
    with Training.open(
        config, case.folder, resume=True, dataset=dataset_of(replace(config, data=str(data)))
    ) as training:
        training.advance(config.updates)
    write_json(case.results_file, measure(load(case.folder), problem=case.problem, method=case.method))


def _config(case: Case, settings: VerifySettings, *, data: Path) -> RunConfig:
    problem, (objective, next_action, shipped) = PROBLEMS[case.problem], METHODS[case.method]
    default = PRESETS["default"]
    agent = Evor(
        objective=objective,
        next_action=next_action,
        value_hidden=settings.hidden,
        return_frequencies=default.return_frequencies if shipped else settings.return_frequencies,
        learning=Learning(
            hidden=IDLE if next_action.from_data else settings.hidden,
            learning_rate=settings.learning_rate,
            batch_size=int(np.clip(settings.rows_per_pair * len(problem.probes(None)), *BATCHES)),
        ),
        target_rate=settings.target_rate,
        solver=default.solver if shipped else AdamsBashforth(),
        discount=problem.discount,
    )
    return RunConfig(data=str(data), seed=settings.seed, updates=settings.updates, checkpoint_every=SAVED, agent=agent)


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
