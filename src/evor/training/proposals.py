"""Draws of a trained base policy for many observations: made once, looked up by the targets of all tasks."""

import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evor.agents.registry import AGENTS, AgentConfig
from evor.errors import EvorError, why
from evor.nn.batching import each_example
from evor.nn.engine import key_of, pinned
from evor.runtime.files import read_json, write_json
from evor.runtime.parallel import usable_cores
from evor.runtime.progress import progress_bar
from evor.search.extraction import propose
from evor.training import checkpoint

ROWS = 4096  # that are drawn in one compiled call
IDENTIFIED = 1000  # observations that tell one set from another; a longer one begins with those of a shorter one
STREAM = 2  # of a seed's randomness; its networks and its updates have the others


class ProposalStore:
    """A folder with a file of draws [N, P, H] for every seed, float32. Files grow row by row, and rows that are there stay.

    They belong to the networks, observations and settings they were drawn with. For others they are drawn anew.
    """

    def __init__(
        self,
        folder: Path,
        *,
        agent: AgentConfig,
        base: Any,
        seeds: tuple[int, ...],
        observations: Float[Array | np.ndarray, "N O"],
        number: int,
    ):
        networks, _ = AGENTS[type(agent)].inference_networks(base, (), config=agent)
        self._folder, self._agent, self._networks, self._seeds = folder, agent, networks, seeds
        self._observations, self._number = jnp.asarray(observations), number

    @pinned
    def draw(self, stop: Callable[[], object]) -> Float[Array, "S N P H"] | None:
        """Draw the rows that are missing, and return all. Returns None where `stop()` says so before all are drawn.

        Raises EvorError where the folder can't be written.
        """
        try:
            return self._draw(stop)
        except OSError as error:
            raise EvorError(f"{self._folder} can't be written ({why(error)}); free some space and resume.") from error

    def _draw(self, stop: Callable[[], object]) -> Float[Array, "S N P H"] | None:
        self._claim()
        rows = len(self._observations)
        done = [self._rows(index) for index in range(len(self._seeds))]
        with progress_bar("draw proposals", rows * len(done), done=sum(done), unit="rows") as advance:
            for index, first in enumerate(done):
                with open(self._path(index), "ab") as file, ThreadPoolExecutor(len(usable_cores())) as pool:
                    waiting: deque = deque()  # one block is computed on each core
                    for row in range(first, rows, ROWS):
                        waiting.append(pool.submit(self._block, index, row))
                        if len(waiting) > len(usable_cores()):
                            advance(_append(file, waiting.popleft().result()))
                        if stop():
                            return None
                    while waiting:
                        advance(_append(file, waiting.popleft().result()))
                    file.flush()
                    os.fsync(file.fileno())
        shape = (rows, *self._shape)
        return jnp.asarray(np.stack([np.memmap(self._path(i), np.float32, "r", shape=shape) for i in range(len(done))]))

    @pinned  # in a thread of its own, which settings of another do not reach
    def _block(self, index: int, row: int) -> Float[np.ndarray, "B P H"]:
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
            start=jnp.asarray(row),
        )
        return np.asarray(drawn[: len(self._observations) - row], np.float32)

    @functools.cached_property
    def _shape(self) -> tuple[int, int]:
        """Number and width of the draws of one row."""
        network = jax.tree.map(lambda leaf: leaf[0], self._networks)
        seed = jnp.asarray(0)
        draw = functools.partial(_draw_rows, agent=self._agent, number=self._number, size=1)
        drawn = jax.eval_shape(draw, network, self._observations, seed=seed, start=seed)
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

    def _claim(self) -> None:
        """Make the folder, and remove what was drawn with something else."""
        self._folder.mkdir(exist_ok=True)
        path, identity = self._folder / "proposals.json", self._identity()
        if path.exists() and read_json(path) == identity:
            return
        for file in self._folder.glob("seed*.f32"):
            file.unlink()
        write_json(path, identity)

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
    agent: AgentConfig,
    number: int,
    size: int,
    seed: Int[Array, ""],
    start: Int[Array, ""],
) -> Float[Array, "B P H"]:
    """Draws for `size` rows from `start` on. A row gets the same ones, whatever rows are drawn beside it."""
    key = jax.random.fold_in(key_of(seed), STREAM)

    def one(row: Array) -> Array:
        def draw(key: Array) -> Array:
            return AGENTS[type(agent)].propose(network, observations[row], flow_steps=agent.flow_steps, key=key)

        return propose(draw, number, key=jax.random.fold_in(key, row))

    rows = jnp.minimum(start + jnp.arange(size), len(observations) - 1)
    return each_example(one, rows, rows=number)
