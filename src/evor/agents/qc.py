"""QC: Q-chunking (Li, Zhou & Levine 2025; the paper's Eq. 41-43). One scalar, searched in the targets and when acting.

repeat:
    policy  <- flow matching on chunks of the dataset's actions
    best    <- the candidate of policy at x_h that the critics' mean likes best
    critics <- regress on sum of h rewards + discount^h mask mean_i target_i(x_h, best)
    targets <- exponential moving averages of the critics
act: the best of num_candidates proposals by the critics' mean; play the whole chunk
"""

import functools
import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from evor.agents.bc import BASE, check_policy, propose, propose_guided, propose_next
from evor.agents.contract import Agent, Head, one_chunk
from evor.errors import at_least, fraction
from evor.nn.batching import each_example
from evor.nn.critics import critics_loss, each_value, init_critics, mean_returns
from evor.nn.learner import Learner, Learning, Metrics, Progress, Tracked, named, weighted_mean
from evor.nn.nets import Mlp, VelocityField
from evor.runtime.records import INLINED
from evor.search.extraction import BestOf
from evor.search.readings import Quadrature
from evor.types import Outcome, Spec, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Qc:
    """Q-chunking: critics of action chunks, searched in targets and when acting."""

    # QC-h of the paper, h = chunk_length. The official code has the same sizes; it standardises nothing.

    num_candidates: int = 32  # Candidates per decision, in targets and when acting.
    num_critics: int = 2  # Number of critics. Their mean counts.
    standardise_observations: bool = True  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = True  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(default=Learning(final_learning_rate=3e-4), metadata=INLINED)  # a constant rate
    target_rate: float = 5e-3  # Rate of the moving averages of the critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one chunk of actions.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_policy(self)
        at_least(1, num_candidates=self.num_candidates, num_critics=self.num_critics)
        fraction(target_rate=self.target_rate, discount=self.discount)


# 2. What is learned.


def init_value(config: Qc, spec: Spec, *, key: PRNGKeyArray) -> Tracked:
    """Critics of an observation and a chunk [O + H], stacked along a leading axis."""

    width = spec.observation_dim + spec.action_dim * config.chunk_length
    learning, number = config.learning, config.num_critics
    return Tracked(init_critics(width, learning.hidden, number=number, precision=learning.precision, key=key))


# 3. The mathematics, one transition at a time.


def mean_value(critics: Mlp, observation: Float[Array, " O"], action: Float[Array, " H"]) -> Float[Array, ""]:
    """The critics' mean, standardised."""
    return each_value(critics, observation, action).mean()


def backup(
    critics: Mlp, targets: Mlp, actions: Float[Array, "C H"], transition: Transition, outcome: Outcome
) -> Float[Array, ""]:
    """Eq. 43: the online critics choose among the candidates, their moving averages score the choice."""
    scores = jax.vmap(mean_value, (None, None, 0))(critics, transition.next_observation, actions)
    best = actions[jnp.argmax(scores)]
    return outcome.reward + outcome.discount * mean_value(targets, transition.next_observation, best)


# 4. One gradient step.


def hand_over(policy: Learner, batch: Transition, *, config: Qc, key: PRNGKeyArray) -> Float[Array, "B C H"]:
    """Candidates for every target, drawn once for all tasks."""
    return propose_next(policy, batch, config=config, num_candidates=config.num_candidates, key=key)


def update_value(
    value: Tracked,
    batch: Transition,
    *,
    handed: Float[Array, "B C H"],
    outcomes: Outcome,
    config: Qc,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[Tracked, Metrics]:
    """Regress the critics on the backup. Chunks that leave their episode carry weight 0."""
    backup_of = functools.partial(backup, value.learner.network, value.target)
    targets = each_example(backup_of, handed, batch, outcomes, rows=handed.shape[1])

    def loss(critics: Mlp) -> Float[Array, ""]:
        losses = jax.vmap(critics_loss, (None, 0, 0))(critics, batch, targets)
        return weighted_mean(losses, outcomes.weight)

    value, metrics = value.step(loss, learning=config.learning, progress=progress, target_rate=config.target_rate)
    return value, named("value", metrics | {"target": targets.mean()})


# 5. How it acts.


def inference_networks(policy: Learner, value: Tracked, *, config: Qc) -> tuple[VelocityField, Mlp]:
    """The policy and the online critics."""
    return policy.network, value.learner.network


def default_search(config: Qc) -> BestOf:
    """The best of num_candidates (Eq. 42)."""
    reading, steps = Quadrature(1, flow_steps=None), config.flow_steps
    return BestOf(config.num_candidates, return_temperature=math.inf, reading=reading, flow_steps=steps)


AGENT = Agent(
    config=Qc,
    data_spec=one_chunk,
    base=BASE,
    hand_over=hand_over,
    head=Head(init=init_value, update=update_value),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=mean_returns,
    default_search=default_search,
    presets={"qc-1": Qc(chunk_length=1), "qc-5": Qc(chunk_length=5)},
)
