"""Data made on a Ray cluster of two nodes, all on this machine: the bytes of one process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clusters import PATIENCE
from conftest import user_arrays
from evor.data import store
from evor.data.source import NpzData, lay_out
from evor.runtime.parallel import Local, Ray
from evor.training.config import RunConfig
from evor.training.data import data_spec_of

pytestmark = pytest.mark.slow

POLICY = """import numpy as np
def propose(observations, num, seed):
    x = np.asarray(observations["observation"], float)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(x), num, 2, 2))
    return 0.5 * np.tanh(x[:, None, None, :2]) + noise
"""


def evor(*words: str, folder: Path) -> None:
    """A command in a process of its own, for Ray has signal handlers."""
    command = [sys.executable, "-m", "evor", *words, "--quiet"]
    done = subprocess.run(command, cwd=folder, timeout=PATIENCE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.np[yz]"))}


def twice(machines, folder: Path, *words: str) -> dict[str, bytes]:
    """Run a command here and on the cluster; the files of both are equal, and nothing else is left."""
    evor(*words, "--workers", "1", "--out", "one", folder=folder)
    evor(*words, "--ray", machines.address, "--out", "two", folder=folder)
    one, two = folder / "one", folder / "two"
    assert contents(one) == contents(two)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    return contents(two)


def test_generation(machines, tmp_path):
    name = "pointmaze-medium-stitch-v0"
    assert len(twice(machines, tmp_path, "data", "generate", name, "--transitions", "2000")) == 2


def test_proposals(machines, tmp_path, monkeypatch):
    (tmp_path / "mine_36.py").write_text(POLICY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    np.savez(tmp_path / "mine.npz", **user_arrays(600))
    assert twice(machines, tmp_path, "data", "propose", "mine.npz", "--base", "python:mine_36:propose", "--num", "2")


def test_import(machines, tmp_path):
    for index in range(3):
        arrays = user_arrays(60, index)
        np.savez(tmp_path / f"{index}.npz", obs=arrays["observations"], **arrays)
    files = [f"{index}.npz" for index in range(3)]
    assert len(twice(machines, tmp_path, "data", "import", *files, "--observation-keys", "obs")) == 3


def test_laying_out(machines, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART_BYTES", 1)
    (tmp_path / "mine").mkdir()
    for index in range(3):
        np.savez(tmp_path / "mine" / f"{index}.npz", **user_arrays(60, index))
    config = RunConfig(data=str(tmp_path / "mine"), memory_gb=2.5e-5)
    for name, where in (("one", Local(1)), ("two", Ray(machines.address, gpus=0.0, cpus=1))):
        lay_out(
            NpzData(tmp_path / "mine"), data_spec_of(config), memory_gb=2.5e-5, cache=tmp_path / name, machines=where
        )
    assert len(contents(tmp_path / "one")) > 20
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
