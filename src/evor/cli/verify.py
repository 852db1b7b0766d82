"""`evor verify`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from evor.cli.machines import Machines
from evor.cli.options import Tabled, options, write_document


def verify_options() -> Any:
    """The options with their defaults."""
    from evor.experiments.verify.methods import METHODS
    from evor.experiments.verify.problems import PROBLEMS
    from evor.experiments.verify.runner import VerifySettings

    @dataclass(frozen=True, kw_only=True)
    class Verify(Tabled, Machines, VerifySettings):
        """Train on problems whose return distributions are known, and compare what was learned with them.

        Prints a table and writes OUT/verify.json and OUT/index.html. The same command resumes what was interrupted.
        """

        problems: Annotated[
            tuple[str, ...], arg(help=f"Problems, of {', '.join(PROBLEMS)}.", help_behavior_hint="(default: all)")
        ] = tuple(PROBLEMS)
        methods: Annotated[
            tuple[str, ...], arg(help=f"Ways to train, of {', '.join(METHODS)}.", help_behavior_hint="(default: all)")
        ] = tuple(METHODS)
        out: Path = Path("runs/verify")  # Folder for the results.

    return Verify()


def verify(arguments: list[str]) -> None:
    from evor.experiments.verify.runner import VerifySettings, print_table
    from evor.experiments.verify.runner import verify as run

    a = options("evor verify", arguments, defaults=verify_options())
    settings = VerifySettings(**{f.name: getattr(a, f.name) for f in dataclasses.fields(VerifySettings)})
    report = run(a.problems, a.methods, settings=settings, machines=a.machines(), out=a.out)
    print_table(report)
    if a.json:
        write_document(report)
