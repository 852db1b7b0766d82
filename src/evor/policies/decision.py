"""A decision and a reading of returns, each one compiled call on the networks of a policy."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evor.agents.registry import AGENTS, AgentConfig
from evor.data.columns import Standardisation
from evor.nn.batching import each_example
from evor.nn.nets import Mlp
from evor.search.extraction import Extraction, Prior, choose, rows


class Networks(NamedTuple):
    """What acts: the two networks and the standardisation of one seed and task."""

    policy: Any
    value: Any
    standardisation: Standardisation


# Compiled once per agent config, batch size and extraction structure; networks and temperatures are arguments. Of a batch
# with padding only `count` rows matter.


@functools.partial(jax.jit, static_argnums=0)
def decide(
    config: AgentConfig,
    networks: Networks,
    extraction: Extraction,
    observations: Float[Array, "B O"],
    keys: Key[Array, " B"],
    count: Int[Array, ""] | int | None = None,
) -> Float[Array, "B H"]:
    """An action of each row, as a network sees it."""
    agent = AGENTS[type(config)]

    def one(observation: Array, key: Array) -> Array:
        observation = _standardise(networks.standardisation, observation)

        def propose(key: Array) -> Array:
            return agent.propose(networks.policy, observation, extraction.flow_steps, key)

        def returns(action: Array, noises: Array) -> Array:
            assert agent.returns is not None
            assert not isinstance(extraction, Prior)
            scale = networks.standardisation
            found = agent.returns(networks.value, observation, action, noises, config, extraction.flow_steps)
            return jnp.minimum(found, (extraction.max_return - scale.return_mean) / scale.return_std)

        return choose(extraction, propose, returns, key)

    return each_example(one, observations, keys, rows=rows(extraction), count=count)


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
        return returns(networks.value, observation, action, noises, config, flow_steps)

    return each_example(one, observations, actions, rows=len(noises), count=count)


def freeze(networks: Networks) -> Networks:
    """The same networks with weights as their products take them."""

    def one(part: Any) -> Any:
        return part.frozen() if isinstance(part, Mlp) else part

    return jax.tree.map(one, networks, is_leaf=lambda part: isinstance(part, Mlp))


def _standardise(scale: Standardisation, observation: Float[Array, " O"]) -> Float[Array, " O"]:
    return (observation - scale.observation_mean) / scale.observation_std
