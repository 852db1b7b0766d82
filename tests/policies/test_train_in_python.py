"""`evor.train` and `evor.read_dataset`: arrays, a file or an OGBench name, resumable, one sentence for what is wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import evor
from conftest import DATASET, TINY, user_arrays
from evor.agents.next_action import BestAction
from evor.agents.qc import Qc
from evor.cli.main import main
from evor.errors import EvorError
from evor.training import checkpoint
from evor.training.train import Training


def weights(run) -> dict[str, bytes]:
    arrays, _ = checkpoint.load_arrays(checkpoint.checkpoints(run.folder / "checkpoints")[-1])
    return {name: array.tobytes() for name, array in arrays.items()}


def with_any(config, **settings):
    """A config with settings of any type, which the tests' own checks of types would refuse."""
    for name, value in settings.items():
        object.__setattr__(config, name, value)
    return config


def config_of(run) -> dict:
    return json.loads((run.folder / "config.json").read_text())


def test_arrays_train_as_the_same_file_bit_for_bit(tmp_path, user_file):
    following = np.roll(user_arrays()["observations"], -1, axis=0)
    arrays = user_arrays(next_observations=following)
    before = {name: array.copy() for name, array in arrays.items()}
    one = evor.train(arrays, out=tmp_path / "arrays", updates=5, agent=TINY, quiet=True)
    two = evor.train(user_file(next_observations=following), out=tmp_path / "file", updates=5, agent=TINY, quiet=True)
    assert weights(one) == weights(two)
    assert config_of(one)["data_digest"] == config_of(two)["data_digest"]
    assert (config_of(one)["config"]["data"], config_of(one)["config"]["dataset"]) == (None, None)
    assert config_of(two)["config"]["data"] == str(user_file())
    np.testing.assert_equal(arrays, before)
    observation = arrays["observations"][0]
    np.testing.assert_array_equal(one.policy().act(observation, 0), two.policy(1, 0).act(observation, 0))
    assert one.policy().origin == {"dataset": None, "task": 1, "seed": 0, "updates": 5}
    one.policy().export(tmp_path / "export")
    np.testing.assert_array_equal(evor.load(tmp_path / "export").act(observation, 0), one.policy().act(observation, 0))
    assert repr(one) == f"Run({str(tmp_path / 'arrays')!r}, tasks [1], seeds [0], 5 updates)"


