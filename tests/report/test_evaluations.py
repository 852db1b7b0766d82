"""Files of episodes: nothing that was written is lost, however processes end, meet or fail."""

import csv
import itertools
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evor.errors import EvorError
from evor.report.evaluations import (
    COLUMNS,
    RETURNS,
    YOUNGER,
    EvaluationCell,
    SettingFiles,
    cell_of,
    drawings,
    read_files,
    read_rows,
    stem_of,
)
from evor.runtime.files import read_arrays, write_csv, write_npz

NAME = "softmaxof_4_1.0_0.001_quadrature-10_10"
FIRST = EvaluationCell(dataset="pointmaze-medium-navigate-v0", task=1, seed=0, updates=20, evaluation_seed=0)


def row(cell=FIRST, episode=0, **changes):
    setting = ("SoftmaxOf", 4, 1.0, 1e-3, "Quadrature-10", 10, "", "", "", "")
    names = (
        "extraction",
        "num_candidates",
        "return_temperature",
        "action_temperature",
        "reading",
        "flow_steps",
        "max_return",
        "guidance",
        "weight",
        "base",
    )
    found = {**cell._asdict(), "episode": episode, **dict(zip(names, setting, strict=True))}
    found |= {
        "success": 1,
        "return": -3.25,
        **dict.fromkeys(RETURNS, -3.0),
        "length": 4,
        "max_episode_steps": "",
        "reward_rule": "pre",
        "ogbench": "1.2",
        "mujoco": "3.3.1",
        "commit": "c",
    }
    return {name: (found | changes)[name] for name in COLUMNS}


def rows_of(cell, count=3, **changes):
    return [row(cell, episode, **changes) for episode in range(count)]


@pytest.fixture
def files(tmp_path):
    found = SettingFiles(tmp_path / "evaluations", NAME)
    found.open()
    return found


def play(files, cell, count=3, **changes):
    for each in rows_of(cell, count, **changes):
        files.append(each)
    files.settle(cell, rows_of(cell, count, **changes))


def test_every_episode_is_in_the_file_when_it_has_ended(files):
    for episode in range(3):
        files.append(row(episode=episode))
        assert read_rows(files.csv) == rows_of(FIRST, episode + 1)
    files.settle(FIRST, rows_of(FIRST))
    assert read_rows(files.csv) == rows_of(FIRST)


def test_no_file_stays_where_nothing_was_played(files):
    assert files.csv.exists()  # so that a folder that can't be written is known before anything is played
    files.settle()
    assert not files.csv.exists()


@pytest.mark.parametrize("lost", [1, 5, 60])
def test_half_a_line_is_passed_over_and_mended(files, lost):
    """A process is killed while it writes its third line; another one goes on."""
    play(files, FIRST)
    whole = files.csv.read_bytes()
    files.csv.write_bytes(whole[:-lost])
    assert read_rows(files.csv) == rows_of(FIRST, 2)
    files.append(row(episode=2))
    assert files.csv.read_bytes() == whole
    files.csv.write_bytes(whole[:-lost])
    assert files.open() == rows_of(FIRST, 2)
    assert files.csv.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])


def test_the_later_row_of_an_episode_counts_and_a_played_cell_is_replaced_whole(files):
    play(files, FIRST, 3)
    files.append(row(episode=1, length=9))
    assert [each["length"] for each in read_rows(files.csv)] == [4, 9, 4]
    play(files, FIRST, 2, commit="later")
    assert read_rows(files.csv) == rows_of(FIRST, 2, commit="later")


def test_the_order_of_playing_leaves_no_trace(tmp_path):
    """Cells of other tasks, seeds, checkpoints and evaluation seeds stand side by side, sorted."""
    cells = [
        FIRST,
        *(FIRST._replace(**change) for change in ({"task": 2}, {"seed": 1}, {"updates": 7}, {"evaluation_seed": 1})),
    ]
    found = set()
    for number, order in enumerate(itertools.islice(itertools.permutations(cells), 0, 120, 17)):
        files = SettingFiles(tmp_path / str(number), NAME)
        files.open()
        for cell in order:
            play(files, cell, 2)
        found.add(files.csv.read_bytes())
        assert [cell_of(each) for each in read_rows(files.csv)[::2]] == sorted(cells)
    assert len(found) == 1


