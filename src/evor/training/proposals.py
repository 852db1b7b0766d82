"""Draws of a trained base policy for many observations: made once, looked up by the targets of all tasks."""

import functools
import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evor.agents.bc import FlowPolicy
from evor.agents.registry import AGENTS
from evor.data.columns import Columns
from evor.errors import EvorError, why
from evor.nn.batching import each_example
from evor.nn.engine import key_of, pinned
from evor.runtime.files import read_json, write_json
from evor.runtime.parallel import usable_cores
from evor.runtime.progress import progress_bar
from evor.search.extraction import propose
from evor.training import checkpoint
from evor.training.config import RunConfig

ROWS = 4096  # that are drawn in one compiled call
IDENTIFIED = 1000  # observations that tell one set from another; a longer one begins with those of a shorter one
TOLD = "proposals.json"  # what was drawn with, and how long it took
STREAM = 2  # of a seed's randomness; its networks and its updates have the others


def visited(config: RunConfig, columns: Columns, *, block: int, total: int) -> Columns:
    """Columns whose rows are those that a run visits often, with room for their proposals: a shape.

    Of more updates the rows are those of fewer and some more, so that draws stay useful where a run is extended. `total`
    is the number of rows of all blocks.
    """
    first = AGENTS[type(config.agent)].base_first(config.agent)
    if first is None:
        return columns
    wanted = config.updates * config.agent.learning.batch_size / first.visits
    there, size = int(columns.count), len(columns.sampled_rows)
    number, most = (math.ceil(min(1.0, wanted / total) * rows) for rows in (there, size))
    picked = np.asarray(columns.sampled_rows)[np.random.default_rng([0, block]).permutation(there)[:number]]
    rows = np.zeros(most, np.int32)
    rows[:number] = picked
    width = columns.actions.shape[1] * config.agent.chunk_length
    room: Any = jax.ShapeDtypeStruct((config.num_seeds, most, first.num_proposals, width), jnp.float32)
    return columns._replace(sampled_rows=jnp.asarray(rows), count=jnp.asarray(number, jnp.int32), proposals=room)


def with_draws(columns: Columns, proposals: Float[Array, "S N P H"]) -> Columns:
    """Columns with proposals of their first rows, in the room that `visited` has made."""
    assert columns.proposals is not None
    return columns._replace(proposals=jnp.zeros(columns.proposals.shape).at[:, : proposals.shape[1]].set(proposals))


