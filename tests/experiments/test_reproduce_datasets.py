"""Where a reproduction finds its data, and how its rows describe them."""

import math
import re

import numpy as np
import pytest

from evor.data.scripted import generate
from evor.errors import EvorError
from evor.experiments.reproduce import datasets
from evor.runtime.parallel import Local


def test_data_are_told_apart_by_what_they_hold(tmp_path):
    """Not by when or where they were written."""

    def described(folder, **changes):
        (tmp_path / folder).mkdir()
        for name in ("a", "b-val"):
            np.savez_compressed(tmp_path / folder / f"{name}.npz", **({"x": np.arange(3), "y": np.ones(4)} | changes))
        return datasets.describe("mine", tmp_path / folder)

    told = described("first")
    assert re.fullmatch(r"own, 2 files, digest [0-9a-f]{8}", told)
    assert described("again") == told
    assert len({told, described("value", y=np.zeros(4)), described("name", z=np.ones(4))}) == 3
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "c.npz").write_text("no zip")
    with pytest.raises(EvorError, match=r"c\.npz is not an npz file .*restore it"):
        datasets.describe("mine", tmp_path / "broken")
    with pytest.raises(EvorError, match="gone has no files of mine; restore them"):
        datasets.describe("mine", tmp_path / "gone")


def test_a_dataset_of_shards_is_found_where_it_was_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SHARDED", 300)
    monkeypatch.setattr(generate, "SHARD", 200)
    monkeypatch.setattr(generate, "default_workers", lambda: 1)
    source = datasets.Source(tmp_path, 400, None, deadline=math.inf, machines=Local(1))
    made = source.find("pointmaze-medium-stitch-v0")
    assert sorted(file.name for file in made.glob("*-00?.npz")) == [
        "pointmaze-medium-stitch-v0-000.npz",
        "pointmaze-medium-stitch-v0-001.npz",
    ]
    assert source.find("pointmaze-medium-stitch-v0") == made
    assert datasets.describe("pointmaze-medium-stitch-v0", made) == "generated, 400 transitions, seed 0"
    told = datasets.describe("pointmaze-medium-stitch-v0", made, sparse=True, memory_gb=0.5)
    assert told == "generated, 400 transitions, seed 0, sparse rewards, 0.5 GB of it at a time"
