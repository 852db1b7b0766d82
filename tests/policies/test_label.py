"""Labels of a dataset: values of recorded actions, beside the frames they belong to."""

import threading

import numpy as np
import pytest

import evor
from conftest import TINY, user_arrays
from evor.agents.base import Frozen
from evor.cli.main import main
from evor.errors import EvorError
from evor.runtime.records import replace

parquet = pytest.importorskip("pyarrow.parquet")


def recorded(observations, num, seed):
    """Actions of 0, whatever is seen."""
    return np.zeros((len(observations["observation"]), num, 2, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A value of chunks of two actions, of the data's own policy: no base policy is needed."""
    agent = replace(TINY, base=Frozen(), chunk_length=2)
    out = tmp_path_factory.mktemp("label") / "run"
    return evor.train(user_arrays(), agent=agent, out=out, updates=4, quiet=True)


@pytest.fixture
def data(user_file):
    """With the observation behind each end: reading inserts rows that are no frames."""
    after = np.roll(user_arrays()["observations"], -1, axis=0)
    after[19::20] = 7
    return user_file(next_observations=after)


def read(path):
    table = parquet.read_table(path)
    return {name: np.asarray(table.column(name)) for name in table.column_names}


def test_every_frame_has_the_value_of_its_own_action(run, data, tmp_path):
    table = read(evor.label(run.folder, data, base=recorded, num=3, out=tmp_path / "values.parquet", quiet=True))
    assert list(table) == ["episode_index", "frame_index", "value", "q10", "q25", "q50", "q75", "q90", "advantage"]
    assert table["episode_index"].tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert table["frame_index"].tolist() == [*range(20)] * 3
    assert np.flatnonzero(np.isnan(table["value"])).tolist() == [19, 39, 59]  # without a whole chunk
    arrays, policy = user_arrays(), run.policy()
    chunk = arrays["actions"][23:25]
    value = policy.value(arrays["observations"][23], chunk, return_temperature=np.inf, num_nodes=64)
    assert table["value"][23] == pytest.approx(value, rel=1e-2, abs=1e-3)
    assert (np.diff([table[name][23] for name in ("q10", "q25", "q50", "q75", "q90")]) >= 0).all()
    own, zero = policy.choose(
        arrays["observations"][23], np.stack([chunk, np.zeros((2, 2))]), seed=0, extraction=evor.BestOf()
    ).scores
    assert table["advantage"][23] == pytest.approx(own - zero, rel=1e-4, abs=1e-5)


def test_proposals_on_disk_serve_as_well(run, data, tmp_path, monkeypatch):
    evor.propose(data, base=recorded, out=tmp_path / "P", num=3, chunk_length=2, quiet=True)
    one = read(evor.label(run.folder, data, proposals=tmp_path / "P", out=tmp_path / "a.parquet", quiet=True))
    monkeypatch.chdir(tmp_path)
    words = ["label", str(run.folder), "--data", str(data), "--base", "python:test_label:recorded", "--num", "3"]
    assert main([*words, "--out", "b.parquet"]) == 0
    other = read(tmp_path / "b.parquet")
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_a_file_that_cannot_be_written_is_told_before_anything_is_proposed(run, data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(EvorError, match="give a file in a folder that can be written"):
        evor.label(run.folder, data, base=lambda *given: asked.append(given), out=tmp_path / "v.parquet")
    assert not asked


def test_a_base_policy_may_have_longer(run, data, tmp_path):
    release, out = threading.Event(), tmp_path / "values.parquet"
    with pytest.raises(EvorError, match=r"has not answered within 0.05 s; .*\(--base-timeout, base_timeout=\)"):
        evor.label(run.folder, data, base=lambda *_: release.wait(30), base_timeout=0.05, out=out, quiet=True)
    release.set()


def test_what_cannot_be_labelled_is_told(run, data, user_file, tmp_path):
    out = {"out": tmp_path / "values.parquet", "quiet": True}
    with pytest.raises(EvorError, match="a value alone, which proposes no actions"):
        evor.label(run.folder, data, **out)
    with pytest.raises(EvorError, match=r"base and proposals .* are both given"):
        evor.label(run.folder, data, base=recorded, proposals=tmp_path / "P", **out)
    for bad, message in ((tmp_path, "is a folder"), (tmp_path / "no/v.parquet", "lies in .*no, which is no folder")):
        with pytest.raises(EvorError, match=f"{message}; give a file in a folder that exists"):
            evor.label(run.folder, data, base=recorded, out=bad, quiet=True)
    with pytest.raises(EvorError, match=r"the table is a parquet file; give .*mine\.parquet"):
        evor.label(run.folder, data, base=recorded, out=tmp_path / "mine.npz", quiet=True)
    (tmp_path / "other.parquet").write_bytes(b"PAR1 of somebody else")
    with pytest.raises(EvorError, match=r"other\.parquet exists and is no table of evor label; give another file"):
        evor.label(run.folder, data, base=recorded, out=tmp_path / "other.parquet", quiet=True)
    assert (tmp_path / "other.parquet").read_bytes() == b"PAR1 of somebody else"
    wide = user_file("wide.npz", observations=np.zeros((60, 4), np.float32))
    with pytest.raises(
        EvorError, match=r"has other sizes or bounds \(observations of 4 numbers, .*\) than the data of"
    ):
        evor.label(run.folder, wide, base=recorded, **out)
    evor.propose(user_file("other.npz", seed=1), base=recorded, out=tmp_path / "P", chunk_length=2, quiet=True)
    with pytest.raises(EvorError, match="holds proposals for other data"):
        evor.label(run.folder, data, proposals=tmp_path / "P", **out)
    assert not (tmp_path / "values.parquet").exists()
