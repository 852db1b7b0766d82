"""The matrices of the suites at their scales, and names that are in none."""

import math
import pickle
from pathlib import Path

import pytest

from documents import DOCS
from evor.errors import EvorError
from evor.experiments.reproduce import matrices
from evor.experiments.reproduce.matrices import DEFAULT_TASKS, EVERYTHING, FIELD, SIBLINGS, protocol
from evor.experiments.reproduce.scales import FULL, SCALES, SMALL, SMOKE, find_scale
from evor.experiments.reproduce.suite import SUITES, agent_config, cells, evaluations, find_suite, run_config
from evor.runtime.records import replace

PAPER, ABLATIONS, SORL = (SUITES[name] for name in ("paper", "ablations", "sorl"))
CUBE, MAZE = "cube-single-play-v0", "pointmaze-medium-navigate-v0"


def test_the_matrices_are_the_papers():
    full = cells(PAPER, FULL)
    assert len({cell.name for cell in full}) == len(full) == 6 * len(EVERYTHING)
    assert all(cell.seeds == (0, 1, 2) and len(cell.tasks) == 5 for cell in full)
    assert {cell.agent for cell in cells(ABLATIONS, FULL)} == {"evor"}
    smoke = [(cell.dataset, cell.agent) for cell in cells(PAPER, SMOKE) if cell.agent in SIBLINGS]
    assert smoke == [(CUBE, agent) for agent in SIBLINGS]
    assert {run_config(cell, FULL, data=Path()).updates for cell in full} == {1_000_000}
    constant = [agent_config("evor-paper", scale) for scale in (SMALL, FULL)]
    assert [agent.learning.final_learning_rate / agent.learning.learning_rate for agent in constant] == [1, 1]
    assert [agent.learning.learning_rate for agent in constant] == pytest.approx([9e-4, 3e-4])
    precisions = {agent: agent_config(agent, SMALL).learning.precision for agent in ("evor", "qc-5", "evor-paper")}
    assert precisions == {"evor": "bfloat16", "qc-5": "bfloat16", "evor-paper": "float32"}  # raw returns
    further = ABLATIONS.matrix.further
    assert math.isinf(max(search.return_temperature for search in further))
    assert [s.num_candidates for s in further[:8]] == [1, 2, 4, 8, 16, 32, 64, 128]


def test_pages_tell_how_many_cells_the_full_size_has():
    """A cell of it has all seeds."""
    full = cells(PAPER, FULL)
    assert {cell.seeds for cell in full} == {(0, 1, 2)}
    assert f"`evor reproduce paper --scale full` has {len(full)} cells:" in (DOCS / "concepts/scaling.md").read_text()


def test_what_matters_most_is_trained_first_at_full_size():
    order = [(cell.dataset, cell.agent) for cell in cells(PAPER, FULL)]
    first, others = matrices.PAPER_DATASETS[:2], matrices.PAPER_DATASETS[2:]
    assert order[:4] == [(dataset, agent) for agent in ("evor", "evor-paper") for dataset in first]
    assert order[8:12] == [(dataset, "evor") for dataset in others]
    assert {agent for _, agent in order[:18]} == {"evor", "evor-paper", "qc-5", "qc-1", "sorl", "fql", "rebrac"}


def test_the_small_scale_has_every_agent_in_the_maze_and_what_two_cores_can_pay_on_the_cube():
    small = {(cell.dataset, cell.agent): cell for cell in cells(PAPER, SMALL, seeds=1)}
    assert {agent for dataset, agent in small if dataset == MAZE} == set(EVERYTHING)
    assert {agent for dataset, agent in small if dataset == CUBE} == set(EVERYTHING) - {"qc-1", "qc-5"}
    assert {(dataset, cell.tasks) for (dataset, _), cell in small.items()} == {
        (MAZE, (1, 2, 3, 4, 5)),
        (CUBE, (1, 2)),
    }
    updates = {key: run_config(cell, SMALL, data=Path()).updates for key, cell in small.items()}
    assert {key for key, count in updates.items() if count == 50_000} == {
        (CUBE, agent) for dataset, agent in small if dataset == CUBE and agent != "value-flows"
    }
    assert {key for key, count in updates.items() if count == 2_000} == {
        (MAZE, agent) for agent in ("qc-1", "qc-5", "value-flows")
    }
    assert set(updates.values()) == {2_000, 10_000, 50_000}
    assert [list(SMALL.played_steps(longer)) for longer in (5, 25)] == [
        [8_000, 9_000, 10_000],
        [40_000, 45_000, 50_000],
    ]


def test_protocols_are_those_of_the_rows_that_are_there():
    """The first is in docs/results/paper-small/results.csv."""
    assert protocol(PAPER.matrix, SMALL) == (
        "10000 updates at 3 x the learning rate, nets 256x256x256 in bfloat16 (float32 where returns are not standardised), "
        "10 episodes every 1000, 5 x both on cube-single-play-v0, last 3"
    )
    assert protocol(SORL.matrix, SMALL).startswith("50000 updates at 3 x the learning rate, nets 256x256x256")
    assert "10 episodes every 5000, last 3" in protocol(SORL.matrix, SMALL)


