"""Names of options, as a record of settings gives them, and what is said of a name that is none."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from evor.cli.rules import Prefix, is_positional, kebab
from evor.errors import EvorError, nearest
from evor.runtime.records import inlined_fields, union_members

MEANT = {"--lr": "--agent.learning-rate", "--gamma": "--agent.discount", "--epochs": "--updates"}  # elsewhere's names


class Option(NamedTuple):
    """An option: the type of its field, and the default."""

    kind: Any
    default: Any


def flags_of(value: Any, prefix: Prefix) -> dict[str, Option]:
    """A record's fields by their names on the command line: `--updates`, `--agent.hidden`, ..."""
    flags: dict[str, Option] = {}
    hints = typing.get_type_hints(type(value), include_extras=True)
    plain = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        if is_positional(hints[item.name]):
            continue
        inner = getattr(value, item.name)
        is_record = dataclasses.is_dataclass(inner)
        if item.name not in inlined_fields(value) or union_members(plain[item.name]):
            flags[prefix.flag(item.name, is_record=is_record)] = Option(plain[item.name], inner)
        if is_record:
            flags |= flags_of(inner, prefix.below(value, item.name))
    return flags


def refuse(program: str, flag: str, *, defaults: Any) -> None:
    """Raise EvorError about what no option is called, or none of the types that are chosen."""
    if not flag.startswith("-"):
        raise EvorError(f"unexpected argument {flag!r} (see `{program} --help`)")
    known = list(flags_of(defaults, Prefix()))
    meant = [name for name in known if name == MEANT.get(flag)]
    meant = meant or [name for name in known if name.endswith(f".{flag.rsplit('.', 1)[-1].lstrip('-')}")]
    for chooser, chosen, others in [] if meant else _elsewhere(defaults, Prefix(), flag=flag.replace("_", "-")):
        raise EvorError(
            f"{flag} goes with {chooser} {' or '.join(others)}, and {chosen} is chosen; leave it out, or choose another "
            f"{chooser} (see `{program} --help`)"
        )
    hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(flag, known)
    raise EvorError(f"unknown option {flag!r}; {hint} (see `{program} --help`)")


def _elsewhere(value: Any, prefix: Prefix, *, flag: str) -> Iterator[tuple[str, str, list[str]]]:
    """Choices of which another type than the chosen one has this option: what chooses, what is chosen, and those types.

    The innermost come first.
    """
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        inner, below = getattr(value, item.name), prefix.below(value, item.name)
        if dataclasses.is_dataclass(inner):
            yield from _elsewhere(inner, below, flag=flag)
        others = [member for member in union_members(hints[item.name]) if type(inner) is not member]
        if others := [kebab(member.__name__) for member in others if flag in flags_of(member(), below)]:
            yield prefix.flag(item.name, is_record=True), kebab(type(inner).__name__), others
