"""What is refused: one sentence that names the thing and the remedy, exit code 2, nothing written."""

import gc
import signal
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from conftest import DATASET, user_arrays
from evor.cli.main import main
from evor.data.formats.npz import load_files
from evor.data.returns import Returns, n_step_sums
from evor.errors import EvorError
from evor.experiments.demo import demo


def refuse(capsys, tmp_path, *arguments) -> str:
    """Run `evor train`; assert that it is refused and writes nothing. Returns what it said."""
    out = tmp_path / "never"
    assert main(["train", *map(str, arguments), "--updates", "2", "--out", str(out)]) == 2
    assert not out.exists()
    said = capsys.readouterr().err
    assert said.startswith("evor: ")
    assert said.count("\n") == 1
    return said


def test_missing_file(capsys, tmp_path):
    assert "nothing.npz does not exist" in refuse(capsys, tmp_path, "--data", tmp_path / "nothing.npz")


def test_not_an_npz(capsys, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    assert "not an npz" in refuse(capsys, tmp_path, "--data", tmp_path / "text.npz")


def test_a_single_npy_is_no_npz(capsys, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "not an npz" in refuse(capsys, tmp_path, "--data", tmp_path / "one.npy")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_file(capsys, tmp_path, user_file, share):
    path = user_file()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refuse(capsys, tmp_path, "--data", path)


def test_damaged_middle(capsys, tmp_path, user_file):
    path = user_file()
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 4 + 50] = bytes(50)
    path.write_bytes(content)
    assert str(path) in refuse(capsys, tmp_path, "--data", path)


def test_pickled_objects_are_never_opened(capsys, tmp_path, user_file):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = user_file(rewards=np.array([Bomb()] * 60, object))
    assert "pickled objects" in refuse(capsys, tmp_path, "--data", path)


def test_empty_folder_and_validation_only(capsys, tmp_path, user_file):
    (tmp_path / "folder").mkdir()
    assert "no training npz" in refuse(capsys, tmp_path, "--data", tmp_path / "folder")
    user_file("folder/mine-val.npz")
    assert "no training npz" in refuse(capsys, tmp_path, "--data", tmp_path / "folder")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"rewards": None},
            ["lacks rewards; it holds", "Without rewards, train behaviour cloning (the preset bc, --pre"],
        ),
        ({"rewards": np.zeros(59)}, ["rewards", "[59]", "60 rows"]),
        (
            {"rewards": np.zeros((60, 1))},
            ["rewards has shape [60, 1]; one number per step is needed, [N]: give rewards[:, 0]."],
        ),
        ({"truncations": np.zeros((60, 1))}, ["truncations has shape [60, 1]", "give truncations[:, 0]."]),
        (
            {"terminations": np.zeros((60, 2))},
            ["terminations has shape [60, 2]; one number per step is needed, [N].\n"],
        ),
        ({"rewards": np.float32(1)}, ["rewards", "[]"]),
        ({"observations": np.zeros((60, 3, 2))}, ["observations have shape [60, 3, 2]", "(images are not supported)"]),
        (
            {"observations": np.zeros(60)},
            ["observations have shape [60]; one row of numbers per step is needed, [N, O]"],
        ),
        ({"actions": np.zeros(60, int)}, ["actions have shape [60]", "(discrete actions are not supported)"]),
        (
            {"actions": np.full((60, 1), 2)},
            ["outside [-1, 1]; give their bounds", "(discrete actions are not supported)."],
        ),
        ({"next_observations": np.zeros((60, 4))}, ["next_observations", "[60, 4]"]),
        ({"actions": np.zeros((60, 0))}, ["actions", "[60, 0]"]),
        (
            {"actions": np.full((60, 2), 1.5)},
            [
                "actions[0, 0] is 1.5, outside [-1, 1]; give their bounds in the arrays action_low",
                "`evor data import`.",
            ],
        ),
        ({"actions": np.zeros((60, 2), complex)}, ["actions", "complex128", "not real numbers"]),
        ({"rewards": np.array(["a"] * 60)}, ["rewards", "<U1", "not real numbers"]),
        ({"terminations": np.full(60, 2)}, ["terminations[0] is 2", "only 0 and 1"]),
        (user_arrays(rows=0), ["empty", "0 rows"]),
    ],
)
def test_arrays_that_do_not_fit(capsys, tmp_path, user_file, changes, words):
    said = refuse(capsys, tmp_path, "--data", user_file(**changes))
    for word in words:
        assert word in said


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_their_first_index(capsys, tmp_path, user_file, value):
    observations = user_arrays()["observations"]
    observations[[7, 30], 1] = value
    said = refuse(capsys, tmp_path, "--data", user_file(observations=observations))
    assert f"observations[7, 1] is {value}" in said
    assert "first of 2" in said


