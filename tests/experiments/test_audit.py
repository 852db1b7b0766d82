"""`evor audit`: its statistics against closed forms, its rows, its verdict, what it refuses, and the command."""

import functools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm, spearmanr

import four_rooms
from conftest import DATASET, TINY, user_arrays
from evor.agents.base import Frozen
from evor.cli.main import main
from evor.data.formats.ogbench import load_dataset
from evor.data.read import read_dataset
from evor.data.scripted.generate import generate
from evor.distributions.measures import midpoints
from evor.errors import EvorError
from evor.experiments.audit import choices, evidence, runner, values
from evor.experiments.audit.evidence import Compared
from evor.experiments.audit.measure import AuditSettings, _evidence
from evor.experiments.audit.recorded import (
    HeldOut,
    Recorded,
    compared_rows,
    read_held_out,
    repeated_states,
    thinned,
)
from evor.experiments.audit.verdict import Answer, Evidence, decide
from evor.policies.policy import Policy
from evor.policies.searched import SearchedPolicy
from evor.report.calibration import LEVELS, Predictions
from evor.report.statistics import (
    Estimate,
    auroc,
    correlation_within,
    estimate_by_episode,
    mean_by_episode,
    ranks_within,
    spearman,
)
from evor.runtime.records import replace
from evor.search.extraction import BestOf
from evor.types import ActionBounds, Spec

RANDOM = np.random.default_rng(0)


# Statistics.


def test_rank_correlation_with_ties_is_scipys():
    first, second = RANDOM.integers(0, 5, 60).astype(float), RANDOM.integers(0, 5, 60).astype(float)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert spearman(first, np.exp(first)) == pytest.approx(1)
    assert math.isnan(spearman(first, np.ones(60)))


def test_auroc_counts_pairs():
    score, positive = RANDOM.integers(0, 6, 40).astype(float), RANDOM.random(40) < 0.3
    above = score[positive][:, None] - score[~positive]
    assert auroc(score, positive) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    u = mannwhitneyu(score[positive], score[~positive]).statistic
    assert auroc(score, positive) == pytest.approx(u / above.size)
    assert math.isnan(auroc(score, np.zeros(40, bool)))


def test_correlation_within_groups_forgets_their_levels():
    group = np.repeat(np.arange(10), 4)
    first = RANDOM.normal(size=40)
    levels = 100.0 * RANDOM.permutation(10)
    ranks = ranks_within(first, group)
    assert sorted(ranks[group == 3]) == [1, 2, 3, 4]
    assert correlation_within(ranks, ranks_within(2 * first - levels[group], group), group=group) == pytest.approx(1)
    assert spearman(first, 2 * first - levels[group]) < 0.5


def test_intervals_are_over_episodes_and_not_rows():
    """Ten equal rows of each of 50 episodes: the standard error is that of 50 numbers."""
    of_episode = RANDOM.normal(size=50)
    episode, values = np.repeat(np.arange(50), 10), np.repeat(of_episode, 10)
    wide = 2 * 1.96 * of_episode.std() / math.sqrt(50)
    for told in (
        mean_by_episode(episode, values),
        estimate_by_episode(lambda column: float(column.mean()), episode, values),
    ):
        assert told.value == pytest.approx(of_episode.mean())
        assert told.high - told.low == pytest.approx(wide, rel=0.15)
    assert math.isnan(mean_by_episode(np.zeros(9, int), values[:9]).low)


def test_medoid_is_the_candidate_nearest_to_all():
    candidates, std = RANDOM.normal(size=(70, 5, 3, 2)), np.array([1.0, 4.0])
    for row, index in enumerate(choices.medoid(candidates, std)):
        one = candidates[row] / std
        totals = [sum(np.sqrt(((a - b) ** 2).sum()) for b in one) for a in one]
        assert index == int(np.argmin(totals))


