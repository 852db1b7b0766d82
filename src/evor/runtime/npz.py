"""Reading npz files that anything may have happened to. Nothing is unpickled, and no more is read than is there."""

import math
import struct
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from evor.errors import EvorError, why
from evor.runtime.memory import free_memory, size_text

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# How numpy packs, and how many bytes one packed byte stands for at most: deflate spends two bits on 258 of them.
RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
LARGE = 2**26  # bytes of an array that is not read before the free memory is known
GAP = 24  # bytes between two entries, at most: the sizes of one that was written to a stream


class Npz:
    """The arrays of an open npz file by name, each read when it is asked for.

    Headers are compared with what is there before memory is taken: numpy believes them, whatever they say.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in the file's order."""
        return list(self._entries)

    @property
    def checksums(self) -> str:
        """Names, sizes and checksums of all arrays: two files of equal texts hold the same."""
        return "".join(f"{entry.filename} {entry.file_size} {entry.CRC}" for entry in self._archive.infolist())

    @property
    def bytes(self) -> int:
        """Size of all arrays in memory."""
        return sum(entry.file_size for entry in self._archive.infolist())

    def check_memory(self, size: int, share: float = 1.0) -> None:
        """Raise EvorError where so many bytes take more than a share of the free memory: packed, zeros take a thousandth."""
        if size > LARGE and size > share * (free := free_memory()):
            allowed = "" if share == 1 else f", of which {share:.0%} may be taken"
            raise EvorError(
                f"{self._path} holds {size_text(size)} of arrays, and {size_text(free)} of memory are free{allowed}; if you "
                "trust the file, read it on a machine with more."
            )

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, without reading it."""
        entry = self._entries[name]
        with self._archive.open(entry) as stream:
            shape, dtype = _read_header(stream)
            size = stream.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise EvorError(
                f"{self._path} holds pickled objects ({name}), which evor never opens; save plain numeric arrays."
            )
        if min(shape, default=0) < 0 or not dtype.itemsize or size != entry.file_size:
            raise ValueError(f"{name} has {entry.file_size} bytes, and its header tells of {size}")
        return shape, dtype

    def pieces(self, name: str, rows: int) -> Generator[np.ndarray]:
        """Read an array so many rows at a time, to its end, where its checksum is compared."""
        shape, dtype = self.header(name)
        with self._archive.open(self._entries[name]) as stream:
            version = np.lib.format.read_magic(stream)
            _, is_fortran, _ = HEADERS[version](stream)
            if is_fortran and len(shape) > 1:
                yield from (self[name][start : start + rows] for start in range(0, shape[0], rows))
                return
            width = math.prod(shape[1:]) * dtype.itemsize
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                packed = stream.read(count * width)
                yield np.frombuffer(packed, dtype).reshape(count, *shape[1:])
            stream.read(1)  # the end

    def __getitem__(self, name: str) -> np.ndarray:
        """Read an array to its end, where its checksum is compared."""
        self.header(name)
        self.check_memory(self._entries[name].file_size)
        with self._archive.open(self._entries[name]) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


@contextmanager
def open_npz(path: Path, remedy: str) -> Generator[Npz]:
    """Open an npz file to read arrays inside. Raises EvorError, also inside, where it is missing, damaged or pickled.

    `remedy` ends the sentence that says what is wrong.
    """
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise EvorError(f"{path} is not an npz file or is truncated; {remedy}")
            with zipfile.ZipFile(stream) as archive:
                _check_entries(archive, stream)
                yield Npz(path, archive)
    except (EvorError, MemoryError, PermissionError):  # too large, or another user's: no damage
        raise
    except FileNotFoundError as error:
        raise EvorError(f"{path} is missing; {remedy}") from error
    except Exception as error:  # damaged bytes make parsers raise anything: SyntaxError, NotImplementedError, ...
        raise EvorError(f"{path} is truncated or damaged ({why(error)}); {remedy}") from error


def _check_entries(archive: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Raise ValueError where entries are not as numpy writes them: arrays, one after the other, as large as can be."""
    position = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if not entry.filename.endswith(".npy"):
            raise ValueError(f"{entry.filename} is no array")
        if entry.compress_type not in RATIOS or entry.flag_bits & 1:  # the first bit: encrypted
            raise ValueError(f"{entry.filename} is packed in a way that numpy does not use")
        if entry.file_size > RATIOS[entry.compress_type] * entry.compress_size:
            raise ValueError(f"{entry.filename} is said to be larger than its part of the file can hold")
        if not 0 <= entry.header_offset - position <= GAP:
            raise ValueError(f"{entry.filename} does not follow the array before it")
        archive.open(entry).close()  # compares the two places that tell its name, also of an array that is not read
        stream.seek(entry.header_offset + 26)
        position = stream.tell() + 4 + sum(struct.unpack("<HH", stream.read(4))) + entry.compress_size
    if not position or not 0 <= archive.start_dir - position <= GAP:
        raise ValueError("some of its arrays are lost")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the npy format")
    shape, _, dtype = HEADERS[version](stream)
    return shape, dtype
