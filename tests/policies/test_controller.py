"""The controller of a control loop, and of many."""

import numpy as np
import pytest

import evor
from conftest import DATASET
from evor.envs.vector import environments
from evor.errors import EvorError
from evor.policies import decision
from evor.policies.controller import VectorController
from evor.rollouts.play import play

OBSERVATIONS = np.random.default_rng(0).uniform(0, 20, (6, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def policy(tiny_run):
    return evor.load(tiny_run, 1, seed=0)


def test_a_controller_gives_every_decision_its_own_seed(policy):
    controller = evor.Controller(policy, extraction=evor.Prior())
    first = [controller.act(OBSERVATIONS[0]) for _ in range(5)]
    assert len({tuple(action) for action in first}) == 5
    controller.reset(seed=0)
    np.testing.assert_array_equal(first, [controller.act(OBSERVATIONS[0]) for _ in range(5)])
    controller.reset(seed=1)
    assert not np.array_equal(first[0], controller.act(OBSERVATIONS[0]))


def test_a_controller_plays_chunks_and_drops_the_rest_at_a_reset(chunky):
    controller = evor.Controller(chunky, extraction=evor.BestOf(2))
    played = np.array([controller.act(observation) for observation in OBSERVATIONS])
    assert played.shape == (6, 2)
    controller.reset()
    again = np.array([controller.act(observation) for observation in OBSERVATIONS[[0, 5, 4, 3]]])
    np.testing.assert_array_equal(again[:3], played[:3])  # within a chunk nothing is decided
    controller.reset()
    np.testing.assert_array_equal(controller.act(OBSERVATIONS[0]), played[0])


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((1, 2)), [np.nan, 0.0]])
def test_a_controller_checks_every_observation(chunky, observation):
    controller = evor.Controller(chunky)
    controller.act(OBSERVATIONS[0])
    with pytest.raises(EvorError, match="observation h"):
        controller.act(observation)
    with pytest.raises(EvorError, match="seed is -1"):
        controller.reset(-1)


def test_a_policy_that_is_warm_compiles_nothing_for_a_controller(policy):
    search = evor.SoftmaxOf(7)
    policy.warm_up([1], search)
    compiled = decision.act._cache_size()
    evor.Controller(policy, extraction=search).act(OBSERVATIONS[0])
    assert decision.act._cache_size() == compiled


def test_loops_that_decide_together_decide_as_each_alone(chunky):
    """At any time and in any order, padding or not."""
    together = VectorController(chunky, extraction=evor.SoftmaxOf(4), seeds=np.array([7, 8, 9], np.uint32))
    chunks: dict[int, list] = {7: [], 8: [], 9: []}
    for loops in ([0, 1, 2], [2, 0], [1, 1, 1], [0]):
        found = together.decide(loops, OBSERVATIONS[loops])
        for loop, chunk in dict(zip(loops, found, strict=True)).items():
            chunks[7 + loop].append((OBSERVATIONS[loop], chunk))
        assert found.shape == (len(loops), 3, 2)
    for seed, decisions in chunks.items():
        alone = evor.Controller(chunky, extraction=evor.SoftmaxOf(4), seed=seed)
        for observation, chunk in decisions:
            np.testing.assert_allclose([alone.act(observation) for _ in range(3)], chunk, atol=1e-6)


def test_a_control_loop_replays_an_episode_of_the_evaluation(chunky):
    """With the episode's seeds: what `evor evaluate` measures is what a user's loop does."""
    search = evor.SoftmaxOf(4)
    (episode,) = play(chunky, DATASET, task=1, extraction=search, episodes=1, evaluation_seed=3)
    (state,) = [s.generate_state(3) for s in np.random.SeedSequence([3, 1]).spawn(1)]
    world = environments(DATASET, 1, count=1, workers=1)
    controller = evor.Controller(chunky, extraction=search, seed=int(state[2]))
    (observation,) = world.reset([state])
    trajectory, ended = [observation], False
    while not ended:
        step = world.step({0: controller.act(trajectory[-1].astype(np.float32))[None]})[0]
        trajectory += step.observations
        ended = step.ended
    np.testing.assert_allclose(np.array(trajectory, np.float32), episode.observations, atol=1e-4)


def test_a_controller_refuses_what_is_no_policy_or_search(policy):
    with pytest.raises(EvorError, match="policy is 'runs/demo'; give the policy"):
        evor.Controller("runs/demo")
    with pytest.raises(EvorError, match="extraction is 'best'"):
        evor.Controller(policy, extraction="best")
