"""Columns of parquet and arrow files as numpy arrays, without extension types and without pickle."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.recording import FEATURES, check_file, check_size, pick, require
from evor.errors import EvorError, why

OLDEST = (14, 0, 1)  # of pyarrow: earlier ones unpickle what a file says (CVE-2023-47248)
ROWS = 2**16  # that are read at a time
BUFFER = 2**20  # bytes: columns are read in pieces, not as a whole
LEAST = 4  # bytes of a value in memory
MAGIC = b"ARROW1\0\0"


def pyarrow(module: str = "pyarrow") -> Any:
    """Import pyarrow, or a module of it. Raises EvorError where it is missing or not safe."""
    found = require(module)
    version = require("pyarrow").__version__
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < OLDEST:
        raise EvorError(
            f"pyarrow {version} runs code that a file holds; install {'.'.join(map(str, OLDEST))} or a later one."
        )
    return found


class Parquet:
    """An open parquet file."""

    def __init__(self, path: Path, *, max_gb: float):
        check_file(path)
        parquet = pyarrow("pyarrow.parquet")
        self.path, self._max_gb = path, max_gb
        try:
            self._file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)
            self.schema = self._file.schema_arrow
        except Exception as error:  # damaged bytes make parsers raise anything
            raise EvorError(
                f"{path} is no parquet file, or is cut or damaged ({why(error)}); copy it again."
            ) from error
        self.rows = int(self._file.metadata.num_rows)

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def size(self, names: Sequence[str]) -> int:
        """Size of some columns, unpacked, as the file says. Repeated values take less in it than in memory."""
        metadata, size = self._file.metadata, 0
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                if any(
                    f"{column.path_in_schema}.".startswith(f"{name}.") for name in names
                ):  # which may have dots, too
                    size += max(int(column.total_uncompressed_size), int(column.num_values) * LEAST, 0)
        return size

    def table(self, name: str) -> Any:
        """A whole column, as pyarrow has it. Raises EvorError."""
        pick(self.path, [name], there=self.names, what="column")
        check_size(self.path, self.size([name]), max_gb=self._max_gb)
        try:
            return self._file.read(columns=[name]).column(name).combine_chunks()
        except Exception as error:
            raise EvorError(f"{self.path} is cut or damaged ({why(error)}); copy it again.") from error

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """All rows of some columns, a piece at a time."""
        names = list(pick(self.path, names, there=self.names, what="column"))
        check_size(self.path, self.size(names), max_gb=self._max_gb)
        for name in names:
            check_type(self.schema.field(name).type, f"{self.path}: {name}")
        try:
            for batch in self._file.iter_batches(ROWS, columns=names):
                if len(batch):
                    yield {name: numbers(batch.column(name), f"{self.path}: {name}") for name in names}
        except EvorError:
            raise
        except Exception as error:
            raise EvorError(f"{self.path} is cut or damaged ({why(error)}); copy it again.") from error

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """All rows of some columns."""
        pieces = list(self.pieces(names))
        if not pieces:
            return {name: np.zeros(0) for name in names}
        try:
            return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        except ValueError as error:
            raise EvorError(
                f"{self.path} holds lists of different lengths ({why(error)}); rows of one length are needed."
            ) from error


class Arrow:
    """An open file of arrow's own format: its columns stay on disk until they are looked at."""

    def __init__(self, path: Path, *, max_gb: float):
        check_file(path)
        check_size(path, path.stat().st_size, max_gb=max_gb)
        self.path = path
        try:
            _check_uncompressed(path)
            with _stream(path) as stream:  # in its order: the index at its end could name other batches
                self._table = pyarrow("pyarrow.ipc").open_stream(stream).read_all()
        except EvorError:
            raise
        except Exception as error:
            raise EvorError(f"{path} is no arrow file, or is cut or damaged ({why(error)}); copy it again.") from error
        self.schema, self.rows = self._table.schema, self._table.num_rows

    def table(self, name: str) -> Any:
        """A whole column, as pyarrow has it. Raises EvorError."""
        pick(self.path, [name], there=self.schema.names, what="column")
        try:
            column = self._table.column(name).combine_chunks()
            column.validate(full=True)
        except Exception as error:
            raise EvorError(f"{self.path} is cut or damaged ({why(error)}); copy it again.") from error
        return column


def _stream(path: Path) -> Any:
    """The messages of an arrow file."""
    stream = pyarrow().memory_map(str(path))
    if stream.read(len(MAGIC)) != MAGIC:
        raise EvorError(f"{path} is no arrow file; copy it again.")
    return stream


def _check_uncompressed(path: Path) -> None:
    """Raise EvorError where an arrow file is compressed: nothing says how much a batch unpacks to before it is unpacked."""
    with _stream(path) as stream:
        for message in pyarrow("pyarrow.ipc").MessageReader.open_stream(stream):
            is_plain = message.type == "record batch" and not _is_compressed(message.metadata.to_pybytes())
            if message.type != "schema" and not is_plain:
                raise EvorError(
                    f"{path} is compressed arrow, which evor does not unpack; write it without compression and "
                    "dictionaries, or as parquet."
                )


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message's record batch names a compression: the fourth field of its flatbuffer (Message.fbs)."""

    def field(table: int, number: int) -> int:
        """Position of a field of a table, 0 where it is left out."""
        (back,) = struct.unpack_from("<i", metadata, table)
        size, entry = *struct.unpack_from("<H", metadata, table - back), 4 + 2 * number
        (offset,) = struct.unpack_from("<H", metadata, table - back + entry) if entry < size else (0,)
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + struct.unpack_from("<I", metadata, place)[0]

    header = field(follow(0), 2)
    return bool(header) and bool(field(follow(header), 3))


def check_type(kind: Any, place: str) -> None:
    """Raise EvorError where a column's type is no number and no list of numbers of one length."""
    pa = pyarrow()
    if isinstance(kind, pa.BaseExtensionType):
        raise EvorError(f"{place} has the extension type {kind}, which evor does not open; store it as plain numbers.")
    inner = _inner(kind)
    if pa.types.is_struct(kind) or pa.types.is_binary(kind) or _inner(inner) is not inner:
        raise EvorError(f"{place} has type {kind}: {FEATURES}.")
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)):
        raise EvorError(f"{place} has type {kind}, not real numbers; convert it, or leave it out.")


def _inner(kind: Any) -> Any:
    """The type of a list's values; another type itself."""
    types = pyarrow().types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return kind.value_type if is_list else kind


def numbers(column: Any, place: str) -> np.ndarray:
    """A column as an array [T] or [T, width]. Raises EvorError where a value is missing or lists differ in length."""
    pa = pyarrow()
    check_type(column.type, place)
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise EvorError(f"{place} has no value at row {row} of its piece; repair or remove that episode.")
    if _inner(column.type) is column.type:
        return np.asarray(column)
    if not pa.types.is_fixed_size_list(column.type):
        widths = np.diff(np.asarray(column.offsets))
        if len(widths) and (widths != widths[0]).any():
            raise EvorError(
                f"{place} holds lists of {widths.min()} to {widths.max()} numbers; rows of one length are needed."
            )
    flat = column.flatten()
    if flat.null_count:
        raise EvorError(f"{place} has missing values; repair or remove those episodes.")
    return np.asarray(flat).reshape(len(column), -1)
