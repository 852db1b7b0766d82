"""`evor evaluate` and `evor sweep`: the same options, where `sweep` takes several values for each number."""

import dataclasses
import itertools
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import Tabled, options, write_document
from evor.cli.over_base import OverBase
from evor.cli.rules import annotated, union_of
from evor.errors import EvorError
from evor.runtime.progress import screen
from evor.runtime.records import INLINED
from evor.search.extraction import Extraction, SoftmaxOf

NUMBERS = ("num_candidates", "return_temperature", "action_temperature", "flow_steps", "weight")
SEARCH = ("--extraction", *(f"--{name.replace('_', '-')}" for name in NUMBERS))
TEMPERATURES = ("return_temperature", "action_temperature")
TOLD = (*TEMPERATURES, "flow_steps")  # beside the candidates, where searches differ in them
COUNTS = (1, 2, 4, 8, 16, 32)  # candidates, in a sweep
ALL = arg(help_behavior_hint="(default: all)")
OWN = arg(help_behavior_hint="(default: the agent's own)")


@dataclass(frozen=True, kw_only=True)
class _Play(OverBase, Tabled):
    """Options of both verbs: which run, and what of it is played."""

    # The run folder that `evor train --out` wrote.
    run: Positional[Path]
    # Episodes for each task, seed and checkpoint.
    episodes: int = 50
    # Seed of the environments and of the decisions.
    evaluation_seed: int = 0
    # Which tasks of the run to play, by their numbers.
    tasks: Annotated[tuple[int, ...], ALL] = ()
    # Which seeds of the run to play, by their numbers.
    seeds: Annotated[tuple[int, ...], ALL] = ()
    # Which checkpoints to load, by their numbers of updates.
    checkpoints: Annotated[tuple[int, ...], arg(help_behavior_hint="(default: the newest)")] = ()
    # Episodes that are played at once. Left out: as many as fit into half of the free memory.
    parallel: int | None = None
    # Cut an episode after so many steps, which is a failure. Left out: the environment's own time limit.
    max_episode_steps: int | None = None
    # Function that makes the gymnasium environment of a run on data of your own, as module:function.
    env: str | None = None
    # Keep the tasks and seeds whose episodes are all there, and play the others. Without it, earlier episodes of the same
    # search are replaced.
    resume: bool = False

    def limits(self) -> dict[str, Any]:
        """The arguments of `rollouts.evaluate` beside the run and its searches; None for all."""
        names = ("episodes", "evaluation_seed", "tasks", "seeds", "checkpoints", "parallel", "max_episode_steps", "env")
        limits = {name: None if (value := getattr(self, name)) == () else value for name in (*names, "resume")}
        given = self.given_base()
        if self.base is not None:
            from evor.policies.base_policy import TIMEOUT, open_base

            limits["base"] = open_base(self.base, timeout=given.get("base_timeout", TIMEOUT))
        return limits | {"step": limits.pop("checkpoints")}


def evaluate_options(search: Extraction | None = None) -> Any:
    """The options with their defaults: those of a search."""

    @dataclass(frozen=True, kw_only=True)
    class Evaluate(_Play):
        """Play the tasks of RUN with one search, and print how often it succeeds.

        A row is written as each episode ends. Several processes may play one run. Without any option of the search, the
        agent's own search is used. With some of them, the others are the agent's own. --extraction chooses another type,
        with the defaults below.
        """

        # How an action is chosen among the candidates of the base policy.
        extraction: Annotated[Extraction, OWN] = field(default_factory=SoftmaxOf, metadata=INLINED)

    return Evaluate(run=tyro.MISSING, extraction=search or SoftmaxOf())


def evaluate(arguments: list[str]) -> None:
    from evor.policies.load import open_run
    from evor.rollouts.evaluate import evaluate as play

    a = options("evor evaluate", arguments, defaults=evaluate_options())
    given = given_search(arguments)
    if given and "--extraction" not in given:  # settings of the agent's own search
        run = open_run(a.run)
        search = own_search(run.default_search, run.config.agent, given=given)
        a = options("evor evaluate", arguments, defaults=evaluate_options(search))
    chosen = a.extraction if given else None
    _tell(a, [play(a.run, chosen, **a.limits())])


def given_search(arguments: list[str]) -> set[str]:
    """The options of a search that are among the arguments."""
    return {word.split("=", 1)[0] for word in arguments if word.startswith(SEARCH)}


def own_search(search: Extraction, agent: Any, *, given: set[str]) -> Extraction:
    """The search of an agent. Raises EvorError where it has none of the options that are given."""
    from evor.agents.registry import AGENTS

    own = {f"--{item.name.replace('_', '-')}" for item in dataclasses.fields(search)}
    if AGENTS[type(agent)].returns is None and (odd := sorted(given - own)):
        raise EvorError(
            f"{odd[0]} goes with a search among candidates, and a {type(agent).__name__} run has no value to "
            "search with; leave it out."
        )
    return search


