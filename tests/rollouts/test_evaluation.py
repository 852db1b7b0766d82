"""`evor.evaluate`: a user's environments and OGBench's through one loop, against returns that are known exactly."""

import dataclasses
import math
import re
import shutil
import sys

import gymnasium
import numpy as np
import pytest

import evor
from conftest import DATASET, TINY, learned, user_arrays
from evor.cli.main import main
from evor.envs.observations import fitting_keys, flat_observation
from evor.errors import EvorError
from evor.report.contents import read_contents
from evor.report.evaluations import read_rows
from evor.report.run import write_report
from evor.rollouts import play as playing
from evor.rollouts.evaluate import evaluate as evaluate_run
from evor.rollouts.play import play
from own_environment import Endless, Line, Paired, Parted, make_line, make_without_success


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> evor.Run:
    """A run on arrays of a user's own: observations of 3 numbers, actions of 2."""
    out = tmp_path_factory.mktemp("own") / "run"
    return evor.train(user_arrays(), out=out, updates=4, agent=TINY, num_seeds=2, quiet=True)


@pytest.fixture(scope="module")
def policy(run) -> evor.Policy:
    return run.policy(seed=0)


@pytest.fixture
def constant(policy, monkeypatch) -> evor.Policy:
    """A policy whose every action is [0.25, 0.5]."""
    monkeypatch.setattr(
        policy, "_act_with_keys", lambda rows, keys, **_: np.tile(np.array([0.25, 0.5], np.float32), (len(rows), 1))
    )
    return policy


def start_of(seed: int) -> float:
    """Where an episode of a line with this seed starts."""
    return Line().reset(seed=int(seed))[0][0]


