"""Imports of every format, compared value by value with what was recorded and with plain readings of the same files."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recordings
from evor.cli.main import main
from evor.data.formats.npz import read_episodes
from evor.runtime.parallel import Local
from recordings import cut_after_success, record


def run(*words, out) -> dict:
    """Import; the content of import.json."""
    assert main(["data", "import", *map(str, words), "--out", str(out), "--quiet"]) == 0
    return json.loads((out / "import.json").read_text())


def rows(out) -> dict[str, np.ndarray]:
    """All arrays of the shards, end to end."""
    shards = [dict(np.load(path)) for path in sorted(out.glob("shard-*.npz"))]
    return {
        name: shards[0][name] if name.startswith("action_") else np.concatenate([shard[name] for shard in shards])
        for name in shards[0]
    }


def check(there, episodes, *, observations, rewards, following=None) -> None:
    """Compare arrays with episodes that end at their first success; others are cut."""
    wanted = [cut_after_success(one) for one in episodes]

    def whole(of_one):
        return np.concatenate([of_one(one) for one in wanted]).astype(np.float32)

    np.testing.assert_array_equal(there["observations"], whole(observations))
    np.testing.assert_array_equal(there["actions"], whole(lambda one: one.actions))
    np.testing.assert_array_equal(there["rewards"], whole(rewards))
    np.testing.assert_array_equal(there["terminations"], whole(lambda one: one.success))
    last = whole(lambda one: np.arange(one.steps) == one.steps - 1) == 1
    np.testing.assert_array_equal(there["truncations"], last & ~there["terminations"])
    assert ("next_observations" in there) == (following is not None)
    if following is not None:
        np.testing.assert_array_equal(there["next_observations"], whole(following))


def minus_one(one):
    return np.where(one.success, 0, -1)


@pytest.mark.parametrize("write", [recordings.lerobot_v30, recordings.lerobot_v21], ids=["v3.0", "v2.1"])
def test_lerobot(tmp_path, write):
    source, out = write(tmp_path / "arm"), tmp_path / "out"
    content = run(source, "--success", "column:next.success", "--reward", "steps", out=out)
    there, episodes = rows(out), record()
    check(there, episodes, observations=lambda one: one.states[:-1], rewards=minus_one)
    # Independently: the files through pandas-like plain pyarrow, in the order of their index.
    plain = [pq.read_table(path) for path in sorted(source.glob("data/*/*.parquet"))]
    actions = np.concatenate([np.array(table["action"].to_pylist(), np.float32) for table in plain])
    np.testing.assert_array_equal(there["action_low"], actions.min(axis=0))
    np.testing.assert_array_equal(there["action_high"], actions.max(axis=0))
    assert content["observations"] == [["observation.state", 3]]
    assert content["actions"] == {"key": "action", "names": ["shoulder", "elbow"]}
    assert content["units"]["origin"] == "of all data"
    assert content["sources"][0]["not_read"] == ["observation.images.front"]
    assert content["counts"]["episodes"] == 12
    assert content["counts"]["finished_episodes"] == 6
    assert content["counts"]["dropped_rows"] == 12
    assert "next.success is 1" in content["labels"]


def test_robomimic(tmp_path):
    source, out = recordings.robomimic(tmp_path / "lift.hdf5"), tmp_path / "out"
    content = run(source, "--success", "reward", out=out)

    def seen(states):
        return lambda one: np.concatenate([one.goal[states], one.states[states]], axis=1)

    check(
        rows(out),
        record(scale=1.0),
        observations=seen(slice(None, -1)),
        following=seen(slice(1, None)),
        rewards=lambda one: one.success,
    )
    assert content["observations"] == [["object", 2], ["robot0_eef_pos", 3]]
    assert content["sources"][0]["not_read"] == ["agentview_image"]
    assert content["units"] == {"action_low": [-1, -1], "action_high": [1, 1], "origin": "declared by the format"}
    with h5py.File(source) as file:
        np.testing.assert_array_equal(rows(out)["actions"][:6], file["data/demo_0/actions"][:6].astype(np.float32))


def test_a_mask_chooses_demonstrations_in_the_order_of_their_numbers(tmp_path):
    source, out = recordings.robomimic(tmp_path / "lift.hdf5"), tmp_path / "out"
    run(source, "--success", "none", "--mask", "train", out=out)
    episodes = [record(scale=1.0)[number] for number in (0, 2, 10)]
    np.testing.assert_array_equal(
        rows(out)["actions"], np.concatenate([one.actions for one in episodes]).astype(np.float32)
    )
    assert not rows(out)["terminations"].any()


@pytest.mark.parametrize("write", [recordings.lerobot_v30, recordings.lerobot_v21], ids=["v3.0", "v2.1"])
def test_episodes_are_held_out_in_the_same_bounds(tmp_path, write, capsys):
    """Two imports of some episodes each are the import of all, and one file labels both."""
    source, csv = write(tmp_path / "arm"), tmp_path / "labels.csv"
    csv.write_text("\n".join(["episode,success", *(f"{number},{number % 2}" for number in range(12))]))
    words = [source, "--success", f"file:{csv}", "--reward", "steps"]
    whole = run(*words, out=tmp_path / "whole")
    first = run(*words, "--episodes", ":7", out=tmp_path / "first")
    last = run(*words, "--episodes", "7:40", out=tmp_path / "last")
    assert main(["data", "import", *map(str, words), "--episodes", "7:40", "--out", str(tmp_path / "last")]) == 0
    assert ", 5 episodes of 12\n" in capsys.readouterr().err
    assert first["counts"]["episodes"] == 7
    assert first["units"] == last["units"] == whole["units"]
    assert "episodes" not in whole["request"]  # as before there was a choice
    parts = rows(tmp_path / "first"), rows(tmp_path / "last")
    for name, array in rows(tmp_path / "whole").items():
        if not name.startswith("action_"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
    for given, sentence in (
        ("12:", "has 12 episodes, and none of them is in"),
        ("5", "give FROM:TO"),
        ("7:7", "give FROM:TO"),
    ):
        assert main(["data", "import", *map(str, words), "--episodes", given, "--out", str(tmp_path / "none")]) == 2
        assert sentence in capsys.readouterr().err


def test_labels_that_were_corrected_are_another_import(tmp_path, monkeypatch, capsys):
    """Also where an import that read the old ones was interrupted: old and new labels are never mixed."""
    from evor.data import shards

    monkeypatch.setattr(shards, "MOST_ROWS", 30)
    source, csv, out = recordings.robomimic(tmp_path / "lift.hdf5"), tmp_path / "labels.csv", tmp_path / "out"
    words = ["data", "import", str(source), "--success", f"file:{csv}"]

    def label_all(success):
        csv.write_text("\n".join(["episode,success", *(f"demo_{number},{success}" for number in range(12))]))

    label_all(0)
    assert main([*words, "--out", str(out)]) == 0
    assert json.loads((out / "import.json").read_text())["files"][-1]["file"] == str(csv)
    write = shards.Shard.write

    def interrupted(self, path):
        if path.name.endswith("1.npz"):
            raise KeyboardInterrupt
        write(self, path)

    monkeypatch.setattr(shards.Shard, "write", interrupted)
    assert main([*words, "--out", str(tmp_path / "again")]) == 130
    monkeypatch.setattr(shards.Shard, "write", write)
    label_all(1)
    assert main([*words, "--out", str(out)]) == 2
    assert "holds another import" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    assert rows(tmp_path / "again")["terminations"].sum() == 12


def test_masks_have_the_bounds_of_all_demonstrations(tmp_path):
    """Where the format declares none: what is held out is in the units of what is trained on."""
    source, units = recordings.robomimic(tmp_path / "lift.hdf5"), []
    with h5py.File(source, "a") as file:
        recorded = [one.actions * 100 for one in record(scale=1.0)]
        for number, actions in enumerate(recorded[:11]):  # the last has none, and is in no mask
            file[f"data/demo_{number}/abs"] = actions
        file["mask/valid"] = np.array([b"demo_1", b"demo_3"])
    for mask in ("train", "valid"):
        words = ["--success", "none", "--mask", mask, "--action-key", "abs"]
        units.append(run(source, *words, out=tmp_path / mask)["units"])
    assert units[0] == units[1]
    np.testing.assert_allclose(units[0]["action_low"], np.concatenate(recorded[:11]).min(axis=0), rtol=1e-6)
    assert np.concatenate([recorded[number] for number in (0, 2, 10)]).min() > min(units[0]["action_low"])


def test_one_file_labels_all_masks(tmp_path):
    source, csv = recordings.robomimic(tmp_path / "lift.hdf5"), tmp_path / "labels.csv"
    csv.write_text("\n".join(["episode,success", *(f"demo_{number},1" for number in range(12))]))
    assert (
        run(source, "--success", f"file:{csv}", "--mask", "train", out=tmp_path / "out")["counts"]["finished_episodes"]
        == 3
    )


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_minari(tmp_path, kind, monkeypatch):
    recordings.minari(tmp_path / "root/mine/reach-v0", kind)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    out = tmp_path / "out"
    content = run("mine/reach-v0", out=out)

    def seen(states):
        return lambda one: np.concatenate([one.goal[states], one.states[states]], axis=1)

    check(
        rows(out),
        record(),
        observations=seen(slice(None, -1)),
        following=seen(slice(1, None)),
        rewards=minus_one,
    )
    assert content["observations"] == [["goal", 2], ["state", 3]]  # as gymnasium flattens a Dict
    assert content["units"] == {"action_low": [-90, -90], "action_high": [90, 90], "origin": "declared by the format"}
    assert content["labels"] == "rewards: the column rewards; terminations: the recording's own terminations"


@pytest.mark.parametrize("kind", ["hdf5", "parquet"])
def test_entries_of_a_minari_tuple_have_the_names_that_a_policy_takes(tmp_path, kind):
    """Tuple(state, Dict(goal)): HDF5 calls its entries _index_0 and _index_1, parquet 0 and 1."""
    boxes = json.loads(recordings.minari_spaces(90)["observation_space"])["subspaces"]
    inner = {"type": "Dict", "subspaces": {"goal": boxes["goal"]}}
    space = json.dumps({"type": "Tuple", "subspaces": [boxes["state"], inner]})
    source = recordings.minari(tmp_path / "reach-v0", kind, observation_space=space)
    if kind == "hdf5":
        with h5py.File(source / "data/main_data.hdf5", "a") as file:
            for group in file.values():
                group.move("observations/state", "observations/_index_0")
                group.move("observations/goal", "observations/_index_1/goal")
    for path in source.glob("data/*/part-0.parquet"):
        table = pq.read_table(path)
        seen = table["observations"].combine_chunks()
        goal = pa.StructArray.from_arrays([seen.field("goal")], names=["goal"])
        tuples = pa.StructArray.from_arrays([seen.field("state"), goal], names=["0", "1"])
        pq.write_table(table.set_column(0, "observations", tuples), path)
    content = run(source, out=tmp_path / "out")
    assert content["observations"] == [["_index_0", 3], ["_index_1/goal", 2]]
    seen = np.concatenate([np.hstack([one.states, one.goal])[:-1] for one in map(cut_after_success, record())])
    np.testing.assert_array_equal(rows(tmp_path / "out")["observations"], seen.astype(np.float32))


def test_d4rl(tmp_path):
    source, out = recordings.d4rl(tmp_path / "hopper.hdf5"), tmp_path / "out"
    run(source, out=out)
    check(rows(out), record(scale=1.0), observations=lambda one: one.states[:-1], rewards=minus_one)
    run(source, "--observation-keys", "infos/goal", "observations", out=tmp_path / "both")
    check(
        rows(tmp_path / "both"),
        record(scale=1.0),
        observations=lambda one: np.concatenate([one.goal[:-1], one.states[:-1]], axis=1),
        rewards=minus_one,
    )


def test_npz_with_other_names(tmp_path):
    source, out = recordings.named(tmp_path / "own.npz"), tmp_path / "out"
    keys = ["--observation-keys", "qpos", "target", "--action-key", "ctrl", "--reward", "cost"]
    content = run(source, *keys, out=out)
    check(
        rows(out),
        record(),
        observations=lambda one: np.concatenate([one.states[:-1], one.goal[:-1]], axis=1),
        rewards=minus_one,
    )
    assert content["units"]["origin"] == "of all data"


def test_npz_that_holds_bounds_keeps_them(tmp_path, capsys):
    """So do the records of a server, which are imported for their labels."""
    run(recordings.lerobot_v30(tmp_path / "arm"), "--success", "all", "--reward", "steps", out=tmp_path / "one")
    shard, rule = tmp_path / "one/shard-00000.npz", ["--success", "none", "--reward", "none"]
    arrays = dict(np.load(shard)) | {"action_low": np.full(2, -180.0), "action_high": np.full(2, 200.5)}
    np.savez(tmp_path / "wide.npz", **arrays)
    content = run(tmp_path / "wide.npz", *rule, out=tmp_path / "two")
    assert content["units"] == {
        "action_low": [-180, -180],
        "action_high": [200.5, 200.5],
        "origin": "declared by the format",
    }
    assert rows(tmp_path / "two")["action_low"].tolist() == [-180, -180]
    assert (
        run(tmp_path / "wide.npz", "--action-low", -90, "--action-high", 90, *rule, out=tmp_path / "three")["units"][
            "origin"
        ]
        == "given"
    )
    np.savez(tmp_path / "odd.npz", **arrays | {"action_high": np.full(3, 200.5), "action_low": np.zeros(3)})
    assert main(["data", "import", str(tmp_path / "odd.npz"), *rule, "--out", str(tmp_path / "four")]) == 2
    assert "actions have 2 columns, action_low and action_high 3" in capsys.readouterr().err


def test_what_is_imported_reads_as_data_of_ones_own(tmp_path):
    run(recordings.lerobot_v30(tmp_path / "arm"), "--success", "all", "--reward", "steps", out=tmp_path / "out")
    episodes = read_episodes(tmp_path / "out/shard-00000.npz").episodes
    assert int(episodes.ends.sum()) == 12
    assert (episodes.masks[0] == 0).sum() == 12
    assert max(episodes.action_bounds.high) > 80


def test_several_sources_and_many_shards_are_the_same_rows(tmp_path, monkeypatch):
    first, second = (recordings.robomimic(tmp_path / f"{name}.hdf5") for name in "ab")
    monkeypatch.setattr("evor.data.shards.MOST_ROWS", 30)
    content = run(first, second, "--success", "none", out=tmp_path / "out")
    steps = sum(one.steps for one in record())
    assert content["shards"] == len(list((tmp_path / "out").glob("shard-*.npz"))) > 8
    assert content["counts"]["rows"] == 2 * steps
    there = rows(tmp_path / "out")
    np.testing.assert_array_equal(there["actions"][:steps], there["actions"][steps:])
    assert int(there["truncations"].sum()) == 24


def test_an_episode_longer_than_a_shard_is_cut_there(tmp_path, monkeypatch):
    monkeypatch.setattr("evor.data.shards.MOST_ROWS", 7)
    source = recordings.minari(tmp_path / "reach-v0", "hdf5")
    run(source, "--success", "none", out=tmp_path / "out")
    there = rows(tmp_path / "out")
    check_rows = np.concatenate([cut_after_success(one).actions for one in record()])
    np.testing.assert_array_equal(there["actions"], check_rows.astype(np.float32))
    assert there["truncations"].sum() > 12
    shards = [np.load(path) for path in sorted((tmp_path / "out").glob("*.npz"))]
    assert all(shard["truncations"][-1] and len(shard["actions"]) <= 7 for shard in shards)


def test_an_interrupted_import_goes_on_to_the_same_files(tmp_path, monkeypatch):
    from evor.data import shards

    monkeypatch.setattr(shards, "MOST_ROWS", 30)
    source = recordings.lerobot_v30(tmp_path / "arm")
    words = [source, "--success", "column:next.success", "--reward", "steps"]
    whole = run(*words, out=tmp_path / "whole")
    write, written = shards.Shard.write, []

    def interrupted(self, path):
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, path)
        written.append(path.name)

    monkeypatch.setattr(shards.Shard, "write", interrupted)
    assert main(["data", "import", *map(str, words), "--out", str(tmp_path / "out")]) == 130
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(shards.Shard, "write", write)
    again = run(*words, out=tmp_path / "out")
    assert again["counts"] == whole["counts"]
    for path in sorted((tmp_path / "whole").glob("*.npz")):
        assert path.read_bytes()[100:] is not None
        one, other = np.load(path), np.load(tmp_path / "out" / path.name)
        assert all((one[name] == other[name]).all() for name in one.files)
    assert not (tmp_path / ".out.import").exists()
    assert run(*words, out=tmp_path / "out") == again  # nothing is done twice


@pytest.mark.parametrize("is_there", [False, True])
def test_an_import_goes_where_a_link_leads(tmp_path, is_there):
    """As to a larger disk. It is the same import again, and the link stays."""
    source, target, out = recordings.d4rl(tmp_path / "hopper.hdf5"), tmp_path / "large/disk", tmp_path / "out"
    if is_there:
        target.mkdir(parents=True)
    out.symlink_to(target)
    first = run(source, out=out)
    assert (target / "import.json").is_file()
    assert out.is_symlink()
    assert run(source, out=out) == first
    assert {path.name for path in tmp_path.rglob(".*")} == set()


def test_a_mounted_volume_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(type(out), "is_mount", lambda path: path == out)
    assert main(["data", "import", str(recordings.d4rl(tmp_path / "hopper.hdf5")), "--out", str(out)]) == 2
    assert f"{out} is a mounted volume, which can't be replaced; choose a folder inside it" in capsys.readouterr().err
    assert not (tmp_path / ".out.import").exists()


def test_the_checksum_is_that_of_the_whole_file(tmp_path):
    source = recordings.d4rl(tmp_path / "hopper.hdf5")
    (file,) = run(source, out=tmp_path / "out")["files"]
    assert file["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert file["bytes"] == source.stat().st_size


def test_a_source_that_is_written_again_is_the_same_import_only_where_its_bytes_are(tmp_path, capsys):
    source, out = recordings.d4rl(tmp_path / "hopper.hdf5"), tmp_path / "out"
    first = run(source, out=out)
    os.utime(source, ns=(0, 0))
    assert run(source, out=out) == first  # a copy of another time
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    source.write_bytes(content)
    assert main(["data", "import", str(source), "--out", str(out)]) == 2
    assert "holds another import" in capsys.readouterr().err


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, capsys):
    from evor.data import shards

    source, write = recordings.d4rl(tmp_path / "hopper.hdf5"), shards.Shard.write

    def touched(self, path):
        write(self, path)
        os.utime(source, ns=(0, 0))

    monkeypatch.setattr(shards.Shard, "write", touched)
    assert main(["data", "import", str(source), "--out", str(tmp_path / "out")]) == 2
    assert f"{source} was changed while it was imported; run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(shards.Shard, "write", write)
    run(source, out=tmp_path / "out")


def _libero(demo, one):
    """LIBERO: images called rgb, the robot's state beside the observations."""
    demo["obs/agentview_rgb"] = np.zeros((one.steps, 8, 8, 3), np.uint8)
    demo["robot_states"] = one.states[:-1]


