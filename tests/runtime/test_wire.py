"""The wire format: what is sent is what arrives, and what no honest sender sends is refused."""

import numpy as np
import pytest

from evor.errors import EvorError
from evor.runtime import wire

msgpack = pytest.importorskip("msgpack")


@pytest.mark.parametrize("kind", wire.KINDS)
def test_arrays_arrive_as_they_were_sent(kind):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    for given in (array, array.T, array[:, ::2], array[:0], array[0, 0, 0], array.astype(f">{kind}")):
        (arrived,) = wire.unpack(wire.pack([given]))
        np.testing.assert_array_equal(arrived, given)
        assert np.shape(arrived) == np.shape(given)


def test_everything_else_arrives_too():
    sent = {
        "prompt": np.str_("pick it up"),
        "images": {"top": np.zeros((2, 2, 3), np.uint8)},
        "list": [1, 0.5, None, "a"],
    }
    arrived = wire.unpack(wire.pack(sent | {"number": np.float32(0.5), "flag": np.bool_(True)}))
    assert arrived["prompt"] == "pick it up"
    assert arrived["list"] == sent["list"]
    assert (arrived["number"], arrived["flag"]) == (0.5, True)
    assert arrived["images"]["top"].dtype == np.uint8


def frame(**fields):
    array = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"x": array | {name.encode(): value for name, value in fields.items()}})


@pytest.mark.parametrize(
    "bad",
    [
        frame(dtype="|O", shape=[1]),
        frame(dtype="|V8", shape=[1]),
        frame(dtype="|S0", shape=[10**15], data=b""),
        frame(dtype="<U2", shape=[1]),
        frame(dtype="<f4", shape=[-2]),
        frame(shape=[3]),
        frame(shape=[2.0]),
        frame(shape=[True, 2]),
        frame(shape=[1] * 9 + [2]),
        frame(shape=2),
        frame(data="text"),
        frame(dtype=["<f4"]),
        msgpack.packb({b"__ndarray__": True}),
        msgpack.packb({b"__npgeneric__": True, b"data": b"\0" * 8, b"dtype": "|V8"}),
        msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}),
        msgpack.packb(msgpack.ExtType(4, b"abc")),
        msgpack.packb("a" * (wire.MAX_TEXT + 1)),
        msgpack.packb([0] * (wire.MAX_LENGTH + 1)),
        msgpack.packb([[{} for _ in range(1000)] for _ in range(10)]),
        b"\x91" * 5000 + b"\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xffabc",
        b"\xd9\x02\xff\xfe",
        b"",
        b"\x01\x02",
    ],
    ids=lambda bad: bad[:24].hex(),
)
def test_what_is_not_plain_is_refused(bad):
    with pytest.raises(EvorError, match="a message is not in openpi's format"):
        wire.unpack(bad)


def test_a_frame_that_is_too_large_is_refused():
    with pytest.raises(EvorError, match="a message has 101 bytes; 100 are accepted"):
        wire.unpack(b"\0" * 101, max_bytes=100)


@pytest.mark.parametrize("bad", [object(), np.array([object()]), np.zeros(2, np.complex64), {1j: 2}, 2**70])
def test_what_has_no_place_is_not_sent(bad):
    with pytest.raises(EvorError, match="a message can't be packed"):
        wire.pack({"x": bad})
