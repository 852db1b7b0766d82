"""`evor bench`: how fast the parts are on this machine, and how close the update comes to what the machine can do."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.table import Table

from evor.agents.registry import AgentConfig
from evor.envs.ogbench import check_installed
from evor.errors import EvorError, above, at_least, nearest
from evor.experiments.bench.imports import FORMATS, installed, time_import
from evor.experiments.bench.limits import elementwise_seconds, product_limit
from evor.experiments.bench.timings import (
    CUBE,
    MAZE,
    SIZES,
    TIMED,
    WITHOUT_SEARCH,
    profile_update,
    sized,
    time_all_decisions,
    time_evaluation,
    time_files,
    time_generation,
    time_sampler,
    time_update,
)
from evor.nn.batching import on_cpu
from evor.nn.engine import pinned
from evor.nn.ops import Precision
from evor.runtime.files import read_json, write_json
from evor.runtime.locks import hold
from evor.runtime.progress import console, progress_bar, screen
from evor.runtime.provenance import provenance

TOGETHER = (1, 10, 50)  # episodes played at once
NETWORKS = {1: (1, 1), 2: (2, 1), 5: (5, 1), 15: (5, 3), 75: (25, 3)}  # in one update: tasks x seeds
UNSHARED = (1, 15)  # tasks x seeds: runs that have no policy and no draw in common
STEADY = 60  # seconds of the largest number of networks on an accelerator
GPU_WIDTH = 8192  # width of products that fill a GPU
PARTS = ("limits", "networks", "decisions", "unshared", "updates", "files", "sampler", "imports", "worlds", "profile")


class Measurement(NamedTuple):
    """A call, its options, and the place of what it returns in bench.json."""

    keys: tuple[str, ...]
    call: Callable[..., Any]
    options: dict[str, Any]


def _measurement(keys: tuple[str, ...], call: Callable[..., Any], **options: Any) -> Measurement:
    """A measure of `call` with these options."""
    return Measurement(keys=keys, call=call, options=options)


def measurements(
    sizes: tuple[str, ...], presets: tuple[str, ...], *, repeats: int, seconds: float
) -> Iterator[Measurement]:
    """All there is. Decisions, networks and the profile are those of the default without search, where it is among the presets."""
    cpu = on_cpu()
    # On an accelerator the fastest is measured first: the time may be over at any measure.
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if cpu else ("bfloat16", "tensorfloat32", "float32")
    plain = [TIMED[name] for name in presets if name == WITHOUT_SEARCH]
    both = list(itertools.product(sizes, precisions))
    yield from _limits(sizes, precisions, repeats=repeats, seconds=seconds)
    networks = functools.partial(_networks, plain, repeats=repeats, seconds=seconds)
    yield from networks([(sizes[0], "bfloat16")] if cpu else [(size, "bfloat16") for size in sizes])
    for size in sizes if plain else ():
        yield _measurement(
            ("decisions", size),
            time_all_decisions,
            agent=plain[0],
            size=size,
            precisions=precisions[:2],
            repeats=repeats,
            seconds=seconds / 2,
        )
    # What a search in the targets costs against none, where neither is shared. (On a CPU: as one run against one.)
    for name, size in () if cpu else itertools.product(presets, sizes):
        updates = _updates(TIMED[name], size, precision="bfloat16", tasks=UNSHARED[0], seeds=UNSHARED[1])
        yield _measurement(("unshared", f"{name} {size}"), time_update, **updates, repeats=repeats, seconds=seconds)
    for agent, size, count in () if cpu else itertools.product(plain, sizes, (1, max(NETWORKS))):
        tasks, seeds = NETWORKS[count]
        updates = _updates(agent, size, precision="bfloat16", tasks=tasks, seeds=seeds)
        yield _measurement(("profile", f"{size} bfloat16", str(count)), profile_update, **updates)
    if not cpu:
        yield from networks([place for place in both if place[1] != "bfloat16"])
    for (size, precision), name in itertools.product(both, presets):
        updates = _updates(TIMED[name], size, precision=precision, tasks=1, seeds=1)
        yield _measurement(
            ("updates", size, f"{name} {precision}"), time_update, **updates, repeats=repeats, seconds=seconds
        )
    for size in sizes:
        spec, agent = SIZES[size].spec, sized(TIMED[WITHOUT_SEARCH], size, precision="float32")
        yield _measurement(("files", size), time_files, agent=agent, spec=spec, repeats=repeats, seconds=0.0)
        yield _measurement(("sampler", size), time_sampler, spec=spec, repeats=repeats, seconds=0.0)
    for kind in FORMATS if installed() else ():
        yield _measurement(("imports", kind), time_import, kind=kind, repeats=min(repeats, 3))
    for dataset in (MAZE, CUBE):
        yield _measurement(("worlds", f"generate {dataset}"), time_generation, dataset=dataset, repeats=min(repeats, 3))
    for count in TOGETHER:
        keys = "worlds", f"evaluate {MAZE}, {count} together"
        yield _measurement(keys, time_evaluation, count=count, repeats=min(repeats, 3))


def _networks(
    agents: list[AgentConfig], places: list[tuple[str, Precision]], *, repeats: int, seconds: float
) -> Iterator[Measurement]:
    """Updates of ever more networks. (On a CPU they take turns: one place shows what they cost.)"""
    for agent, (size, precision) in itertools.product(agents, places):
        for count, (tasks, seeds) in NETWORKS.items():
            steady = precision == "bfloat16" and count == max(NETWORKS) and not on_cpu()
            yield _measurement(
                ("networks", f"{size} {precision}", str(count)),
                time_update,
                **_updates(agent, size, precision=precision, tasks=tasks, seeds=seeds),
                repeats=max(repeats, math.ceil(STEADY / max(seconds, 1.0))) if steady else repeats,
                seconds=seconds,
            )


def _limits(
    sizes: tuple[str, ...], precisions: tuple[Precision, ...], *, repeats: int, seconds: float
) -> Iterator[Measurement]:
    """Limits of the machine for matrix products and for element-wise operations."""
    for size, precision in itertools.product(sizes, precisions):
        shape = {"width": SIZES[size].hidden[0], "batch": 256, "precision": precision}
        yield _measurement(("limits", size, precision), product_limit, **shape, repeats=repeats, seconds=seconds / 4)
    for size, (spec, hidden) in ((size, SIZES[size]) for size in sizes):
        shape = {"inputs": sum(spec) + 2, "hidden": hidden, "batch": 256}
        yield _measurement(
            ("limits", size, "elementwise"), elementwise_seconds, **shape, repeats=repeats, seconds=seconds / 8
        )
    for precision in () if on_cpu() else precisions:
        shape = {"width": GPU_WIDTH, "batch": GPU_WIDTH, "precision": precision}
        yield _measurement(("limits", "card", precision), product_limit, **shape, repeats=1, seconds=0.0)


def _updates(agent: AgentConfig, size: str, *, precision: Precision, tasks: int, seeds: int) -> dict[str, Any]:
    """Options of a measure of updates."""
    return {
        "agent": sized(agent, size, precision=precision),
        "spec": SIZES[size].spec,
        "tasks": tasks,
        "seeds": seeds,
    }


@pinned
def bench(
    out: Path,
    *,
    repeats: int = 5,
    seconds: float = 2.0,
    sizes: tuple[str, ...] = tuple(SIZES),
    presets: tuple[str, ...] = tuple(TIMED),
    parts: tuple[str, ...] = PARTS,
    hours: float = math.inf,
    resume: bool = False,
) -> dict[str, Any]:
    """Measure, write bench.json into `out` after every measure, print tables. Returns what bench.json holds.

    `hours` begins no measure after its time is over; `resume` keeps those that are there. Raises EvorError on unknown
    names, and where what is there was measured elsewhere or otherwise.
    """
    at_least(1, repeats=repeats, sizes=len(sizes), presets=len(presets), parts=len(parts))
    at_least(0, seconds=seconds)
    above(0, hours=hours)
    if not math.isfinite(seconds):
        raise EvorError(f"seconds is {seconds}; it must be finite.")
    named = [(name, choices) for names, choices in ((sizes, SIZES), (presets, TIMED), (parts, PARTS)) for name in names]
    for name, choices in named:
        if name not in choices:
            raise EvorError(f"nothing to measure is called {name!r}; {nearest(name, choices)}")
    if "worlds" in parts:
        check_installed()
    deadline = time.monotonic() + 3600 * hours
    wanted = [
        measure
        for measure in measurements(sizes, presets, repeats=repeats, seconds=seconds)
        if measure.keys[0] in parts
    ]
    if not wanted:
        raise EvorError(
            f"nothing to measure is left of {', '.join(parts)}: networks, decisions and profile need the preset {WITHOUT_SEARCH}, "
            "unshared and profile an accelerator, and imports pyarrow and h5py."
        )
    out.mkdir(parents=True, exist_ok=True)
    with hold(out / ".lock", "evor bench"):
        asked = {"repeats": repeats, "seconds": seconds}
        report = _carry_out(wanted, out / "bench.json", asked=asked, deadline=deadline, resume=resume)
    print_tables(report)
    return report


def _carry_out(
    wanted: list[Measurement], path: Path, *, asked: dict[str, Any], deadline: float, resume: bool
) -> dict[str, Any]:
    """Take the measures that are missing, until the time is over. Returns the content of bench.json."""
    origin: dict[str, Any] = asked | provenance()
    report: dict[str, Any] = {part: {} for part in PARTS}
    if resume and path.exists():
        report |= read_json(path, *origin)
        if changed := [name for name in origin if report[name] != origin[name]]:
            raise EvorError(
                f"{path} was measured with other {', '.join(changed)}; leave out --resume or choose another --out."
            )
    report |= origin
    pending = [m for m in wanted if not functools.reduce(lambda part, name: part.get(name, {}), m.keys, report)]
    with progress_bar("bench", len(wanted), done=len(wanted) - len(pending), unit="measures") as advance:
        for keys, call, options in pending:
            if time.monotonic() > deadline:
                console.print("the time is over; go on with --resume.")
                break
            result = call(**options)
            functools.reduce(lambda part, name: part.setdefault(name, {}), keys[:-1], report)[keys[-1]] = result
            write_json(path, report)
            jax.clear_caches()  # each measure compiles its own programs, and a process can map only so many
            advance(1, " ".join(keys))
    return report


def print_tables(report: dict[str, Any]) -> None:
    """Updates and decisions on the terminal."""
    for size, rows in report["updates"].items():
        table = Table("update", "ms", "10 % to 90 %", "GFLOP/s", "compile s", title=size)
        for name, timed in rows.items():
            rate = timed["gflop"] / timed["median_ms"] * 1e3
            spread = f"{timed['low_ms']:.1f} to {timed['high_ms']:.1f}"
            table.add_row(name, f"{timed['median_ms']:.1f}", spread, f"{rate:.0f}", f"{timed['compile_seconds']:.1f}")
        screen.print(table)
    if report["imports"]:
        table = Table("import", "rows", "seconds", "plain reading and saving", "times")
        for kind, row in report["imports"].items():
            times = f"{row['seconds']:.2f}", f"{row['plain_seconds']:.2f}", f"{row['times']:.2f}"
            table.add_row(kind, f"{row['rows']:,}", *times)
        screen.print(table)
    for size, rows in report["decisions"].items():
        table = Table("decision", "precision", "batch", "candidates", "ms", title=size)
        for row in rows:
            cells = (row["precision"], str(row["batch"]), str(row["candidates"]), f"{1e3 * row['median']:.2f}")
            table.add_row(row["reading"], *cells)
        screen.print(table)
