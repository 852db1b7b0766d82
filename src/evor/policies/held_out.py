"""Predictions of a run's value along recorded trajectories that were held out of training, stored for its report."""

import numpy as np

from evor.data.formats.npz import find_files, find_validation, read_episodes
from evor.data.load import join, read_all
from evor.data.returns import Extents, Returns
from evor.errors import EvorError
from evor.policies.load import Run
from evor.policies.policy import Policy
from evor.policies.predicted import NODES, predict, recorded_actions, steps_of_value
from evor.report.held_out import HeldOut, Trajectory, store
from evor.runtime.files import expand
from evor.training.config import RunConfig
from evor.training.data import data_spec_of
from evor.types import Episodes

EPISODES = 20  # that are compared with what was recorded
DRAWN = 3  # of them, the longest, are drawn
STATES = 200  # of an episode, at most
DISTRIBUTIONS = 4  # of a drawn one that are kept whole


def predict_held_out(run: Run) -> str:
    """Predict returns along held-out trajectories of a run on own data, and store them in its report/held_out.npz.

    They are those of the validation files (`*-val.npz`) beside the data, else the data's last episodes. Returns why there
    are none, in a sentence for the report, or "". Raises EvorError where the file can't be written.
    """
    assert run.folder is not None
    policy = run.policy(run.config.tasks[0], run.config.seed)
    if not policy.has_value:
        return "This agent has no value, so there are no predicted returns to show."
    try:
        episodes, unseen = _read(run.config)
    except EvorError as error:
        return f"Held-out predictions could not be made now, for the data can't be read: {error}"
    if episodes.spec != run.spec:
        return "Held-out predictions could not be made now: the data's observations or actions have other sizes than the run's."
    if policy.action_bounds.outside(episodes.actions[episodes.action_known]):
        return (
            "Held-out predictions could not be made: the held-out actions leave the bounds of the run, "
            f"{policy.action_bounds}. Give both files the same action_low and action_high."
        )
    trajectories = _trajectories(policy, episodes, discount=data_spec_of(run.config).discount, last=not unseen)
    if not trajectories:
        return "Held-out predictions could not be made: no episode is as long as one decision."
    assert run.folder is not None
    store(run.folder, HeldOut(updates=run.step, seed=run.config.seed, unseen=unseen, trajectories=trajectories))
    return ""


def _read(config: RunConfig) -> tuple[Episodes, bool]:
    """Episodes that were held out, or the data's last ones, of as many files as it takes; and whether training never saw them."""
    data = expand(config.data or "")
    validation = find_validation(data)
    parts: list[Episodes] = []
    for reading in read_all(validation or find_files(data)[::-1], read_episodes):
        parts.append(reading.episodes)
        if sum(int(part.ends.sum()) for part in parts) >= EPISODES:
            break
    return join(parts if validation else parts[::-1]), bool(validation)


def _trajectories(policy: Policy, episodes: Episodes, *, discount: float, last: bool) -> list[Trajectory]:
    """Predictions along the first or the last episodes."""
    extents, chunk = Extents.read(episodes), policy.config.chunk_length
    # First row of each episode, and the last one at which a decision is known to its end.
    spans = [(int(a), int(b) - chunk + 1) for a, b in zip(extents.start, extents.last_known, strict=True)]
    spans = [(first, final) for first, final in spans if final >= first]
    spans = spans[-EPISODES:] if last else spans[:EPISODES]
    longest = sorted(spans, key=lambda span: span[0] - span[1])[:DRAWN]
    returns = Returns.read(episodes, discount)
    return [_trajectory(policy, episodes, span=span, returns=returns, is_drawn=span in longest) for span in spans]


def _trajectory(
    policy: Policy, episodes: Episodes, *, span: tuple[int, int], returns: Returns, is_drawn: bool
) -> Trajectory:
    """Predictions at evenly spaced rows of one episode; whole distributions of one that is drawn."""
    first, final = span
    rows = np.unique(np.linspace(first, final, min(STATES, final - first + 1)).astype(int))
    predicted = predict(policy, episodes.observations[rows], actions=recorded_actions(policy, episodes, rows=rows))
    shown = np.unique(np.linspace(first, final, DISTRIBUTIONS + 1).astype(int)[:-1]) if is_drawn else rows[:0]
    nodes = np.zeros((0, NODES))
    if is_drawn:
        nodes = policy.quantiles(
            episodes.observations[shown],
            recorded_actions(policy, episodes, rows=shown),
            num_nodes=NODES,
            **steps_of_value(policy),
        )
    return Trajectory(
        step=rows - first,
        mean=predicted.mean,
        quantiles=predicted.quantiles,
        realised=returns.to_go[0, rows],
        complete=returns.complete[rows],
        shown=shown - first,
        nodes=nodes,
    )
