"""The paper's tables from rows whose means are known; rows that can't be compared are refused."""

import csv
import itertools
import json

import numpy as np
import pytest

from evor.errors import EvorError
from evor.experiments.reproduce import published
from evor.experiments.reproduce.page import write_paper_report
from evor.experiments.reproduce.rows import RESULT_COLUMNS, TIMES
from evor.experiments.reproduce.scaling import scores_by_steps
from evor.experiments.reproduce.scores import Results, read_results, score_table
from evor.experiments.reproduce.tables import summary
from evor.runtime.files import write_csv

POINT = "pointmaze-medium-navigate-v0"


def row(agent, task, seed, updates, success, **changes):
    base = dict.fromkeys(RESULT_COLUMNS, "1")
    base |= {"suite": "paper", "dataset": POINT, "agent": agent, "task": task, "seed": seed, "updates": updates}
    base |= {"commit": f"made-{agent}"}
    return base | {"success": success, "extraction": "SoftmaxOf", "hardware": "2 x CPU"} | changes


def rows():
    """evor: 0, then 0.8, 0.9, 1.0 at the end: the score is 0.9. bc: 0.1 x seed."""
    found = []
    for task, seed in itertools.product((1, 2), (0, 1, 2)):
        found += [row("evor", task, seed, u, s) for u, s in zip((10, 20, 30, 40), (0.0, 0.8, 0.9, 1.0), strict=True)]
        found += [row("bc", task, seed, u, 0.1 * seed) for u in (20, 30, 40)]
    return found


SCORED = dict.fromkeys((POINT, "scene-play-v0"), (20, 30, 40))


def write(path, content, agents=("bc", "evor", "qc-1"), notes=None):
    """results.csv, and a manifest with tasks 1 and 2 for every agent."""
    listed = [
        {"name": f"{POINT}/{agent}", "dataset": POINT, "tasks": [1, 2], "agent": agent, "seeds": [0]}
        for agent in agents
    ]
    about = {agent: {"preset": "p", "about": "What it is.", "options": "Set so.", "search": "Z 32"} for agent in agents}
    dials = [
        {"num_candidates": n, "return_temperature": 1.0, "action_temperature": t} for n, t in ((4, 1e-3), (32, 0.1))
    ]
    manifest = {"scored": SCORED, "cells": listed, "notes": notes or {}}
    manifest |= {"recipes": {}, "agents": about, "dials": dials, "remark": "All is made up."}
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS)
        writer.writeheader()
        writer.writerows(content)
    return path


def test_the_score_is_the_mean_of_the_last_three(tmp_path):
    scores = score_table(read_results(write(tmp_path / "results.csv", rows())), SCORED)
    assert scores[POINT]["evor"][1][0] == pytest.approx(0.9)
    assert scores[POINT]["bc"][2] == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})


def test_unfinished_cells_have_no_score(tmp_path):
    content = [line for line in rows() if not (line["agent"] == "evor" and line["seed"] == 2 and line["updates"] == 40)]
    scores = score_table(read_results(write(tmp_path / "results.csv", content)), SCORED)
    assert set(scores[POINT]["evor"][1]) == {0, 1}


def test_the_last_three_are_those_of_the_protocol_not_those_there_are(tmp_path):
    """A matrix stopped on its way has three evaluations and no score."""
    found = read_results(write(tmp_path / "results.csv", rows()))
    later = {POINT: (30, 40, 50)}
    assert score_table(found, later) == {}
    assert "| 1 | unfinished | unfinished | not run |" in page(tmp_path, later)


def page(folder, scored=SCORED):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"scored": scored}))
    return write_paper_report(folder).read_text()


def test_two_searches_of_one_network_are_no_score(tmp_path):
    content = [*rows(), row("evor", 1, 0, 40, 0.0, reading="Quadrature-8")]
    with pytest.raises(EvorError, match=r"evor on pointmaze.*task 1, seed 0 was played twice after 40 updates"):
        score_table(read_results(write(tmp_path / "results.csv", content)), SCORED)