def test_the_suite_sorl_is_that_papers():
    """All agents on eight datasets: five tasks at scale full, the default task below. Fewer trained steps on the cube."""
    full, small, smoke = (cells(SORL, scale, seeds=1) for scale in (FULL, SMALL, SMOKE))
    assert {(cell.dataset, cell.agent) for cell in full} >= {(name, agent) for name in DEFAULT_TASKS for agent in FIELD}
    assert {cell.tasks for cell in full} == {(1, 2, 3, 4, 5)}
    assert {(cell.dataset, *cell.tasks) for cell in small} == set(DEFAULT_TASKS.items())
    assert {cell.dataset for cell in smoke} == set(DEFAULT_TASKS)
    assert {cell.dataset for cell in smoke if cell.agent != "sorl"} == {CUBE}
    steps = {
        agent: agent_config(agent, SMALL, dataset=CUBE).trained_steps
        for agent in ("sorl-1", "sorl-2", "sorl-4", "sorl")
    }
    assert steps == {"sorl-1": 1, "sorl-2": 2, "sorl-4": 4, "sorl": 8}
    weights = {agent_config(agent, SMALL, dataset=CUBE).improvement_weight for agent in steps}
    assert weights == {10.0}  # the environment's, whatever the steps


def test_the_last_checkpoint_of_sorl_is_played_at_every_point_of_the_grid():
    on_cube = {cell.agent: cell for cell in cells(SORL, SMALL, only=[CUBE], seeds=1)}
    *earlier, (updates, searches) = evaluations(on_cube["sorl"], SORL, scale=SMALL)
    assert (updates, {len(found) for _, found in earlier}) == (50_000, {1})
    assert {(search.flow_steps, search.num_candidates) for search in searches} == {
        (steps, count) for steps in (1, 2, 4, 8) for count in (1, 2, 4, 8, 16, 32)
    }
    assert len(searches) == 24
    assert {len(found) for _, found in evaluations(on_cube["sorl-1"], SORL, scale=SMALL)} == {1}
    evor = {cell.agent: cell for cell in cells(PAPER, SMALL, seeds=1)}["evor"]
    assert [len(evaluations(evor, suite, scale=SMALL)[-1][1]) for suite in (PAPER, ABLATIONS)] == [1, 21]


def test_an_agent_has_the_settings_of_each_dataset():
    """SORL's published ones on the cube, ours in the maze; at the size of the scale, and in float32 for raw returns."""
    by_dataset = {
        cell.dataset: run_config(cell, SMALL, data=Path()).agent for cell in cells(PAPER, SMALL, only=["sorl"])
    }
    assert {name: agent.improvement_weight for name, agent in by_dataset.items()} == {CUBE: 10.0, MAZE: 100.0}
    (learning,) = {agent.learning for agent in by_dataset.values()}
    assert (learning.hidden, learning.precision, learning.max_gradient_norm) == ((256, 256, 256), "float32", 1.0)
    assert learning.learning_rate == pytest.approx(4.2e-4)


def test_a_scene_with_sparse_rewards_is_the_same_files_and_environment():
    """And an agent's settings are those of the scene."""
    sparse, dense = (
        {cell.agent: cell for cell in cells(PAPER, FULL, only=[name])}
        for name in ("scene-play-sparse-v0", "scene-play-v0")
    )
    assert set(sparse) == set(dense) == set(EVERYTHING)
    for agent, cell in sparse.items():
        ours, theirs = (run_config(each, FULL, data=Path()) for each in (cell, dense[agent]))
        assert cell.name != dense[agent].name
        assert (ours.sparse_rewards, theirs.sparse_rewards) == (True, False)
        assert replace(ours, sparse_rewards=False) == theirs


def test_names_are_found_and_unknown_ones_get_a_hint():
    assert all(find_scale(name).name == name for name in SCALES)
    assert all(find_suite(name).name == name for name in SUITES)
    with pytest.raises(EvorError, match=r"no suite 'papr' to reproduce.*did you mean 'paper'"):
        find_suite("papr")
    with pytest.raises(EvorError, match=r"no --scale 'smal' to reproduce.*did you mean 'small'"):
        find_scale("smal")
    with pytest.raises(EvorError, match=r"full-300k-tf32 has no matrix of sorl; give one of smoke, small, full"):
        cells(SORL, find_scale("full-300k-tf32"))
    assert set(SCALES) == set(matrices.PAPER.plans)


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_travels_to_other_processes(name):
    assert pickle.loads(pickle.dumps(SCALES[name])) == SCALES[name]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_travels_to_other_processes(name):
    assert pickle.loads(pickle.dumps(SUITES[name])) == SUITES[name]
