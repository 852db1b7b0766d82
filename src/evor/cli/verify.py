"""`evor verify`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from evor.cli.options import options


def verify(arguments: list[str]) -> None:
    from evor.experiments.verify.methods import METHODS
    from evor.experiments.verify.problems import PROBLEMS
    from evor.experiments.verify.runner import VerifySettings, print_table
    from evor.experiments.verify.runner import verify as run
    from evor.runtime.parallel import default_workers

    @dataclass(frozen=True)
    class Verify(VerifySettings):
        """Learned return distributions against exact ones: a table, OUT/verify.json and OUT/index.html. Run again, it resumes."""

        problems: tuple[str, ...] = tuple(PROBLEMS)
        methods: tuple[str, ...] = tuple(METHODS)
        workers: int = default_workers()
        out: Path = Path("runs/verify")

    a = options("evor verify", arguments, defaults=Verify())
    settings = VerifySettings(**{f.name: getattr(a, f.name) for f in dataclasses.fields(VerifySettings)})
    print_table(run(a.problems, a.methods, settings=settings, workers=a.workers, out=a.out))