def test_every_cell_has_its_place_and_its_reason(tmp_path):
    """The reason too of a cell that was narrowed by --only or --num-seeds, which the manifest does not list."""
    notes = {f"{POINT}/qc-1/tasks12-seed0": "the value's loss is not finite", f"{POINT}/qc-1/tasks2-seed7": "no room"}
    write(tmp_path / "results.csv", rows(), notes=notes)
    text = page(tmp_path)
    assert "| 1 | 10 ± 10 | **90** ± 0 | not run |" in text
    assert "\nqc-1, tasks12-seed0: the value's loss is not finite.\n" in text
    assert "\nqc-1, tasks2-seed7: no room.\n" in text


def test_rows_of_an_unknown_data_set_are_refused_in_every_suite(tmp_path):
    content = [*rows(), row("evor", 1, 0, 40, 0.0, dataset="pointmaxe", suite="ablations")]
    write(tmp_path / "results.csv", content)
    with pytest.raises(EvorError, match="rows of pointmaxe, which is in no cell"):
        write_paper_report(tmp_path)


def test_the_page_says_what_is_missing_and_what_its_scale_is_for(tmp_path):
    """bc and evor have all their two scores of seed 0; of qc-1's there is none."""
    write(tmp_path / "results.csv", rows())
    text = page(tmp_path)
    assert "\nScores that are not there: qc-1 2 of 2.\n" in text
    assert "\nAll is made up.\n" in text
    assert "Ours: 1; 1 episode after each of 20, 30, 40 updates." in text
    other = [row("bc", 1, 0, u, 0.0, dataset="scene-play-v0") for u in SCORED[POINT]]
    write(tmp_path / "results.csv", [*rows(), *other])
    assert "the papers have no results on these tasks" not in page(tmp_path)
    elsewhere = "cube-single-play-v0"
    write(tmp_path / "results.csv", [line | {"dataset": elsewhere} for line in rows()])
    assert "Published: the papers have no results on these tasks." in page(tmp_path, {elsewhere: (20, 30, 40)})


def test_a_seed_that_one_task_lacks_is_told(tmp_path):
    write(tmp_path / "results.csv", [row for row in rows() if (row["task"], row["seed"]) != (2, 1)])
    assert "\nSeeds of a task: bc 2 to 3, evor 2 to 3.\n" in page(tmp_path)


def test_the_summary_tells_seeds_and_why_a_place_is_empty(tmp_path):
    """flow-td is listed and was not played; qc-1 is not listed for these tasks."""
    write(tmp_path / "results.csv", rows(), agents=("bc", "evor", "flow-td"))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["cells"].append({"name": "qc", "dataset": POINT, "tasks": [1], "agent": "qc-1", "seeds": [0]})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    head, _, line = summary(tmp_path)
    assert head == "| dataset, tasks | bc | evor | flow-td | qc-1 |"
    assert line == f"| {POINT}, 1, 2 | 10 ± 10 (3 seeds) | **90** ± 0 (3 seeds) | not run | not at this scale |"


def test_agents_of_different_tasks_are_compared_on_those_they_share(tmp_path):
    """evor beats scalar where both played; qc-1 played elsewhere alone and is compared with nobody."""
    other = [row("qc-1", 3, seed, u, 1.0, dataset="scene-play-v0") for seed in (0, 1) for u in SCORED[POINT]]
    some = [row("scalar", 1, seed, u, 0.1) for seed in (0, 1) for u in SCORED[POINT]]
    write(tmp_path / "results.csv", [*rows(), *other, *some])
    lines = page(tmp_path).splitlines()
    (scalar,) = [line for line in lines if line.startswith("| scalar | 1 x 2")]
    (alone,) = [line for line in lines if line.startswith("| qc-1 | 1 x 2")]
    assert scalar.endswith("| 1.00 [1.00, 1.00] |")
    assert scalar == "| scalar | 1 x 2 | 10.0 [10.0, 10.0] | 90.0 [90.0, 90.0] | 1.00 [1.00, 1.00] |"
    assert alone == "| qc-1 | 1 x 2 | 100.0 [100.0, 100.0] |  |  |"


