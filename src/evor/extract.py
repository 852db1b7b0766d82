"""Search at decision time: propose candidates, judge each by its return law, choose (Algorithm 2).

Temperatures are in units of the stored return standard deviation. They and `max_return` may change without recompiling.

Where targets search, values spread beyond the data: a maze's value goes on rising behind its goal, to returns that no
reward allows, and a search climbs there. `max_return` says what is possible (0 where rewards are -1 until the goal).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from evor.errors import EvorError, at_least, whole
from evor.layout import each_example
from evor.value import Quadrature, Reading, log_mean_exp


@dataclass(frozen=True)
class Prior:
    """The base policy, unsearched."""

    flow_steps: int = 10

    def __post_init__(self):
        _check(self)

    @property
    def num_candidates(self) -> int:
        return 1


@dataclass(frozen=True)
class BestOf:
    """The candidate with the highest Q*."""

    num_candidates: int = 32
    return_temperature: float = math.inf  # tau_R
    reading: Reading = field(default_factory=Quadrature)
    flow_steps: int = 10  # of actions and of returns
    max_return: float = math.inf  # in the reward's own units: what is read above it counts as it

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True)
class SoftmaxOf:
    """A draw from softmax(Q* / action_temperature) over the candidates: 0 is the argmax, infinity the base policy."""

    num_candidates: int = 32
    return_temperature: float = 1.0  # tau_R
    action_temperature: float = 1e-3  # tau_Q
    reading: Reading = field(default_factory=Quadrature)
    flow_steps: int = 10  # of actions and of returns
    max_return: float = math.inf  # in the reward's own units: what is read above it counts as it

    def __post_init__(self):
        _check(self)


Extraction = Prior | BestOf | SoftmaxOf

# Numbers that do not change shapes are leaves (traced by jit), everything else is structure.
jax.tree_util.register_dataclass(Prior, [], ["flow_steps"])
jax.tree_util.register_dataclass(
    BestOf, ["return_temperature", "max_return"], ["num_candidates", "reading", "flow_steps"]
)
jax.tree_util.register_dataclass(
    SoftmaxOf, ["return_temperature", "action_temperature", "max_return"], ["num_candidates", "reading", "flow_steps"]
)


def _check(extraction: "Extraction") -> None:
    whole(1, num_candidates=extraction.num_candidates, flow_steps=extraction.flow_steps)
    if not isinstance(reading := getattr(extraction, "reading", Quadrature()), Reading):
        raise EvorError(f"reading is {reading!r}; give Quadrature(nodes) or RandomSamples(number).")
    for name in ("return_temperature", "action_temperature"):
        temperature = getattr(extraction, name, 0.0)
        if isinstance(temperature, int | float):  # inside a compiled decision it is a traced array
            at_least(0, **{name: temperature})
    bound = getattr(extraction, "max_return", math.inf)
    if isinstance(bound, int | float) and not bound > -math.inf:
        raise EvorError(f"max_return is {bound}; it must be a number, or infinity for no bound.")


def rows(extraction: Extraction) -> int:
    """Candidates times returns of each: what one decision sends through the value at once."""
    if isinstance(extraction, Prior):
        return 1
    return extraction.num_candidates * len(extraction.reading.nodes(jax.random.key(0), 1.0).weights)


def candidates(
    propose: Callable[[PRNGKeyArray], Float[Array, " H"]], num_candidates: int, key: PRNGKeyArray
) -> Float[Array, "C H"]:
    """Independent proposals; the first is the one that `Prior` takes, however many there are."""
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(num_candidates))
    return jax.vmap(propose)(keys)


def choose(
    extraction: Extraction,
    propose: Callable[[PRNGKeyArray], Float[Array, " H"]],
    returns: Callable[[Float[Array, " H"], Float[Array, " Z"]], Float[Array, " Z"]],
    key: PRNGKeyArray,
) -> Float[Array, " H"]:
    """One decision for one observation. `propose(key)` draws an action, `returns(action, noises)` flows its returns."""
    actions = candidates(propose, extraction.num_candidates, jax.random.fold_in(key, 0))
    if isinstance(extraction, Prior):
        return actions[0]
    scores = judge(extraction.reading, extraction.return_temperature, actions, returns, jax.random.fold_in(key, 1))
    return actions[_pick(extraction, scores, jax.random.fold_in(key, 2))]


def judge(
    reading: Reading,
    return_temperature: Float[Array, ""] | float,
    actions: Float[Array, "C H"],
    returns: Callable[[Float[Array, " H"], Float[Array, " Z"]], Float[Array, " Z"]],
    key: PRNGKeyArray,
) -> Float[Array, " C"]:
    """Q* of each action, all read at the same nodes."""
    nodes = reading.nodes(key, return_temperature)

    def one(action: Array) -> Array:
        return log_mean_exp(returns(action, nodes.noises), nodes.weights, return_temperature)

    return each_example(one, actions, rows=len(nodes.weights))


def _pick(extraction: BestOf | SoftmaxOf, scores: Float[Array, " C"], key: PRNGKeyArray) -> Int[Array, ""]:
    best = jnp.argmax(scores)
    if isinstance(extraction, BestOf):
        return best
    temperature = jnp.asarray(extraction.action_temperature, scores.dtype)
    # At temperature infinity the logits are 0: uniform over the candidates.
    logits = (scores - scores.max()) / jnp.where(temperature > 0, temperature, 1.0)
    return jnp.where(temperature == 0, best, jax.random.categorical(key, logits))