def test_behaviour_cloning_needs_no_rewards(tmp_path, user_file, monkeypatch, capsys):
    """It learns the same from arrays and files, in memory and under a cap. A cache laid out for it serves no other agent."""
    bc = evor.Bc(learning=TINY.learning)
    without = user_arrays(rewards=None)
    runs = [
        evor.train(data, out=tmp_path / name, updates=3, agent=bc, quiet=True)
        for name, data in (("with", user_arrays()), ("arrays", without), ("file", user_file(rewards=None)))
    ]
    policies = [{n: w for n, w in weights(run).items() if "return_" not in n} for run in runs]
    assert policies[0] == policies[1] == policies[2]
    cap = {"memory_gb": 5e-6, "quiet": True}
    evor.train(user_file(rewards=None), out=tmp_path / "capped", updates=3, agent=bc, **cap)
    with pytest.raises(EvorError, match="lacks rewards"):
        evor.train(user_file(rewards=None), out=tmp_path / "never", updates=3, agent=TINY, **cap)
    with pytest.raises(EvorError, match="lacks rewards"):
        evor.read_dataset(without)
    with pytest.raises(EvorError, match="reward, which nothing reads; did you mean rewards"):
        evor.train(without | {"reward": np.zeros(60)}, out=tmp_path / "never", updates=3, agent=bc)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "--data", "mine.npz", "--preset", "default"]) == 2
    capsys.readouterr()
    assert main(["data", "check", "--data", "mine.npz"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "there are no rewards, so only behaviour cloning trains on these data" in said
    assert "none (files named *-val.npz are never trained on)" in said
    user_file("mine-val.npz")
    assert main(["data", "check", "--data", "mine.npz", "--preset", "bc"]) == 0
    assert "mine-val.npz" in capsys.readouterr().out
    command = "train --data mine.npz --preset bc --out bc --updates 2 --agent.hidden 8 8 --agent.batch-size 8"
    assert main(command.split()) == 0
    assert "58 transitions, 1 seed x 1 task -> bc" in capsys.readouterr().err
    assert main(["report", "bc"]) == 0


def test_lists_and_other_types_are_arrays_too(tmp_path):
    lists = {name: array.tolist() for name, array in user_arrays().items()}
    plain, listed = evor.read_dataset(user_arrays()), evor.read_dataset(lists)
    for one, other in zip(plain[:7], listed[:7], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any("converted from float64" in note for note in listed.notes)


def test_the_reader_reads_all_three(tmp_path, user_file, data_folder):
    from_file, from_arrays = evor.read_dataset(user_file()), evor.read_dataset(user_arrays())
    assert isinstance(from_file, evor.Episodes)
    for one, other in zip(from_file, from_arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    labelled = evor.read_dataset(DATASET, data_folder=data_folder, tasks=(4, 1))
    assert (labelled.tasks, labelled.rewards.shape[0]) == ((4, 1), 2)
    assert evor.read_dataset(np.load(user_file())).spec == (3, 2)  # what numpy.load returns is a mapping


@pytest.mark.slow
def test_an_ogbench_name_trains_several_tasks_and_seeds(tmp_path, data_folder, tiny_run):
    run = evor.train(
        DATASET, data_folder=data_folder, tasks=(1, 4), num_seeds=2, out=tmp_path / "run", updates=20, agent=TINY,
        checkpoint_every=10, quiet=True,
    )  # fmt: skip
    assert weights(run) == weights(evor.open_run(tiny_run))
    with pytest.raises(
        EvorError, match=r"run holds several tasks: tasks \[1, 4\], seeds \[0, 1\]; choose a task \(--task\)"
    ):
        run.policy(seed=1)
    with pytest.raises(EvorError, match=r"no task 2, seed 0 here"):
        run.policy(2, 0)
    assert run.policy(4, 1).origin["task"] == 4


@pytest.mark.slow
def test_interrupted_and_called_again_it_ends_bit_identical(tmp_path, monkeypatch, capsys):
    options = {"updates": 40, "agent": TINY, "checkpoint_every": 20, "log_every": 10}
    whole = evor.train(user_arrays(), out=tmp_path / "whole", quiet=True, **options)
    save = Training._save

    def interrupt(training):
        save(training)
        if training.step == 20:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evor.train(user_arrays(), out=tmp_path / "run", **options)
    said = capsys.readouterr().err
    assert "saved." in said
    assert "call evor.train again with the same arguments" in said
    monkeypatch.undo()
    assert 20 <= evor.open_run(tmp_path / "run").step < 40
    resumed = evor.train(user_arrays(), out=tmp_path / "run", **options)
    assert resumed.step == 40
    assert weights(resumed) == weights(whole)
    again = evor.train(user_arrays(), out=tmp_path / "run", **options)  # it is finished
    assert weights(again) == weights(whole)
    for changes, words in (
        ({"data": user_arrays(seed=1)}, "was started differently .the data are not the same"),
        ({"seed": 1}, "was started differently .*seed: 0 -> 1"),
        ({"updates": 10}, "was started for 40 updates, and 10 are fewer; train for 40 or more"),
        ({"resume": False}, "already holds a run; resume it .*resume=True"),
    ):
        with pytest.raises(EvorError, match=words):
            evor.train(**({"data": user_arrays(), "out": tmp_path / "run"} | options | changes))
    longer = evor.train(user_arrays(), out=tmp_path / "run", **(options | {"updates": 50}), quiet=True)
    assert longer.step == 50


def test_quiet_says_nothing_and_puts_the_console_back(tmp_path, capsys):
    options = {"updates": 2, "agent": TINY}
    evor.train(user_arrays(), out=tmp_path / "quiet", quiet=True, **options)
    assert capsys.readouterr() == ("", "")
    evor.train(user_arrays(), out=tmp_path / "loud", **options)
    assert "train: 2/2 updates" in capsys.readouterr().err


def test_it_trains_in_a_thread_of_a_program(tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(evor.train(user_arrays(), out=tmp_path / "run", updates=2, agent=TINY, quiet=True))
    )
    thread.start()
    thread.join()
    assert found[0].step == 2


@pytest.mark.parametrize(("agent", "told"), [(TINY, True), (evor.Evor(learning=TINY.learning), False)])
def test_updates_of_a_base_policy_that_is_not_trained_first_are_told_to_change_nothing(agent, told, tmp_path, capsys):
    evor.train(user_arrays(), out=tmp_path / "run", updates=2, base_updates=1, agent=agent)
    assert ("note: base_updates 1 changes nothing" in capsys.readouterr().err) == told


def test_numbers_of_numpy_in_a_config_become_plain_ones(tmp_path):
    """Such a run stopped at its config.json, which could not be written."""
    agent = with_any(Qc(learning=TINY.learning), discount=np.float32(0.5), chunk_length=np.int64(2))
    run = evor.train(user_arrays(), out=tmp_path / "run", updates=2, agent=with_any(agent, num_candidates=np.int32(2)))
    assert run.config.agent == Qc(learning=TINY.learning, discount=0.5, chunk_length=2, num_candidates=2)
    assert evor.load(tmp_path / "run").act(np.zeros(3)).shape == (2, 2)


REFUSED = [
    ({"data": None}, "data is None; give a path, an OGBench name, or a dict of arrays"),
    ({"data": 7}, "data is 7; give a path"),
    ({"data": "nothing.npz"}, "nothing.npz does not exist; give an npz file"),
    ({"data": "nothing"}, "nothing does not exist; give an npz file"),
    ({"data": "pointmaze-medum-navigate-v0"}, "did you mean 'pointmaze-medium-navigate-v0'?"),
    ({"data": {}}, "data lacks observations, actions, rewards, terminations, truncations; it holds nothing."),
    ({"data": user_arrays(rewards=None)}, "data lacks rewards; it holds observations"),
    ({"data": user_arrays() | {"next_observation": np.zeros((60, 3))}}, "which nothing reads; did you mean next_observations?"),
    ({"data": user_arrays(actions=np.full((60, 2), 1.5))}, "data: actions[0, 0] is 1.5, outside [-1, 1]; give their bounds"),
    ({"data": user_arrays(rewards=np.zeros(59))}, "data: rewards has shape [59] but observations have 60 rows"),
    ({"data": user_arrays(observations=np.zeros((60, 3, 2)))}, "data: observations have shape [60, 3, 2]"),
    ({"data": user_arrays(observations=np.full((60, 3), np.nan))}, "data: observations[0, 0] is nan, the first of 180"),
    ({"data": user_arrays(terminations=np.full(60, 2))}, "data: terminations[0] is 2; only 0 and 1 are allowed."),
    ({"data": user_arrays(rewards=["a"] * 60)}, "data: rewards has dtype <U1, not real numbers; convert it to float32."),
    ({"data": user_arrays(rewards=[[1], [1, 2]])}, "data: rewards is no array"),
    ({"data": user_arrays(rewards=np.ma.masked_array(np.zeros(60), [True] * 60))}, "data: rewards has masked entries"),
    ({"data": user_arrays(rows=0)}, "data: the data is empty (0 rows)"),
    ({"tasks": (1, 2)}, "tasks goes with the name of an OGBench dataset"),
    ({"tasks": 1}, "tasks is 1; give a tuple"),
    ({"tasks": (0,)}, "task is 0; it must be at least 1"),
    ({"sparse_rewards": True}, "sparse_rewards goes with the name of an OGBench dataset"),
    ({"data_folder": "data"}, "data_folder goes with the name of an OGBench dataset"),
    ({"memory_gb": 1.0}, "memory_gb needs data on disk; write the arrays with numpy.savez"),
    ({"memory_gb": "much"}, "memory_gb is 'much'; it must be a number."),
    ({"agent": "papr"}, "unknown preset 'papr'; did you mean 'paper'?"),
    ({"agent": 3}, "agent is 3; give a preset's name, or a config of evor.Evor"),
    ({"agent": with_any(evor.Bc(), flow_steps=2.5)}, "a setting of the agent has a wrong type: 2.5 is no whole number @ $.agent.flow_steps."),
    ({"agent": with_any(evor.Bc(), chunk_length=2.0)}, "2.0 is no whole number @ $.agent.chunk_length"),
    ({"agent": evor.Evor(next_action=with_any(BestAction(), visits=2.5))}, "2.5 is no whole number @ $.agent.next_action.visits"),
    ({"agent": with_any(evor.Evor(), objective="flow-td")}, "objective of Evor is 'flow-td'; give FlowTd() or MonteCarlo()"),
    ({"agent": evor.Evor(next_action=with_any(BestAction(), reading=3))}, "reading of Evor.next_action is 3; give RandomSamples() or"),
    ({"updates": 0}, "updates is 0; it must be at least 1, a whole number."),
    ({"updates": 1.5}, "updates is 1.5"),
    ({"base_updates": 0}, "base_updates is 0"),
    ({"num_seeds": 0}, "num_seeds is 0"),
    ({"seed": -1}, "seed is -1"),
    ({"checkpoint_every": 0}, "checkpoint_every is 0"),
    ({"log_every": 0}, "log_every is 0"),
    ({"out": ""}, "the path is ''; give a str or a Path."),
    ({"out": 3}, "the path is 3; give a str or a Path."),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EvorError) as told:
        evor.train(**({"data": user_arrays(), "out": "run", "updates": 2, "agent": TINY} | changes))
    assert words in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(EvorError, match="holds something that is no run"):
        evor.train(user_arrays(), out=tmp_path / "thesis", updates=2, agent=TINY)


PROGRAM = """
import sys
import numpy as np
import evor
assert "jax" not in sys.modules
assert set(evor.__all__) <= set(dir(evor))
arrays = dict(np.load("mine.npz"))
run = evor.train(arrays, out="run", updates=2, agent=evor.Evor(learning=evor.Learning(hidden=(8,))), quiet=True)
run.policy().act(arrays["observations"][0])
evor.read_dataset("mine.npz")
evor.evaluate
print(*{"tyro", "matplotlib", "imageio", "mujoco", "dm_control", "ogbench", "gymnasium", "evor.cli"} & set(sys.modules))
"""


@pytest.mark.slow
def test_training_on_arrays_imports_no_command_line_no_pages_and_no_environments(here):
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=dict(os.environ))
    assert told.returncode == 0, told.stderr
    assert told.stdout == "\n"


def test_every_public_name_is_there_documented_and_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "names.md").read_text()
    for name in evor.__all__:
        assert hasattr(evor, name)
        assert name == "__version__" or getattr(evor, name).__doc__
        assert f"`{name}`" in page or f"`{name}(" in page, name
