"""The matrices of the suites at their scales, and names that are in none."""

import math
import pickle
from pathlib import Path

import pytest

from evor.errors import EvorError
from evor.experiments.reproduce.scales import FULL, SCALES, SIBLINGS, SMALL, SMOKE, find_scale
from evor.experiments.reproduce.suite import ABLATIONS, PAPER, SUITES, agent_config, cells, find_suite, run_config


def test_the_matrices_are_the_papers():
    full = cells(PAPER, FULL)
    assert len(full) == 5 * 13
    assert all(cell.seeds == (0, 1, 2) and len(cell.tasks) == 5 for cell in full)
    assert {cell.agent for cell in cells(ABLATIONS, FULL)} == {"evor"}
    small = cells(PAPER, SMALL)
    assert len(small) == 3 * (5 + 5 + 2 + 6 + 5)
    assert {cell.tasks for cell in small if cell.agent in ("qc-1", "qc-5", *SIBLINGS)} == {(1, 2)}
    smoke = [(cell.dataset, cell.agent) for cell in cells(PAPER, SMOKE) if cell.agent in SIBLINGS]
    assert smoke == [("cube-single-play-v0", agent) for agent in SIBLINGS]
    assert {FULL.updates_on(cell.dataset) for cell in full} == {1_000_000}
    assert [list(SMALL.played_steps_on(name)) for name in ("pointmaze-medium-navigate-v0", "cube-single-play-v0")] == [
        [8_000, 9_000, 10_000],
        [40_000, 45_000, 50_000],
    ]
    constant = [agent_config("evor-paper", scale) for scale in (SMALL, FULL)]
    assert [agent.learning.final_learning_rate / agent.learning.learning_rate for agent in constant] == [1, 1]
    assert [agent.learning.learning_rate for agent in constant] == pytest.approx([9e-4, 3e-4])
    precisions = {agent: agent_config(agent, SMALL).learning.precision for agent in ("evor", "qc-5", "evor-paper")}
    assert precisions == {"evor": "bfloat16", "qc-5": "bfloat16", "evor-paper": "float32"}  # raw returns
    assert math.isinf(max(search.return_temperature for search in ABLATIONS.further))
    assert [s.num_candidates for s in ABLATIONS.further[:8]] == [1, 2, 4, 8, 16, 32, 64, 128]


def test_an_agent_has_the_settings_of_each_dataset():
    """SORL's published ones on the cube, ours in the maze; at the size of the scale, and in float32 for raw returns."""
    by_dataset = {
        cell.dataset: run_config(cell, SMALL, data=Path()).agent for cell in cells(PAPER, SMALL, only=["sorl"])
    }
    assert {name: agent.improvement_weight for name, agent in by_dataset.items()} == {
        "cube-single-play-v0": 10.0,
        "pointmaze-medium-navigate-v0": 100.0,
    }
    (learning,) = {agent.learning for agent in by_dataset.values()}
    assert (learning.hidden, learning.precision, learning.max_gradient_norm) == ((256, 256, 256), "float32", 1.0)
    assert learning.learning_rate == pytest.approx(4.2e-4)


def test_names_are_found_and_unknown_ones_get_a_hint():
    assert all(find_scale(name).name == name for name in SCALES)
    assert all(find_suite(name).name == name for name in SUITES)
    with pytest.raises(EvorError, match=r"no suite 'papr' to reproduce.*did you mean 'paper'"):
        find_suite("papr")
    with pytest.raises(EvorError, match=r"no --scale 'smal' to reproduce.*did you mean 'small'"):
        find_scale("smal")


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_travels_to_other_processes(name):
    assert pickle.loads(pickle.dumps(SCALES[name])) == SCALES[name]
