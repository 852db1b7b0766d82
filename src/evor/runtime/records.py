"""Records of settings: what options and files know about dataclasses beside their fields.

A union of dataclasses is a choice among types, made by name. An inlined record is a dataclass inside another whose
fields are named, in options and in files, as if they were the outer one's own: `agent.hidden`.
"""

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")
INLINED = {"inlined": True}  # metadata of a field that holds an inlined record


def union_members(annotation: Any) -> tuple[type, ...]:
    """The dataclasses of a union annotation, empty for anything else."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return ()
    members = typing.get_args(annotation)
    return members if all(dataclasses.is_dataclass(member) for member in members) else ()


def inlined_fields(record: Any) -> list[str]:
    """Names of the inlined fields of a dataclass or of an instance."""
    return [item.name for item in dataclasses.fields(record) if item.metadata == INLINED]


def replace(record: T, **changes: Any) -> T:
    """A copy of a dataclass with changes, also to fields of its inlined records: replace(agent, hidden=(32, 32))."""
    own: Any = record
    for name in inlined_fields(own):
        inner = getattr(own, name)
        below = {item.name for item in dataclasses.fields(inner)} & set(changes)
        if below:
            changes[name] = dataclasses.replace(inner, **{key: changes.pop(key) for key in below})
    return dataclasses.replace(own, **changes)
