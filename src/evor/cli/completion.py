"""`evor --print-completion`: a script that completes commands and options in a shell, made by tyro."""

import contextlib
import io
import sys
from importlib import import_module
from typing import Any

import tyro
from tyro.conf import subcommand

from evor.cli.main import VERBS
from evor.cli.options import MARKS
from evor.cli.rules import annotated, rules, union_of
from evor.errors import EvorError, nearest


def options_of(verb: str) -> Any:
    """The options of a command, with their defaults."""
    module = import_module(f"evor.cli.{VERBS[verb].file}")
    return getattr(module, f"{verb.replace(' ', '_')}_options")()


def print_completion(arguments: list[str], shells: list[str]) -> None:
    """Print the script for the shell that the arguments name. Raises EvorError where they name none."""
    words = [part for word in arguments for part in word.split("=", 1)]
    if len(words) != 2 or words[1] not in shells:
        hint = nearest(words[1], shells) if len(words) > 1 else f"known: {', '.join(shells)}"
        raise EvorError(f"--print-completion needs the name of a shell; {hint}")
    defaults = {verb: options_of(verb) for verb in VERBS}
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(
            _commands(defaults),
            prog="evor",
            args=["--tyro-print-completion", words[1]],
            config=MARKS,
            registry=rules(*defaults.values()),
        )
    sys.stdout.write(script.getvalue())


def _commands(defaults: dict[str, Any]) -> Any:
    """The commands as tyro knows them: a union of records, with a union inside for `evor data`."""
    groups: dict[str, list[Any]] = {}
    for verb, record in defaults.items():
        first, _, second = verb.partition(" ")
        if not second and any(other.startswith(f"{first} ") for other in defaults):
            continue  # tyro knows no command that has commands below it
        told = subcommand(second or first, default=record, description=VERBS[verb].text, prefix_name=False)
        groups.setdefault(first, []).append(annotated(type(record), told))
    commands = [
        annotated(union_of(members), subcommand(first, prefix_name=False)) if len(members) > 1 else members[0]
        for first, members in groups.items()
    ]
    return union_of(commands)
