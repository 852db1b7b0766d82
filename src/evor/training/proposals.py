"""Draws of a trained base policy for many observations: made once, looked up by the targets of all tasks."""

import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evor.agents.bc import FlowPolicy
from evor.agents.registry import AGENTS
from evor.data.columns import Columns
from evor.nn.batching import each_example
from evor.nn.engine import key_of, pinned
from evor.runtime.parallel import usable_cores
from evor.runtime.tensors import bytes_of
from evor.search.extraction import propose
from evor.training import checkpoint
from evor.training.config import RunConfig
from evor.training.drawn import DrawnRows

ROWS = 4096  # that are drawn in one compiled call
IDENTIFIED = 1000  # observations that tell one set from another; a longer one begins with those of a shorter one
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
    """Draws [N, P, H] of every seed's trained base policy, in a folder of their own.

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
        return self._files.draw(self._rows_from, stop, ahead=len(usable_cores()))  # one block is computed on each core

    def read(self) -> Float[Array, "S N P H"]:
        """All draws, after `draw` has made them."""
        return jnp.asarray(np.stack(self._files.read()))

    @functools.cached_property
    def _files(self) -> DrawnRows:
        names = tuple(f"seed{seed}" for seed in self._seeds)
        shape = (len(self._observations), *self._shape)
        return DrawnRows(self._folder, names, shape=shape, block=ROWS, identity=self._identity())

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

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self._observations[:IDENTIFIED]).tobytes())
        for name, array in sorted(checkpoint.flatten(self._networks).items()):
            digest.update(name.encode())
            digest.update(bytes_of(array))
        return {
            "drawn_with": digest.hexdigest()[:16],
            "number": self._number,
            "flow_steps": self._agent.flow_steps,
            "seeds": list(self._seeds),
        }


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
