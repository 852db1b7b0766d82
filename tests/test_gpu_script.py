"""scripts/gpu.sh, rehearsed on a CPU: slices that go on, and what they leave in OUT."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import DATASET
from evor.experiments.bench.plan import PARTS
from evor.experiments.bench.timings import SIZES, TIMED

ROOT = Path(__file__).parents[1]


def test_its_measures_are_those_of_the_bench():
    script = (ROOT / "scripts" / "gpu.sh").read_text()
    for option, known in (("parts", PARTS), ("presets", TIMED), ("sizes", SIZES)):
        found = re.findall(rf"--{option} ([a-z0-9 -]+?)(?: --|\))", script)
        assert len(found) == 2
        assert {name for names in found for name in names.split()} <= set(known)


@pytest.mark.slow
def test_a_slice_goes_on_where_the_last_one_stopped(tmp_path):
    """It runs without git. The third one is another machine's, which has the results alone."""
    for folder in ("src", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    options = {"SCALE": "smoke", "PYTHON": sys.executable, "EVOR_COMMIT": "a-commit"}

    def run(only, **more):
        command = ["scripts/gpu.sh", "out", "9", "--only", DATASET, *only, "--workers", "1"]
        ended = subprocess.run(command, cwd=tmp_path, env=os.environ | options | more, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
            files = {name: archive.extractfile(name) for name in archive.getnames()}
            table = files["results.csv"]
            assert table is not None
            rows = list(csv.DictReader(io.TextIOWrapper(table)))
        return set(files), rows, ended.stderr

    names, rows, _ = run(["bc"])
    assert {"bench.json", "manifest.json", "timings.csv", "results.md"} <= names
    assert {row["commit"] for row in rows} == {"a-commit"}
    _, both, said = run(["bc", "scalar"], BENCH="0")
    assert [row for row in both if row["agent"] == "bc"] == rows
    assert {row["agent"] for row in both} == {"bc", "scalar"}
    assert "bench" not in said
    before = tmp_path / "docs" / "results" / "gpu-smoke"
    before.mkdir(parents=True)
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        archive.extractall(before, filter="data")
    shutil.rmtree(tmp_path / "runs")
    names, again, _ = run(["bc", "scalar"], BENCH="0")
    assert again == both
    assert not any(name.startswith("cells") for name in names)
