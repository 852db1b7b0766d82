"""npz files: what they say of themselves, and their arrays. Nothing is ever unpickled, and no more is read than is there."""

import difflib
import math
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evor.errors import EvorError, why

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DEFLATE = 1100  # times smaller than the original is the smallest that deflate makes of anything
WRITE = "write it again with numpy.savez"  # the remedy where a user made the file


class Contents(NamedTuple):
    """What an npz file says of its arrays without reading them: a folder of 100 GB is told apart in no time."""

    checksums: str  # names, sizes and checksums; two files of equal texts hold the same
    bytes: int


def contents(path: Path, remedy: str = WRITE) -> Contents:
    """The contents of an npz file. Raises EvorError on a broken one."""
    with _opened(path, remedy) as file:
        arrays = file.infolist()
        text = "".join(f"{array.filename} {array.file_size} {array.CRC}" for array in arrays)
        return Contents(text, sum(array.file_size for array in arrays))


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
        return {name: _header(file, name, path) for name in wanted if name in _names(file)}


def read_npz(
    path: Path,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    unchecked: tuple[str, ...] = (),
    remedy: str = WRITE,
) -> dict[str, np.ndarray]:
    """The named arrays of one npz file: real numbers, finite but for those `unchecked`.

    Raises EvorError; `remedy` says how to get a damaged file again.
    """
    with _opened(path, remedy) as file:
        names = _names(file)
        if missing := [name for name in required if name not in names]:
            raise EvorError(f"{path} lacks {', '.join(missing)}; it holds {_listed(names)}.")
        for name in names:
            (close,) = difflib.get_close_matches(name, (*required, *optional), n=1, cutoff=0.85) or (name,)
            if close not in names:
                raise EvorError(f"{path} holds {_listed([name])}, which nothing reads; did you mean {close}?")
        arrays = {name: _array(file, name, path) for name in (*required, *optional) if name in names}
    for name, array in arrays.items():
        if name not in unchecked:
            check_finite(path, name, array)
    return arrays


def check_finite(path: Path, name: str, array: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Raise EvorError, naming the first value (of these rows) that is not finite."""
    bad = unfinite(array)
    if rows is not None:
        bad[~rows] = False
    if bad.any():
        first = tuple(np.argwhere(bad)[0])
        raise EvorError(
            f"{path}: {name}[{', '.join(map(str, first))}] is {array[first]}, the first of {bad.sum()} values that are not "
            "finite in float32; repair them, or cut the episodes before them."
        )


def unfinite(array: np.ndarray) -> np.ndarray:
    """Which values are not finite, or beyond float32's range: that is what training would see."""
    return ~(np.abs(array) <= np.finfo(np.float32).max) if array.dtype.kind == "f" else np.zeros(array.shape, bool)


@contextmanager
def _opened(path: Path, remedy: str) -> Generator[zipfile.ZipFile]:
    """An npz file that is there. Raises EvorError on it and on whatever goes wrong inside."""
    if not path.is_file():
        raise EvorError(f"{path} does not exist; give an npz file or a folder of them.")
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise EvorError(f"{path} is not an npz file or is truncated; {remedy}.")
            with zipfile.ZipFile(stream) as file:
                yield file
    except EvorError:
        raise
    except PermissionError as error:
        raise EvorError(f"{path} can't be read ({error.strerror}); change its permissions.") from error
    except MemoryError as error:
        raise EvorError(f"{path} does not fit into memory; split it into files and train under --memory-gb.") from error
    except Exception as error:  # whatever damaged bytes make of a parser
        raise EvorError(f"{path} is truncated or damaged ({why(error)}); copy it again, or {remedy}.") from error


def _listed(names: list[str]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names) or "nothing"


def _names(file: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


def _header(file: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...]:
    """The shape of an array. Raises where a file can't hold as much as it says, or no real numbers."""
    info = file.getinfo(f"{name}.npy")
    with file.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"{name} is of format {version}")
        try:
            shape, _, dtype = HEADERS[version](stream)
        except (MemoryError, RecursionError) as error:  # of the parser
            raise ValueError(f"the header of {name} is no header") from error
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise EvorError(f"{path} holds pickled objects, which evor never opens; save plain numeric arrays.")
    if dtype.kind not in "biuf":
        raise EvorError(f"{path}: {name} has dtype {dtype}, not real numbers; convert it to float32.")
    if expected != info.file_size or min(shape, default=0) < 0:
        raise ValueError(f"{name} should have shape {list(shape)} and has {info.file_size} bytes")
    if info.file_size > DEFLATE * (info.compress_size + 1):
        raise ValueError(f"{name} can't be packed into {info.compress_size} bytes")
    return shape


def _array(file: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    _header(file, name, path)
    with file.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
