"""`evor audit`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import Tabled, options, write_document
from evor.cli.over_base import OverBase
from evor.runtime.progress import screen


def audit_options() -> Any:
    """The options with their defaults."""
    from evor.experiments.audit.measure import AuditSettings

    @dataclass(frozen=True, kw_only=True)
    class Audit(OverBase, Tabled, AuditSettings):
        """Measure on held-out episodes whether the value of RUN ranks well, and give a verdict.

        It is one of: use it, use it with few candidates, do not use it. OUT/index.html has the reasons, with intervals, and
        OUT/audit.json the numbers.
        """

        # The run folder that `evor train --out` wrote, or an exported policy.
        run: Positional[Path]
        # Held-out episodes with rewards: an npz file or a folder of them. For a value of an OGBench task its validation file.
        data: str
        # Which checkpoint to load, by its number of updates.
        checkpoint: Annotated[int | None, arg(help_behavior_hint="(default: the newest)")] = None
        # Folder for the page and the numbers.
        out: Annotated[Path | None, arg(help_behavior_hint="(default: RUN/audit)")] = None

    return Audit(run=tyro.MISSING, data=tyro.MISSING)


def audit(arguments: list[str]) -> None:
    from evor.experiments.audit.measure import AuditSettings
    from evor.experiments.audit.runner import audit as run
    from evor.experiments.audit.runner import summary

    a = options("evor audit", arguments, defaults=audit_options())
    settings = AuditSettings(**{f.name: getattr(a, f.name) for f in dataclasses.fields(AuditSettings)})
    given = {"out": a.out or a.run / "audit", "step": a.checkpoint, **a.given_base()}
    report = run(a.run, a.data, settings=settings, **given)
    screen.print(summary(report), soft_wrap=True)
    if a.json:
        write_document(report)
