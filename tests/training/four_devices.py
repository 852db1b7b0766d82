"""What four simulated devices train: test_sharding.py runs this file in a process that has them."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from conftest import DATASET, TINY
from evor.agents.base import Frozen
from evor.agents.next_action import BestAction, PolicyAction
from evor.agents.registry import PRESETS
from evor.policies.propose import propose
from evor.runtime.files import read_json
from evor.runtime.records import replace
from evor.training import checkpoint, update
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.sharding import Devices, Split, mesh_of, put_columns, split_of
from evor.training.train import Training, train
from evor.training.update import initial_state, make_runner

COLLECTIVES = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
SPLITS = {"seeds": Split(4), "tasks": Split(1, 4), "both": Split(2, 2)}
NETWORKS = {"seeds": (4, (1,)), "tasks": (1, (1, 2, 3, 4)), "both": (2, (1, 4))}


def config_of(data_folder, seeds, tasks, **changes) -> RunConfig:
    options = {"updates": 20, "checkpoint_every": 5, "log_every": 2, "agent": TINY} | changes
    return RunConfig(dataset=DATASET, data=str(data_folder), num_seeds=seeds, tasks=tasks, **options)


def started(config, split):
    """Columns, a state and a runner on the devices of a split."""
    data, mesh = open_data(config), mesh_of(split)
    columns = put_columns(data.columns(0), mesh=mesh)
    state, run = make_runner(config, columns, initial_state(config, data.spec), mesh=mesh)
    return columns, state, run


def updated(config, split, count=20):
    columns, state, run = started(config, split)
    return jax.tree.map(np.asarray, run(state, columns, count))


def program(config, split) -> str:
    columns, state, _ = started(config, split)
    seeds, tasks = jax.numpy.array(config.all_seeds), jax.numpy.array(config.tasks)
    lowered = update._sharded_run.lower(
        mesh_of(split), config.agent, state, columns, seeds, tasks, 20, jax.numpy.array(config.updates)
    )
    return lowered.compile().as_text()


def collectives(text: str) -> set[str]:
    return set(re.findall(rf"\b({COLLECTIVES})(?:-start)?\(", text))


def apart(one, other) -> float:
    """The largest difference, in units of each array's largest entry. Bounds of returns may be infinite."""
    found = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert not np.isnan(a).any()
        differ = np.asarray(a != b)
        if differ.any():
            found = max(found, float(np.abs(a - b)[differ].max() / np.abs(b).max()))
    return found


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


@pytest.fixture(params=SPLITS)
def case(request, data_folder):
    return config_of(data_folder, *NETWORKS[request.param]), SPLITS[request.param]


def test_there_are_four_devices_and_all_are_taken(case):
    config, split = case
    assert split_of(config, Devices()) == split
    assert split.devices == 4


def test_the_program_has_no_collective(case):
    assert collectives(program(*case)) == set()


@pytest.mark.usefixtures("compiled_anew")
def test_nor_has_an_accelerator_s(data_folder, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert collectives(program(config_of(data_folder, 4, (1, 4)), Split(2, 2))) == set()


def test_the_weights_are_those_of_one_device(case):
    config, split = case
    there = updated(config, split)
    assert apart(there, updated(config, Split())) < 1e-4
    assert same(there, updated(config, split))
    assert update._sharded_run._cache_size() > 0


@pytest.mark.usefixtures("compiled_anew")
def test_networks_side_by_side_are_those_of_one_device(data_folder, monkeypatch):
    """As an accelerator runs them, two seeds of a device under vmap."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = config_of(data_folder, 4, (1, 4))
    assert apart(updated(config, Split(2, 2)), updated(config, Split())) < 1e-4


@pytest.mark.parametrize(
    ("backend", "seeds", "tasks", "split"),
    [
        ("gpu", 1, (1,), Split(1, 1, 4)),
        ("gpu", 2, (1,), Split(2, 1, 2)),
        ("gpu", 1, (1, 4), Split(1, 2, 2)),
        ("cpu", 2, (1,), Split(2, 1, 2)),
    ],
)
@pytest.mark.usefixtures("compiled_anew")
def test_a_batch_is_shared(data_folder, monkeypatch, *, backend, seeds, tasks, split):
    """As an accelerator runs it, only gradients and what is told of losses are exchanged."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = config_of(data_folder, seeds, tasks)
    there = updated(config, split)
    assert apart(there, updated(config, Split())) < 1e-4
    assert same(there, updated(config, split))
    found = collectives(program(config, split))
    assert "all-reduce" in found
    if backend == "gpu":
        assert found == {"all-reduce"}


def arrays_of(out, step):
    return checkpoint.load_arrays(checkpoint.checkpoint_path(out / "checkpoints", step))


def test_a_run_goes_on_with_other_devices(tmp_path, data_folder):
    """On four, two, one and four again: the same files as on one, equal up to rounding."""
    config = config_of(data_folder, 2, (1, 4))
    train(config, tmp_path / "one", devices=Devices(1))
    out, compiled = tmp_path / "run", update._sharded_run._cache_size()
    for step, networks in ((5, 4), (10, 2), (15, 1), (20, None)):
        with Training.open(config, out, resume=True, devices=Devices(networks)) as training:
            training.advance(step)
    # Logs and resumes compile nothing anew. (JAX writes the sharding of a mesh with an axis of one device in two ways.)
    assert update._sharded_run._cache_size() <= compiled + 3
    (one, told_one), (run, told) = arrays_of(tmp_path / "one", 20), arrays_of(out, 20)
    assert told == told_one
    assert list(run) == list(one)
    assert apart(run, one) < 1e-4
    assert (out / "config.json").read_text() == (tmp_path / "one" / "config.json").read_text()
    lines, lines_one = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (out, tmp_path / "one")
    )
    assert [list(line) for line in lines] == [list(line) for line in lines_one]
    assert [(line["step"], line["seed"], line["task"]) for line in lines] == [
        (line["step"], line["seed"], line["task"]) for line in lines_one
    ]
    np.testing.assert_allclose(
        [line["value/loss"] for line in lines], [line["value/loss"] for line in lines_one], rtol=1e-4
    )
    origin = read_json(out / "provenance.json")
    assert [place["devices"] for place in (origin, *origin["resumed"])] == [
        {"seeds": seeds, "tasks": tasks, "batch": 1} for seeds, tasks in ((2, 2), (2, 1), (1, 1), (2, 2))
    ]


