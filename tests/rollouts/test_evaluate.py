"""Playing the real environment, and what the report makes of it."""

import csv
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import evor
from conftest import DATASET, EPISODE_STEPS, TINY
from evor.cli.evaluate import sweep_options
from evor.cli.options import options
from evor.envs.vector import environments
from evor.errors import EvorError
from evor.policies.load import open_run
from evor.report.evaluations import COLUMNS, RETURNS
from evor.report.run import read_evaluations, write_report
from evor.report.success import group, success_interval
from evor.rollouts import play as playing
from evor.rollouts.evaluate import evaluate, file_name
from evor.rollouts.play import play
from evor.rollouts.returns import discounted_return, returns_of
from evor.runtime.files import read_arrays, write_csv
from evor.search.extraction import BestOf, Prior, SoftmaxOf
from evor.training.config import RunConfig
from evor.training.train import train


@pytest.fixture(scope="module")
def played(tiny_run, tmp_path_factory):
    """A copy of the run, with two evaluations."""
    run = tmp_path_factory.mktemp("played") / "run"
    shutil.copytree(tiny_run, run)
    for extraction in (Prior(), SoftmaxOf(2)):
        evaluate(run, extraction, episodes=2)
    return run


def test_one_row_per_episode_with_its_settings(played):
    with open(played / "evaluations" / f"{file_name(SoftmaxOf(2))}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert [(r["task"], r["seed"], r["episode"]) for r in rows] == [
        (task, seed, episode) for task in "14" for seed in "01" for episode in "01"
    ]
    for row in rows:
        assert (row["num_candidates"], row["return_temperature"], row["action_temperature"]) == ("2", "1.0", "0.03")
        assert row["reading"] == "Quadrature-10-2"
        # -1 per step until the goal, then one step of reward 0.
        assert float(row["return"]) == -int(row["length"]) + int(row["success"])
        assert int(row["length"]) <= EPISODE_STEPS
        # Discounted, it is -(1 + 0.99 + ...) over the steps that cost something.
        steps = int(row["length"]) - int(row["success"])
        assert float(row["discounted_return"]) == pytest.approx(-(1 - 0.99**steps) / 0.01, abs=1e-5)


def test_a_row_tells_what_the_value_predicted_at_the_first_decision(tiny_run):
    """Whatever is played beside it, and by a search as by the base policy."""
    policy = evor.load(tiny_run, 1, seed=0)
    for extraction in (Prior(), SoftmaxOf(2)):
        (episode, _) = play(policy, DATASET, task=1, extraction=extraction, episodes=2, evaluation_seed=0)
        told = returns_of(policy, episode, config=open_run(tiny_run).config)
        assert tuple(told) == tuple(RETURNS)
        assert (episode.first_action.shape, len(episode.rewards)) == ((1, 2), episode.length)
        nodes = policy.quantiles(episode.observations[0], episode.first_action[0], num_nodes=64)
        assert told["predicted_mean"] == pytest.approx(nodes.mean(), abs=1e-4)
        assert told["predicted_q50"] == pytest.approx((nodes[31] + nodes[32]) / 2, abs=1e-4)
        # 6.4 of 64 midpoints lie below the 10 % quantile: it is 0.9 of the way from the 6th to the 7th.
        assert told["predicted_q10"] == pytest.approx(nodes[5] + 0.9 * (nodes[6] - nodes[5]), abs=1e-4)


def test_a_discounted_return_weighs_the_reward_of_step_t_by_the_discount_to_the_power_of_t():
    assert discounted_return(np.array([1.0, 2.0, 4.0]), 0.5) == 1 + 2 / 2 + 4 / 4
    assert discounted_return(np.array([1.0, 2.0, 4.0]), 0) == 1
    assert discounted_return(np.zeros(0), 0.5) == 0


def test_without_a_value_or_with_a_diverged_one_nothing_is_predicted(tiny_run):
    policy = evor.load(tiny_run, 1, seed=0)
    (episode,) = play(policy, DATASET, task=1, extraction=Prior(), episodes=1, evaluation_seed=0, max_episode_steps=2)
    config, nothing = open_run(tiny_run).config, dict.fromkeys(RETURNS, "")
    without = SimpleNamespace(has_value=False)
    assert returns_of(without, episode, config=config) == nothing
    diverged = SimpleNamespace(
        has_value=True, config=policy.config, quantiles=lambda *_, **__: np.full((1, 64), np.nan)
    )
    assert returns_of(diverged, episode, config=config) == nothing