def test_processes_side_by_side_lose_nothing(tmp_path):
    """Each of four plays a task with two seeds and keeps what the report draws, all into the same three files."""

    def process(task):
        files = SettingFiles(tmp_path / "evaluations", NAME)
        files.open()
        for seed in (0, 1):
            play(files, FIRST._replace(task=task, seed=seed), 20)
        files.keep_trajectories(FIRST._replace(task=task), [np.full((2, 4), task, np.float32)])
        drawings(files.folder).keep({task: {"map": np.eye(task), "drawing": np.array([20, 4, 0])}})

    tasks = (1, 2, 3, 4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(process, tasks))
    files = SettingFiles(tmp_path / "evaluations", NAME)
    cells = [FIRST._replace(task=task, seed=seed) for task in tasks for seed in (0, 1)]
    assert read_rows(files.csv) == [each for cell in cells for each in rows_of(cell, 20)]
    for task in tasks:
        np.testing.assert_array_equal(files.trajectories(FIRST._replace(task=task)), np.full((1, 2, 4), task))
    assert len(files.csv.read_text().splitlines()) == 1 + 4 * 2 * 20


# What others did to a file.


def resaved(path, delimiter=",", mark="", end="\r\n", quoting=csv.QUOTE_ALL, columns=tuple(COLUMNS), change=str):
    """Save a file as a spreadsheet does."""
    with open(path, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(mark)
        writer = csv.DictWriter(file, columns, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writeheader()
        writer.writerows({name: change(text) for name, text in each.items()} for each in found)


@pytest.mark.parametrize(
    "how",
    [
        {"mark": "\ufeff"},
        {"columns": tuple(reversed(COLUMNS))},
        {"change": lambda text: {"1.0": "1", "0.001": "1E-03", "20": "20.0"}.get(text, text)},
    ],
)
def test_what_a_spreadsheet_saved_is_read_and_restored(files, how):
    play(files, FIRST)
    before = files.csv.read_bytes()
    resaved(files.csv, **how)
    assert files.csv.read_bytes() != before
    assert files.open() == rows_of(FIRST)
    assert files.csv.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace(",", ";"), "has other columns .* lacks dataset"),
        (lambda text: text.replace(",commit", ",commit,note").replace(",c\n", ",c,?\n"), "has 'note'"),
        (lambda text: text.replace(",4,,0,pre", ",4,,0"), "line 2 of .* damaged"),
        (lambda text: text.replace("-v0,1,", "-v0,one,", 1), "line 2 of .*'one'"),
        (lambda text: text.replace("-v0,1,", "-v0,1.5,", 1), "'1.5' is no whole number"),
        (lambda text: text.replace(",,1,", ",,1e999,", 1), "'1e999' is no whole number"),
        (lambda text: text.replace("-3.25", "nan", 1), "'nan' is not finite"),
        (lambda text: text.replace(",,1,", ",,2,", 1), "success '2' is neither 0 nor 1"),
        (lambda text: text.replace("SoftmaxOf,4", "SoftmaxOf,8"), "episodes of another search, softmaxof_8"),
        (lambda text: text.encode().replace(b"SoftmaxOf", b"\xff"), "damaged"),
    ],
)
def test_what_is_no_file_of_ours_is_refused_and_left(files, damage, told):
    play(files, FIRST)
    content = damage(files.csv.read_text())
    files.csv.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files.csv.read_bytes()
    with pytest.raises(EvorError, match=told):
        files.open()
    assert files.csv.read_bytes() == before


GUIDED = {"extraction": "Guided", "action_temperature": 0.0, "guidance": "AfterChoice-2", "weight": 0.3}