def test_files_of_other_widths_in_one_folder(capsys, tmp_path, user_file):
    (tmp_path / "folder").mkdir()
    user_file("folder/a.npz")
    user_file("folder/b.npz", observations=np.zeros((60, 5), np.float32))
    assert "b.npz has sizes (5, 2)" in refuse(capsys, tmp_path, "--data", tmp_path / "folder")


def test_shards_of_another_width_or_environment(capsys, tmp_path, data_folder):
    shards = tmp_path / "shards"
    shards.mkdir()
    arrays = dict(np.load(data_folder / f"{DATASET}.npz"))
    np.savez(shards / "a.npz", **arrays)
    np.savez(shards / "b.npz", **arrays | {"observations": arrays["observations"][:, :1]})
    for cap in ((), ("--memory-gb", "0.01")):
        said = refuse(capsys, tmp_path, DATASET, "--data", shards, *cap)
        assert "b.npz: observations have shape [4004, 1], of pointmaze-medium-navigate-v0 they have [N, 2]" in said
    said = refuse(capsys, tmp_path, "cube-single-play-v0", "--data", shards / "a.npz")
    assert (
        "a.npz: observations have shape [4004, 2], of cube-single-play-v0 they have [N, 28]; name the dataset" in said
    )


def test_a_word_that_begins_commands_lists_them(capsys):
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1:3] for line in said.splitlines() if line.startswith("  evor")] == [
        ["data", verb] for verb in ("generate", "download", "import", "check", "propose")
    ]
    assert main(["dta"]) == 2


def test_options_may_come_before_the_command(capsys):
    assert main(["-h", "data", "check"]) == 0
    assert "usage: evor data check" in capsys.readouterr().out
    assert main(["--quiet", "show", "/nowhere"]) == 2
    assert "/nowhere is no run" in capsys.readouterr().err
    assert main(["--verison"]) == 2
    assert "unknown option '--verison'; did you mean '--version'?" in capsys.readouterr().err


