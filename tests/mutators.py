"""Ways to damage a file: bytes as a broken disk or a cut download leaves them, and what only a person or a program could write.

Every function takes the content and a generator of random numbers, and gives the content after one accident.
"""

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Mutator = Callable[[bytes, random.Random], bytes]


# Bytes.


def flip_bits(content: bytes, g: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(g.choice([1, 1, 1, 2, 8, 64])):
        found[g.randrange(len(found))] ^= 1 << g.randrange(8)
    return bytes(found)


def cut(content: bytes, g: random.Random) -> bytes:
    return content[: g.randrange(len(content))]


def insert(content: bytes, g: random.Random) -> bytes:
    place = g.randrange(len(content) + 1)
    return content[:place] + g.randbytes(g.choice([1, 2, 7, 100, 5000])) + content[place:]


def remove(content: bytes, g: random.Random) -> bytes:
    start, end = _block(content, g)
    return content[:start] + content[end:]


def zero(content: bytes, g: random.Random) -> bytes:
    start, end = _block(content, g)
    return content[:start] + bytes(end - start) + content[end:]


def repeat(content: bytes, g: random.Random) -> bytes:
    start, end = _block(content, g)
    return content[:end] + content[start:end] * g.choice([1, 1, 3, 50]) + content[end:]


def swap(content: bytes, g: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_block(content, g), _block(content, g)))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:] if b <= c else content[::-1]


def replace_by_noise(content: bytes, g: random.Random) -> bytes:
    return g.choice([b"", b"\0" * 100, g.randbytes(300), b"hello", b"{}", content + content, b"PK\5\6" + bytes(18)])


def set_number(content: bytes, g: random.Random) -> bytes:
    """Two, four or eight bytes become a number at the edge of its type: sizes, counts and offsets are such."""
    form = g.choice(["<H", "<I", "<Q"])
    limit = 2 ** (8 * struct.calcsize(form))
    number = g.choice([0, 1, 2, limit - 1, limit // 2, limit // 2 - 1, g.randrange(limit)])
    place = g.randrange(max(1, len(content) - 8))
    return content[:place] + struct.pack(form, number) + content[place + struct.calcsize(form) :]


def _block(content: bytes, g: random.Random) -> tuple[int, int]:
    start = g.randrange(len(content))
    return start, min(len(content), start + g.choice([1, 4, 16, 64, 512, 4096]))


BYTES: list[Mutator] = [
    *(flip_bits, cut, insert, remove, zero, repeat, swap, replace_by_noise, set_number),
    *(flip_bits, flip_bits, set_number),  # the likeliest to pass a first look
]


# Text.


def another_encoding(content: bytes, g: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return g.choice([b"\xef\xbb\xbf" + content, text.encode("utf-16"), text.encode("utf-32"), content + b"\xe9\xff"])


def other_line_ends(content: bytes, g: random.Random) -> bytes:
    return content.replace(b"\n", g.choice([b"\r\n", b"\r", b"\n\n", b"\x0b", b"", "\u2028".encode()]))


def odd_character(content: bytes, g: random.Random) -> bytes:
    place = g.randrange(len(content) + 1)
    odd = g.choice(
        [b"\0", b'"', b'""', b",", b";", b"\n", b"\r", b"\t", b"'", b"\\", b"\x1b[31m", "é\U0001f600".encode(), b"="]
    )
    return content[:place] + odd + content[place:]


def other_number(content: bytes, g: random.Random) -> bytes:
    """One number of the text becomes another one, or none."""
    places = [i for i, c in enumerate(content) if chr(c).isdigit()]
    if not places:
        return content + b"1"
    place = end = g.choice(places)
    while end < len(content) and chr(content[end]) in "0123456789.e-+":
        end += 1
    return content[:place] + g.choice(ODD_NUMBERS) + content[end:]


ODD_NUMBERS = [
    *(b"0", b"-1", b"1.5", b"1e400", b"-1e400", b"NaN", b"nan", b"inf", b"Infinity", b"1e-400", b"2147483648", b""),
    *(b"9223372036854775808", b"1" * 5000, b"x", b"1_000", b"0x10", b"1,5", "\u0661".encode(), b"1e9", b"--1", b"true"),
]

TEXT: list[Mutator] = [another_encoding, other_line_ends, odd_character, other_number, other_number]


# JSON.


def another_value(content: bytes, g: random.Random) -> bytes:
    """A value somewhere inside becomes one of another type or size."""
    whole = json.loads(content)
    holder, key = _place(whole, g)
    holder[key] = g.choice(ODD_VALUES)
    return json.dumps(whole).encode()


def without_a_key(content: bytes, g: random.Random) -> bytes:
    whole = json.loads(content)
    holder, key = _place(whole, g)
    del holder[key]
    return json.dumps(whole).encode()


def another_key(content: bytes, g: random.Random) -> bytes:
    whole = json.loads(content)
    holder, key = _place(whole, g)
    name = g.choice(["type", "extra", "seed", "", "a\nb", "\ud800"])
    if isinstance(holder, dict):
        holder[name] = holder.pop(key)
    else:
        holder.insert(0, name)
    return json.dumps(whole).encode()


def swapped_values(content: bytes, g: random.Random) -> bytes:
    whole = json.loads(content)
    (one, a), (other, b) = _place(whole, g), _place(whole, g)
    with_both = json.dumps([one[a], other[b]])
    one[a], other[b] = reversed(json.loads(with_both))
    return json.dumps(whole).encode()


def nested_deeply(content: bytes, g: random.Random) -> bytes:
    depth = g.choice([10, 900, 2000, 200_000])
    return content.replace(b":", b":" + b"[" * depth, 1) if g.random() < 0.5 else b'{"a":' * depth + b"1" + b"}" * depth


ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 1.5, 2**31, 2**63, 10**30, 10**400, float("inf"), float("nan"), 1e300),
    *("", "x", "1", "false", "a\nb", "\ud800", "x" * 5_000, [], [1], [[]], ["x"], [2**40] * 3, [1] * 50),
    *({}, {"type": "Evor"}, {"type": []}, {"a": {"b": 1}}),
]


def _place(whole: Any, g: random.Random) -> tuple[Any, Any]:
    """A random place inside, at any depth: what holds it, and its key."""
    places = list(_places(whole))
    return g.choice(places) if places else ({"a": 1}, "a")


def _places(part: Any) -> Any:
    keys = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        yield part, key
        yield from _places(part[key])


JSON: list[Mutator] = [
    another_value,
    another_value,
    another_value,
    without_a_key,
    another_key,
    swapped_values,
    nested_deeply,
]


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
