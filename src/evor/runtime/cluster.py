"""Jobs on a Ray cluster that runs already: tasks and files on shared storage, nothing else of Ray.

Ray is optional, and imported when a cluster is used.
"""

import importlib
import importlib.util
import os
import platform
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from evor.errors import EvorError, why
from evor.runtime import parallel
from evor.runtime.files import unique, write_text
from evor.runtime.parallel import CORES, GPU_MEMORY, MEMORY_FRACTION, Ended, Ray, RemoteTraceback
from evor.runtime.provenance import commit, versions

CONNECTING = 10.0  # seconds until a cluster must answer
MOST_OF_A_GPU, LIGHT = 0.75, 0.25  # of a GPU: what a job takes where nothing else is said, and what a light one takes
SEEN = 10  # seconds in which a new file must appear on every machine


class Share(NamedTuple):
    """Share of a machine that a job takes."""

    gpus: float
    cpus: int

    def variables(self) -> dict[str, str]:
        """Environment of a job's process."""
        variables = {"PJRT_NPROC": os.environ.get("PJRT_NPROC", "1"), "MUJOCO_GL": "disable", CORES: str(self.cpus)}
        if made := commit():
            variables["EVOR_COMMIT"] = made
        if self.gpus == 0:  # Ray hides no GPU from who asks for none
            variables["JAX_PLATFORMS"] = "cpu"
        elif self.gpus < 1:
            variables[MEMORY_FRACTION] = f"{GPU_MEMORY * self.gpus:.3f}"
        return variables


class Cluster:
    """Pool on a Ray cluster, see `evor.runtime.parallel.Pool`. Raises EvorError where the cluster can't run such jobs."""

    def __init__(
        self,
        function: Callable[..., Any],
        machines: Ray,
        *,
        shared: Path,
        reads: Iterable[Path],
        light: Callable[..., bool],
    ):
        self._function, self._light = function, light
        self._ray = _joined(machines.address)
        try:
            full = _share(self._ray, machines)
            small = full._replace(gpus=min(full.gpus, LIGHT))
            self._remote = {share: self._task(share) for share in {full, small}}
            self._full, self._small = full, small
            self._check = Check(shared.absolute() / f".shared-{unique()}", tuple(reads), versions()["evor"])
            write_text(self._check.file, "Every machine of the cluster must see this file.\n")
        except BaseException:
            self._ray.shutdown()
            raise
        self._running: dict[Any, int] = {}  # tickets of references
        self._killed: list[Ended] = []

    def _task(self, share: Share) -> Any:
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": 0}
        return self._ray.remote(runtime_env={"env_vars": share.variables()}, **options)(_run)

    def submit(self, ticket: int, job: tuple, *, after: int | None = None) -> None:
        """Hand a job to Ray, which has an order of its own."""
        task = self._remote[self._small if self._light(*job) else self._full]
        self._running[task.remote(self._check, self._function, job=job)] = ticket

    def full(self) -> bool:
        return False

    def ended(self, seconds: float | None) -> list[Ended]:
        killed, self._killed = self._killed, []
        if killed:
            return killed
        references, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._ended(reference) for reference in references]

    def _ended(self, reference: Any) -> Ended:
        ticket, errors = self._running.pop(reference), self._ray.exceptions
        try:
            return Ended(ticket, self._ray.get(reference))
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, KeyboardInterrupt):  # somebody ended this one process, and it has saved
                return Ended(ticket, died="interrupted")
            cause.__cause__ = RemoteTraceback(str(error))
            return Ended(ticket, error=cause)
        except errors.RayError as error:  # its process, its machine or the memory there
            return Ended(ticket, died=type(error).__name__)

    def kill(self, ticket: int, why: str) -> None:
        """End a job by force, as far as its machine can be reached. Its lock keeps it from writing beside its successor."""
        for reference, running in list(self._running.items()):
            if running == ticket:
                del self._running[reference]
                self._ray.cancel(reference, force=True)
                self._killed.append(Ended(ticket, died=why))

    def close(self, *, interrupt: bool) -> None:
        try:
            if interrupt and self._running:
                # What waits, first: Ray aborts the driver where a task is cancelled while it starts or ends.
                for reference in reversed(self._running):
                    self._ray.cancel(reference)  # SIGINT: training saves and ends
                self._ray.wait(list(self._running), num_returns=len(self._running), timeout=parallel.GRACE)
        finally:
            with suppress(OSError):
                self._check.file.unlink(missing_ok=True)
            self._ray.shutdown()


