"""A straightforward EVOR update, written the way the field writes it: the yardstick of `make bench`.

The paper's recipe (Tables 3-4): FlowTd with a model-sampled z1, policy actions in the targets, one jitted update per Python
iteration, float32, batches sampled by numpy on the host, and 32 candidates x 50 random samples when acting. It shares
nothing with the package, so that it stays what it is when the package gets faster.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

FLOW_STEPS, DISCOUNT, TARGET_RATE = 10, 0.99, 5e-3
OPTIMISER = optax.adam(3e-4)


def init_mlp(key: Any, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        key, sub = jax.random.split(key)
        limit = (6 / (inputs + outputs)) ** 0.5
        layers.append(
            {
                "kernel": jax.random.uniform(sub, (inputs, outputs), minval=-limit, maxval=limit),
                "bias": jnp.zeros(outputs),
                "scale": jnp.ones(outputs),
                "shift": jnp.zeros(outputs),
            }
        )
    return layers


def mlp(layers: list[dict[str, Any]], x: Any, layer_norm: bool) -> Any:
    for layer in layers[:-1]:
        x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
        if layer_norm:
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * layer["scale"][None] + layer["shift"][None]
    return x @ layers[-1]["kernel"] + layers[-1]["bias"][None]


def policy_velocity(params: Any, observations: Any, actions: Any, times: Any) -> Any:
    return mlp(params, jnp.concatenate([observations, actions, times], -1), layer_norm=False)


def value_velocity(params: Any, observations: Any, actions: Any, z: Any, times: Any) -> Any:
    return mlp(params, jnp.concatenate([observations, actions, z, times], -1), layer_norm=True)


def sample_actions(params: Any, observations: Any, key: Any, action_dim: int) -> Any:
    actions = jax.random.normal(key, (len(observations), action_dim))
    for step in range(FLOW_STEPS):
        times = jnp.full((len(observations), 1), step / FLOW_STEPS)
        actions = actions + policy_velocity(params, observations, actions, times) / FLOW_STEPS
    return jnp.clip(actions, -1, 1)


def sample_returns(params: Any, observations: Any, actions: Any, key: Any) -> Any:
    z = jax.random.normal(key, (len(observations), 1))
    for step in range(FLOW_STEPS):
        times = jnp.full((len(observations), 1), step / FLOW_STEPS)
        z = z + value_velocity(params, observations, actions, z, times) / FLOW_STEPS
    return z


def init(key: Any, observation_dim: int, action_dim: int, hidden: tuple[int, ...]) -> dict[str, Any]:
    policy_key, value_key = jax.random.split(key)
    policy = init_mlp(policy_key, (observation_dim + action_dim + 1, *hidden, action_dim))
    value = init_mlp(value_key, (observation_dim + action_dim + 2, *hidden, 1))
    return {
        "policy": policy,
        "value": value,
        "target": jax.tree.map(jnp.copy, value),
        "policy_moments": OPTIMISER.init(policy),
        "value_moments": OPTIMISER.init(value),
        "key": key,
    }


@partial(jax.jit, donate_argnums=0)
def update(state: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    key, *keys = jax.random.split(state["key"], 8)
    observations, actions = batch["observations"], batch["actions"]
    size, action_dim = actions.shape

    noise, times = jax.random.normal(keys[0], actions.shape), jax.random.uniform(keys[1], (size, 1))

    def policy_loss(params: Any) -> Any:
        velocity = policy_velocity(params, observations, (1 - times) * noise + times * actions, times)
        return ((velocity - (actions - noise)) ** 2).mean()

    next_actions = sample_actions(state["policy"], batch["next_observations"], keys[2], action_dim)
    z1 = sample_returns(state["target"], observations, actions, keys[3])
    z0, z_times = jax.random.normal(keys[4], (size, 1)), jax.random.uniform(keys[5], (size, 1))
    z = (1 - z_times) * z0 + z_times * z1
    after = value_velocity(state["target"], batch["next_observations"], next_actions, z, z_times)
    target = batch["rewards"] + DISCOUNT * batch["masks"] * after

    def value_loss(params: Any) -> Any:
        return ((value_velocity(params, observations, actions, z, z_times) - target) ** 2).mean()

    new = {"key": key}
    for name, loss in (("policy", policy_loss), ("value", value_loss)):
        gradient = jax.grad(loss)(state[name])
        change, new[f"{name}_moments"] = OPTIMISER.update(gradient, state[f"{name}_moments"])
        new[name] = optax.apply_updates(state[name], change)
    new["target"] = jax.tree.map(
        lambda old, now: (1 - TARGET_RATE) * old + TARGET_RATE * now, state["target"], new["value"]
    )
    return new


def sample_batch(data: dict[str, np.ndarray], generator: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    rows = generator.integers(len(data["observations"]), size=size)
    return {name: array[rows] for name, array in data.items()}


@partial(jax.jit, static_argnums=(3, 4, 5))
def act(
    policy: Any, value: Any, key_and_observation: tuple[Any, Any], action_dim: int, candidates: int, samples: int
) -> Any:
    """Algorithm 2 for one observation."""
    key, observation = key_and_observation
    action_key, return_key, choice_key = jax.random.split(key, 3)
    observations = jnp.repeat(observation[None], candidates, 0)
    actions = sample_actions(policy, observations, action_key, action_dim)
    returns = sample_returns(
        value, jnp.repeat(observations, samples, 0), jnp.repeat(actions, samples, 0), return_key
    ).reshape(candidates, samples)
    q = jax.nn.logsumexp(returns, axis=1) - jnp.log(samples)
    return actions[jax.random.categorical(choice_key, q / 1e-3)]
