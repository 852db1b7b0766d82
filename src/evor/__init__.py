"""Offline reinforcement learning with flow policies, distributional flow values and search at decision time."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evor.agents.base import Frozen
    from evor.agents.bc import Bc
    from evor.agents.evor import Evor
    from evor.agents.fql import Fql
    from evor.agents.ifql import Ifql
    from evor.agents.iql import Iql
    from evor.agents.qc import Qc
    from evor.agents.rebrac import Rebrac
    from evor.agents.registry import preset
    from evor.agents.scalar import Scalar
    from evor.agents.sorl import Sorl
    from evor.agents.value_flows import ValueFlows
    from evor.data.read import read_dataset
    from evor.errors import EvorError
    from evor.experiments.audit.measure import AuditSettings
    from evor.experiments.audit.runner import audit
    from evor.nn.learner import Learning
    from evor.policies.controller import Controller
    from evor.policies.label import label
    from evor.policies.load import Run, load, open_run
    from evor.policies.policy import Policy
    from evor.policies.propose import propose
    from evor.policies.train import train
    from evor.rollouts.evaluation import Evaluation, evaluate
    from evor.search.extraction import BestOf, Guided, Prior, SoftmaxOf
    from evor.search.guidance import AfterChoice, InsideFlow
    from evor.search.readings import Quadrature, RandomSamples
    from evor.serving.client import Client
    from evor.training.config import RunConfig
    from evor.types import Episodes

__version__ = "0.2.0.dev0"

# Imported on first use, so that `import evor` and `evor --help` never wait for JAX.
_HOME = {
    "AfterChoice": "evor.search.guidance",
    "AuditSettings": "evor.experiments.audit.measure",
    "Bc": "evor.agents.bc",
    "BestOf": "evor.search.extraction",
    "Client": "evor.serving.client",
    "Controller": "evor.policies.controller",
    "Episodes": "evor.types",
    "Evaluation": "evor.rollouts.evaluation",
    "Evor": "evor.agents.evor",
    "EvorError": "evor.errors",
    "Frozen": "evor.agents.base",
    "Fql": "evor.agents.fql",
    "Guided": "evor.search.extraction",
    "Ifql": "evor.agents.ifql",
    "InsideFlow": "evor.search.guidance",
    "Iql": "evor.agents.iql",
    "Learning": "evor.nn.learner",
    "Policy": "evor.policies.policy",
    "Prior": "evor.search.extraction",
    "Qc": "evor.agents.qc",
    "Quadrature": "evor.search.readings",
    "RandomSamples": "evor.search.readings",
    "Rebrac": "evor.agents.rebrac",
    "Run": "evor.policies.load",
    "RunConfig": "evor.training.config",
    "Scalar": "evor.agents.scalar",
    "SoftmaxOf": "evor.search.extraction",
    "Sorl": "evor.agents.sorl",
    "ValueFlows": "evor.agents.value_flows",
    "audit": "evor.experiments.audit.runner",
    "evaluate": "evor.rollouts.evaluation",
    "label": "evor.policies.label",
    "load": "evor.policies.load",
    "open_run": "evor.policies.load",
    "preset": "evor.agents.registry",
    "propose": "evor.policies.propose",
    "read_dataset": "evor.data.read",
    "train": "evor.policies.train",
}

_WITHOUT_JAX = ("Client", "EvorError")

__all__ = [
    "AfterChoice",
    "AuditSettings",
    "Bc",
    "BestOf",
    "Client",
    "Controller",
    "Episodes",
    "Evaluation",
    "Evor",
    "EvorError",
    "Fql",
    "Frozen",
    "Guided",
    "Ifql",
    "InsideFlow",
    "Iql",
    "Learning",
    "Policy",
    "Prior",
    "Qc",
    "Quadrature",
    "RandomSamples",
    "Rebrac",
    "Run",
    "RunConfig",
    "Scalar",
    "SoftmaxOf",
    "Sorl",
    "ValueFlows",
    "__version__",
    "audit",
    "evaluate",
    "label",
    "load",
    "open_run",
    "preset",
    "propose",
    "read_dataset",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        if name not in _WITHOUT_JAX:
            import_module("evor.envs.randomness")  # first, for it imports JAX
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'evor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
