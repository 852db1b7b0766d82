"""Data that mislead: what blinds a column, what float32 loses, what is never read, and files that lie about their size."""

import io
import json
import zipfile

import numpy as np
import pytest

from conftest import DATASET, TINY, user_arrays
from evor.data import columns
from evor.data.formats.archive import read_npz
from evor.data.formats.npz import load_files, read_episodes
from evor.data.formats.ogbench import load_shard
from evor.data.outliers import find
from evor.errors import EvorError
from evor.training.config import RunConfig
from evor.training.data import load_episodes, open_data, prepare


def said(path, cap=None) -> str:
    """The notes on data, in memory or under a cap that holds 24 rows."""
    config = RunConfig(data=str(path), memory_gb=cap, agent=TINY)
    return "; ".join(open_data(config).notes)


CAPS = pytest.mark.parametrize("cap", [None, 5e-6], ids=["memory", "cap"])


# Outliers.


@CAPS
@pytest.mark.parametrize("value", [1e10, -9999.0])
def test_an_outlier_is_named_by_row_value_and_share(user_file, cap, value):
    observations = user_arrays()["observations"]
    observations[17, 2] = value
    note = said(user_file(observations=observations).parent, cap)
    assert f"observations[17, 2] is {value:g}, an outlier: 1.7 % of the values" in note
    deviations = [np.std(np.delete(observations[:, 2], rows)) for rows in ([], [17])]
    assert f"is {deviations[0]:.3g} with them and {deviations[1]:.3g} without" in note


@CAPS
def test_an_outlier_among_the_rewards(user_file, cap):
    rewards = user_arrays()["rewards"].astype(np.float64)
    rewards[30] = 1e30
    assert "rewards[30] is 1e+30, an outlier" in said(user_file(rewards=rewards).parent, cap)


@CAPS
def test_outliers_are_counted_over_files_and_named_by_theirs(user_file, cap):
    """Row 21 of the second file, before which rows were inserted; and a next observation, which is a row of its own."""
    for name, row in (("a", None), ("b", 21), ("c", None)):
        arrays = user_arrays(truncations=np.arange(60) % 20 == 19, terminations=np.zeros(60, bool))
        following = np.roll(arrays["observations"], -1, axis=0)
        if name == "c":
            following[39, 0] = -1e6
        if row is not None:
            following[row - 1, 1] = arrays["observations"][row, 1] = 1e6
        path = user_file(f"{name}.npz", **arrays, next_observations=following)
    note = said(path.parent, cap)
    assert "b.npz: observations[21, 1] is 1e+06, an outlier: 0.53 % of" in note  # one of 189 rows, 9 of them inserted
    assert "c.npz: next_observations[39, 0] is -1e+06, an outlier" in note


def test_many_columns_of_outliers_are_a_list(user_file):
    observations = np.random.default_rng(0).normal(size=(60, 6))
    observations[5] = 1e9
    note = said(user_file(observations=observations))
    assert note.count("an outlier") == 3
    assert "outliers in observation columns [3, 4, 5] too" in note


def test_rare_is_not_far(user_file):
    """A tail, a success once in a while, something that seldom moves, and far values that are many: no outliers."""
    generator = np.random.default_rng(0)
    rows, ends = 2000, np.arange(2000) % 20 == 19
    moves = np.where(
        np.arange(rows) % 200 < 8, generator.normal(size=rows).cumsum(), 1e-7 * generator.normal(size=rows)
    )
    often = np.where(generator.random(rows) < 0.1, 1e9, generator.normal(size=rows))
    columns = [generator.standard_t(3, rows), moves, often, generator.random(rows) < 0.01]
    note = said(
        user_file(
            rows=rows,
            observations=np.stack(columns, axis=1),
            rewards=np.where(ends & (np.arange(rows) < 100), 0, -1),
            terminations=ends & (np.arange(rows) < 100),
            truncations=ends & (np.arange(rows) >= 100),
        )
    )
    assert "outlier" not in note


@pytest.mark.parametrize("edges", [[], [1], [500, 501], [250, 500, 750]])
def test_outliers_do_not_depend_on_the_pieces(edges):
    table = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    table[500:503, 1] = 777
    pieces = np.split(table, edges)
    (found,) = find(lambda: pieces, 1000, low=table.min(axis=0), high=table.max(axis=0))
    assert found[:4] == (1, 500, 777.0, 0.003)
    assert found.usual == pytest.approx(np.delete(table[:, 1], slice(500, 503)).std(), rel=1e-6)
    assert found.whole == pytest.approx(table[:, 1].astype(np.float64).std(), rel=1e-6)


