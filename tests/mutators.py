"""Ways to damage a file: bytes as a broken disk or a cut download leaves them, texts and JSON as a person could write them.

Every function takes the content and a generator of random numbers, and gives the content after one accident.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

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
