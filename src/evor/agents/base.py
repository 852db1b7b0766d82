"""Base policies that a value is trained over: a flow that is learned from the data, or a policy of the user's own."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import PRNGKeyArray

from evor.agents import bc
from evor.agents.bc import FlowPolicy
from evor.agents.contract import Base
from evor.nn.learner import Learner, Metrics, Progress
from evor.search.extraction import SoftmaxOf
from evor.types import Spec, Transition


@dataclass(frozen=True)
class OwnFlow:
    """A flow policy that is learned from the data's actions."""


@dataclass(frozen=True)
class Frozen:
    """A policy of your own, which stays as it is: only the value is trained."""

    # Whether your policy was trained on this very data. Targets may then sum more rewards than a chunk has actions.
    cloned_this_data: bool = False


BaseChoice = OwnFlow | Frozen
Trained = Learner | tuple[()]  # what is learned of a base policy: nothing of a frozen one


@runtime_checkable
class OverBase(FlowPolicy, Protocol):
    """Settings of an agent whose base policy may be the user's own."""

    @property
    def base(self) -> BaseChoice: ...


def is_frozen(config: Any) -> bool:
    """Whether the base policy of an agent's config is the user's own."""
    return isinstance(getattr(config, "base", None), Frozen)


def init_base(config: OverBase, spec: Spec, *, key: PRNGKeyArray) -> Trained:
    """A flow over actions, `()` for a frozen base policy."""
    return () if is_frozen(config) else bc.init_policy(config, spec, key=key)


def update_base(
    policy: Trained, batch: Transition, *, config: OverBase, progress: Progress, key: PRNGKeyArray
) -> tuple[Trained, Metrics]:
    """Behaviour cloning; nothing for a frozen base policy."""
    if not isinstance(policy, Learner):
        return policy, {}
    return bc.update_policy(policy, batch, config=config, progress=progress, key=key)


def network_of(policy: Trained) -> Any:
    """The network that acts, `()` for a frozen base policy."""
    return policy.network if isinstance(policy, Learner) else policy


def usual_candidates(config: OverBase) -> int:
    """Candidates of a decision: fewer of a frozen policy, whose draws may take long."""
    return 8 if is_frozen(config) else 32


def usual_temperature(standardise_returns: bool) -> float:
    """Action temperature of a search, in the unit that returns are learned in: in the reward's own it is the paper's tau_Q."""
    return SoftmaxOf.action_temperature if standardise_returns else 1e-3


BASE = Base(init=init_base, update=update_base)