def test_rows_of_guided_episodes_have_files_of_their_own(tmp_path):
    name = "guided_4_1.0_0.0_quadrature-10_10_afterchoice-2_0.3"
    files = SettingFiles(tmp_path / "evaluations", name)
    files.open()
    play(files, FIRST, **GUIDED)
    assert files.open() == rows_of(FIRST, **GUIDED)
    files.append(row(episode=3, **GUIDED | {"weight": 1.0}))
    with pytest.raises(EvorError, match=r"episodes of another search, guided_.*afterchoice-2_1\.0"):
        files.open()


def test_policies_whose_files_would_have_one_name_are_told_apart(tmp_path):
    name = stem_of(row(base="python:mine:propose"))
    files, others = (
        SettingFiles(tmp_path / "evaluations", name, base=base)
        for base in ("python:mine:propose", "python:mine:Propose")
    )
    files.open()
    play(files, FIRST, base="python:mine:propose")
    with pytest.raises(EvorError, match=r"over 'python:mine:propose', and those over 'python:mine:Propose' .* rename"):
        others.open()
    assert len(files.open()) == 3


def test_copies_of_a_file_count_once(files):
    play(files, FIRST)
    copy, hidden = files.folder / "a copy.csv", files.folder / f"._{files.csv.name}"
    copy.write_bytes(files.csv.read_bytes())
    hidden.write_bytes(b"\0\xff of a disk of macOS")
    play(files, FIRST._replace(task=2))
    assert sum(map(len, read_files(files.folder))) == 6
    copy.write_text(copy.read_text().replace("-3.25", "-4.25"))
    with pytest.raises(EvorError, match=r"a copy\.csv and .* contradict each other; remove the one"):
        read_files(files.folder)


def test_a_long_name_of_a_policy_is_cut(tmp_path):
    bases = [f"lerobot:{'/long' * 60}/{last}" for last in "ab"]
    names = [stem_of(row(base=base)) for base in bases]
    assert len(set(names)) == 2
    for name, base in zip(names, bases, strict=True):
        files = SettingFiles(tmp_path / "evaluations", name, base=base)
        files.open()
        play(files, FIRST, base=base)
        assert files.open() == rows_of(FIRST, base=base)


def test_files_that_know_no_guidance_are_read_and_mended(files):
    play(files, FIRST)
    whole = files.csv.read_bytes()
    older = [name for name in COLUMNS if name not in YOUNGER]
    write_csv(files.csv, older, rows=[{name: each[name] for name in older} for each in rows_of(FIRST)])
    assert read_rows(files.csv) == rows_of(FIRST)
    assert files.open() == rows_of(FIRST)
    assert files.csv.read_bytes() == whole


def test_what_cannot_be_written_is_told_first(tmp_path):
    (tmp_path / "evaluations").write_text("")
    with pytest.raises(EvorError, match="evaluations is a file; remove it"):
        SettingFiles(tmp_path / "evaluations", NAME).open()
    with pytest.raises(EvorError, match=r"gone.* can't be written .*Nothing was played"):
        SettingFiles(tmp_path / "gone" / "evaluations", NAME).open()


