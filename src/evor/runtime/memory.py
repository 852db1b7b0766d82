"""Tell how much memory is free and what needs how much, and give back what was freed."""

import contextlib
import ctypes
import math
from collections.abc import Iterator
from pathlib import Path


def size_text(count: float) -> str:
    """A number of bytes for a reader: 12 KiB, 1.5 MiB, 230 MiB."""
    kib = count / 2**10
    return f"{kib:.0f} KiB" if kib < 1000 else f"{kib / 2**10:.{kib < 10 * 2**10:d}f} MiB"


def free_memory(root: Path = Path("/")) -> float:
    """Bytes that this process may still take, infinity where the system does not say.

    The least of what the machine has left and of what each control group around this process has left; a container is
    one. Files that the system keeps in memory can be dropped, so they count as free. `root` is where /proc and /sys lie.
    """
    limits = [math.inf, *_groups(root)]
    with contextlib.suppress(OSError, KeyError, ValueError):
        limits.append(1024 * _numbers(root / "proc/meminfo")["MemAvailable:"])
    return max(0.0, min(limits))


def _groups(root: Path) -> Iterator[float]:
    """Bytes left in every memory control group around this process that has a limit, of either version of the interface."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inner = top / path.lstrip("/")
        limit, usage = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        for group in (inner, *inner.parents):
            if group.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):  # a group without a limit says "max" or has no file
                    unused = int((group / f"memory.{limit}").read_text()) - int((group / f"memory.{usage}").read_text())
                    stored = _numbers(group / "memory.stat")
                    yield unused + sum(stored.get(f"{kind}_file", 0) for kind in ("active", "inactive"))


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line of a system file by its first word."""
    return {words[0]: int(words[1]) for line in path.read_text().splitlines() if len(words := line.split()) > 1}


def give_back() -> None:
    """Return freed memory to the system, where the C library can; it would keep about a third of it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
