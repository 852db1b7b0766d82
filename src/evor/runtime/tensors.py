"""Safetensors files: opening one, and writing one from arrays where they lie, without a copy of them.

A written file is eight bytes with the length of the header, the header as JSON, and the arrays end to end, the widest types
first. Its bytes are those that the library safetensors writes. The library reports a full disk in words of its own; here
it is an OSError, as of every other file.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

# NumPy's names of types and those of the format. Arrays of a later type come first.
TYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
_ORDER = {name: -place for place, name in enumerate(TYPES)}


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], *, metadata: dict[str, str]) -> None:
    """Write arrays and texts into a safetensors file. Raises OSError where the system can't write."""
    names = sorted(arrays, key=lambda name: (_ORDER[arrays[name].dtype.name], name))
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(bytes_of(arrays[name]))


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array, row by row; a copy only where it lies otherwise."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextmanager
def open_tensors(path: Path) -> Generator[Any]:
    """Open a safetensors file. Raises PermissionError where it may not be read: the library says that it is not there."""
    with open(path, "rb"):
        pass
    with safe_open(path, framework="numpy") as file:
        yield file
