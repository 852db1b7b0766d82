"""What a program sets in JAX changes nothing here, and a forked process is told so."""

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Generator

import jax
import numpy as np
import pytest

import evor
from conftest import DATASET, TINY
from evor.errors import EvorError
from evor.nn import engine
from evor.nn.engine import keep_programs, pinned
from evor.rollouts.evaluate import play
from evor.training.checkpoint import checkpoint_path, load_arrays
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.train import Training

OBSERVATIONS = np.array([[0.0, 0.0], [4.0, 1.0], [12.0, 16.0]], np.float32)
OTHERS = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
    "jax_random_seed_offset": 3,
    "jax_high_dynamic_range_gumbel": True,
}


@pytest.fixture
def set_in_jax() -> Generator[Callable]:
    """Set options of JAX for the rest of the test, and forget what was compiled before."""
    before = {name: getattr(jax.config, name) for name in OTHERS}

    def change(**options: object) -> None:
        for name, value in options.items():
            jax.config.update(name, value)
        jax.clear_caches()

    yield change
    for name, value in before.items():
        jax.config.update(name, "allow" if name == "jax_transfer_guard" else value)
    jax.clear_caches()


def read(run) -> dict[str, np.ndarray]:
    """Everything that a policy tells."""
    policy = evor.load(run, 1, seed=0)
    actions = policy.act(OBSERVATIONS, 3, extraction=evor.SoftmaxOf(4, action_temperature=1.0))
    return {
        "action": actions,
        "draw": policy.act(OBSERVATIONS, 3, extraction=evor.Prior()),
        "fresh": policy.act(OBSERVATIONS[0], extraction=evor.Prior()),
        "value": policy.value(OBSERVATIONS, actions),
        "returns": policy.returns(OBSERVATIONS, actions, num_samples=5, seed=2),
        "quantiles": policy.quantiles(OBSERVATIONS, actions, num_nodes=5),
    }


def same(results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        assert results[name].dtype == np.float32
        np.testing.assert_allclose(results[name], array, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_no_setting_of_jax_changes_what_a_policy_tells(tiny_run, set_in_jax):
    expected = read(tiny_run)
    policy = evor.load(tiny_run, 1, seed=0)
    (before,) = play(
        policy, DATASET, task=1, extraction=evor.Prior(), episodes=1, evaluation_seed=0, max_episode_steps=5
    )
    set_in_jax(**OTHERS)
    same(read(tiny_run), expected)
    (episode,) = play(
        policy, DATASET, task=1, extraction=evor.Prior(), episodes=1, evaluation_seed=0, max_episode_steps=5
    )
    np.testing.assert_array_equal(episode.observations, before.observations)
    assert {name: getattr(jax.config, name) for name in OTHERS} == OTHERS  # the program keeps what it set


@pytest.mark.slow
def test_training_under_other_settings_ends_with_the_same_bytes(tiny_run, data_folder, tmp_path, set_in_jax):
    """Ten updates under JAX's own, ten under others, in the run of the fixture."""
    config = RunConfig(
        dataset=DATASET, data=str(data_folder), tasks=(1, 4), num_seeds=2, updates=20, checkpoint_every=10, agent=TINY
    )
    shutil.copytree(tiny_run, tmp_path / "run")
    checkpoint_path(tmp_path / "run/checkpoints", 20).unlink()
    set_in_jax(**OTHERS)
    training = Training.open(config, tmp_path / "run", resume=True)
    assert training.step == 10
    assert training.advance(20)
    anew = Training.open(config, tmp_path / "anew", resume=False)
    assert anew.advance(10)
    for run, step in (("run", 20), ("anew", 10)):
        arrays, _ = load_arrays(checkpoint_path(tmp_path / run / "checkpoints", step))
        expected, _ = load_arrays(checkpoint_path(tiny_run / "checkpoints", step))
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


@pytest.mark.slow
def test_blocks_that_are_read_ahead_are_no_wider(user_file, set_in_jax):
    set_in_jax(**OTHERS)
    data = open_data(RunConfig(data=str(user_file(rows=200)), memory_gb=1e-5, agent=TINY))
    current = pinned(data.columns)(0)
    following = pinned(data.columns)(data.updates_left(0))  # another thread has read these
    assert current is not following
    for leaf in jax.tree.leaves((current, following)):
        assert leaf.dtype in (np.float32, np.int32)


@pytest.mark.slow
def test_settings_of_jax_are_put_back(set_in_jax):
    @pinned
    def fails() -> None:
        assert not jax.config.jax_enable_x64
        assert jax.config.jax_default_prng_impl == "threefry2x32"
        raise KeyError

    with jax.enable_x64(True), jax.default_prng_impl("rbg"):  # of one thread
        with pytest.raises(KeyError):
            fails()
        assert jax.config.jax_enable_x64
        assert jax.config.jax_default_prng_impl == "rbg"
    assert not jax.config.jax_enable_x64


def in_a_fork(call: Callable[[], object]) -> str:
    """What `call` says in a forked process, which ends within twenty seconds whatever it does."""
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX and Python, that a fork of threads is dangerous
        child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            try:
                said = str(call())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(send, said.encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize(
    "call",
    [
        lambda run, policy: policy.act(OBSERVATIONS),
        lambda run, policy: policy.quantiles(OBSERVATIONS, OBSERVATIONS),
        lambda run, policy: evor.load(run, 1, seed=0),
        lambda run, policy: play(policy, DATASET, task=1, extraction=evor.Prior(), episodes=1, evaluation_seed=0),
        lambda run, policy: Training.open(RunConfig(data="mine.npz"), run, resume=False),
    ],
    ids=["act", "quantiles", "load", "play", "train"],
)
def test_a_forked_process_is_told_to_spawn(tiny_run, call):
    policy = evor.load(tiny_run, 1, seed=0)
    said = in_a_fork(lambda: call(tiny_run, policy))
    assert said.startswith("EvorError: this process was forked from one in which evor had computed")
    assert '"spawn"' in said


def test_a_process_forked_before_evor_computed_may_compute(monkeypatch):
    assert engine._used
    monkeypatch.setattr(engine, "_used", False)
    assert in_a_fork(pinned(lambda: "computes")) == "computes"
    monkeypatch.setattr(engine, "_forked", True)
    with pytest.raises(EvorError, match="spawn"):
        pinned(lambda: None)()


def test_programs_of_an_accelerator_are_kept(tmp_path, monkeypatch):
    """A CPU's are not, and the user's folder stays."""
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.append((name, value)))
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", None, raising=False)
    keep_programs(tmp_path)
    assert kept == []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    keep_programs(tmp_path)
    assert kept == [("jax_compilation_cache_dir", str(tmp_path))]
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", "mine", raising=False)
    keep_programs(tmp_path)
    assert len(kept) == 1