def _mimicgen(demo, one):
    """mimicgen: what its generation knew."""
    demo["datagen_info/eef_pose"] = np.zeros((one.steps, 4, 4))
    demo["datagen_info/object_poses/cube"] = np.zeros((one.steps, 4, 4))
    demo["src_demo_inds"] = np.zeros(one.steps, np.int64)


def _robocasa(demo, one):
    """robocasa: absolute actions, actions by part, rewards of 0."""
    demo["actions_abs"] = 90 * one.actions
    demo["action_dict/rel_pos"] = one.actions
    demo["rewards"][:] = 0
    demo.attrs["ep_meta"] = "{}"


@pytest.mark.parametrize("add", [_libero, _mimicgen, _robocasa])
def test_files_of_robomimics_skeleton_are_read_alike(tmp_path, add):
    episodes = record(scale=1.0)
    plain, source = recordings.robomimic(tmp_path / "plain.hdf5"), recordings.robomimic(tmp_path / "other.hdf5")
    with h5py.File(source, "a") as file:
        for number, one in enumerate(episodes):
            add(file[f"data/demo_{number}"], one)
        if add is not _robocasa:
            del file["mask"]
    words = ["--success", "all", "--reward", "steps"]
    run(plain, *words, out=tmp_path / "plain")
    content = run(source, *words, out=tmp_path / "out")
    wanted, there = rows(tmp_path / "plain"), rows(tmp_path / "out")
    assert wanted.keys() == there.keys()
    assert all((there[name] == wanted[name]).all() for name in wanted)
    assert content["observations"] == [["object", 2], ["robot0_eef_pos", 3]]
    if add is _robocasa:
        content = run(source, *words, "--action-key", "actions_abs", out=tmp_path / "absolute")
        np.testing.assert_array_equal(
            rows(tmp_path / "absolute")["actions"], np.concatenate([90 * one.actions for one in episodes]).astype("f4")
        )
        assert content["units"]["origin"] == "of all data"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Three sources of several shards each, and what one process makes of them."""
    monkeypatch.setattr("evor.data.shards.MOST_ROWS", 30)
    monkeypatch.chdir(tmp_path)
    episodes = record()
    recordings.lerobot_v30(tmp_path / "arm", episodes)
    recordings.lerobot_v21(tmp_path / "more", episodes[:3])
    recordings.lerobot_v30(tmp_path / "last", episodes[2:])
    words = ["arm", "more", "last", "--success", "column:next.success", "--reward", "steps"]
    run(*words, out=tmp_path / "whole")
    return words, contents(tmp_path / "whole")


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_job_per_source_in_any_order_makes_the_same_files(sources, tmp_path, monkeypatch):
    words, whole = sources
    assert len(whole) > 6

    def backwards(function, jobs, machines, *, shared):
        assert machines == Local(2)
        monkeypatch.chdir("/")  # another machine's working folder
        yield from [function(*job) for job in reversed(jobs)]
        monkeypatch.chdir(tmp_path)

    monkeypatch.setattr("evor.data.importing.parallel_map", backwards)
    run(*words, "--workers", "2", out=tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("moment", ["rename", "rmtree"])
def test_an_import_that_is_interrupted_at_its_end_is_whole(sources, tmp_path, monkeypatch, moment):
    """While shards get their numbers, and while what is needed no more is removed."""
    words, whole = sources
    owner, name = (Path, "rename") if moment == "rename" else (shutil, "rmtree")
    usual, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        assert main(["data", "import", *words, "--out", str(tmp_path / "out"), "--quiet"]) == 130
    monkeypatch.setattr("evor.data.shards.Shard.write", None)  # nothing is written again
    run(*words, out=tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.slow
def test_two_processes_import_what_one_does(sources, tmp_path, monkeypatch):
    words, _ = sources
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run(*words, out=tmp_path / "one")
    run(*words, "--workers", "2", out=tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
