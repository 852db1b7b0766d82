"""What a number came from: versions, hardware, commit."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "numpy", "equinox", "optax", "ogbench", "mujoco", "dm_control", "gymnasium")


def versions() -> dict[str, str]:
    """Installed versions of what can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"evor": sys.modules[__package__ or "evor"].__version__}  # it may run from its source tree


def hardware() -> dict[str, Any]:
    """The processor, its cores and JAX's device."""
    import jax

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{len(names)} x {names[0]}" if names else model
    return {"cpu": model, "device": jax.devices()[0].device_kind, "system": platform.platform(terse=True)}


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far; NaN where the system does not tell.

    (getrusage also counts what its parent held when it was started.)
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else ["VmHWM: nan"]
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


def provenance() -> dict[str, Any]:
    """Versions, hardware and commit, ready for JSON."""
    return {"versions": versions(), "hardware": hardware(), "commit": commit()}
