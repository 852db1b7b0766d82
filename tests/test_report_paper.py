"""The paper's tables from rows whose means are known; rows that can't be compared are refused."""

import csv
import itertools

import numpy as np
import pytest

from evor import published
from evor.errors import EvorError
from evor.report_paper import read_results, score_table, write_paper_report
from evor.reproduce import COLUMNS

POINT = "pointmaze-medium-navigate-v0"


def row(agent, task, seed, updates, success, **changes):
    base = dict.fromkeys(COLUMNS, "1")
    base |= {"suite": "paper", "dataset": POINT, "agent": agent, "task": task, "seed": seed, "updates": updates}
    return base | {"success": success, "extraction": "SoftmaxOf", "hardware": "2 x CPU"} | changes


def rows():
    """evor: 0, then 0.8, 0.9, 1.0 at the end: the score is 0.9. bc: 0.1 x seed."""
    found = []
    for task, seed in itertools.product((1, 2), (0, 1, 2)):
        found += [row("evor", task, seed, u, s) for u, s in zip((10, 20, 30, 40), (0.0, 0.8, 0.9, 1.0), strict=True)]
        found += [row("bc", task, seed, u, 0.1 * seed) for u in (20, 30, 40)]
    return found


def write(path, content):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(content)
    return path


def test_the_score_is_the_mean_of_the_last_three(tmp_path):
    scores = score_table(read_results(write(tmp_path / "results.csv", rows())))
    assert scores[POINT]["evor"][1][0] == pytest.approx(0.9)
    assert scores[POINT]["bc"][2] == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})


def test_unfinished_cells_have_no_score(tmp_path):
    content = [line for line in rows() if not (line["agent"] == "evor" and line["seed"] == 2 and line["updates"] == 40)]
    scores = score_table(read_results(write(tmp_path / "results.csv", content)))
    assert set(scores[POINT]["evor"][1]) == {0, 1}


def test_the_page_tells_means_deviations_and_published_numbers(tmp_path):
    write(tmp_path / "results.csv", rows())
    text = write_paper_report(tmp_path).read_text()
    assert "| task | bc | evor | QC-1, published | QC-5, published | EVOR, published |" in text
    assert "| 1 | 10 ± 10 | **90** ± 0 | 97 ± 3 | 99 ± 1 | 100 ± 1 |" in text
    assert "| evor | 2 x 3 | 0.900 [0.900, 0.900] |" in text
    assert "1.000 [1.000, 1.000]" in text  # chance that evor is better than bc
    assert (tmp_path / "profiles.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["data", "ogbench", "mujoco", "reward_rule", "protocol"])
def test_rows_that_differ_are_not_averaged(tmp_path, name):
    content = rows()
    content[-1][name] = "another"
    with pytest.raises(EvorError, match=rf"differ in {name} \(1 \| another\)"):
        read_results(write(tmp_path / "results.csv", content))


@pytest.mark.parametrize("name", ["commit", "jax", "hardware"])
def test_commits_and_machines_are_columns_only(tmp_path, name):
    content = rows()
    content[-1][name] = "another"
    assert len(read_results(write(tmp_path / "results.csv", content))) == len(content)


def test_the_ablations_are_drawn_apart_and_never_enter_the_score(tmp_path):
    dials = {"num_candidates": 32, "return_temperature": 1.0, "action_temperature": 1e-3}
    content = [line | dials for line in rows()]
    content += [
        row("evor", t, s, 40, 0.0, **(dials | {"suite": "ablations", "num_candidates": 4}))
        for t in (1, 2)
        for s in (0, 1, 2)
    ]
    scores = score_table(read_results(write(tmp_path / "results.csv", content)))
    assert scores[POINT]["evor"][1][0] == pytest.approx(0.9)
    assert f"ablations-{POINT}.png" in write_paper_report(tmp_path).read_text()


def test_published_means_are_those_of_table_1():
    """Where the paper's two tables agree."""
    table_1 = {
        "antmaze-large-navigate-v0": (None, 7, 49),
        "cube-double-play-v0": (54, 50, 82),
        "pointmaze-medium-navigate-v0": (96, 99, 99),
        "scene-play-v0": (45, 85, 86),
    }
    for dataset, values in table_1.items():
        for agent, value in zip(published.AGENTS, values, strict=True):
            if value is not None:
                assert float(published.overall(dataset, agent)) == pytest.approx(value, abs=1)
    assert np.isclose(float(published.overall("antmaze-large-stitch-v0", "evor")), 15)
