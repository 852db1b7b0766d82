"""Files of one row below cells/."""

import json

import pytest

from evor.errors import EvorError
from evor.experiments.reproduce.rows import RESULT_COLUMNS, results_of


def test_hidden_files_beside_rows_are_passed_over(tmp_path):
    cell = tmp_path / "cells/maze/evor/tasks1-seed0"
    (cell / "rows").mkdir(parents=True)
    (cell / "rows/000000010_prior_task1-seed0.json").write_text(json.dumps(dict.fromkeys(RESULT_COLUMNS, 1)))
    (cell / "rows/._000000010_prior_task1-seed0.json").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves it
    assert len(results_of(tmp_path).gather([cell])) == 1


def test_a_half_written_row_may_be_removed(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/000000010_prior_task1-seed0.json").write_text('{"suite": "pap')
    results = results_of(tmp_path)
    for _ in range(2):  # also of those that gather again, as at the end
        with pytest.raises(
            EvorError, match=r"seed0.json is damaged .* Or remove it: a row that is not there is played"
        ):
            results.gather([tmp_path])
