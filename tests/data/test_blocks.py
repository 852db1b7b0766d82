"""Data larger than memory: the blocks are the data, visited evenly, and a run on them resumes to the bit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from conftest import DATASET, TINY, user_arrays
from evor.agents.qc import Qc
from evor.data.blocks import SLACK, cut
from evor.data.store import CACHE
from evor.errors import EvorError
from evor.nn.objectives import MonteCarlo
from evor.policies.load import load
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import open_data, prepare
from evor.training.train import train

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


def one_episode(rows, seed, finishes=False):
    """A file of one episode, cut or finished at its last row."""
    last = np.arange(rows) == rows - 1
    return user_arrays(rows, seed, terminations=last & finishes, truncations=last & (not finishes))


def config(folder, **changes):
    return RunConfig(data=str(folder), **({"updates": 20, "checkpoint_every": 5, "agent": TINY} | changes))


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
        rows = np.asarray(columns.sampled_rows)[: int(columns.count)]
        ends = np.asarray(columns.bootstrap)[rows]
        fields = [columns.observations[rows], columns.actions[rows], columns.observations[ends]]
        tasks = [
            c[:, rows].T
            for c in (columns.rewards, columns.discounts, columns.weights, columns.rewards_to_go)
            if c is not None
        ]
        return np.concatenate([np.asarray(part) for part in fields + tasks], axis=1)

    found = np.concatenate([drawable(blocks._read(index)) for index in range(len(blocks.blocks))])
    np.testing.assert_allclose(found, drawable(whole.all_columns), atol=1e-5)


def test_changes_of_blocks_follow_one_another(shards):
    blocks = open_data(config(shards, memory_gb=MEMORY_GB))
    before = np.asarray(blocks.columns(0).rewards)
    doubled = blocks.changed(lambda index, columns: columns._replace(rewards=2 * columns.rewards))
    both = doubled.changed(lambda index, columns: columns._replace(rewards=columns.rewards + index + 1))
    np.testing.assert_array_equal(both.columns(0).rewards, 2 * before + blocks.schedule(0)[0] + 1)
    np.testing.assert_array_equal(doubled.columns(0).rewards, 2 * before)


def test_a_lap_visits_every_block_for_its_share_and_orders_differ(shards):
    """Two rows a step, and a lap is all rows: steps of many laps, to a step or two at the ends."""
    blocks = open_data(config(shards, memory_gb=MEMORY_GB, agent=replace(TINY, batch_size=2)))
    lap = blocks.num_rows // 2
    first, second = ([blocks.schedule(step)[0] for step in range(start, start + lap)] for start in (0, lap))
    counts = np.array([block.count for block in blocks.blocks])
    for visits in (first, second):
        np.testing.assert_allclose(np.bincount(visits, minlength=len(counts)), counts / 2, atol=1.5)
    assert first != second
    for step in (0, 3, lap - 1, lap + 5):
        index, stays = blocks.schedule(step)
        assert all(blocks.schedule(step + ahead)[0] == index for ahead in range(stays))
        assert blocks.schedule(step + stays - 1)[1] == 1


def test_visits_are_shorter_than_drawing_a_block_once(shards):
    """Of blocks of 78 rows one at a time: seven visits of eleven updates before its rows are all drawn."""
    blocks = open_data(config(shards, memory_gb=2 * MEMORY_GB, agent=replace(TINY, batch_size=1)))
    counts = np.array([block.count for block in blocks.blocks])
    laps = counts.min() // 10
    assert laps > 1
    lap = blocks.num_rows // laps
    seen = np.bincount([blocks.schedule(step)[0] for step in range(lap)])
    np.testing.assert_allclose(seen, counts / laps, atol=1.5)
    assert seen.min() >= 9


@pytest.mark.parametrize("batch_size", [1, 7, 50, pytest.param(500, marks=pytest.mark.slow)])
def test_rows_are_equally_likely_also_where_a_batch_leaps_over_blocks(tmp_path, batch_size):
    """Files of one episode, of 12 or of 120 rows: blocks of other sizes, and batches below and above them."""
    for index, rows in enumerate([120, 120, *[12] * 20]):
        np.savez(tmp_path / f"{index:02}.npz", **one_episode(rows, index))
    agent = replace(TINY, batch_size=batch_size)
    blocks = open_data(config(tmp_path, memory_gb=1.8e-5, agent=agent))
    counts = np.array([block.count for block in blocks.blocks])
    assert counts.min() < 40 < 100 < counts.max()
    seen = np.zeros(len(counts))
    steps = 0
    while steps < 8000:
        index, stays = blocks.schedule(steps)
        seen[index] += stays
        steps += stays
    np.testing.assert_allclose(seen / steps, counts / counts.sum(), atol=0.015)


def test_a_run_on_blocks_resumes_to_the_bit_and_lays_out_once(shards, tmp_path):
    run = config(shards, memory_gb=MEMORY_GB)
    train(run, tmp_path / "whole-run")
    stamps = {path: path.stat().st_mtime_ns for path in (shards / CACHE).glob("*/*")}
    assert stamps
    train(dataclasses.replace(run, updates=20), tmp_path / "cut-run")
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
    run = RunConfig(dataset=DATASET, data=str(folder), memory_gb=0.0007, tasks=(1, 4), agent=TINY)
    blocks = open_data(run)
    alone, _ = prepare(run, open_episodes(run, data_folder))
    assert blocks.num_rows == 2 * len(alone.sampled_rows)
    assert len(blocks.blocks) > 2
    twice = np.concatenate([alone.rewards, alone.rewards], axis=1)
    for block, description in zip(map(blocks._read, range(len(blocks.blocks))), blocks.blocks, strict=True):
        part = slice(description.start, description.end)
        np.testing.assert_allclose(block.rewards[:, : description.end - description.start], twice[:, part], atol=1e-5)


def open_episodes(run, folder):
    from evor.training.data import load_episodes

    return load_episodes(dataclasses.replace(run, data=str(folder), memory_gb=None))


def test_a_cap_too_small_for_an_episode_names_the_smallest_that_is_not(shards):
    with pytest.raises(EvorError, match=r"memory_gb 1e-07 holds 0 rows.*give at least"):
        open_data(config(shards, memory_gb=1e-7))
    with pytest.raises(EvorError, match="memory_gb is 0"):
        config(shards, memory_gb=0.0)


@pytest.mark.parametrize("lengths", [[10] * 1000 + [1000] * 10, [1000] * 10 + [10] * 1000, [7] * 999])
def test_blocks_are_cut_by_rows_however_long_the_episodes(lengths):
    starts, most = np.append(0, np.cumsum(lengths)), 1000
    edges = cut(starts, most)
    assert edges[0] == 0
    assert edges[-1] == sum(lengths)
    assert np.isin(edges, starts).all()
    sizes = np.diff(edges)
    assert sizes.max() <= SLACK * most
    assert sizes.min() > 0
    assert np.median(sizes) > 0.8 * most


def test_a_shard_half_laid_out_is_laid_out_again(shards):
    blocks = open_data(config(shards, memory_gb=MEMORY_GB))
    folder = next(path for path in (shards / CACHE).iterdir() if path.is_dir())
    content = (folder / "shard.json").read_text()
    (folder / "shard.json").unlink()
    again = open_data(config(shards, memory_gb=MEMORY_GB))
    assert again.digest == blocks.digest
    assert json.loads((folder / "shard.json").read_text()) == json.loads(content)
