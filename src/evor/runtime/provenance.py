"""Provenance of a number: versions, hardware, commit."""

import contextlib
import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evor.errors import EvorError

DEVICE_VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")  # with them, a user asks for a kind of device
RESERVED = "XLA_PYTHON_CLIENT_PREALLOCATE"  # whether JAX takes most of a GPU's memory as it starts
PACKAGES = ("jax", "jaxlib", "numpy", "equinox", "optax", "ogbench", "mujoco", "dm_control", "gymnasium")


def versions() -> dict[str, str]:
    """Installed versions of what can change a result."""
    installed = {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}
    return installed | {"evor": sys.modules["evor"].__version__}  # it may run from its source tree


@functools.cache  # files are read for it
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def hardware() -> dict[str, Any]:
    """The processor, its cores and JAX's device ("none" where JAX finds none)."""
    return processor() | {"device": _device() or "none"}


def processor() -> dict[str, str]:
    """The processor, its cores and the system, without a question to JAX, which would take a GPU's memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("model name")
        ]
        model = f"{len(names)} x {names[0]}" if names else model
    return {"cpu": model, "system": platform.platform(terse=True)}


def leave_memory() -> None:
    """Start JAX, and leave a GPU's memory to the processes that this one will start."""
    before = os.environ.get(RESERVED)
    os.environ[RESERVED] = "false"
    try:
        _device()
    finally:
        del os.environ[RESERVED]
        if before is not None:
            os.environ[RESERVED] = before


def check_device() -> None:
    """Raise EvorError where JAX finds no device to compute on."""
    if _device() is None:
        asked = next((name for name in DEVICE_VARIABLES if os.environ.get(name)), None)
        raise EvorError(
            f"{asked} is {os.environ[asked]!r}, and JAX finds no such device here; set {asked}=cpu or unset it, or install "
            "JAX's plugin for it."
            if asked
            else "JAX finds no device to compute on; set JAX_PLATFORMS=cpu."
        )


def _device() -> str | None:
    """The kind of JAX's first device."""
    import jax

    try:
        return jax.devices()[0].device_kind
    except (RuntimeError, AssertionError):  # JAX 0.10 raises either, by what is missing
        return None


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far; NaN where the system does not tell.

    (getrusage also counts what its parent held when it was started.)
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8", errors="replace").splitlines() if status.exists() else ["VmHWM: nan"]
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak_memory() -> None:
    """Let `peak_memory_mib` begin anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def commit() -> str | None:
    """The commit of the source tree evor runs from, with "+changes" where its code is dirty.

    Outside git what EVOR_COMMIT says, for a machine that was sent the tree alone; else None.
    """

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return os.environ.get("EVOR_COMMIT")  # some other repository that evor happens to be installed inside
        return git("rev-parse", "--short=12", "HEAD") + (
            "+changes"
            if git("status", "--porcelain", "-uno", ":/", ":(top,exclude)docs", ":(top,exclude)README.md")
            else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("EVOR_COMMIT")


def provenance(machine: Callable[[], dict[str, Any]] = hardware) -> dict[str, Any]:
    """Versions, hardware and commit, ready for JSON. `processor` as `machine` asks JAX nothing."""
    return {"versions": versions(), "hardware": machine(), "commit": commit()}
