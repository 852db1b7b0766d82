"""Choices among types: options and stored configs are read by the unions of dataclasses."""

import dataclasses
import types
import typing
from typing import Any


def union_members(annotation: Any) -> tuple[type, ...]:
    """The dataclasses of a union annotation, empty for anything else."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return ()
    members = typing.get_args(annotation)
    return members if all(dataclasses.is_dataclass(member) for member in members) else ()