def test_sparse_rewards_of_training_are_those_of_the_realised_return(tiny_run):
    """Environments pay minus the number of things to do, whatever a run was trained on."""
    policy = evor.load(tiny_run, 1, seed=0)
    (episode,) = play(policy, DATASET, task=1, extraction=Prior(), episodes=1, evaluation_seed=0, max_episode_steps=3)
    episode = episode._replace(rewards=np.array([-3.0, -1.0, 0.0]))
    config = open_run(tiny_run).config
    for sparse, wanted in ((False, -3 - 0.99), (True, -1 - 0.99)):
        told = returns_of(policy, episode, config=replace(config, sparse_rewards=sparse))
        assert told["discounted_return"] == pytest.approx(wanted)


def test_evaluation_is_repeatable_and_each_episode_stands_alone(tiny_run):
    policy = evor.load(tiny_run, 1, seed=0)

    def positions(episodes, seed):
        return [
            episode.observations
            for episode in play(policy, DATASET, task=1, extraction=Prior(), episodes=episodes, evaluation_seed=seed)
        ]

    three, again, two, other = positions(3, 0), positions(3, 0), positions(2, 0), positions(2, 1)
    for index in range(3):
        np.testing.assert_array_equal(three[index], again[index])
    for index in range(2):
        np.testing.assert_allclose(two[index][:20], three[index][:20], atol=1e-4)
        assert (two[index][0] != other[index][0]).any()


def test_waves_play_the_same_episodes(tiny_run):
    """Three waves of at most two for five episodes, each told once with its number; where all fit, bit for bit as one."""
    policy = evor.load(tiny_run, 1, seed=0)
    told = []

    def played(**options):
        return play(policy, DATASET, task=1, extraction=Prior(), episodes=5, evaluation_seed=0, **options)

    whole, waves = played(), played(parallel=2, ended=lambda index, episode: told.append((index, episode)))
    for one, other, again in zip(whole, waves, played(parallel=5), strict=True):
        np.testing.assert_allclose(one.observations[:20], other.observations[:20], atol=1e-4)
        np.testing.assert_array_equal(one.observations, again.observations)
    assert sorted(index for index, _ in told) == [0, 1, 2, 3, 4]
    assert all(waves[index] is episode for index, episode in told)


def test_a_wave_of_free_memory_is_the_default(tiny_run, monkeypatch):
    sizes = []
    monkeypatch.setattr(playing, "fitting", lambda dataset: 2.0)
    monkeypatch.setattr(playing, "environments", lambda *a, **k: sizes.append(k["count"]) or environments(*a, **k))
    assert (
        len(
            play(
                evor.load(tiny_run, 1, seed=0),
                DATASET,
                task=1,
                extraction=Prior(),
                episodes=3,
                evaluation_seed=0,
                max_episode_steps=3,
            )
        )
        == 3
    )
    assert sizes == [2]


def test_a_cut_episode_is_the_start_of_the_whole_one_and_a_failure(tiny_run):
    policy = evor.load(tiny_run, 1, seed=0)
    whole = play(policy, DATASET, task=1, extraction=Prior(), episodes=2, evaluation_seed=0)
    cut = play(policy, DATASET, task=1, extraction=Prior(), episodes=2, evaluation_seed=0, max_episode_steps=7)
    for episode, full in zip(cut, whole, strict=True):
        assert (episode.length, episode.total_reward, episode.success) == (7, -7, 0)
        np.testing.assert_array_equal(episode.observations, full.observations[:8])


def test_evaluating_again_replaces_the_file(played):
    path = played / "evaluations" / f"{file_name(Prior())}.csv"
    before = path.read_text()
    evaluate(played, Prior(), episodes=2)
    assert path.read_text() == before


def test_evaluating_a_part_keeps_the_rest(played, tmp_path):
    played = shutil.copytree(played, tmp_path / "run")
    path = played / "evaluations" / f"{file_name(Prior())}.csv"
    before = path.read_text()
    new = evaluate(played, Prior(), episodes=1, tasks=(4,), seeds=(1,))
    assert len(new) == 1
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(r["task"], r["seed"]) for r in rows] == [("1", "0")] * 2 + [("1", "1")] * 2 + [("4", "0")] * 2 + [
        ("4", "1")
    ]
    evaluate(played, Prior(), episodes=1, evaluation_seed=5, tasks=(1,), seeds=(0,))
    assert len(path.read_text().splitlines()) == 1 + 7 + 1
    for task, seed in ((1, 0), (4, 1)):
        evaluate(played, Prior(), episodes=2, tasks=(task,), seeds=(seed,))
    rows = [line for line in path.read_text().splitlines() if ",5,pre," not in line]
    assert "\n".join(rows) + "\n" == before


