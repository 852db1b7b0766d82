"""The pages of docs/results are what their programs write from the committed numbers."""

import json
import shutil

import pytest

from documents import DOCS, RESULTS, benchmark
from evor.experiments.reproduce.page import write_paper_report

PAGES = {
    "bench": DOCS / "performance.md",
    "data_memory": RESULTS / "data-memory.md",
    "calibration": RESULTS / "calibration.md",
    "law_or_mean": RESULTS / "law-or-mean.md",
    "imitate_results": RESULTS / "imitate-results.md",
    "learner_study": RESULTS / "learner-study.md",
    "acting_study": RESULTS / "acting-study.md",
    "serve": RESULTS / "serve.md",
    "quadrature": RESULTS / "quadrature.md",
    "shards": RESULTS / "shards.md",
    "verify": RESULTS / "verify.md",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "law_or_mean" else ()) for name in PAGES]
)
def test_a_page_is_what_its_program_writes(name, monkeypatch):
    page, program = PAGES[name], benchmark(name, monkeypatch)
    stored = json.loads((RESULTS / page.with_suffix(".json").name.replace("performance", "bench")).read_text())
    data = (program.finished(), stored) if hasattr(program, "finished") else (stored,)
    written, committed = (text.splitlines() for text in (program.page(*data), page.read_text()))
    if name == "verify":  # verify.json keeps fewer digits than the tables were made of
        written, committed = ([line for line in lines if not line.startswith("|")] for lines in (written, committed))
    assert written == committed


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in RESULTS.glob("*/results.csv")), ids=lambda path: path.name
)
def test_the_page_of_a_reproduction_is_what_its_rows_say(folder, tmp_path):
    shutil.copytree(folder, tmp_path / folder.name)
    assert write_paper_report(tmp_path / folder.name).read_text() == (folder / "results.md").read_text()
