"""The page about a GPU, from numbers that are known."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from test_reproduce_page import POINT, row, write

from evor.search.readings import Quadrature

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in ("bench", "readme", "reference", "gpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("gpu")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def milliseconds(value):
    return {"median_ms": value, "gflop": 2.0}


REPORT = {
    "networks": {"paper bfloat16": {"1": milliseconds(1.0), "15": milliseconds(2.5), "75": milliseconds(4.0)}},
    "updates": {"paper": {"without-search bfloat16": milliseconds(1.0), "qc-1 bfloat16": milliseconds(30.0)}},
    "unshared": {"without-search paper": milliseconds(5.0), "qc-1 paper": milliseconds(40.0)},
    "decisions": {
        "paper": [
            {"batch": batch, "candidates": 32, "reading": repr(Quadrature()), "median": seconds}
            for batch, seconds in ((1, 3e-3), (1, 1.5e-3), (50, 1e-4))
        ]
    },
    "profile": {"paper bfloat16": {"1": {"seconds": 1e-3, "busy": 0.4, "kernels": 300.0, "longest": {"gemm": 2e-4}}}},
    "limits": {"card": {"bfloat16": 8000.0}},
    "hardware": {"device": "a GPU", "cpu": "a processor"},
    "versions": {"jax": "1", "python": "3"},
    "commit": "abc",
}


def test_bounds_are_ratios_of_what_was_measured(gpu):
    told = [str(bound) for bound in gpu.speed_bounds(REPORT)]
    assert "2.5, at most 3: holds" in told[0]
    assert "1.11, at most 1: does not hold" in told[1]  # 4 ms x 1M updates
    assert "1.5, at most 2: holds" in told[2]
    assert "8, at least 10: does not hold" in told[3]
    assert told[4].startswith("QC-1 against EVOR without search in targets, one network (reported): 30")
    empty = REPORT | {"networks": {}, "unshared": {}, "updates": {}, "decisions": {}}
    assert all("not measured" in str(bound) for bound in gpu.speed_bounds(empty))


def test_the_page_tells_what_is_complete_and_what_is_not(gpu, tmp_path):
    with pytest.raises(gpu.EvorError, match=r"no bench\.json in .*gpu-\*"):
        gpu.page()
    for scale, success in (("full-300k", 0.9), ("full-300k-tf32", 0.8)):
        folder = tmp_path / f"gpu-{scale}"
        folder.mkdir()
        content = [
            row("evor", task, seed, updates, success)
            for task in range(1, 6)
            for seed in range(3)
            for updates in (20, 30, 40)
        ]
        write(folder / "results.csv", content)
    (tmp_path / "gpu-full-300k" / "bench.json").write_text(json.dumps(REPORT))
    page = gpu.page()
    assert f"evor on {POINT}, tasks x seeds: 0 of 15 at scale full, 15 of 15 at scale full-300k: holds" in page
    assert (
        "evor on cube-double-play-v0, tasks x seeds: 0 of 15 at scale full, 0 of 15 at scale full-300k: does not hold"
        in page
    )
    assert "intervals: 0.900 [0.900, 0.900], 0.800 [0.800, 0.800]: does not hold" in page
    assert (
        "| paper bfloat16 | 1 | 1.000 | 1,000 | 2,000 | 25.0% |" in page
    )  # 2 GFLOP in a millisecond, of 8,000 GFLOP/s
    assert "kernels run 40% of it, 300 in an update" in page
