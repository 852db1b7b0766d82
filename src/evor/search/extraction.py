"""Search at decision time: propose candidates, score each by its return distribution, select one (Algorithm 2).

Temperatures are in units of the stored return standard deviation. They may change without recompiling.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from evor.errors import EvorError
from evor.nn.batching import each_example
from evor.runtime.arguments import count, real, shown, temperature
from evor.search.guidance import AfterChoice, Guidance, InsideFlow
from evor.search.readings import Quadrature, Reading, log_mean_exp

STEPS = 10  # solver steps for one action where neither a search nor an agent says how many
GRADIENT = 3  # rows that take as long as a gradient of one


@dataclass(frozen=True)
class Prior:
    """A draw from the base policy, without a search."""

    # Solver steps, each one network evaluation, for one action. None: as many as in the agent's own search.
    flow_steps: int | None = None

    def __post_init__(self):
        _check(self)

    @property
    def num_candidates(self) -> int:
        """One: the draw itself."""
        return 1


@dataclass(frozen=True)
class BestOf:
    """The candidate with the highest score."""

    num_candidates: int = 32  # Candidates per decision, drawn from the base policy.
    # Temperature of the score, in standard deviations of the returns: inf reads the mean of a return distribution, 0 its
    # maximum.
    return_temperature: float = math.inf
    # How the return distribution of a candidate is read.
    reading: Reading = field(default_factory=Quadrature)
    # Solver steps, each one network evaluation, for one action; for a return, too, where the reading has none. None: as
    # many as in the agent's own search.
    flow_steps: int | None = None

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True)
class SoftmaxOf:
    """A random candidate, higher scores more often."""

    # A draw from softmax(Q* / tau_Q) over the candidates, where Q* are their scores at tau_R (Algorithm 2).
    num_candidates: int = 32  # Candidates per decision, drawn from the base policy.
    # Temperature of the score, in standard deviations of the returns: inf reads the mean of a return distribution, 0 its
    # maximum.
    return_temperature: float = 1.0
    # Temperature of the choice, in the same unit: 0 takes the best candidate, inf any. Above 0, candidates that differ by
    # less than it are taken alike: among many, the best one is often the one whose score errs most.
    action_temperature: float = 0.03
    # How the return distribution of a candidate is read.
    reading: Reading = field(default_factory=Quadrature)
    # Solver steps, each one network evaluation, for one action; for a return, too, where the reading has none. None: as
    # many as in the agent's own search.
    flow_steps: int | None = None

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True)
class Guided:
    """The candidate with the highest score, moved along the gradient of the mean return."""

    num_candidates: int = 4  # Candidates per decision, drawn from the base policy.
    # Temperature of the score, in standard deviations of the returns: inf reads the mean of a return distribution, 0 its
    # maximum.
    return_temperature: float = math.inf
    # How the return distribution of a candidate is read.
    reading: Reading = field(default_factory=Quadrature)
    # Solver steps, each one network evaluation, for one action; for a return, too, where the reading has none. None: as
    # many as in the agent's own search.
    flow_steps: int | None = None
    # How far actions move: the root mean square of an action's entries. 0 is the search without guidance.
    weight: float = 0.3
    # Where actions are moved.
    guidance: Guidance = field(default_factory=InsideFlow)

    def __post_init__(self):
        _check(self)

    @property
    def unguided(self) -> BestOf:
        """The same search without guidance."""
        return BestOf(
            self.num_candidates,
            return_temperature=self.return_temperature,
            reading=self.reading,
            flow_steps=self.flow_steps,
        )


Extraction = Prior | BestOf | SoftmaxOf | Guided


def _check(extraction: "Extraction") -> None:
    """Make every setting a plain number; raise EvorError, naming the first that is out of range."""
    for item in fields(extraction):
        given = getattr(extraction, item.name)
        if not isinstance(given, Tracer):  # as inside a compiled decision
            object.__setattr__(extraction, item.name, _CHECKS[item.name](**{item.name: given}))


def _reading(reading: Any) -> Reading:
    if not isinstance(reading, Reading):
        raise EvorError(f"reading is {shown(reading)}; give Quadrature(nodes) or RandomSamples(number).")
    return reading


def _flow_steps(flow_steps: Any) -> int | None:
    return None if flow_steps is None else count(1, flow_steps=flow_steps)


def _guidance(guidance: Any) -> Guidance:
    if not isinstance(guidance, Guidance):
        raise EvorError(f"guidance is {shown(guidance)}; give InsideFlow() or AfterChoice(ascent_steps).")
    return guidance


def _weight(weight: Any) -> float:
    number = real(weight=weight)
    if not 0 <= number < math.inf:
        raise EvorError(f"weight is {number}; it must be a finite number of at least 0.")
    return number


_CHECKS: dict[str, Callable[..., Any]] = {
    "num_candidates": functools.partial(count, 1),
    "flow_steps": _flow_steps,
    "return_temperature": temperature,
    "action_temperature": temperature,
    "reading": _reading,
    "weight": _weight,
    "guidance": _guidance,
}


def _register(kind: type[Extraction], traced: tuple[str, ...]) -> None:
    """A search as a pytree: numbers that change no shape are leaves (traced by jit), everything else is structure.

    JAX puts things of its own into the leaves, so they are not checked when it builds one.
    """
    names = tuple(item.name for item in fields(kind))
    structure = tuple(name for name in names if name not in traced)

    def flatten(search: Any) -> tuple[tuple, tuple]:
        return tuple(getattr(search, name) for name in traced), tuple(getattr(search, name) for name in structure)

    def unflatten(fixed: tuple, leaves: Iterable) -> Any:
        search = object.__new__(kind)
        for name, value in zip((*traced, *structure), (*leaves, *fixed), strict=True):
            object.__setattr__(search, name, value)
        return search

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)


_register(Prior, ())
_register(BestOf, ("return_temperature",))
_register(SoftmaxOf, ("return_temperature", "action_temperature"))
_register(Guided, ("return_temperature", "weight"))


def action_steps(extraction: Extraction) -> int:
    """Solver steps of a search for one action."""
    return STEPS if extraction.flow_steps is None else extraction.flow_steps


@functools.lru_cache(maxsize=64)  # a control loop asks often
def in_steps_of(extraction: Extraction, usual: Extraction) -> Extraction:
    """The search in as many flow steps as an agent's usual one, where it does not say how many itself."""
    return replace(extraction, flow_steps=action_steps(usual)) if extraction.flow_steps is None else extraction


