"""`evor imitate`: imitate, demonstrate, and the exact example."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from evor.cli.flags import flags_of
from evor.cli.options import Quiet, Tabled, options, write_document
from evor.cli.rules import Prefix
from evor.errors import EvorError


def _own_defaults(arguments: list[str], defaults_of: Callable[[str], Any]) -> Any:
    """The options with the defaults of ENV. The ledge has its own; `--out ledge` doesn't name it."""
    from evor.imitation import ledge

    usual = defaults_of("")
    valued = {flag for flag, option in flags_of(usual, Prefix()).items() if option.kind is not bool}
    words = itertools.pairwise(["", *arguments])
    is_ledge = any(word == ledge.NAME and before not in valued for before, word in words)
    return defaults_of(ledge.NAME) if is_ledge else usual


def imitate_options(name: str = "ledge") -> Any:
    """The options with their defaults: those of the environment `name`."""
    from evor.imitation.bodies import Body
    from evor.imitation.config import ImitationConfig
    from evor.imitation.tasks import default_config

    same = Body()

    @dataclass(frozen=True, kw_only=True)
    class Imitate(Quiet, ImitationConfig):
        """Imitate demonstrations by inverse reinforcement learning, in an environment whose states can be restored.

        ENV is `ledge`, a MuJoCo environment of gymnasium such as Hopper-v5, a maze of OGBench, or any registered environment
        that saves and restores its state. The same command resumes what was interrupted.
        """

        # Environment in which the learner lives.
        env: Annotated[Positional[str], arg(metavar="ENV")]
        # Demonstrations of the expert, as `evor imitate demos` writes them. Only --reward true-reward needs none.
        demos: Annotated[Path | None, arg(metavar="FILE")] = None
        # Offline data of another agent, for resets. States are enough.
        offline: Annotated[Path | None, arg(metavar="FILE")] = None
        out: Path  # The run folder.
        # How the learner's body differs from the expert's.
        body: Body = same

    shared = {item.name: getattr(default_config(name), item.name) for item in dataclasses.fields(ImitationConfig)}
    return Imitate(env=tyro.MISSING, out=tyro.MISSING, **shared)


def imitate(arguments: list[str]) -> None:
    from evor.imitation.config import ImitationConfig
    from evor.imitation.run import imitate as run
    from evor.imitation.tasks import make_task

    a = options("evor imitate", arguments, defaults=_own_defaults(arguments, imitate_options))
    config = ImitationConfig(**{item.name: getattr(a, item.name) for item in dataclasses.fields(ImitationConfig)})
    run(config, make_task(a.env, demos=a.demos, offline=a.offline, body=a.body), out=a.out)


def imitate_expert_options(name: str = "") -> Any:
    """The options with their defaults."""
    from evor.agents.sac import Sac
    from evor.imitation.bodies import Body
    from evor.imitation.tasks import default_expert

    default, same = default_expert(name), Body()

    @dataclass(frozen=True, kw_only=True)
    class Expert(Quiet):
        """Train an expert on the environment's own reward, with SAC. The same command resumes what was interrupted.

        The policy of its best evaluation is kept.
        """

        env: Annotated[Positional[str], arg(metavar="ENV")]  # Environment, named as for `evor imitate`.
        out: Path  # The run folder.
        steps: int = default.steps  # Steps of the environment.
        seed: int = 0  # Seed of the networks and of the episodes.
        copies: int = default.copies  # Copies of the environment that are stepped together.
        # Settings of SAC.
        learner: Sac = default.learner
        # How its body differs from the usual one.
        body: Body = same

    return Expert(env=tyro.MISSING, out=tyro.MISSING)


def imitate_expert(arguments: list[str]) -> None:
    from evor.imitation.run import imitate as run
    from evor.imitation.tasks import expert_config, make_task

    a = options("evor imitate expert", arguments, defaults=_own_defaults(arguments, imitate_expert_options))
    config = expert_config(a.env, steps=a.steps, seed=a.seed, copies=a.copies, learner=a.learner)
    run(config, make_task(a.env, demos=None, offline=None, body=a.body), out=a.out)


def imitate_demos_options() -> Any:
    """The options with their defaults."""

    @dataclass(frozen=True, kw_only=True)
    class Demos(Quiet):
        """Record demonstrations into an npz file. Executed actions are stored, and the states of the simulator.

        EXPERT is a folder that `evor imitate expert` wrote, or a file actor.safetensors. On the ledge it is `ledge` (the
        expert) or `ledge-bridge` (an agent that crosses the bridge).
        """

        expert: Annotated[Positional[str], arg(metavar="EXPERT")]  # Who demonstrates.
        out: Annotated[Path, arg(metavar="FILE")]  # The file.
        episodes: int = 10  # How many episodes.
        tremble: float = 0.0  # Share of steps whose action is random.
        seed: int = 0  # Seed of the episodes.

    return Demos(expert=tyro.MISSING, out=tyro.MISSING)


def imitate_demos(arguments: list[str]) -> None:
    from evor.imitation import demonstrations
    from evor.imitation.tasks import demonstrated
    from evor.runtime.progress import console

    a = options("evor imitate demos", arguments, defaults=imitate_demos_options())
    if a.out.is_dir():
        raise EvorError(f"--out {a.out} is a folder; give a file, such as {a.out / 'demos.npz'}.")
    if a.out.exists():
        try:
            demonstrations.read(a.out)
        except EvorError as error:
            raise EvorError(f"--out {a.out} exists and holds no demonstrations; give another file.") from error
    recorded = demonstrated(a.expert, episodes=a.episodes, tremble=a.tremble, seed=a.seed)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    demonstrations.write(recorded, a.out)
    console.print(f"wrote {a.out}: {len(recorded)} steps")


def imitate_tightrope_options() -> Any:
    """The options with their defaults."""
    from evor.imitation.tightrope.world import Settings

    @dataclass(frozen=True, kw_only=True)
    class Tightrope(Tabled, Settings):
        """Compute what each method returns on the tightrope, an MDP on which the theory is exact.

        Prints a table and writes OUT/tightrope.json and OUT/index.html. An earlier study in OUT is replaced.
        """

        repeats: int = 20  # Sampled searches of each kind. 0 leaves them out.
        out: Path = Path("runs/tightrope")  # Folder for the results.

    return Tightrope()


def imitate_tightrope(arguments: list[str]) -> None:
    from evor.imitation.tightrope.study import print_table, study
    from evor.imitation.tightrope.world import Settings

    a = options("evor imitate tightrope", arguments, defaults=imitate_tightrope_options())
    settings = Settings(**{item.name: getattr(a, item.name) for item in dataclasses.fields(Settings)})
    report = study(settings, repeats=a.repeats, out=a.out)
    print_table(report)
    if a.json:
        write_document(report)
