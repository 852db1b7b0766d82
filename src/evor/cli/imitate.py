"""`evor imitate`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evor.cli.options import Tabled, options, write_document


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
