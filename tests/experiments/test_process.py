"""Return distributions of finite Markov processes: what a backup's look-ahead and the dynamics make of them."""

import math

import pytest

from evor.errors import EvorError
from evor.experiments.verify.problems import tree
from evor.experiments.verify.process import Branch, Process


def test_a_hidden_intent_has_no_distribution_between_one_step_and_all():
    rows = [
        (Branch(probability=1.0, action=0.0, reward=sign, state=after),)
        for sign, last in ((1.0, 2), (-1.0, 5))
        for after in (last - 1, last, None)
    ]
    process = Process(
        observations=(0, 1, 2, 0, 1, 2), branches=tuple(rows), start=(0.5, 0.0, 0.0, 0.5, 0.0, 0.0), discount=0.9
    )
    assert (
        process.probes(1)[0].distribution.std < process.probes(3)[0].distribution.std
    )  # three independent signs; one for all
    with pytest.raises(EvorError, match="n is 2"):
        process.probes(2)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_deterministic_dynamics_solve_the_soft_bellman_equation(temperature):
    """Theorem 1 with a discount (method, section 4): Q(x, a; tau) = r + discount V(x'; tau / discount)."""
    process = tree()

    def q(branch, temperature):
        if branch.state is None:
            return branch.reward
        return branch.reward + process.discount * v(branch.state, temperature / process.discount)

    def v(state, temperature):
        branches = process.branches[state]
        return temperature * math.log(sum(b.probability * math.exp(q(b, temperature) / temperature) for b in branches))

    for probe in process.probes(1):
        state = int(probe.observation.argmax())
        (branch,) = [b for b in process.branches[state] if b.action == probe.action[0]]
        assert probe.distribution.log_mean_exp(temperature) == pytest.approx(q(branch, temperature), abs=1e-9)


def test_stochastic_dynamics_make_log_mean_exp_risk_seeking():
    """The soft value of an agent that can't choose its luck takes the mean over next states; the reading exceeds it."""
    process, temperature = tree(slip=0.3), 0.3

    def q(state, action, temperature):
        branches = [b for b in process.branches[state] if b.action == action]
        total = sum(b.probability for b in branches)
        return sum(
            b.probability
            / total
            * (b.reward + (0 if b.state is None else process.discount * v(b.state, temperature / process.discount)))
            for b in branches
        )

    def v(state, temperature):
        chances = {a: sum(b.probability for b in process.branches[state] if b.action == a) for a in (-0.5, 0.5)}
        return temperature * math.log(
            sum(p * math.exp(q(state, a, temperature) / temperature) for a, p in chances.items())
        )

    for probe in process.probes(1):
        state = int(probe.observation.argmax())
        soft = q(state, probe.action[0], temperature)
        assert process.soft_value(state, probe.action[0], temperature=temperature) == pytest.approx(soft, abs=1e-9)
        excess = probe.distribution.log_mean_exp(temperature) - soft
        assert excess >= -1e-9
        assert excess > 1e-3 or state > 0  # the last decisions end the task: nothing slips there
