"""A choice is a type: unions of dataclasses on the command line and in files."""

import contextlib
import dataclasses
import io
import itertools
import re
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import AvoidSubcommands, Positional, arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from evor.errors import EvorError, nearest
from evor.runtime.files import expand
from evor.runtime.records import inlined_fields, union_members


def options(program: str, arguments: list[str], *, defaults: Any) -> Any:
    """An instance like `defaults` from arguments. Types are chosen by name before their fields are read.

    A leading `~` of a path is the home folder, also where no shell has seen to it (`--data=~/mine.npz`). Raises EvorError
    on what can't be read, and SystemExit after --help.
    """
    defaults, arguments = _choose_types(defaults, "--", arguments=arguments)
    _check_lists(defaults, arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            values, unknown = tyro.cli(
                type(defaults),
                prog=program,
                args=arguments,
                default=defaults,
                config=(AvoidSubcommands,),
                registry=_registry(),
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise EvorError(f"{_plain(_unboxed(said.getvalue()), program)} ({program} --help tells all options)") from None
    if unknown:
        flag = unknown[0].split("=", 1)[0]
        names = _flags(defaults, "--")
        deeper = [name for name in names if name.endswith(f".{flag.rsplit('.', 1)[-1].lstrip('-')}")]
        hint = nearest(flag, deeper or names) if flag.startswith("-") else "it is one argument too many"
        raise EvorError(f"unknown option {flag!r}; {hint} ({program} --help tells all options)")
    return _with_home(values)


def _registry() -> ConstructorRegistry:
    """Rules for tyro: options of an inlined record are named as if they were the outer record's own."""
    registry = ConstructorRegistry()
    reading: list[type] = []  # what tyro's own rules are asked about, so that this one lets it pass

    @registry.struct_rule
    def inline(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in reading or not dataclasses.is_dataclass(info.type) or not inlined_fields(info.type):
            return None
        reading.append(info.type)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            reading.pop()
        assert isinstance(spec, StructConstructorSpec)
        names = inlined_fields(info.type)
        unnamed = arg(name="")
        fields: list[Any] = list(spec.fields)
        for index, item in enumerate(fields):
            if item.name in names:
                fields[index] = dataclasses.replace(item, type=Annotated[item.type, unnamed])
        return dataclasses.replace(spec, fields=tuple(fields))

    return registry


def _unboxed(text: str) -> str:
    """What tyro has drawn a box around, in one line: without its title, and without the help below its first rule."""
    words: list[str] = []
    for line in text.splitlines()[1:]:
        inner = line.strip("│╰╯ ")
        if not inner.strip("─- "):
            if words:
                break
            continue  # without Unicode there is a rule under the title
        words.append(inner)
    return " ".join(words) or text.strip()


def _plain(text: str, program: str) -> str:
    """What tyro says is missing or wrong, in the words of the other messages."""
    missing = text.removeprefix(f"Missing from {program}: ")
    if missing != text:
        wanted = [item.strip() for item in missing.split("(required)") if item.strip()]
        # An option is "--out PATH Its help.", an argument without a name "PATH its help".
        words = [item.split(maxsplit=2 if item.startswith("--") else 1) for item in wanted]
        told = [" ".join(w[:2]) if w[0].startswith("--") else f"{w[0]} ({w[1].rstrip('.')})" for w in words]
        return f"{program} needs {' and '.join(told)}"
    text = re.sub(r"^Error parsing (--\S+): ", r"\1: ", text)
    text = re.sub(r"invalid literal for int\(\) with base 10: (.+)", r"\1 is not a whole number", text)
    return re.sub(r"could not convert string to float: (.+)", r"\1 is not a number", text)


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


def _check_lists(defaults: Any, arguments: list[str]) -> None:
    """Raise EvorError where an option for several values has none: `--only` alone would keep everything."""
    lists = {
        "--" + item.name.replace("_", "-")
        for item in dataclasses.fields(defaults)
        if type(getattr(defaults, item.name)) is tuple
    }
    for word, after in itertools.pairwise([*arguments, "--"]):
        if word in lists and after.startswith("--"):
            raise EvorError(f"{word} needs at least one value; leave it out for its default.")


def _flags(value: Any, prefix: str) -> list[str]:
    """`--steps`, `--agent.hidden`, ...: what the fields of a config are called on the command line."""
    flags = []
    hints = typing.get_type_hints(type(value), include_extras=True)
    for item in dataclasses.fields(value):
        if set(getattr(hints[item.name], "__metadata__", ())) & set(Positional[int].__metadata__):
            continue
        flag, inner = prefix + item.name.replace("_", "-"), getattr(value, item.name)
        if item.name in inlined_fields(value):
            flags += _flags(inner, prefix)
        else:
            flags += [flag, *(_flags(inner, f"{flag}.") if dataclasses.is_dataclass(inner) else ())]
    return flags


def _choose_types(value: Any, prefix: str, *, arguments: list[str]) -> tuple[Any, list[str]]:
    """Apply `--extraction prior` and the like: for every field that is a union of dataclasses, and below it."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        flag, old = prefix + item.name.replace("_", "-"), getattr(value, item.name)
        new = old
        if members := union_members(hints[item.name]):
            names = {kebab(member.__name__): member for member in members}
            chosen, arguments = take(arguments, flag, default=kebab(type(old).__name__))
            if chosen not in names:
                raise EvorError(f"{flag} {chosen!r} is unknown; {nearest(chosen, names)}")
            new = old if isinstance(old, names[chosen]) else names[chosen]()
        if dataclasses.is_dataclass(new):
            below = prefix if item.name in inlined_fields(value) else f"{flag}."
            new, arguments = _choose_types(new, below, arguments=arguments)
        if new is not old:
            value = dataclasses.replace(value, **{item.name: new})
    return value, arguments


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


def kebab(name: str) -> str:
    """`SampleBackup` as the command line calls it: sample-backup."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