def compared(shift=0.0, rows=600):
    """Rows whose true distribution, Normal(m, 1) of a known m, is predicted with a shift."""
    generator = np.random.default_rng(1)
    mean = 3 * generator.normal(size=rows)
    nodes = mean[:, None] + shift + norm.ppf(midpoints(64))
    return Compared(np.arange(rows) // 20, nodes, mean + generator.normal(size=rows))


def test_the_true_distribution_is_calibrated():
    told = evidence.calibrated(compared(), _predictions(compared()))
    assert np.abs(np.array(told["pit"]) - 0.1).max() < 0.025
    assert told["inside"][80] == pytest.approx(0.8, abs=0.04)
    assert told["inside"][50] == pytest.approx(0.5, abs=0.04)
    assert told["crps"]["value"].value == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)  # of a standard normal
    assert told["crps"]["whatever the state"].value == pytest.approx(
        compared().realised.std() / math.sqrt(math.pi), rel=0.03
    )
    shifted = evidence.calibrated(compared(2.0), _predictions(compared(2.0)))
    assert shifted["shift"].value == pytest.approx(2, abs=0.1)
    assert shifted["crps"]["value"].value > 1.2
    assert shifted["crps"]["without the shift"].value == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)


def _predictions(pairs):
    quantiles = np.quantile(pairs.nodes, LEVELS, axis=1).T
    return Predictions(mean=pairs.mean, quantiles=quantiles, realised=pairs.realised)


def test_a_shift_changes_no_rank_and_the_exact_value_reaches_what_is_said():
    told, shifted = evidence.ranking(compared()), evidence.ranking(compared(5.0))
    assert told["across"] == shifted["across"]
    assert told["across"].value == pytest.approx(told["exact"], abs=0.03)
    expected = 6 / math.pi * math.asin(3 / math.sqrt(10) / 2)  # of two normals
    assert told["across"].value == pytest.approx(expected, abs=0.03)


def test_returns_that_no_rewards_can_give_are_counted():
    pairs = Compared(np.arange(4), np.array([[-2.0, 0], [0, 1], [0.5, 1.005], [2, 2]]), np.zeros(4))
    told = evidence.outside(pairs, (0.0, 1.0))
    assert (told["returns"], told["means"]) == (3 / 8, 2 / 4)
    assert evidence.outside(pairs, (-math.inf, math.inf))["returns"] == 0


def test_alarms_rank_failures():
    pairs = compared()
    told = evidence.alarms(pairs, bent=-pairs.realised)
    assert told["failures"] == pytest.approx(0.25, abs=0.01)
    assert told["auroc"]["bent flow path"].value == 1
    assert told["auroc"]["low value"].low > 0.9
    assert evidence.alarms(pairs._replace(realised=np.zeros(600)), None)["auroc"] == {}


