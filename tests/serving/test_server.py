"""The server's sockets: openpi's protocol, who is let in, and what a client may do wrong."""

import io
import socket
import threading
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from stand_in import STATE, Served, StandIn, lines, service_of, serving

import evor
from evor.errors import EvorError
from evor.runtime.wire import pack, unpack
from evor.serving.pace import Timing
from evor.serving.server import Limits, bind
from evor.serving.service import INTERNAL

connect = pytest.importorskip("websockets.sync.client").connect
wrong = pytest.importorskip("websockets.exceptions")


@contextmanager
def connected(uri, **options):
    """A connection of the plain library, past the metadata."""
    with connect(uri, compression=None, proxy=None, **options) as connection:
        connection.metadata = unpack(connection.recv(timeout=10))
        yield connection


def asked(connection, content=STATE):
    connection.send(content if isinstance(content, bytes | str) else pack(content))
    reply = connection.recv(timeout=10)
    return reply if isinstance(reply, str) else unpack(reply)


def test_metadata_come_first_and_replies_hold_actions_timing_and_the_search():
    with serving(service_of(StandIn(horizon=3))) as uri, connected(uri) as connection:
        assert connection.metadata == {
            "server": "evor",
            "version": evor.__version__,
            "observation_keys": ["state"],
            "action_dim": 2,
            "horizon": 3,
            "num_candidates": 8,
        }
        first, second = asked(connection), asked(connection)
    assert first["actions"].shape == (3, 2)
    assert first["actions"].dtype == np.float32
    assert [reply["actions"][0].tolist() for reply in (first, second)] == [[8, 0], [8, 1]]  # a seed per decision
    assert list(first["server_timing"]) == ["infer_ms"]
    assert list(second["server_timing"]) == ["infer_ms", "prev_total_ms"]
    assert first["search"] == {"candidates": 8, "value": -2.5, "quantiles": [-4.0, -3.0, -2.0, -1.0, 0.0]}


def test_an_error_is_a_sentence_and_the_connection_stays():
    def fail(observation):
        raise ZeroDivisionError("secret place")

    stream = io.StringIO()
    for answer, content, sentence in (
        (None, "hello", "a text came, and requests are binary frames of msgpack; send them as openpi's client does."),
        (None, b"\xc1", "a message is not in openpi's format"),
        (None, pack([1]), "a request is [1]; send a dict of observations by their keys."),
        (None, {"image": 1}, "observation has no key 'state' (it has image)"),
        (None, {"state": np.zeros(3)}, "observation['state'] has shape [3]; [2] or [B, 2] is needed"),
        (None, {"state": np.zeros((1, 2))}, "observation['state'] has shape [1, 2]; [2] is needed: one observation."),
        (None, {"state": np.array([0, np.nan])}, "observation['state'] holds nan; only numbers that are finite"),
        (None, STATE | {"evor/speed": 1}, "the key 'evor/speed' is unknown; this server knows evor/num_candidates"),
        (None, STATE | {"evor/num_candidates": 0}, "evor/num_candidates is 0; it must be at least 1"),
        (fail, STATE, INTERNAL),
    ):
        decider = StandIn(answer=answer)
        with serving(service_of(decider, stream=stream)) as uri, connected(uri) as connection:
            reply = asked(connection, content)
            assert isinstance(reply, str)
            assert reply.startswith(sentence)
            assert "\n" not in reply
            decider._answer = None
            assert asked(connection)["actions"].shape == (1, 2)
    (logged,) = lines(stream, "internal error")
    assert "secret place" in logged["traceback"]
    assert len(lines(stream, "error")) == 9


def test_keys_that_the_policy_does_not_know_are_left_alone():
    with serving(service_of(StandIn())) as uri, connected(uri) as connection:
        request = STATE | {"prompt": "pick", "image": np.zeros((2, 2, 3), np.uint8)}
        assert asked(connection, request)["actions"].shape == (1, 2)


def test_a_client_may_lower_the_search_and_never_raise_it():
    # Replies count, too: no reply that comes in time is as long as what the table says of its size.
    timings = [Timing(size, 0.0, 1e5 * size, 2e5 * size) for size in StandIn.sizes]
    with serving(service_of(StandIn(), timings=timings)) as uri, connected(uri) as connection:

        def candidates(**options):
            return asked(connection, STATE | {f"evor/{name}": value for name, value in options.items()})["search"][
                "candidates"
            ]

        assert [candidates(num_candidates=n) for n in (1, 3, 8, 1000)] == [1, 2, 8, 8]
        assert [candidates(budget_ms=ms) for ms in (1e4, 5e5, 1e12)] == [1, 2, 8]
        assert asked(connection, STATE | {"evor/seed": 7})["actions"][0, 1] == 7


def get(uri, path="/healthz", **headers):
    host = uri.removeprefix("ws://")
    return urllib.request.urlopen(urllib.request.Request(f"http://{host}{path}", headers=headers), timeout=10)


def test_health_is_told_while_a_request_is_in_flight_and_others_wait_their_turn():
    began, go = threading.Event(), threading.Event()

    def slow(observation):
        began.set()
        return float(go.wait(10))

    with serving(service_of(StandIn(answer=slow))) as uri, connected(uri) as first, connected(uri) as second:
        first.send(pack(STATE))
        assert began.wait(10)
        with get(uri) as answer:
            assert (answer.status, answer.read()) == (200, b"OK\n")
        second.send(pack(STATE))
        go.set()
        assert unpack(first.recv(timeout=10))["actions"][0, 1] == 1
        assert unpack(second.recv(timeout=10))["actions"][0, 1] == 1


