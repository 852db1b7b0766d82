"""Free memory, as a system of files tells it."""

import math

import pytest

from evor.envs import vector as environments
from evor.envs.vector import ARM_MIB, MAZE_MIB, fitting
from evor.runtime.memory import free_memory

GIB = 2**30
CUBE, MAZE = "cube-single-play-v0", "pointmaze-medium-navigate-v0"


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal: {16 * 2**20} kB\nMemAvailable:   {8 * 2**20} kB\n"}
VERSION_2 = {
    "proc/self/cgroup": "0::/user/job\n",
    "sys/fs/cgroup/user/memory.max": str(6 * GIB),
    "sys/fs/cgroup/user/memory.current": str(5 * GIB),
    "sys/fs/cgroup/user/memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {2 * GIB}\n",
    "sys/fs/cgroup/user/job/memory.max": "max\n",
    "sys/fs/cgroup/user/job/memory.current": "7\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:cpu:/job\n4:memory:/job\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    "sys/fs/cgroup/memory/memory.stat": "cache 1\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(2 * GIB),
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GIB),
    "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 5\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, math.inf),
        ({"proc/meminfo": "MemTotal: 5 kB\n"}, math.inf),
        (MACHINE, 8 * GIB),
        (MACHINE | VERSION_2, 4 * GIB),  # of the group above: what it holds less files
        (MACHINE | VERSION_1, 0),  # more is used than is allowed
        (MACHINE | VERSION_2 | {"sys/fs/cgroup/user/memory.max": "max"}, 8 * GIB),
    ],
)
def test_the_least_of_all_limits_counts(tmp_path, files, free):
    assert free_memory(write(tmp_path, files)) == free


def test_this_machine_has_some():
    assert free_memory() > 2**20


def test_as_many_environments_are_open_as_fit_into_half_of_it(monkeypatch):
    monkeypatch.setattr(environments, "free_memory", lambda: 8.0 * GIB)
    monkeypatch.setattr(environments, "_worlds", {})
    monkeypatch.setattr(environments, "_shared", {})
    assert fitting(CUBE) == 4096 // ARM_MIB == 22
    assert fitting(CUBE, processes=2) == 11
    assert fitting(CUBE, processes=1000) == 1
    assert fitting(MAZE) == 4096 // MAZE_MIB == 1024
    monkeypatch.setattr(environments, "free_memory", lambda: math.inf)
    assert fitting(CUBE) == math.inf


def test_what_is_open_counts_as_free_so_that_the_second_call_gives_as_many(monkeypatch):
    """Environments of the last call are used again, or closed for others."""
    open_now = {(CUBE, 1): [None] * 22}
    monkeypatch.setattr(environments, "free_memory", lambda: 2**20 * (8192.0 - 22 * ARM_MIB))
    monkeypatch.setattr(environments, "_worlds", open_now)
    monkeypatch.setattr(environments, "_shared", {})
    assert fitting(CUBE) == 22
    monkeypatch.setattr(environments, "_worlds", {})
    monkeypatch.setattr(environments, "_shared", {CUBE: 22})
    assert fitting(CUBE) == 22