def test_a_choice_by_noise_gains_by_its_own_scores_alone():
    """The winner's curse: the second opinion has the truth, and no gain."""
    noise = RANDOM.normal(size=(600, 8))
    scored = choices.Choices(noise, noise, second=RANDOM.normal(size=(600, 8)))
    *_, last = choices.gain_by_number(scored, np.arange(600) // 10)
    assert last["candidates"] == 8
    assert last["own"].value == pytest.approx(1.42, abs=0.1)  # the mean of the largest of 8 standard normals
    assert last["second"].low < 0 < last["second"].high
    told = choices.controls(
        scored,
        RANDOM.normal(size=(600, 8, 2)),
        index=noise.argmax(axis=1),
        std=np.ones(2),
        episode=np.arange(600) // 10,
    )
    assert told["search"]["own"].value == pytest.approx(last["own"].value)
    for name in ("base policy", "random of N", "medoid of N"):
        assert abs(told[name]["own"].value) < 0.15, name


def test_a_recorded_action_is_scored_at_the_noises_of_the_proposals():
    """Where a search samples returns, a score holds their noise, which must cancel in an advantage."""

    class Noisy:
        config = SimpleNamespace(chunk_length=1)

        def choose(self, observations, candidates, *, seed, extraction):
            noise = np.array([np.random.default_rng(one).normal() for one in np.broadcast_to(seed, len(candidates))])
            return SimpleNamespace(scores=candidates[..., 0] + 100 * noise[:, None])

        def decide(self, observations, seed, *, extraction):
            candidates = np.random.default_rng(0).normal(size=(len(observations), 3, 1))
            scores = self.choose(observations, candidates, seed=seed, extraction=extraction).scores
            return SimpleNamespace(candidates=candidates, index=scores.argmax(axis=1), scores=scores)

    number = np.arange(300)
    episodes = SimpleNamespace(observations=number[:, None] / 300, actions=number[:, None] / 300)
    recorded = Recorded(rows=number, episode=number // 30, realised=number * 1.0, window=1, is_complete=True)
    options = {"search": BestOf(3), "others": [], "has_spread": False, "advance": lambda count: None}
    decided = values.decisions(Noisy(), episodes, recorded=recorded, **options)
    advantage = decided.taken - decided.scores.mean(axis=1)
    np.testing.assert_allclose(advantage, number / 300 - decided.candidates.mean(axis=(1, 2)), atol=1e-9)


def test_spread_of_proposals():
    same = np.ones((10, 8, 2))
    assert choices.spread(same, np.ones(2))["alone"] == 1
    told = choices.spread(RANDOM.normal(size=(500, 8, 2)) * [1, 3], np.array([1, 3]))
    assert told["alone"] == 0
    assert told["columns"] == pytest.approx([0.94, 0.94], abs=0.05)


# Rows.


def held_out(**changes):
    return HeldOut("held.npz", read_dataset(user_arrays(rows=400, **changes)), ())


def test_realised_returns_are_sums_of_a_window():
    """Episodes of 20 rows are cut long before rewards become negligible at 0.99: the window is half as long."""
    data = held_out()
    told = compared_rows(data, discount=0.99, chunk_length=1)
    assert (told.window, told.is_complete) == (10, False)
    rewards = data.episodes.rewards[0].astype(float)
    for row, realised in zip(told.rows, told.realised, strict=True):
        assert realised == pytest.approx(rewards[row : row + 10] @ 0.99 ** np.arange(10), abs=1e-5)
    assert (told.rows % 20).max() <= 10
    assert compared_rows(data, discount=0.5, chunk_length=1)[3:] == (7, True)  # 0.5^7 is below 1 %
    chunky = compared_rows(data, discount=0.99, chunk_length=12)
    assert chunky.window == 12
    assert (chunky.rows % 20).max() <= 8


def test_nothing_is_cut_where_every_episode_finishes():
    ends = np.arange(400) % 20 == 19
    data = held_out(terminations=ends, truncations=np.zeros(400, bool))
    told = compared_rows(data, discount=0.99, chunk_length=1)
    assert told.is_complete
    assert len(told.rows) == 400
    rewards = data.episodes.rewards[0].astype(float)
    assert told.realised[5] == pytest.approx(rewards[5:20] @ 0.99 ** np.arange(15), abs=1e-5)


def test_rows_are_thinned_evenly():
    told = compared_rows(held_out(), discount=0.5, chunk_length=1)
    few = thinned(told, 60)
    assert len(np.unique(few.episode)) == len(np.unique(told.episode)) == 20
    assert np.bincount(few.episode).tolist() == [3] * 20
    assert len(np.unique(thinned(told, 5).episode)) == 5


def test_states_that_several_episodes_went_through_are_found():
    places = RANDOM.normal(size=(20, 3)).astype(np.float32)
    data = held_out(observations=places[np.arange(400) % 20])  # the same walk in each episode
    told = compared_rows(data, discount=0.5, chunk_length=1)
    rows, state = repeated_states(told, data.episodes.observations, number=100)
    assert len(rows.rows) == 100
    assert len(np.unique(state)) == 5
    for one in np.unique(state):
        assert len(np.unique(rows.rows[state == one] % 20)) == 1
        assert len(np.unique(rows.episode[state == one])) == 20
    none, _ = repeated_states(told, RANDOM.normal(size=(400, 3)).astype(np.float32), number=100)
    assert not len(none.rows)


# The verdict.


def good(**changes):
    yes = Estimate(0.5, 0.4, 0.6)
    told = Evidence(
        across=yes,
        across_luck=0.0,
        advantage=Estimate(0.2, 0.12, 0.3),
        advantage_luck=0.0,
        within=yes,
        candidates=32,
        equal=0.0,
        confirmed=yes,
        kept=1.0,
        best_number=32,
        outside=0.0,
        played=None,
    )
    return told._replace(**changes)


NONE, BELOW = Estimate(0.02, -0.05, 0.1), Estimate(-0.3, -0.4, -0.2)
MISSING = Estimate(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("changes", "answer", "words"),
    [
        ({}, Answer.YES, "correlation of advantages"),
        ({"advantage": Estimate(0.1, 0.06, 0.2)}, Answer.FEW, "few candidates"),
        ({"advantage": NONE}, Answer.FEW, "rank correlation of predicted and realised returns is 0.50"),
        ({"advantage": NONE, "across": Estimate(0.3, 0.2, 0.4)}, Answer.NO, "use it from a lower end of 0.1"),
        ({"advantage": MISSING, "across": MISSING}, Answer.NO, "not measurable"),
        ({"advantage_luck": 0.2}, Answer.FEW, "reached by 20% of random networks"),
        ({"advantage_luck": 0.21, "across": NONE}, Answer.NO, "reached by 21% of random networks"),
        ({"played": Estimate(0.2, 0.1, 0.3)}, Answer.YES, "correlation of advantages"),
        ({"advantage": NONE, "across_luck": 0.2}, Answer.NO, "reached by 20% of random networks"),
        (
            {"advantage": NONE, "across": NONE, "played": Estimate(0.5, 0.3, 0.7)},
            Answer.YES,
            "the success of the search",
        ),
        ({"played": BELOW}, Answer.NO, "the success of the search"),
        ({"advantage": BELOW}, Answer.NO, "-0.30"),
        ({"within": BELOW}, Answer.NO, "inside states"),
        ({"equal": 0.7}, Answer.NO, "nothing to choose"),
        ({"confirmed": NONE}, Answer.FEW, "second opinion"),
        ({"confirmed": BELOW}, Answer.NO, "second opinion"),
        ({"kept": 0.6, "best_number": 2}, Answer.FEW, "at most 2"),
        ({"outside": 0.2, "candidates": 3}, Answer.FEW, "at most 3"),
        ({"outside": 0.2}, Answer.FEW, "no rewards can give"),
        ({"confirmed": None, "kept": None, "best_number": None, "within": None}, Answer.YES, "advantages"),
    ],
)
def test_the_verdict_is_the_rule(changes, answer, words):
    told = decide(good(**changes))
    assert told.answer is answer
    assert words in told.sentence
    assert told.sentence.endswith((").", "may show it.", "never taken."))
    assert ("--episodes" in told.sentence) == (good(**changes).played is None and answer is not Answer.NO)
    assert told.sentence.lower().startswith(told.word)
    assert (told.candidates is not None) == (answer is Answer.FEW)
    for check in told.checks:
        assert told.sentence.count(f"{check.name} is") <= 1


def test_one_candidate_is_never_the_number_to_use():
    """The second opinion sees nothing in the choice, and by chance most in the first proposal, which is no choice."""
    by = np.tile([0.0, 1.0, 2.0, 3.0], (600, 1))
    second = np.tile([0.9, -0.3, -0.6, 0.0], (600, 1)) + RANDOM.normal(size=(600, 4))
    lines = choices.gain_by_number(choices.Choices(by, by, second), np.arange(600) // 10)
    assert max(lines, key=lambda line: line["second"].value)["candidates"] == 1
    good_one = Estimate(0.5, 0.4, 0.6)
    content = {
        "ranking": {
            "across": good_one,
            "within": {"correlation": MISSING},
            "advantage": {"correlation": good_one},
            "luck": {"across": [0.0], "advantage": [0.0]},
        },
        "choice": {"by_number": lines, "spread": {"alone": 0.0}},
        "outside": {"means": 0.0},
        "num_candidates": 4,
        "played": None,
    }
    told = decide(_evidence(content))
    assert told.answer is Answer.FEW
    assert told.candidates == 4
    assert "second opinion" in told.sentence


def drawn_from(policy, cells, generator):
    """A move of each cell."""
    return np.minimum((generator.random((*cells.shape, 1)) > policy[cells].cumsum(axis=-1)).sum(axis=-1), 4)


@functools.cache
def rounds(goal=27, episodes=300):
    """Recorded rounds in the four rooms: episode, cell, move, realised return and eight proposals of some rows."""
    generator = np.random.default_rng(0)
    cells, moves = np.zeros((60, episodes), int), np.zeros((60, episodes), int)
    here = generator.integers(len(four_rooms.CELLS), size=episodes)
    for step in range(60):
        cells[step], moves[step] = here, drawn_from(four_rooms.DATA, here, generator)
        slips = generator.random(episodes) < four_rooms.SLIP
        made = np.where(slips, generator.integers(5, size=episodes), moves[step])
        here = np.where(here == goal, here, four_rooms.NEXT[here, made])
    costs = np.where(cells == goal, 0.0, -1.0)
    realised = np.stack([0.99 ** np.arange(40) @ costs[step : step + 40] for step in range(20)])
    step, episode = np.nonzero((cells[:20] != goal) & (np.arange(20)[:, None] % 3 == 0))
    cell = cells[step, episode]
    proposed = drawn_from(four_rooms.PROPOSING, np.repeat(cell[:, None], 8, axis=1), generator)
    return episode, cell, moves[step, episode], realised[step, episode], proposed


def rooms(q):
    """What a table q [S, 5] says of these rounds, as the evidence of a verdict."""
    episode, cell, move, realised, drawn = rounds()
    scores, taken = q[cell[:, None], drawn], q[cell, move]
    where = np.array(four_rooms.CELLS, float)[cell]
    near = evidence.neighbours(where, episode)
    told = evidence.advantages(episode, advantage=taken - scores.mean(axis=1), realised=realised, near=near)
    moves = four_rooms.MOVES.astype(float)
    luck = evidence.chance(where, taken=moves[move], candidates=moves[drawn], realised=realised, near=near)
    across = estimate_by_episode(spearman, episode, taken, realised, resamples=200)
    return good(
        across=across,
        across_luck=float((luck["across"] >= across.value).mean()),
        advantage=told["correlation"],
        advantage_luck=float((luck["advantage"] >= told["correlation"].value).mean()),
        within=None,
        confirmed=None,
        kept=None,
    )


def test_an_exact_value_is_used_and_a_shuffled_one_is_not(monkeypatch):
    """The proposals go the other way round than the data, as those of a policy of one's own may."""
    monkeypatch.setattr(evidence, "PLACEBOS", 40)
    exact = four_rooms.values(four_rooms.DATA, 27)
    told = decide(rooms(exact))
    assert told.answer is Answer.YES, told.sentence
    shuffled = np.random.default_rng(3).permutation(exact.ravel()).reshape(exact.shape)
    told = decide(rooms(shuffled))
    assert told.answer is Answer.NO, told.sentence
    blind = np.repeat(exact.mean(axis=1, keepdims=True), 5, axis=1)  # it ranks states, and no actions
    assert decide(rooms(blind)).answer is not Answer.YES
    assert decide(rooms(-exact)).answer is Answer.NO


# Refusals.


def trained_on(width=3, bounds=None):
    return SimpleNamespace(
        spec=Spec(width, 2), action_bounds=bounds or ActionBounds.unit(2), origin={"dataset": "mine.npz", "task": 1}
    )


def test_other_data_are_refused_with_their_numbers(user_file):
    def refused(words, data, policy=None):
        with pytest.raises(EvorError, match=words):
            read_held_out(data, policy or trained_on(), run=None, sparse_rewards=False)

    refused(
        "observations of 4 and actions of 2 numbers, and the value was trained on 3 and 2",
        user_arrays(observations=np.zeros((60, 4))),
    )
    refused("observations of 3 and actions of 5 numbers", user_arrays(actions=np.zeros((60, 5))))
    refused(
        r"actions in \[-1, 1\], and the value was trained on actions in \[-2, 2\]",
        user_arrays(),
        trained_on(bounds=ActionBounds((-2.0, -2.0), (2.0, 2.0))),
    )
    refused("rewards", user_file(rewards=None))
    told = read_held_out(user_file(), trained_on(), run=None, sparse_rewards=False)
    assert "an export does not hold the digest" in told.notes[0]


def test_too_few_episodes_say_how_many_are_needed():
    data = HeldOut("held.npz", read_dataset(user_arrays()), ())
    with pytest.raises(
        EvorError, match=r"held.npz has 3 episodes .* of 3, and at least 10 are needed .* hold out more"
    ):
        compared_rows(data, discount=0.99, chunk_length=1)


def test_a_value_over_a_policy_of_ones_own_needs_it(tmp_path, monkeypatch):
    value = SearchedPolicy.__new__(SearchedPolicy)
    value.config, value.base, value.origin = replace(TINY, base=Frozen()), None, {"base": "python:my_robot:propose"}
    monkeypatch.setattr(runner, "load", lambda *_, **__: value)
    with pytest.raises(EvorError, match=r"proposes no actions; give the base policy .*python:my_robot:propose"):
        runner.audit(tmp_path / "run", "held.npz", out=tmp_path / "audit")
    plain = Policy.__new__(Policy)
    plain.config = replace(TINY)
    monkeypatch.setattr(Policy, "has_value", False)
    monkeypatch.setattr(runner, "load", lambda *_, **__: plain)
    with pytest.raises(EvorError, match="has no value to audit"):
        runner.audit(tmp_path / "run", "held.npz", out=tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_settings_are_checked():
    with pytest.raises(EvorError, match="num_candidates is 1; it must be at least 2"):
        AuditSettings(num_candidates=1)
    with pytest.raises(EvorError, match="decisions is 3; it must be at least 10"):
        AuditSettings(decisions=3)
    with pytest.raises(EvorError, match=r"env \(--env\) is mine:make, and no episodes are to be played in it"):
        AuditSettings(env="mine:make")


def test_a_run_knows_whether_its_rewards_are_sparse():
    run = SimpleNamespace(folder="run", config=SimpleNamespace(dataset=DATASET, tasks=(1,), sparse_rewards=False))
    policy = SimpleNamespace(origin={"dataset": DATASET, "task": 1})
    with pytest.raises(EvorError, match="is for exports, and run was trained without"):
        read_held_out("held.npz", policy, run=run, sparse_rewards=True)


# The command.


@pytest.fixture(scope="module")
def held_file(tmp_path_factory, data_folder):
    """Walks in the maze of `tiny_run` that it was not trained on, in 20 short episodes."""
    with np.load(data_folder / f"{DATASET}.npz") as stored:
        arrays = {name: stored[name][:1000] for name in stored.files}
    arrays["actions"] = np.clip(arrays["actions"] + 1e-3, -1, 1)
    arrays["terminals"] = (np.arange(1000) % 50 == 49).astype(arrays["terminals"].dtype)
    path = tmp_path_factory.mktemp("held") / "held.npz"
    np.savez(path, **arrays)
    return path


def test_the_command_writes_a_page_and_its_numbers(tiny_run, data_folder, held_file, tmp_path, monkeypatch, capsys):
    words = [
        "audit",
        str(tiny_run),
        "--data",
        str(held_file),
        "--task",
        "4",
        "--seed",
        "1",
        "--out",
        str(tmp_path / "a"),
    ]
    few = ["--num-candidates", "4", "--decisions", "40", "--json", "--quiet"]

    def failing(audit, environment):
        raise EvorError("the base policy raised")

    with monkeypatch.context() as broken:  # an audit that fails leaves nothing that keeps another one out
        broken.setattr(runner.Audit, "report", failing)
        assert main([*words, "--num-candidates", "2"]) == 2
    assert [*(tmp_path / "a").iterdir()] == []
    capsys.readouterr()
    assert main([*words, *few]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "a" / "audit.json").read_text())
    assert "NaN" not in (tmp_path / "a" / "audit.json").read_text()
    assert report["verdict"]["word"] in ("use it", "use it with few candidates", "do not use it")
    assert (report["task"], report["seed"], report["num_candidates"]) == (4, 1, 4)
    assert (report["window"], report["is_complete"]) == (25, False)
    assert report["choice"]["opinion"] == "other seeds"
    page = (tmp_path / "a" / "index.html").read_text()
    for words_there in ("Does it rank?", "Does choosing gain?", "Alarms", "not measured", report["verdict"]["word"]):
        assert words_there in page, words_there
    # The same command again is the same audit; another one needs another folder.
    assert main([*words, "--num-candidates", "8", "--decisions", "40"]) == 2
    assert "holds another audit (num_candidates: 4 -> 8); choose another folder (--out)" in capsys.readouterr().err
    # Data of the training.
    trained = ["audit", str(tiny_run), "--data", str(data_folder / f"{DATASET}.npz"), "--task", "1", "--seed", "0"]
    assert main([*trained, "--out", str(tmp_path / "b")]) == 2
    assert "was trained on" in capsys.readouterr().err
    with np.load(data_folder / f"{DATASET}.npz") as seen, np.load(held_file) as new:
        first = int(np.flatnonzero(seen["terminals"])[0]) + 1  # one episode of the training behind 20 others
        arrays = {name: np.concatenate([new[name], seen[name][:first]]) for name in new.files}
    np.savez(tmp_path / "mixed.npz", **arrays)
    assert main([*trained[:2], "--data", str(tmp_path / "mixed.npz"), *trained[4:], "--out", str(tmp_path / "b")]) == 2
    assert "mixed.npz is in the data that" in (said := capsys.readouterr().err)
    assert "the first is 20" in said
    assert main(["audit", str(tiny_run), "--data", str(held_file), "--out", str(tmp_path / "b")]) == 2
    assert "choose a task (--task)" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


# Trained values.


@pytest.fixture(scope="module")
def maze(tmp_path_factory):
    """A maze with a reward of 1 at its goal: files to train on, with its rewards and with shuffled ones, and held-out episodes."""
    folder, files = tmp_path_factory.mktemp("maze"), {}
    for name, transitions, seed in (("true", 300_000, 0), ("held", 60_000, 1)):
        generate(DATASET, transitions, seed=seed, folder=folder / name)
        episodes = load_dataset(DATASET, (1,), folder=folder / name)
        rewards, arrays = episodes.rewards[0] + 1, {"observations": episodes.observations, "actions": episodes.actions}
        arrays |= {"terminations": np.zeros(len(rewards), bool), "truncations": episodes.ends}
        files[name] = folder / f"{name}.npz"
        np.savez(files[name], rewards=rewards, **arrays)
        if name == "true":
            files["shuffled"] = folder / "shuffled.npz"
            np.savez(files["shuffled"], rewards=np.random.default_rng(0).permutation(rewards), **arrays)
    return files


@pytest.mark.slow
@pytest.mark.parametrize(("rewards", "word"), [("true", "use it"), ("shuffled", "do not use it")])
def test_a_value_of_a_maze_is_used_and_one_of_shuffled_rewards_is_not(rewards, word, maze, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # optimised programs
    out, audit = tmp_path / "run", tmp_path / "audit"
    for command in (
        ["train", "--data", maze[rewards], "--updates", "2000", "--out", out],
        ["audit", out, "--data", maze["held"], "--out", audit],
    ):
        subprocess.run([sys.executable, "-m", "evor", *map(str, command), "--quiet"], env=environment, check=True)
    report = json.loads((audit / "audit.json").read_text())
    assert report["verdict"]["word"] == word, report["verdict"]["sentence"]


@pytest.mark.slow
def test_the_search_and_its_controls_are_played_on_the_same_episodes(tiny_run, held_file, tmp_path):
    settings = AuditSettings(task=1, seed=0, num_candidates=2, decisions=20, episodes=3)
    told = runner.audit(tiny_run, held_file, out=tmp_path / "a", settings=settings, quiet=True)["played"]
    names = ["search", "base policy", "random of N", "medoid of N", "base policy, best of 8 attempts (pass@8)"]
    assert list(told["ways"]) == names
    assert told["of"] == "success"
    assert told["ways"]["search"]["less"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert told["ways"][names[-1]]["score"]["value"] >= told["ways"]["base policy"]["score"]["value"]
    assert "pass@8" in (tmp_path / "a" / "index.html").read_text()