def check_cluster(machines: Ray) -> None:
    """Raise EvorError where a cluster can't be joined, or no machine of it has what a job takes."""
    ray = _joined(machines.address)
    try:
        _share(ray, machines)
    finally:
        ray.shutdown()


def _share(ray: Any, machines: Ray) -> Share:
    return resolve(machines, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def resolve(machines: Ray, nodes: list[dict[str, float]]) -> Share:
    """The share of a machine that a job takes. Raises EvorError where no machine of the cluster has so much."""
    has_gpus = any(node.get("GPU", 0.0) > 0 for node in nodes)
    most = max((int(node.get("CPU", 0.0)) for node in nodes if not has_gpus or node.get("GPU", 0.0)), default=0)
    gpus = machines.gpus if machines.gpus is not None else MOST_OF_A_GPU * has_gpus
    cpus = machines.cpus if machines.cpus is not None else max(1, min(4, most)) if gpus else 1
    if not any(node.get("GPU", 0.0) >= gpus and node.get("CPU", 0.0) >= cpus for node in nodes):
        there = ", ".join(
            sorted({f"{node.get('GPU', 0.0):g} GPUs and {node.get('CPU', 0.0):g} CPUs" for node in nodes})
        )
        raise EvorError(
            f"no machine of the cluster has {gpus:g} GPUs and {cpus} CPUs; they have {there}. Give smaller --gpus or --cpus."
        )
    return Share(gpus, cpus)


def _joined(address: str) -> Any:
    """The package ray, in a cluster.

    Raises EvorError where it is not installed, no cluster answers in bounded time, or the cluster has other versions.
    """
    if importlib.util.find_spec("ray") is None:
        raise EvorError(
            "--ray needs the package ray, which is not installed; install it with: pip install 'evor[ray]'."
        )
    if address != "auto":
        _check_address(address)  # Ray would wait long
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # tries, of half a minute each; Ray's own are 20
    ray: Any = importlib.import_module("ray")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise EvorError(_refusal(address, error)) from error
    finally:  # Ray has a handler of its own for SIGTERM
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return ray


def _check_address(address: str) -> None:
    """Raise EvorError where nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise EvorError(f"--ray {address!r} is no address; give auto or HOST:PORT, such as --ray 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECTING).close()
    except (OSError, OverflowError) as error:
        raise EvorError(_refusal(address, error)) from error


def _refusal(address: str, error: Exception) -> str:
    """Say why a cluster was not joined."""
    stated = re.search(r"Ray: (\S+)\s+Python: (\S+).*Ray: (\S+)\s+Python: (\S+)", str(error), flags=re.DOTALL)
    if stated:
        theirs, mine = (
            "Ray {} and Python {}".format(*stated.groups()[:2]),
            "Ray {}, Python {}".format(*stated.groups()[2:]),
        )
        return f"the cluster at {address} runs {theirs}; here are {mine}. Install the same versions on every machine."
    if re.search(r"authenticat|token|failed to connect", str(error), flags=re.IGNORECASE):
        return (
            f"the cluster at {address} can't be joined ({why(error)}). Set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here as on "
            "its machines, or correct --ray."
        )
    return f"no Ray cluster answers at {address} ({why(error)}). Start one with `ray start --head`, or correct --ray."


# On the machines.


class Check(NamedTuple):
    """Needs of a job on its machine: a file on the shared storage, what it reads, and the driver's version of evor."""

    file: Path
    reads: tuple[Path, ...]
    version: str

    def hold(self) -> None:
        """Raise EvorError, naming this machine, where it lacks one."""
        here = platform.node()
        if (version := versions()["evor"]) != self.version:
            raise EvorError(
                f"{here} has evor {version}, and the driver {self.version}; install the same version on every machine."
            )
        for _ in range(SEEN):
            if not (unseen := [path for path in (self.file, *self.reads) if not path.exists()]):
                return
            time.sleep(1)
        path = self.file.parent if unseen[0] == self.file else unseen[0]
        raise EvorError(
            f"{here} does not see {path}; it must lie on storage that all machines share, at the same path."
        )


def _run(check: Check, function: Callable[..., Any], *, job: tuple) -> Any:
    """Run a job on the machine that Ray has chosen."""
    check.hold()
    with _interruptible():
        return function(*job)


@contextmanager
def _interruptible() -> Generator[None]:
    """Inside, Ctrl-C is an exception, as `ray.cancel` sends it."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
