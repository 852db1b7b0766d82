"""What version 0.1.0 wrote (tests/version_0_1_0, made by its make.py) is read, played, reported, resumed and acts as it did."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import evor
from conftest import DATASET
from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.nn.learner import Learning
from evor.nn.objectives import SampleBackup
from evor.report.evaluations import RETURNS, YOUNGER
from evor.report.run import write_report
from evor.rollouts.evaluate import evaluate
from evor.runtime.files import read_csv
from evor.training import checkpoint, upgrade
from evor.training.config import RunConfig
from evor.training.train import train
from evor.types import NoBounds

OLD = Path(__file__).parent / "version_0_1_0"
OLD_SEARCH = evor.SoftmaxOf(8, action_temperature=1e-3, reading=evor.Quadrature(10, flow_steps=None))
CSV = "softmaxof_2_1.0_0.001_quadrature-10_10.csv"


@pytest.fixture
def old(tmp_path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def config(data: Path, **changes) -> RunConfig:
    options = {"tasks": (1, 4), "num_seeds": 2, "updates": 20, "checkpoint_every": 10, "log_every": 4} | changes
    small = Learning(hidden=(8, 8), batch_size=32)
    agent = Evor(SampleBackup(20), next_action=DatasetAction(), learning=small, return_bounds=NoBounds())
    return RunConfig(dataset=DATASET, data=str(data), agent=agent, **options)


@pytest.mark.parametrize("opened", [lambda: evor.load(OLD / "run", task=1, seed=0), lambda: evor.load(OLD / "export")])
def test_it_acts_and_reads_returns_as_it_did(opened):
    policy = opened()
    with np.load(OLD / "known.npz") as known:
        o, prior = known["observations"], known["prior"]
        now = {
            "prior": policy.act(o, np.array([1, 2, 3]), extraction=evor.Prior()),
            "softmax": policy.act(o, 7, extraction=OLD_SEARCH),
            "best": policy.act(o[0], 5, extraction=evor.BestOf(4)),
            "value": policy.value(o, prior),
            "returns": policy.returns(o, prior, num_samples=5, seed=2),
            "quantiles": policy.quantiles(o, prior, num_nodes=4),
        }
        for name, array in now.items():
            np.testing.assert_allclose(array, known[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_run_resumes_to_what_it_would_have_become(old):
    """From its checkpoint after 10 updates, which does not say when the log was last written: after 8."""
    last = checkpoint.checkpoint_path(old / "run" / "checkpoints", 20)
    wanted = upgrade.with_bounds(checkpoint.load_arrays(last)[0], 2)  # of actions, which 0.1.0 did not store
    logged = (old / "run" / "metrics.jsonl").read_text()
    last.unlink()
    train(config(old / "data"), old / "run", resume=True)
    arrays = checkpoint.load_arrays(last)[0]
    assert arrays.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(arrays[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert [line.split('"policy')[0] for line in (old / "run" / "metrics.jsonl").read_text().splitlines()] == [
        line.split('"policy')[0] for line in logged.splitlines()
    ]


@pytest.mark.slow
def test_its_evaluations_stay_beside_new_ones_and_are_reported(old):
    stem = old / "run" / "evaluations" / CSV
    before = read_csv(stem, None, remedy="")
    evaluate(old / "run", dataclasses.replace(OLD_SEARCH, num_candidates=2), episodes=2, tasks=(4,), seeds=(0,))
    rows = read_csv(stem, None, remedy="")
    assert [row for row in rows if row["task"] == "1"] == [
        dict.fromkeys((*RETURNS, *YOUNGER), "") | row for row in before
    ]
    assert sum(row["task"] == "4" for row in rows) == 2
    assert "task 4" in write_report([old / "run"]).read_text(encoding="utf-8").lower()
