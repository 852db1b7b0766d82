"""What `evor data check` tells of actions and episodes, in memory and under a cap."""

import json

import numpy as np
import pytest

import recordings
from conftest import user_arrays
from evor.cli.main import main


def checked(capsys, path, *words) -> dict:
    assert main(["data", "check", "--data", str(path), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def odd():
    """120 episodes of 20 rows; one is there twice, one has 2 rows; actions in degrees, with one outlier and a constant."""
    generator = np.random.default_rng(0)
    lengths = [20] * 100 + [2] + [20] * 19
    ends = np.zeros(sum(lengths), bool)
    ends[np.cumsum(lengths) - 1] = True
    arrays = user_arrays(rows=len(ends), truncations=ends, terminations=np.zeros(len(ends), bool))
    arrays["actions"] = np.stack(
        [generator.uniform(-1, 1, len(ends)), np.full(len(ends), 3.0), generator.uniform(-9, 9, len(ends))], 1
    )
    arrays["actions"][7, 0] = 100
    for name in ("observations", "actions"):
        arrays[name][60:80] = arrays[name][20:40]
    return arrays | {"action_low": np.array([-1, 3, -9]), "action_high": np.array([100, 3, 9])}


@pytest.mark.parametrize("cap", [(), ("--memory-gb", "1e-4")], ids=["in memory", "under a cap"])
def test_ranges_constants_duplicates_and_odd_lengths(tmp_path, capsys, odd, cap):
    np.savez(tmp_path / "mine.npz", **odd)
    content = checked(capsys, tmp_path / "mine.npz", *cap)
    first, constant, third = content["actions"]
    assert (first["bounds"], first["high"], first["at_bounds"]) == ([-1, 100], 100, 1 / len(odd["actions"]))
    assert first["middle"] == pytest.approx(2 * 0.98 / 101, rel=0.05)
    assert third["middle"] == pytest.approx(0.98, rel=0.05)
    assert [fact["constant"] for fact in (first, constant, third)] == [False, True, False]
    notes = "\n".join(content["notes"])
    assert "action entries [1] are constant" in notes
    assert "action entry 0: 98 % of its values take 1.9 % of its bounds" in notes
    assert "action entry 2" not in notes
    assert "1 of 120 episodes are there twice (counted from 0: 3 is 1)" in notes
    assert "1 of 120 episodes have lengths far from the median of 20 (counted from 0: 100 has 2 rows)" in notes


def test_ordinary_data_are_not_suspected(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **user_arrays(rows=400))
    content = checked(capsys, tmp_path / "mine.npz")
    assert not any(word in note for note in content["notes"] for word in ("twice", "lengths far", "action entr"))
    assert main(["data", "check", "--data", str(tmp_path / "mine.npz")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at bounds" in said
    assert "middle 98 %" in said


def test_what_the_import_found_is_told(tmp_path, capsys):
    arm = recordings.lerobot_v30(tmp_path / "arm", timestamp=None)
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = arm / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = np.asarray(table["frame_index"]) / 30 + np.where(np.asarray(table["episode_index"]) == 2, 0.5, 0)
    pq.write_table(table.append_column("timestamp", pa.array(times)), path)
    words = ["--success", "column:next.success", "--reward", "steps", "--out", str(tmp_path / "out")]
    assert main(["data", "import", str(arm), *words]) == 0
    capsys.readouterr()
    notes = checked(capsys, tmp_path / "out")["notes"]
    assert "imported with these labels: rewards: -1 per step" in notes[0]
    assert "12 rows after a finish were dropped" in notes
    assert any(note.startswith("timestamps jump in 1 episode (2): they are not") for note in notes)
