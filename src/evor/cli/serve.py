"""`evor serve`."""

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from evor.cli.evaluate import OWN, given_search, own_search
from evor.cli.options import Quiet, options
from evor.cli.over_base import OverBase
from evor.runtime.records import INLINED
from evor.search.extraction import Extraction, SoftmaxOf


def serve_options(search: Extraction | None = None) -> Any:
    """The options with their defaults: those of a search."""

    @dataclass(frozen=True, kw_only=True)
    class Serve(OverBase, Quiet):
        """Serve a policy to robots over a websocket, in openpi's protocol.

        Times decisions with every number of candidates first, then listens. Stdout gets one JSON object per line. Ctrl-C or SIGTERM
        ends the server, after requests in flight were answered.
        """

        # The run folder that `evor train --out` wrote, or an exported policy.
        run: Positional[Path]
        # Address to listen at. The default is reached from this machine alone.
        host: str = "127.0.0.1"
        # Port to listen at. 0: any that is free.
        port: int = 8000
        # Milliseconds of a reply. The largest number of candidates that fits is chosen, and fewer under load.
        budget_ms: float | None = None
        # The largest number of candidates that may be chosen.
        max_candidates: int = 64
        # A file with a key that clients must send. It is needed where other machines can connect.
        key_file: Annotated[Path | None, arg(metavar="FILE")] = None
        # Let other machines connect without a key.
        open: FlagCreatePairsOff[bool] = False
        # Keys of an observation, in the order of the data; with widths (state:7 gripper:1) where the data named none. Left out:
        # those of the data, or `observation`.
        observation_keys: tuple[str, ...] = ()
        # The largest request, in MiB.
        max_mb: float = 16.0
        # Write what was seen and chosen into this folder, as npz files.
        record: Annotated[Path | None, arg(metavar="FOLDER")] = None
        # Task of the policy. Needed where the run has several.
        task: int | None = None
        # Seed of the policy. Needed where the run has several.
        seed: int | None = None
        # Which checkpoint to load, by its number of updates.
        checkpoint: Annotated[int | None, arg(help_behavior_hint="(default: the newest)")] = None
        # Seed of the first decision of every connection. The next ones count on from it.
        decision_seed: int = 0
        # How an action is chosen among the candidates of the base policy.
        extraction: Annotated[Extraction, OWN] = field(default_factory=SoftmaxOf, metadata=INLINED)

    return Serve(run=tyro.MISSING, extraction=search or SoftmaxOf())


def serve(arguments: list[str]) -> None:
    log, a = sys.stdout, options("evor serve", arguments, defaults=serve_options())
    with contextlib.redirect_stdout(sys.stderr):  # what a base policy prints is no line of the log
        _serve(a, arguments, log=log)


def _serve(a: Any, arguments: list[str], *, log: IO[str]) -> None:
    from evor.policies.load import load
    from evor.serving.start import Options
    from evor.serving.start import serve as run_server

    policy = load(a.run, a.task, seed=a.seed, step=a.checkpoint, **a.given_base())
    given = given_search(arguments)
    if given and "--extraction" not in given:  # settings of the agent's own search
        search = own_search(policy.default_search, policy.config, given=given)
        a = options("evor serve", arguments, defaults=serve_options(search))
    settings = Options(
        host=a.host,
        port=a.port,
        budget_ms=a.budget_ms,
        max_candidates=a.max_candidates,
        key_file=a.key_file,
        is_open=a.open,
        observation_keys=a.observation_keys,
        max_mb=a.max_mb,
        record=a.record,
        decision_seed=a.decision_seed,
    )
    search = a.extraction if given else None
    run_server(policy, search, options=settings, asks_candidates="--num-candidates" in given, log=log)