def test_a_full_disk_costs_the_episode_that_ends_then_and_no_other(files):
    """The limit on a file's size stands for the disk: the line is cut in the middle."""
    play(files, FIRST)
    whole, limits = files.csv.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 30, limits[1]))
    try:
        with pytest.raises(EvorError, match=r"can't be written \(No space left.*Episodes that ended before are kept"):
            files.append(row(FIRST._replace(seed=1)))
        with pytest.raises(EvorError, match=r"can't be written"):
            files.append(row(FIRST._replace(seed=1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.csv.read_bytes().startswith(whole)
    assert read_rows(files.csv) == rows_of(FIRST)
    files.append(row(FIRST._replace(seed=1)))
    assert read_rows(files.csv) == [*rows_of(FIRST), row(FIRST._replace(seed=1))]


def test_leftovers_of_killed_processes_are_removed(files):
    half = files.folder / f".{NAME}.csv.elsewhere-1-ab.partial"
    half.write_text("half")
    os.utime(half, (0, 0))
    files.open()
    assert {path.name for path in files.folder.iterdir()} == {f"{NAME}.csv"}


# Arrays by task.


def path_of(length):
    return [np.zeros((length, 4), np.float32)]


def test_trajectories_are_those_of_the_newest_checkpoint_and_the_lowest_seed(files):
    """Whatever comes first; and of another task of the same checkpoint the others stay."""
    offered = {
        FIRST._replace(updates=10): 1,
        FIRST._replace(seed=1): 2,
        FIRST: 3,
        FIRST._replace(evaluation_seed=5): 4,
        FIRST._replace(task=2, updates=10): 5,
    }
    for order in itertools.islice(itertools.permutations(offered), 0, 120, 17):
        (files.folder / f"{NAME}.npz").unlink(missing_ok=True)
        for cell in order:
            files.keep_trajectories(cell, path_of(offered[cell]))
        assert {cell: len(files.trajectories(cell)) for cell in offered} == dict.fromkeys(offered, 0) | {FIRST: 1}
        assert files.trajectories(FIRST)[0].shape == (3, 4)
    files.keep_trajectories(FIRST._replace(task=2), path_of(6))
    files.keep_trajectories(FIRST, path_of(7))
    assert files.trajectories(FIRST)[0].shape == (7, 4)
    assert files.trajectories(FIRST._replace(task=2))[0].shape == (6, 4)


def test_missing_trajectories_are_known(files):
    newer, older = FIRST, FIRST._replace(updates=10)
    assert files.lacks_trajectories(newer, 1)
    files.keep_trajectories(newer, path_of(3))
    assert not files.lacks_trajectories(newer, 1)
    assert files.lacks_trajectories(newer, 2)
    assert files.lacks_trajectories(newer._replace(task=2), 1)
    assert not files.lacks_trajectories(older, 1)  # they are not wanted
    assert not files.lacks_trajectories(newer._replace(seed=1), 1)


def test_files_of_version_0_1_0_know_their_checkpoint_from_their_rows(files):
    write_csv(files.csv, tuple(COLUMNS), rows=rows_of(FIRST._replace(seed=3)))
    write_npz(files.folder / f"{NAME}.npz", {"1/0": np.zeros((3, 4), np.float32), "1/1": np.zeros((2, 4), np.float32)})
    files.open()
    assert [len(path) for path in files.trajectories(FIRST._replace(seed=3))] == [3, 2]
    files.keep_trajectories(FIRST._replace(updates=10), path_of(9))
    assert len(files.trajectories(FIRST._replace(seed=3))) == 2
    files.keep_trajectories(FIRST._replace(updates=30), path_of(9))
    assert list(read_arrays(files.folder / f"{NAME}.npz")) == ["1/0", "1/played"]


def test_more_candidates_draw_a_maze_better(tmp_path):
    offered = [((20, 4, 0), 1), ((20, 8, 1), 2), ((20, 8, 0), 3), ((10, 32, 0), 4)]
    for order in itertools.islice(itertools.permutations(offered), 0, 24, 5):
        store = drawings(tmp_path)
        store.path.unlink(missing_ok=True)
        for mark, size in order:
            store.keep({1: {"map": np.eye(size), "drawing": np.array(mark)}})
        assert store.read()[1]["map"].shape == (3, 3)
    assert not store.wants(1, (20, 8, 0))
    assert store.wants(1, (20, 16, 5))
    assert store.wants(2, (20, 1, 0))
    assert not store.wants(2, (10, 32, 0))
    old = {"map": np.eye(2), "drawing": np.array([20, 32])}  # of version 0.1.0
    store.keep({1: old})
    assert store.mark(1) == (20, 32)
    store.keep({2: {"map": np.eye(2), "drawing": np.array([30, 1, 0])}})
    assert set(store.read()) == {2}


@pytest.mark.parametrize("name", ["map", "one/map", "1/drawing"])
def test_a_foreign_npz_is_refused(tmp_path, name):
    write_npz(tmp_path / "maze.npz", {name: np.zeros(5)})
    with pytest.raises(EvorError, match=f"holds '{name}', which evor does not write there"):
        drawings(tmp_path).read()
