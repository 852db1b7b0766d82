"""Configurations as frozen dataclasses: presets, JSON and back, and what differs between two."""

import dataclasses
import functools
import itertools
import json
import operator
import reprlib
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.strategies import configure_tagged_union
from cattrs.v import format_exception

from evor.agents.registry import PRESETS, AgentConfig
from evor.errors import EvorError, above, at_least
from evor.report.config import refuse_imitation
from evor.runtime.files import read_json
from evor.runtime.provenance import versions
from evor.runtime.records import inlined_fields, union_members
from evor.training import upgrade
from evor.types import Spec

REASONS = 3  # that a sentence names
KINDS: dict[type, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}  # in words
NO_OTHER_RUN = (
    "data",
    "cache",
    "proposals",
    "updates",
    "checkpoint_every",
    "log_every",
)  # may change when a run is resumed


def default_agent() -> AgentConfig:
    """The preset `default`. The reference shows the name of this function, and would show a lambda's source."""
    return PRESETS["default"]


@dataclass(frozen=True)
class RunConfig:
    """One training run: seeds x tasks of one dataset. Two runs with equal configs and data end bit-identical."""

    # The help texts of `evor train`.
    dataset: str | None = None  # Name of an OGBench dataset. Left out: data of your own.
    data: str | None = None  # An npz file, or a folder of npz files. With an OGBench dataset: where its files are.
    memory_gb: float | None = None  # Cap on the data in memory. Larger data are read block by block. Left out: no cap.
    tasks: tuple[int, ...] = (1,)  # Which tasks of an OGBench dataset to train on, by their numbers.
    seed: int = 0  # The first seed.
    num_seeds: int = 1  # How many seeds are trained side by side: the first, the one after it, and so on.
    updates: int = 100_000  # Gradient steps of every network.
    # Gradient steps of a base policy that is trained before the value. Left out: as many as --updates.
    base_updates: int | None = None
    checkpoint_every: int = 10_000  # Updates from one checkpoint to the next. The newest three are kept.
    log_every: int = 500  # Updates from one line of metrics.jsonl to the next.
    # Use the rewards of OGBench's sparse tasks (scene, puzzle): -1 until everything is done.
    sparse_rewards: bool = False
    # Folder with proposals of a base policy of your own, as `evor data propose` makes them. Only the value is trained then.
    proposals: str | None = None
    # Folder for data that are prepared under a cap (--memory-gb). Left out: beside the data.
    cache: str | None = None
    # Kind of agent, with its default settings.
    agent: AgentConfig = field(default_factory=default_agent)

    def __post_init__(self):
        at_least(
            1,
            num_seeds=self.num_seeds,
            updates=self.updates,
            checkpoint_every=self.checkpoint_every,
            log_every=self.log_every,
        )
        if self.base_updates is not None:
            at_least(1, base_updates=self.base_updates)
        if self.memory_gb is not None:
            above(0, memory_gb=self.memory_gb)
        if self.seed < 0 or self.seed + self.num_seeds > 2**31:
            raise EvorError(
                f"seed is {self.seed} and num_seeds is {self.num_seeds}; the seeds of a run must lie between 0 and 2^31 - 1."
            )
        for name in ("updates", "base_updates"):
            if (count := getattr(self, name)) is not None and count >= 2**31:
                raise EvorError(f"{name} is {count}; it must be below 2^31.")
        if len(set(self.tasks)) != len(self.tasks) or not self.tasks:
            raise EvorError(f"tasks are {list(self.tasks)}; name each task once.")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))


@functools.cache  # made once: it compiles code for every class
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in KINDS:
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_func(
        lambda kind: typing.get_origin(kind) is tuple,
        lambda value, kind: _all_exactly(value, kind, converter=converter),
    )
    for union in dict.fromkeys(_unions(RunConfig)):
        for member in union_members(union):
            if inlined_fields(member):
                _inline(converter, member)
        configure_tagged_union(union, converter, tag_name="type")
        converter.register_structure_hook(union, _named(union, converter.get_structure_hook(union)))
    read = make_dict_structure_fn(RunConfig, converter, _cattrs_forbid_extra_keys=True)
    converter.register_structure_hook(RunConfig, lambda content, kind: read(upgrade.run(content), kind))
    return converter


