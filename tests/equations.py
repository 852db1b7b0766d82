"""The equations in numpy: networks from their arrays alone, gradients by differences, and a small batch."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from evor.types import Outcome, Transition

PARTS = ("weights", "biases", "scales", "shifts")


def numpy_mlp(mlp, critic: int | None, x: np.ndarray) -> np.ndarray:
    """GELU, then LayerNorm where there are scales, then a linear layer. `critic` is the network's place in an ensemble."""

    def pick(arrays):
        return [np.asarray(a if critic is None else a[critic], np.float64) for a in arrays]

    weights, biases, scales, shifts = (pick(getattr(mlp, part)) for part in PARTS)
    for layer in range(len(weights) - 1):
        h = x @ weights[layer] + biases[layer]
        x = h * norm.cdf(h)
        if scales:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * scales[layer] + shifts[layer]
    return x @ weights[-1] + biases[-1]


def each_critic(critics, *inputs: np.ndarray) -> np.ndarray:
    """What every critic of an ensemble says of rows [B, ...]: [E, B]."""
    together = np.concatenate(inputs, -1).astype(np.float64)
    return np.stack([numpy_mlp(critics, i, together)[..., 0] for i in range(len(critics.biases[-1]))])


def gradient_norm(loss, mlp, step: float = 1e-5) -> float:
    """Norm of the gradient of a loss of one network, in float64: what the loss takes from elsewhere stands still."""
    copy = SimpleNamespace(**{part: [np.array(a, np.float64) for a in getattr(mlp, part)] for part in PARTS})
    squares = 0.0
    for part in PARTS:
        for array in getattr(copy, part):
            for place in np.ndindex(array.shape):
                kept = array[place]
                sides = []
                for side in (kept + step, kept - step):
                    array[place] = side
                    sides.append(loss(copy))
                array[place] = kept
                squares += ((sides[0] - sides[1]) / (2 * step)) ** 2
    return float(np.sqrt(squares))


def moved(network, factor: float = 1.3, shift: float = 0.1):
    """Another network of the same shape."""
    return jax.tree.map(lambda leaf: leaf * factor + shift, network)


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