@pytest.mark.parametrize("num_envs", [None, 1, 2, 5])
def test_returns_of_a_known_policy_are_those_written_out_by_hand(constant, num_envs):
    """Places s + 1/4, s + 2/4, s + 3/4, s + 1 are paid, whatever is played together."""
    result = evor.evaluate(constant, make_line, episodes=5, seed=3, num_envs=num_envs, discount=0.5)
    starts = np.array([start_of(seed) for seed in result.seeds])
    np.testing.assert_allclose(result.total_reward, 4 * starts + 2.5, rtol=1e-12)
    weights = np.array([1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(
        result.discounted_return, weights.sum() * starts + weights @ [0.25, 0.5, 0.75, 1], rtol=1e-12
    )
    assert result.length.tolist() == [4] * 5
    assert result.success.tolist() == [True] * 5
    assert result.mean_success.value == 1
    assert len(set(result.seeds.tolist())) == len(result) == 5
    assert result.mean_total_reward.low <= result.total_reward.mean() <= result.mean_total_reward.high
    assert repr(result).startswith("Evaluation(5 episodes of Line: success 1.00 [1.00, 1.00], total reward ")


def test_the_agents_discount_is_the_default(constant):
    assert evor.evaluate(constant, make_line, episodes=1).discount == TINY.discount


def test_together_is_as_one_by_one_and_seeds_repeat(policy):
    """Decisions in batches of other sizes are the same to rounding; in those of one size bit for bit."""
    together = evor.evaluate(policy, make_line, episodes=5)
    single = Line()
    alone = evor.evaluate(policy, single, episodes=5)
    np.testing.assert_allclose(together.total_reward, alone.total_reward, atol=1e-5)
    assert (together.seeds == alone.seeds).all()
    assert single.seeds == alone.seeds.tolist()
    again = evor.evaluate(policy, make_line, episodes=5)
    np.testing.assert_array_equal(again.total_reward, together.total_reward)
    np.testing.assert_allclose(
        evor.evaluate(policy, make_line, episodes=3).total_reward, together.total_reward[:3], atol=1e-5
    )
    other = evor.evaluate(policy, make_line, episodes=5, seed=1)
    assert not set(other.seeds) & set(together.seeds)


def test_a_control_loop_replays_an_episode_with_its_seed(policy):
    search = evor.BestOf(4)
    result = evor.evaluate(policy, make_line, episodes=3, extraction=search)
    line, seed = Line(), int(result.seeds[2])
    controller = evor.Controller(policy, extraction=search, seed=seed)
    observation, total, ended = line.reset(seed=seed)[0], 0.0, False
    while not ended:
        observation, reward, ended, _, _ = line.step(controller.act(observation).copy())
        total += reward
    assert total == pytest.approx(result.total_reward[2], abs=1e-5)


class Noisy(Line):
    """It draws from numpy's global generator, as many do."""

    def step(self, action):
        return super().step(action + np.random.normal(size=2).astype(np.float32))


def test_environments_that_draw_from_numpys_generator_repeat_too(constant):
    np.random.seed(7)
    before = np.random.get_state(legacy=False)
    together = evor.evaluate(constant, Noisy, episodes=4)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)
    np.testing.assert_array_equal(together.total_reward, evor.evaluate(constant, Noisy(), episodes=4).total_reward)


def test_what_is_made_is_closed_and_what_is_given_stays_open(constant, monkeypatch):
    monkeypatch.setattr(Line, "made", 0)
    monkeypatch.setattr(Line, "closed", 0)
    evor.evaluate(constant, make_line, episodes=5, num_envs=3)
    assert (Line.made, Line.closed) == (3, 3)
    evor.evaluate(constant, Line(), episodes=2)
    assert (Line.made, Line.closed) == (4, 3)


def test_success_is_none_where_none_is_told_and_a_cut_is_a_failure(constant):
    silent = evor.evaluate(constant, make_without_success, episodes=2)
    assert silent.success is None
    assert silent.mean_success is None
    assert "success" not in repr(silent)
    cut = evor.evaluate(constant, make_line, episodes=2, max_episode_steps=2)
    assert cut.length.tolist() == [2, 2]
    assert cut.success.tolist() == [False, False]


class Columns(Line):
    """A line whose numbers stand in another order."""

    order = (2, 0, 1)

    def _observe(self):
        return super()._observe()[list(self.order)]


def test_dict_and_tuple_observations_are_the_columns_side_by_side(policy, monkeypatch, capsys):
    """The columns that the data named, in their order, or all of a Tuple; the play is that of the flat vector, bit for bit."""
    flat = evor.evaluate(policy, Columns, episodes=3)
    capsys.readouterr()
    paired = evor.evaluate(policy, Paired, episodes=3)
    assert "observations of Paired: _index_0 [1], _index_1 [2], side by side" in capsys.readouterr().err
    monkeypatch.setattr(policy, "observation_keys", (("rest/steps", 1), ("place", 1), ("rest/square", 1)))
    for result in (paired, evor.evaluate(policy, Parted, episodes=3), evor.evaluate(policy, Parted(), episodes=3)):
        np.testing.assert_allclose(result.total_reward, flat.total_reward, atol=1e-5)
    np.testing.assert_array_equal(paired.total_reward, flat.total_reward)
    assert not np.allclose(flat.total_reward, evor.evaluate(policy, Line, episodes=3).total_reward, atol=1e-4)
    with pytest.raises(EvorError, match=r"of Paired, a Tuple, has no key 'rest/steps' \(it has _index_0, _index_1\)"):
        evor.evaluate(policy, Paired, episodes=1)
    monkeypatch.setattr(policy, "observation_keys", (("rest/steps", 2), ("place", 1)))
    with pytest.raises(EvorError, match="has 1 numbers in 'rest/steps', and the policy was trained on 2"):
        evor.evaluate(policy, Parted, episodes=1)


def test_a_base_policy_plays_dict_observations_of_data_without_keys(run):
    """As `evor evaluate --base` does: the columns of the space side by side, under the key `observation`."""
    seen = []

    def still(observations, num, seed):
        seen.append(observations)
        return np.zeros((len(observations["observation"]), num, 2))

    over = evor.load(run.folder, seed=0, base=still)
    result = evor.evaluate(over, Paired, episodes=1, extraction=evor.Prior())
    (place,) = {round(float(one["observation"][0, 1]), 5) for one in seen}  # nothing moves
    assert result.total_reward[0] == pytest.approx(4 * place, abs=1e-4)
    assert [one["observation"][0, 0] for one in seen] == [0, 1, 2, 3]


def test_a_space_is_flattened_as_gymnasium_does():
    space = gymnasium.spaces.Dict(
        {"zeta": wide(2), "alpha": gymnasium.spaces.Tuple((wide(1), gymnasium.spaces.Dict(b=wide(2), a=wide())))}
    )
    keys = fitting_keys(space, (), width=6, name="X")
    assert keys == (("alpha/_index_0", 1), ("alpha/_index_1/b", 2), ("alpha/_index_1/a", 1), ("zeta", 2))
    space.seed(0)
    for _ in range(3):
        one = space.sample()
        np.testing.assert_array_equal(flat_observation(one, keys), gymnasium.spaces.flatten(space, one))


@pytest.mark.parametrize(
    ("bounds", "words", "taken"),
    [
        ((-1, 1), None, [0.25, 0.5]),
        ((-2, 2), "takes actions in [-2, 2], and the policy's lie in [-1, 1]; they are not rescaled.", [0.25, 0.5]),
        ((0, 0.375), "takes actions in [0, 0.375], and the policy's lie in [-1, 1]; they are clipped", [0.25, 0.375]),
    ],
)
def test_other_action_bounds_are_noted_once(constant, capsys, bounds, words, taken):
    line = Line(bounds=bounds)
    evor.evaluate(constant, line, episodes=2)
    said = capsys.readouterr().err
    assert said.count("note:") == (words is not None)
    assert (words or "") in said
    np.testing.assert_array_equal(line.taken, [taken] * 8)
    evor.evaluate(constant, line, episodes=1, quiet=True)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_chunks_are_played_to_their_end(tmp_path):
    np.savez(tmp_path / "mine.npz", **user_arrays())
    chunky = learned(tmp_path / "mine.npz", dataclasses.replace(TINY, chunk_length=3), 2)
    line = Line()
    result = evor.evaluate(chunky, line, episodes=2)
    assert result.length.tolist() == [4, 4]
    np.testing.assert_allclose(
        result.total_reward[0], sum(start_of(result.seeds[0]) + np.cumsum([a[0] for a in line.taken[:4]])), rtol=1e-5
    )


def test_an_ogbench_task_is_played_as_by_play(tiny_run):
    run = evor.open_run(tiny_run)
    policy = run.policy(4, 1)
    result = evor.evaluate(policy, DATASET, episodes=2, extraction=evor.Prior(), quiet=True)
    played = play(policy, DATASET, task=4, extraction=evor.Prior(), episodes=2, evaluation_seed=0)
    assert result.total_reward.tolist() == [episode.total_reward for episode in played]
    assert result.success.tolist() == [episode.success == 1 for episode in played]
    assert result.environment == f"{DATASET}, task 4"
    for episode, discounted in zip(played, result.discounted_return, strict=True):
        assert episode.rewards.sum() == episode.total_reward
        assert discounted == pytest.approx(float((episode.rewards * 0.99 ** np.arange(episode.length)).sum()))


class Changed(Line):
    """A line with something else about it."""

    def __init__(self, **changes):
        super().__init__()
        for name, value in changes.items():
            setattr(self, name, value)


def wide(*shape):
    return gymnasium.spaces.Box(-1, 1, shape, np.float32)


REFUSED = [
    (lambda: Changed(observation_space=wide(4)), {}, r"observation space of Changed is a Box of shape \[4\].*needs a Box of shape \[3\]"),
    (lambda: Changed(action_space=wide(3)), {}, r"action space of Changed is a Box of shape \[3\].*shape \[2\]"),
    (lambda: Changed(observation_space=wide(3, 1)), {}, r"Box of shape \[3, 1\].*shape \[3\]"),
    (lambda: Changed(action_space=gymnasium.spaces.Discrete(2)), {}, r"action space of Changed is Discrete.*shape \[2\]"),
    (lambda: Changed(observation_space=gymnasium.spaces.Dict({"seen": wide(3), "goal": wide(1)})), {}, r"of Changed, a Dict, has goal \[1\], seen \[3\], 4 numbers, and the policy was trained on 3; wrap"),
    (lambda: Changed(observation_space=gymnasium.spaces.Dict(seen=wide(3))), {}, r"observation of Changed at step 0 is array\(.* is a Dict, so give the columns seen"),
    (lambda: Changed(observation_space=gymnasium.spaces.Tuple((wide(2), gymnasium.spaces.Discrete(3)))), {}, r"a Tuple, has the key '_index_1' \(Discrete\), and a Box of shape \[N\] is needed"),
    (Parted, {}, r"a Dict, has the key 'view' of shape \[4, 4, 3\], and a Box of shape \[N\] is needed"),
    (lambda: Changed(observation_space=gymnasium.spaces.Discrete(3)), {}, "observation space of Changed is Discrete"),
    (lambda: Changed(action_space=gymnasium.spaces.Box(-1, 1, (2,), np.int64)), {}, "actions of Changed are int64"),
    (lambda: Changed(_observe=lambda: np.zeros(2)), {}, r"observation of shape \[2\] at step 0.*says \[3\]"),
    (lambda: Changed(_observe=lambda: np.full(3, np.nan)), {}, "observation of Changed at step 0 holds nan"),
    (lambda: Changed(reset=lambda seed: np.zeros(3)), {}, r"Changed.reset returned array.*\(observation, info\)"),
    (lambda: Changed(step=lambda action: (np.zeros(3), 0.0, True, {})), {}, "Changed.step returned .*terminated"),
    (lambda: Changed(step=lambda action: (np.zeros(3), math.nan, True, False, {})), {}, "reward nan at step 1"),
    (lambda: None, {}, "returned None, which is no gymnasium environment"),
    (7, {}, "environment is 7; give a gymnasium environment"),
    (Line(), {"num_envs": 2}, "num_envs is 2, and one environment plays"),
    (make_line, {"task": 2}, "task is 2, which goes with the name of an OGBench dataset"),
    (make_line, {"episodes": 0}, "episodes is 0"),
    (make_line, {"seed": -1}, "seed is -1"),
    (make_line, {"num_envs": 1.5}, "num_envs is 1.5"),
    (make_line, {"max_episode_steps": 0}, "max_episode_steps is 0"),
    (make_line, {"discount": 2}, "discount is 2.0"),
    (make_line, {"extraction": 3}, "extraction is 3"),
    ("Pendulum-v1", {}, r"environment is 'Pendulum-v1', and a text is the name of an OGBench dataset; .*`lambda: gymnasium.make"),
    ("cart_env:make_env", {}, "environment is 'cart_env:make_env'.*give a gymnasium environment or a function that makes one"),
    ("cube-singel-play-v0", {}, "unknown OGBench dataset 'cube-singel-play-v0'; did you mean 'cube-single-play-v0'"),
    (DATASET, {}, "observations of 2 and actions of 2 numbers, and the policy was trained on 3 and 2"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "options", "words"), REFUSED)
def test_what_can_not_be_played_is_one_sentence(policy, environment, options, words):
    with pytest.raises(EvorError, match=words):
        evor.evaluate(policy, environment, **({"episodes": 1} | options))


def test_other_things_than_policies_and_the_same_environment_twice_are_refused(run, policy):
    with pytest.raises(
        EvorError, match=r"policy is Run\('.*run', tasks \[1\], seeds \[0, 1\], 4 updates\)|policy is Run"
    ):
        evor.evaluate(run, make_line)
    line = Line()
    with pytest.raises(EvorError, match="the same one twice"):
        evor.evaluate(policy, lambda: line, episodes=2)


def test_what_an_environment_raises_is_not_caught(policy):
    def broken(action):
        raise ValueError("the motor is hot")

    with pytest.raises(ValueError, match="the motor is hot"):
        evor.evaluate(policy, Changed(step=broken), episodes=1)


def test_an_episode_without_an_end_is_noted_once_and_can_be_cut(constant, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(playing, "LONG", 20)
    steps = iter(range(100))

    class Patient(Endless):
        def step(self, action):
            observation, reward, _, _, told = super().step(action)
            return observation, reward, next(steps) >= 60, False, told

    assert (evor.evaluate(constant, Patient(), episodes=1).length > 20).all()
    assert capsys.readouterr().err.count("note: an episode has not ended after 20 steps; max_episode_steps") == 1
    folder = shutil.copytree(run.folder, tmp_path / "run")
    command = ["evaluate", str(folder), "--env", "own_environment:Endless", "--extraction", "prior", "--episodes", "2"]
    assert main([*command, "--max-episode-steps", "30"]) == 0
    assert "has not ended" not in capsys.readouterr().err
    (path,) = (folder / "evaluations").glob("*.csv")
    assert [(row["length"], row["success"]) for row in read_rows(path)] == [(30, 0)] * 4
    assert main([*command, "--max-episode-steps", "0"]) == 2
    assert "max_episode_steps is 0" in capsys.readouterr().err


class Seedless(Line):
    """It can't be seeded."""

    def reset(self):
        return super().reset()


class Optionless(Line):
    """It takes a seed and nothing else, which a wrapper's call does not suit."""

    def reset(self, *, seed=None):
        return super().reset(seed=seed)


def test_an_environment_that_can_not_be_seeded_is_refused(constant):
    wanted = r"Seedless.reset must accept seed= and options=: def reset\(self, \*, seed=None, options=None\)."
    for environment in (Seedless, Seedless(), lambda: gymnasium.wrappers.TimeLimit(Seedless(), 2)):
        with pytest.raises(EvorError, match=wanted):
            evor.evaluate(constant, environment, episodes=1)
    assert evor.evaluate(constant, Optionless(), episodes=1).length == 4
    with pytest.raises(EvorError, match=r"Optionless\.reset must accept"):
        evor.evaluate(constant, gymnasium.wrappers.TimeLimit(Optionless(), 2), episodes=1)


def test_a_function_that_needs_arguments_is_refused(policy):
    with pytest.raises(
        EvorError, match=r"make can't be called without arguments \(missing a required argument: 'size'\)"
    ):
        evor.evaluate(policy, make, episodes=1)


def make(size):
    return Line()


# Runs on data of a user's own: `evor evaluate RUN --env module:make_env`.


def test_a_run_on_own_data_plays_an_environment_of_its_own(run, policy, tmp_path, capsys):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    env = "own_environment:make_line"
    rows = evaluate_run(folder, evor.Prior(), episodes=3, env=env, parallel=2)
    direct = evor.evaluate(policy, make_line, episodes=3, extraction=evor.Prior(), num_envs=2)
    assert [row["return"] for row in rows if row["seed"] == 0] == [round(r, 6) for r in direct.total_reward.tolist()]
    assert [row["success"] for row in rows if row["seed"] == 0] == direct.success.tolist()
    assert {row["dataset"] for row in rows} == {env}
    assert {row["reward_rule"] for row in rows} == {"own"}
    (path,) = (folder / "evaluations").glob("*.csv")
    assert read_rows(path) == rows
    assert evaluate_run(folder, evor.Prior(), episodes=3, env=env, resume=True) == rows
    page = write_report([folder]).read_text()
    assert f">Success in {env}</h2>" in page
    assert "what your environment says of each step (reward rule own)." in page
    assert f">Success against number of candidates in {env}</h2>" in page
    assert "To see the policy play" not in page
    # Another environment beside it, which tells of no success.
    silent = "own_environment:make_without_success"
    assert main(["evaluate", str(folder), "--extraction", "prior", "--episodes", "2", "--env", silent]) == 0
    told = capsys.readouterr()
    assert "mean return" in told.out
    assert "base policy" in told.out
    assert "evaluate base policy: 4/4 episodes" in told.err
    assert main(["show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "base policy, candidates 1" in shown
    assert f"6 episodes of {env}" in " ".join(shown.split())
    assert f"4 episodes of {silent}" in " ".join(shown.split())
    assert "Prior" not in told.out + told.err + shown
    assert {row["extraction"] for row in read_rows(path)} == {"Prior"}  # in files the name stays
    assert len(read_rows(path)) == len(rows) + 4
    assert math.isnan(read_rows(path)[-1]["success"])
    page = write_report([folder]).read_text()
    assert f">Success in {env}</h2>" in page
    assert f">Success in {silent}</h2>" in page
    assert f">Success against number of candidates in {silent}</h2>" not in page
    assert not re.search(r"<td[^>]*>[^<]*nan", page)


def test_episodes_that_are_replaced_are_counted(run, tmp_path, capsys):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    for episodes in (3, 1):
        evaluate_run(folder, evor.Prior(), episodes=episodes, env="own_environment:make_line")
    (path,) = (folder / "evaluations").glob("*.csv")
    assert f"note: 6 earlier episodes in {path} are replaced; --resume keeps them." in capsys.readouterr().err
    evaluate_run(folder, evor.Prior(), episodes=1, env="own_environment:make_line", resume=True)
    evaluate_run(folder, evor.Prior(), episodes=1, env="own_environment:make_without_success")
    assert "replaced" not in capsys.readouterr().err


def test_a_module_of_the_current_folder_is_found(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_line_of_here.py").write_text("from own_environment import Line\n\nmake = Line\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = shutil.copytree(run.folder, tmp_path / "run")
    options = ["--env", "my_line_of_here:make", "--episodes", "1", "--seeds", "1", "--num-candidates", "1", "2"]
    assert main(["sweep", str(folder), *options]) == 0
    assert len(list((folder / "evaluations").glob("*.csv"))) == 2
    assert (
        main([*["sweep", "--num-candidates", "10", "--seeds", "1", "--episodes", "1"], str(folder), *options[:2]]) == 0
    )
    assert [line["num_candidates"] for line in read_contents(folder)["evaluations"]] == [1, 2, 10]
    capsys.readouterr()
    assert main(["sweep", str(folder), *options, "--return-temperature", "1", "0.5"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "temperature 0.5" in told  # which tells the rows apart; what they share stands below
    assert "The number after a search is its candidates; action temperature 0.03." in told


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("own_environment", "--env is 'own_environment'; give module:function"),
        ("no_such_module:make", "no_such_module can't be imported"),
        ("own_environment:nothing", "own_environment has no function nothing"),
        ("own_environment:np", "own_environment has no function np"),
        ("builtins:dict", "returned {}, which is no gymnasium environment"),
        (None, "no environment to play; give --env module:make_env"),
    ],
)
def test_a_wrong_env_is_refused_before_anything_is_written(run, env, words):
    with pytest.raises(EvorError, match=words):
        evaluate_run(run.folder, env=env)
    assert not (run.folder / "evaluations").exists()


BROKEN = """
import json

import numpy as np

from own_environment import Line


def raises():
    raise RuntimeError("no simulator here")


class Hot(Line):
    def step(self, action):
        raise ValueError("the motor is hot")


class Lost(Line):
    def reset(self, *, seed=None, options=None):
        return json.loads("")


class Stuck(Line):
    def close(self):
        np.zeros(2).reshape(3)


def sized(size):
    return Line()
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "raised RuntimeError: no simulator here (broken_environments.py:10); fix the environment"),
        ("Hot", "raised ValueError: the motor is hot (broken_environments.py:15); fix the environment"),
        ("Lost", "raised JSONDecodeError: Expecting value: line 1 column 1 (char 0) (broken_environments.py:20);"),
        ("Stuck", "raised ValueError: cannot reshape array of size 2 into shape (3,) (broken_environments.py:25);"),
        ("sized", "can't be called without arguments (missing a required argument: 'size'); give a function"),
    ],
)
def test_a_mistake_in_a_users_environment_is_no_fault_of_evor(run, tmp_path, monkeypatch, capsys, name, words):
    (tmp_path / "broken_environments.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken_environments", raising=False)
    folder = shutil.copytree(run.folder, tmp_path / "run")
    options = ["--extraction", "prior", "--episodes", "1", "--seeds", "0"]
    assert main(["evaluate", str(folder), "--env", f"broken_environments:{name}", *options]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"evor: broken_environments:{name} {words}")


def test_a_package_that_a_users_module_lacks_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "module_that_needs_more.py").write_text("import no_such_simulator\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(EvorError, match="imports no_such_simulator, which is not installed; install it with pip"):
        evaluate_run(run.folder, env="module_that_needs_more:make")


def test_a_run_of_ogbench_plays_its_own(tiny_run):
    with pytest.raises(EvorError, match="plays the environment of pointmaze-medium-navigate-v0; leave --env out"):
        evaluate_run(tiny_run, env="own_environment:make_line")
