"""`evor train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from evor.cli.options import Quiet, options, take
from evor.cli.rules import kebab, one_of
from evor.errors import EvorError
from evor.runtime.progress import console


def train_options(name: str = "default", dataset: str | None = None, *, kind: str = "", proposals: str = "") -> Any:
    """The options with their defaults: those of the preset `name` on a dataset, over a base policy's `proposals` where given.

    Over proposals an agent of another `kind` has defaults of its own. Raises EvorError where there is no such preset.
    """
    from evor.agents.registry import AGENTS, PRESETS, preset
    from evor.training.config import RunConfig
    from evor.training.over_base import over_proposals, read_proposals

    agent = preset(name, dataset)
    if proposals:
        agent = next((other() for other in AGENTS if kebab(other.__name__) == kind), agent)
        agent = over_proposals(agent, read_proposals(proposals))
    names: Any = one_of(PRESETS)

    @dataclass(frozen=True, kw_only=True)
    class Train(Quiet, RunConfig):
        """Train an agent on an OGBench DATASET, or on data of your own: --data FILE_OR_FOLDER.

        Some options choose a type, such as --agent.objective. The options of the chosen type follow below. To see those of
        another one, name it before --help: `evor train --agent.objective flow-td --help`.
        """

        # Name of an OGBench dataset. Left out: --data is data of your own.
        dataset: Positional[str | None] = None
        # The run folder: config, log and checkpoints are written here.
        out: Path
        # Continue the run in --out. Start it where there is none.
        resume: bool = False
        # Devices that share the seeds and tasks, which must split into so many equal parts. Left out: the most devices of
        # this machine that do. A run may go on with another number; it is then equal up to rounding.
        devices: int | None = None
        # Devices that share each batch, for a single large network. A batch must split into so many equal parts.
        batch_devices: int = 1
        # Agent with its tested settings, and those of the dataset's environment. The options of --agent change them.
        preset: names = "default"

    return Train(agent=agent, out=tyro.MISSING, preset=name)


def train(arguments: list[str]) -> None:
    from evor.agents.environments import told
    from evor.runtime.files import check_ours
    from evor.training.config import RunConfig
    from evor.training.sharding import Devices
    from evor.training.train import train as run

    name, arguments = take(arguments, "--preset", default="")
    kind, proposals = (take(arguments, flag, default="")[0] for flag in ("--agent", "--proposals"))
    over = {"kind": kind, "proposals": proposals}
    defaults = train_options(name or "default", **over)
    if name and kind not in ("", kebab(type(defaults.agent).__name__)):
        raise EvorError(f"--preset {name} is an agent of its own and --agent {kind} another; give one of the two.")
    a = options("evor train", arguments, defaults=defaults)
    there = train_options(name or "default", a.dataset, **over)  # known only now
    a = a if there.agent == defaults.agent else options("evor train", arguments, defaults=there)
    if note := told(name, a.dataset, config=a.agent, sparse_rewards=a.sparse_rewards):
        console.print(f"note: {note}")
    config = RunConfig(**{item.name: getattr(a, item.name) for item in dataclasses.fields(RunConfig)})
    check_ours(a.out, a.out / "config.json", kind="run")
    run(config, a.out, resume=a.resume, devices=Devices(a.devices, a.batch_devices))
