"""The server against openpi's own client, unchanged."""

import numpy as np
import pytest
from stand_in import StandIn, service_of, serving

openpi_client = pytest.importorskip("openpi_client.websocket_client_policy")
broker = pytest.importorskip("openpi_client.action_chunk_broker")

OBSERVATION = {
    "state": np.array([0.5, -0.5]),
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/wrist_image": np.zeros((224, 224, 3), np.uint8),
    "prompt": np.str_("pick up the cup"),
}


def client_of(uri, **options):
    host, port = uri.removeprefix("ws://").split(":")
    return openpi_client.WebsocketClientPolicy(host, int(port), **options)


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.usefixtures("no_proxy")
def test_it_asks_and_gets_actions_and_errors_leave_the_connection_open():
    decider = StandIn(horizon=10)
    with serving(service_of(decider), key="secret") as uri:
        client = client_of(uri, api_key="secret")
        assert client.get_server_metadata()["horizon"] == 10
        reply = client.infer(OBSERVATION)
        assert reply["actions"].shape == (10, 2)
        assert reply["actions"].dtype == np.float32
        assert reply["search"]["value"] == -2.5
        with pytest.raises(RuntimeError, match="observation has no key 'state'"):
            client.infer({"image": 1})
        assert client.infer(OBSERVATION)["actions"][0].tolist() == [8, 1]
        assert decider.seen[0]["prompt"] == "pick up the cup"
        np.testing.assert_array_equal(decider.seen[0]["observation/image"], OBSERVATION["observation/image"])
        client._ws.close()
        with pytest.raises(Exception, match="401"):
            client_of(uri, api_key="wrong")


@pytest.mark.usefixtures("no_proxy")
def test_its_broker_plays_chunks_step_by_step():
    """It cuts every array of a reply along its first axis."""
    decider = StandIn(horizon=4)
    with serving(service_of(decider)) as uri:
        client = client_of(uri)
        player = broker.ActionChunkBroker(client, action_horizon=4)
        steps = [player.infer(OBSERVATION) for _ in range(6)]
        client._ws.close()
    assert [step["actions"].tolist() for step in steps] == [[8, 0]] * 4 + [[8, 1]] * 2
    assert steps[0]["search"] == {"candidates": 8, "value": -2.5, "quantiles": [-4.0, -3.0, -2.0, -1.0, 0.0]}
