"""Pages leave the program that asks for them as it was: backend, rcParams, open figures, warnings."""

import importlib
import importlib.util
import shutil
import sys
import warnings

import matplotlib
import numpy as np
import pytest

from evor.report import run as report
from evor.report.figures import LOOK, figure_html, look, subplots
from evor.report.run import write_report
from evor.rollouts.evaluate import evaluate
from evor.search.extraction import Prior

PAGES = (
    "report.figures",
    "report.run",
    "report.maze",
    "report.success",
    "report.learning",
    "report.predictions",
    "report.held_out",
    "experiments.reproduce.page",
    "experiments.reproduce.comparison",
    "experiments.reproduce.ablations",
    "experiments.reproduce.scaling",
    "experiments.verify.page",
    "rollouts.evaluate",
    "rollouts.play",
    "rollouts.maze",
)


def state():
    """All that is global, but for what other tests left."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures = pyplot.get_fignums() if pyplot else []
    return (
        dict(matplotlib.rcParams),
        matplotlib.get_backend(),
        figures,
        list(warnings.filters),
        np.random.get_state()[1].tolist(),
    )


@pytest.fixture
def svg():
    """A program with a backend and a taste of its own."""
    with matplotlib.rc_context({"font.size": 23, "axes.grid": False}):
        before = matplotlib.get_backend()
        matplotlib.use("svg")
        yield
        matplotlib.use(before)


@pytest.mark.parametrize("name", PAGES)
def test_importing_changes_nothing(svg, name):
    importlib.import_module(f"evor.{name}")  # other libraries set filters of their own when they are imported first
    before = state()
    spec = importlib.util.find_spec(f"evor.{name}")
    assert spec is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert state() == before


@pytest.mark.slow
def test_a_page_changes_nothing_and_has_its_own_look(svg, tiny_run, tmp_path, monkeypatch):
    """The pictures are the same whatever the program's settings are."""
    monkeypatch.setattr(report, "maze_sections", lambda *_, **__: [])  # they take seconds
    run = shutil.copytree(tiny_run, tmp_path / "run")
    evaluate(run, Prior(), episodes=1, tasks=(1,), seeds=(0,))
    before = state()
    page = write_report([run]).read_bytes()
    assert state() == before
    with matplotlib.rc_context({"font.size": 5}):
        assert write_report([run]).read_bytes() == page


def test_the_look_is_inside_alone(svg):
    with look():
        assert {name: matplotlib.rcParams[name] for name in LOOK} == LOOK
        figure, axis = subplots(figsize=(1, 1))
        axis.plot([0, 1])
    assert matplotlib.rcParams["font.size"] == 23
    assert figure_html(figure, "<a>").startswith('<figure><img alt="&lt;a&gt;" src="data:image/png;base64,')