def test_the_page_tells_the_last_evaluation_and_the_range(tmp_path):
    """evor: 0.8, 0.9, 1.0; of bc every evaluation is the same."""
    write(tmp_path / "results.csv", rows())
    lines = page(tmp_path).splitlines()
    (mean,) = [line for line in lines if line.startswith("| **mean**")]
    after = lines.index(mean)
    assert mean.startswith("| **mean** | 10 ± 10 | **90** ± 0 | not run |")
    assert lines[after + 1].startswith("| of the last evaluation alone | 10 | 100 |  |")
    assert lines[after + 2].startswith("| range over the evaluations | 0 | 20 |  |")
    told = "4 of 6 scores (dataset x agent x task x seed) are there, and 8 of more seeds."  # of bc and evor, two seeds more
    assert told in "".join(lines)


def test_one_seed_has_no_interval(tmp_path):
    write(tmp_path / "results.csv", [line for line in rows() if line["seed"] == 0])
    text = page(tmp_path)
    assert "| evor | 2 x 1 | 90.0 |  |  |" in text
    assert "| bc | 2 x 1 | 0.0 | 90.0 | 1.00 |" in text
    assert "| 1 | 0 (1 seed) | **90** (1 seed) | not run |" in text


def test_the_page_tells_means_deviations_and_published_numbers(tmp_path):
    write(tmp_path / "results.csv", rows())
    text = write_paper_report(tmp_path).read_text()
    assert "| task | bc | evor | qc-1 | QC-1, published | QC-5, published | EVOR, published |" in text
    assert "| 1 | 10 ± 10 | **90** ± 0 | not run | 97 ± 3 | 99 ± 1 | 100 ± 1 |" in text
    assert "Published: official data (1M transitions), 1M updates" in text
    assert "| evor | 2 x 3 | 90.0 [90.0, 90.0] |" in text
    assert "| 1.00 [1.00, 1.00] |" in text  # chance that evor is better than bc
    assert "| bc | `--preset p`. What it is. Set so. | Z 32 | made-bc |" in text
    assert (tmp_path / "profiles.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["data", "ogbench", "mujoco", "reward_rule", "protocol", "recipe"])
def test_rows_that_differ_are_not_averaged(tmp_path, name):
    content = rows()
    content[-1][name] = "another"
    with pytest.raises(EvorError, match=rf"differ in {name} \(1 \| another\)"):
        read_results(write(tmp_path / "results.csv", content))


def test_data_may_differ_between_data_sets_and_versions_may_not(tmp_path):
    other = [row("evor", 1, 0, u, 1.0, dataset="scene-play-v0", data="another") for u in SCORED[POINT]]
    assert len(read_results(write(tmp_path / "results.csv", [*rows(), *other]))) == len(rows()) + 3
    other = [row("evor", 1, 0, u, 1.0, dataset="scene-play-v0", mujoco="another") for u in SCORED[POINT]]
    with pytest.raises(EvorError, match="differ in mujoco"):
        read_results(write(tmp_path / "results.csv", [*rows(), *other]))


@pytest.mark.parametrize("name", ["commit", "jax", "hardware"])
def test_commits_and_machines_are_columns_only(tmp_path, name):
    content = rows()
    content[-1][name] = "another"
    assert len(read_results(write(tmp_path / "results.csv", content))) == len(content)


@pytest.mark.slow
def test_the_ablations_are_drawn_apart_and_never_enter_the_score(tmp_path):
    """Of seeds that have played every point: 4 candidates, and an action temperature of 0.1."""
    dials = {"num_candidates": 32, "return_temperature": 1.0, "action_temperature": 1e-3}
    turned = [
        row("evor", t, s, 40, 0.0, **(dials | {"suite": "ablations"} | change))
        for t, s in itertools.product((1, 2), (0, 1, 2))
        for change in ({"num_candidates": 4}, {"action_temperature": 0.1})
    ]
    content = [line | dials for line in rows()]
    scores = score_table(read_results(write(tmp_path / "results.csv", [*content, *turned])), SCORED)
    assert scores[POINT]["evor"][1][0] == pytest.approx(0.9)
    for missing, told in (
        (0, "seeds 0, 1, 2."),
        (1, "seeds 0, 1; left out until they have played every point: 2."),
        (9, "no seed has played every point yet, so points differ in seeds."),
    ):
        by_seed = sorted(turned, key=lambda line: line["seed"])
        write(tmp_path / "results.csv", [*content, *by_seed[: len(by_seed) - missing]])
        text = page(tmp_path)
        assert f"ablations-{POINT}.png" in text
        assert f"\n{POINT}: 1; after 40 updates; 1 episode of each task and seed; {told}\n" in text


def times(cell, evaluation, seconds, peak=100):
    return dict.fromkeys(TIMES, 0) | {
        "cell": f"{POINT}/{cell}-seed0",
        "evaluation": evaluation,
        "seconds": seconds,
        "seconds_per_update": 90.0,
        "peak_mib": peak,
    }


def test_costs_are_of_the_agents_own_search_and_hours_of_whole_cells(tmp_path):
    """evor: 40 updates of 90 s and three evaluations of 120 s are 1.1 hours; the ablations' play is not among them."""
    write(tmp_path / "results.csv", rows())
    evor = [times("evor/tasks1", f"{u:09d}_softmax_1_task1-seed0", 120, peak=u) for u in (20, 30, 40)]
    ablation = times("evor/tasks1", "000000040_softmax_64_task1-seed0", 9999)
    half = [times("bc/tasks12", f"{u:09d}_prior_task{t}-seed0", 60) for u, t in ((20, 1), (20, 2), (30, 1), (40, 1))]
    begun = [times("qc-1/tasks1", "000000020_best_task1-seed0", 7)]
    write_csv(tmp_path / "timings.csv", TIMES, rows=[*evor, ablation, *half, *begun])
    text = page(tmp_path)
    assert f"| {POINT} | evor | 1, 1 | 90.0000 | 120 | 1.10 | 100 |" in text
    assert f"| {POINT} | bc | 1, 0 | 90.0000 | 80 | not whole | 100 |" in text
    assert f"| {POINT} | qc-1 | 1, 0 | 90.0000 | 7 | not whole | 100 |" in text
    assert "\nIn total: 2.7 process-hours.\n" in text  # 1.1, 40 x 90 s and 240 s, 20 x 90 s and 7 s


@pytest.mark.parametrize(
    ("name", "value"), [("success", "1.2"), ("success", "nan"), ("success", "much"), ("task", "x"), ("updates", "")]
)
def test_a_value_that_is_none_is_named_with_its_line(tmp_path, name, value):
    content = rows()
    content[2][name] = value
    with pytest.raises(EvorError, match=rf"line 4 of .*results\.csv is damaged \(.*'{value}'"):
        read_results(write(tmp_path / "results.csv", content))


def test_rows_of_a_data_set_that_is_in_no_cell_are_told(tmp_path):
    write(tmp_path / "results.csv", [*rows(), row("evor", 1, 0, 40, 1.0, dataset="mine-v0")])
    with pytest.raises(EvorError, match="rows of mine-v0, which is in no cell"):
        page(tmp_path)


def test_the_siblings_published_means_stand_beside_five_tasks_alone():
    """They are of five tasks: beside two there is nothing to compare with, unless single tasks are known."""
    cube, five = "cube-single-play-v0", (1, 2, 3, 4, 5)
    assert published.heads(cube, five) == {
        "fql": "FQL, published",
        "ifql": "IFQL, published",
        "iql": "IQL, published",
        "rebrac": "ReBRAC, published",
        "sorl": "SORL, published",
    }
    assert published.heads(cube, (1, 2)) == {}
    assert list(published.heads("scene-play-v0", five))[:3] == ["qc-1", "qc-5", "evor"]
    stitch = "antmaze-large-stitch-v0"
    assert list(published.heads(stitch, (1, 2)))[3:] == ["fql, re-tuned", "rebrac, re-tuned"]
    assert published.task(stitch, 3, agent="rebrac, re-tuned") == "98"
    assert published.task(cube, 1, agent="rebrac") is None
    assert [published.overall(name, "value-flows") for name in ("scene-play-v0", cube)] == ["59 ± 4", None]
    assert [published.overall(name, "sorl") for name in (cube, "scene-play-v0", POINT)] == ["97 ± 1", "57 ± 2", None]
    double = published.conditions("cube-double-play-v0", ["evor", "fql", "rebrac"])
    assert double.startswith("official data (100M transitions), 1M updates")
    assert "; of FQL, ReBRAC the mean over five tasks and 8 seeds: official data (1M transitions)" in double
    assert published.conditions(POINT, []) == ""
    for source in published.SIBLINGS.values():  # a mean is that of its tasks
        for dataset, tasks in (source.tasks or {}).items():
            assert float(source.overall[dataset].split()[0]) == pytest.approx(np.mean(tasks), abs=0.6)


def test_published_means_tell_where_the_two_tables_differ():
    """Table 1 is given; Table 2's mean stands beside it where it is another, or alone where Table 1 is illegible."""
    differing = {}
    for dataset, tasks in published.PUBLISHED_TASKS.items():
        for index, agent in enumerate(published.PUBLISHED_AGENTS):
            told = published.overall(dataset, agent)
            if "(" in told:
                differing[dataset, agent] = told
            else:
                assert float(told.split()[0]) == pytest.approx(np.mean([row[index][0] for row in tasks]), abs=1)
    assert differing == {
        ("antmaze-large-navigate-v0", "qc-1"): "12 (Table 2)",
        ("antmaze-large-stitch-v0", "qc-5"): "4 ± 4 (Table 2: 5)",
        ("antmaze-large-stitch-v0", "evor"): "18 ± 1 (Table 2: 15)",
    }


@pytest.mark.parametrize("remark", ["", "All is made up."])
def test_the_page_begins_with_its_title_and_the_remark_of_its_scale(tmp_path, remark):
    write(tmp_path / "results.csv", rows())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"remark": remark}))
    blocks = write_paper_report(tmp_path).read_text().split("\n\n")
    assert blocks[0] == "# Reproduction of the paper's experiment"
    assert (blocks[1] == remark) == bool(remark)
    assert blocks[1 + bool(remark)].startswith("`evor` is this library's default recipe")


