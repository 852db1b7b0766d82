"""Ray, as far as no cluster is needed: what is refused at the start, and what a job is given."""

import importlib.util
import platform
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from evor.cli.main import main
from evor.errors import EvorError
from evor.runtime import cluster
from evor.runtime.cluster import Check, Share, resolve
from evor.runtime.parallel import Ray, parallel_map

HEAD, CPUS, GPUS = {"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}
MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.4
This process on node 10.0.0.7 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


def cluster_of(address, **options):
    return list(parallel_map(print, [()], Ray(address, **options)))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvorError, match=r"pip install 'evor\[ray\]'"):
        cluster_of("auto")


def test_where_nothing_listens_there_is_no_cluster():
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EvorError, match=rf"no Ray cluster answers at {address} \(Connection refused\)"):
            cluster_of(address)
    for place in ("somewhere", "localhost:99999"):
        with pytest.raises(EvorError, match=f"--ray '{place}' is no address; give auto or HOST:PORT"):
            cluster_of(place)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError(MISMATCH),
            r"runs Ray 2\.59\.0 and Python 3\.12\.4; here are Ray 2\.60\.0, Python 3\.11\.7\. Install",
        ),
        (
            ConnectionError("Could not find any running Ray instance."),
            r"no Ray cluster answers at auto \(Could not find",
        ),
        (
            ConnectionError("Failed to connect to Ray cluster at auto"),  # what Ray says where it refuses the token
            r"the cluster at auto can't be joined \(Failed .*\)\. Set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here as on",
        ),
    ],
)
def test_a_cluster_that_can_not_be_joined(error, told, monkeypatch):
    def init(address, **_):
        raise error

    fake = SimpleNamespace(init=init, exceptions=SimpleNamespace(RayError=OSError))
    monkeypatch.setattr(cluster.importlib, "import_module", lambda name: fake)
    with pytest.raises(EvorError, match=told):
        cluster_of("auto")


@pytest.mark.parametrize(
    ("asked", "nodes", "share"),
    [
        ({}, [HEAD, CPUS], Share(0, 1)),
        ({}, [HEAD, CPUS, GPUS], Share(0.75, 4)),
        ({}, [{"CPU": 2.0, "GPU": 1.0}], Share(0.75, 2)),
        ({"gpus": 4.0, "cpus": 16}, [CPUS, GPUS], Share(4.0, 16)),
        ({"gpus": 0.0}, [GPUS], Share(0.0, 1)),
    ],
)
def test_a_job_takes_a_share_of_a_machine(asked, nodes, share):
    assert resolve(Ray("auto", **asked), nodes) == share


@pytest.mark.parametrize("asked", [{"gpus": 5.0}, {"cpus": 17}, {"gpus": 1.0, "cpus": 17}])
def test_what_no_machine_has_is_refused(asked):
    """Ray would wait for it, and say nothing."""
    with pytest.raises(
        EvorError,
        match=r"no machine of the cluster has .* they have 0 GPUs and 8 CPUs, 4 GPUs and 16 CPUs\. Give smaller",
    ):
        resolve(Ray("auto", **asked), [CPUS, GPUS])


def test_the_environment_of_a_job(monkeypatch):
    monkeypatch.delenv("PJRT_NPROC")
    shares = [Share(0, 1).variables(), Share(0.25, 4).variables(), Share(1, 4).variables()]
    assert [each.get("JAX_PLATFORMS") for each in shares] == ["cpu", None, None]
    assert [each.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for each in shares] == [None, "0.225", None]
    assert [(each["PJRT_NPROC"], each["EVOR_CORES"]) for each in shares] == [("1", "1"), ("1", "4"), ("1", "4")]


def test_a_machine_that_does_not_see_the_storage_is_named(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(cluster.time, "sleep", waited.append)
    check = Check(tmp_path / "nonce", (tmp_path / "data",), version=cluster.versions()["evor"])
    with pytest.raises(
        EvorError, match=rf"^{platform.node()} does not see {tmp_path}; it must lie on storage that all"
    ):
        check.hold()
    assert waited == [1] * cluster.SEEN  # for a network file system
    (tmp_path / "nonce").touch()
    with pytest.raises(EvorError, match=f"does not see {tmp_path / 'data'}; it must lie on storage that all"):
        check.hold()
    (tmp_path / "data").mkdir()
    check.hold()
    with pytest.raises(EvorError, match=rf"^{platform.node()} has evor .*, and the driver 0\.0\.1; install the same"):
        check._replace(version="0.0.1").hold()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ray", "auto", "--workers", "2"], "--workers counts processes of this machine"),
        (["--gpus", "1"], "--gpus goes with --ray"),
        (["--cpus", "1"], "--cpus goes with --ray"),
        (["--ray", "auto", "--gpus", "1.5"], "--gpus is 1.5; it must be a share from 0 to 1, or a whole number"),
        (["--ray", "auto", "--gpus", "inf"], "--gpus is inf; it must be a share from 0 to 1, or a whole number"),
        (["--ray", "auto", "--cpus", "0"], "cpus is 0; it must be at least 1"),
        (["--workers", "0"], "workers is 0; it must be at least 1"),
    ],
)
@pytest.mark.parametrize("verb", [["verify"], ["reproduce", "paper"]])
def test_options_that_do_not_go_together(verb, words, told, tmp_path, capsys):
    assert main([*verb, "--out", str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "verb", [["verify"], ["reproduce", "paper"], ["data", "generate", "pointmaze-medium-stitch-v0"]]
)
def test_without_a_cluster_nothing_is_written(verb, tmp_path, capsys, monkeypatch):
    """Neither a folder of results, nor data that were generated for them."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main([*verb, "--out", "out", "--ray", address]) == 2
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_jobs_that_wait_are_cancelled_before_those_that_run(tmp_path):
    """Else each one that is cancelled makes room for another, and Ray aborts the driver."""
    cancelled = []
    pool = object.__new__(cluster.Cluster)
    pool._ray = SimpleNamespace(cancel=cancelled.append, wait=lambda *_, **__: None, shutdown=lambda: None)
    pool._running, pool._check = {"first": 0, "second": 1}, Check(tmp_path / "nonce", (), "0")
    pool.close(interrupt=True)
    assert cancelled == ["second", "first"]


def test_ray_is_not_imported_by_who_does_not_use_it():
    program = """
import sys
from evor.cli.main import main
from evor.cli import data, reproduce, verify
from evor.runtime.parallel import Local, parallel_map
main(["--help"])
list(parallel_map(abs, [(-1,)], Local(1)))
list(parallel_map(abs, [(-1,)], Local(1, pin_cores=True)))
sys.exit("ray" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0
