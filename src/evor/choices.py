"""A choice is a type: unions of dataclasses on the command line and in files."""

import dataclasses
import types
import typing
from typing import Any

import tyro
from tyro.conf import AvoidSubcommands, Positional

from evor.errors import EvorError, nearest


def union_members(annotation: Any) -> tuple[type, ...]:
    """The dataclasses of a union annotation, empty for anything else."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return ()
    members = typing.get_args(annotation)
    return members if all(dataclasses.is_dataclass(member) for member in members) else ()


def options(program: str, arguments: list[str], defaults: Any) -> Any:
    """An instance like `defaults` from arguments. Types are chosen by name before their fields are read."""
    defaults, arguments = _choose_types(defaults, "--", arguments)
    _check_lists(defaults, arguments)
    found, unknown = tyro.cli(
        type(defaults),
        prog=program,
        args=arguments,
        default=defaults,
        config=(AvoidSubcommands,),
        return_unknown_args=True,
    )
    if unknown:
        flag = unknown[0].split("=", 1)[0]
        known = _flags(defaults, "--")
        deeper = [name for name in known if name.endswith(f".{flag.rsplit('.', 1)[-1].lstrip('-')}")]
        hint = nearest(flag, deeper or known) if flag.startswith("-") else "it is one argument too many"
        raise EvorError(f"unknown option {flag!r}; {hint} ({program} --help tells all options)")
    return found


def _check_lists(defaults: Any, arguments: list[str]) -> None:
    """Raise EvorError where an option for several values has none: `--only` alone would keep everything."""
    lists = {
        "--" + item.name.replace("_", "-")
        for item in dataclasses.fields(defaults)
        if type(getattr(defaults, item.name)) is tuple
    }
    for word, after in zip(arguments, [*arguments[1:], "--"], strict=True):
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
        flags += [flag, *(_flags(inner, f"{flag}.") if dataclasses.is_dataclass(inner) else ())]
    return flags


def _choose_types(value: Any, prefix: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """Apply `--extraction prior` and the like: for every field that is a union of dataclasses, and below it."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        flag, old = prefix + item.name.replace("_", "-"), getattr(value, item.name)
        new = old
        if members := union_members(hints[item.name]):
            known = {kebab(member.__name__): member for member in members}
            chosen, arguments = take(arguments, flag, kebab(type(old).__name__))
            if chosen not in known:
                raise EvorError(f"{flag} {chosen!r} is unknown; {nearest(chosen, known)}")
            new = old if isinstance(old, known[chosen]) else known[chosen]()
        if dataclasses.is_dataclass(new):
            new, arguments = _choose_types(new, f"{flag}.", arguments)
        if new is not old:
            value = dataclasses.replace(value, **{item.name: new})
    return value, arguments


def take(arguments: list[str], flag: str, default: str) -> tuple[str, list[str]]:
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
