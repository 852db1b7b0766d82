"""Recordings that can't be trusted, and what is said of each."""

import itertools
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recordings
from evor.cli.main import main
from evor.data.formats.npz import find_files, find_validation
from recordings import fixed, lerobot_table, record

LEROBOT = ["--success", "column:next.success", "--reward", "steps"]


@pytest.fixture
def refused(tmp_path, capsys):
    """Import what must be refused; returns the sentence. Nothing is left under the final name."""

    def run(*words) -> str:
        assert main(["data", "import", *map(str, words), "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("evor: ")
        return said

    return run


def accepted(*words, out) -> dict[str, np.ndarray]:
    assert main(["data", "import", *map(str, words), "--out", str(out), "--quiet"]) == 0
    return dict(np.load(out / "shard-00000.npz"))


# Labels are never guessed.


def test_lerobot_and_robomimic_are_refused_without_a_rule_of_success(tmp_path, refused):
    arm, lift = recordings.lerobot_v30(tmp_path / "arm"), recordings.robomimic(tmp_path / "lift.hdf5")
    for source, kind in ((arm, "LeRobot v3.0"), (lift, "robomimic HDF5")):
        said = refused(source)
        assert f"is {kind}, which does not say which episodes succeed" in said
        for choice in ("column:NAME", "reward:THRESHOLD", "all, none", "file:CSV"):
            assert choice in said
    assert "has no rewards; give reward (--reward): the name of a column, steps" in refused(arm, "--success", "all")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("yes", "success (--success) is 'yes'; give column:NAME"),
        ("column:", "success (--success) is 'column:'; give"),
        ("reward:high", "'high' is no number; give reward:0.5"),
        ("reward:nan", "'nan' is no number; give reward:0.5"),
        ("column:next.succes", "has no column 'next.succes'; did you mean 'next.success'?"),
        ("column:timestamp", "timestamp is 0.0333333 in row 1, and a column of success holds 0 and 1"),
        ("file:nothing.csv", "nothing.csv does not exist"),
        ("reward", "success (--success) reward needs recorded rewards, and"),
    ],
)
def test_rules_that_can_not_be_followed(tmp_path, refused, rule, words):
    assert words in refused(recordings.lerobot_v30(tmp_path / "arm"), "--success", rule, "--reward", "steps")


def test_a_file_says_which_episodes_succeed(tmp_path, refused):
    arm, table = recordings.lerobot_v30(tmp_path / "arm"), tmp_path / "labels.csv"
    table.write_text("episode,success\n" + "".join(f"{number},{int(number == 10)}\n" for number in range(12)))
    there = accepted(arm, "--success", f"file:{table}", "--reward", "steps", out=tmp_path / "there")
    ends = np.flatnonzero(there["terminations"] | there["truncations"])
    assert np.flatnonzero(there["terminations"][ends]).tolist() == [10]
    for text, words in (
        ("episode,success\n0,1\n", "says nothing of episode 1; add a line"),
        ("episode,success\n0,1\n0,1\n", "names an episode twice"),
        ("episode,success\n0,maybe\n", "success of episode 0 is 'maybe'; give 0 or 1"),
        ("episode,worked\n0,1\n", "lacks success"),
        (table.read_text() + "99,1\n", "names episode 99, which"),
    ):
        table.write_text(text)
        assert words in refused(arm, "--success", f"file:{table}", "--reward", "steps")


def test_a_reward_beyond_a_threshold_finishes_an_episode(tmp_path):
    rewards = np.concatenate([np.arange(one.steps) for one in record()]).astype(np.int64)
    half = sum(one.steps for one in record()[:6])
    arm = recordings.lerobot_v30(tmp_path / "arm")
    for index, numbers in enumerate((range(6), range(6, 12))):
        part = rewards[:half] if index == 0 else rewards[half:]
        table = lerobot_table(list(numbers), record(), **{"next.reward": pa.array(part)})
        pq.write_table(table, arm / f"data/chunk-000/file-{index:03d}.parquet")
    there = accepted(arm, "--success", "reward:3.5", out=tmp_path / "there")
    np.testing.assert_array_equal(there["rewards"], np.tile(np.arange(5), 12))
    np.testing.assert_array_equal(there["terminations"], np.tile(np.arange(5) == 4, 12))