CUBE = "cube-single-play-v0"


def of_sorl(folder, content, **changes):
    """A reproduction of SORL's experiment: results.csv, and a manifest of the cube's task 2 for every agent."""
    agents = sorted({line["agent"] for line in content})
    write(folder / "results.csv", content, agents=agents)
    manifest = json.loads((folder / "manifest.json").read_text())
    cells = [
        {"name": f"{CUBE}/{agent}", "dataset": CUBE, "tasks": [2], "agent": agent, "seeds": [0, 1]} for agent in agents
    ]
    grid = [
        {"num_candidates": n, "flow_steps": m, "return_temperature": 1, "action_temperature": 1}
        for n, m in itertools.product((1, 4), (1, 2))
    ]
    trained = {f"sorl-{steps}": steps for steps in (1, 2, 4)} | {"sorl": 8}
    recipes = {agent: {"r": {"agent": {"trained_steps": trained[agent]}}} for agent in agents if agent in trained}
    manifest |= {"matrix": "sorl", "lead": "sorl", "cells": cells, "dials": grid, "recipes": recipes}
    manifest |= {"scored": {CUBE: [20, 30, 40]}} | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return write_paper_report(folder).read_text()


def on_cube(agent, seed, success, **changes):
    return [
        row(agent, 2, seed, updates, success, dataset=CUBE, suite="sorl", extraction="BestOf", **changes)
        for updates in (20, 30, 40)
    ]


