"""The openpi adapter against a loopback server that follows the stock protocol."""

import contextlib
import socket
import threading

import numpy as np
import pytest

from evor.errors import EvorError
from evor.policies.base_policy import BasePolicy, open_base
from evor.policies.openpi import OpenpiPolicy
from evor.runtime.wire import pack, unpack

server_module = pytest.importorskip("websockets.sync.server")


@contextlib.contextmanager
def serving(answer, *, metadata=b"", key=None):
    """A server of one thread per connection. `answer(connection, request)` replies to a request's content."""
    seen = []

    def handle(connection):
        connection.send(pack({"reset_pose": [0.0]}) if metadata == b"" else metadata)
        for frame in connection:
            seen.append(unpack(frame))
            answer(connection, seen)

    def gate(connection, request):
        if key and request.headers.get("Authorization") != f"Api-Key {key}":
            return connection.respond(401, "no\n")
        return None

    server = server_module.serve(handle, "127.0.0.1", 0, compression=None, process_request=gate)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", seen
    finally:
        server.shutdown()
        thread.join(5)


def counting(connection, seen):
    """Chunks [4, 2] that hold the number of the request and the first state."""
    actions = np.full((4, 2), len(seen), np.float64)
    actions[:, 1] = seen[-1]["state"][0]
    connection.send(pack({"actions": actions, "server_timing": {"infer_ms": 1.0}}))


def test_each_proposal_is_a_request_of_its_own_and_observations_pass_through():
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), np.uint8)
    observations = {
        "state": np.array([[7.0, 0.0], [8.0, 0.0]], np.float32),
        "images": {"top": images},
        "prompt": ["pick", np.str_("place")],
    }
    with serving(counting) as (uri, seen):
        base = open_base(f"openpi:{uri}", timeout=5)
        assert isinstance(base, BasePolicy)
        assert (base.name, base.seeded) == (f"openpi:{uri}", False)
        assert base.metadata == {"reset_pose": [0.0]}
        proposals = base.sample(observations, 3, seed=0)
        base.close()
    assert proposals.shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(proposals[:, :, 0, 0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(proposals[:, :, 0, 1], [[7] * 3, [8] * 3])
    assert [request["prompt"] for request in seen] == ["pick"] * 3 + ["place"] * 3
    np.testing.assert_array_equal(seen[4]["images"]["top"], images[1])
    assert seen[0]["state"].shape == (2,)


STATE = {"state": np.zeros((1, 2), np.float32)}


def test_a_connection_that_broke_is_made_anew():
    def once(connection, seen):
        if len(seen) == 2:
            connection.close()
        else:
            counting(connection, seen)

    with serving(once) as (uri, _):
        base = OpenpiPolicy(uri, timeout=5)
        assert base.sample(STATE, 3, seed=0)[0, :, 0, 0].tolist() == [1, 3, 4]
        base.close()


def refusing(connection, seen):
    connection.send("Traceback (most recent call last):\n  File x\nKeyError: 'observation/state'")


def advising(connection, seen):
    connection.send("'state' is missing; send an array of 3 numbers.\n")


def refusing_at_length(connection, seen):
    connection.send(
        'Traceback (most recent call last):\n  File "x", line 3, in f\n    f()\n    ^^^\n'
        "RuntimeError: CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA to see more.\n"
    )


def closing(connection, seen):
    connection.close()


def silent(connection, seen):
    pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusing, "reports an error: KeyError: 'observation/state'; look at the server's log"),
        (advising, r"error: 'state' is missing; send an array of 3 numbers\.$"),
        (
            refusing_at_length,
            "error: RuntimeError: CUDA error: out of memory Compile with TORCH_USE_CUDA_DSA to see more; look",
        ),
        (closing, "closed the connection before it answered"),
        (silent, "has not answered within 0.2 s; give it more time"),
        (
            lambda connection, seen: connection.send(b"\x93\x01"),
            "ws://.* sent something that is no answer: .*not in openpi's format",
        ),
        (
            lambda connection, seen: connection.send(pack({"actions": np.zeros(2)})),
            r"ws://.* returned actions of shape \[2\]; an array \[horizon, A\] is needed",
        ),
        (
            lambda connection, seen: connection.send(pack([1])),
            r"sent \[1\] in place of actions; is it an openpi server",
        ),
        (lambda connection, seen: connection.send(pack({"state": 1})), r"returned no actions \[horizon, A\] .*'state'"),
        (
            lambda connection, seen: connection.send(pack({"actions": np.zeros((len(seen), 2))})),
            "returned chunks of different lengths",
        ),
    ],
)
def test_what_a_server_does_wrong_is_told(answer, message):
    with serving(answer) as (uri, _):
        base = OpenpiPolicy(uri, timeout=0.2 if answer is silent else 5)
        with pytest.raises(EvorError, match=message):
            base.sample(STATE, 2, seed=0)
        base.close()


def test_a_key_is_asked_for_and_given(monkeypatch):
    monkeypatch.delenv("EVOR_BASE_KEY", raising=False)
    with serving(counting, key="secret") as (uri, _):
        with pytest.raises(EvorError, match=r"asks for another key .*401.*; give the server's key in EVOR_BASE_KEY"):
            OpenpiPolicy(uri, timeout=5)
        monkeypatch.setenv("EVOR_BASE_KEY", "secret")
        OpenpiPolicy(uri, timeout=5).close()


def test_a_server_that_is_not_there_or_speaks_something_else_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EvorError, match=f"no policy server answers at ws://127.0.0.1:{port} .*start it"):
        OpenpiPolicy(f"ws://127.0.0.1:{port}", timeout=5)
    with pytest.raises(
        EvorError, match="openpi server 'localhost:8000' is no address; give one such as ws://host:8000"
    ):
        open_base("openpi:localhost:8000")
    for metadata in ("hello", b"\xc1"):
        with serving(counting, metadata=metadata) as (uri, _), pytest.raises(EvorError, match=r"hello|openpi's format"):
            OpenpiPolicy(uri, timeout=5)
    with socket.socket() as other:  # a server of another protocol
        other.bind(("127.0.0.1", 0))
        other.listen()

        def speak():
            connection, _ = other.accept()
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            connection.close()

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(EvorError, match=r"is no openpi server|no policy server answers"):
            OpenpiPolicy(f"ws://127.0.0.1:{other.getsockname()[1]}", timeout=5)
        thread.join()
