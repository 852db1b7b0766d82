"""Observations of Dict and Tuple spaces as one vector: the numbers of named columns side by side."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evor.errors import EvorError
from evor.runtime import arguments

Observation = ArrayLike | Mapping[str, Any]  # numbers, or a dict of the columns that the data named
Keys = tuple[tuple[str, int], ...]  # columns and their widths, in order; "a/b" is the column b inside of a
REMEDY = "wrap the environment so that it has what the policy was trained on."
INDEX = "_index_"  # begins the name of an entry of a Tuple: _index_0, _index_1, ...


def flat_observation(given: Any, keys: Keys, *, place: str = "observation") -> Any:
    """A dict of these columns (or a tuple of entries) as one vector; anything else as it is. Raises EvorError.

    A message calls the observation `place`.
    """
    is_tuple = isinstance(given, tuple) and bool(keys) and keys[0][0].startswith(INDEX)
    if not isinstance(given, Mapping) and not is_tuple:
        return given
    if not keys:
        raise EvorError(
            f"{place} is not an array of numbers but a dict, and the data of this policy named no keys; give one array, [O]."
        )
    parts = {key: _column(given, key, width=width, place=place) for key, width in keys}
    if any(part.ndim == 2 for part in parts.values()):  # a batch; a column [1] in a batch of one is its only row
        parts = {key: part[None] if part.shape == (1,) else part for key, part in parts.items()}
    if len({part.shape[:-1] for part in parts.values()}) > 1:
        told = ", ".join(f"{key} {list(part.shape)}" for key, part in parts.items())
        raise EvorError(
            f"the columns of {place} have different shapes ({told}); give one row of each, or as many of each."
        )
    return np.concatenate(list(parts.values()), axis=-1)


def _column(given: Mapping[str, Any] | tuple, key: str, *, width: int, place: str) -> np.ndarray:
    """The numbers of one key, [*B, width]. A key "a/b" is looked for as such, and as b inside of a."""
    value: Any = given
    for part in [key] if isinstance(given, Mapping) and key in given else key.split("/"):
        index = part.removeprefix(INDEX)
        if isinstance(value, tuple) and index.isdigit() and int(index) < len(value):
            value = value[int(index)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            there = f"{len(given)} entries" if isinstance(given, tuple) else ", ".join(map(str, given))
            raise EvorError(
                f"{place} has no key {key!r} (it has {there or 'none'}); give the keys that the policy was trained on."
            )
    array = arguments.array(**{f"{place}[{key!r}]": value})
    array = array[..., None] if width == 1 and array.shape[-1:] != (1,) else array
    if array.shape[-1:] != (width,):
        raise EvorError(f"{place}[{key!r}] has shape {list(array.shape)}; [{width}] or [B, {width}] is needed.")
    return array


def columns_of(space: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Columns of a gymnasium space and their spaces, in gymnasium's order of flattening; one without a name of a plain space."""
    from gymnasium.spaces import Dict, Tuple

    if not isinstance(space, Dict | Tuple):
        yield path, space
        return
    inner = (
        space.spaces.items() if isinstance(space, Dict) else ((f"{INDEX}{i}", s) for i, s in enumerate(space.spaces))
    )
    for name, one in inner:
        yield from columns_of(one, f"{path}/{name}" if path else str(name))


def fitting_keys(space: Any, keys: Keys, *, width: int, name: str) -> Keys:
    """Columns of an environment's Dict or Tuple space that make an observation [width]: `keys` where data named some, else all.

    Returns () for a Box [width], which needs none. Raises EvorError on any other space.
    """
    from gymnasium.spaces import Box

    columns = dict(columns_of(space))
    if list(columns) == [""]:
        if isinstance(space, Box) and space.shape == (width,):
            return ()
        shown = f"a Box of shape {list(space.shape)}" if isinstance(space, Box) else type(space).__name__
        raise EvorError(
            f"the observation space of {name} is {shown}, and the policy needs a Box of shape [{width}]; {REMEDY}"
        )
    chosen = {key: columns.get(key) for key, _ in keys} if keys else columns
    title, sizes = f"the observation space of {name}, a {type(space).__name__},", dict(keys)
    for key, column in chosen.items():
        if column is None:
            raise EvorError(f"{title} has no key {key!r} (it has {', '.join(columns)}); {REMEDY}")
        if not isinstance(column, Box) or len(column.shape) > 1:
            shape = f"of shape {list(column.shape)}" if isinstance(column, Box) else f"({type(column).__name__})"
            raise EvorError(f"{title} has the key {key!r} {shape}, and a Box of shape [N] is needed; {REMEDY}")
        if sizes.setdefault(key, size := int(np.prod(column.shape))) != size:
            raise EvorError(
                f"{title} has {size} numbers in {key!r}, and the policy was trained on {sizes[key]}; {REMEDY}"
            )
    if sum(sizes.values()) != width:
        told = ", ".join(f"{key} [{size}]" for key, size in sizes.items())
        raise EvorError(
            f"{title} has {told}, {sum(sizes.values())} numbers, and the policy was trained on {width}; {REMEDY}"
        )
    return tuple(sizes.items())
