"""evor's own base policy as a frozen one: the search over it succeeds as often as over the built-in one."""

import numpy as np
import pytest

import evor
from conftest import DATASET, episodes_cut_after
from evor.agents.registry import PRESETS
from evor.data.scripted.generate import generate
from evor.policies.propose import propose
from evor.report.success import success_interval
from evor.rollouts.evaluate import evaluate
from evor.runtime.records import replace
from evor.training.over_base import over_proposals, read_proposals


@pytest.fixture
def full_episodes():
    with episodes_cut_after(1000):
        yield


@pytest.mark.slow
def test_a_frozen_flow_succeeds_as_the_built_in_one(tmp_path, full_episodes):
    data = {"data_folder": generate(DATASET, 200_000, seed=0, folder=tmp_path / "data").parent}
    options = {"updates": 5000, "quiet": True, **data}
    quick = replace(PRESETS["default"], hidden=(256, 256, 256), learning_rate=9e-4)
    own = evor.train(DATASET, agent=quick, out=tmp_path / "own", **options)
    flow = evor.load(tmp_path / "own" / "base")

    def draws(observations, num, seed):
        rows = np.repeat(observations["observation"], num, axis=0)
        seeds = np.random.default_rng(seed).integers(2**32, size=len(rows))
        return flow.act(rows, seeds, extraction=evor.Prior()).reshape(-1, num, 1, 2)

    stored = propose(DATASET, base=draws, num=16, out=tmp_path / "proposals", quiet=True, **data)
    agent = over_proposals(own.config.agent, read_proposals(stored))
    frozen = evor.Frozen(cloned_this_data=True)
    agent = replace(quick, base=frozen, next_action=agent.next_action, objective=quick.objective)
    over = evor.train(DATASET, agent=agent, proposals=stored, out=tmp_path / "over", **options)
    played = [
        evaluate(run.folder, evor.SoftmaxOf(32), episodes=30, base=base) for run, base in ((own, None), (over, draws))
    ]
    (low, high), (least, most) = map(success_interval, played)
    assert low > 0.5
    assert least <= high
    assert low <= most
