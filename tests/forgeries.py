"""npz and safetensors files that only a program could write: their checksums or lengths are right, and what they say is not."""

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from mutators import BYTES, Mutator, another_key, another_value, swapped_values, without_a_key

# npz files whose checksums are right.


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.marker,)


def repacked(content: bytes, g: random.Random, change: Callable[[dict[str, bytes]], Any], **options: Any) -> bytes:
    """The archive with its members changed, packed anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", options.get("compression", g.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    ) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def damaged_member(content: bytes, g: random.Random) -> bytes:
    def change(members: dict[str, bytes]) -> None:
        name = g.choice(list(members))
        members[name] = g.choice(BYTES)(members[name], g)

    return repacked(content, g, change)


def another_header(content: bytes, g: random.Random) -> bytes:
    """An array whose header tells of another shape, type or format than its bytes have."""

    def change(members: dict[str, bytes]) -> None:
        name = g.choice(list(members))
        start = 10 + int.from_bytes(members[name][8:10], "little")
        members[name] = _header(g) + members[name][start:]

    return repacked(content, g, change)


def _header(g: random.Random) -> bytes:
    shape = g.choice(["()", "(60,)", "(60, 3)", "(59, 3)", "(-1,)", "(10**9,)", "(1000000000, 1000)", "(0, 1000000000000)",
                      "(2**62,)", "(True, 3)", "[60, 3]", "None", "(60L,)", "(6e1,)", "((((", "(" * 200])  # fmt: skip
    kind = g.choice(["<f4", "<f8", ">f4", "|b1", "|u1", "<i8", "|O", "<U1", "<c8", "|V0", "<U0", "<f2", "<M8[s]", "<m8", "[('a', '<f4')]",
                     "<f16", "|S1000000000", "<U536870911", "('<f4', (1000000000,))", "object", "\\d", "é", ""])  # fmt: skip
    kind = kind if kind[:1] in "[(" else repr(kind)
    text = f"{{'descr': {kind}, 'fortran_order': {g.choice(['False', 'True', '0', 'x'])}, 'shape': {shape}, {g.choice(['', '', 'x', '[]: 1'])}}}"
    text = g.choice(
        [
            text,
            text,
            text,
            text,
            text.replace("'", '"'),
            "\0" * 10,
            "  " * 20_000,
            "__import__('os').getcwd()",
            "1 + ",
            "'''",
            "\t\t x",
        ]
    )
    version = g.choice([(1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
    raw = text.encode("utf-8") + b"\n"
    length = g.choice([len(raw), len(raw), len(raw), len(raw) // 2, 2**16 - 1])
    return b"\x93NUMPY" + bytes(version) + length.to_bytes(2 if version == (1, 0) else 4, "little") + raw


def pickled(marker: str) -> Mutator:
    """An array of Python objects, which `numpy.load` would unpickle if it were allowed to."""

    def mutate(content: bytes, g: random.Random) -> bytes:
        held = io.BytesIO()
        np.save(held, np.array([Bomb(marker)] * g.choice([1, 60]), object), allow_pickle=True)

        def change(members: dict[str, bytes]) -> None:
            bytes_ = held.getvalue()
            members[g.choice(list(members))] = g.choice([bytes_, bytes_[bytes_.index(b"\n") + 1 :]])

        return repacked(content, g, change)

    return mutate


def bomb(content: bytes, g: random.Random) -> bytes:
    """A member that inflates a thousandfold."""

    def change(members: dict[str, bytes]) -> None:
        held, size = io.BytesIO(), g.choice([10**5, 10**6, 10**7])
        np.lib.format.write_array_header_1_0(
            held, {"descr": "<f4", "fortran_order": False, "shape": (g.choice([size // 4, 10**12]),)}
        )
        members[g.choice([*members, "more.npy"])] = held.getvalue() + bytes(size)

    return repacked(content, g, change, compression=zipfile.ZIP_DEFLATED)


def other_packing(content: bytes, g: random.Random) -> bytes:
    return repacked(content, g, lambda members: None, compression=g.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


def false_directory(content: bytes, g: random.Random) -> bytes:
    """A field of the directory, or of the header before a member, that is not true: sizes, offsets, flags, methods."""
    signature, fields = g.choice([
        (b"PK\1\2", {6: 2, 8: 2, 10: 2, 16: 4, 20: 4, 24: 4, 28: 2, 30: 2, 32: 2, 42: 4}),
        (b"PK\3\4", {4: 2, 6: 2, 8: 2, 18: 4, 22: 4, 26: 2, 28: 2}),
        (b"PK\5\6", {4: 2, 8: 2, 10: 2, 12: 4, 16: 4, 20: 2}),
    ])  # fmt: skip
    found = bytearray(content)
    for _ in range(g.choice([1, 1, 2, 3])):
        starts = [i for i in range(len(content) - 3) if content[i : i + 4] == signature]
        offset, width = g.choice(list(fields.items()))
        limit = 2 ** (8 * width)
        number = g.choice(
            [0, 1, 8, 12, 14, 20, 45, 99, 10**6, 2**30, limit - 1, limit - 2, limit // 2, g.randrange(limit)]
        )
        place = g.choice(starts) + offset
        found[place : place + width] = (number % limit).to_bytes(width, "little")
    return bytes(found)


def members_that_overlap(content: bytes, g: random.Random) -> bytes:
    """Many entries that share the same packed bytes, as a bomb of a few kilobytes has them."""
    packed = bytearray(
        repacked(content, g, lambda members: members.update(more=bytes(10**6)), compression=zipfile.ZIP_DEFLATED)
    )
    start = packed.rindex(b"PK\5\6")
    directory = int.from_bytes(packed[start + 16 : start + 20], "little")
    last = packed.rindex(b"PK\1\2", 0, start)
    copies = g.choice([1, 10, 1000])
    entries = bytes(packed[directory:start]) + b"".join(
        bytes(packed[last:start]).replace(b"more", f"m{i:03d}"[:4].encode()) for i in range(copies)
    )
    end = bytearray(packed[start:])
    end[8:10] = end[10:12] = (int.from_bytes(end[8:10], "little") + copies).to_bytes(2, "little")
    end[12:16] = len(entries).to_bytes(4, "little")
    return bytes(packed[:directory]) + entries + bytes(end)


def missing_or_more(content: bytes, g: random.Random) -> bytes:
    def change(members: dict[str, bytes]) -> None:
        name = g.choice(list(members))
        new = g.choice(
            ["observation.npy", "a\nb.npy", "../x.npy", "/etc/x.npy", ".npy", "x", "é.npy", "next_observations.npy"]
        )
        if g.random() < 0.5:
            members[new] = members.pop(name)
        else:
            members[new] = members[name]

    return repacked(content, g, change)


NPZ: list[Mutator] = [
    *(damaged_member, another_header, another_header, bomb, other_packing, false_directory, false_directory),
    *(members_that_overlap, missing_or_more),
]


# safetensors files.


def false_tensors(content: bytes, g: random.Random) -> bytes:
    """Offsets, shapes, types or names that are not true, in a header of the right length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = g.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    change = g.randrange(7)
    if change == 0:
        entry["data_offsets"][g.randrange(2)] = g.choice([0, 1, 2**31, 2**63, 2**64 - 1, -1, 10**30, 1.5])
    elif change == 1:
        entry["shape"] = g.choice(
            [[], [0], [2**62], [2**32, 2**32], [-1], [1, 1, 1], entry["shape"][::-1], "x", [2**70]]
        )
    elif change == 2:
        entry["dtype"] = g.choice(
            ["F64", "F16", "BF16", "I32", "U32", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "C64", "x", 1]
        )
    elif change == 3:
        header[g.choice(["x", "", "__metadata__", "a\nb"])] = header.pop(name)
    elif change == 4:
        header["__metadata__"] = g.choice(
            [{}, None, {"evor": 1}, {"evor": "{}"}, {"evor": "[" * 10**5}, {"evor": "[]"}, {"evor": "1e999"}]
        )
    elif change == 5:
        stored = json.loads(header["__metadata__"]["evor"])
        mutated = g.choice([another_value, without_a_key, another_key, swapped_values])(json.dumps(stored).encode(), g)
        header["__metadata__"]["evor"] = mutated.decode("utf-8", "replace")
    else:
        del header[name]
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + content[8 + length :]


def false_length(content: bytes, g: random.Random) -> bytes:
    """A header that is said to be longer or shorter than it is."""
    number = g.choice([0, 1, 8, 100, 10**6, 10**8 - 1, 10**8 + 1, 2**40, 2**63, 2**64 - 1])
    return number.to_bytes(8, "little") + content[8:]


SAFETENSORS: list[Mutator] = [false_tensors, false_tensors, false_length]