def test_success_may_be_read_from_rewards_that_are_not_kept(tmp_path, refused):
    """Recorded rewards tell the finish; the value learns from -1 per step."""
    lift = recordings.robomimic(tmp_path / "lift.hdf5")
    there = accepted(lift, "--success", "reward", "--reward", "steps", out=tmp_path / "there")
    episodes = [recordings.cut_after_success(one) for one in record()]
    np.testing.assert_array_equal(there["rewards"], np.concatenate([np.where(one.success, 0, -1) for one in episodes]))
    labels = json.loads((tmp_path / "there/import.json").read_text())["labels"]
    assert labels.endswith("terminations: the first row of an episode with rewards above 0")
    with h5py.File(lift, "a") as file:
        file["data/demo_2/rewards"][3] = np.nan
    said = refused(lift, "--success", "reward", "--reward", "steps")
    assert "episode demo_2: rewards is nan in row 3, so that it does not say whether that step succeeds" in said


# What is in the files.


def test_frames_that_are_missing_cut_an_episode(tmp_path, capsys):
    (one,), arm = record(1), tmp_path / "arm"
    recordings.lerobot_info(arm, "v3.0", [one._replace(actions=one.actions[1:])])
    (arm / "data/chunk-000").mkdir(parents=True)
    table = lerobot_table([0], [one]).filter(np.arange(one.steps) != 3)
    pq.write_table(table, arm / "data/chunk-000/file-000.parquet")
    there = accepted(arm, "--success", "none", "--reward", "steps", out=tmp_path / "out")
    assert np.flatnonzero(there["truncations"]).tolist() == [2, 6]
    notes = json.loads((tmp_path / "out/import.json").read_text())["sources"][0]["notes"]
    assert notes == ["missing frames: 1 gap in frame_index in 1 episode (0); an episode is cut there"]


def split(arm, rows: list[int]):
    """LeRobot's rows of one file in several, cut before these rows."""
    (arm / "data/chunk-000/file-001.parquet").unlink()
    table = lerobot_table(list(range(12)), record())
    edges = [0, *rows, len(table)]
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        pq.write_table(table.slice(low, high - low), arm / f"data/chunk-000/file-{len(rows) - index:03d}.parquet")
    return table


def test_an_episode_may_go_on_in_the_next_files(tmp_path, refused, monkeypatch):
    arm = recordings.lerobot_v30(tmp_path / "arm")
    wanted = accepted(arm, *LEROBOT, out=tmp_path / "whole")
    split(arm, [3, 5, 12, 60])  # episode 0 in three files, a file within it, and the files in another order
    there = accepted(arm, *LEROBOT, out=tmp_path / "split")
    assert all((there[name] == wanted[name]).all() for name in wanted)
    monkeypatch.setattr("evor.data.shards.MOST_ROWS", 21)  # so that reading begins within a file, and within an episode
    again = tmp_path / "again"
    accepted(arm, *LEROBOT, out=again)
    shards = [np.load(path) for path in sorted(again.glob("shard-*.npz"))]
    np.testing.assert_array_equal(np.concatenate([one["actions"] for one in shards]), wanted["actions"])
    path = arm / "data/chunk-000/file-003.parquet"
    pq.write_table(pq.read_table(arm / "data/chunk-000/file-004.parquet"), path)
    assert "episode 0 lies in several files, and their frames overlap; remove one" in refused(arm, *LEROBOT)


