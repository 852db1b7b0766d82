"""Sources of the action a_n that a target bootstraps from: candidates, drawn once for all tasks, and the choice."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.bc import FlowPolicy, propose_next
from evor.errors import at_least
from evor.nn.learner import Learner
from evor.search.extraction import score
from evor.search.readings import Quadrature, Reading
from evor.types import Transition


@runtime_checkable
class Returns(Protocol):
    """Read returns of an action at the bootstrap state: an agent's own `returns`, all but three arguments given."""

    def __call__(
        self, *, action: Float[Array, " H"], noises: Float[Array, " Z"], flow_steps: int
    ) -> Float[Array, " Z"]: ...


def _take_first(self: Any, returns: Returns, actions: Float[Array, "C H"], *, key: PRNGKeyArray) -> Float[Array, " H"]:
    return actions[0]


@dataclass(frozen=True)
class DatasetAction:
    """The action that the dataset holds next."""

    # A sample of the behaviour policy at no cost (SARSA).

    from_data = True

    def candidates(
        self, policy: Learner, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return batch.next_action[:, None]

    choose = _take_first


@dataclass(frozen=True)
class PolicyAction:
    """A draw from the base policy."""

    # a_n ~ base policy at the bootstrap state (Algorithm 1).

    from_data = False

    def candidates(
        self, policy: Learner, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return propose_next(policy, batch, config=config, num_candidates=1, key=key)

    choose = _take_first


@dataclass(frozen=True)
class BestAction:
    """The best of a few draws from the base policy."""

    # The value's moving average ranks the draws: policy iteration where n_steps is 1. With more steps the first n
    # rewards are the behaviour's and only the rest is the improved policy's. The default reading is the cheapest
    # there is, one velocity evaluation at noise 0. Its distribution is the improved policy's, not the behaviour's.

    num_candidates: int = 4  # Draws from the base policy for each target.
    # Temperature of the score of a return distribution, in its standard deviations: inf is the mean, 0 the maximum.
    return_temperature: float = math.inf
    # How the return distribution of a draw is read.
    reading: Reading = field(default_factory=lambda: Quadrature(1))
    flow_steps: int = 1  # Solver steps, each one network evaluation, for one return.

    from_data = False

    def __post_init__(self):
        at_least(1, num_candidates=self.num_candidates, flow_steps=self.flow_steps)
        at_least(0, return_temperature=self.return_temperature)

    def candidates(
        self, policy: Learner, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B C H"]:
        return propose_next(policy, batch, config=config, num_candidates=self.num_candidates, key=key)

    def choose(self, returns: Returns, actions: Float[Array, "C H"], *, key: PRNGKeyArray) -> Float[Array, " H"]:
        def flowed(action: Array, noises: Array) -> Array:
            return returns(action=action, noises=noises, flow_steps=self.flow_steps)

        return actions[
            jnp.argmax(score(self.reading, self.return_temperature, actions=actions, returns=flowed, key=key))
        ]


NextAction = DatasetAction | PolicyAction | BestAction
