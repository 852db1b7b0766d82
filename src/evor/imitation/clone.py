"""A clone of demonstrations: the base policy of the agent `bc`, as a baseline and for roll-ins."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents import bc
from evor.agents.bc import Bc
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.discriminator import Scale
from evor.nn.engine import pinned
from evor.nn.learner import Learner, Progress
from evor.types import Spec, Transition

Policy = Callable[[Float[np.ndarray, "n O"], np.random.Generator], Float[np.ndarray, "n A"]]
CALL = 500  # updates of one compiled call


@pinned
def train_clone(
    config: Bc,
    demonstrations: list[Demonstrations],
    *,
    scale: Scale,
    updates: int,
    seed: int,
    advance: Callable[[int], None],
) -> Any:
    """A policy of the executed actions of all demonstrations that have some. `advance` is told of updates as they are made."""
    known = [data for data in demonstrations if data.actions is not None]
    observations = np.concatenate([data.observations for data in known])
    actions = np.concatenate([data.actions for data in known])
    spec = Spec(observations.shape[1], actions.shape[1])
    learner = bc.AGENT.base.init(config, spec, key=jax.random.key(seed))
    for start in range(0, updates, CALL):
        generator = np.random.default_rng([seed, start])
        number = min(CALL, updates - start)
        rows = generator.integers(0, len(actions), (number, config.learning.batch_size))
        learner = _updated(
            learner,
            (jnp.asarray(observations[rows]), jnp.asarray(actions[rows])),
            first=start,
            scale=scale,
            config=config,
            updates=updates,
            key=jax.random.fold_in(jax.random.key(seed), start),
        )
        advance(number)
    return learner.network


@functools.partial(jax.jit, static_argnames=("config", "updates"))
def _updated(
    learner: Learner,
    batches: tuple[Array, Array],
    *,
    first: Any,
    scale: Scale,
    config: Bc,
    updates: int,
    key: PRNGKeyArray,
) -> Learner:
    def step(learner: Learner, inputs: Any) -> tuple[Learner, None]:
        observation, action, number, key = inputs
        batch = Transition(
            observation=(observation - scale.mean[None]) / scale.std[None],
            action=action,
            action_mask=jnp.ones_like(action),
            next_observation=observation,
            next_action=action,
            next_proposals=jnp.zeros((len(action), 0, action.shape[1])),
        )
        progress = Progress(first + number, updates)
        return bc.AGENT.base.update(learner, batch, config=config, progress=progress, key=key)[0], None

    size = len(batches[0])
    return jax.lax.scan(step, learner, (*batches, jnp.arange(size), jax.random.split(key, size)))[0]


def policy_of(network: Any, config: Bc, *, scale: Scale) -> Policy:
    """Draws of the clone."""

    @jax.jit
    def draws(observations: Array, key: PRNGKeyArray) -> Array:
        def one(observation: Array, key: PRNGKeyArray) -> Array:
            seen = (observation - scale.mean) / scale.std
            return bc.propose(network, seen, flow_steps=config.flow_steps, key=key)

        return jax.vmap(one)(observations, jax.random.split(key, len(observations)))

    def act(observations: Float[np.ndarray, "n O"], generator: np.random.Generator) -> Float[np.ndarray, "n A"]:
        return np.asarray(pinned(draws)(observations, jax.random.key(int(generator.integers(2**31)))))

    return act
