"""Arguments of callers, converted to plain numbers and arrays; or an EvorError that names them."""

import contextlib
import math
import numbers
import operator
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt32

from evor.errors import EvorError, at_least, why
from evor.runtime.files import expand

SHOWN = 60  # characters of a value in a message
LARGEST = float(np.finfo(np.float32).max)


def count(minimum: int, **value: Any) -> int:
    """A whole number of any type as an int: `count(1, num_nodes=num_nodes)`."""
    ((name, given),) = value.items()
    try:
        number = int(operator.index(given))
    except TypeError:
        raise EvorError(
            f"{name} is {shown(given)}, a {type(given).__name__}; it must be at least {minimum}, a whole number."
        ) from None
    if number < minimum:
        raise EvorError(f"{name} is {number}; it must be at least {minimum}, a whole number.")
    if number >= 2**31:
        raise EvorError(f"{name} is {shown(number)}; it must be below 2^31.")
    return number


def real(**value: Any) -> float:
    """A real number of any type, or an array that holds one, as a float: `real(memory_gb=memory_gb)`.

    What a float32 can't hold is infinity, as it would be in a computation.
    """
    ((name, given),) = value.items()
    scalar = _asarray(given)
    with contextlib.suppress(OverflowError):
        if scalar is not None and scalar.ndim == 0 and (isinstance(given, numbers.Real) or _is_real(scalar.dtype)):
            # A float32 has few digits: 0.1 stays 0.1 in names and tables, and becomes the same float32 again.
            number = float(str(scalar[()])) if scalar.dtype == np.float32 else float(given)
            return math.copysign(math.inf, number) if abs(number) > LARGEST else number
    raise EvorError(f"{name} is {shown(given)}; it must be a number.")


def temperature(**value: Any) -> float:
    """A number from 0 to infinity."""
    ((name, given),) = value.items()
    number = real(**{name: given})
    at_least(0, **{name: number})
    return number


def array(**value: Any) -> Float[np.ndarray, "..."]:
    """Real numbers as a float32 array. Raises EvorError also where one is not finite, or too large for a float32."""
    ((name, given),) = value.items()
    short = numbers_of(**value)
    if not np.isfinite(short).all():
        first = np.asarray(given)[~np.isfinite(short)][0]
        raise EvorError(f"{name} holds {first}; only numbers that are finite in float32 are allowed.")
    return short


def numbers_of(**value: Any) -> Float[np.ndarray, "..."]:
    """Real numbers as a float32 array, finite or not. Raises EvorError."""
    ((name, given),) = value.items()
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise EvorError(f"{name} has masked entries; fill them first (numpy.ma.filled).")
    try:
        full = np.asarray(given)
    except Exception as error:  # whatever an array type of another library raises
        raise EvorError(f"{name} is not an array of numbers ({shown(error, str)}).") from error
    if full.dtype == np.float32:
        return full
    if not _is_real(full.dtype):
        raise EvorError(f"{name} is not an array of numbers (its type is {full.dtype}).")
    with np.errstate(over="ignore"):
        return full.astype(np.float32)


def seeds(given: Any, rows: int) -> UInt32[np.ndarray, " B"]:
    """Seeds of any size and integer type, modulo 2^32: a seed for every row, from one or from one per row."""
    if type(given) is int and given >= 0:
        return np.full(rows, given % 2**32, np.uint32)
    full = _asarray(given)
    is_integral = full is not None and (
        full.dtype.kind in "iu"
        or (full.dtype == object and all(isinstance(seed, numbers.Integral) for seed in full.flat))  # 2^64 and more
    )
    if full is None or not is_integral or full.shape not in ((), (rows,)) or (full < 0).any():
        raise EvorError(f"seed is {shown(given)}; give a non-negative int, or one per row.")
    # In two's complement the low bits are the remainder.
    low = full.astype(np.uint32) if full.dtype != object else (full % 2**32).astype(np.uint32)
    return np.array(np.broadcast_to(low, rows))


def folder(given: Any) -> Path:
    """A path, with `~` as the home folder."""
    if not isinstance(given, str | os.PathLike) or not str(given).strip() or "\0" in str(given):
        raise EvorError(f"the path is {shown(given)}; give a str or a Path.")
    path = expand(Path(given))
    try:
        path.exists()
    except OSError as error:  # a name that is too long, a folder above it that is closed to the user
        raise EvorError(
            f"the path {shown(path, str)} can't be opened ({why(error)}); check it and its folders."
        ) from error
    return path


def shown(given: Any, text: Any = repr) -> str:
    """A value in one short line of a message."""
    line = " ".join(text(given).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


def _asarray(given: Any) -> np.ndarray | None:
    try:
        return np.asarray(given)
    except Exception:  # whatever an array type of another library raises
        return None


def _is_real(dtype: np.dtype) -> bool:
    return dtype.kind in "biuf" or dtype.name == "bfloat16"