def _named(union: Any, read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Read a choice among types, and tell which names there are where the stored one is unknown."""
    names = [member.__name__ for member in union_members(union)]

    def checked(content: Any, kind: Any) -> Any:
        name = content.get("type") if isinstance(content, dict) else None
        if isinstance(name, str) and name not in names:
            raise EvorError(f"{name!r} is none of {', '.join(names)}")
        return read(content, kind)

    return checked


def _inline(converter: cattrs.Converter, kind: type) -> None:
    """Write the inlined records of a class of configs beside its own fields, and read them from there."""
    write = make_dict_unstructure_fn(kind, converter)
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
    hints = typing.get_type_hints(kind)
    inner = {name: [item.name for item in dataclasses.fields(hints[name])] for name in inlined_fields(kind)}

    def flat(config: Any) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, value in write(config).items():
            content |= value if name in inner else {name: value}
        return content

    def nested(content: Any, kind: Any) -> Any:
        content = upgrade.agent(content, kind)
        if unknown := set(inner) & set(content):
            raise ForbiddenExtraKeysError(None, kind, unknown)
        own = {name: value for name, value in content.items() if name not in itertools.chain(*inner.values())}
        for name, below in inner.items():
            own[name] = {item: content[item] for item in below if item in content}
        return read(own, kind)

    converter.register_unstructure_hook(kind, flat)
    converter.register_structure_hook(kind, nested)


def _exactly(value: Any, kind: type) -> Any:
    """A value of this very type: cattrs would make True of "false" and 3 of 3.9."""
    if type(value) is not kind and (kind, type(value)) != (float, int):
        raise EvorError(f"{reprlib.repr(value)} is no {KINDS[kind]}")
    return kind(value)


def _all_exactly(value: Any, kind: Any, *, converter: cattrs.Converter) -> tuple:
    """The values of a list, each of its very type: cattrs would take a text letter by letter, and an object key by key."""
    if not isinstance(value, list | tuple):
        raise EvorError(f"{reprlib.repr(value)} is no list")
    (of_one, _) = typing.get_args(kind)
    return tuple(converter.structure(one, of_one) for one in value)


def _unions(kind: type) -> list[Any]:
    """Every union of dataclasses below a dataclass, the innermost first."""
    unions = []
    for annotation in typing.get_type_hints(kind).values():
        members = union_members(annotation)
        for inner in members or ((annotation,) if dataclasses.is_dataclass(annotation) else ()):
            unions += _unions(inner)
        unions += [annotation] if members else []
    return unions


def to_json(config: Any, kind: Any = None) -> dict[str, Any]:
    """A config as plain JSON values; a choice of type carries its name under "type" (`kind`: the choice it is of)."""
    return _converter().unstructure(config, unstructure_as=kind or type(config))


def from_json(content: Any, kind: Any, *, where: Path | str = "the stored config", writer: str | None = None) -> Any:
    """The config that `to_json` wrote.

    Raises EvorError where it does not fit. It names the place where the config is stored, this version of evor, and the
    version that wrote it, `writer`, where that is known and another.
    """
    try:
        return _converter().structure(content, kind)
    except Exception as error:
        this = versions()["evor"]
        remedy = f"; it was written by evor {writer}, open it with that version" if writer not in (None, this) else ""
        raise EvorError(f"{where} does not fit this version of evor, {this}: {reasons(error)}{remedy}.") from error


def plain(config: RunConfig) -> RunConfig:
    """The config as its run stores it: Python's own numbers in place of numpy's. Raises what cattrs raises, or EvorError."""
    content = json.dumps(to_json(config), default=operator.methodcaller("item"))
    return _converter().structure(json.loads(content), RunConfig)


def reasons(error: Exception) -> str:
    """Reasons in an error of cattrs, each naming what does not fit."""
    # An inlined record is no level of its own in a file.
    texts = [text.replace(".learning.", ".") for text in cattrs.transform_error(error, format_exception=_reason)]
    return shortened(texts)


def shortened(reasons: list[str]) -> str:
    """The first few of many reasons, and the number of the others."""
    more = f" and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
    return "; ".join(reasons[:REASONS]) + more


def _reason(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, EvorError) else format_exception(error, kind)


def spec_from_json(content: dict[str, Any], path: Path) -> Spec:
    """The sizes that the file at `path` holds. Raises EvorError where they are none."""
    if set(content) != set(Spec._fields) or not all(type(n) is int and 0 < n < 2**31 for n in content.values()):
        raise EvorError(f"{path} is damaged (its spec is {reprlib.repr(content)}); restore it or start anew.")
    return Spec(**content)


def read_identity(path: Path) -> dict[str, Any]:
    """Read a run's config.json: {"config", "spec", "data_digest"} and how it was extended. Raises EvorError."""
    refuse_imitation(path.parent)
    stored = read_json(path, config={"agent": {"type": str}}, spec=dict, data_digest=str)
    if not isinstance(stored.get("extended", []), list):
        raise EvorError(f"{path} is damaged ('extended' is no list); restore it or start anew.")
    from_json(stored["config"], RunConfig, where=path, writer=_writer(path.parent / "provenance.json"))
    spec_from_json(stored["spec"], path)
    return stored


def _writer(path: Path) -> str | None:
    """The version of evor that trained a run last, None where its provenance does not say."""
    if not path.is_file():
        return None
    try:
        stored = read_json(path, versions={"evor": str})
        return str([stored, *stored.get("resumed", [])][-1]["versions"]["evor"])
    except (EvorError, LookupError, TypeError):
        return None


def run_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List the differences that make two runs different ones; each is {"config", "spec", "data_digest"}.

    An option that is younger than a stored config had its default. Files may move: the digest tells whether they are the
    same. More updates and another pace of saving make no other run. Raises EvorError where a stored config does not fit.
    """

    def plain(identity: dict[str, Any]) -> dict[str, Any]:
        config = to_json(from_json(identity["config"], RunConfig))
        counted = {name: value for name, value in config.items() if name not in NO_OTHER_RUN}
        return {"config": counted, "spec": identity["spec"]}

    others = [] if old["data_digest"] == new["data_digest"] else ["the data are not the same"]
    others += [] if old.get("proposals") == new.get("proposals") else ["the proposals are not the same"]
    return differences(plain(old), plain(new)) + others


def check_identity(metadata: dict[str, Any], identity: dict[str, Any], *, folder: Path) -> None:
    """Raise EvorError where a checkpoint's metadata are of another run than `identity`. Those of version 0.1.0 say nothing."""
    if "identity" in metadata and (changed := run_differences(metadata["identity"], identity)):
        raise EvorError(
            f"{folder / 'config.json'} was edited, or the checkpoint of {metadata['step']} updates beside it is another run's: "
            f"what they say differs ({shortened(changed)}); restore the one or the other."
        )


def differences(old: dict[str, Any], new: dict[str, Any], *, prefix: str = "") -> list[str]:
    """`agent.hidden: [256] -> [128]` for every field that differs; of another type of thing the type alone."""
    types = [content.get("type") for content in (old, new)]
    if None not in types and types[0] != types[1]:
        return [f"{prefix}type: {types[0]} -> {types[1]}"]
    changes = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += differences(before, after, prefix=f"{prefix}{name}.")
        elif before != after:
            changes.append(f"{prefix}{name}: {before} -> {after}")
    return changes
