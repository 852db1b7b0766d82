"""`evor label`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import Quiet, options
from evor.cli.over_base import OverBase


def label_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Label(OverBase, Quiet):
        """Write what the value of RUN says of every recorded frame into a parquet file.

        Columns are the episode, the frame, the value of the recorded action, its quantiles, and its advantage over
        proposals at the same observation.
        """

        # The run folder that `evor train --out` wrote, or an exported policy.
        run: Positional[Path]
        # An npz file, a folder of npz files, or the name of an OGBench dataset.
        data: str
        # The parquet file to write.
        out: Annotated[Path, arg(metavar="FILE")]
        # Folder with its proposals for these data, as `evor data propose` makes them.
        proposals: str | None = None
        # Proposals of a frame, where they are drawn.
        num: int = 8
        # Task of the value. Needed where the run has several.
        task: int | None = None
        # Seed of the value. Needed where the run has several.
        seed: int | None = None
        # Which checkpoint to load, by its number of updates.
        checkpoint: Annotated[int | None, arg(help_behavior_hint="(default: the newest)")] = None
        # Where the files of an OGBench dataset are.
        data_folder: Path | None = None

    return Label(run=tyro.MISSING, data=tyro.MISSING, out=tyro.MISSING)


def label(arguments: list[str]) -> None:
    from evor.policies.label import label as write

    a = options("evor label", arguments, defaults=label_options())
    given = {name: getattr(a, name) for name in ("out", "proposals", "num", "task", "seed", "data_folder")}
    write(a.run, a.data, step=a.checkpoint, **a.given_base(), **given)