# float32.


@CAPS
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_values_that_float32_cannot_tell_apart_are_not_constant(user_file, cap, dtype):
    columns = np.stack([1_700_000_000 + np.arange(60), np.arange(60) % 7, np.full(60, 3)], axis=1)
    note = said(user_file(observations=columns.astype(dtype)).parent, cap)
    assert "observation column 0 goes from 1700000000 to 1700000059" in note
    assert "subtract an offset" in note
    assert "observation columns [2] are constant" in note


def test_float64_that_float32_resolves_is_only_converted(user_file):
    note = said(user_file(observations=np.random.default_rng(0).normal(1000, 1, size=(60, 3))))
    assert "converted from float64" in note
    assert "tell" not in note


@CAPS
def test_each_file_of_one_time_is_not_constant_data(tmp_path, cap):
    """A day apart float32 tells files apart, if not the rows of one."""
    for day in range(3):
        columns = user_arrays()["observations"].astype(np.float64)
        columns[:, 1] = 86400 * day + 1_700_000_000
        np.savez(tmp_path / f"{day}.npz", **user_arrays(observations=columns))
    note = said(tmp_path, cap)
    assert "constant" not in note
    assert "tell" not in note


# What is never read.


def test_nan_behind_a_finish_is_never_read(user_file):
    arrays = user_arrays()
    following = np.roll(arrays["observations"], -1, axis=0)
    wild = following.copy()
    wild[19] = np.nan  # of the row that finishes
    one, two = (read_episodes(user_file(next_observations=array)).episodes for array in (following, wild))
    for a, b in zip(one[:7], two[:7], strict=True):
        np.testing.assert_array_equal(a, b)
    wild[20] = np.nan
    with pytest.raises(EvorError, match=r"next_observations\[20, 0\] is nan, the first of 3 .*repair them") as refused:
        load_files(user_file(next_observations=wild))
    assert "remove" not in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_rewards_of_rows_that_only_bootstrap_are_never_read(user_file, value):
    rewards = user_arrays()["rewards"].astype(np.float64)
    rewards[[39, 59]] = value  # cut rows; the last one of a file is one, too
    path = user_file(rewards=rewards)
    episodes = load_files(path)
    np.testing.assert_array_equal(episodes.rewards[0, [39, 59]], 0)
    columns, scale = prepare(RunConfig(data=str(path)), episodes)
    assert np.isfinite(columns.rewards).all()
    assert np.isfinite(scale.return_mean).all()
    assert "outlier" not in "; ".join(episodes.notes)
    with pytest.raises(EvorError, match=r"rewards\[39\] is .*the first of 2"):
        load_files(user_file(rewards=rewards, next_observations=user_arrays()["observations"]))
    rewards[19] = value  # a finish is read
    with pytest.raises(EvorError, match=r"rewards\[19\] is .*the first of 1"):
        load_files(user_file(rewards=rewards))


# Odd files.


@pytest.mark.parametrize("value", [np.int8(-128), np.iinfo(np.int64).min, np.int64(-2), np.uint8(2)])
def test_integers_outside_are_refused(user_file, value):
    with pytest.raises(EvorError, match=r"actions\[0, 0\] is -?[\d.e+]+, outside \[-1, 1\]"):
        load_files(user_file(actions=np.full((60, 2), value)))


def test_end_flags_that_are_never_set_are_said(user_file, data_folder, tmp_path):
    none = np.zeros(60, bool)
    assert "terminations and truncations are 0 in every row" in said(user_file(terminations=none, truncations=none))
    assert "mark the last row of each episode in truncations" in said(user_file(terminations=none, truncations=none))
    assert "in every row" not in said(user_file())
    arrays = dict(np.load(data_folder / f"{DATASET}.npz"))
    np.savez(tmp_path / f"{DATASET}.npz", **arrays | {"terminals": np.zeros(len(arrays["terminals"]))})
    config = RunConfig(dataset=DATASET, data=str(tmp_path))
    assert any("terminals are 0 in every row" in note for note in load_episodes(config).notes)


@CAPS
def test_flags_and_rewards_that_contradict_or_tell_nothing_are_said(user_file, cap):
    ends = user_arrays()["terminations"] | user_arrays()["truncations"]
    both = said(user_file(terminations=ends, truncations=ends).parent, cap)
    assert "rows that are both terminated and truncated: 3 (they count as terminated)" in both
    assert "all rewards" not in both
    nothing = said(user_file(rewards=np.zeros(60)).parent, cap)
    assert "all rewards of task 1 are 0: a value can learn nothing from them" in nothing
    assert "both terminated" not in nothing


