"""Compiled updates: the learner on rewards that the discriminator gives now, and the discriminator."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from evor.agents import sac
from evor.imitation import discriminator
from evor.imitation.config import ImitationConfig
from evor.imitation.discriminator import Scale, Shown, TrueReward, features
from evor.nn.learner import Learner, Progress
from evor.types import Outcome, Spec, Transition


class Rows(NamedTuple):
    """Steps of the learner: arrays of numpy, or traced ones."""

    observation: Any  # [*batch, O]
    action: Any  # [*batch, A]
    next_observation: Any  # [*batch, O]
    reward: Any  # [*batch], the true one
    terminated: Any  # [*batch]


class Networks(NamedTuple):
    """All that is trained, and how often it was."""

    learner: Any
    discriminator: Learner
    updates: Int[Array, ""]  # of the learner
    times: Int[Array, ""]  # that the discriminator has learned


def initial(config: ImitationConfig, spec: Spec, *, seed: int) -> Networks:
    """Untrained networks."""
    learner_key, discriminator_key = jax.random.split(jax.random.key(seed))
    width = sum(map(len, config.discriminator_sees.entries(spec)))
    return Networks(
        learner=sac.AGENT.head.init(config.learner, spec, key=learner_key),
        discriminator=discriminator.init(width, config.discriminator_hidden, key=discriminator_key),
        updates=jnp.zeros((), jnp.int32),
        times=jnp.zeros((), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("config", "entries"))
def update_learner(
    networks: Networks, batches: Rows, *, scale: Scale, config: ImitationConfig, entries: Any, key: PRNGKeyArray
) -> tuple[Networks, dict[str, Array]]:
    """One gradient step on each of the batches [U, B, ...]. Their rewards are those of the discriminator as it stands."""
    total = max(1, config.steps // config.steps_per_update)
    f = networks.discriminator.network

    def reward(observation: Array, action: Array, true: Array) -> Array:
        return config.reward.reward(f(features(observation, action, scale=scale, entries=entries))[0], true)

    def step(carry: tuple[Any, Array], inputs: tuple[Rows, PRNGKeyArray]) -> tuple[tuple[Any, Array], Any]:
        (head, updates), (rows, key) = carry, inputs
        zeros = jnp.zeros(len(rows.terminated))
        rewards = jax.vmap(reward)(rows.observation, rows.action, rows.reward)
        batch = Transition(
            observation=rows.observation,
            action=rows.action,
            action_mask=jnp.ones_like(rows.action),
            next_observation=rows.next_observation,
            next_action=jnp.zeros_like(rows.action),
            next_proposals=jnp.zeros((len(zeros), 0, rows.action.shape[1])),
        )
        outcomes = Outcome(
            reward=rewards,
            discount=config.learner.discount * (1 - rows.terminated.astype(jnp.float32)),
            weight=zeros + 1,
            reward_to_go=zeros,
            return_min=zeros - jnp.inf,
            return_max=zeros + jnp.inf,
        )
        head, metrics = sac.AGENT.head.update(
            head,
            batch,
            handed=(),
            outcomes=outcomes,
            config=config.learner,
            progress=Progress(jnp.minimum(updates, total), total),  # the last round may end beyond the steps of the run
            key=key,
        )
        return (head, updates + 1), metrics | {"discriminator/reward": rewards.mean()}

    keys = jax.random.split(key, len(batches.terminated))
    (head, updates), metrics = jax.lax.scan(step, (networks.learner, networks.updates), (batches, keys))
    return networks._replace(learner=head, updates=updates), {name: m.mean() for name, m in metrics.items()}


class Pairs(NamedTuple):
    """Observations and actions: arrays of numpy, or traced ones."""

    observation: Any  # [*batch, O]
    action: Any  # [*batch, A]


@functools.partial(jax.jit, static_argnames=("config", "entries"))
def update_discriminator(
    networks: Networks,
    *,
    learner: Pairs,
    expert: Pairs,
    lived: tuple[float, float],
    scale: Scale,
    config: ImitationConfig,
    entries: Any,
    key: PRNGKeyArray,
) -> tuple[Networks, dict[str, Array]]:
    """Take gradient steps on pairs [T, B, ...] of learner and expert. `lived` says which share of the horizon each lasts."""

    kind = config.reward
    assert not isinstance(kind, TrueReward)

    def seen(pairs: Pairs) -> Array:
        return jax.vmap(lambda o, a: features(o, a, scale=scale, entries=entries))(pairs.observation, pairs.action)

    def step(f: Learner, inputs: tuple[Pairs, Pairs, PRNGKeyArray]) -> tuple[Learner, Any]:
        of_learner, of_expert, key = inputs
        shown = Shown(seen(of_learner), seen(of_expert), *(jnp.asarray(share, jnp.float32) for share in lived))
        f, metrics = kind.learn(f, shown, times=networks.times, key=key)
        rewards = [
            jax.vmap(lambda row: kind.reward(f.network(row)[0]))(rows).mean() for rows in (shown.learner, shown.expert)
        ]
        return f, {
            "discriminator/loss": metrics["loss"],
            "discriminator/learner": rewards[0],
            "discriminator/expert": rewards[1],
        }

    keys = jax.random.split(key, len(learner.action))
    f, metrics = jax.lax.scan(step, networks.discriminator, (learner, expert, keys))
    changed = networks._replace(discriminator=f, times=networks.times + 1)
    return changed, {name: values[-1] for name, values in metrics.items()}
