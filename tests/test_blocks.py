"""Data larger than memory: the blocks are the data, visited evenly, and a run on them resumes to the bit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from conftest import DATASET, TINY, user_arrays
from evor.agents.qc import Qc
from evor.config import RunConfig
from evor.data.blocks import CACHE, SHARE, Shard, _cut
from evor.errors import EvorError
from evor.run import load
from evor.source import open_data, prepare
from evor.train import train
from evor.types import DataNeeds, Spec
from evor.value import MonteCarlo

MEMORY_GB = 1e-5  # two kilobytes for a block


@pytest.fixture
def shards(tmp_path):
    """Four shards of 60 rows, of another mean each, a validation file, and the same rows in one file."""
    parts = []
    for index in range(4):
        arrays = user_arrays(seed=index)
        arrays["observations"] = arrays["observations"] + index
        arrays["rewards"] = arrays["rewards"] - 2 * index
        np.savez(tmp_path / f"part-{index}.npz", **arrays)
        parts.append(arrays)
    np.savez(tmp_path / "part-0-val.npz", **{name: array * np.nan for name, array in parts[0].items()})
    (tmp_path / "whole").mkdir()
    np.savez(tmp_path / "whole" / "whole.npz", **{n: np.concatenate([part[n] for part in parts]) for n in parts[0]})
    return tmp_path


def config(folder, **changes):
    return RunConfig(data=str(folder), **({"steps": 20, "checkpoint_every": 5, "agent": TINY} | changes))


@pytest.mark.parametrize(
    "agent", [TINY, dataclasses.replace(TINY, objective=MonteCarlo(), discount=0.5), Qc(chunk_length=2)]
)
def test_blocks_hold_every_row_once_in_the_units_of_the_whole(shards, agent):
    blocks = open_data(config(shards, memory_gb=MEMORY_GB, agent=agent))
    whole = open_data(config(shards / "whole", agent=agent))
    assert len(blocks.blocks) > 4
    assert blocks.num_rows == whole.num_rows
    for mine, theirs in zip(blocks.scale, whole.scale, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)

    def drawable(columns):
        rows = np.asarray(columns.rows)[: int(columns.count)]
        ends = np.asarray(columns.bootstrap)[rows]
        fields = [columns.observations[rows], columns.actions[rows], columns.observations[ends]]
        tasks = [
            c[:, rows].T
            for c in (columns.rewards, columns.discounts, columns.weights, columns.rewards_to_go)
            if c is not None
        ]
        return np.concatenate([np.asarray(part) for part in fields + tasks], axis=1)

    found = np.concatenate([drawable(blocks._read(index)) for index in range(len(blocks.blocks))])
    np.testing.assert_allclose(found, drawable(whole.columns), atol=1e-5)


def test_a_lap_visits_every_block_for_its_share_and_orders_differ(shards):
    blocks = open_data(config(shards, memory_gb=MEMORY_GB, agent=dataclasses.replace(TINY, batch_size=2)))
    lap = int(blocks._visits.sum())
    first, second = ([blocks.place(step)[0] for step in range(start, start + lap)] for start in (0, lap))
    counts = np.bincount(first)
    np.testing.assert_array_equal(counts, np.bincount(second))
    np.testing.assert_allclose(counts, [block.count / 2 for block in blocks.blocks], atol=0.5)
    assert first != second
    for step in (0, 3, lap - 1, lap + 5):
        index, stays = blocks.place(step)
        assert all(blocks.place(step + ahead)[0] == index for ahead in range(stays))
        assert blocks.place(step + stays - 1)[1] == 1


def test_visits_are_shorter_than_drawing_a_block_once(shards):
    """Of a block of 30 rows one at a time: three visits of ten updates before its rows are all drawn, by their number."""
    blocks = open_data(config(shards, memory_gb=3 * MEMORY_GB, agent=dataclasses.replace(TINY, batch_size=1)))
    counts = np.array([block.count for block in blocks.blocks])
    assert counts.min() >= 20
    lap = int(blocks._visits.sum())
    seen = np.bincount([blocks.place(step)[0] for step in range(lap)])
    laps = counts.min() // 10
    assert laps > 1
    np.testing.assert_allclose(seen, counts / laps, atol=0.5)
    assert seen.min() >= 10


def test_a_run_on_blocks_resumes_to_the_bit_and_lays_out_once(shards, tmp_path):
    run = config(shards, memory_gb=MEMORY_GB)
    train(run, tmp_path / "whole-run")
    stamps = {path: path.stat().st_mtime_ns for path in (shards / CACHE).glob("*/*")}
    assert stamps
    train(dataclasses.replace(run, steps=20), tmp_path / "cut-run")
    newest = sorted((tmp_path / "cut-run" / "checkpoints").iterdir())
    newest[-1].unlink()
    train(run, tmp_path / "cut-run", resume=True)
    one, two = (load(tmp_path / name)._networks for name in ("whole-run", "cut-run"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert stamps == {path: path.stat().st_mtime_ns for path in (shards / CACHE).glob("*/*")}


def test_changed_shards_are_laid_out_anew(shards):
    before = open_data(config(shards, memory_gb=MEMORY_GB))
    np.savez(shards / "part-1.npz", **user_arrays(seed=9))
    after = open_data(config(shards, memory_gb=MEMORY_GB))
    assert before.digest != after.digest


def test_shards_of_an_ogbench_set_are_relabelled_for_every_task(data_folder, tmp_path):
    """The same file twice under shard names: its columns twice."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for index in (0, 1):
        (folder / f"{DATASET}-00{index}.npz").write_bytes((data_folder / f"{DATASET}.npz").read_bytes())
    (folder / f"{DATASET}-val.npz").write_bytes((data_folder / f"{DATASET}-val.npz").read_bytes())
    run = RunConfig(DATASET, str(folder), 0.01, (1, 4), agent=TINY)
    blocks = open_data(run)
    alone, _ = prepare(run, open_episodes(run, data_folder))
    assert blocks.num_rows == 2 * len(alone.rows)
    for block, description in zip(map(blocks._read, range(len(blocks.blocks))), blocks.blocks, strict=True):
        part = slice(description.start, description.end)
        np.testing.assert_allclose(
            block.rewards[:, : description.end - description.start], alone.rewards[:, part], atol=1e-5
        )


