"""Decisions and readings of returns, each one compiled call on the networks of a policy."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
from scipy.special import ndtri

from evor.agents.registry import AGENTS, AgentConfig
from evor.data.standardisation import Standardisation
from evor.distributions.measures import midpoints
from evor.nn.batching import each_example
from evor.nn.nets import Mlp
from evor.runtime.progress import console
from evor.search.extraction import (
    BestOf,
    Extraction,
    Guided,
    Prior,
    SoftmaxOf,
    action_steps,
    keys_of_decision,
    propose,
    return_steps,
    rows,
    score,
    select,
    work,
)
from evor.search.guidance import AfterChoice, InsideFlow, ascend, direction
from evor.search.readings import log_mean_exp

NOTED = 100  # times the work of the agent's own search, from which on a decision may take seconds


class Networks(NamedTuple):
    """Networks of one seed and task that act, and their standardisation."""

    policy: Any
    value: Any
    standardisation: Standardisation


class Decision(NamedTuple):
    """One decision, or a batch of them with a leading axis: candidates [C, A] ([C, chunk, A] where the agent chunks), their
    scores [C] in reward units, the index of the one that was taken, and the action itself.

    The base policy, `Prior`, draws one candidate and scores none: its scores are None. The action is the candidate at the
    index, unless `AfterChoice` moved it. The scores are always those of the candidates.
    """

    action: Any
    index: Any
    candidates: Any
    scores: Any


class Choice(NamedTuple):
    """Index of the candidate that is taken, and the scores [C] of all in reward units; both with a leading axis in a batch."""

    index: Any
    scores: Any


# Compiled once per agent config, batch size and extraction structure; networks, temperatures and weights are arguments. Of a batch
# with padding only `count` rows matter.


@functools.partial(jax.jit, static_argnums=0)
def act(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observations: Float[Array, "B O"],
    keys: Key[Array, " B"],
    count: Int[Array, ""] | int | None = None,
) -> Float[Array, "B H"]:
    """Choose an action for each row, as a network sees it."""
    decide_one = functools.partial(_decide, config, networks, extraction)
    return each_example(lambda *one: decide_one(*one).action, observations, keys, rows=rows(extraction), count=count)


@functools.partial(jax.jit, static_argnums=0)
def decide(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observations: Float[Array, "B O"],
    keys: Key[Array, " B"],
    count: Int[Array, ""] | int | None = None,
) -> Decision:
    """Decide for each row, and keep what was decided among. Scores are standardised."""
    decide_one = functools.partial(_decide, config, networks, extraction)
    return each_example(decide_one, observations, keys, rows=rows(extraction), count=count)


@functools.partial(jax.jit, static_argnums=0)
def choose(
    config: AgentConfig,
    networks: Networks,
    extraction: BestOf | SoftmaxOf,
    observations: Float[Array, "B O"],
    candidates: Float[Array, "B C H"],
    keys: Key[Array, " B"],
    num_candidates: Int[Array, ""] | int,
    count: Int[Array, ""] | int | None = None,
) -> Choice:
    """Choose among candidates that anybody made, of which the first `num_candidates` matter. Scores are standardised.

    The extraction asks for one candidate: their number is that of the array.
    """

    def one(observation: Array, actions: Array, key: Array) -> Choice:
        steps = keys_of_decision(key)
        scores = _score(
            config,
            networks,
            extraction=extraction,
            observation=_standardise(networks.standardisation, observation),
            candidates=actions,
            key=steps.score,
        )
        return Choice(select(extraction, scores, key=steps.select, count=num_candidates), scores)

    return each_example(one, observations, candidates, keys, rows=rows(extraction) * candidates.shape[1], count=count)


def _decide(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observation: Float[Array, " O"],
    key: Key[Array, ""],
) -> Decision:
    steps = keys_of_decision(key)
    observation = _standardise(networks.standardisation, observation)

    flow_steps = 1 if AGENTS[type(config)].policy_steps is None else action_steps(extraction)
    mean = functools.partial(_mean, config, networks, observation, flow_steps=flow_steps)
    draw = _draw(config, networks, extraction, observation, mean)
    candidates = propose(draw, extraction.num_candidates, key=steps.propose)
    if isinstance(extraction, Prior):
        return Decision(action=candidates[0], index=jnp.int32(0), candidates=candidates, scores=None)
    scores = _score(
        config, networks, extraction=extraction, observation=observation, candidates=candidates, key=steps.score
    )
    index = select(extraction, scores, key=steps.select)
    action = candidates[index]
    if isinstance(extraction, Guided) and isinstance(extraction.guidance, AfterChoice):
        action = ascend(mean, action, weight=extraction.weight, steps=extraction.guidance.ascent_steps)
    return Decision(action=action, index=index, candidates=candidates, scores=scores)


def _draw(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observation: Float[Array, " O"],
    mean: Callable[[Array], Array],
) -> Callable[[Array], Array]:
    """A function from a key to one candidate at a standardised observation."""
    agent = AGENTS[type(config)]
    if not (isinstance(extraction, Guided) and isinstance(extraction.guidance, InsideFlow)):
        return lambda key: agent.propose(networks.policy, observation, flow_steps=action_steps(extraction), key=key)
    draw, weight, flow_steps = agent.propose_guided, extraction.weight, action_steps(extraction)
    assert draw is not None

    def guide(clean: Array) -> Array:
        return jnp.asarray(weight, clean.dtype) * direction(mean, clean)

    return lambda key: draw(networks.policy, observation, guide=guide, flow_steps=flow_steps, key=key)


def _mean(
    config: AgentConfig,
    networks: Networks,
    observation: Float[Array, " O"],
    action: Float[Array, " H"],
    *,
    flow_steps: int = 1,
) -> Array:
    """Mean return of an action, standardised, by one evaluation of the value: the return of noise 0 in one flow step.

    `flow_steps` is another number where the value is one of acting in so many. The mean is not clipped to the bounds of
    returns: where it is, its gradient is 0.
    """
    returns, noises = AGENTS[type(config)].returns, jnp.zeros(1, action.dtype)
    assert returns is not None
    return returns(networks.value, observation, action=action, noises=noises, config=config, flow_steps=flow_steps)[0]


def _score(
    config: AgentConfig,
    networks: Networks,
    *,
    extraction: BestOf | SoftmaxOf | Guided,
    observation: Float[Array, " O"],
    candidates: Float[Array, "C H"],
    key: Key[Array, ""],
) -> Float[Array, " C"]:
    """Standardised scores at a standardised observation."""
    flowed, scale = AGENTS[type(config)].returns, networks.standardisation
    assert flowed is not None

    def returns(action: Array, noises: Array) -> Array:
        standardised = flowed(
            networks.value,
            observation,
            action=action,
            noises=noises,
            config=config,
            flow_steps=return_steps(extraction),
        )
        # From above only: clipped from below, candidates far from the goal would all be equal.
        return jnp.minimum(standardised, scale.standardised_bounds[1])

    return score(extraction.reading, extraction.return_temperature, actions=candidates, returns=returns, key=key)


@functools.partial(jax.jit, static_argnums=(0, 5))
def read_returns(
    config: AgentConfig,
    networks: Networks,
    observations: Float[Array, "B O"],
    actions: Float[Array, "B H"],
    noises: Float[Array, " Z"],
    flow_steps: int,
    count: Int[Array, ""] | int | None,
) -> Float[Array, "B Z"]:
    """Standardised returns of each row; all rows share their noises."""
    returns = AGENTS[type(config)].returns
    assert returns is not None

    def one(observation: Array, action: Array) -> Array:
        observation = _standardise(networks.standardisation, observation)
        predicted = returns(
            networks.value, observation, action=action, noises=noises, config=config, flow_steps=flow_steps
        )
        return jnp.minimum(predicted, networks.standardisation.standardised_bounds[1])

    return each_example(one, observations, actions, rows=len(noises), count=count)


@jax.jit
def read_values(
    returns: Float[Array, "B Z"], weights: Float[Array, " Z"], temperature: Float[Array, ""] | float
) -> Float[Array, " B"]:
    """Q* of the returns of each row, standardised."""
    return jax.vmap(lambda row: log_mean_exp(row, weights, temperature=temperature))(returns)


@functools.lru_cache(maxsize=16)  # a server asks often
def noises_of(num_nodes: int) -> Float[Array, " Z"]:
    """Noises whose returns are the quantiles at (i + 1/2) / num_nodes."""
    return jnp.asarray(ndtri(midpoints(num_nodes)), jnp.float32)


@functools.cache  # once for each search: a control loop decides often
def note_work(extraction: Extraction, usual: Extraction) -> None:
    """Say on the terminal where decisions take far longer than by the usual search."""
    if (times := work(extraction) / work(usual)) >= NOTED:
        candidates = extraction.num_candidates
        console.print(
            f"note: a decision with {candidates:,} candidates, {rows(extraction) // candidates:,} returns of each and "
            f"{action_steps(extraction):,} flow steps is about {times:,.0f} times the work of the agent's own search; fewer of "
            "them decide faster."
        )


def freeze(networks: Networks) -> Networks:
    """The same networks with weights as their products take them."""

    def one(part: Any) -> Any:
        return part.frozen() if isinstance(part, Mlp) else part

    return jax.tree.map(one, networks, is_leaf=lambda part: isinstance(part, Mlp))


def _standardise(scale: Standardisation, observation: Float[Array, " O"]) -> Float[Array, " O"]:
    return (observation - scale.observation_mean) / scale.observation_std
