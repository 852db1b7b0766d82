"""How the rows of a reproduction describe their data."""

import re

import numpy as np
import pytest

from evor.errors import EvorError
from evor.experiments.reproduce import datasets


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
