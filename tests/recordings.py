"""Small recordings in the exact layouts of other programs, written by hand with h5py and pyarrow."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

EPISODES = 12  # more than ten: alphabetical order puts 10 before 2


class Recorded(NamedTuple):
    """One episode: T + 1 states, T steps, and whether it succeeded, in its last step but two."""

    states: np.ndarray  # [T + 1, 3]
    goal: np.ndarray  # [T + 1, 2]
    actions: np.ndarray  # [T, 2], in degrees
    success: np.ndarray  # [T]

    @property
    def steps(self) -> int:
        return len(self.actions)


def record(count: int = EPISODES, scale: float = 90.0) -> list[Recorded]:
    """Episodes of different lengths; every second one succeeds two steps before its end."""
    generator = np.random.default_rng(0)
    episodes = []
    for number in range(count):
        steps = 8 + number
        success = np.zeros(steps, bool)
        success[-3:] = number % 2 == 0
        episodes.append(
            Recorded(
                states=generator.normal(size=(steps + 1, 3)),
                goal=generator.normal(size=(steps + 1, 2)),
                actions=generator.uniform(-scale, scale, (steps, 2)),
                success=success,
            )
        )
    return episodes


# LeRobot.


def fixed(array: np.ndarray, kind: Any = None) -> pa.Array:
    """A column of lists of one length."""
    kind = kind or pa.float32()
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1), kind), array.shape[1])


def lerobot_table(numbers: list[int], episodes: list[Recorded], **changes: Any) -> pa.Table:
    """The rows of some episodes as LeRobot stores them; `changes` replace columns, None removes one."""
    some = [episodes[number] for number in numbers]
    frames = np.concatenate([np.arange(one.steps) for one in some])
    columns: dict[str, Any] = {
        "observation.state": fixed(np.concatenate([one.states[:-1] for one in some])),
        "action": fixed(np.concatenate([one.actions for one in some])),
        "timestamp": pa.array((frames / 30).astype(np.float32)),
        "frame_index": pa.array(frames),
        "episode_index": pa.array(
            np.concatenate([np.full(one.steps, n) for n, one in zip(numbers, some, strict=True)])
        ),
        "index": pa.array(np.arange(len(frames))),
        "task_index": pa.array(np.zeros(len(frames), np.int64)),
        "next.done": pa.array(np.concatenate([np.arange(one.steps) == one.steps - 1 for one in some])),
        "next.success": pa.array(np.concatenate([one.success for one in some])),
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


def lerobot_info(folder: Path, version: str, episodes: list[Recorded]) -> None:
    """meta/info.json."""
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["shoulder", "elbow", "wrist"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["shoulder", "elbow"]},
        "observation.images.front": {
            "dtype": "video",
            "shape": [480, 640, 3],
            "names": ["height", "width", "channels"],
        },
    }
    steps = sum(one.steps for one in episodes)
    content = {"codebase_version": version, "fps": 30, "robot_type": "so101", "features": features}
    content |= {"total_episodes": len(episodes), "total_frames": steps}
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/info.json").write_text(json.dumps(content))


def lerobot_v30(folder: Path, episodes: list[Recorded] | None = None, **changes: Any) -> Path:
    """Version 3.0: many episodes in a file."""
    episodes = episodes or record()
    lerobot_info(folder, "v3.0", episodes)
    (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
    half = len(episodes) // 2
    for index, numbers in enumerate((range(half), range(half, len(episodes)))):
        table = lerobot_table(list(numbers), episodes, **changes)
        pq.write_table(table, folder / f"data/chunk-000/file-{index:03d}.parquet", row_group_size=20)
    return folder


def lerobot_v21(folder: Path, episodes: list[Recorded] | None = None) -> Path:
    """Version 2.1: a file for every episode, with plain lists."""
    episodes = episodes or record()
    lerobot_info(folder, "v2.1", episodes)
    (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(episodes):
        lists = {
            "observation.state": pa.array(list(one.states[:-1].astype(np.float32)), pa.list_(pa.float32())),
            "action": pa.array(list(one.actions.astype(np.float32)), pa.list_(pa.float32())),
        }
        table = lerobot_table([number], episodes, **lists)
        pq.write_table(table, folder / f"data/chunk-000/episode_{number:06d}.parquet")
    return folder


# HDF5.


def robomimic(path: Path, episodes: list[Recorded] | None = None) -> Path:
    """robomimic's skeleton, with an image among the observations, `dones` that mean nothing and a mask."""
    episodes = episodes or record(scale=1.0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(one.steps for one in episodes)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift"})
        for number, one in enumerate(episodes):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = one.steps
            demo["actions"] = one.actions
            demo["rewards"] = one.success.astype(np.float64)
            demo["dones"] = (np.arange(one.steps) == one.steps - 1).astype(np.int64)
            demo["states"] = one.states[:-1]
            demo["obs/robot0_eef_pos"] = one.states[:-1]
            demo["obs/object"] = one.goal[:-1]
            demo["obs/agentview_image"] = np.zeros((one.steps, 4, 4, 3), np.uint8)
            demo["next_obs/robot0_eef_pos"] = one.states[1:]
            demo["next_obs/object"] = one.goal[1:]
        file["mask/train"] = np.array([f"demo_{number}".encode() for number in (0, 2, 10)])
    return path


def d4rl(path: Path, episodes: list[Recorded] | None = None, **changes: Any) -> Path:
    """D4RL's flat file: successes are terminals, other ends are timeouts. gzip, rewards [N, 1], strings in metadata."""
    episodes = [cut_after_success(one) for one in episodes or record(scale=1.0)]
    last = np.concatenate([np.arange(one.steps) == one.steps - 1 for one in episodes])
    success = np.concatenate([one.success for one in episodes])
    arrays: dict[str, Any] = {
        "observations": np.concatenate([one.states[:-1] for one in episodes]).astype(np.float32),
        "actions": np.concatenate([one.actions for one in episodes]).astype(np.float32),
        "rewards": np.where(success, 0.0, -1.0)[:, None],
        "terminals": success,
        "timeouts": last & ~success,
        "infos/goal": np.concatenate([one.goal[:-1] for one in episodes]),
    }
    arrays |= changes
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file.create_dataset(name, data=array, compression="gzip")
        file["metadata/algorithm"] = "SAC"
    return path


def cut_after_success(one: Recorded) -> Recorded:
    """An episode up to its first success."""
    steps = int(one.success.argmax()) + 1 if one.success.any() else one.steps
    return Recorded(one.states[: steps + 1], one.goal[: steps + 1], one.actions[:steps], one.success[:steps])


# Minari.


def minari_spaces(scale: float) -> dict[str, str]:
    """Spaces as metadata.json has them: texts of JSON."""
    box = {"type": "Box", "dtype": "float64"}
    observed = {
        name: box | {"shape": [width], "low": [-1e9] * width, "high": [1e9] * width}
        for name, width in (("state", 3), ("goal", 2))
    }
    acted = box | {"shape": [2], "low": [-scale] * 2, "high": [scale] * 2}
    return {"observation_space": json.dumps({"type": "Dict", "subspaces": observed}), "action_space": json.dumps(acted)}


def minari(
    folder: Path, kind: str, episodes: list[Recorded] | None = None, scale: float = 90.0, **changes: Any
) -> Path:
    """A dataset's folder, stored as hdf5, arrow or parquet."""
    episodes = [cut_after_success(one) for one in episodes or record()]
    data = folder / "data"
    data.mkdir(parents=True)
    content = {"data_format": kind, "dataset_id": "mine/reach-v0", "total_episodes": len(episodes)}
    content |= minari_spaces(scale) | changes
    (data / "metadata.json").write_text(
        json.dumps({name: value for name, value in content.items() if value is not None})
    )
    for number, one in enumerate(episodes):
        flags = {"terminations": one.success, "truncations": (np.arange(one.steps) == one.steps - 1) & ~one.success}
        rewards = np.where(one.success, 0, -1)
        if kind == "hdf5":
            with h5py.File(data / "main_data.hdf5", "a") as file:
                group = file.create_group(f"episode_{number}")
                group.attrs["id"] = number
                group["observations/state"], group["observations/goal"] = one.states, one.goal
                group["actions"], group["rewards"] = one.actions, rewards
                group["terminations"], group["truncations"] = flags["terminations"], flags["truncations"]
                group["infos/success"] = np.append(False, one.success)
            continue
        observed = pa.StructArray.from_arrays(
            [fixed(one.goal, pa.float64()), fixed(one.states, pa.float64())], names=["goal", "state"]
        )
        columns = {"observations": observed, "actions": fixed(np.pad(one.actions, ((0, 1), (0, 0))), pa.float64())}
        columns |= {name: pa.array(np.append(flag, False)) for name, flag in flags.items()}
        columns["rewards"] = pa.array(np.append(rewards, 0))
        (data / str(number)).mkdir()
        table = pa.table(columns)
        if kind == "parquet":
            pq.write_table(table, data / str(number) / "part-0.parquet")
        else:
            with (
                pa.OSFile(str(data / str(number) / "part-0.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as out,
            ):
                out.write_table(table)
        (data / str(number) / "metadata.json").write_text(json.dumps({"id": number, "total_steps": one.steps}))
    return folder


def named(path: Path, episodes: list[Recorded] | None = None) -> Path:
    """An npz file with names of its own."""
    episodes = [cut_after_success(one) for one in episodes or record()]
    success = np.concatenate([one.success for one in episodes])
    last = np.concatenate([np.arange(one.steps) == one.steps - 1 for one in episodes])
    np.savez(
        path,
        qpos=np.concatenate([one.states[:-1] for one in episodes]),
        target=np.concatenate([one.goal[:-1] for one in episodes]),
        ctrl=np.concatenate([one.actions for one in episodes]),
        cost=np.where(success, 0.0, -1.0),
        terminals=success,
        timeouts=last & ~success,
    )
    return path


# All of them, as the tutorial names them.


def write_all(folder: Path, reach: str) -> None:
    """The files that docs/tutorials/import-recordings.md imports, and its program `reach`."""
    lerobot_v30(folder / "arm")
    lines = [f"{number},{number % 3 == 0:d}" for number in range(EPISODES)]
    (folder / "labels.csv").write_text("\n".join(["episode,success", *lines, ""]))
    minari(folder / "minari/mine/reach-v0", "parquet")
    (folder / "reach.py").write_text(reach)
    robomimic(folder / "lift.hdf5")
    robomimic(folder / "lift-2.hdf5")
    d4rl(folder / "hopper.hdf5")
    named(folder / "own.npz")