def test_unknown_names_offer_the_nearest(capsys, tmp_path, user_file):
    assert "did you mean 'pointmaze-medium-navigate-v0'?" in refuse(capsys, tmp_path, "pointmaze-medum-navigate-v0")
    assert "did you mean 'paper'?" in refuse(capsys, tmp_path, DATASET, "--preset", "papr")
    said = refuse(capsys, tmp_path, "--data", user_file(), "--agent.objective", "sample-backp")
    assert "did you mean 'sample-backup'?" in said
    for words, told in (
        (["trian", "mine.npz"], "unknown command 'trian'; did you mean 'train'?"),
        (["data", "chek"], "unknown command 'data chek'; did you mean 'data check'?"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err
    assert "'foo' is unknown; known: " in refuse(capsys, tmp_path, DATASET, "--agent.objective", "foo")
    assert "unknown preset 'foo'; known: " in refuse(capsys, tmp_path, DATASET, "--preset", "foo")


def test_unknown_options_offer_the_nearest(capsys, tmp_path):
    assert "did you mean '--agent.hidden'?" in refuse(capsys, tmp_path, DATASET, "--agent.hiden", "3")
    assert "did you mean '--agent.learning-rate'?" in refuse(capsys, tmp_path, DATASET, "--lr", "0.1")
    assert "unknown option '--wheels'; known: '--" not in refuse(capsys, tmp_path, DATASET, "--wheels", "3")
    assert "unknown option '--wheels'; known: --" in refuse(capsys, tmp_path, DATASET, "--wheels", "3")
    for words in (["evaluate", str(tmp_path), "--epsiodes", "3"], ["evaluate", "--epsiodes", "3", str(tmp_path)]):
        assert main(words) == 2
        assert "unknown option '--epsiodes'; did you mean '--episodes'?" in capsys.readouterr().err


def test_a_missing_dataset_says_how_to_get_it(capsys, tmp_path):
    said = refuse(capsys, tmp_path, "pointmaze-large-navigate-v0", "--data", tmp_path)
    assert "evor data generate pointmaze-large-navigate-v0" in said


def test_a_file_given_as_a_name_is_sent_to_data(capsys, tmp_path, user_file):
    path = user_file()
    assert f"--data {path}" in refuse(capsys, tmp_path, path)


def test_a_folder_that_cannot_be_made(capsys, user_file):
    assert main(["train", "--data", str(user_file()), "--updates", "2", "--out", "/proc/nowhere/run"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("evor: /proc/nowhere")


def test_nothing_to_train_on(capsys, tmp_path):
    assert "no data given" in refuse(capsys, tmp_path)


def test_unknown_task(capsys, tmp_path, data_folder, user_file):
    assert "task 9 does not exist" in refuse(capsys, tmp_path, DATASET, "--data", data_folder, "--tasks", "9")
    assert "needs an OGBench dataset" in refuse(capsys, tmp_path, "--data", user_file(), "--tasks", "2")


@pytest.mark.parametrize(
    "option",
    [
        "--updates",
        "--num-seeds",
        "--checkpoint-every",
        "--agent.batch-size",
        "--agent.hidden",
        "--agent.objective.n-steps",
    ],
)
def test_counts_below_one(capsys, tmp_path, user_file, option):
    out = tmp_path / "never"
    assert main(["train", "--data", str(user_file()), option, "0", "--out", str(out)]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path, user_file):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    assert main(["train", "--data", str(user_file()), "--out", str(tmp_path / "thesis")]) == 2
    assert "no run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_contradictory_agents(capsys, tmp_path, user_file):
    options = ("--data", user_file(), "--preset", "qc-1", "--agent", "scalar")
    assert "one of the two" in refuse(capsys, tmp_path, *options)
    assert "given twice" in refuse(capsys, tmp_path, *options, "--agent", "qc")


def test_a_misspelt_array(capsys, tmp_path, user_file):
    path = user_file(next_observation=np.zeros((60, 3)))
    assert "did you mean next_observations?" in refuse(capsys, tmp_path, "--data", path)


# Accepted, and said.


def notes(path) -> str:
    return "; ".join(load_files(path).notes)


def test_float64_and_integer_observations_are_converted(user_file):
    said = notes(user_file(observations=np.arange(180).reshape(60, 3)))
    assert "observations converted from int64 to float32" in said
    assert "actions converted from float64" in notes(user_file(actions=np.zeros((60, 2))))


def test_constant_columns_are_said(user_file):
    observations = user_arrays()["observations"]
    observations[:, 1] = 4
    assert "observation columns [1] are constant" in notes(user_file(observations=observations))


def test_no_finished_task_is_said(user_file):
    assert "never finished" in notes(user_file(terminations=np.zeros(60, bool), truncations=np.arange(60) % 20 == 19))


def test_short_episodes_are_accepted_and_said(capsys, user_file):
    every_fifth_row = np.arange(60) % 5 == 4
    assert main(["data", "check", "--data", str(user_file(truncations=every_fifth_row))]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "some episodes are shorter than n_steps (10): n-step returns stop at their end" in said


def test_check_prints_what_there_is(capsys, user_file, data_folder):
    assert main(["data", "check", "--data", str(user_file())]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("[60, 3]", "[60, 2]", "58", "3: 20 to 20 rows", "1 finished, 2 cut", "ogbench 1.2.2", "KiB"):
        assert word in said
    assert main(["data", "check", DATASET, "--data", str(data_folder), "--tasks", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("'pre'", "-1, 0", "mujoco 3.3.1"):
        assert word in said


def test_check_refuses_what_training_refuses(capsys, user_file):
    assert main(["data", "check", "--data", str(user_file(actions=np.full((60, 2), 3.0)))]) == 2
    assert "outside [-1, 1]" in capsys.readouterr().err


def test_chunks_longer_than_the_episodes(capsys, tmp_path, user_file):
    cut = user_file(terminations=np.zeros(60, bool), truncations=np.arange(60) % 20 == 19)
    said = refuse(capsys, tmp_path, "--data", cut, "--preset", "qc-5", "--agent.chunk-length", "30")
    assert "use a shorter chunk_length" in said


# How a user's rows become episodes.


def test_without_next_observations_a_cut_row_only_bootstraps(user_file):
    episodes = load_files(user_file())
    np.testing.assert_array_equal(np.flatnonzero(episodes.ends), [19, 39, 59])
    np.testing.assert_array_equal(np.flatnonzero(episodes.bootstrap_only), [39, 59])
    assert episodes.masks[0, 19] == 0


def test_the_last_row_counts_as_truncated(user_file):
    episodes = load_files(user_file(truncations=np.zeros(60, bool)))
    assert episodes.ends[-1]
    assert episodes.bootstrap_only[-1]


def test_with_next_observations_a_cut_row_is_a_transition(user_file):
    observations = user_arrays()["observations"]
    following = np.roll(observations, -1, axis=0)
    following[[19, 39, 59]] = 100 + np.arange(9).reshape(3, 3)
    episodes = load_files(user_file(next_observations=following))
    assert len(episodes.ends) == 62  # two cuts gained a row of their own
    np.testing.assert_array_equal(episodes.observations[40], following[39])
    np.testing.assert_array_equal(np.flatnonzero(episodes.bootstrap_only), [40, 61])
    assert not episodes.action_known[40]
    sums = n_step_sums(episodes, Returns.read(episodes, 0.9), num_steps=1, next_action_known=False)
    assert sums.bootstrap[39] == 40
    assert sums.weights[0, 39] == 1
    assert not any("not followed" in note for note in episodes.notes)


def test_rows_that_do_not_follow_each_other_are_cut_there(user_file):
    observations = user_arrays()["observations"]
    following = np.roll(observations, -1, axis=0)
    following[5] += 1
    episodes = load_files(user_file(next_observations=following))
    assert any("rows that are not followed by their next_observations: 1 (" in note for note in episodes.notes)
    np.testing.assert_array_equal(episodes.observations[6], following[5])


def test_a_folder_is_read_in_order_without_validation(tmp_path, user_file):
    (tmp_path / "folder").mkdir()
    user_file("folder/b.npz", seed=2)
    user_file("folder/a.npz", seed=1)
    user_file("folder/a-val.npz", seed=3)
    episodes = load_files(tmp_path / "folder")
    np.testing.assert_array_equal(episodes.observations[:60], user_arrays(seed=1)["observations"])
    np.testing.assert_array_equal(episodes.observations[60:], user_arrays(seed=2)["observations"])


def test_one_row_is_no_transition(user_file):
    from evor.training.config import RunConfig
    from evor.training.data import load_episodes, prepare

    config = RunConfig(data=str(user_file(rows=1)))
    with pytest.raises(EvorError, match="no transition"):
        prepare(config, load_episodes(config))


# What is refused elsewhere, before anything is lost.


@pytest.mark.parametrize(
    "command",
    [
        "demo --updates 0",
        "demo --seed -1",
        "demo --episodes 0",
        "demo --num-candidates 0",
        "demo --transitions 0",
    ],
)
def test_a_demo_that_cannot_run_deletes_nothing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "runs/demo/checkpoint"
    kept.parent.mkdir(parents=True)
    (kept.parent / "demo.txt").touch()
    kept.touch()
    assert main(command.split()) == 2
    assert kept.exists()
    assert "must" in capsys.readouterr().err


def test_a_demo_removes_an_earlier_one_and_nothing_else(tmp_path, monkeypatch):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for path in (
        out / ".git/HEAD",
        out / "data/mine.npz",
        out / "config.json",
        out / "checkpoints/old",
        elsewhere / "kept",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (out / "demo.txt").touch()
    (out / "evaluations").symlink_to(elsewhere)
    monkeypatch.setattr("evor.experiments.demo._play_demo", lambda *_, **__: {})
    demo(out, tmp_path, seed=0, transitions=1, updates=1, episodes=1, num_candidates=(1,))
    assert {path.name for path in out.iterdir()} == {".git", "data", "demo.txt"}
    assert (out / ".git/HEAD").exists()
    assert (out / "data/mine.npz").exists()
    assert (elsewhere / "kept").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("data generate pointmaze-medium-navigate-v0 --seed -1 --out never", "seed is -1"),
        ("verify --problems coin --seed -1 --out never", "seed is -1"),
        ("verify --problems --out never", "--problems needs at least one value"),
        ("reproduce paper --out never --only", "--only needs at least one value"),
        ("evaluate never --tasks", "--tasks needs at least one value"),
        ("data check --data mine.npz --tasks 3", "data of your own is task 1"),
        ("data check --dataset mine", "unknown option '--dataset'; did you mean '--data'"),
        ("train --out never --data mine.npz --agent.n-steps 5", "did you mean '--agent.objective.n-steps'"),
        ("train --out never --data mine.npz --agent.discount 1.5", "discount is 1.5; it must lie between 0 and 1"),
        ("data import mine.npz --out .", "--out . has no name"),
        ("imitate demos ledge --episodes 1 --out .", "--out . is a folder"),
        ("imitate demos ledge --episodes 1 --out mine.npz/never", "mine.npz: File exists; a file is in the way"),
        (
            "verify --problems cut-corridor --methods monte-carlo --out never",
            "no method can be verified on cut-corridor by monte-carlo",
        ),
        ("bench --parts decisions --presets bc --out never", "nothing to measure is left"),
        ("bench --parts decisions --out mine.npz", "mine.npz: File exists; a file is in the way"),
    ],
)
def test_refusals_in_one_sentence(command, words, tmp_path, monkeypatch, capsys, user_file):
    monkeypatch.chdir(user_file().parent)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_numbers_beyond_float32_are_refused(capsys, tmp_path, user_file):
    observations = user_arrays()["observations"].astype(np.float64)
    observations[3, 1] = 1e300
    said = refuse(capsys, tmp_path, "--data", user_file(observations=observations))
    assert "observations[3, 1] is 1e+300" in said
    assert "not finite in float32" in said


def test_training_that_diverges_stops_and_says_so(capsys, tmp_path, user_file):
    out = tmp_path / "run"
    command = ["train", "--data", str(user_file()), "--out", str(out), "--updates", "200", "--agent.hidden", "8", "8"]
    assert main([*command, "--agent.learning-rate", "1e30"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is not finite after" in said
    assert "learning-rate" in said


def test_ctrl_c_inside_a_garbage_collection_is_not_lost(monkeypatch):
    """An exception in a collector's callback is dropped by Python; the progress bar raises it at the next step."""
    from evor.runtime.progress import progress_bar

    def collect(phase, info):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores SIGINT
    try:
        with pytest.raises(KeyboardInterrupt), progress_bar("work", 2) as advance:  # noqa: PT012
            gc.callbacks.append(collect)
            try:
                gc.collect()
            finally:
                gc.callbacks.remove(collect)
            advance(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_version(capsys):
    assert main(["--version"]) == 0
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert capsys.readouterr().out == f"evor {project['project']['version']}\n"
