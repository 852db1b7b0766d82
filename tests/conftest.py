"""Shapes are checked while the tests run: jaxtyping's annotations are executed by beartype."""

import contextlib
import gc
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "disable")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("PJRT_NPROC", "1")
# Tests compile many small programs and run each for milliseconds. (The processes of slow tests run the usual way.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")  # below it, a file costs more than it saves

from jaxtyping import install_import_hook

# Not evor.search.extraction, whose temperatures are floats to a user and traced arrays inside a decision, nor evor.policies.policy, which
# checks and names what a user passes by itself.
install_import_hook(
    [
        "evor.data",
        "evor.nn.nets",
        "evor.nn.ops",
        "evor.nn.flow",
        "evor.nn.objectives",
        "evor.nn.shortcut",
        "evor.search.readings",
        "evor.agents",
    ],
    "beartype.beartype",
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clusters

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

from evor.nn import engine

# Inside, too: what is computed in a type that nobody chose is an error in the tests.
engine.SETTINGS = tuple(
    (state, "strict", "strict") if state is jax.numpy_dtype_promotion else (state, default, within)
    for state, default, within in engine.SETTINGS
)
engine._DEFAULTS = tuple(default for _, default, _ in engine.SETTINGS)
# Tracing makes many objects and little garbage: looked for seldom, it takes a fifteenth less time.
gc.freeze()
gc.set_threshold(100_000, 20, 100)

from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.agents.registry import AgentConfig
from evor.data.formats.npz import load_files
from evor.data.scripted.generate import generate
from evor.envs import vector
from evor.envs.ogbench import _gymnasium
from evor.nn.learner import Learning
from evor.policies.load import Run, load
from evor.policies.policy import Policy
from evor.report import maze as report_maze
from evor.rollouts import maze
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.train import train
from evor.training.update import initial_state, make_runner

DATASET = "pointmaze-medium-navigate-v0"
EPISODE_STEPS = 50  # OGBench's own limit is 1000; networks of 20 updates fill it with wandering
TINY = Evor(next_action=DatasetAction(), learning=Learning(hidden=(16, 16), batch_size=32))


@pytest.fixture(scope="session", autouse=True)
def smaller() -> None:
    """Single-task environments of this process cut their episodes early, and its reports draw little."""
    maze.CELLS_PER_SIDE, report_maze.FRAMES = 2, 4
    for task in range(1, 6):
        _gymnasium().registry[f"pointmaze-medium-singletask-task{task}-v0"].max_episode_steps = EPISODE_STEPS


@contextlib.contextmanager
def episodes_cut_after(steps: int) -> Generator[None]:
    """Another limit inside; environments that are open keep theirs, so they are put aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector, "_worlds", {})
        for task in range(1, 6):
            patch.setattr(
                _gymnasium().registry[f"pointmaze-medium-singletask-task{task}-v0"], "max_episode_steps", steps
            )
        yield


@pytest.fixture
def compiled_anew() -> Generator[None]:
    """For tests that change what is compiled once per process."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """A small generated pointmaze dataset: 4 training episodes."""
    folder = tmp_path_factory.mktemp("data")
    generate(DATASET, 4000, seed=0, folder=folder)
    return folder


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of two nodes."""
    with clusters.running() as there:
        yield there


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, data_folder) -> Path:
    """A trained run of two tasks and two seeds. Tests may read it, not write into it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = RunConfig(
        dataset=DATASET, data=str(data_folder), tasks=(1, 4), num_seeds=2, updates=20, checkpoint_every=10, agent=TINY
    )
    train(config, out)
    return out


def learned(path: Path, agent: AgentConfig, updates: int, steps: int | None = None) -> Policy:
    """The policy after `updates` of a run of `steps` on a user's file, in one call and without a run folder."""
    episodes = load_files(path)
    config = RunConfig(data="-", updates=steps or updates, agent=agent)
    columns, scale = prepare(config, episodes)
    columns = jax.tree.map(jnp.asarray, columns)
    state, run = make_runner(config, columns, initial_state(config, episodes.spec))
    state = run(state, columns, updates)
    return Run(
        config=config, spec=episodes.spec, step=updates, base=state.base, head=state.head, standardisation=scale
    ).policy(task=1, seed=0)


def user_arrays(rows: int = 60, seed: int = 0, **changes) -> dict[str, np.ndarray]:
    """A user's own data: three episodes of twenty rows, the first finished, the others cut."""
    generator = np.random.default_rng(seed)
    ends = np.arange(rows) % 20 == 19
    arrays = {
        "observations": generator.normal(size=(rows, 3)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "terminations": ends & (np.arange(rows) < 20),
        "truncations": ends & (np.arange(rows) >= 20),
    }
    arrays.update(changes)
    return {name: array for name, array in arrays.items() if array is not None}


def ended(process: subprocess.Popen, within: float = 0.005) -> bool:
    """Whether a process has ended within so many seconds. To wait in: a loop of one's own would take a core from it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within)
    return process.returncode is not None


@pytest.fixture
def user_file(tmp_path):
    """Write a user's npz; keyword arguments replace arrays, None removes one."""

    def write(name: str = "mine.npz", **changes) -> Path:
        path = tmp_path / name
        np.savez(path, **user_arrays(**changes))
        return path

    return write


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with a user's file mine.npz."""
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", **user_arrays())
    return tmp_path


@pytest.fixture(scope="session")
def chunky(tmp_path_factory, data_folder) -> Policy:
    """A policy of an agent that chunks three actions. Tests may not change it."""
    out = tmp_path_factory.mktemp("chunks") / "run"
    agent = replace(TINY, chunk_length=3)
    train(RunConfig(dataset=DATASET, data=str(data_folder), updates=2, checkpoint_every=2, agent=agent), out)
    return load(out)
