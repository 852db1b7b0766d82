"""Rules for tyro about records of settings: the option that chooses a type, words for values, and what is left out.

A union of dataclasses is a choice. Its option (`--agent.objective sample-backup`) is read before tyro runs, see `options`;
here it is only shown. The fields of an inlined record are options of the record around it. Where the inlined record is a
choice, the choices below it keep its name: `--num-candidates`, but `--extraction.reading`.
"""

import dataclasses
import inspect
import operator
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from evor.runtime.records import inlined_fields, union_members

POSITIONAL = Positional[int].__metadata__
VALUES = {  # what the value of a field is called in a help text, where its type does not say
    "name": "DATASET",
    "dataset": "DATASET",
    "data": "FILE_OR_FOLDER",
    "cache": "FOLDER",
    "run": "RUN",
    "runs": "RUN",
    "suite": "SUITE",
    "env": "MODULE:FUNCTION",
    "memory_gb": "GIGABYTES",
    "hours": "HOURS",
    "seconds": "SECONDS",
    "only": "NAME",
    "sources": "SOURCE",
    "mirrors": "URL",
    "max_gb": "GIGABYTES",
    "success": "RULE",
    "base": "SPEC",
    "proposals": "FOLDER",
    "base_timeout": "SECONDS",
}
WORDS: dict[Any, str] = {int: "NUMBER", float: "NUMBER", str: "NAME", Path: "FOLDER"}
FIRST, LAST = ("out", "preset", "type_of_agent"), ("quiet", "json")  # in help texts
DEFAULTS = {"None": "none", "True": "on", "False": "off", "": "none"}


def kebab(name: str) -> str:
    """`SampleBackup` as the command line calls it: sample-backup."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def one_of(names: Iterable[str]) -> Any:
    """The type of one of these names, as `Literal` makes it."""
    return operator.getitem(typing.cast("Any", Literal), tuple(names))


def union_of(kinds: Iterable[Any]) -> Any:
    """The union of types that were made by a program."""
    return operator.getitem(typing.cast("Any", Union), tuple(kinds))


def annotated(annotation: Any, *metadata: Any) -> Any:
    """A type, and what is said about it."""
    return operator.getitem(typing.cast("Any", Annotated), (annotation, *metadata))


def is_positional(annotation: Any) -> bool:
    """Whether a field is an argument without a name."""
    return bool(set(getattr(annotation, "__metadata__", ())) & set(POSITIONAL))


class Prefix(NamedTuple):
    """Prefixes of the names of a record's options: of plain fields, and of records and choices below."""

    plain: str = "--"
    records: str = "--"

    def flag(self, name: str, *, is_record: bool) -> str:
        """The option of a field: `--updates`, `--agent.hidden`."""
        return (self.records if is_record else self.plain) + name.replace("_", "-")

    def below(self, record: Any, name: str) -> "Prefix":
        """Prefix of the options of the record in the field `name`."""
        own = f"{self.flag(name, is_record=True)}."
        if name not in inlined_fields(record):
            return Prefix(own, own)
        is_choice = union_members(typing.get_type_hints(type(record))[name])
        return Prefix(self.plain, own if is_choice else self.records)


def rules(*defaults: Any) -> ConstructorRegistry:
    """The rules for records like `defaults`."""
    registry = ConstructorRegistry()
    reading: list[type] = []  # what tyro's own rules are asked about, so that this one lets it pass
    keeps = {kind: name for record in defaults for kind, name in _inlined_choices(record).items()}

    def plain(info: StructTypeInfo) -> StructConstructorSpec:
        reading.append(info.type)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            reading.pop()
        assert isinstance(spec, StructConstructorSpec)
        return spec

    @registry.struct_rule
    def record(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in reading or not isinstance(info.type, type) or not dataclasses.is_dataclass(info.type):
            return None
        spec = plain(info)
        if source := getattr(info.type, "documented_by", None):  # a record that was made by a program has no comments
            documented = plain(StructTypeInfo.make(source, source(), in_union_context=False))
            texts = {item.name: item.helptext for item in documented.fields}
            spec = dataclasses.replace(
                spec,
                fields=tuple(dataclasses.replace(item, helptext=texts[item.name]) for item in spec.fields),
            )
        fields: list[StructFieldSpec] = []
        for item in spec.fields:
            fields += _seen(item, inlined=item.name in inlined_fields(info.type), keeps=keeps.get(info.type, ""))
        fields.sort(key=lambda item: (item.name in LAST, item.name not in FIRST))
        own, make = {item.name for item in spec.fields}, spec.instantiate

        def instantiate(**values: Any) -> Any:
            return make(**{name: value for name, value in values.items() if name in own})

        return dataclasses.replace(spec, instantiate=instantiate, fields=tuple(fields))

    return registry


def _inlined_choices(record: Any) -> dict[type, str]:
    """The types that were chosen for inlined fields, and the names of these fields, in a record and below it."""
    found: dict[type, str] = {}
    hints = typing.get_type_hints(type(record))
    for item in dataclasses.fields(record):
        inner = getattr(record, item.name)
        if not dataclasses.is_dataclass(inner):
            continue
        if item.name in inlined_fields(record) and union_members(hints[item.name]):
            found[type(inner)] = item.name
        found |= _inlined_choices(inner)
    return found


def _seen(item: StructFieldSpec, *, inlined: bool, keeps: str) -> list[StructFieldSpec]:
    """Fields that tyro sees of a field: itself, after the option that chooses its type where it has one."""
    annotation, metadata = _unwrapped(item.type)
    members = union_members(annotation)
    if not members and not dataclasses.is_dataclass(annotation):
        told = arg(metavar=_metavar(item, annotation, metadata=metadata), help_behavior_hint=_default_text)
        return [dataclasses.replace(item, type=annotated(annotation, told, *metadata))]
    name = f"{keeps}.{item.name}" if keeps else item.name
    shown = dataclasses.replace(item, type=annotated(item.type, arg(name="" if inlined else name)), helptext="")
    if not members:
        return [shown]
    choices = tuple(kebab(member.__name__) for member in members)
    asked = _text(item)
    meanings = [f"{choice}: {_first_line(member)}" for choice, member in zip(choices, members, strict=True)]
    option = StructFieldSpec(
        name=f"type_of_{item.name}",
        type=annotated(one_of(choices), arg(name=name, help_behavior_hint=_default_text), *metadata),
        default=kebab(type(item.default).__name__),
        helptext=" ".join([*([asked] if asked else []), *meanings]),
    )
    return [option, shown]


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without and with what was said about it."""
    if typing.get_origin(annotation) is Annotated:
        inner, *metadata = typing.get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def _text(item: StructFieldSpec) -> str:
    text: Any = item.helptext
    return (text() if callable(text) else text) or ""


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n", 1)[0]


def _metavar(item: StructFieldSpec, annotation: Any, *, metadata: tuple[Any, ...]) -> str | None:
    """The word for the value of an option, None where tyro lists all values or needs none."""
    kinds = [kind for kind in _alternatives(annotation) if kind is not type(None)]
    several = any(typing.get_origin(kind) is tuple for kind in kinds)
    plain = [typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind for kind in kinds]
    word = None if typing.get_origin(plain[0]) is Literal else VALUES.get(item.name) or WORDS.get(plain[0])
    if plain[0] is bool or word is None:
        return None
    text = f"{word} ..." if several else word
    optional = set(metadata) & set(POSITIONAL) and type(None) in _alternatives(annotation)
    return f"[{text}]" if optional else text


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _default_text(label: str) -> str:
    """The default of an option, as a help text says it."""
    return f"(default: {DEFAULTS.get(label, label)})"