def sweep_options(search: Extraction | None = None) -> Any:
    """The options with their defaults: those of a search, and several numbers of candidates where it takes some."""
    searches = {kind: _several(kind) for kind in typing.get_args(Extraction)}
    search = search or SoftmaxOf()
    values = {item.name: getattr(search, item.name) for item in dataclasses.fields(search)}
    values |= {name: (value,) for name, value in values.items() if name in NUMBERS and value is not None}
    default = searches[type(search)](**values | ({"num_candidates": COUNTS} if "num_candidates" in values else {}))
    kinds: Any = annotated(union_of(searches.values()), OWN)

    @dataclass(frozen=True, kw_only=True)
    class Sweep(_Play):
        """Play the tasks of RUN with many searches, without training again: every combination of the values given.

        The options are those of `evor evaluate`. Numbers of the search take several values here. Without --extraction the
        search is the agent's own, with several numbers of candidates.
        """

        # How an action is chosen among the candidates of the base policy.
        extraction: kinds = field(default=default, metadata=INLINED)

    return Sweep(run=tyro.MISSING)


def sweep(arguments: list[str]) -> None:
    from evor.policies.load import open_run
    from evor.rollouts.evaluate import sweep as play

    a = options("evor sweep", arguments, defaults=sweep_options())
    given = given_search(arguments)
    if "--extraction" not in given:
        run = open_run(a.run)
        search = own_search(run.default_search, run.config.agent, given=given)
        a = options("evor sweep", arguments, defaults=sweep_options(search))
    _tell(a, play(a.run, a.extraction.all(), **a.limits()))


def _several(kind: Any) -> Any:
    """A type of search whose numbers are several values each, and its combinations: `all()`."""
    hints = typing.get_type_hints(kind)
    fields = [
        (item.name, _values(hints[item.name]), field(default=None if item.default is None else (item.default,)))
        for item in dataclasses.fields(kind)
        if item.name in NUMBERS
    ]
    namespace = {
        "__doc__": kind.__doc__,
        "__post_init__": lambda self: None,
        "all": lambda self: _grid(self, kind),
        "documented_by": kind,
    }
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, namespace=namespace)


def _values(kind: Any) -> Any:
    """The type of several values of a kind. None stays what it is."""
    kinds = [each for each in typing.get_args(kind) or (kind,) if each is not type(None)]
    several = tuple.__class_getitem__((*kinds, ...))
    return several if kinds == [kind] else union_of((several, type(None)))


def _grid(values: Any, kind: Any) -> list[Extraction]:
    """Every combination of the values."""
    several = {
        item.name: getattr(values, item.name) or (None,) for item in dataclasses.fields(values) if item.name in NUMBERS
    }
    others = {item.name: getattr(values, item.name) for item in dataclasses.fields(values) if item.name not in NUMBERS}
    found = [
        kind(**dict(zip(several, chosen, strict=True)), **others) for chosen in itertools.product(*several.values())
    ]
    return list(dict.fromkeys(found))  # a value that is given twice is played once


def _tell(a: _Play, results: list[list[dict[str, Any]]]) -> None:
    """Print what was played: a row for each search, number of updates and task."""
    lines = [line for rows in results for line in _lines(rows)]
    _print(lines)
    if a.json:
        write_document({"run": str(a.run), "results": lines})


def _lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one search, summed up by updates and task."""
    from evor.report.evaluations import SETTING

    lines = []
    for updates, task in sorted({(row["updates"], row["task"]) for row in rows}):
        part = [row for row in rows if (row["updates"], row["task"]) == (updates, task)]
        success, total, length = (sum(row[key] for row in part) / len(part) for key in ("success", "return", "length"))
        line = {name: part[0][name] for name in SETTING} | {"updates": updates, "task": task}
        line |= {"seeds": sorted({row["seed"] for row in part}), "episodes": len(part)}
        lines.append(line | {"success": success, "mean_return": total, "mean_length": length})
    return lines


def _label(line: dict[str, Any], names: list[str]) -> str:
    """`SoftmaxOf 32, return temperature 0.5` where the settings of these names differ; the base policy has no temperature."""
    from evor.report.evaluations import BASE_POLICY, search_name

    name = search_name(line["extraction"])
    candidates = "" if line["extraction"] == BASE_POLICY else f" {line['num_candidates']}"
    settings = [_setting(name, line[name]) for name in names if line[name] != ""]
    guidance = [f"{line['guidance']}, weight {line['weight']:g}"] if line["guidance"] else []
    over = [f"over {line['base']}"] if line["base"] else []
    return ", ".join([f"{name}{candidates}", *settings, *guidance, *over])


def _setting(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value:g}"


def _print(lines: list[dict[str, Any]]) -> None:
    """Print the lines as a table. Mean returns stand where an environment tells of no success."""
    from rich.table import Column, Table

    told = not any(math.isnan(line["success"]) for line in lines)
    settings = {name: {line[name] for line in lines} - {""} for name in TOLD}
    differing = [name for name, values in settings.items() if len(values) > 1]
    shared = [_setting(name, *settings[name]) for name in TEMPERATURES if len(settings[name]) == 1]
    score_name = "success" if told else "mean return"
    table = Table(
        Column("search", overflow="fold"), "updates", "task", "seeds x episodes", score_name, "mean length"
    )  # a name of a search is never cut
    for line in lines:
        counts = f"{len(line['seeds'])} x {line['episodes'] // len(line['seeds'])}"
        score = f"{line['success']:.3f}" if told else f"{line['mean_return']:.4g}"
        name = _label(line, differing)
        table.add_row(name, str(line["updates"]), str(line["task"]), counts, score, f"{line['mean_length']:.1f}")
    screen.print(table)
    if shared:
        screen.print(f"The number after a search is its candidates; {', '.join(shared)}.", soft_wrap=True)
