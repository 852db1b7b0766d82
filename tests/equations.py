"""What agents are compared with: networks in numpy, from their arrays alone, and batches of known numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from evor.types import Outcome, Transition


def numpy_mlp(mlp, critic: int | None, x: np.ndarray) -> np.ndarray:
    """GELU, then LayerNorm where there are scales, then a linear layer."""

    def pick(arrays):
        return [np.asarray(a if critic is None else a[critic], np.float64) for a in arrays]

    weights, biases, scales, shifts = map(pick, (mlp.weights, mlp.biases, mlp.scales, mlp.shifts))
    for layer in range(len(weights) - 1):
        h = x @ weights[layer] + biases[layer]
        x = h * norm.cdf(h)
        if scales:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * scales[layer] + shifts[layer]
    return x @ weights[-1] + biases[-1]


def arrays(key: int, batch: int = 6, candidates: int = 5, observation: int = 3, width: int = 4):
    """A batch of chunks of two actions, three of them leaving their episode, and candidates."""
    generator = np.random.default_rng(key)
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    mask = np.ones((batch, width), np.float32)
    mask[:3, width // 2 :] = 0
    transition = Transition(
        observation=draw(batch, observation),
        action=draw(batch, width),
        action_mask=mask,
        next_observation=draw(batch, observation),
        next_action=draw(batch, width),
        next_proposals=draw(batch, 0, width),
    )
    discount = np.array([0.81, 0.81, 0, 0.81, 0, 0.81], np.float32)
    weight = np.array([0, 0, 1, 1, 1, 1], np.float32)
    outcome = Outcome(
        reward=draw(batch),
        discount=discount,
        weight=weight,
        reward_to_go=np.full(batch, np.nan, np.float32),
        return_min=np.full(batch, -np.inf, np.float32),
        return_max=np.full(batch, np.inf, np.float32),
    )
    return jax.tree.map(jnp.asarray, (transition, outcome, draw(batch, candidates, width)))
