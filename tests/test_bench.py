"""Timings are not asserted; the arithmetic they are divided by is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from conftest import TINY
from evor.bench import bench, synthetic, update_flops
from evor.config import RunConfig
from evor.errors import EvorError
from evor.flow import Euler
from evor.limits import flops, timed
from evor.nets import Mlp
from evor.source import prepare
from evor.types import Spec
from evor.update import initial_state


def test_a_networks_products_are_counted_once_per_row():
    mlp = Mlp(3, (8, 5), 2, layer_norm=True, precision="float32", key=jax.random.key(0))
    once = 2 * (3 * 8 + 8 * 5 + 5 * 2)
    assert flops(mlp, jnp.zeros(3)) == once
    assert flops(jax.vmap(mlp), jnp.zeros((7, 3))) == 7 * once


def test_loops_count_as_often_as_they_run():
    weight = jnp.ones((4, 4))
    assert flops(lambda x: Euler()(lambda y, t: y @ weight, x, 10), jnp.ones(4)) == 10 * 2 * 16


def test_an_update_is_three_passes_of_each_network_and_the_targets():
    """BC: forwards and twice that backwards, less the gradient of the first layer's input. EVOR: ten more of the value."""
    spec, batch = Spec(3, 2), 16

    def count(agent):
        config = RunConfig(data="-", agent=agent)
        columns = jax.tree.map(jnp.asarray, prepare(config, synthetic(spec, rows=3000))[0])
        return update_flops(config, columns, initial_state(config, spec))

    agent = dataclasses.replace(TINY, hidden=(8, 8), batch_size=batch)
    forward = {"policy": 2 * (6 * 8 + 8 * 8 + 8 * 2), "value": 2 * (7 * 8 + 8 * 8 + 8)}
    first = {"policy": 2 * 6 * 8, "value": 2 * 7 * 8}
    learning = sum(3 * forward[name] - first[name] for name in forward)
    assert count(agent) == batch * (learning + 10 * forward["value"])
    assert count(dataclasses.replace(agent, flow_steps=5)) == batch * (learning + 5 * forward["value"])


def test_timings_hold_what_was_called():
    calls = []
    found = timed(lambda: calls.append(0), 3, 0.0)
    assert (len(calls), found.repeats) == (4, 3)
    assert 0 <= found.low <= found.median <= found.high


def test_the_bench_leaves_its_numbers(tmp_path, monkeypatch):
    from evor import bench as station

    monkeypatch.setattr(station, "CANDIDATES", (1, 2))
    monkeypatch.setattr(station, "BATCHES", (1,))
    monkeypatch.setattr(station, "NETWORKS", {2: (2, 1)})
    monkeypatch.setattr(station, "spread", lambda function, jobs, *_, **__: [function(*job) for job in jobs])
    monkeypatch.setattr(station, "elementwise_seconds", lambda *arguments: {"gelu_forward": 1e-4})
    monkeypatch.setattr(station, "time_worlds", lambda repeats, together: {})
    bench(tmp_path, 1, 0.0, ("demo",), ("default",))
    report = json.loads((tmp_path / "bench.json").read_text())
    assert set(report["updates"]["demo"]) == {"default float32", "default bfloat16"}
    assert len(report["decisions"]["demo"]) == 8
    assert report["limits"]["demo"]["float32"] > 0
    assert set(report["networks"]["demo bfloat16"]) == {"2"}
    with pytest.raises(EvorError, match=r"'demmo'.*did you mean 'demo'"):
        bench(tmp_path, sizes=("demmo",))