@CAPS
def test_actions_of_two_values_are_said(user_file, cap):
    actions = np.arange(120).reshape(60, 2) % 3 == 0
    assert "actions are 0 and 1 only" in said(user_file(actions=actions).parent, cap)
    assert "actions are" not in said(user_file(actions=actions - (np.arange(60) == 7)[:, None] * 0.5).parent, cap)


def test_more_rows_than_an_index_counts(user_file, monkeypatch):
    monkeypatch.setattr(columns, "MOST_ROWS", 59)
    with pytest.raises(EvorError, match=r"hold 60 rows in one piece.*--memory-gb"):
        said(user_file())
    with pytest.raises(EvorError, match=r"holds 60 rows in one piece.*split"):
        said(user_file(), 5e-6)


# Files that lie.


def packed(path, name, content: bytes):
    """An npz file of one member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.npy", content)
    return path


def header(shape, descr="<f4", version=(1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return b"\x93NUMPY" + bytes(version) + stream.getvalue()[8:]


@pytest.mark.parametrize(
    "content",
    [
        header((10**12,)) + bytes(8),  # would ask for 4 TB
        header((2,)) + bytes(12),
        header((-2, -1)) + bytes(8),
        header((10**30, 10**30)),
        header((2,), version=(3, 0)) + bytes(8),
        header((2,), version=(9, 9)) + bytes(8),
        b"no magic",
        header((2,)).replace(b"{", b"(" * 300) + bytes(8),
        b"",
    ],
)
def test_what_an_array_says_of_itself_is_checked_before_it_is_read(tmp_path, content):
    path = packed(tmp_path / "lie.npz", "x", content)
    with pytest.raises(EvorError, match=r"lie\.npz is truncated or damaged \(.+\); copy it again, or write it again"):
        read_npz(path, ("x",))


def test_a_bomb_is_refused_by_its_directory(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.npy", header((1_000_000,)) + bytes(4_000_000))
    with pytest.raises(EvorError, match="packed in a way that numpy does not use"):
        read_npz(path, ("x",))


def test_mutated_files_are_read_alike_or_refused(user_file):
    path = user_file()
    content, generator = path.read_bytes(), np.random.default_rng(0)
    whole, sentences = read_episodes(path).episodes, []
    for _ in range(150):
        mutated = bytearray(content)
        for place in generator.integers(len(content), size=generator.integers(1, 4)):
            mutated[place] = generator.integers(256)
        path.write_bytes(mutated[: len(content) - int(generator.integers(30)) * int(generator.integers(2))])
        try:
            found = read_episodes(path).episodes
        except EvorError as error:
            sentences.append(str(error))
            continue
        for a, b in zip(whole[:7], found[:7], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(sentences) > 50
    assert all("\n" not in sentence for sentence in sentences)


def test_remedies_fit_where_a_file_is_from(user_file, tmp_path, monkeypatch):
    path = user_file()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EvorError, match="write it again with numpy"):
        load_files(path)
    with pytest.raises(EvorError, match=f"make it again with `evor data generate {DATASET}`"):
        load_shard(DATASET, path, tasks=(1,), sparse_rewards=False)
    monkeypatch.setattr("evor.data.formats.ogbench.OFFICIAL_FOLDER", tmp_path)
    with pytest.raises(EvorError, match=f"fetch it again with `evor data download {DATASET}`"):
        load_shard(DATASET, path, tasks=(1,), sparse_rewards=False)


def test_a_run_on_data_with_an_outlier_is_as_the_note_says(user_file):
    """Standardised beside 1e10, the other values of the column span nothing."""
    observations = user_arrays()["observations"]
    observations[17, 2] = 1e10
    columns = open_data(RunConfig(data=str(user_file(observations=observations)), agent=TINY)).all_columns
    assert np.ptp(np.delete(np.asarray(columns.observations)[:, 2], 17)) == 0


def test_notes_are_kept_as_plain_text(user_file):
    """What the cache holds of outliers is what is said."""
    observations = user_arrays()["observations"]
    observations[17, 2] = 1e10
    folder = user_file(observations=observations).parent
    note = said(folder, 5e-6)
    (path,) = (folder / ".evor").glob("*-outliers.json")
    (kept,) = json.loads(path.read_text())["notes"]
    assert kept in note
