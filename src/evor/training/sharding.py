"""One run on the devices of a machine: each trains some of its seeds and tasks, or a share of every batch.

Networks exchange nothing. Seeds and tasks are split by `jax.shard_map`, so the program of a device is that of a run of its
own networks, and no device waits for another. Devices that train other tasks of the same seed train its base each, to
the same numbers. A batch is split by a constraint on what is sampled; the devices that share it sum their gradients.

A run on one device has no mesh, and nothing of this takes part in its program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from evor.data.columns import Columns
from evor.errors import EvorError, integer
from evor.runtime.words import counted
from evor.training.config import RunConfig
from evor.types import Outcome, Transition

SEEDS, TASKS, BATCH = AXES = ("seeds", "tasks", "batch")


class Devices(NamedTuple):
    """Numbers of devices that a run asks for."""

    networks: int | None = None  # for its seeds and tasks; None: as many of this machine's as divide them
    batch: int = 1  # for each batch


MOST = Devices()


class Split(NamedTuple):
    """Numbers of parts of a run's seeds, tasks and batches. A device takes one part of each."""

    seeds: int = 1
    tasks: int = 1
    batch: int = 1

    @property
    def devices(self) -> int:
        return self.seeds * self.tasks * self.batch


def split_of(config: RunConfig, devices: Devices, *, available: int | None = None) -> Split:
    """Split a run over the devices it asks for, its seeds before its tasks. Raises EvorError where that can't be.

    `available` is how many devices this machine has; left out, JAX is asked.
    """
    integer(1, batch_devices=devices.batch, devices=1 if devices.networks is None else devices.networks)
    there = len(jax.local_devices()) if available is None else available
    batch_size, seeds, tasks = config.agent.learning.batch_size, config.num_seeds, len(config.tasks)
    if batch_size % devices.batch:
        raise EvorError(
            f"batch_devices is {devices.batch}, and a batch of {batch_size} can't be split into so many equal parts; give "
            f"{_either(_divisors(batch_size, there), most=there)}."
        )
    by_seed, by_task = (_divisors(number, max(there, devices.networks or 1)) for number in (seeds, tasks))
    ways = {parts * others: (parts, others) for parts in by_seed for others in by_task}  # the last: most parts of seeds
    networks = f"{counted(seeds, 'seed')} x {counted(tasks, 'task')}"
    wanted = devices.networks or max((number for number in ways if number * devices.batch <= there), default=1)
    if wanted not in ways:
        raise EvorError(
            f"devices is {wanted}, and {networks} can't be split into so many equal parts; give "
            f"{_either(list(ways), most=there)}."
        )
    if wanted * devices.batch > there:
        asked = f"devices is {wanted}" + (f" and batch_devices {devices.batch}" if devices.batch > 1 else "")
        raise EvorError(f"{asked}, and JAX finds {counted(there, 'device')} here; ask for no more.")
    return Split(*ways[wanted], devices.batch)


def _divisors(number: int, most: int) -> list[int]:
    return [part for part in range(1, min(number, most) + 1) if number % part == 0]


def _either(numbers: list[int], *, most: int) -> str:
    """`1, 3 or 5`: the numbers up to `most`."""
    *others, last = sorted(number for number in numbers if number <= most)
    return f"{', '.join(map(str, others))} or {last}" if others else str(last)


def mesh_of(split: Split) -> Mesh | None:
    """The devices of a split, None where it is one."""
    if split.devices == 1:
        return None
    devices = np.array(jax.local_devices()[: split.devices]).reshape(split)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def over_networks(function: Callable[..., Any], mesh: Mesh, *, arguments: Any, results: Any) -> Callable[..., Any]:
    """A function that runs on every device with its own seeds and tasks. Specs say how arguments and results lie.

    XLA splits only the batches, and only where the mesh does.
    """
    manual = {SEEDS, TASKS} if mesh.shape[BATCH] > 1 else set(AXES)
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, axis_names=manual, check_vma=False)


def put(tree: Any, specs: Any, *, mesh: Mesh | None) -> Any:
    """Arrays on the devices where `specs`, a prefix of the tree, say that they lie."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, shardings(specs, mesh))


def shardings(specs: Any, mesh: Mesh) -> Any:
    """The shardings of specs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P))


def put_columns(columns: Columns, *, mesh: Mesh | None) -> Columns:
    """Columns on every device: all rows, and of what is stored by seed or task the part of its own."""
    return columns if mesh is None else jax.device_put(columns, shardings(column_specs(columns), mesh))


def column_specs(columns: Columns) -> Columns:
    """Specs of columns: where tasks lead, by task; proposals by seed, if they are not those of all seeds."""
    by_task = dict.fromkeys(("rewards", "discounts", "weights", "rewards_to_go"), P(TASKS))
    of_seeds = columns.proposals is not None and len(columns.proposals) > 1
    others = {"return_bounds": P(None, TASKS), "proposals": P(SEEDS) if of_seeds else P()}
    specs: dict[str, Any] = dict.fromkeys(Columns._fields, P()) | by_task | others
    stored: dict[str, Any] = {name: spec for name, spec in specs.items() if getattr(columns, name) is not None}
    return columns._replace(**stored)


def share_batch(batch: Transition, outcomes: Outcome) -> tuple[Transition, Outcome]:
    """A batch [B, ...] and its outcomes [K, B], split over the devices that share it."""
    if jax.sharding.get_abstract_mesh().shape.get(BATCH, 1) == 1:
        return batch, outcomes
    shared = jax.lax.with_sharding_constraint
    return (
        jax.tree.map(lambda leaf: shared(leaf, P(BATCH)), batch),
        jax.tree.map(lambda leaf: shared(leaf, P(None, BATCH)), outcomes),
    )
