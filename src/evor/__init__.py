"""Offline reinforcement learning with flow policies, distributional flow values and search at decision time."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evor.errors import EvorError
    from evor.policies.controller import Controller
    from evor.policies.load import load
    from evor.policies.policy import Policy
    from evor.search.extraction import BestOf, Prior, SoftmaxOf
    from evor.search.readings import Quadrature, RandomSamples

__version__ = "0.2.0.dev0"

# Imported on first use, so that `import evor` and `evor --help` never wait for JAX.
_HOME = {
    "BestOf": "evor.search.extraction",
    "Controller": "evor.policies.controller",
    "EvorError": "evor.errors",
    "Policy": "evor.policies.policy",
    "Prior": "evor.search.extraction",
    "Quadrature": "evor.search.readings",
    "RandomSamples": "evor.search.readings",
    "SoftmaxOf": "evor.search.extraction",
    "load": "evor.policies.load",
}

__all__ = [
    "BestOf",
    "Controller",
    "EvorError",
    "Policy",
    "Prior",
    "Quadrature",
    "RandomSamples",
    "SoftmaxOf",
    "__version__",
    "load",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        if name != "EvorError":
            import_module("evor.envs.randomness")  # first, for it imports JAX
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'evor' has no attribute {name!r}")
