"""Sources of the action a_n that a target bootstraps from: candidates, drawn once for all tasks, and the choice."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.base import OverBase, Trained, is_frozen
from evor.agents.bc import Bc, FlowPolicy, propose_next
from evor.agents.contract import BaseFirst
from evor.errors import EvorError, at_least
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


def _draws(
    policy: Trained, batch: Transition, *, config: FlowPolicy, number: int, key: PRNGKeyArray
) -> Float[Array, "B C H"]:
    """Draws from the base policy at the bootstrap state: some of those that are stored there, or new ones."""
    if not (stored := batch.next_proposals.shape[1]):
        assert isinstance(policy, Learner)
        return propose_next(policy, batch, config=config, num_candidates=number, key=key)
    # Draws are alike: some that lie side by side, from a random place on, are as good as any others.
    start = jax.random.randint(key, batch.action.shape[:1], 0, stored)
    places = (start[:, None] + jnp.arange(number)[None]) % stored
    return jnp.take_along_axis(batch.next_proposals, places[..., None], axis=1)


def _take_first(
    self: Any, returns: Returns, actions: Float[Array, "C H"], *, flow_steps: int, key: PRNGKeyArray
) -> Float[Array, " H"]:
    return actions[0]


@dataclass(frozen=True)
class DatasetAction:
    """The action that the dataset holds next."""

    # A sample of the behaviour policy at no cost (SARSA).

    from_data = True

    def candidates(
        self, policy: Trained, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return batch.next_action[:, None]

    choose = _take_first


@dataclass(frozen=True)
class PolicyAction:
    """A draw from the base policy."""

    # a_n ~ base policy at the bootstrap state (Algorithm 1).

    from_data = False

    def candidates(
        self, policy: Trained, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B 1 H"]:
        return _draws(policy, batch, config=config, number=1, key=key)

    choose = _take_first


@dataclass(frozen=True)
class BestAction:
    """The best of a few draws from the base policy."""

    # The online value ranks the draws and its moving average evaluates the best: with one network for both, errors
    # that rank a draw first also raise its target. Policy iteration where n_steps is 1. With more steps the first n
    # rewards are the behaviour's and only the rest is the improved policy's. The default reading is the cheapest there
    # is, the mean by one velocity evaluation at noise 0.

    num_candidates: int = 8  # Draws from the base policy that are compared for each target.
    # Draws that are stored for a row once the base policy is trained; each target compares some of them. With 0 the
    # base policy trains at the same time as the value, and draws are made anew for each target, at a higher cost.
    num_stored: int = 16
    # Visits of a row on average, at least. A short run stores draws for fewer rows and trains its value on these alone.
    visits: int = 8
    dataset_action: bool = False  # Whether the dataset's own next action is compared, too.
    # Temperature of the score, in standard deviations of the returns: inf reads the mean of a return distribution, 0 its
    # maximum.
    return_temperature: float = math.inf
    # Temperature of the choice among scores, in standard deviations of the returns: 0 takes the best.
    action_temperature: float = 0.0
    # How the return distribution of a draw is read.
    reading: Reading = field(default_factory=lambda: Quadrature(1, flow_steps=1))

    def __post_init__(self):
        at_least(1, num_candidates=self.num_candidates, visits=self.visits)
        at_least(0, return_temperature=self.return_temperature, action_temperature=self.action_temperature)
        at_least(0, num_stored=self.num_stored)
        if 0 < self.num_stored < self.num_candidates:
            raise EvorError(
                f"num_stored is {self.num_stored}, fewer than num_candidates, {self.num_candidates}; store at least as many."
            )

    @property
    def from_data(self) -> bool:
        """Whether the dataset's next action must be known."""
        return self.dataset_action

    def candidates(
        self, policy: Trained, batch: Transition, *, config: FlowPolicy, key: PRNGKeyArray
    ) -> Float[Array, "B C H"]:
        draws = _draws(policy, batch, config=config, number=self.num_candidates, key=key)
        return jnp.concatenate([batch.next_action[:, None], draws], axis=1) if self.dataset_action else draws

    def choose(
        self, returns: Returns, actions: Float[Array, "C H"], *, flow_steps: int, key: PRNGKeyArray
    ) -> Float[Array, " H"]:
        steps = self.reading.flow_steps or flow_steps

        def flowed(action: Array, noises: Array) -> Array:
            return returns(action=action, noises=noises, flow_steps=steps)

        scores = score(self.reading, self.return_temperature, actions=actions, returns=flowed, key=key)
        if self.action_temperature:  # the largest of score / temperature + Gumbel noise is a draw from the softmax
            noise = jax.random.gumbel(jax.random.fold_in(key, 1), scores.shape)
            even = math.isinf(self.action_temperature)
            scores = noise if even else scores + self.action_temperature * noise
        return actions[jnp.argmax(scores)]


NextAction = DatasetAction | PolicyAction | BestAction


class _Bootstraps(OverBase, Protocol):
    """Settings of an agent with this base policy and targets that bootstrap."""

    @property
    def standardise_observations(self) -> bool: ...


def base_first(config: _Bootstraps, chosen: NextAction) -> BaseFirst | None:
    """Train the base policy first where targets look its draws up, and it is not the user's own."""
    if is_frozen(config) or not isinstance(chosen, BestAction) or not chosen.num_stored:
        return None
    alone = Bc(
        standardise_observations=config.standardise_observations,
        learning=config.learning,
        flow_steps=config.flow_steps,
        chunk_length=config.chunk_length,
    )
    return BaseFirst(agent=alone, num_proposals=chosen.num_stored, visits=chosen.visits)
