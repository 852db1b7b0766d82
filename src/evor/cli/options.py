"""A choice is a type: unions of dataclasses on the command line and in files."""

import contextlib
import dataclasses
import inspect
import io
import itertools
import json
import math
import re
import shutil
import sys
import textwrap
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff

from evor.cli.flags import Option, flags_of, refuse
from evor.cli.rules import Prefix, kebab, rules
from evor.errors import EvorError, nearest
from evor.runtime.files import expand
from evor.runtime.progress import console, screen
from evor.runtime.records import union_members

MARKS = (AvoidSubcommands,)
# Options that earlier versions called otherwise, and what to give now; of all commands, or of one ("train --seeds").
RENAMED = {
    "--steps": "--updates",
    "train --seeds": "--num-seeds for how many, --seed for the first",
    "reproduce --seeds": "--num-seeds",
    "--step": "--checkpoints",
    "--agent.standardise": "--agent.standardise-observations and --agent.standardise-returns",
    "--agent.no-standardise": "--agent.no-standardise-observations and --agent.no-standardise-returns",
    "--extraction.num-candidates": "--num-candidates",
    "--extraction.return-temperature": "--return-temperature",
    "--extraction.action-temperature": "--action-temperature",
    "--extraction.flow-steps": "--flow-steps",
}
NUMBERS: dict[Any, tuple[str, str]] = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}
EXAMPLES: dict[Any, tuple[str, str]] = {int: ("2", "1 2"), float: ("0.5", "0.5 1")}  # where the default is none
RENAMED_CHOICES = {"searched": "best-action"}


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """The options of every command."""

    quiet: FlagCreatePairsOff[bool] = False  # Show no progress and no notes. Errors and tables stay.


@dataclass(frozen=True, kw_only=True)
class Tabled(Quiet):
    """The options of commands that print a table."""

    json: FlagCreatePairsOff[bool] = False  # Write one JSON document to stdout in place of the table.