class ProposalStore:
    """A folder with a file of draws [N, P, H] for every seed, float32. Files grow row by row, and rows that are there stay.

    They belong to the networks, observations and settings they were drawn with. For others they are drawn anew.
    """

    def __init__(
        self,
        folder: Path,
        *,
        agent: FlowPolicy,
        base: Any,
        seeds: tuple[int, ...],
        observations: Float[Array | np.ndarray, "N O"],
        number: int,
        block: int = 0,
    ):
        networks, _ = AGENTS[type(agent)].inference_networks(base, (), config=agent)
        self._folder, self._agent, self._networks, self._seeds = folder, agent, networks, seeds
        self._observations, self._number = jnp.asarray(observations), number
        self._block = block

    @pinned
    def draw(self, stop: Callable[[], object]) -> bool:
        """Draw the rows that are missing. Returns False where `stop()` says so before all are drawn.

        Raises EvorError where the folder can't be written.
        """
        started = time.monotonic()
        try:
            told = self._claim()
            complete = self._draw(stop)
            write_json(self._folder / TOLD, told | {"seconds": round(told["seconds"] + time.monotonic() - started, 1)})
        except OSError as error:
            raise EvorError(f"{self._folder} can't be written ({why(error)}); free some space and resume.") from error
        return complete

    def _draw(self, stop: Callable[[], object]) -> bool:
        rows = len(self._observations)
        done = [self._rows(index) for index in range(len(self._seeds))]
        with progress_bar("draw proposals", rows * len(done), done=sum(done), unit="rows") as advance:
            for index, first in enumerate(done):
                with open(self._path(index), "ab") as file, ThreadPoolExecutor(len(usable_cores())) as pool:
                    waiting: deque = deque()  # one block is computed on each core
                    for row in range(first, rows, ROWS):
                        waiting.append(pool.submit(self._rows_from, index, row))
                        if len(waiting) > len(usable_cores()):
                            advance(_append(file, waiting.popleft().result()))
                        if stop():
                            return False
                    while waiting:
                        advance(_append(file, waiting.popleft().result()))
                    file.flush()
                    os.fsync(file.fileno())
        return True

    def read(self) -> Float[Array, "S N P H"]:
        """All draws, after `draw` has made them."""
        shape = (len(self._observations), *self._shape)
        paths = map(self._path, range(len(self._seeds)))
        return jnp.asarray(np.stack([np.memmap(path, np.float32, "r", shape=shape) for path in paths]))

    @pinned  # in a thread of its own, which settings of another do not reach
    def _rows_from(self, index: int, row: int) -> Float[np.ndarray, "B P H"]:
        """Draws for some rows from `row` on."""
        network = jax.tree.map(lambda leaf: leaf[index], self._networks)
        seed, size = jnp.asarray(self._seeds[index]), min(ROWS, len(self._observations))
        drawn = _draw_rows(
            network,
            self._observations,
            agent=self._agent,
            number=self._number,
            size=size,
            seed=seed,
            block=jnp.asarray(self._block),
            start=jnp.asarray(row),
        )
        return np.asarray(drawn[: len(self._observations) - row], np.float32)

    @functools.cached_property
    def _shape(self) -> tuple[int, int]:
        """Number and width of the draws of one row."""
        network = jax.tree.map(lambda leaf: leaf[0], self._networks)
        seed = jnp.asarray(0)
        draw = functools.partial(_draw_rows, agent=self._agent, number=self._number, size=1)
        drawn = jax.eval_shape(draw, network, self._observations, seed=seed, block=seed, start=seed)
        return drawn.shape[1:]

    def _path(self, index: int) -> Path:
        return self._folder / f"seed{self._seeds[index]}.f32"

    def _rows(self, index: int) -> int:
        """Rows of whole blocks in the file of a seed, which is cut to them: a block is always computed as one."""
        path, width = self._path(index), 4 * int(np.prod(self._shape))
        if not path.exists():
            return 0
        rows = min(path.stat().st_size // width, len(self._observations))
        rows = rows if rows == len(self._observations) else rows // ROWS * ROWS
        os.truncate(path, rows * width)
        return rows

    def _claim(self) -> dict[str, Any]:
        """Make the folder, remove what was drawn with something else, and return what is told of the draws."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path, identity = self._folder / TOLD, self._identity()
        if path.exists() and (told := read_json(path, seconds=float)).items() >= identity.items():
            return told
        for file in self._folder.glob("seed*.f32"):
            file.unlink()
        write_json(path, told := identity | {"seconds": 0.0})
        return told

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self._observations[:IDENTIFIED]).tobytes())
        for name, array in sorted(checkpoint.flatten(self._networks).items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return {
            "drawn_with": digest.hexdigest()[:16],
            "number": self._number,
            "flow_steps": self._agent.flow_steps,
            "seeds": list(self._seeds),
        }


def _append(file: BinaryIO, drawn: np.ndarray) -> int:
    file.write(drawn.tobytes())
    return len(drawn)


@functools.partial(jax.jit, static_argnames=("agent", "number", "size"))
def _draw_rows(
    network: Any,
    observations: Float[Array | np.ndarray, "N O"],
    *,
    agent: FlowPolicy,
    number: int,
    size: int,
    seed: Int[Array, ""],
    block: Int[Array, ""],
    start: Int[Array, ""],
) -> Float[Array, "B P H"]:
    """Draws for `size` rows from `start` on. A row gets the same ones, whatever rows are drawn beside it."""
    key = jax.random.fold_in(jax.random.fold_in(key_of(seed), STREAM), block)

    def one(row: Array) -> Array:
        def draw(key: Array) -> Array:
            return AGENTS[type(agent)].propose(network, observations[row], flow_steps=agent.flow_steps, key=key)

        return propose(draw, number, key=jax.random.fold_in(key, row))

    rows = jnp.minimum(start + jnp.arange(size), len(observations) - 1)
    return each_example(one, rows, rows=number)
