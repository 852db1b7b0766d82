"""Values that a report draws, where a value is one of acting in so many flow steps."""

from types import SimpleNamespace

import numpy as np
import pytest

from evor.agents import sorl
from evor.agents.evor import AGENT, Evor
from evor.agents.sorl import Sorl
from evor.policies.predicted import predict_quantiles
from evor.rollouts.maze import best_value


class Asked:
    """A policy that remembers in how many flow steps its value was asked."""

    def __init__(self, config, search):
        self.config, self.default_search, self.steps = config, search, []

    def act(self, states, seed, *, extraction):
        return np.zeros((len(states), 2))

    def value(self, states, actions, *, flow_steps=None, **_):
        self.steps.append(flow_steps)
        return np.zeros(len(states))

    def quantiles(self, states, actions, *, num_nodes, flow_steps=None):
        self.steps.append(flow_steps)
        return SimpleNamespace()


@pytest.mark.parametrize("finest", [4, 16])
def test_a_drawn_value_is_of_acting_in_the_steps_that_a_policy_acts_in(finest):
    config = Sorl(finest_steps=finest, trained_steps=finest)
    for asked, steps in (
        (Asked(config, sorl.default_search(config)), finest),
        (Asked(Evor(), AGENT.default_search(Evor())), None),
    ):
        best_value(asked, np.zeros((3, 2)))
        predict_quantiles(asked, np.zeros((3, 2)), actions=np.zeros((3, 2)))
        assert asked.steps == [steps, steps]
