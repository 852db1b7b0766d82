"""A Ray cluster of two nodes, all on this machine, for slow tests (the fixture `machines`)."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 240  # seconds for any one thing

# A head that runs nothing and two nodes of one CPU. It is a process of its own, for Ray forks. A line on stdin replaces dead
# nodes; at its end all is over.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = []
try:
    line = "first"
    while line:
        for node in list(nodes):
            if not node.any_processes_alive() or not node.remaining_processes_alive():
                nodes.remove(node)
                cluster.remove_node(node, allow_graceful=False)
        while len(nodes) < 2:
            nodes.append(cluster.add_node(num_cpus=1))
        print(cluster.address, flush=True)
        line = sys.stdin.readline()
finally:
    cluster.shutdown()
"""


class Machines:
    """A running cluster."""

    def __init__(self, folder: Path):
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._process.stdout.readline().strip()
        assert self.address

    def mend(self) -> None:
        """Replace dead nodes."""
        self._process.stdin.write("mend\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == self.address

    def end(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.stdout.close()


@contextmanager
def running() -> Generator[Machines]:
    """Run a cluster. Nothing of it is left: no process, and no file but in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="evor-ray-", dir="/tmp"))  # sockets need a short path
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", str(folder))  # where Ray writes its address, into a folder that must be there
        (folder / "ray").mkdir()
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        (folder / "home").mkdir()
        there = Machines(folder / "ray")
        try:
            yield there
        finally:
            there.end()
            assert not (folder / "home" / ".ray").exists()
            shutil.rmtree(folder)
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in read(path)] == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
