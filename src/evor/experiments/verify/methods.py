"""Methods that are verified: objectives and their next actions, and which of them train the same on a problem."""

from typing import NamedTuple

from evor.agents.next_action import BestAction, DatasetAction, NextAction, PolicyAction
from evor.agents.registry import PRESETS
from evor.experiments.verify.bounds import BACKUPS
from evor.experiments.verify.problems import PROBLEMS
from evor.experiments.verify.process import Probe
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo, Objective, SampleBackup


class Method(NamedTuple):
    """A method that is verified: an objective and the source of its next action."""

    objective: Objective
    next_action: NextAction
    shipped: bool = False  # with the solver, the inputs and the steps of reading that `evor train` has by default


METHODS: dict[str, Method] = {
    "flow-td": Method(objective=FlowTd(), next_action=DatasetAction()),
    "flow-td-policy-action": Method(objective=FlowTd(), next_action=PolicyAction()),
    "flow-td-dataset-return": Method(objective=FlowTd(z1=DatasetReturn()), next_action=DatasetAction()),
    "monte-carlo": Method(objective=MonteCarlo(), next_action=DatasetAction()),
    "sample-backup-1": Method(objective=SampleBackup(1), next_action=DatasetAction()),
    "sample-backup-1-policy-action": Method(objective=SampleBackup(1), next_action=PolicyAction()),
    "sample-backup-1-best-action": Method(
        objective=SampleBackup(1), next_action=BestAction(num_candidates=4, num_stored=4)
    ),
    "sample-backup-5": Method(objective=SampleBackup(5), next_action=DatasetAction()),
    "sample-backup-50": Method(objective=SampleBackup(50), next_action=DatasetAction()),
    "default": Method(objective=PRESETS["default"].objective, next_action=DatasetAction(), shipped=True),
}


def answerable(problem: str, method: str) -> bool:
    """Whether the problem has what the method needs: whole returns of uncut episodes, an improved policy that is known."""
    needed = METHODS[method]
    if isinstance(needed.next_action, BestAction) and PROBLEMS[problem].improved is None:
        return False
    return PROBLEMS[problem].time_limit is None or not needed.objective.full_returns


def probes(problem: str, method: str) -> tuple[Probe, ...]:
    """The fixed point of a method at every state and action of a problem."""
    posed, (objective, next_action, _) = PROBLEMS[problem], METHODS[method]
    if isinstance(next_action, BestAction):
        assert posed.improved is not None  # see `answerable`
        posed = posed.improved(next_action.num_candidates)
    return posed.probes(objective.n_steps)


def representative(problem: str, method: str) -> str:
    """The first method that trains the same.

    Past the longest episode, n-step sums are all alike. Wherever next actions come from makes no difference where nothing
    is bootstrapped, or where there is but one action (unless an episode is cut, and the dataset's is not known).
    """
    horizon, time_limit = PROBLEMS[problem].horizon, PROBLEMS[problem].time_limit
    actions = {float(probe.action[0]) for probe in PROBLEMS[problem].probes(None)}
    if horizon == 1 or (len(actions) == 1 and time_limit is None):
        method = method.removesuffix("-policy-action")
    if method not in BACKUPS or horizon is None:
        return method
    needed = min(METHODS[method].objective.n_steps or horizon, horizon)
    return next(name for name in BACKUPS if (METHODS[name].objective.n_steps or 0) >= needed)