def return_steps(extraction: BestOf | SoftmaxOf | Guided) -> int:
    """Solver steps of a search for one return."""
    return extraction.reading.flow_steps or action_steps(extraction)


def rows(extraction: Extraction) -> int:
    """Candidates times returns of each: what one decision sends through the value at once."""
    if isinstance(extraction, Prior):
        return 1
    return extraction.num_candidates * extraction.reading.number


def work(extraction: Extraction) -> int:
    """Rows that one decision sends through the networks, in all flow steps."""
    if isinstance(extraction, Prior):
        return action_steps(extraction)
    drawn_and_read = extraction.num_candidates * action_steps(extraction) + rows(extraction) * return_steps(extraction)
    if not isinstance(extraction, Guided):
        return drawn_and_read
    if isinstance(extraction.guidance, AfterChoice):
        return drawn_and_read + GRADIENT * extraction.guidance.ascent_steps
    return drawn_and_read + GRADIENT * extraction.num_candidates * action_steps(extraction)


def propose(
    draw: Callable[[PRNGKeyArray], Float[Array, " H"]], num_candidates: int, *, key: PRNGKeyArray
) -> Float[Array, "C H"]:
    """Draw independent candidates; the first is the one that `Prior` takes, however many there are."""
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(num_candidates))
    return jax.vmap(draw)(keys)


def score(
    reading: Reading,
    return_temperature: Float[Array, ""] | float,
    *,
    actions: Float[Array, "C H"],
    returns: Callable[[Float[Array, " H"], Float[Array, " Z"]], Float[Array, " Z"]],
    key: PRNGKeyArray,
) -> Float[Array, " C"]:
    """Q* of each action, all read at the same nodes. `returns(action, noises)` flows its returns."""
    nodes = reading.nodes(key, return_temperature)

    def one(action: Array) -> Array:
        return log_mean_exp(returns(action, nodes.noises), nodes.weights, temperature=return_temperature)

    return each_example(one, actions, rows=len(nodes.weights))


def select(
    extraction: BestOf | SoftmaxOf | Guided,
    scores: Float[Array, " C"],
    *,
    key: PRNGKeyArray,
    count: Int[Array, ""] | int | None = None,
) -> Int[Array, ""]:
    """Take the index of one candidate. With `count`, only the first ones may be taken, and the others change nothing."""
    if count is not None:
        there = jnp.arange(len(scores)) < count
        scores = jnp.where(there, scores, -jnp.inf)
    best = jnp.argmax(scores)
    if not isinstance(extraction, SoftmaxOf):
        return best
    temperature = jnp.asarray(extraction.action_temperature, scores.dtype)
    # At temperature infinity the logits are 0: uniform over the candidates.
    logits = (scores - scores.max()) / jnp.where(temperature > 0, temperature, 1.0)
    if count is not None:
        logits = jnp.where(there, logits, -jnp.inf)
    return jnp.where(temperature == 0, best, jax.random.categorical(key, logits, mode="low"))


class Keys(NamedTuple):
    """The randomness of one decision, a key for each of its steps."""

    propose: PRNGKeyArray
    score: PRNGKeyArray
    select: PRNGKeyArray


def keys_of_decision(key: PRNGKeyArray) -> Keys:
    """Derive the keys of a decision's three steps."""
    return Keys(*(jax.random.fold_in(key, step) for step in range(3)))
