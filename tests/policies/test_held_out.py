"""Predictions along held-out trajectories, and the page of a run on own data."""

import shutil

import numpy as np
import pytest

import evor
from conftest import TINY, user_arrays
from evor.agents.bc import Bc
from evor.agents.qc import Qc
from evor.agents.scalar import Scalar
from evor.cli.main import main
from evor.nn.learner import Learning
from evor.policies.held_out import predict_held_out
from evor.report.held_out import read
from evor.runtime.files import read_json, write_json
from evor.training.config import RunConfig
from evor.training.train import train

SMALL = Learning(hidden=(8, 8), batch_size=8)


@pytest.fixture
def trained(here):
    """Train an agent on mine.npz, in this folder."""

    def run(agent=TINY, data="mine.npz"):
        train(RunConfig(data=data, updates=2, agent=agent), here / "run")
        return here / "run"

    return run


def test_held_out_actions_beyond_the_bounds_leave_a_sentence(trained, here):
    arrays = user_arrays(seed=1)
    wide = {"action_low": np.full(2, -3.0), "action_high": np.full(2, 3.0)}
    run = evor.open_run(trained())
    np.savez("mine-val.npz", **arrays, **wide)
    assert predict_held_out(run) == ""  # they are in the same units
    np.savez("mine-val.npz", **arrays | {"actions": 2 * arrays["actions"] + 1}, **wide)
    assert "the held-out actions leave the bounds of the run, [-1, 1]." in predict_held_out(run)


@pytest.mark.slow
def test_the_page_of_own_data_tells_the_value_along_recorded_trajectories(trained, here, capsys):
    np.savez("mine-val.npz", **user_arrays(seed=1))
    run = trained()
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    for words in (
        "Value along held-out trajectories",
        "Return distributions along held-out trajectories",
        "Predicted against recorded returns",
        "which training never saw",
        "To see the policy play in an environment of yours, run <code>evor evaluate RUN --env module:make_env</code> first.",
    ):
        assert words in page
    assert "Environment rewards" not in page
    assert "reward rule" not in page
    # The data move away: what was predicted stays, and the page says that it is not made anew.
    for path in here.glob("mine*.npz"):
        path.unlink()
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the data can&#x27;t be read" in page
    assert "which training never saw" in page
    shutil.rmtree(run / "report")
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the data can&#x27;t be read" in page
    assert "trajectory 1" not in page.lower()
    assert "can't be read" in capsys.readouterr().err


def test_predictions_are_the_policys_own(trained):
    """At the rows of the validation file, for its actions; the recorded returns are those of the file."""
    arrays = user_arrays(seed=1)
    np.savez("mine-val.npz", **arrays)
    run = trained()
    assert predict_held_out(evor.open_run(run)) == ""
    found = read(run)
    assert (found.updates, found.seed, found.unseen) == (2, 0, True)
    assert [len(one.step) for one in found.trajectories] == [20, 20, 20]
    policy = evor.load(run)
    one = found.trajectories[1]
    nodes = policy.quantiles(arrays["observations"][20:40], arrays["actions"][20:40], num_nodes=64)
    np.testing.assert_allclose(one.mean, nodes.mean(axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one.shown, [0, 4, 9, 14])
    np.testing.assert_allclose(one.nodes, nodes[one.shown], rtol=1e-4, atol=1e-4)
    rewards = arrays["rewards"][:20].astype(float)
    np.testing.assert_allclose(found.trajectories[0].realised[0], rewards @ 0.99 ** np.arange(20), rtol=1e-5)


def test_episodes_in_files_of_their_own_are_all_there_in_their_order(here):
    """A folder with a file for each episode: the first twenty that are held out, or the last twenty of the training data."""
    data = here / "episodes"
    data.mkdir()
    for number in range(22):
        rows = 3 + number
        part = {name: array[:rows] for name, array in user_arrays(seed=number).items()}
        part |= {"terminations": np.zeros(rows, bool), "truncations": np.arange(rows) == rows - 1}
        np.savez(data / f"{number:02d}.npz", **part)
        np.savez(data / f"{number:02d}-val.npz", **part)
    train(RunConfig(data=str(data), updates=2, agent=TINY), here / "run")
    run = evor.open_run(here / "run")
    assert predict_held_out(run) == ""
    steps = [len(one.step) for one in read(here / "run").trajectories]
    assert steps == list(range(3, 23))
    for path in data.glob("*-val.npz"):
        path.unlink()
    assert predict_held_out(run) == ""
    steps = [len(one.step) for one in read(here / "run").trajectories]
    assert steps == list(range(5, 25))


def test_without_a_validation_file_the_last_episodes_stand_in_and_it_is_said(trained):
    run = trained()
    assert main(["report", str(run)]) == 0
    assert not read(run).unseen
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the last episodes of the training data" in page
    assert "Value along recorded trajectories" in page
    assert "Return distributions along recorded trajectories" in page
    assert "held-out" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "rows"),
    [
        pytest.param(Scalar(learning=SMALL), 20, marks=pytest.mark.slow),
        (Qc(learning=SMALL, chunk_length=3), 18),
    ],
)
def test_scalar_and_chunked_agents_have_a_page_too(trained, agent, rows):
    run = trained(agent)
    assert main(["report", str(run)]) == 0
    found = read(run)
    assert [len(one.step) for one in found.trajectories] == [rows] * 3
    assert np.ptp(found.trajectories[0].quantiles, axis=1).max() < 1e-4


def test_an_agent_without_a_value_says_so(trained):
    run = trained(Bc(learning=SMALL))
    assert main(["report", str(run)]) == 0
    assert read(run) is None
    assert "This agent has no value" in (run / "report" / "index.html").read_text(encoding="utf-8")


def test_data_of_other_sizes_are_not_used(trained):
    np.savez("mine-val.npz", **user_arrays(observations=np.zeros((60, 5), np.float32)))
    assert "other sizes" in predict_held_out(evor.open_run(trained()))


def test_a_run_without_a_checkpoint_has_the_rest_of_its_page(trained):
    run = trained()
    shutil.rmtree(run / "checkpoints")
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "the run has no checkpoint" in page
    assert "Where these numbers come from" in page


def _edit_config(run):
    stored = read_json(run / "config.json")
    stored["config"]["agent"]["batch_size"] = 512
    write_json(run / "config.json", stored)


def _edit_type(run):
    stored = read_json(run / "config.json")
    stored["config"]["agent"]["batch_size"] = "many"
    write_json(run / "config.json", stored)
    shutil.rmtree(run / "checkpoints")


def _cut_checkpoint(run):
    (path,) = (run / "checkpoints").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])


def _flip_byte(run):
    (path,) = (run / "checkpoints").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_edit_config, "config.json was edited", marks=pytest.mark.slow),
        (_edit_type, "config.json does not fit this version"),
        (_cut_checkpoint, "none of the 1 checkpoints"),
        pytest.param(_flip_byte, "none of the 1 checkpoints", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_run_gets_no_page(damage, words, trained, capsys):
    """Neither alone nor beside others; what was drawn before stays."""
    run = trained()
    assert main(["report", str(run)]) == 0
    whole = run.rename(run.with_name("whole"))
    shutil.copytree(whole, run)
    before = (run / "report" / "index.html").read_bytes()
    damage(run)
    for runs in ([run], [whole, run]):
        capsys.readouterr()
        assert main(["report", *map(str, runs)]) == 2
        assert words in capsys.readouterr().err
        assert (runs[0] / "report" / "index.html").read_bytes() == before