def test_frames_that_are_missing_between_files_and_before_the_first_are_told(tmp_path):
    arm = recordings.lerobot_v30(tmp_path / "arm")
    table = split(arm, [4])
    first = arm / "data/chunk-000/file-001.parquet"
    pq.write_table(table.slice(1, 2), first)  # frames 1 and 2 of episode 0; frame 4 begins the next file
    info = json.loads((arm / "meta/info.json").read_text())
    (arm / "meta/info.json").write_text(json.dumps(info | {"total_frames": len(table) - 2}))
    there = accepted(arm, "--success", "none", "--reward", "steps", out=tmp_path / "out")
    assert np.flatnonzero(there["truncations"])[:2].tolist() == [1, 5]
    assert json.loads((tmp_path / "out/import.json").read_text())["sources"][0]["notes"] == [
        "missing frames: 1 gap in frame_index in 1 episode (0); an episode is cut there",
        "missing frames: frame_index does not begin at 0 in 1 episode (0)",
    ]


def test_hidden_files_are_passed_over(tmp_path):
    """A Mac writes one beside each file that it copies to another system's disk."""
    arm = recordings.lerobot_v30(tmp_path / "arm")
    (arm / "data/chunk-000/._file-000.parquet").write_bytes(b"Mac OS X")
    accepted(arm, "--success", "all", "--reward", "steps", out=tmp_path / "out")
    for name in ("._shard-00000.npz", "._shard-00000-val.npz"):
        (tmp_path / "out" / name).write_bytes(b"Mac OS X")
    assert find_files(tmp_path / "out") == [tmp_path / "out/shard-00000.npz"]
    assert find_validation(tmp_path / "out") == []


def test_tasks_that_an_observation_does_not_tell_apart_are_told(tmp_path):
    arm = recordings.lerobot_v30(tmp_path / "arm")
    info = json.loads((arm / "meta/info.json").read_text())
    (arm / "meta/info.json").write_text(json.dumps(info | {"total_tasks": 2}))
    rule = ["--success", "none", "--reward", "steps"]
    accepted(arm, *rule, out=tmp_path / "one")
    (note,) = json.loads((tmp_path / "one/import.json").read_text())["sources"][0]["notes"]
    assert note.startswith("there are 2 tasks, and the observation does not tell which one")
    there = accepted(arm, *rule, "--observation-keys", "observation.state", "task_index", out=tmp_path / "two")
    assert there["observations"].shape[1] == 4
    assert json.loads((tmp_path / "two/import.json").read_text())["sources"][0]["notes"] == []


def test_rows_in_another_order_are_sorted_and_frames_may_not_be_there_twice(tmp_path, refused):
    arm = recordings.lerobot_v30(tmp_path / "arm")
    wanted = accepted(arm, *LEROBOT, out=tmp_path / "a")
    path = arm / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    there = accepted(arm, *LEROBOT, out=tmp_path / "b")
    assert all((there[name] == wanted[name]).all() for name in wanted)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    assert "episode 0 has frame 0 twice" in refused(arm, *LEROBOT)


def broken_lerobot(folder, **columns):
    arm = recordings.lerobot_v30(folder, record(4))
    rows = sum(one.steps for one in record(4)[:2])
    table = lerobot_table([0, 1], record(4), **{name: make(rows) for name, make in columns.items()})
    pq.write_table(table, arm / "data/chunk-000/file-000.parquet")
    return arm