@pytest.mark.parametrize(("p99", "has_worker"), [(0.1, False), (1.5, True)])
def test_only_quick_decisions_are_made_by_the_loop(p99, has_worker):
    def by_worker(observation):
        return float(threading.current_thread().name == "evor-decides")

    timings = [Timing(size, 0.0, p99 / 2, p99) for size in StandIn.sizes]
    with serving(service_of(StandIn(answer=by_worker), timings=timings)) as uri, connected(uri) as connection:
        assert asked(connection)["actions"][0, 1] == has_worker


def test_a_key_keeps_others_out_and_browsers_stay_out():
    with serving(service_of(StandIn()), key="secret") as uri:
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Bearer secret"}):
            with pytest.raises(wrong.InvalidStatus, match="401"):
                connect(uri, additional_headers=headers, proxy=None)
        with get(uri) as answer:  # load balancers have no key
            assert answer.status == 200
        key = {"Authorization": "Api-Key secret"}
        with pytest.raises(wrong.InvalidStatus, match="403"):
            connect(uri, additional_headers=key, origin="http://localhost", proxy=None)
        with connected(uri, additional_headers=key) as connection:
            assert asked(connection)["actions"].shape == (1, 2)


def test_connections_and_sizes_are_limited():
    service = service_of(StandIn(), max_bytes=1000)
    with serving(service, limits=Limits(connections=1)) as uri:
        with connected(uri) as connection:
            with pytest.raises(wrong.InvalidStatus, match="503"):
                connect(uri, proxy=None)
            with pytest.raises(EvorError, match=r"takes no more clients .*503.*; close another one"):
                evor.Client(uri)
            connection.send(pack({"state": np.zeros(1000)}))
            with pytest.raises(wrong.ConnectionClosedError, match="1009"):
                connection.recv(timeout=10)
        with (
            evor.Client(uri) as client,
            pytest.raises(EvorError, match=r"is too large .*; send smaller images, or .*--max-mb"),
        ):
            client.act(np.zeros(1000))
        with evor.Client(uri) as client:
            assert client.act([0, 0]).shape == (2,)


def test_who_never_reads_is_disconnected_and_nobody_waits_for_it():
    stream = io.StringIO()
    service = service_of(StandIn(horizon=20_000), stream=stream)
    with serving(service, limits=Limits(write_seconds=0.2)) as uri:
        host, port = uri.removeprefix("ws://").split(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((host, int(port)))
            deaf.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            frame = pack(STATE)
            message = bytes([0x82, 0x80 | len(frame)]) + bytes(4) + frame  # masked with zeros
            deaf.settimeout(10)
            with connected(uri, max_size=None) as other:

                def both():
                    while True:
                        deaf.sendall(message)
                        assert asked(other)["actions"].shape == (20_000, 2)

                with pytest.raises(OSError, match=r"reset|[Bb]roken"):
                    both()
    assert [line for line in lines(stream, "error") if "does not read its replies" in line["error"]]


def test_a_client_that_leaves_midway_disturbs_nobody():
    began, go = threading.Event(), threading.Event()

    def slow(observation):
        began.set()
        return float(go.wait(10))

    stream = io.StringIO()
    with serving(service_of(StandIn(answer=slow), stream=stream)) as uri:
        with connected(uri) as leaver:
            leaver.send(pack(STATE))
            assert began.wait(10)
            leaver.socket.shutdown(socket.SHUT_RDWR)
        go.set()
        with evor.Client(uri) as client:
            assert client.act([0, 0]).tolist() == [8, 1]
    assert not lines(stream, "error")
    assert not lines(stream, "internal error")


def test_a_stop_answers_the_request_in_flight_and_then_goes_away():
    began, go = threading.Event(), threading.Event()

    def slow(observation):
        began.set()
        return float(go.wait(10))

    served = Served(service_of(StandIn(answer=slow)))
    address = served.uri.removeprefix("ws://").split(":")
    with connected(served.uri) as busy, connected(served.uri) as idle:
        busy.send(pack(STATE))
        assert began.wait(10)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        with pytest.raises(wrong.ConnectionClosedOK, match="1001"):
            idle.recv(timeout=10)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address[0], int(address[1])), timeout=10)
        go.set()
        assert unpack(busy.recv(timeout=10))["actions"][0, 1] == 1
        with pytest.raises(wrong.ConnectionClosedOK, match="1001"):
            busy.recv(timeout=10)
        stopping.join(10)
        assert not stopping.is_alive()


def test_a_port_in_use_is_told():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            EvorError, match=rf"port {port} of 127.0.0.1 can't be used \(Address already in use\); stop its server"
        ):
            bind("127.0.0.1", port)
    with pytest.raises(
        EvorError, match=r"of 192\.0\.2\.1 can't be used .*; give an address of this machine \(--host\)"
    ):
        bind("192.0.2.1", port)  # an address that no machine has
    with pytest.raises(EvorError, match="--port is 70000; give one from 1 to 65535"):
        bind("127.0.0.1", 70_000)
    with pytest.raises(EvorError, match=r"--host 'a\.\.b' --port 8000 is no address"):
        bind("a..b", 8000)
