"""Answers to frames of anybody: what is no request is one sentence, and takes no memory."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import STATE, StandIn, lines, service_of

from evor.errors import EvorError
from evor.policies.base_policy import PythonPolicy
from evor.runtime import wire
from evor.serving.service import INTERNAL, Session

msgpack = pytest.importorskip("msgpack")
LIMIT = 2**16  # bytes of a request
OBSERVATION = STATE | {
    "images": {"top": np.zeros((16, 16, 3), np.uint8), "wrist": np.zeros((16, 16, 3), np.uint8)},
    "prompt": "pick up the cup",
    "evor/num_candidates": 4,
}
VALID = wire.pack(OBSERVATION)


def mutated(generator):
    """A valid frame with some bytes flipped, cut, doubled, moved or replaced; or bytes of nothing."""
    frame = bytearray(VALID)
    kind = generator.integers(6)
    if kind == 0:
        return generator.integers(0, 256, generator.integers(0, 200), np.uint8).tobytes()
    if kind == 1:
        return bytes(frame[: generator.integers(len(frame))])
    if kind == 2:  # in the part that says what comes
        frame[: generator.integers(1, 60)] = generator.integers(0, 256, 8, np.uint8).tobytes()
    start = generator.integers(len(frame))
    if kind == 3:
        frame[start:start] = frame[start : start + generator.integers(1, 200)]
    for place in generator.integers(0, 200 if kind == 4 else len(frame), generator.integers(1, 8)):
        frame[place] = generator.integers(256)
    return bytes(frame)


def answers_stay_sound(number, seed):
    """Send mutated frames, and a valid one after each hundred. Returns the peak of memory that they took."""
    stream, generator = io.StringIO(), np.random.default_rng(seed)
    decider = StandIn()
    service, session = service_of(decider, stream=stream, max_bytes=LIMIT), Session()
    sentences = 0
    tracemalloc.start()
    for index in range(number):
        reply = service.answer(mutated(generator), session)
        if isinstance(reply, str):
            sentences += 1
            assert reply != INTERNAL, lines(stream, "internal error")[0]["traceback"]
            assert "Traceback" not in reply
            assert len(reply) < 600
            assert reply.isprintable()
        else:
            assert wire.unpack(reply)["actions"].shape == (1, 2)
        if index % 100 == 0:
            assert wire.unpack(service.answer(VALID, session))["search"]["candidates"] == 4
        decider.seen.clear()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentences > number / 4
    return peak


def test_mutated_frames_are_answered_in_a_sentence():
    assert answers_stay_sound(300, seed=0) < 20 * LIMIT


@pytest.mark.slow
def test_many_mutated_frames_are_answered_in_a_sentence():
    assert answers_stay_sound(10_000, seed=1) < 40 * LIMIT  # of which a part is pytest's own


CONTENT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=16),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.binary(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["state", "evor/seed", "evor/num_candidates", "evor/budget_ms", "evor/reset", "evor/x", "prompt"]
)
ARRAYS = st.fixed_dictionaries(
    {
        b"__ndarray__": st.just(True),
        b"data": st.binary(max_size=16),
        b"dtype": st.sampled_from(["<f4", "|O", "<f8", "|V4", "<U2", ">i2", "", "f4"]),
        b"shape": st.lists(st.integers(-1, 4) | st.just(2**40), max_size=3),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(NAMES, CONTENT | ARRAYS, max_size=4), st.binary(max_size=64))
def test_requests_of_any_content_are_answered(content, noise):
    stream = io.StringIO()
    service, session = service_of(StandIn(), stream=stream), Session()
    try:
        frame = msgpack.packb(content)
    except OverflowError:
        frame = noise
    for one in (frame, noise):
        reply = service.answer(one, session)
        assert reply != INTERNAL, lines(stream, "internal error")[0]["traceback"]
    assert isinstance(service.answer(VALID, session), bytes)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x90" * LIMIT,
        b"\x91" * LIMIT,
        b"\xdc\xff\xff" + b"\x80" * (LIMIT - 3),
        msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "<f8", b"shape": [0, 2**60]}),
        msgpack.packb({b"__npgeneric__": True, b"data": 2 * 10**9, b"dtype": "|V8"}),
        b"\0" * (LIMIT + 1),
    ],
    ids=lambda frame: frame[:8].hex(),
)
def test_sizes_are_checked_before_anything_is_allocated(frame):
    service, session = service_of(StandIn(), max_bytes=LIMIT), Session()
    tracemalloc.start()
    reply = service.answer(frame, session)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(reply, str)
    assert peak < 20 * LIMIT


def test_a_policy_that_raises_anything_is_one_sentence_and_the_rest_is_in_the_log():
    errors = [ZeroDivisionError("here"), SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError("deep")]

    def fail(observation):
        raise errors[0]

    stream = io.StringIO()
    service = service_of(StandIn(answer=fail), stream=stream)
    while errors:
        assert service.answer(VALID, Session()) == INTERNAL
        assert type(errors.pop(0)).__name__ in lines(stream, "internal error")[-1]["traceback"]
    told = service_of(StandIn(answer=lambda observation: _raise(EvorError("it is too hot; wait."))))
    assert told.answer(VALID, Session()) == "it is too hot; wait."


def test_the_traceback_of_a_base_policy_is_in_the_log():
    def asked(observation):
        base = PythonPolicy(lambda observations, num, seed: observations["lost"], name="python:mine:propose")
        return base.sample({"state": np.zeros((1, 2))}, 1, seed=0)

    stream = io.StringIO()
    reply = service_of(StandIn(answer=asked), stream=stream).answer(VALID, Session())
    assert reply.startswith("the base policy python:mine:propose raised KeyError: it lacks 'lost' (test_service.py:")
    (line,) = lines(stream, "error")
    assert line["error"] == reply
    assert 'observations["lost"]' in line["traceback"]
    service_of(StandIn(answer=lambda observation: _raise(EvorError("wait."))), stream=stream).answer(VALID, Session())
    assert "traceback" not in lines(stream, "error")[-1]


def _raise(error):
    raise error


def test_what_a_client_sends_is_not_sent_back_at_length():
    stream = io.StringIO()
    request = {f"{index} {'x' * 1000}": 0 for index in range(50)}
    reply = service_of(StandIn(), stream=stream).answer(wire.pack(request), Session())
    assert reply.startswith("observation has no key 'state'")
    assert len(reply) == 600
    assert len(stream.getvalue()) < 1000


def test_decisions_of_a_connection_count_on_from_the_seed():
    service = service_of(StandIn(), seed=2**32 - 1)

    def seeds(session):
        return [wire.unpack(service.answer(VALID, session))["actions"][0, 1] for _ in range(2)]

    assert seeds(Session()) == [np.float32(2**32 - 1), 0]
    assert seeds(Session()) == [np.float32(2**32 - 1), 0]


def test_errors_beyond_some_a_second_are_only_counted():
    stream = io.StringIO()
    service = service_of(StandIn(), stream=stream)
    for _ in range(500):
        service.answer(b"\xc1", Session())
    assert 20 <= len(lines(stream, "error")) <= 200  # the clock may pass some seconds
    service.log.summarise(num_candidates=8)
    (summary,) = lines(stream, "latency")
    assert summary["errors"] == 500


def test_the_log_tells_percentiles():
    stream = io.StringIO()
    service = service_of(StandIn(), stream=stream)
    for milliseconds in range(1, 101):
        service.sent(Session(), float(milliseconds))
    service.log.summarise(num_candidates=8)
    (summary,) = lines(stream, "latency")
    assert summary["replies"] == 100
    assert [round(summary[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")] == [50, 90, 99, 100]
    service.log.summarise()
    assert len(lines(stream, "latency")) == 1  # nothing was asked since
