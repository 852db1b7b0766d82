"""The wire format of openpi's policy servers: dicts of arrays, numbers and texts as msgpack frames.

An array is {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [...]}, a number of numpy
{b"__npgeneric__": True, b"data": ..., b"dtype": ...}. The decoder trusts nothing: no type but plain numbers, no size that
the bytes do not have, and few containers. It is used by the client and by the server.
"""

import math
from importlib import import_module
from typing import Any

import numpy as np

from evor.errors import EvorError, why

MAX_BYTES = 16 * 2**20  # of a frame: three cameras of 640 x 480 take 2.8 MB
MAX_LENGTH = 4096  # of a list or a dict
MAX_CONTAINERS = 4096  # lists and dicts in a frame: an empty one is one byte there, and 64 in memory
MAX_TEXT = 65536
MAX_AXES = 8
KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def msgpack() -> Any:
    """The library of that name. Raises EvorError where it is not installed."""
    try:
        return import_module("msgpack")
    except ImportError as error:
        raise EvorError(
            "policy servers need msgpack and websockets; install them: pip install 'evor[serve]'."
        ) from error


def pack(content: Any) -> bytes:
    """A frame. Raises EvorError on what the format does not hold, such as objects and complex numbers."""
    try:
        return msgpack().packb(content, default=_encode)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EvorError(
            f"a message can't be packed ({why(error)}); it may hold arrays, numbers, texts, lists and dicts."
        ) from error


def unpack(frame: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """The content of a frame; arrays are read-only.

    Raises EvorError on a frame that is too large, cut, or holds anything but plain numbers, texts, lists and dicts.
    """
    if len(frame) > max_bytes:
        raise EvorError(f"a message has {len(frame):,} bytes; {max_bytes:,} are accepted, send smaller images.")
    left = MAX_CONTAINERS

    def counted() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_CONTAINERS} lists and dicts")

    def of_list(items: list) -> list:
        counted()
        return items

    def of_dict(items: dict) -> Any:
        counted()
        return _decode(items)

    try:
        return msgpack().unpackb(
            frame,
            object_hook=of_dict,
            list_hook=of_list,
            max_array_len=MAX_LENGTH,
            max_map_len=MAX_LENGTH,
            max_str_len=MAX_TEXT,
            max_bin_len=max_bytes,
            max_ext_len=0,
        )
    except EvorError:
        raise
    except Exception as error:  # whatever damaged bytes make a parser raise
        raise EvorError(f"a message is not in openpi's format ({why(error)}); look at what sends it.") from error


def _encode(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a {type(value).__name__} has no place in it")
    if value.dtype.str[1:] not in KINDS:
        raise TypeError(f"the type {value.dtype} has no place in it")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {
        b"__ndarray__": True,
        b"data": np.ascontiguousarray(value).tobytes(),
        b"dtype": value.dtype.str,
        b"shape": list(value.shape),
    }


def _decode(items: dict) -> Any:
    if b"__ndarray__" in items:
        return _array(items.get(b"dtype"), items.get(b"shape"), data=items.get(b"data"))
    if b"__npgeneric__" in items:
        value = items.get(b"data")
        if not isinstance(value, bool | int | float | str):  # a text: a prompt that was a numpy text
            raise ValueError("a number of numpy that is no number")
        return value
    return items


def _array(dtype: Any, shape: Any, *, data: Any) -> np.ndarray:
    if not isinstance(dtype, str) or dtype[:1] not in "<>|=" or dtype[1:] not in KINDS:
        raise ValueError("an array of a type that is no plain number")
    is_shape = isinstance(shape, list) and len(shape) <= MAX_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not is_shape or not isinstance(data, bytes):
        raise ValueError("a malformed array")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise ValueError("an array whose shape and bytes disagree")
    return np.frombuffer(data, dtype).reshape(shape)