def with_nan(rows):
    values = np.zeros((rows, 3))
    values[10, 1] = np.nan
    return fixed(values)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"observation.state": with_nan}, "episode 1: observation.state[2, 1] is nan, the first of 1 values"),
        ({"action": lambda rows: pa.array(["left"] * rows)}, "action has type string, not real numbers"),
        ({"action": lambda rows: pa.array(np.zeros(rows, int))}, "discrete actions are not supported"),
        ({"observation.state": lambda rows: pa.array([{"bytes": b"png"}] * rows)}, "images are not supported: compute"),
        ({"observation.state": lambda rows: pa.array([[[1.0]]] * rows)}, "images are not supported: compute"),
        ({"observation.state": lambda rows: pa.array([[1.0]] + [[1.0, 2.0]] * (rows - 1))}, "lists of 1 to 2 numbers"),
        ({"observation.state": lambda rows: pa.array([None] + [[1.0]] * (rows - 1))}, "has no value at row 0"),
        ({"action": lambda rows: None}, "has no action column 'action'"),
        ({"observation.state": lambda rows: None}, "has no column observation.state"),
    ],
)
def test_columns_of_lerobot_that_can_not_be_read(tmp_path, refused, columns, words):
    assert words in refused(broken_lerobot(tmp_path / "arm", **columns), *LEROBOT)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"observation.state": lambda rows: fixed(np.zeros((rows, 2)))},
            "observation.state holds lists of 3 numbers, and",
        ),
        ({"action": lambda rows: fixed(np.zeros((rows, 5)))}, "the files before lists of 5 numbers; repair or remove"),
        ({"action": lambda rows: pa.array(np.zeros(rows))}, "the files before plain numbers; repair or remove"),
    ],
)
def test_files_of_lerobot_whose_rows_have_other_lengths(tmp_path, refused, columns, words):
    said = refused(broken_lerobot(tmp_path / "arm", **columns), *LEROBOT)
    assert words in said
    assert "file-001.parquet: " in said


def test_folders_that_are_not_whole(tmp_path, refused):
    arm = recordings.lerobot_v30(tmp_path / "arm")
    path = arm / "data/chunk-000/file-001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is no parquet file, or is cut or damaged" in refused(arm, *LEROBOT)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "is a pointer of git-lfs, not the data; fetch them with `git lfs pull`" in refused(arm, *LEROBOT)
    path.unlink()
    assert "names total_episodes 12, and the data hold 6; copy all of data/" in refused(arm, *LEROBOT)
    (arm / "meta/info.json").unlink()
    assert "meta/info.json is missing" in refused(arm, *LEROBOT)
    (tmp_path / "empty").mkdir()
    said = refused(tmp_path / "empty")
    assert "none of the formats that are read; looked for meta/info.json (LeRobot), data/metadata.json (Minari)" in said
    assert "does not exist, and" in refused("mujoco/hopper/expert-v0")


def test_a_folder_that_holds_something_else_stays(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    source = recordings.robomimic(tmp_path / "lift.hdf5")
    assert main(["data", "import", str(source), "--success", "all", "--out", str(out)]) == 2
    assert "holds something else; choose another folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    accepted(source, "--success", "all", out=tmp_path / "there")
    assert main(["data", "import", str(source), "--success", "none", "--out", str(tmp_path / "there")]) == 2
    assert "holds another import" in capsys.readouterr().err


def damaged(path, name, change):
    """A robomimic file in which one dataset is changed."""
    recordings.robomimic(path)
    with h5py.File(path, "a") as file:
        array = file[name][()]
        del file[name]
        if change is not None:
            file[name] = change(array)
    return path


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("data/demo_3/actions", None, "data/demo_3 has no actions (it holds dones, next_obs, obs, rewards, states)"),
        ("data/demo_3/actions", lambda a: a[:-1], "data/demo_3"),
        (
            "data/demo_3/actions",
            lambda a: np.full_like(a, 1.5),
            "episode demo_3: actions[0, 0] is 1.5, outside [-1, 1]",
        ),
        ("data/demo_3/actions", lambda a: np.full_like(a, np.nan), "episode demo_3: actions[0, 0] is nan"),
        ("data/demo_3/rewards", lambda a: a[:-1], "rows (actions 11, rewards 10)"),
        ("data/demo_0/rewards", lambda a: np.array(["x"] * len(a), "S1"), "type |S1, not real numbers"),
        ("data/demo_3/obs/object", lambda a: a[:-2], "data/demo_3"),
        (
            "data/demo_3/obs/object",
            lambda a: a[:, :1],
            "episode demo_3: object has 1 numbers in a row, and 2 in others",
        ),
        ("data/demo_3/next_obs/object", lambda a: a[:, :1], "episode demo_3: object has 1 numbers in a row"),
        ("data/demo_3/actions", lambda a: a[:, :1], "episode demo_3: actions has 1 numbers in a row, and 2 in others"),
        ("data/demo_3/obs/object", lambda a: np.array(["x"] * len(a), object), "not real numbers"),
    ],
)
def test_demonstrations_that_do_not_fit(tmp_path, refused, name, change, words):
    assert words in refused(damaged(tmp_path / "lift.hdf5", name, change), "--success", "reward")


