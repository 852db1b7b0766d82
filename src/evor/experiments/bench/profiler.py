"""Kernels that a compiled call runs on the device, from a trace of JAX's profiler."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from evor.errors import EvorError


class Kernel(NamedTuple):
    """One stretch of work on the device, in nanoseconds of the trace's clock."""

    name: str
    start: float
    end: float


def profile(call: Callable[[], Any], *, longest: int = 12) -> dict[str, Any]:
    """Run `call` under the profiler: seconds from the first kernel to the last, the share of them in which any ran, how
    many ran, and the seconds of those that took longest, by name.

    On a CPU, where one stretch of work is nested in another, only the share tells something. Raises EvorError where the
    trace holds no kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        (path,) = Path(folder).rglob("*.xplane.pb")
        kernels = list(_kernels(jax.profiler.ProfileData.from_file(str(path))))
    if not kernels:
        raise EvorError("the profiler saw no kernel; the user may lack the right to read the device's counters.")
    names: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        names[kernel.name] += (kernel.end - kernel.start) / 1e9
    seconds = (max(k.end for k in kernels) - min(k.start for k in kernels)) / 1e9
    ranked = sorted(names.items(), key=lambda item: -item[1])
    return {
        "seconds": seconds,
        "busy": busy_seconds(kernels) / seconds,
        "kernels": len(kernels),
        "longest": dict(ranked[:longest]),
    }


def busy_seconds(kernels: Iterable[Kernel]) -> float:
    """Seconds in which at least one kernel ran."""
    total, reached = 0.0, 0.0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        total += max(0.0, kernel.end - max(kernel.start, reached))
        reached = max(reached, kernel.end)
    return total / 1e9


def _kernels(data: Any) -> Iterable[Kernel]:
    """Kernels of a GPU's streams, or of the CPU's worker threads without a GPU."""
    on_gpu = [plane for plane in data.planes if plane.name.startswith("/device:GPU")]
    prefix = "Stream" if on_gpu else "tf_XLA"
    for plane in on_gpu or data.planes:
        for line in plane.lines:
            if line.name.startswith(prefix):
                for event in line.events:
                    if event.duration_ns > 0:
                        yield Kernel(name=event.name, start=event.start_ns, end=event.start_ns + event.duration_ns)