def test_resumed_on_the_same_devices_it_is_bit_identical(tmp_path, data_folder):
    config = config_of(data_folder, 2, (1, 4))
    train(config, tmp_path / "whole")
    for step in (5, 20):
        with Training.open(config, tmp_path / "run", resume=True) as training:
            training.advance(step)
    whole, run = arrays_of(tmp_path / "whole", 20)[0], arrays_of(tmp_path / "run", 20)[0]
    assert all(whole[name].tobytes() == run[name].tobytes() for name in whole | run)


def test_a_base_that_is_trained_first(tmp_path, data_folder):
    agent = replace(TINY, next_action=BestAction(2, num_stored=3))
    config = config_of(data_folder, 2, (1, 4), agent=agent)
    train(config, tmp_path / "one", devices=Devices(1))
    train(config, tmp_path / "whole")
    for step in (5, 20):
        with Training.open(config, tmp_path / "run", resume=True) as training:
            training.advance(step)
    one, whole, run = (arrays_of(tmp_path / name, 20)[0] for name in ("one", "whole", "run"))
    assert apart(whole, one) < 1e-4
    assert all(whole[name].tobytes() == run[name].tobytes() for name in whole | run)
    drawn = [np.load(tmp_path / name / "base/proposals/block0/seed1.npy") for name in ("one", "whole")]
    np.testing.assert_allclose(*drawn, atol=1e-4)


def test_proposals_of_a_frozen_base_are_those_of_all_seeds(tmp_path, user_file):
    def told(observations, num, seed):
        return np.random.default_rng(seed).uniform(-1, 1, (len(observations["observation"]), num, 1, 2))

    data = user_file()
    folder = propose(data, base=told, out=tmp_path / "proposals", num=3, chunk_length=1, quiet=True)
    agent = replace(
        TINY, base=Frozen(), next_action=PolicyAction(), objective=replace(TINY.objective, n_steps=1), batch_size=32
    )
    config = RunConfig(data=str(data), proposals=str(folder), num_seeds=4, agent=agent, updates=6, checkpoint_every=6)
    for name, devices in (("one", 1), ("run", 4)):
        train(config, tmp_path / name, devices=Devices(devices))
    assert apart(arrays_of(tmp_path / "run", 6)[0], arrays_of(tmp_path / "one", 6)[0]) < 1e-4


def test_data_larger_than_memory(tmp_path, data_folder):
    config = config_of(data_folder, 2, (1, 4), memory_gb=2e-4, cache=str(tmp_path / "cache"), updates=40)
    assert open_data(config).num_blocks > 1
    for name, devices in (("one", 1), ("run", 4)):
        train(dataclasses.replace(config, checkpoint_every=40), tmp_path / name, devices=Devices(devices))
    assert apart(arrays_of(tmp_path / "run", 40)[0], arrays_of(tmp_path / "one", 40)[0]) < 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_on_two_devices(preset, tmp_path, data_folder):
    agent = replace(PRESETS[preset], hidden=(16, 16), batch_size=32)
    config = config_of(data_folder, 2, (1,), agent=agent, updates=2, checkpoint_every=2)
    for name, devices in (("one", 1), ("run", 2)):
        train(config, tmp_path / name, devices=Devices(devices))
    assert apart(arrays_of(tmp_path / "run", 2)[0], arrays_of(tmp_path / "one", 2)[0]) < 1e-4


def test_saving_takes_no_more_than_the_state(tmp_path):
    """Of arrays on four devices, which are gathered."""
    from evor.runtime.provenance import forget_peak_memory, peak_memory_mib

    mesh = mesh_of(Split(4))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
    state = [jax.block_until_ready(jax.device_put(np.ones((4, 2**20), np.float32), where)) for _ in range(16)]
    forget_peak_memory()
    before = peak_memory_mib()
    checkpoint.save_arrays(tmp_path / "x", state, metadata={})
    assert peak_memory_mib() - before < 1.2 * 256
