"""Proposals that other processes draw: the bytes of one process, whichever job ends first and wherever it was stopped."""

import sys

import numpy as np
import pytest

from conftest import user_arrays
from evor.cli.main import main
from evor.errors import EvorError
from evor.policies import drawing
from evor.policies.propose import propose
from evor.runtime.parallel import Local
from faults import filling_disk

POLICY = """import numpy as np
def propose(observations, num, seed):
    x = np.asarray(observations["observation"], float)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(x), num, 2, 2))
    return 0.5 * np.tanh(x[:, None, None, :2]) + noise
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """600 rows, and a base policy in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "mine_34.py").write_text(POLICY)
    np.savez(tmp_path / "mine.npz", **user_arrays(600))
    yield tmp_path / "mine.npz"
    sys.modules.pop("mine_34", None)


@pytest.fixture
def small(data, monkeypatch):
    """90 rows, pieces of 16 and blocks of 4."""
    np.savez(data, **user_arrays(90))
    for module in (drawing, sys.modules["evor.policies.propose"]):
        monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(drawing, "PIECE", 16)


@pytest.fixture
def backwards(small, monkeypatch):
    """Jobs in this process, the last one first."""
    begun = []

    def each(function, jobs, machines, *, shared):
        assert shared.is_dir()
        for job in reversed(list(jobs)):
            begun.append(job[0].start)
            yield function(*job)

    monkeypatch.setattr(drawing, "parallel_map", each)
    return begun


OPTIONS = {"base": "python:mine_34:propose", "num": 3, "chunk_length": 2, "quiet": True}


def test_pieces_in_any_order_are_the_bytes_of_one_process(data, backwards, tmp_path):
    one = propose(data, out=tmp_path / "one", **OPTIONS)
    assert not backwards
    two = propose(data, out=tmp_path / "two", machines=Local(2), **OPTIONS)
    assert backwards == [80, 64, 48, 32, 16, 0]
    assert (one / "proposals.npy").read_bytes() == (two / "proposals.npy").read_bytes()
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


@pytest.mark.parametrize("first", [Local(1), Local(2)])
def test_what_was_stopped_goes_on_on_other_machines(data, backwards, tmp_path, monkeypatch, first):
    """Once in one process and then in two, and the other way round: what is there is not drawn again."""
    whole = propose(data, out=tmp_path / "whole", **OPTIONS)
    usual, asked = drawing.draw, []

    def falls(policy, observations, *, seed, **sizes):
        asked.append(seed)
        if len(asked) == 7:
            raise EvorError("the robot fell over")
        return usual(policy, observations, seed=seed, **sizes)

    monkeypatch.setattr(drawing, "draw", falls)
    with pytest.raises(EvorError, match="the robot fell over"):
        propose(data, out=tmp_path / "stopped", machines=first, **OPTIONS)
    (tmp_path / "stopped" / ".proposals.json.elsewhere-1-ab.partial").touch()  # of a process that was killed
    second = Local(3) if first == Local(1) else Local(1)
    stopped = propose(data, out=tmp_path / "stopped", machines=second, **OPTIONS)
    assert (whole / "proposals.npy").read_bytes() == (stopped / "proposals.npy").read_bytes()
    if first == Local(1):
        assert backwards == [80, 64, 48, 32, 20]  # five blocks were there
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in stopped.iterdir())


def test_a_piece_that_is_there_is_not_drawn_again(data, small, tmp_path, monkeypatch):
    left = []

    def stopped(function, jobs, machines, *, shared):
        for number, job in enumerate(reversed(list(jobs))):
            if number == 3 and not left:
                raise KeyboardInterrupt
            left.append(job[0].start) if job[0].path.exists() else None
            yield function(*job)

    monkeypatch.setattr(drawing, "parallel_map", stopped)
    with pytest.raises(KeyboardInterrupt):
        propose(data, out=tmp_path / "P", machines=Local(2), **OPTIONS)
    propose(data, out=tmp_path / "P", machines=Local(2), **OPTIONS)
    assert left == [80, 64, 48]


def test_a_function_stays_in_its_process(data, tmp_path):
    with pytest.raises(EvorError, match="is given as a text, such as python:my_policy:propose"):
        propose(data, out=tmp_path / "P", machines=Local(2), **OPTIONS | {"base": lambda *_: None})
    assert not (tmp_path / "P").exists()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(data, tmp_path):
    command = ["data", "propose", str(data), "--base", OPTIONS["base"], "--num", "3", "--chunk-length", "2"]
    assert main([*command, "--out", "one"]) == 0
    assert main([*command, "--out", "two", "--workers", "2"]) == 0
    assert (tmp_path / "one/proposals.npy").read_bytes() == (tmp_path / "two/proposals.npy").read_bytes()


def test_a_disk_that_is_full_before_the_first_job_is_told(small, tmp_path):
    """The observations are written as a file: pages of a mapped one that have no room kill the process."""
    observations = np.arange(270, dtype=np.float32).reshape(90, 3)
    request = drawing.Request("python:mine_34:propose", 1.0, keys=(), num=3, chunk_length=2, width=2)
    rows = {"total": 90, "rows": lambda start, stop: observations[start:stop]}
    work = tmp_path / "work"
    for fills in (1, 2, 3):  # making the file, writing into it, giving it its name
        with (
            filling_disk(work, fills),
            pytest.raises(EvorError, match=r"observations\.npy could not be written .*Free some"),
        ):
            drawing._Pieces(Local(2), request, work=work, **rows)._begin(0)
        assert not list(work.iterdir())
    with filling_disk(work):  # sees every byte: no file is mapped
        drawing._Pieces(Local(2), request, work=work, **rows)._begin(0)
    np.testing.assert_array_equal(np.load(work / "observations.npy"), observations, strict=True)
