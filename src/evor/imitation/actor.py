"""Acting with SAC's actor in numpy: a small network at one observation is faster there than a compiled call."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from evor.agents.sac import LOG_STD

Actions = Float[np.ndarray, "n A"]


class Actor:
    """A copy of an actor's weights. It is made anew after every update."""

    def __init__(self, network: Any):
        self._layers = [
            (np.asarray(weight), np.asarray(bias)) for weight, bias in zip(network.weights, network.biases, strict=True)
        ]

    def draw(self, observations: Float[np.ndarray, "n O"], generator: np.random.Generator) -> Actions:
        """One draw for every observation."""
        mean, log_std = np.split(self._forward(observations), 2, axis=1)
        noise = generator.standard_normal(mean.shape, np.float32)
        return np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD)) * noise)

    def mean(self, observations: Float[np.ndarray, "n O"]) -> Actions:
        """The action without noise, as evaluations play it."""
        return np.tanh(np.split(self._forward(observations), 2, axis=1)[0])

    def _forward(self, observations: Float[np.ndarray, "n O"]) -> Float[np.ndarray, "n _"]:
        x = observations
        for weight, bias in self._layers[:-1]:
            x = x @ weight + bias
            x = x * ndtr(x)
        weight, bias = self._layers[-1]
        return x @ weight + bias
