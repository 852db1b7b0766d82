"""What headers tell before anything is read: data that memory does not hold, and rows that an index does not count."""

import re

import numpy as np
import pytest

from conftest import TINY, user_arrays
from evor.data import headers, source
from evor.data.columns import MOST_ROWS, lay_out
from evor.data.source import ArrayData, NpzData, survey
from evor.errors import EvorError
from evor.training.config import RunConfig
from evor.training.data import data_spec_of
from evor.types import Spec

DATA_SPEC = data_spec_of(RunConfig(data="-", agent=TINY))


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "mine.npz", **user_arrays(60))
    return tmp_path / "mine.npz"


@pytest.fixture
def unread(monkeypatch):
    """No file is read, only headers are."""
    monkeypatch.setattr(source, "load", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(source, "open_store", lambda *_, **__: pytest.fail("it was read"))


def test_data_that_memory_does_not_hold_are_refused_before_they_are_read(file, unread, monkeypatch):
    """60 rows of 3 + 2 numbers: 31 bytes each as they are read, 44 as they are trained on."""
    needed = 60 * (4 * (3 + 2 + 2) + 3 + 4 * (3 + 2 + 3 + 3))
    monkeypatch.setattr(headers, "free_memory", lambda: needed - 1.0)
    with pytest.raises(EvorError, match=r"mine\.npz holds 60 rows, .* 4\.19e-06 GiB are free.*--memory-gb") as refused:
        survey(NpzData(file), DATA_SPEC)
    cap = float(re.findall(r"memory_gb (\S+) ", str(refused.value))[0])
    assert cap <= 0.5 * needed / 2**30 < cap + 1e-7  # two digits
    monkeypatch.setattr(headers, "free_memory", lambda: float(needed))
    with pytest.raises(pytest.fail.Exception):
        survey(NpzData(file), DATA_SPEC)


def test_under_a_cap_memory_is_not_asked_for(file, monkeypatch):
    monkeypatch.setattr(headers, "free_memory", lambda: 0.0)
    assert survey(NpzData(file), DATA_SPEC, memory_gb=1.0).summary.rows == 60
    assert survey(NpzData(file), DATA_SPEC, memory_gb=4e-6).summary.rows == 60
    assert survey(ArrayData(user_arrays(60)), DATA_SPEC).summary.rows == 60


@pytest.mark.parametrize(
    ("rows", "memory_gb", "place"),
    [
        ((MOST_ROWS + 1,), None, "the data hold 2,147,483,648 rows"),
        ((2**30, 2**30), None, "the data hold 2,147,483,648 rows"),
        ((2**30, 2**30), 1e6, None),  # 700 GB of blocks, each counted from its own first row
        ((100, 2**31), 1.0, "b.npz holds 2,147,483,648 rows"),
    ],
)
def test_rows_that_an_index_does_not_count_are_refused(file, unread, monkeypatch, rows, memory_gb, place):
    monkeypatch.setattr(headers, "free_memory", lambda: float("inf"))
    monkeypatch.setattr(NpzData, "files", lambda _: [file.with_name("a.npz"), file.with_name("b.npz")][: len(rows)])
    sizes = dict(zip(("a.npz", "b.npz"), rows, strict=False))
    monkeypatch.setattr(
        headers, "shapes", lambda file, *_: {"observations": (sizes[file.name], 3), "actions": (sizes[file.name], 2)}
    )
    if place is None:
        with pytest.raises(pytest.fail.Exception):
            survey(NpzData(file), DATA_SPEC, memory_gb=memory_gb)
        return
    with pytest.raises(EvorError, match=f"{place} in one piece, and an index counts 2,147,483,647; split them"):
        survey(NpzData(file), DATA_SPEC, memory_gb=memory_gb)


def test_so_many_rows_in_memory_are_refused_before_anything_is_computed():
    """Arrays of one row that is there 2^31 times."""
    one = ArrayData(user_arrays(60)).read(source.Path("data")).episodes
    many = one._replace(ends=np.broadcast_to(np.array(True), (MOST_ROWS + 1,)))
    with pytest.raises(EvorError, match="2,147,483,648 rows in one piece"):
        lay_out(many, DATA_SPEC)


def test_headers_without_sizes_are_left_to_the_reader(file):
    np.savez(file, **user_arrays(60) | {"observations": np.zeros((60, 2, 2), np.float32)})
    assert headers.read_headers([file]) is None
    with pytest.raises(EvorError, match="images are not supported"):
        survey(NpzData(file), DATA_SPEC)


def test_rows_of_next_observations_count_twice_under_a_cap(file):
    spec = Spec(3, 2)
    (header,) = headers.read_headers([file]) or ()
    assert header[1:] == (60, spec, False)
    rows = headers.rows_that_fit(spec, DATA_SPEC, num_tasks=1, memory_gb=2e-5)
    assert 60 < rows < 120
    for has_next, fits in ((False, True), (True, False)):
        told = [header._replace(has_next=has_next)]
        assert headers.fits(told, DATA_SPEC, num_tasks=1, memory_gb=2e-5) == fits
