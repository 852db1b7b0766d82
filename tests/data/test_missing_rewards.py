"""Data without rewards: who may train on them, and what `evor data check` says."""

import numpy as np
import pytest

from evor.cli.main import main


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    ends = np.arange(60) % 20 == 19
    return {
        "observations": generator.normal(size=(60, 3)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (60, 2)).astype(np.float32),
        "terminations": np.zeros(60, bool),
        "truncations": ends,
    }


def checked(path, capsys, *options):
    code = main(["data", "check", "--data", str(path), *options])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_a_check_says_that_there_are_none_and_what_adds_them(rows, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **rows)
    code, told = checked(tmp_path / "mine.npz", capsys)
    assert code == 0
    assert "there are no rewards" in told
    assert "evor data import" in told
    assert "all rewards" not in told  # zeros that stand for them are not described


def test_rewards_of_zero_are_not_missing(rows, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **rows, rewards=np.zeros(60))
    code, told = checked(tmp_path / "mine.npz", capsys)
    assert code == 0
    assert "there are no rewards" not in told
    assert "all rewards of task 1 are 0" in told


def test_an_agent_that_needs_them_is_refused(rows, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **rows)
    code, told = checked(tmp_path / "mine.npz", capsys, "--preset", "default")
    assert code == 2
    assert "rewards" in told


def test_a_folder_of_which_one_file_lacks_them_names_it(rows, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **rows)
    np.savez(tmp_path / "b.npz", **rows, rewards=np.zeros(60))
    code, told = checked(tmp_path, capsys)
    assert code == 2
    assert "a.npz" in told
    assert "rewards" in told
