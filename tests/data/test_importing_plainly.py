"""Imports of every format against plain h5py, pyarrow and json code that reads the same files, value by value."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import recordings
from evor.cli.main import main

Arrays = dict[str, np.ndarray]


def imported(*words, out) -> Arrays:
    """All arrays of the shards of an import, end to end."""
    assert main(["data", "import", *map(str, words), "--out", str(out), "--quiet"]) == 0
    shards = [dict(np.load(path)) for path in sorted(out.glob("shard-*.npz"))]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0] if "action_" not in name}


def episode(observations, actions, rewards, success, following=None) -> Arrays:
    """The rows of one episode: a finish is its last row, else it is cut."""
    steps = int(np.argmax(success)) + 1 if any(success) else len(actions)
    last = np.arange(steps) == steps - 1
    arrays = {"observations": observations[:steps], "actions": actions[:steps], "rewards": np.asarray(rewards)[:steps]}
    arrays |= {"terminations": last & any(success), "truncations": last & (not any(success))}
    return arrays | ({} if following is None else {"next_observations": following[:steps]})


def lerobot(folder: Path) -> list[Arrays]:
    """Every row of every file, grouped by its episode, in the order of its frame."""
    rows = [row for path in folder.glob("data/*/*.parquet") for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: (row["episode_index"], row["frame_index"]))
    number = np.array([row["episode_index"] for row in rows])
    observations, actions = (np.array([row[name] for row in rows]) for name in ("observation.state", "action"))
    success = np.array([row["next.success"] for row in rows])
    return [
        episode(observations[k], actions[k], np.where(success[k], 0.0, -1.0), success[k])
        for k in (number == one for one in sorted(set(number)))
    ]


def minari_hdf5(folder: Path) -> list[Arrays]:
    with h5py.File(folder / "data/main_data.hdf5") as file:
        groups = [file[f"episode_{number}"] for number in range(len(file))]
        return [
            episode(
                np.concatenate([group["observations/goal"][:-1], group["observations/state"][:-1]], axis=1),
                group["actions"][()],
                group["rewards"][()],
                group["terminations"][()],
                np.concatenate([group["observations/goal"][1:], group["observations/state"][1:]], axis=1),
            )
            for group in groups
        ]


def minari_folders(folder: Path) -> list[Arrays]:
    """Episodes of arrow or parquet, a folder each; the last row is padding but for the observation."""
    episodes = []
    total = json.loads((folder / "data/metadata.json").read_text())["total_episodes"]
    for number in range(total):
        (path,) = (folder / "data" / str(number)).glob("part-0.*")
        table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
        columns = table.to_pydict()
        seen = np.array([[*one["goal"], *one["state"]] for one in columns["observations"]])
        actions, rewards, done = (np.array(columns[name])[:-1] for name in ("actions", "rewards", "terminations"))
        episodes.append(episode(seen[:-1], actions, rewards, done, seen[1:]))
    return episodes


def robomimic(path: Path) -> list[Arrays]:
    with h5py.File(path) as file:
        demos = [file[f"data/demo_{number}"] for number in range(len(file["data"]))]
        return [
            episode(
                np.concatenate([demo["obs/object"][()], demo["obs/robot0_eef_pos"][()]], axis=1),
                demo["actions"][()],
                demo["rewards"][()],
                demo["rewards"][()] > 0,
                np.concatenate([demo["next_obs/object"][()], demo["next_obs/robot0_eef_pos"][()]], axis=1),
            )
            for demo in demos
        ]


def flat(arrays: Arrays) -> list[Arrays]:
    """Episodes of flat arrays, cut at the flags."""
    ends = np.flatnonzero(arrays["terminals"].reshape(-1).astype(bool) | arrays["timeouts"].reshape(-1).astype(bool))
    names = ("observations", "actions", "rewards", "terminals", "next_observations")
    columns = {name: np.split(arrays[name], ends + 1) for name in names if name in arrays}
    return [
        episode(
            columns["observations"][k],
            columns["actions"][k],
            columns["rewards"][k].reshape(-1),
            columns["terminals"][k].reshape(-1),
            columns["next_observations"][k] if "next_observations" in columns else None,
        )
        for k in range(len(ends))
    ]


def d4rl(path: Path) -> list[Arrays]:
    with h5py.File(path) as file:
        return flat({name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)})


def named(path: Path) -> list[Arrays]:
    stored = np.load(path)
    renamed = {"actions": "ctrl", "rewards": "cost", "terminals": "terminals", "timeouts": "timeouts"}
    arrays = {name: stored[other] for name, other in renamed.items()}
    return flat(arrays | {"observations": np.concatenate([stored["qpos"], stored["target"]], axis=1)})


def with_successors(path: Path) -> Path:
    """D4RL's file of the later kind, which has next_observations."""
    ended = [recordings.cut_after_success(one) for one in recordings.record(scale=1.0)]
    return recordings.d4rl(path, next_observations=np.concatenate([one.states[1:] for one in ended]))


LEROBOT = ["--success", "column:next.success", "--reward", "steps"]
COLUMNS = ["--observation-keys", "qpos", "target", "--action-key", "ctrl", "--reward", "cost"]


@pytest.mark.parametrize(
    ("write", "name", "words", "read"),
    [
        pytest.param(recordings.lerobot_v30, "arm", LEROBOT, lerobot, id="LeRobot 3.0"),
        pytest.param(recordings.lerobot_v21, "arm", LEROBOT, lerobot, id="LeRobot 2.1"),
        pytest.param(lambda path: recordings.minari(path, "hdf5"), "reach-v0", [], minari_hdf5, id="Minari hdf5"),
        pytest.param(lambda path: recordings.minari(path, "arrow"), "reach-v0", [], minari_folders, id="Minari arrow"),
        pytest.param(lambda path: recordings.minari(path, "parquet"), "reach-v0", [], minari_folders, id="parquet"),
        pytest.param(recordings.robomimic, "lift.hdf5", ["--success", "reward"], robomimic, id="robomimic"),
        pytest.param(recordings.d4rl, "hopper.hdf5", [], d4rl, id="D4RL"),
        pytest.param(with_successors, "hopper.hdf5", [], d4rl, id="D4RL with next_observations"),
        pytest.param(recordings.named, "own.npz", COLUMNS, named, id="npz"),
    ],
)
def test_an_import_is_what_plain_code_reads(tmp_path, write, name, words, read):
    source = write(tmp_path / name)
    there, episodes = imported(source, *words, out=tmp_path / "out"), read(source)
    assert there.keys() == episodes[0].keys()
    for column in there:
        wanted = np.concatenate([one[column] for one in episodes])
        np.testing.assert_array_equal(there[column], wanted.astype(there[column].dtype), err_msg=column)
    assert there["observations"].dtype == there["actions"].dtype == np.float32
    assert len(episodes) == recordings.EPISODES
