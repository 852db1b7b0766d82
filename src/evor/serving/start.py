"""Start a policy server: check, time every number of candidates, print the table, listen."""

import functools
import gc
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from rich.table import Table

from evor.errors import EvorError, above
from evor.policies.policy import Policy
from evor.runtime import arguments
from evor.runtime.progress import console, progress_bar
from evor.runtime.wire import MAX_BYTES, pack, unpack
from evor.runtime.words import counted
from evor.search.extraction import Extraction, Prior
from evor.serving.access import check_host, read_key
from evor.serving.decider import PolicyDecider, example
from evor.serving.log import Log
from evor.serving.pace import Pace, Timing, measure
from evor.serving.record import Recorder
from evor.serving.server import Server, bind, websockets
from evor.serving.service import Service

MAX_CANDIDATES = 64


class Options(NamedTuple):
    """Options of a server. See `evor serve --help`."""

    host: str = "127.0.0.1"
    port: int = 8000
    budget_ms: float | None = None
    max_candidates: int = MAX_CANDIDATES
    key_file: Path | None = None
    is_open: bool = False
    observation_keys: Sequence[str] = ()
    max_mb: float = MAX_BYTES / 2**20
    record: Path | None = None
    decision_seed: int = 0


def serve(
    policy: Policy,
    search: Extraction | None,
    *,
    options: Options,
    asks_candidates: bool = False,
    log: IO[str] | None = None,
) -> None:
    """Serve a policy until SIGTERM or Ctrl-C. The log goes to the stream `log`, or to stdout.

    Without a budget, a decision has the candidates of the search, or the limit where that is less. With one it has as many as fit, up to
    `options.max_candidates`; up to those of the search, where the user asked for them (`asks_candidates`). Raises EvorError on
    what can't be served.
    """
    websockets()
    arguments.count(1, max_candidates=options.max_candidates)
    seed = arguments.count(0, decision_seed=options.decision_seed)
    above(0, max_mb=options.max_mb, **({} if options.budget_ms is None else {"budget_ms": options.budget_ms}))
    key = None if options.key_file is None else read_key(options.key_file)
    check_host(options.host, has_key=key is not None, is_open=options.is_open)
    search = policy._search(search)
    decider = PolicyDecider(
        policy, search, most=_most(search, options, asked=asks_candidates), names=options.observation_keys
    )
    with bind(options.host, options.port) as sock:
        events = Log(log)
        recorder = _recorder(decider, options.record, log=events)
        timings, knows_base = time_sizes(decider, budget_ms=options.budget_ms)
        pace = Pace(timings, budget_ms=options.budget_ms, knows_base=knows_base)
        tell(timings, pace)
        service = Service(
            decider,
            pace,
            log=events,
            recorder=recorder,
            max_bytes=int(options.max_mb * 2**20),
            seed=seed,
        )
        gc.collect()
        gc.freeze()  # what a decision allocates is little; walking through all of JAX now and then would take milliseconds

        def ready() -> None:
            host, port = sock.getsockname()[:2]
            console.print(f"serving at ws://{f'[{host}]' if ':' in host else host}:{port}; stop with Ctrl-C.")
            events.write("listening", host=host, port=port, **service.metadata())

        Server(service, key=key).serve(sock, ready=ready)


def _most(search: Extraction, options: Options, *, asked: bool) -> int:
    """The largest number of candidates that is compiled. Raises EvorError where it is above the limit."""
    if isinstance(search, Prior):
        return 1
    if options.budget_ms is not None and not asked:
        return options.max_candidates
    if asked and search.num_candidates > options.max_candidates:
        raise EvorError(
            f"--num-candidates is {search.num_candidates}, above --max-candidates {options.max_candidates}; change one of them."
        )
    return min(search.num_candidates, options.max_candidates)


def _recorder(decider: PolicyDecider, folder: Path | None, *, log: Log) -> Recorder | None:
    if folder is None:
        return None
    return Recorder(folder, log, bounds=decider.action_bounds, keys=decider.keys, executed=decider.executed)


def time_sizes(decider: PolicyDecider, *, budget_ms: float | None) -> tuple[list[Timing], bool]:
    """Compile and time decisions with every number of candidates, and tell whether a base policy was part of it.

    A base policy may need what the value does not know, such as images. Then the value alone is timed. Sizes over a base policy
    that are beyond the budget are left out: each would take longer than the one before.
    """
    frame, knows_base = pack(example(decider.keys)), True
    if decider.has_base:
        try:
            decider.decide(unpack(frame), number=1, seed=0)
        except EvorError as error:
            knows_base = False
            begins = "The server starts with one candidate."
            if budget_ms is None:
                begins = (
                    f"Every decision has {counted(decider.sizes[-1], 'candidate')}; give --budget-ms to bound its time."
                )
            console.print(f"note: the base policy can't be timed before a robot asks ({error}) {begins}")
    seeds = itertools.count(1)

    def decide(size: int) -> float:
        if not knows_base:
            decider.choose_only(number=size)
            return 0.0
        decided = decider.decide(unpack(frame), number=size, seed=next(seeds))
        pack({"actions": decided.actions})
        return decided.base_seconds

    timings: list[Timing] = []
    with progress_bar("compile and time decisions", len(decider.sizes), unit="sizes") as advance:
        for size in decider.sizes:
            timings.append(measure(functools.partial(decide, size), candidates=size, clock=time.perf_counter))
            advance(1)
            if decider.has_base and knows_base and budget_ms is not None and timings[-1].p99 > budget_ms:
                break
    return timings, knows_base


def tell(timings: Sequence[Timing], pace: Pace) -> None:
    """Print the table of times, and what was chosen."""
    with_base = any(timing.base_p99 for timing in timings)
    table = Table(
        "candidates", "compiling, s", "p50, ms", "p99, ms", *(["p99 of the base policy"] if with_base else []), ""
    )
    for timing in timings:
        base = [f"{timing.base_p99:.2f}"] if with_base else []
        mark = "starts here" if timing.candidates == pace.number else ""
        cells = f"{timing.compile_s:.2f}", f"{timing.p50:.2f}", f"{timing.p99:.2f}", *base, mark
        table.add_row(str(timing.candidates), *cells)
    console.print(table)
    chosen = pace.timings[pace.number]
    if pace.budget_ms is not None and chosen.p99 > pace.budget_ms:
        console.print(
            f"note: one candidate already takes {chosen.p99:.1f} ms, and the budget is {pace.budget_ms:g} ms; replies will be late."
        )
