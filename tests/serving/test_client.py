"""evor.Client: it acts as a policy does, and says what is wrong."""

import socket
import subprocess
import sys

import numpy as np
import pytest
from stand_in import STATE, Served, StandIn, service_of, serving

import evor
from evor.errors import EvorError
from evor.serving.pace import Timing


def test_a_client_acts_as_a_policy_does():
    slow = [Timing(size, 0.0, 100.0 * size, 200.0 * size) for size in StandIn.sizes]  # than any reply of a busy machine
    with serving(service_of(StandIn(), timings=slow), key="secret") as uri, evor.Client(uri, "secret") as client:
        assert client.metadata["server"] == "evor"
        assert client.metadata["observation_keys"] == ["state"]
        for observation in (STATE, STATE["state"], [0.5, -0.5], {"state": [0.5, -0.5], "prompt": np.str_("go")}):
            assert client.act(observation, seed=3).tolist() == [8, 3]
        assert client.act(STATE, 2**32 + 4).tolist() == [8, 4]
        assert client.act(STATE, num_candidates=2)[0] == 2
        assert client.reply["search"]["candidates"] == 2
        assert client.act(STATE, budget_ms=500)[0] == 2
        action = client.act(STATE)
        action += 1  # it is the caller's own


def test_chunks_have_an_axis_of_steps():
    with serving(service_of(StandIn(horizon=4))) as uri, evor.Client(uri) as client:
        assert client.act(STATE).shape == (4, 2)


def test_what_is_wrong_is_told():
    decider = StandIn()
    with serving(service_of(decider), key="secret") as uri:
        with pytest.raises(EvorError, match=r"asks for another key .*401.*; give the server's key \(key=\)"):
            evor.Client(uri, "wrong")
        with evor.Client(uri, "secret") as client:
            with pytest.raises(
                EvorError, match=r"error: observation has no key 'state' \(it has image\); give the keys that"
            ):
                client.act({"image": 1})
            with pytest.raises(
                EvorError, match=r"observation has shape \[1, 2\]; a server decides for one observation"
            ):
                client.act([[0.0, 0.0]])
            with pytest.raises(EvorError, match="seed is -1"):
                client.act(STATE, seed=-1)
            with pytest.raises(EvorError, match=r"it has none\); give the keys that"):
                client.act({})
            decider.keys = (("state", 2), ("gripper", 1))
            client.close()  # and a connection that is made anew gets what the server tells now
            with pytest.raises(EvorError, match="observation has no key 'gripper'"):
                client.act(STATE)
            with pytest.raises(EvorError, match="takes observations with keys state, gripper; give a dict of them"):
                client.act([0.0, 0.0])
    with pytest.raises(EvorError, match="'localhost:8000' is no address; give one such as ws://host:8000"):
        evor.Client("localhost:8000")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(EvorError, match="no policy server answers"):
            evor.Client(f"ws://127.0.0.1:{free.getsockname()[1]}")


def test_a_connection_that_broke_is_made_anew():
    served = Served(service_of(StandIn()))
    client = evor.Client(served.uri)
    assert client.act(STATE).shape == (2,)
    served.stop()
    with pytest.raises(EvorError, match="no policy server answers"):
        client.act(STATE)
    port = int(served.uri.rsplit(":", 1)[1])
    again = Served(service_of(StandIn()), port=port)
    assert client.act(STATE).shape == (2,)
    client.close()
    again.stop()


def test_an_answer_to_a_request_that_was_interrupted_is_not_that_of_the_next_one(monkeypatch):
    def interrupted(timeout):
        raise KeyboardInterrupt

    with serving(service_of(StandIn())) as uri, evor.Client(uri) as client:
        monkeypatch.setattr(client._server._connection, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.act(STATE, seed=1)
        monkeypatch.undo()
        assert client.act(STATE, seed=2)[1] == 2


@pytest.mark.slow
def test_a_client_needs_no_jax():
    code = "import sys, evor; evor.Client; print(*{'jax', 'equinox', 'scipy', 'matplotlib', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
