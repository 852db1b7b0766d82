"""Saving and reading a training state of 1 GiB: processor time, and memory beyond the state.

`make checkpoints` measures on one device and on four simulated ones, each in a process of its own, and writes
docs/results/checkpoints.json. The files are written into a temporary folder (TMPDIR). A disk's own time is not counted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evor.runtime.files import write_json
from evor.runtime.memory import give_back
from evor.runtime.parallel import Local, parallel_map
from evor.runtime.progress import screen
from evor.runtime.provenance import forget_peak_memory, peak_memory_mib, provenance
from evor.runtime.words import counted

RESULTS = Path("docs/results/checkpoints.json")
SEEDS, TASKS = 4, (1, 2, 3, 4)


def state_of(mib: int, devices: int) -> Any:
    """Random networks of 4 seeds x 4 tasks that take at least so much, on so many devices."""
    import jax
    import numpy as np

    from evor.agents.registry import PRESETS
    from evor.runtime.records import replace
    from evor.training.config import RunConfig
    from evor.training.sharding import Devices, mesh_of, split_of
    from evor.training.update import put_state, state_shapes
    from evor.types import Spec

    def bytes_in(tree: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    width = 64
    while True:
        agent = replace(PRESETS["default"], hidden=(width,) * 4)
        config = RunConfig(data="-", num_seeds=SEEDS, tasks=TASKS, agent=agent)
        shapes = state_shapes(config, Spec(37, 5))
        if bytes_in(shapes) >= mib * 2**20:
            break
        width += 16
    generator = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, np.float32).astype(leaf.dtype), shapes)
    mesh = mesh_of(split_of(config, Devices(devices)))
    state = put_state(state, mesh=mesh)
    return jax.block_until_ready(jax.tree.map(lambda leaf: leaf + 0, state))


def measure(mib: int, devices: int) -> dict[str, Any]:
    """Save the state and read it back."""
    from evor.training import checkpoint

    state = state_of(mib, devices)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        saved = taken(lambda: checkpoint.save_arrays(path, state, metadata={}))
        read = taken(lambda: checkpoint.load_arrays(path))
        size = path.stat().st_size / 2**20
    return {"devices": devices, "mib": size, "save": saved, "read": read}


def taken(call: Callable[[], Any]) -> dict[str, float]:
    """Processor seconds of a call, its time by the clock, and the peak of memory above what there was."""
    give_back()
    forget_peak_memory()
    before, processor, clock = peak_memory_mib(), time.process_time(), time.monotonic()
    kept = call()
    seconds = {"cpu_seconds": time.process_time() - processor, "seconds": time.monotonic() - clock}
    del kept
    return seconds | {"peak_mib": peak_memory_mib() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="of the state, at least")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    rows = []
    for devices in (1, 4):
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
        rows += parallel_map(measure, [(arguments.mib, devices)], Local(1, pin_cores=True))
    write_json(arguments.out, {"rows": rows, **provenance()})
    for row in rows:
        for what in ("save", "read"):
            told = ", ".join(f"{name} {value:.2f}" for name, value in row[what].items())
            screen.print(f"{row['mib']:.0f} MiB, {counted(row['devices'], 'device')}, {what}: {told}")


if __name__ == "__main__":
    main()
