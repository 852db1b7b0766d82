"""The whole chain, with openpi's own ends: its client, `evor` with a base policy behind a socket, and its server."""

import asyncio
import contextlib
import io
import queue
import threading

import numpy as np
import pytest
from stand_in import lines, service_of, serving

from evor.policies import load
from evor.search.extraction import BestOf
from evor.serving.decider import PolicyDecider

openpi_client = pytest.importorskip("openpi_client.websocket_client_policy")
openpi_server = pytest.importorskip("openpi_server")

CHUNK, CANDIDATES = (5, 2), 4
OBSERVATION = {
    "observation": np.array([0.5, -0.5], np.float32),
    "observation/image": np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3),
    "prompt": "pick up the cup",
}


class Toy:
    """A model of chunks: no two are alike. It needs an image."""

    def __init__(self):
        self.seen, self.proposals = [], []

    def infer(self, observation):
        if "observation/image" not in observation:
            raise ValueError("the camera\nis dark")
        self.seen.append(observation)
        chunk = np.random.default_rng(len(self.seen)).uniform(-0.9, 0.9, CHUNK).astype(np.float32)
        self.proposals.append(chunk)
        return {"actions": chunk}


class Telling(asyncio.SelectorEventLoop):
    """An event loop that tells the port of a server that listens."""

    def __init__(self):
        super().__init__()
        self.ports = queue.SimpleQueue()

    async def create_server(self, *arguments, **options):
        server = await super().create_server(*arguments, **options)
        self.ports.put(server.sockets[0].getsockname()[1])
        return server


@contextlib.contextmanager
def stock_server(model):
    """openpi's own server in a thread. Yields its uri; at the end it has ended."""
    loop = Telling()
    task = loop.create_task(openpi_server.WebsocketPolicyServer(model, host="127.0.0.1", port=0).run())

    def run():
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{loop.ports.get(timeout=10)}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def chain(run, model, **options):
    """Everything between a robot and a model. Yields openpi's client and the policy in the middle."""
    with stock_server(model) as uri:
        policy = load.load(run, 1, seed=0, base=f"openpi:{uri}", base_timeout=10)
        decider = PolicyDecider(policy, BestOf(CANDIDATES), most=CANDIDATES)
        with serving(service_of(decider, **options)) as served:
            host, port = served.removeprefix("ws://").split(":")
            client = openpi_client.WebsocketClientPolicy(host, int(port))
            try:
                yield client, policy
            finally:
                client._ws.close()
                policy.base._base.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("EVOR_BASE_KEY", raising=False)


def test_a_robot_gets_the_chunk_of_the_model_that_the_value_prefers(tiny_run):
    model = Toy()
    with chain(tiny_run, model) as (client, policy):
        assert client.get_server_metadata()["horizon"] is None
        for decision in range(2):
            reply = client.infer(OBSERVATION)
            proposals = np.array(model.proposals[decision * CANDIDATES :])
            assert proposals.shape == (CANDIDATES, *CHUNK)
            best = policy.choose(OBSERVATION["observation"], proposals[:, 0], seed=decision, extraction=BestOf())
            np.testing.assert_array_equal(reply["actions"], proposals[best.index])
            assert reply["search"]["candidates"] == CANDIDATES
            assert 0 < reply["server_timing"]["base_ms"] < reply["server_timing"]["infer_ms"]
    for observation in model.seen:  # each candidate is a request of its own, and all of it arrives
        assert set(observation) == set(OBSERVATION)
        assert observation["prompt"] == OBSERVATION["prompt"]
        for key in ("observation", "observation/image"):
            assert observation[key].dtype == OBSERVATION[key].dtype
            np.testing.assert_array_equal(observation[key], OBSERVATION[key])


def test_an_error_of_the_model_is_one_sentence_and_the_robot_asks_again(tiny_run):
    model, stream = Toy(), io.StringIO()
    with chain(tiny_run, model, stream=stream) as (client, policy):
        blind = {key: value for key, value in OBSERVATION.items() if key != "observation/image"}
        with pytest.raises(RuntimeError) as told:
            client.infer(blind)
        before, sentence = str(told.value).split("\n", 1)  # the client's words, and those of the server
        assert before == "Error in inference server:"
        uri = policy.base.name.removeprefix("openpi:")
        assert sentence == f"{uri} reports an error: ValueError: the camera is dark; look at the server's log."
        assert client.infer(OBSERVATION)["actions"].shape == CHUNK  # the model's server had closed its connection
    assert len(lines(stream, "error")) == len(lines(stream, "connected")) == 1
    assert not lines(stream, "internal error")