def test_lost_trajectories_cost_no_rows(played, tmp_path):
    """A damaged file is named before anything is played; removed, it is made anew."""
    played = shutil.copytree(played, tmp_path / "run")
    drawn = played / "evaluations" / f"{file_name(Prior())}.npz"
    before = drawn.with_suffix(".csv").read_bytes()
    drawn.write_bytes(b"no archive")
    with pytest.raises(EvorError, match=r"truncated; remove it"):
        evaluate(played, Prior(), episodes=2, tasks=(4,))
    drawn.unlink()
    evaluate(played, Prior(), episodes=2, tasks=(4,))
    assert drawn.with_suffix(".csv").read_bytes() == before
    assert {name.split("/")[0] for name in read_arrays(drawn)} == {"4"}


@pytest.mark.slow
def test_searches_of_different_tasks_make_a_report(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    evaluate(run, Prior(), episodes=1, tasks=(1,), seeds=(0,))
    evaluate(run, SoftmaxOf(2), episodes=1, tasks=(4,), seeds=(0,))
    assert {name.split("/")[0] for name in read_arrays(run / "evaluations" / "maze.npz")} == {"1", "4"}
    page = write_report([run]).read_text()
    assert "Value of task 1" in page
    assert "Candidates of task 4" in page
    assert "without and with search" not in page


def test_the_report_is_of_the_newest_checkpoint(played, tmp_path):
    played = shutil.copytree(played, tmp_path / "run")
    path = played / "evaluations" / f"{file_name(Prior())}.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    write_csv(path.with_name("older.csv"), COLUMNS, rows=[row | {"updates": 10} for row in rows])
    assert {updates: len(rows) for updates, rows in read_evaluations(played).items()} == {20: 16, 10: 8}
    assert next(iter(read_evaluations(played))) == 20


def test_a_run_on_own_data_has_no_environment(tmp_path, user_file):
    train(RunConfig(data=str(user_file()), updates=2, agent=TINY), tmp_path / "run")
    with pytest.raises(EvorError, match="no environment"):
        evaluate(tmp_path / "run", Prior())


def test_sweep_crosses_all_values():
    words = "run --num-candidates 1 4 --return-temperature 0 1 --action-temperature 1e-3 1 --flow-steps 5"
    grid = options("evor sweep", words.split(), defaults=sweep_options()).extraction.all()
    assert len(grid) == 8
    assert len({file_name(search) for search in grid}) == 8
    assert set(map(type, grid)) == {SoftmaxOf}
    assert {search.flow_steps for search in grid} == {5}


def test_settings_have_files_of_their_own():
    settings = [
        Prior(),
        BestOf(1),
        SoftmaxOf(1),
        SoftmaxOf(1, reading=evor.RandomSamples(8)),
        SoftmaxOf(1, flow_steps=5),
    ]
    assert len({file_name(setting) for setting in settings}) == len(settings)


def test_the_report_is_one_page_with_everything_inside(played):
    page = write_report([played]).read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) >= 5
    assert "data:image/gif;base64," in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for word in (
        "Success",
        "Success against number of candidates",
        "Learning curve",
        "Predicted against realised returns",
        "Learned value map",
        "Return distributions of candidate actions",
        "without and with search on task 1: the first 2 episodes, played together.",  # as many as were played
        *(f"{part} of task {task}" for part in ("Trajectories", "Value", "Candidates") for task in (1, 4)),
        "mujoco 3.3.1",
    ):
        assert word in page


def test_the_report_counts_what_the_rows_say(played):
    groups = group(read_evaluations(played)[20])
    assert [setting[0] for setting in groups] == ["Prior", "SoftmaxOf"]
    assert all(len(rows) == 8 for rows in groups.values())


def test_a_run_without_evaluations_is_refused(tiny_run):
    with pytest.raises(EvorError, match="no evaluations"):
        write_report([tiny_run])


@pytest.mark.parametrize("content", [b"", b"PK junk", b"no archive at all"])
def test_a_damaged_drawing_is_said(tmp_path, content):
    (tmp_path / "maze.npz").write_bytes(content)
    with pytest.raises(EvorError, match=r"maze\.npz is not an npz file or is truncated; .*evaluate that setting again"):
        read_arrays(tmp_path / "maze.npz")


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.1611), (10, 0.2993, 0.7007), (20, 0.8389, 1.0)])
def test_wilson_interval(successes, low, high):
    rows = [{"success": float(i < successes)} for i in range(20)]
    assert success_interval(rows) == pytest.approx((low, high), abs=1e-3)
