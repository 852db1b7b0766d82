"""Inputs of a policy, checked and padded to few sizes; its searches and its actions, checked."""

import functools
import math
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from evor.agents.contract import Config
from evor.agents.registry import AGENTS
from evor.envs.observations import Keys, flat_observation
from evor.errors import EvorError
from evor.nn.engine import key_of
from evor.runtime import arguments
from evor.runtime.progress import console
from evor.search.extraction import Extraction, Guided, Prior, action_steps, in_steps_of
from evor.search.guidance import InsideFlow
from evor.types import ActionBounds


@jax.jit  # outside of it these few operations cost more than a small decision
def keys_of(seeds: UInt32[Any, " B"]) -> Key[Array, " B"]:
    """A key per seed. Callers run under evor's settings of JAX, `pinned`."""
    return jax.vmap(key_of)(seeds)


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows, and zeros up to `size` of them."""
    if len(rows) == size:
        return rows
    filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return filled


def ladder(count: int) -> tuple[int, int | None]:
    """The size that a batch of `count` rows is padded to, a power of two, and the count where there may be padding."""
    size = 1 << max(count - 1, 0).bit_length()
    return size, count if size > 2 else None


class Batch(NamedTuple):
    """Padded rows [S, ...], of which the first `number` matter."""

    rows: np.ndarray
    number: int
    count: int | None  # the same where there may be padding
    single: bool  # one row without a leading axis

    def pad(self, others: np.ndarray) -> np.ndarray:
        """Other rows [number, ...] as these are padded."""
        return padded(others, len(self.rows))

    def result(self, array: np.ndarray) -> np.ndarray:
        """One result [S, ...] as the caller wants it."""
        return array[0] if self.single else array[: self.number]

    def results(self, tree: Any) -> Any:
        """Results [S, ...] as the caller wants them."""
        return jax.tree.map(self.result, tree)


def batch_of(observation: Any, keys: Keys, *, width: int) -> Batch:
    """One observation [width], or a batch of them, padded; or a dict of these keys. Raises EvorError."""
    rows, single = rows_of("observation", flat_observation(observation, keys), shape=(width,))
    size, count = ladder(len(rows))
    return Batch(rows=padded(rows, size), number=len(rows), count=count, single=single)


def keys_in(origin: dict[str, Any]) -> Keys:
    """Keys of imported observations and their widths, in order; () for data that were not imported."""
    return tuple((str(key), int(width)) for key, width in (origin.get("imported") or {}).get("observations", ()))


def rows_of(name: str, given: Any, *, shape: tuple[int, ...]) -> tuple[Float[np.ndarray, "B ..."], bool]:
    """One row of this shape, or a batch of them, as a batch; and whether it was one. Raises EvorError."""
    array = arguments.array(**{name: given})
    if array.shape == shape:
        return array[None], True
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        needed = ", ".join(map(str, shape))
        raise EvorError(f"{name} has shape {list(array.shape)}; [{needed}] or [B, {needed}] is needed.")
    return array, False


def candidates_of(
    given: Any, shape: tuple[int, ...], *, batch: Batch, bounds: ActionBounds
) -> tuple[Float[np.ndarray, "B C H"], int]:
    """Candidates of every row as networks see them, padded to few numbers; and their number.

    Raises EvorError, naming the first that is no action.
    """
    array = arguments.numbers_of(candidates=given)
    leading = 1 if batch.single else 2
    wanted = ", ".join(map(str, (*(() if batch.single else (batch.number,)), "C", *shape)))
    if array.ndim != leading + len(shape) or array.shape[leading:] != shape:
        raise EvorError(f"candidates has shape {list(array.shape)}; [{wanted}] is needed.")
    if not batch.single and len(array) != batch.number:
        raise EvorError(f"{batch.number} observations but candidates for {len(array)}; give some for each.")
    if not array.shape[leading - 1]:
        raise EvorError("there are no candidates (C is 0); give one at least.")
    if first := bounds.outside(array):
        indices = "".join(f"[{index}]" for index in first[:leading])
        raise EvorError(f"candidates{indices} holds {array[first]:g}; {_where(first, bounds)}.")
    number = array.shape[leading - 1]
    wide = np.zeros((batch.number, ladder(number)[0], math.prod(shape)), np.float32)
    wide[:, :number] = bounds.scale(array).reshape(batch.number, number, math.prod(shape))
    return wide, number


def search_of(given: Any, config: Config, *, usual: Extraction) -> Extraction:
    """The search that is meant: the agent's usual one for None, and in flow steps of that one where it names none.

    Raises EvorError where it is none, or where the agent of the config can't search so. Guidance of weight 0 is the search
    without it, so that not a bit differs.
    """
    if given is not None and not isinstance(given, Extraction):
        raise EvorError(f"extraction is {arguments.shown(given)}; give a search such as evor.SoftmaxOf(32).")
    given = _in_policy_steps(in_steps_of(usual if given is None else given, usual), config)
    if isinstance(given, Prior):
        return given
    require_value(config)
    if not isinstance(given, Guided):
        return given
    if isinstance(given.guidance, InsideFlow) and AGENTS[type(config)].propose_guided is None:
        name = type(config).__name__
        raise EvorError(f"the base policy of a {name} is no flow to guide inside; give guidance=evor.AfterChoice().")
    return given if given.weight else given.unguided


def _in_policy_steps(given: Extraction, config: Config) -> Extraction:
    """The search with a value of acting in as many flow steps as it does, where the agent's value is of that kind.

    Raises EvorError on a number of flow steps that the agent does not know.
    """
    if (steps_of := AGENTS[type(config)].policy_steps) is None:
        return given
    steps, name, flow_steps = steps_of(config), type(config).__name__, action_steps(given)
    if flow_steps not in steps.allowed:
        *others, largest = map(str, steps.allowed)
        raise EvorError(
            f"flow_steps is {flow_steps}; a {name} policy acts in {', '.join(others)} or {largest} of them."
        )
    if isinstance(given, Prior):
        return given
    if flow_steps > steps.valued:
        _note_steps(name, flow_steps, valued=steps.valued)
    return replace(given, reading=replace(given.reading, flow_steps=None))


@functools.cache  # once: a control loop asks often
def _note_steps(name: str, flow_steps: int, *, valued: int) -> None:
    """Say on the terminal that the value was trained on fewer flow steps than the search takes."""
    console.print(
        f"note: the value of this {name} was trained on at most {valued} flow steps; actions of {flow_steps} steps are "
        f"ranked by their value at {valued}."
    )


def require_value(config: Config) -> None:
    """Raise EvorError where the agent of the config has no value."""
    if AGENTS[type(config)].returns is None:
        name = type(config).__name__
        raise EvorError(f"a {name} policy has no value to score actions with; act with the base policy, `Prior`.")


def actions_of(given: Any, shape: tuple[int, ...], *, bounds: ActionBounds) -> Float[np.ndarray, "B ..."]:
    """A batch of a caller's actions of this shape, as networks see them. Raises EvorError, naming the first that is no action."""
    array, single = rows_of("action", given, shape=shape)
    if first := bounds.outside(array):
        row = "" if single else f"[{first[0]}]"
        raise EvorError(f"action{row} holds {array[first]:g}; {_where(first, bounds)}.")
    return bounds.scale(array)


def own_actions(actions: Float[np.ndarray, "..."], config: Config, *, bounds: ActionBounds) -> Float[np.ndarray, "..."]:
    """Actions of networks in the user's units.

    Raises EvorError on one that `propose` of the config's agent should not have returned.
    """
    if first := ActionBounds.unit(1).outside(actions):
        value, agent = actions[first], type(config).__name__
        remedy = "clip it there" if np.isfinite(value) else "look at the observation and at the networks"
        raise EvorError(
            f"propose of the agent {agent} returned {value:g} (at {list(first)}); actions lie in [-1, 1]: {remedy}."
        )
    return bounds.unscale(actions)


def _where(first: tuple[int, ...], bounds: ActionBounds) -> str:
    """Say where the actions lie, of which the number at `first` does not."""
    entry = first[-1]
    if len(set(zip(bounds.low, bounds.high, strict=True))) == 1:
        return f"actions lie in {bounds.of_entry(entry)}"
    return f"entry {entry} of an action lies in {bounds.of_entry(entry)}"