def grid_rows(seed, success):
    """Of the last checkpoint, but for the agent's own search: 4 candidates in 2 steps."""
    return [
        row("sorl", 2, seed, 40, success(n, m), dataset=CUBE, suite="scaling", extraction="BestOf", episodes=50)
        | {"num_candidates": n, "flow_steps": m}
        for n, m in ((1, 1), (1, 2), (4, 1))
    ]


def test_the_scaling_of_sorl_is_drawn_and_told(tmp_path):
    """100 episodes of two seeds: more steps change 20 % to 30 %, which intervals hide, and more candidates 30 % to 90 %."""
    own = {"num_candidates": 4, "flow_steps": 2, "episodes": 50}
    content = [line for seed in (0, 1) for line in on_cube("sorl", seed, 0.9, **own)]
    content += [line for seed in (0, 1) for line in on_cube("sorl-1", seed, 0.5 + 0.2 * seed)]
    content += [line for seed in (0, 1) for line in grid_rows(seed, lambda n, m: 0.3 if m == 2 else 0.1 + 0.1 * n)]
    text = of_sorl(tmp_path, content)
    assert text.startswith("# Reproduction of SORL's experiment\n\n")
    assert f"![{CUBE}](scaling-{CUBE}.png)" in text
    assert (tmp_path / f"scaling-{CUBE}.png").stat().st_size > 1000
    assert f"{CUBE}, task 2: 1; after 40 updates; 50 episodes of each task and seed; seeds 0, 1." in text
    assert (
        "From 1 to 2 flow steps, with 1 candidate, success goes from 20 [13, 29] to 30 [22, 40]: the intervals" in text
    )
    assert "From 1 to 4 candidates, in 2 flow steps, success goes from 30 [22, 40] to 90 [83, 94]: it rises by" in text
    assert "![success by trained steps](trained-steps.png)" in text
    assert f"\n{CUBE}, by steps in training: 1: 60 ± 14 (2 seeds); 8: 90 ± 0 (2 seeds).\n" in text
    assert "| 2 | **90** ± 0 | 60 ± 14 |" in text  # the grid's points are no scores
    assert "| sorl-1 | 1 x 2 | 60.0 [50.0, 70.0] | 90.0 [90.0, 90.0] | 1.00 [1.00, 1.00] |" in text  # against the lead
    told = "Over all five tasks of official data: FQL 96, IFQL 79 (?), IQL 83, ReBRAC 91, SORL 97 ± 1; (?) is not verified."
    assert told in text


