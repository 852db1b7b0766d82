"""`evor train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from evor.cli.options import kebab, options, take
from evor.errors import EvorError


def train(arguments: list[str]) -> None:
    from evor.agents.registry import AGENTS, PRESETS, preset
    from evor.runtime.files import check_ours
    from evor.training import train
    from evor.training.config import RunConfig

    name, arguments = take(arguments, "--preset", default="")
    agent = preset(name or "default")
    kind = take(arguments, "--agent", default="")[0]
    if name and kind not in ("", kebab(type(agent).__name__)):
        raise EvorError(f"--preset {name} is an agent of its own and --agent {kind} another; give one of the two.")

    names = [kind.__name__ for kind in AGENTS]

    @dataclass(frozen=True, kw_only=True)
    class Train(RunConfig):
        __doc__ = f"""Train on an OGBench DATASET, or on your own --data FILE_OR_FOLDER.

        --preset {" | ".join(PRESETS)} fills in the agent, or --agent {" | ".join(map(kebab, names))} with its defaults.
        Choices made by name, their fields follow as options: --agent.objective sample-backup | flow-td | monte-carlo,
        --agent.objective.z1 model-return | dataset-return (of flow-td), --agent.next-action dataset-action |
        policy-action | best-action, --agent.acting-value ema-value | online-value, --agent.solver euler | adams-bashforth.
        """

        dataset: Positional[str | None] = None
        out: Annotated[Path, arg(help="The run folder.")]
        resume: Annotated[bool, arg(help="Continue the run in --out; start it where there is none.")] = False

    a = options("evor train", arguments, defaults=Train(agent=agent, out=tyro.MISSING))
    config = RunConfig(**{item.name: getattr(a, item.name) for item in dataclasses.fields(RunConfig)})
    check_ours(a.out, a.out / "config.json", kind="run")
    train.train(config, a.out, resume=a.resume)