def test_observations_of_a_demonstration_may_be_one_more_than_its_actions(tmp_path, refused):
    """The last one is then what comes after the last action; one less is refused."""
    episodes = record(3, scale=1.0)
    path = recordings.robomimic(tmp_path / "lift.hdf5", episodes)
    with h5py.File(path, "a") as file:
        for number, one in enumerate(episodes):
            demo = file[f"data/demo_{number}"]
            del demo["obs/robot0_eef_pos"], demo["obs/object"], demo["next_obs"]
            demo["obs/robot0_eef_pos"], demo["obs/object"] = one.states, one.goal
    there = accepted(path, "--success", "none", out=tmp_path / "there")
    seen = [np.concatenate([one.goal, one.states], axis=1).astype(np.float32) for one in episodes]
    np.testing.assert_array_equal(there["observations"], np.concatenate([array[:-1] for array in seen]))
    np.testing.assert_array_equal(there["next_observations"], np.concatenate([array[1:] for array in seen]))
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        del demo["obs/robot0_eef_pos"], demo["obs/object"]
        demo["obs/robot0_eef_pos"], demo["obs/object"] = episodes[1].states[:-2], episodes[1].goal[:-2]
    assert "data/demo_1: 8 observations and 9 actions; as many are needed, or one observation more" in refused(
        path, "--success", "none"
    )


def test_robosuites_own_file_has_no_observations(tmp_path, refused):
    path = recordings.robomimic(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            del demo["obs"], demo["next_obs"]
    said = refused(path, "--success", "all", "--reward", "steps")
    assert (
        "holds actions, dones, rewards, states and no observations. Make them with robomimic's dataset_states_to_obs"
        in said
    )


def test_bounds_that_exclude_data_are_refused_or_clip(tmp_path, refused):
    lift = recordings.robomimic(tmp_path / "lift.hdf5")
    bounds = ["--action-low", "-0.5", "--action-high", "0.5"]
    said = refused(lift, "--success", "none", *bounds)
    assert "outside [-0.5, 0.5]; give the bounds in action_low and action_high" in said
    there = accepted(lift, "--success", "none", *bounds, "--clip-actions", out=tmp_path / "there")
    assert np.abs(there["actions"]).max() == 0.5
    assert json.loads((tmp_path / "there/import.json").read_text())["counts"]["clipped_rows"] > 10
    assert "actions have 2 entries; give as many" in refused(
        lift, "--success", "none", "--action-low", "1", "1", "1", "--action-high", "2"
    )
    assert "one of action_low and action_high" in refused(lift, "--success", "none", "--action-low", "1")
    assert "is above that of action_high" in refused(
        lift, "--success", "none", "--action-low", "1", "--action-high", "0"
    )


def test_numbers_of_any_type_are_read(tmp_path):
    """float16, big-endian, float64, int64 rewards, [N, 1] rewards."""
    episodes = record(2, scale=1.0)
    states = np.concatenate([one.states[:-1] for one in map(recordings.cut_after_success, episodes)])
    for number, kind in enumerate((np.float16, ">f8", ">f4", np.float64)):
        source = recordings.d4rl(tmp_path / f"{number}.hdf5", episodes, observations=states.astype(kind))
        there = accepted(source, out=tmp_path / str(number))
        np.testing.assert_array_equal(there["observations"], states.astype(kind).astype(np.float32))


@pytest.mark.parametrize("kind", ["float16", "float64", "int64", "uint8", "bool"])
def test_lerobot_of_any_type(tmp_path, kind):
    """Lists, lists of one length and plain numbers."""
    (one,), arm = record(1), tmp_path / "arm"
    recordings.lerobot_info(arm, "v3.0", [one])
    (arm / "data/chunk-000").mkdir(parents=True)
    values = np.abs(np.round(one.states[:-1])).astype(np.float16)
    if kind == "bool":
        values = values > 0
    state = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)).cast(kind), 3)
    table = lerobot_table(
        [0], [one], **{"observation.state": state, "observation.environment_state": state.flatten()[::3]}
    )
    pq.write_table(table, arm / "data/chunk-000/file-000.parquet")
    there = accepted(arm, *LEROBOT, out=tmp_path / "out")
    kept = recordings.cut_after_success(one).steps
    np.testing.assert_array_equal(there["observations"], np.concatenate([values, values[:, :1]], axis=1)[:kept])


