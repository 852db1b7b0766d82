"""IFQL: implicit Q-learning over a flow, the search left to the decision (IDQL with a flow; Park, Li & Levine 2025).

policy <- flow matching on the dataset's actions
repeat:
    value   <- expectile regression on min_i target_i(x, a)
    critics <- regress on reward + discount mask value(x')
    targets <- exponential moving averages of the critics
act: the best of num_candidates draws of policy by min_i critics_i
"""

import math
from dataclasses import dataclass, field

from jaxtyping import PRNGKeyArray

from evor.agents.bc import BASE, check_policy, propose, propose_guided
from evor.agents.contract import Agent, Head, one_chunk
from evor.agents.implicit import ValueAndCritics, check_implicit, init_values, update_values
from evor.errors import at_least
from evor.nn.critics import least_returns
from evor.nn.learner import Learner, Learning, Metrics, Progress
from evor.nn.nets import Mlp, VelocityField
from evor.runtime.records import INLINED
from evor.search.extraction import BestOf
from evor.search.readings import Quadrature
from evor.types import Outcome, Transition

# 1. What can be set.


@dataclass(frozen=True)
class Ifql:
    """Implicit Q-learning, and the best of many draws of a flow when acting."""

    # The official code's settings.

    num_candidates: int = 32  # Candidates per decision.
    # Weight of errors where the critics are above the value. 0.5 is the mean; towards 1 it is the best of the data.
    expectile: float = 0.9
    num_critics: int = 2  # Number of critics. The least of them counts.
    standardise_observations: bool = False  # Scale observations to mean 0 and standard deviation 1.
    standardise_returns: bool = False  # Scale returns to mean 0 and standard deviation 1.
    learning: Learning = field(
        default=Learning(hidden=(512, 512, 512, 512), final_learning_rate=3e-4), metadata=INLINED
    )  # a constant rate
    target_rate: float = 5e-3  # Rate of the moving averages of the critics, per update.
    discount: float = 0.99  # Discount of rewards, per environment step.
    flow_steps: int = 10  # Solver steps, each one network evaluation, for one action.
    chunk_length: int = 1  # Actions per decision.

    def __post_init__(self):
        check_policy(self)
        check_implicit(self)
        at_least(1, num_candidates=self.num_candidates)


# 2. What is learned: `init_values`, and the flow of BC.

# 3. The mathematics: agents/implicit.py.

# 4. One gradient step.


def update_head(
    values: ValueAndCritics,
    batch: Transition,
    *,
    handed: tuple[()],
    outcomes: Outcome,
    config: Ifql,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[ValueAndCritics, Metrics]:
    """Train the value and the critics. The flow proposes in no target."""
    return update_values(values, batch, outcomes=outcomes, config=config, progress=progress)


# 5. How it acts.


def inference_networks(policy: Learner, values: ValueAndCritics, *, config: Ifql) -> tuple[VelocityField, Mlp]:
    """The flow and the online critics."""
    return policy.network, values.critics.learner.network


def default_search(config: Ifql) -> BestOf:
    """The best of num_candidates."""
    reading, steps = Quadrature(1, flow_steps=None), config.flow_steps
    return BestOf(config.num_candidates, return_temperature=math.inf, reading=reading, flow_steps=steps)


AGENT = Agent(
    config=Ifql,
    data_spec=one_chunk,
    base=BASE,
    head=Head(init=init_values, update=update_head),
    inference_networks=inference_networks,
    propose=propose,
    propose_guided=propose_guided,
    returns=least_returns,
    default_search=default_search,
    presets={"ifql": Ifql()},
)
