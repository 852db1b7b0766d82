"""Durations of a cell, by the clocks in its run folder."""

import json

import pytest

from evor.agents.evor import Evor
from evor.experiments.reproduce.timing import resumes, seconds_per_update, whole_seconds_per_update
from evor.runtime.files import write_json
from evor.training.config import RunConfig


def clock(folder, *seconds):
    """A run folder whose log has a line every ten updates."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": 10 * index, "seconds": each}) + "\n" for index, each in enumerate(seconds, 1)]
    (folder / "timings.jsonl").write_text("".join(lines))


def test_an_update_has_its_share_of_what_was_trained_and_drawn_before(tmp_path):
    clock(tmp_path / "alone", 50.0, 60.0, 70.0, 1.0)
    config = RunConfig(data="-", updates=100, agent=Evor())
    assert seconds_per_update(tmp_path / "alone") == whole_seconds_per_update(tmp_path / "alone", config) == 1.0
    assert resumes(tmp_path / "alone") == 1
    clock(tmp_path / "run", 50.0, 60.0)
    clock(tmp_path / "run/base", 9.0, 12.0)
    for block, seconds in enumerate((3.0, 4.5)):
        folder = tmp_path / f"run/base/proposals/block{block}"
        folder.mkdir(parents=True)
        write_json(folder / "proposals.json", {"seconds": seconds})
    for base_updates, trained in ((None, 100), (200, 200)):
        whole = RunConfig(data="-", updates=100, base_updates=base_updates, agent=Evor())
        assert whole_seconds_per_update(tmp_path / "run", whole) == pytest.approx(1.0 + (0.3 * trained + 7.5) / 100)