def test_an_action_of_one_number_is_stored_as_that_number(tmp_path):
    """LeRobot stores a feature of shape [1] so, and so may others."""
    arm, (one, *_) = tmp_path / "arm", record(4)
    recordings.lerobot_info(arm, "v3.0", [one])
    (arm / "data/chunk-000").mkdir(parents=True)
    angles = one.actions[:, 0].astype(np.float32)
    pq.write_table(lerobot_table([0], [one], action=pa.array(angles)), arm / "data/chunk-000/file-000.parquet")
    there = accepted(arm, *LEROBOT, out=tmp_path / "out")
    np.testing.assert_array_equal(there["actions"], angles[: recordings.cut_after_success(one).steps, None])


def test_values_that_float32_can_not_tell_apart_are_told(tmp_path):
    episodes = record(2, scale=1.0)
    states = np.concatenate([one.states[:-1] for one in map(recordings.cut_after_success, episodes)])
    states[:, 1] = 1.7e9 + np.arange(len(states))
    accepted(recordings.d4rl(tmp_path / "clock.hdf5", episodes, observations=states), out=tmp_path / "out")
    notes = json.loads((tmp_path / "out/import.json").read_text())["notes"]
    assert notes == ["float32 can't tell the values of observations[:, 1] apart; subtract an offset before recording"]


def test_episodes_without_steps_are_passed_over(tmp_path, refused):
    lift = recordings.robomimic(tmp_path / "lift.hdf5")
    with h5py.File(lift, "a") as file:
        for name in [f"data/demo_0/{name}" for name in ("actions", "rewards", "obs/object", "obs/robot0_eef_pos")]:
            array = file[name][()]
            del file[name], array
            file[name] = np.zeros(
                (0, *((2,) if name.endswith(("actions", "object")) else (3,) if "obs" in name else ()))
            )
        del file["data/demo_0/next_obs"]
    said = refused(lift, "--success", "reward", "--episodes", "0:1")
    assert f"{lift}: every episode in episodes (--episodes) 0:1 is empty; choose others." in said
    there = accepted(lift, "--success", "reward", out=tmp_path / "out")
    assert len(there["actions"]) == sum(recordings.cut_after_success(one).steps for one in record()[1:])
    assert "next_observations" in there
    counts = json.loads((tmp_path / "out/import.json").read_text())["counts"]
    assert (counts["episodes"], counts["empty_episodes"]) == (11, 1)


def test_flat_files_that_do_not_say_where_episodes_end(tmp_path, refused):
    source = recordings.d4rl(tmp_path / "old.hdf5", timeouts=None)
    assert "has no timeouts, so that nothing says where unfinished episodes end" in refused(source)
    there = accepted(source, "--max-episode-steps", "10", out=tmp_path / "there")
    ends = np.flatnonzero(there["terminations"] | there["truncations"])
    assert np.diff(ends, prepend=-1).max() == 10
    source = recordings.d4rl(tmp_path / "short.hdf5", rewards=np.zeros(3))
    assert "different numbers of rows" in refused(source)
    assert "max_episode_steps (--max-episode-steps) goes with D4RL HDF5 and npz" in refused(
        recordings.robomimic(tmp_path / "lift.hdf5"), "--success", "none", "--max-episode-steps", "5"
    )