def open_episodes(run, folder):
    from evor.source import load_episodes

    return load_episodes(dataclasses.replace(run, data=str(folder), memory_gb=None))


def test_a_cap_too_small_for_an_episode_names_the_smallest_that_is_not(shards):
    with pytest.raises(EvorError, match=r"memory_gb 1e-07 holds 0 rows.*give at least"):
        open_data(config(shards, memory_gb=1e-7))
    with pytest.raises(EvorError, match="memory_gb is 0"):
        config(shards, memory_gb=0.0)


@pytest.mark.parametrize("lengths", [[10] * 1000 + [1000] * 10, [1000] * 10 + [10] * 1000, [7] * 999])
def test_blocks_are_cut_by_rows_however_long_the_episodes(tmp_path, lengths):
    spec, needs = Spec(3, 2), DataNeeds(0.99, 20, 1, True, False, True)
    np.save(tmp_path / "starts.npy", np.append(0, np.cumsum(lengths)))
    np.save(tmp_path / "rows.npy", np.arange(sum(lengths)))
    shard = Shard(tmp_path, spec, None, None, "", (), (1,))
    most = 1000
    blocks = _cut([shard], needs, most * SHARE * 4 * (3 + 2 + 3 + 3) / 2**30 * 1.0001)
    assert [block.start for block in blocks] == [0, *(block.end for block in blocks[:-1])]
    assert blocks[-1].end == sum(lengths)
    sizes = np.array([block.end - block.start for block in blocks])
    assert sizes.max() <= 1.5 * most
    assert np.median(sizes) > 0.8 * most


def test_a_shard_half_laid_out_is_laid_out_again(shards):
    blocks = open_data(config(shards, memory_gb=MEMORY_GB))
    folder = next(path for path in (shards / CACHE).iterdir() if path.name.startswith("part-2"))
    (folder / "shard.json").unlink()
    again = open_data(config(shards, memory_gb=MEMORY_GB))
    assert again.digest == blocks.digest
    assert json.loads((folder / "shard.json").read_text())["tasks"] == [1]
