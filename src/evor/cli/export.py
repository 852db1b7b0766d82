"""`evor export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import Tabled, options, write_document
from evor.cli.over_base import base_argument
from evor.runtime.progress import console


def export_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Export(Tabled):
        """Export one policy of RUN into a folder of its own, which `evor.load` opens without the run."""

        # The run folder that `evor train --out` wrote.
        run: Positional[Path]
        # Folder for the policy: policy.json and policy.safetensors.
        out: Path
        # Task of the policy. Needed where the run has several.
        task: int | None = None
        # Seed of the policy. Needed where the run has several.
        seed: int | None = None
        # Which checkpoint to export, by its number of updates.
        checkpoint: Annotated[int | None, arg(help_behavior_hint="(default: the newest)")] = None
        # Replace the policy that --out holds.
        overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
        # Write one JSON document to stdout: what was exported.
        json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    return Export(run=tyro.MISSING, out=tyro.MISSING)


def export(arguments: list[str]) -> None:
    from evor.policies.load import load
    from evor.policies.searched import SearchedPolicy

    a = options("evor export", arguments, defaults=export_options())
    policy = load(a.run, a.task, seed=a.seed, step=a.checkpoint)
    policy.export(a.out, overwrite=a.overwrite)
    origin = policy.origin
    of_base = f", {base_argument(origin.get('base'))}" if isinstance(policy, SearchedPolicy) else ""
    console.print(
        f"wrote the policy of task {origin['task']}, seed {origin['seed']}, {origin['updates']} updates to {a.out}; open it "
        f"with evor.load({str(a.out)!r}{of_base})."
    )
    if a.json:
        write_document({"out": str(a.out)} | origin)