def test_trained_steps_are_compared_on_the_tasks_and_seeds_that_all_have():
    """Agent sorl has played a second, harder task with one of its seeds; sorl-1 has not begun it."""
    content = [line for seed in (0, 1) for agent in ("sorl", "sorl-1") for line in on_cube(agent, seed, 0.9)]
    content += [line | {"task": 3, "success": 0.1} for line in on_cube("sorl", 0, 0.1)]
    recipes = {agent: {"r": {"agent": {"trained_steps": n}}} for agent, n in (("sorl", 8), ("sorl-1", 1))}
    manifest = {"matrix": "sorl", "scored": {CUBE: [20, 30, 40]}, "recipes": recipes}
    found = scores_by_steps(Results(rows=content, manifest=manifest, times=[]))
    assert {steps: scores.tolist() for steps, scores in found[CUBE].items()} == {1: [90, 90], 8: [90, 90]}


def test_seeds_that_lack_points_of_the_grid_are_left_out_of_it(tmp_path):
    own = {"num_candidates": 4, "flow_steps": 2, "episodes": 50}
    content = [line for seed in (0, 1) for line in on_cube("sorl", seed, 0.9, **own)]
    content += grid_rows(0, lambda n, m: 0.2) + grid_rows(1, lambda n, m: 1.0)[:2]
    text = of_sorl(tmp_path, content)
    assert "seeds 0; left out until they have played every point: 1." in text
    assert "success goes from 20 [11, 33] to 20 [11, 33]" in text
    assert "Scaling in training" not in text


def test_an_agent_of_fewer_updates_is_labelled(tmp_path):
    """value-flows ends after 10 updates, the others after 40."""
    few = [
        line | {"updates": updates} for line, updates in zip(on_cube("value-flows", 0, 0.4), (8, 9, 10), strict=True)
    ]
    content = [*on_cube("sorl", 0, 0.9), *few]
    assert "| 2 | **90** (1 seed) | unfinished |" in of_sorl(tmp_path, content)
    text = of_sorl(tmp_path, content, scored={CUBE: [20, 30, 40], f"{CUBE}/value-flows": [8, 9, 10]})
    assert "| task | sorl | value-flows, 10 updates |" in text
    assert "| 2 | **90** (1 seed) | 40 (1 seed) |" in text
    assert "after each of 20, 30, 40 (value-flows: 8, 9, 10) updates" in text
    assert f"\nvalue-flows made 10 updates on {CUBE}, fewer than the others.\n" in text
    assert summary(tmp_path)[-1] == f"| {CUBE}, 2 | **90** (1 seed) | 40 (1 seed), 10 updates |"


def test_a_reproduction_of_an_unknown_matrix_is_refused(tmp_path):
    with pytest.raises(EvorError, match="is of the matrix 'later', which this version does not know; update evor"):
        of_sorl(tmp_path, on_cube("sorl", 0, 0.9), matrix="later")
