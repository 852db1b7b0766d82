"""Evaluations that are stopped, go on, are refused in time, and play several checkpoints."""

import contextlib
import errno
import io
import random
import shutil
import subprocess
import sys
import time

import pytest

from conftest import DATASET
from evor.agents.bc import Bc
from evor.cli.main import main
from evor.errors import EvorError
from evor.nn.learner import Learning
from evor.report import evaluations as episodes
from evor.report import task_arrays
from evor.report.evaluations import SettingFiles, read_rows
from evor.report.maze import maze_sections, trajectories
from evor.report.run import read_evaluations, write_report
from evor.rollouts import evaluate as evaluation
from evor.rollouts.evaluate import evaluate, file_name, sweep
from evor.runtime.failures import INTERRUPTED
from evor.search.extraction import Prior, SoftmaxOf
from evor.training.config import RunConfig
from evor.training.train import train

SEARCH = SoftmaxOf(2)
WORDS = ("--extraction", "softmax-of", "--num-candidates", "2")
FILE = f"{file_name(SEARCH)}.csv"


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    """What an evaluation that is not stopped leaves: all files by name, and the rows."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("whole") / "run")
    rows = evaluate(run, SEARCH, episodes=2, tasks=(4,))
    return left(run), rows


def left(run):
    return {path.name: path.read_bytes() for path in (run / "evaluations").iterdir()}


class Killed(BaseException):
    """Ends a process at once: it settles nothing."""


def stop_after(monkeypatch, count, error):
    """Stop once so many rows are in the file."""
    append, written = SettingFiles.append, []

    def stopping(self, row):
        append(self, row)
        written.append(row)
        if len(written) == count:
            raise error

    monkeypatch.setattr(SettingFiles, "append", stopping)
    return written


@pytest.mark.parametrize("again", [[], ["--resume"]])
def test_ctrl_c_keeps_every_episode_that_ended(run, whole, monkeypatch, capsys, again):
    words = ["evaluate", str(run), "--episodes", "2", "--tasks", "4", *WORDS]
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt)
        assert main(words) == INTERRUPTED
    assert len(read_rows(run / "evaluations" / FILE)) == 3
    assert f"3 of 4 episodes are kept in {run / 'evaluations' / FILE}; with --resume" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        played = stop_after(patch, 99, None)
        assert main([*words, *again]) == 0
    assert [row["seed"] for row in played] == ([1, 1] if again else [0, 0, 1, 1])
    assert left(run) == whole[0]


@pytest.mark.parametrize(
    "place",
    [
        "append",
        "settle",
        *(pytest.param(place, marks=pytest.mark.slow) for place in ("keep_trajectories", "draw_maze")),
    ],
)
def test_killed_anywhere_it_ends_with_the_same_bytes(run, whole, monkeypatch, place):
    """A killed process tidies nothing up, and leaves half a line; --resume plays what is missing."""

    def die(*_):
        raise Killed

    settle = SettingFiles.settle
    with monkeypatch.context() as patch:
        patch.setattr(SettingFiles, "settle", lambda self, *cell: settle(self, *cell) if cell else die())
        if place == "append":
            stop_after(patch, 3, Killed)
        else:
            patch.setattr(evaluation if place == "draw_maze" else SettingFiles, place, die)
        with pytest.raises(Killed):
            evaluate(run, SEARCH, episodes=2, tasks=(4,))
    assert left(run) != whole[0]
    with open(run / "evaluations" / FILE, "a", encoding="utf-8") as file:
        file.write(DATASET[:9])
    assert evaluate(run, SEARCH, episodes=2, tasks=(4,), resume=True) == whole[1]
    assert left(run) == whole[0]


@pytest.mark.slow
def test_killed_at_random_two_processes_end_with_the_same_bytes(run):
    """Two processes sweep a seed each, are killed twelve times at any moment, and once more are not."""
    words = [
        "sweep",
        str(run),
        "--episodes",
        "2",
        "--num-candidates",
        "1",
        "2",
        "--checkpoints",
        "10",
        "20",
        "--resume",
    ]

    def start(seed):
        return subprocess.Popen([sys.executable, "-m", "evor", *words, "--seeds", seed], stderr=subprocess.DEVNULL)

    started, generator = time.monotonic(), random.Random(0)
    for seed in "01":
        assert start(seed).wait() == 0
    took, whole = time.monotonic() - started, left(run)
    shutil.rmtree(run / "evaluations")
    for _ in range(12):
        processes = [start(seed) for seed in "01"]
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(took * generator.uniform(0.1, 0.5))
            process.kill()
            process.wait()
    for process in [start(seed) for seed in "01"]:
        assert process.wait() == 0
    assert {name: content for name, content in left(run).items() if not name.endswith(".partial")} == whole


def test_resume_plays_nothing_that_is_there(run, monkeypatch):
    rows = sweep(run, [SEARCH, Prior()], episodes=2, tasks=(4,))
    before = left(run)
    monkeypatch.setattr(evaluation, "play", lambda *_, **__: pytest.fail("played again"))
    assert sweep(run, [SEARCH, Prior()], episodes=2, tasks=(4,), resume=True) == rows
    assert evaluate(run, SEARCH, episodes=1, tasks=(4,), seeds=(1,), resume=True) == rows[0][2:3]
    assert left(run) == before


def test_episodes_of_two_versions_are_not_resumed(run, monkeypatch):
    """They were to be played anew when a process was killed."""
    evaluate(run, Prior(), episodes=2, tasks=(1,), seeds=(0,))
    path = run / "evaluations" / f"{file_name(Prior())}.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[-1].rpartition(",")[0] + ",another\n"]))
    rows = evaluate(run, Prior(), episodes=2, tasks=(1,), seeds=(0,), resume=True)
    assert len({row["commit"] for row in rows}) == 1
    assert "".join(lines) == path.read_text()


def test_episodes_under_another_limit_are_not_resumed(run):
    options = {"episodes": 2, "tasks": (1,), "seeds": (0,)}
    cut = evaluate(run, Prior(), max_episode_steps=2, **options)
    assert [(row["length"], row["max_episode_steps"]) for row in cut] == [(2, 2)] * 2
    assert evaluate(run, Prior(), max_episode_steps=2, resume=True, **options) == cut
    rows = evaluate(run, Prior(), resume=True, **options)
    assert [row["max_episode_steps"] for row in rows] == ["", ""]
    assert all(row["length"] > 2 for row in rows)


# What goes wrong is told before the first episode, or costs none.


@pytest.fixture
def unplayed(run, monkeypatch):
    monkeypatch.setattr(evaluation, "play", lambda *_, **__: pytest.fail("played first"))
    return run


def test_what_can_not_be_read_or_written_is_told_before_the_first_episode(unplayed, capsys):
    """The last setting of a sweep is looked at too."""
    folder = unplayed / "evaluations"
    words = ["sweep", str(unplayed), "--episodes", "1", "--num-candidates", "1", "2"]
    folder.write_text("")
    assert main(words) == 2
    folder.unlink()
    folder.mkdir()
    (folder / FILE).write_text("dataset;task\n")
    assert main(words) == 2
    (folder / FILE).unlink()
    (folder / "maze.npz").write_bytes(b"no archive")
    assert main(words) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evor: ")]
    assert len(told) == 3
    assert all(
        part in line
        for part, line in zip(
            ("is a file", "has other columns", "maze.npz is not an npz file or is truncated"), told, strict=True
        )
    )


def test_a_read_only_folder_is_told_before_the_first_episode(unplayed, monkeypatch, capsys):
    def read_only(path, *_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(episodes, "waited_for", read_only)
    assert main(["evaluate", str(unplayed)]) == 2
    assert "can't be written (Read-only file system). Nothing was played." in capsys.readouterr().err


def test_a_search_without_a_value_is_refused_before_anything_is_written(tmp_path, data_folder, monkeypatch):
    config = RunConfig(
        dataset=DATASET,
        data=str(data_folder),
        tasks=(1,),
        updates=2,
        agent=Bc(learning=Learning(hidden=(8, 8), batch_size=8)),
    )
    train(config, tmp_path / "run")
    with pytest.raises(EvorError, match="no value"):
        evaluate(tmp_path / "run", SEARCH)
    for wrong, told in (
        ({"parallel": 0}, "parallel is 0"),
        ({"episodes": 1.5}, "episodes is 1.5"),
        ({"extraction": "prior"}, "give a search"),
    ):
        with pytest.raises(EvorError, match=told):
            evaluate(tmp_path / "run", **wrong)
    assert not (tmp_path / "run" / "evaluations").exists()


def test_pictures_that_can_not_be_stored_cost_no_row(run, whole, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(task_arrays, "write_npz", full)
        assert evaluate(run, SEARCH, episodes=2, tasks=(4,)) == whole[1]
    assert left(run) == {FILE: whole[0][FILE]}
    said = capsys.readouterr().err
    assert said.count("Trajectories for the report are missing: ") == 1
    assert "(No space left on device). The rows are kept." in said
    assert trajectories(run, FILE.removesuffix(".csv"), task=4) == []  # and the report goes on without
    evaluate(run, SEARCH, episodes=2, tasks=(4,), resume=True)
    assert left(run) == whole[0]


# Several checkpoints.


@pytest.mark.slow
def test_checkpoints_stand_side_by_side(run, whole, capsys):
    """The older one, played later, replaces neither rows nor pictures of the newer one."""
    newer = evaluate(run, SEARCH, episodes=2, tasks=(4,))
    assert (
        main(
            [
                "evaluate",
                str(run),
                "--episodes",
                "1",
                "--tasks",
                "4",
                "--seeds",
                "0",
                "--checkpoints",
                "20",
                "10",
                *WORDS,
            ]
        )
        == 0
    )
    table = [line.split("│")[2:5] for line in capsys.readouterr().out.splitlines() if "1 x 1" in line]
    assert [[cell.strip() for cell in line] for line in table] == [["10", "4", "1 x 1"], ["20", "4", "1 x 1"]]
    evaluate(run, SEARCH, episodes=2, tasks=(4,), seeds=(0,))
    older = [row for row in read_rows(run / "evaluations" / FILE) if row["updates"] == 10]
    assert [(row["seed"], row["episode"]) for row in older] == [(0, 0)]
    assert [row for row in read_rows(run / "evaluations" / FILE) if row["updates"] == 20] == newer
    pictures = {name for name in whole[0] if name != FILE}
    assert {name: left(run)[name] for name in pictures} == {name: whole[0][name] for name in pictures}
    page = write_report([run]).read_text(encoding="utf-8")
    assert "20 updates" in page
    assert "Earlier checkpoints were played too, see evaluations/: 10 updates (1 episode)." in page


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(run):
    with pytest.raises(EvorError, match="no checkpoint of 15 updates; there are those of 10, 20"):
        evaluate(run, SEARCH, step=(10, 15))
    assert not (run / "evaluations").exists()


@pytest.mark.slow
def test_pictures_of_another_checkpoint_are_not_shown(run, monkeypatch):
    """The newer one was stopped before anything was drawn of it."""
    for search in (Prior(), SEARCH):
        evaluate(run, search, episodes=1, tasks=(4,), seeds=(0,), step=10)
    files = {("Prior", "1"): file_name(Prior()), ("SoftmaxOf", "2"): file_name(SEARCH)}
    assert len(maze_sections(run, files, updates=10)) == 3
    stop_after(monkeypatch, 1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, SEARCH, episodes=2, tasks=(4,), seeds=(0,))
    assert next(iter(read_evaluations(run))) == 20
    assert maze_sections(run, files, updates=20) == []
    assert trajectories(run, files["Prior", "1"], task=4, updates=20) == []


def test_the_table_can_be_printed_where_there_is_only_ascii(run, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["sweep", str(run), "--episodes", "1", "--tasks", "4", "--seeds", "0", "--num-candidates", "2"]) == 0
    out.seek(0)
    assert "The number after a search is its candidates; return temperature 1, action temperature 0.03." in out.read()