def test_minari_that_is_not_read(tmp_path, refused):
    discrete = json.dumps({"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"})
    source = recordings.minari(tmp_path / "a-v0", "hdf5", action_space=discrete)
    assert "actions are Discrete, and discrete actions are not supported" in refused(source)
    image = json.dumps({"type": "Box", "shape": [64, 64, 3], "dtype": "uint8"})
    spaces = json.dumps(
        {"type": "Dict", "subspaces": {"state": json.loads(image), "goal": {"type": "Box", "shape": [2]}}}
    )
    source = recordings.minari(tmp_path / "b-v0", "hdf5", observation_space=spaces)
    assert "state has shape [64, 64, 3]: images are not supported" in refused(source)
    accepted(source, "--observation-keys", "goal", out=tmp_path / "goal")
    source = recordings.minari(tmp_path / "c-v0", "hdf5", data_format=None)
    assert "it lacks 'data_format'" in refused(source)
    source = recordings.minari(tmp_path / "d-v0", "hdf5", action_space=None, observation_space=None)
    there = accepted(source, out=tmp_path / "there")
    assert there["action_high"].max() < 90  # of all data
    (source / "data/metadata.json").unlink()
    assert "metadata.json is missing; copy the whole dataset" in refused(source)


def test_two_sources_of_different_width(tmp_path, refused):
    first = recordings.robomimic(tmp_path / "a.hdf5")
    second = recordings.d4rl(tmp_path / "b.hdf5")
    assert "has sizes (3, 2) (of an observation, of an action)" in refused(first, second, "--success", "reward")


def test_two_sources_of_the_same_width_in_all_whose_columns_differ(tmp_path, refused):
    """object [2] and robot0_eef_pos [3] are no goal [4] and state [1]; a single column of 5 may be anything."""
    first, second = recordings.robomimic(tmp_path / "a.hdf5"), tmp_path / "b.hdf5"
    with h5py.File(second, "w") as file:
        for name, array in {"actions": np.zeros((5, 2)), "rewards": np.ones(5), "obs/goal": np.ones((5, 4))}.items():
            file[f"data/demo_0/{name}"] = array
        file["data/demo_0/obs/state"] = np.zeros((5, 1))
    said = refused(first, second, "--success", "reward")
    assert (
        f"{second} has the observations goal [4], state [1], {first} object [2], robot0_eef_pos [3]; different" in said
    )
    flat = recordings.d4rl(tmp_path / "c.hdf5", observations=np.zeros((150, 5), np.float32))
    accepted(flat, first, "--success", "reward", out=tmp_path / "both")
    assert json.loads((tmp_path / "both/import.json").read_text())["counts"]["rows"] == 300
    assert "different columns would lie" in refused(flat, first, second, "--success", "reward")


# Safety.


def test_nothing_outside_an_hdf5_file_is_opened(tmp_path, refused):
    secret = recordings.robomimic(tmp_path / "secret.hdf5")
    for name in ("external", "soft", "virtual", "storage"):
        path = recordings.robomimic(tmp_path / f"{name}.hdf5")
        with h5py.File(path, "a") as file:
            del file["data/demo_1/actions"]
            if name == "external":
                file["data/demo_1/actions"] = h5py.ExternalLink(secret, "data/demo_1/actions")
            elif name == "soft":
                file["data/demo_1/actions"] = h5py.SoftLink("/data/demo_2/actions")
            elif name == "virtual":
                layout = h5py.VirtualLayout((9, 2), "f8")
                layout[:] = h5py.VirtualSource(secret, "data/demo_1/actions", (9, 2))
                file.create_virtual_dataset("data/demo_1/actions", layout)
            else:
                file.create_dataset("data/demo_1/actions", (9, 2), "f8", external=[(str(secret), 0, 144)])
        words = "is a link" if name in ("external", "soft") else "keeps its values in other files"
        assert words in refused(path, "--success", "reward")


