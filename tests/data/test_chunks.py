"""Chunks of episodes: what comes of them is, to the bit, what comes of whole arrays."""

import tracemalloc

import numpy as np
import pytest

from episodes import data_spec, lay, random_episodes
from evor.data import chunks as chunking
from evor.data.chunks import add_in_pairs, add_rows, chunks
from evor.data.columns import lay_out
from evor.data.load import join
from evor.data.returns import Clock, Extents, Returns
from evor.data.standardisation import data_statistics


def several(tasks=1, lengths=(7, 200, 31, 1, 90, 30)):
    """Episodes of these lengths, the first one cut, the next one finished, and so on."""
    parts = []
    for seed, length in enumerate(lengths):
        part = random_episodes(length=length, seed=seed)
        rewards = np.random.default_rng(seed).normal(size=(tasks, len(part.ends))).astype(np.float32)
        parts.append(
            part._replace(rewards=rewards, masks=np.repeat(part.masks, tasks, axis=0), tasks=tuple(range(tasks)))
        )
    return join(parts)


@pytest.mark.parametrize("rows", [1, 50, 200, 10**6])
def test_chunks_are_whole_episodes_end_to_end(rows, monkeypatch):
    monkeypatch.setattr(chunking, "ROWS", rows)
    episodes = several()
    parts = list(chunks(episodes))
    assert all(part.ends[-1] for part in parts)
    longest = int(np.diff(np.flatnonzero(episodes.ends), prepend=-1).max())
    assert max(len(part.ends) for part in parts) <= max(rows, longest)
    assert (len(parts) == 1) == (rows >= len(episodes.ends))
    for mine, theirs in zip(join(parts)[:7], episodes[:7], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("width", [1, 2, 5, 37])
@pytest.mark.parametrize("count", [1, 7, 128, 129, 4097, 30_001])
def test_sums_of_blocks_are_numpys_of_the_whole(width, count):
    """Both orders in which numpy adds, however the rows are cut into blocks."""
    rows = np.random.default_rng(0).normal(size=(count, width))
    edges = np.sort(np.random.default_rng(1).integers(0, count, 5))
    sides, columns = np.split(rows, edges), np.ascontiguousarray(rows.T)
    if width > 1:
        np.testing.assert_array_equal(add_rows(part.T for part in sides), rows.T.sum(axis=1))
    np.testing.assert_array_equal(add_in_pairs((part.T for part in sides), count), columns.sum(axis=1))


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("discount", [0.9, 0.999])  # with the second no return is complete
def test_statistics_are_those_of_whole_arrays(tasks, discount, monkeypatch):
    monkeypatch.setattr(chunking, "ROWS", 50)
    episodes = several(tasks)
    clock = Clock.read(Extents.read(episodes))
    statistics, returns = data_statistics(episodes, discount, clock=clock), Returns.read(episodes, discount)
    rows = ~episodes.bootstrap_only
    wholes = {
        "observations": episodes.observations.astype(np.float64).T,
        "rewards": episodes.rewards[:, rows].astype(np.float64),
        "returns": returns.to_go[:, returns.complete & rows],
    }
    assert (statistics.returns.count == 0) == (discount == 0.999)
    assert (statistics.recorded.count == 0) != (discount == 0.999)
    for name, whole in wholes.items():
        found = getattr(statistics, name)
        assert found.count == whole.shape[1]
        if found.count:
            np.testing.assert_array_equal(found.mean, whole.mean(axis=1))
            np.testing.assert_array_equal(found.scatter, whole.var(axis=1) * found.count)
            np.testing.assert_array_equal(found.largest, np.abs(whole).max(axis=1))


@pytest.mark.parametrize("full_returns", [False, True])
@pytest.mark.parametrize("tasks", [1, 3])
def test_columns_do_not_depend_on_chunks(tasks, full_returns, monkeypatch):
    episodes = several(tasks)
    spec = data_spec(full_returns=full_returns, chunk_length=2)
    one = (lay_out(episodes, spec), lay(episodes, full_returns=full_returns, chunk_length=2))
    monkeypatch.setattr(chunking, "ROWS", 50)
    two = (lay_out(episodes, spec), lay(episodes, full_returns=full_returns, chunk_length=2))
    for whole, cut in zip(one, two, strict=True):
        for mine, theirs in zip(cut.columns, whole.columns, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine is None or np.asarray(mine).dtype == np.asarray(theirs).dtype
        for mine, theirs in zip(cut.statistics, whole.statistics, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("full_returns", [False, True])
def test_memory_beyond_the_columns_is_that_of_a_chunk(full_returns, monkeypatch):
    """Half of one float64 array [K, N]: nothing of the whole dataset is held in float64."""
    monkeypatch.setattr(chunking, "ROWS", 500)
    episodes = several(3, lengths=(100,) * 100)
    tracemalloc.start()
    columns = lay(episodes, full_returns=full_returns).columns
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - sum(np.asarray(array).nbytes for array in columns if array is not None) < 0.5 * 8 * 3 * len(
        episodes.ends
    )
