"""Readers of npz files and of arrays in memory: their headers, and their arrays, checked."""

import difflib
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.errors import EvorError, why
from evor.runtime.npz import Npz, open_npz

CHECKED = 2**16  # rows that are checked at a time
WRITE = "write it again with numpy.savez"  # the remedy where a user made the file


class Contents(NamedTuple):
    """Names, sizes and checksums of an npz file's arrays, without reading them: a folder of 100 GB takes no time."""

    checksums: str  # names, sizes and checksums; two files of equal texts hold the same
    bytes: int


def contents(path: Path, remedy: str = WRITE) -> Contents:
    """The contents of an npz file. Raises EvorError on a broken one."""
    with _opened(path, remedy) as file:
        return Contents(file.checksums, file.bytes)


def is_whole(path: Path) -> bool:
    """Whether all of an npz file is there, by its own checksums."""
    try:
        with zipfile.ZipFile(path) as arrays:
            return arrays.testzip() is None
    except Exception:  # whatever damaged bytes make of a parser
        return False


def shapes(path: Path, *wanted: str) -> dict[str, tuple[int, ...]]:
    """Shapes of those of the wanted arrays that a file has, without reading these. Raises EvorError on a broken file."""
    with _opened(path, WRITE) as file:
        return {name: _header(file, name, path=path) for name in wanted if name in file.names}


def read_npz(
    path: Path,
    required: tuple[str, ...],
    *,
    optional: tuple[str, ...] = (),
    unchecked: tuple[str, ...] = (),
    remedy: str = WRITE,
) -> dict[str, np.ndarray]:
    """The named arrays of one npz file: real numbers, finite but for those `unchecked`.

    Raises EvorError; `remedy` says how to get a damaged file again.
    """
    with _opened(path, remedy) as file:
        names = _check_names(path, file.names, required=required, optional=optional)
        arrays = {name: _array(file, name, path=path) for name in names}
    return _check_values(path, arrays, unchecked=unchecked)


def take_arrays(
    place: str,
    given: Mapping[str, Any],
    *,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    unchecked: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """The named arrays of a mapping, checked as `read_npz` checks a file's. Raises EvorError, which calls it `place`."""
    names = _check_names(place, [str(name) for name in given], required=required, optional=optional)
    arrays = {name: _numbers(place, name, value=given[name]) for name in names}
    return _check_values(place, arrays, unchecked=unchecked)


def _check_names(
    path: Path | str, names: Sequence[str], *, required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    """Those of the wanted arrays that are there. Raises EvorError where one is missing, or seems to be misspelled."""
    if missing := [name for name in required if name not in names]:
        remedy = (
            " Without rewards, train behaviour cloning (the preset bc, --preset bc)." if missing == ["rewards"] else ""
        )
        raise EvorError(f"{path} lacks {', '.join(missing)}; it holds {_listed(names)}.{remedy}")
    for name in names:
        (close,) = difflib.get_close_matches(name, (*required, *optional), n=1, cutoff=0.85) or (name,)
        if close not in names:
            raise EvorError(f"{path} holds {_listed([name])}, which nothing reads; did you mean {close}?")
    return [name for name in (*required, *optional) if name in names]


def _check_values(
    path: Path | str, arrays: dict[str, np.ndarray], *, unchecked: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The arrays themselves. Raises EvorError where one holds a value that is not finite, but for those `unchecked`."""
    for name, array in arrays.items():
        if name not in unchecked:
            check_finite(path, name, array=array)
    return arrays


def _numbers(place: str, name: str, *, value: Any) -> np.ndarray:
    """Convert a caller's argument to an array of real numbers. Raises EvorError."""
    if np.ma.is_masked(value):
        raise EvorError(f"{place}: {name} has masked entries; fill them first (numpy.ma.filled).")
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever an array type of another library raises
        raise EvorError(f"{place}: {name} is no array ({why(error)}); convert it to float32.") from error
    _check_type(place, name, dtype=array.dtype)
    return array


def check_finite(path: Path | str, name: str, *, array: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Raise EvorError, naming the first value (of these rows) that is not finite."""
    starts = range(0, len(array), CHECKED) if array.ndim else ()
    if array.ndim and not any(_unfinite_rows(array[i : i + CHECKED], rows, first=i).any() for i in starts):
        return
    if (bad := _unfinite_rows(array, rows, first=0)).any():
        first = tuple(np.argwhere(bad)[0])
        raise EvorError(
            f"{path}: {name}[{', '.join(map(str, first))}] is {array[first]}, the first of {bad.sum()} values that are not "
            "finite in float32; repair them, or cut the episodes before them."
        )


def _unfinite_rows(block: np.ndarray, rows: np.ndarray | None, *, first: int) -> np.ndarray:
    """Mask of the values of a block, which begins with row `first`, that are not finite in these rows."""
    bad = unfinite(block)
    if rows is not None:
        bad[~rows[first : first + len(block)]] = False
    return bad


def unfinite(array: np.ndarray) -> np.ndarray:
    """Mask of the values that are not finite, or beyond float32's range, which training would see as infinite."""
    return ~(np.abs(array) <= np.finfo(np.float32).max) if array.dtype.kind == "f" else np.zeros(array.shape, bool)


@contextmanager
def _opened(path: Path, remedy: str) -> Generator[Npz]:
    """An npz file that is there. Raises EvorError on it and on whatever goes wrong inside."""
    if not path.is_file():
        raise EvorError(f"{path} does not exist; give an npz file or a folder of them.")
    try:
        with open_npz(path, f"copy it again, or {remedy}.") as file:
            yield file
    except MemoryError as error:
        raise EvorError(
            f"{path} does not fit into memory; split it into files and train under memory_gb (--memory-gb)."
        ) from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names) or "nothing"


def _header(file: Npz, name: str, *, path: Path) -> tuple[int, ...]:
    """The shape of an array. Raises EvorError where it holds no real numbers."""
    shape, dtype = file.header(name)
    _check_type(path, name, dtype=dtype)
    return shape


def _check_type(path: Path | str, name: str, *, dtype: np.dtype) -> None:
    if dtype.kind not in "biuf":
        raise EvorError(f"{path}: {name} has dtype {dtype}, not real numbers; convert it to float32.")


def _array(file: Npz, name: str, *, path: Path) -> np.ndarray:
    _header(file, name, path=path)
    return file[name]