def test_a_file_that_is_cut_and_a_group_that_holds_itself(tmp_path, refused):
    path = recordings.d4rl(tmp_path / "cut.hdf5")
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is no HDF5 file, or is cut or damaged" in refused(path)
    path = recordings.d4rl(tmp_path / "loop.hdf5")
    with h5py.File(path, "a") as file:
        file["infos/infos"] = file["infos"]
    assert "is nested too deeply, or holds itself" in refused(path)


def test_bombs_are_bounded(tmp_path, refused):
    source = recordings.d4rl(tmp_path / "bomb.hdf5", observations=np.zeros((100_000, 8), np.float32))
    with h5py.File(source, "a") as file:
        for name in ("actions", "terminals", "timeouts", "rewards"):
            del file[name]
            file.create_dataset(name, (100_000, 2)[: 1 + (name == "actions")], "f4", chunks=True, compression="gzip")
    assert "unpacks to" in refused(source, "--max-gb", "0.003")
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, observations=np.zeros((10**4, 8)), actions=np.zeros((10**4, 2)), timeouts=np.zeros(10**4))
    assert "more than max_gb allows (0.0001)" in refused(
        bomb, "--max-gb", "0.0001", "--success", "none", "--reward", "steps"
    )
    arm = recordings.lerobot_v30(tmp_path / "arm")
    assert "more than max_gb allows" in refused(arm, *LEROBOT, "--max-gb", "1e-6")


def test_small_files_that_unpack_to_much_are_bounded(tmp_path, refused):
    """Parquet that repeats one value, of which its pages say little, and arrow that is compressed."""
    arm, rows = tmp_path / "arm", 10**6
    (arm / "meta").mkdir(parents=True)
    (arm / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0", "features": {}}))
    (arm / "data/chunk-000").mkdir(parents=True)
    columns = {"observation.state": fixed(np.zeros((rows, 6))), "action": fixed(np.zeros((rows, 2)))}
    columns |= {"frame_index": pa.array(np.arange(rows)), "episode_index": pa.array(np.zeros(rows, np.int64))}
    path = arm / "data/chunk-000/file-000.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=["observation.state.list.element"])
    words = ["--success", "all", "--reward", "steps", "--max-gb", "0.02"]
    assert "file-000.parquet unpacks to 31 MiB, more than max_gb" in refused(arm, *words)
    reach = recordings.minari(tmp_path / "reach-v0", "arrow")
    path = reach / "data/3/part-0.arrow"
    with pa.memory_map(str(path)) as stream:
        table = pa.ipc.open_file(stream).read_all()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(tmp_path / "packed"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema, options=options) as out,
        ):
            out.write_table(table)
    (tmp_path / "packed").rename(path)
    assert "part-0.arrow is compressed arrow, which evor does not unpack" in refused(reach)
    path.write_bytes(path.read_bytes()[:900])
    assert "is no arrow file, or is cut or damaged" in refused(reach)


def test_pickled_objects_are_never_opened(tmp_path, refused):
    path = tmp_path / "objects.npz"
    np.savez(path, observations=np.array([{}] * 3, object), actions=np.zeros((3, 1)), timeouts=np.zeros(3))
    assert "pickled objects" in refused(path, "--success", "none", "--reward", "steps")
    extension = pa.array(np.zeros(27)).cast(pa.float64())
    wrapped = pa.ExtensionArray.from_storage(pa.opaque(pa.float64(), "thing", "vendor"), extension)
    rows = sum(one.steps for one in record(4)[:2])
    arm = broken_lerobot(
        tmp_path / "arm", **{"observation.state": lambda count: wrapped.slice(0, count) if count <= 27 else wrapped}
    )
    assert rows <= 27
    assert "has the extension type" in refused(arm, *LEROBOT)


def test_a_file_is_imported_once(tmp_path, refused):
    lift = recordings.robomimic(tmp_path / "lift.hdf5")
    words = ("--success", "reward", "--reward", "steps")
    said = refused(lift, tmp_path / "." / ".." / tmp_path.name / "lift.hdf5", *words)
    assert f"two sources have the file {lift}" in said
