"""Acting with SAC's actor in numpy: a small network at one observation is faster there than a compiled call."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from evor.agents.sac import LOG_STD
from evor.errors import EvorError, why
from evor.training.checkpoint import load_arrays

Actions = Float[np.ndarray, "n A"]


class Actor:
    """A copy of an actor's weights. It is made anew after every update."""

    def __init__(self, network: Any):
        pairs = zip(network.weights, network.biases, strict=True)
        self._layers = [(np.asarray(weight), np.asarray(bias)) for weight, bias in pairs]

    @classmethod
    def read(cls, path: Path) -> tuple["Actor", dict[str, Any]]:
        """Read an actor that a run left, and what is told of it. Raises EvorError where the file is damaged."""
        arrays, metadata = load_arrays(path)
        layers = range(sum(name.startswith("weights/") for name in arrays))
        try:
            weights, biases = ([arrays[f"{kind}/{layer}"] for layer in layers] for kind in ("weights", "biases"))
        except KeyError as error:
            raise EvorError(f"{path} holds no actor ({why(error)}); give one that `evor imitate` wrote.") from error
        if not layers or not {"env", "body"} <= set(metadata):
            raise EvorError(f"{path} holds no actor; give one that `evor imitate` wrote.")
        return cls(SimpleNamespace(weights=weights, biases=biases)), metadata

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