def options(program: str, arguments: list[str], *, defaults: Any) -> Any:
    """An instance like `defaults` from arguments. Types are chosen by name before their fields are read.

    A leading `~` of a path is the home folder, also where no shell has seen to it (`--data=~/mine.npz`). --quiet and --json
    silence the terminal. Raises EvorError on what can't be read, and SystemExit after --help.
    """
    _check_names(program, arguments, known=list(flags_of(defaults, Prefix())))
    defaults, arguments = _choose_types(defaults, Prefix(), arguments=arguments)
    _check_values(defaults, arguments)
    _check_choices(defaults, arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given, unknown = tyro.cli(
                type(defaults),
                prog=program,
                description=_description(defaults),
                args=arguments,
                default=defaults,
                config=MARKS,
                registry=rules(defaults),
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        _refuse_unknown(program, arguments, defaults=defaults, said=_unboxed(said.getvalue()))
        raise EvorError(f"{_plain(_unboxed(said.getvalue()), program)} (see `{program} --help`)") from None
    if unknown:
        refuse(program, unknown[0].split("=", 1)[0], defaults=defaults)
    console.quiet = console.quiet or given.quiet
    screen.quiet = screen.quiet or getattr(given, "json", False)
    return _with_home(given)


def _description(defaults: Any) -> str:
    """Describe a command in lines that fit the terminal. They are indented: tyro joins lines that begin with a letter."""
    width = min(shutil.get_terminal_size().columns, 100)
    paragraphs = (inspect.getdoc(defaults) or "").split("\n\n")
    return "\n".join(
        textwrap.fill(
            " ".join(text.split()), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        for text in paragraphs
    )


def write_document(content: Any) -> None:
    """Write one JSON document to stdout. Numbers that JSON lacks are texts: "inf", "nan"."""
    sys.stdout.write(json.dumps(_finite(content), indent=2) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def _check_names(program: str, arguments: list[str], *, known: list[str]) -> None:
    """Raise EvorError, naming the new name, where an option has the one that an earlier version gave it."""
    for flag in (word.split("=", 1)[0] for word in arguments if word.startswith("--")):
        new = RENAMED.get(f"{program.removeprefix('evor ')} {flag}", RENAMED.get(flag))
        if new is not None and flag not in known:
            raise EvorError(f"{flag} has another name now: give {new} (see `{program} --help`).")


def _unboxed(text: str) -> str:
    """Text inside the box that tyro draws, in one line: without its title, and without the help below its first rule."""
    words: list[str] = []
    for line in text.splitlines()[1:]:
        inner = line.strip("│╰╯ ")
        if not inner.strip("─- "):
            if words:
                break
            continue  # without Unicode there is a rule under the title
        words.append(inner)
    return " ".join(words) or text.strip()


def _refuse_unknown(program: str, arguments: list[str], *, defaults: Any, said: str) -> None:
    """Raise EvorError about an unknown option, which tyro calls a missing argument where one without a name is to come."""
    if re.match(r"Missing value for argument '[^-]", said):
        known = flags_of(defaults, Prefix())
        for flag in (word.split("=", 1)[0] for word in arguments if word.startswith("-")):
            if flag.replace("_", "-") not in known:
                refuse(program, flag, defaults=defaults)


def _plain(text: str, program: str) -> str:
    """Put tyro's message about what is missing or wrong into the words of the other messages."""
    missing = text.removeprefix(f"Missing from {program}: ")
    if missing != text:
        wanted = [item.strip() for item in missing.split("(required)") if item.strip()]
        # An option is "--out PATH Its help.", an argument without a name "PATH its help".
        words = [item.split(maxsplit=2 if item.startswith("--") else 1) for item in wanted]
        told = [" ".join(w[:2]) if w[0].startswith("--") else f"{w[0]} ({w[1].rstrip('.')})" for w in words]
        return f"{program} needs {' and '.join(told)}"
    text = re.sub(r"^Missing value for argument '(--\S+)'\. Expected 1 values\.", r"\1 needs a value", text)
    return re.sub(r"^Error parsing (--\S+): ", r"\1: ", text)


def _with_home(value: Any) -> Any:
    """A dataclass whose paths, and whose `data`, begin with the home folder instead of `~`."""
    changes = {}
    for item in dataclasses.fields(value):
        old = getattr(value, item.name)
        if isinstance(old, Path):
            changes[item.name] = expand(old)
        elif isinstance(old, tuple) and old and isinstance(old[0], Path):
            changes[item.name] = tuple(map(expand, old))
        elif item.name == "data" and isinstance(old, str) and old.startswith("~"):
            changes[item.name] = str(expand(old))
    return dataclasses.replace(value, **changes) if changes else value


def _check_values(defaults: Any, arguments: list[str]) -> None:
    """Raise EvorError where an option that takes numbers is given something else, or an option for several values none.

    Without a value `--only` would keep everything.
    """
    options_ = flags_of(defaults, Prefix())
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        flag = name.replace("_", "-")
        if flag in options_:
            after = itertools.takewhile(lambda other: not other.startswith("--"), arguments[index + 1 :])
            _check_value(flag, options_[flag], words=[value] if equals else list(after))


def _check_value(flag: str, option: Option, *, words: list[str]) -> None:
    """Raise EvorError where the words after an option are not what it takes."""
    members = typing.get_args(option.kind)
    is_optional = type(None) in members
    kinds = [kind for kind in members if kind is not type(None)] if is_optional else [option.kind]
    several = typing.get_origin(kinds[0]) is tuple
    if several and not words:
        raise EvorError(f"{flag} needs at least one value; leave it out for its default.")
    kind = typing.get_args(kinds[0])[0] if several else kinds[0]
    if len(kinds) > 1 or kind not in NUMBERS or (is_optional and words == ["None"]):
        return
    given = words if several else words[:1]  # what follows may be an argument without a name
    wrong = [word for word in given if not _is_number(word, kind)]
    if wrong or not given:
        one, many = NUMBERS[kind]
        default = option.default if isinstance(option.default, tuple) else (option.default,)
        example = " ".join(str(number) for number in default if type(number) in NUMBERS) or EXAMPLES[kind][several]
        raise EvorError(
            f"{flag} takes {many if several else one}, such as {flag} {example}; got {repr(wrong[0]) if wrong else 'nothing'}."
        )


def _is_number(word: str, kind: Any) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _check_choices(defaults: Any, arguments: list[str]) -> None:
    """Raise EvorError, with the name that may have been meant, where a word is none of those that an option knows."""
    hints = typing.get_type_hints(type(defaults))
    choices = {
        "--" + name.replace("_", "-"): typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is typing.Literal
    }
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for flag, word in itertools.pairwise(words):
        if flag in choices and word not in choices[flag] and not word.startswith("--"):
            raise EvorError(f"{flag} {word!r} is unknown; {nearest(word, choices[flag])}")


def _choose_types(value: Any, prefix: Prefix, *, arguments: list[str]) -> tuple[Any, list[str]]:
    """Apply `--extraction prior` and the like: for every field that is a union of dataclasses, and below it."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        old = getattr(value, item.name)
        new = old
        if members := union_members(hints[item.name]):
            flag = prefix.flag(item.name, is_record=True)
            choices = {kebab(member.__name__): member for member in members}
            chosen, arguments = take(arguments, flag, default=kebab(type(old).__name__))
            if chosen not in choices:
                raise EvorError(f"{flag} {chosen!r} is unknown; {_hint(chosen, choices)}")
            new = old if isinstance(old, choices[chosen]) else choices[chosen]()
        if dataclasses.is_dataclass(new):
            new, arguments = _choose_types(new, prefix.below(value, item.name), arguments=arguments)
        if new is not old:
            value = dataclasses.replace(value, **{item.name: new})
    return value, arguments


def _hint(chosen: str, choices: dict[str, type]) -> str:
    """Hint for an unknown choice."""
    new = RENAMED_CHOICES.get(chosen)
    return f"it has another name now: give {new}." if new in choices else nearest(chosen, choices)


def take(arguments: list[str], flag: str, *, default: str) -> tuple[str, list[str]]:
    """Remove `flag value` or `flag=value` from arguments."""
    rest = list(arguments)
    if sum(word == flag or word.startswith(f"{flag}=") for word in rest) > 1:
        raise EvorError(f"{flag} is given twice; give it once.")
    for index, word in enumerate(rest):
        if word == flag:
            if index + 1 == len(rest):
                raise EvorError(f"{flag} needs a value.")
            return rest[index + 1], rest[:index] + rest[index + 2 :]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1], rest[:index] + rest[index + 1 :]
    return default, rest
