"""Choosing among candidates that anybody made."""

import dataclasses

import numpy as np
import pytest

import evor
from evor.errors import EvorError

OBSERVATIONS = np.random.default_rng(0).uniform(0, 20, (6, 2)).astype(np.float32)
SEARCHES = [
    evor.SoftmaxOf(5),
    evor.SoftmaxOf(8, action_temperature=0.3),
    evor.BestOf(6, return_temperature=0.5, reading=evor.RandomSamples(7)),
]


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, 1, seed=0)


@pytest.mark.parametrize(
    "search",
    [pytest.param(search, marks=() if search is SEARCHES[1] else pytest.mark.slow) for search in SEARCHES],
    ids=repr,
)
def test_a_decision_is_what_act_does_and_choose_takes_the_same(policy, search):
    decided = policy.decide(OBSERVATIONS, seed=3, extraction=search)
    np.testing.assert_array_equal(decided.action, policy.act(OBSERVATIONS, 3, extraction=search))
    assert decided.candidates.shape == (6, search.num_candidates, 2)
    rows = np.arange(6)
    np.testing.assert_array_equal(decided.action, decided.candidates[rows, decided.index])
    chosen = policy.choose(OBSERVATIONS, decided.candidates, seed=3, extraction=search)
    np.testing.assert_array_equal(chosen.index, decided.index)
    np.testing.assert_allclose(chosen.scores, decided.scores, rtol=1e-5, atol=1e-5)
    alone = policy.choose(OBSERVATIONS[2], decided.candidates[2], seed=3, extraction=search)
    assert alone.index == decided.index[2]
    assert alone.scores.shape == (search.num_candidates,)


def test_scores_are_what_value_tells(policy):
    candidates = np.random.default_rng(1).uniform(-1, 1, (11, 2)).astype(np.float32)
    search = evor.BestOf(return_temperature=0.7, reading=evor.Quadrature(32, flow_steps=10))
    chosen = policy.choose(OBSERVATIONS[0], candidates, extraction=search)
    values = policy.value(np.repeat(OBSERVATIONS[:1], 11, 0), candidates, return_temperature=0.7)
    np.testing.assert_allclose(chosen.scores, values, rtol=1e-5)
    assert chosen.index == np.argmax(values)


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9])
def test_a_candidate_has_its_score_whoever_is_beside_it(policy, number):
    candidates = np.random.default_rng(2).uniform(-1, 1, (6, 9, 2)).astype(np.float32)
    whole = policy.choose(OBSERVATIONS, candidates, seed=0).scores
    part = policy.choose(OBSERVATIONS, candidates[:, :number], seed=0)
    np.testing.assert_allclose(part.scores, whole[:, :number], rtol=1e-5, atol=1e-5)
    assert (part.index < number).all()


def test_few_programs_are_compiled(policy):
    from evor.policies import decision

    search = evor.BestOf(flow_steps=3)
    before = decision.choose._cache_size()
    for number in (5, 6, 7, 8):
        policy.choose(
            OBSERVATIONS[0], np.zeros((number, 2)), extraction=dataclasses.replace(search, num_candidates=number)
        )
    assert decision.choose._cache_size() == before + 1


def test_without_a_seed_every_decision_draws_anew(tiny_run):
    search = evor.SoftmaxOf(action_temperature=np.inf)
    candidates = np.zeros((64, 2))
    one, other = (evor.load(tiny_run, 1, seed=0) for _ in range(2))
    drawn = [int(one.choose(OBSERVATIONS[0], candidates, extraction=search).index) for _ in range(5)]
    assert len(set(drawn)) > 1
    assert drawn == [int(other.choose(OBSERVATIONS[0], candidates, extraction=search).index) for _ in range(5)]


def test_the_base_policy_decides_without_scores(policy):
    decided = policy.decide(OBSERVATIONS[0], seed=1, extraction=evor.Prior())
    assert decided.scores is None
    assert decided.candidates.shape == (1, 2)
    np.testing.assert_array_equal(decided.action, policy.act(OBSERVATIONS[0], 1, extraction=evor.Prior()))


def test_chunks_are_chosen_whole(chunky):
    decided = chunky.decide(OBSERVATIONS, seed=0, extraction=evor.BestOf(3))
    assert decided.candidates.shape == (6, 3, 3, 2)
    assert decided.action.shape == (6, 3, 2)
    chosen = chunky.choose(OBSERVATIONS, decided.candidates, seed=0, extraction=evor.BestOf())
    np.testing.assert_array_equal(chosen.index, decided.index)


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (np.zeros((0, 2)), "there are no candidates"),
        (np.zeros((4, 3)), r"candidates has shape \[4, 3\]; \[C, 2\] is needed"),
        (np.zeros(2), r"candidates has shape \[2\]; \[C, 2\] is needed"),
        ([[0.0, 0.0], [0.0, np.nan]], r"candidates\[1\] holds nan; actions lie in \[-1, 1\]"),
        ([[0.0, 0.0], [0.0, 0.5], [-1.5, 0.0]], r"candidates\[2\] holds -1\.5; actions lie"),
        ([["a", "b"]], "candidates is not an array of numbers"),
        (np.ma.array([[0.0, 0.5]], mask=[[False, True]]), "candidates has masked entries; fill them"),
    ],
)
def test_candidates_that_are_none_are_named(policy, candidates, words):
    with pytest.raises(EvorError, match=words):
        policy.choose(OBSERVATIONS[0], candidates)


def test_candidates_of_a_batch_are_named_by_row(policy):
    candidates = np.zeros((6, 4, 2))
    candidates[3, 2, 1] = 2
    with pytest.raises(EvorError, match=r"candidates\[3\]\[2\] holds 2; actions lie"):
        policy.choose(OBSERVATIONS, candidates)
    with pytest.raises(EvorError, match="6 observations but candidates for 5"):
        policy.choose(OBSERVATIONS, np.zeros((5, 4, 2)))
    with pytest.raises(EvorError, match="Prior, which scores no candidates"):
        policy.choose(OBSERVATIONS, np.zeros((6, 4, 2)), extraction=evor.Prior())


def test_no_rows_give_no_choices(policy):
    chosen = policy.choose(np.zeros((0, 2)), np.zeros((0, 4, 2)))
    assert chosen.index.shape == (0,)
    assert chosen.scores.shape == (0, 4)
