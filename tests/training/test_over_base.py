"""A value over a base policy of the user's own: proposals, what is trained on them, and what acts."""

import json

import numpy as np
import pytest

import evor
import own_environment
from conftest import TINY, user_arrays
from evor.agents.base import Frozen
from evor.agents.next_action import BestAction, DatasetAction, PolicyAction
from evor.cli.train import train_options
from evor.data.formats.npz import load_files
from evor.data.suspects import rows_of
from evor.errors import EvorError
from evor.policies.propose import propose
from evor.report.evaluations import read_rows
from evor.rollouts.evaluate import evaluate
from evor.runtime.records import replace
from evor.search.extraction import BestOf, Guided, Prior
from evor.training import checkpoint
from evor.training.comparison import compare, recorded
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.over_base import read_proposals
from evor.training.train import Training, train
from evor.types import ActionBounds

UPDATES = {"updates": 4, "checkpoint_every": 2, "log_every": 2}
OVER = replace(TINY, base=Frozen(), next_action=PolicyAction(), objective=replace(TINY.objective, n_steps=1))


def told(observations, num, seed):
    """Proposals that tell where they were made: the first observation, squashed; and which they are."""
    x = observations["observation"][:, None, None, :1]
    first = np.broadcast_to(np.tanh(x), (len(x), num, 4, 1))
    second = np.broadcast_to(np.linspace(-0.9, 0.9, num)[None, :, None, None], first.shape)
    return np.concatenate([first, second], axis=-1)


def random(observations, num, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (len(observations["observation"]), num, 3, 2))


@pytest.fixture
def proposals(user_file, tmp_path):
    """Data, and proposals for it."""
    data = user_file(next_observations=np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32))
    return data, propose(data, base=told, out=tmp_path / "proposals", num=5, chunk_length=1, quiet=True)


def test_every_row_that_is_read_has_proposals_of_its_own(proposals):
    """Successor rows, which reading inserts, too: sums bootstrap from them."""
    data, folder = proposals
    episodes, read = load_files(data), read_proposals(folder)
    assert read.array.shape == (len(episodes.ends), 5, 1, 2)
    assert len(episodes.ends) > 60
    assert read.array.dtype == np.float32
    np.testing.assert_allclose(read.array[:, 3, 0, 0], np.tanh(episodes.observations[:, 0]), atol=1e-6)
    np.testing.assert_allclose(np.load(folder / "proposals.npy"), read.array)


def test_a_batch_gets_the_proposals_of_the_state_where_it_bootstraps(proposals):
    data, folder = proposals
    config = RunConfig(data=str(data), proposals=str(folder), agent=OVER, **UPDATES)
    columns = open_data(config).all_columns
    after = columns.observations[columns.bootstrap[columns.sampled_rows]]
    scale = open_data(config).scale
    expected = np.tanh(np.asarray(after[:, 0]) * scale.observation_std[0] + scale.observation_mean[0])
    assert columns.proposals.shape == (1, len(expected), 5, 2)
    np.testing.assert_allclose(columns.proposals[0, :, 2, 0], expected, atol=1e-5)


@pytest.mark.slow
def test_a_run_over_proposals_that_was_stopped_ends_the_same(proposals, tmp_path):
    data, folder = proposals
    agent = replace(OVER, next_action=BestAction(2, num_stored=5))
    config = RunConfig(data=str(data), proposals=str(folder), agent=agent, **UPDATES)
    train(config, tmp_path / "whole")
    with Training.open(config, tmp_path / "stopped", resume=False) as training:
        training.advance(2)
    train(config, tmp_path / "stopped", resume=True)
    one, other = (checkpoint.newest(tmp_path / name / "checkpoints").arrays for name in ("whole", "stopped"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    propose(data, base=random, out=tmp_path / "others", num=5, quiet=True)
    with pytest.raises(EvorError, match="the proposals are not the same"):
        train(RunConfig(**vars(config) | {"proposals": str(tmp_path / "others")}), tmp_path / "whole", resume=True)


def test_what_is_drawn_stays_and_the_rest_is_drawn_later(user_file, tmp_path, monkeypatch):
    data, calls = user_file(), []

    def counted(observations, num, seed):
        if calls.append(seed) or len(calls) == 4:
            raise ValueError("the robot fell over")
        return random(observations, num, seed)

    monkeypatch.setattr("evor.policies.propose.BLOCK", 20)
    with pytest.raises(EvorError, match=r"raised ValueError: the robot fell over \(test_over_base.py:\d+\); fix it"):
        propose(data, base=counted, out=tmp_path / "P", quiet=True)
    with pytest.raises(EvorError, match="is not complete, or damaged"):
        read_proposals(tmp_path / "P")
    propose(data, base=counted, out=tmp_path / "P", quiet=True)
    assert calls == [0, 0, 20, 40, 40]  # compared; two blocks, and one that failed; that one again
    stored = read_proposals(tmp_path / "P").array
    np.testing.assert_allclose(stored[40:], random({"observation": stored[40:]}, 8, 40)[:, :, :1], rtol=1e-6)
    propose(data, base=counted, out=tmp_path / "P", quiet=True)
    assert len(calls) == 5
    with pytest.raises(EvorError, match=r"holds other proposals \(number is 8, not 4\)"):
        propose(data, base=counted, out=tmp_path / "P", num=4, quiet=True)


def test_proposals_may_be_written_by_hand(user_file, tmp_path):
    data, folder = user_file(), tmp_path / "P"
    propose(data, base=None, out=folder, num=3, chunk_length=2, quiet=True)
    with pytest.raises(EvorError, match=r"has no proposals.npy yet; write it, \[60, 3, 2, 2\], float32"):
        read_proposals(folder)
    rows = np.load(folder / "rows.npz")
    assert rows["observations"].shape == (60, 3)
    assert rows["episode"].tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert rows["step"].tolist() == [*range(20)] * 3
    np.save(folder / "proposals.npy", np.zeros((60, 3, 2, 2)))
    with pytest.raises(EvorError, match=r"holds float64 of shape \[60, 3, 2, 2\]; float32"):
        read_proposals(folder)
    np.save(folder / "proposals.npy", np.zeros((60, 3, 2, 2), np.float32, order="F"))
    with pytest.raises(EvorError, match=r"holds float32 of shape \[60, 3, 2, 2\] in Fortran's order; .* in C's order"):
        read_proposals(folder)
    array = random({"observation": rows["observations"]}, 3, 0)[:, :, :2].astype(np.float32)
    array[17, 1] = np.nan
    np.save(folder / "proposals.npy", array)
    with pytest.raises(EvorError, match=r"proposals.npy is not finite in row 17; write that row again"):
        evor.train(data, proposals=folder, out=tmp_path / "run", updates=2, quiet=True)
    assert not (tmp_path / "run").exists()


def test_data_in_blocks_have_their_own_proposals(user_file, tmp_path):
    """A block begins at a row of the whole dataset, wherever its file begins."""
    for name, seed in (("a.npz", 1), ("b.npz", 2)):
        user_file(name, rows=2000, seed=seed)
    folder = propose(tmp_path, base=told, num=2, out=tmp_path / "P", memory_gb=1e-3, quiet=True)
    config = RunConfig(data=str(tmp_path), proposals=str(folder), agent=OVER, memory_gb=1e-3, **UPDATES)
    data = open_data(config)
    assert data.num_blocks > 1
    for index in range(data.num_blocks):
        block = data._read(index)
        after = block.observations[block.bootstrap[block.sampled_rows[: int(block.count)]]]
        expected = np.tanh(np.asarray(after[:, 0]) * data.scale.observation_std[0] + data.scale.observation_mean[0])
        np.testing.assert_allclose(block.proposals[0, : len(expected), 1, 0], expected, atol=1e-5)


def over(user_file, tmp_path, agent, **changes):
    data = user_file()
    folder = propose(data, base=random, out=tmp_path / "P", num=3, chunk_length=2, quiet=True)
    open_data(RunConfig(**{"data": str(data), "proposals": str(folder), "agent": agent} | changes))


def test_rewards_beyond_a_chunk_are_refused_unless_the_policy_cloned_the_data(user_file, tmp_path):
    agent = replace(OVER, chunk_length=2, objective=replace(TINY.objective, n_steps=5))
    with pytest.raises(EvorError, match=r"n_steps is 5, and a chunk has 2: .* Give n_steps 2, or, .*cloned-this-data"):
        over(user_file, tmp_path, agent)
    over(user_file, tmp_path, replace(agent, base=Frozen(cloned_this_data=True)))
    over(user_file, tmp_path, replace(agent, objective=replace(TINY.objective, n_steps=2)))
    over(user_file, tmp_path, replace(agent, next_action=DatasetAction()))


@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        (OVER, {}, "chunk_length is 1, and the proposals have 2 actions; give --agent.chunk-length 2"),
        (OVER, {"proposals": None}, "PolicyAction needs proposals of the frozen base policy; give --proposals, or"),
        (replace(TINY, chunk_length=2), {}, "proposals go with a base policy of your own; choose it"),
        (
            replace(OVER, chunk_length=2, objective=replace(TINY.objective, n_steps=2), next_action=BestAction(4, 4)),
            {},
            "num_candidates is 4, and a row has 3 proposals; compare fewer",
        ),
    ],
)
def test_what_does_not_go_with_the_proposals_is_refused(user_file, tmp_path, agent, changes, message):
    with pytest.raises(EvorError, match=message):
        over(user_file, tmp_path, agent, **changes)


def test_proposals_for_other_data_are_refused(proposals, user_file):
    _, folder = proposals
    other = user_file("other.npz", seed=1)
    with pytest.raises(EvorError, match="holds proposals for other data; make those of these data"):
        open_data(RunConfig(data=str(other), proposals=str(folder), agent=OVER))
    relabelled = user_file(
        "labels.npz",
        next_observations=np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32),
        rewards=np.zeros(60, np.float32),
    )
    open_data(RunConfig(data=str(relabelled), proposals=str(folder), agent=OVER))  # they know no rewards


def test_without_proposals_the_datasets_action_needs_no_base(user_file):
    open_data(
        RunConfig(data=str(user_file()), agent=replace(TINY, base=Frozen()))
    )  # tests/policies/test_label.py trains so


def test_a_preset_over_proposals_has_chunks_and_sums_of_theirs(user_file, tmp_path):
    data = user_file()
    folder = propose(data, base=random, out=tmp_path / "P", num=3, chunk_length=2, quiet=True)
    agent = train_options(proposals=str(folder)).agent
    assert (agent.base, agent.chunk_length, agent.objective.n_steps) == (Frozen(), 2, 2)
    assert (agent.next_action.num_candidates, agent.next_action.num_stored) == (3, 3)
    assert train_options(proposals=str(folder), kind="scalar").agent.n_steps == 2
    with pytest.raises(EvorError, match=r"proposals go with Evor or Scalar, .* and not with Qc"):
        train_options("qc-5", proposals=str(folder))


def test_proposals_in_other_units_are_refused_before_anything_is_written(user_file, tmp_path, capsys):
    def degrees(observations, num, seed):
        return random(observations, num, seed) * [1.0, 57.3]

    with pytest.raises(EvorError, match=r"\d\d% of the actions that python:.*entry 1 goes from -5\d.*degrees against"):
        propose(user_file(), base=degrees, out=tmp_path / "P")
    assert not (tmp_path / "P").exists()

    def one(observations, num, seed):
        return np.repeat(random(observations, 1, 0), num, axis=1)

    propose(user_file(), base=one, out=tmp_path / "Q", num=2)
    assert "all proposals of a row are equal" in capsys.readouterr().err


def test_the_comparison_by_hand():
    """Two columns: the second is shifted by its own standard deviation, and half of its numbers are too large."""
    actions = np.array([[[0.5, -1.0]], [[-0.5, 1.0]]], np.float32)
    proposals = np.array([[[[0.5, 0.0]], [[-0.5, 2.0]]]] * 2, np.float32)
    compared = compare(proposals, actions, bounds=ActionBounds.unit(2))
    np.testing.assert_allclose(compared.shift, [0, 1])
    np.testing.assert_allclose(compared.spread, [1, 1])
    np.testing.assert_allclose(compared.outside, [0, 0.5])
    assert compared.any_outside == 0.5
    assert not compared.is_deterministic


def test_compared_rows_begin_whole_chunks(user_file):
    episodes = load_files(user_file())
    at = recorded([rows_of(episodes)], 15, number=100)
    assert sorted(set(at.rows % 20)) == [*range(6)]
    for row, chunk in zip(at.rows, at.actions, strict=True):
        np.testing.assert_array_equal(chunk, episodes.actions[row : row + 15])
    assert len(recorded([rows_of(episodes)], 15, number=4).rows) == 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over proposals of two actions."""
    folder = tmp_path_factory.mktemp("over")
    propose(user_arrays(), base=random, out=folder / "P", num=4, chunk_length=2, quiet=True)
    agent = replace(OVER, chunk_length=2, objective=replace(TINY.objective, n_steps=2))
    options = {"proposals": folder / "P", "agent": agent, "quiet": True, **UPDATES}
    return evor.train(user_arrays(), out=folder / "run", **options)


def test_only_the_value_is_trained_and_kept(run, tmp_path):
    arrays, *_ = checkpoint.newest(run.folder / "checkpoints")
    assert not [name for name in arrays if "base" in name or "policy" in name]
    assert [name for name in arrays if "head" in name]
    assert not (run.folder / "base").exists()
    line = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert {name.split("/")[0] for name in line if "/" in name} == {"value"}
    assert json.loads((run.folder / "config.json").read_text())["proposals"]["base"] == "python:test_over_base:random"
    run.policy(base=random).export(tmp_path / "export")
    arrays, _ = checkpoint.load_arrays(tmp_path / "export" / "policy.safetensors")
    assert not [name for name in arrays if name.startswith("policy")]
    exported = evor.load(tmp_path / "export", base=random)
    np.testing.assert_array_equal(exported.act(np.zeros(3), seed=1), run.policy(base=random).act(np.zeros(3), seed=1))


def test_the_best_proposal_is_returned_whole(run):
    policy, observations = run.policy(base=random), user_arrays()["observations"][:3]
    assert (policy.origin["base"], policy.origin["base_seeded"]) == ("python:test_over_base:random", True)
    chunks = policy.act(observations, seed=5, extraction=BestOf(6))
    assert chunks.shape == (3, 3, 2)  # as long as the base policy made it
    decided = policy.decide(observations, seed=5, extraction=BestOf(6))
    assert decided.candidates.shape == (3, 6, 2, 2)  # as much as is executed and scored
    np.testing.assert_array_equal(decided.action, chunks[:, :2])
    np.testing.assert_array_equal(decided.index, decided.scores.argmax(axis=1))
    values = policy.choose(observations, decided.candidates, seed=5, extraction=BestOf(6)).scores
    np.testing.assert_allclose(values, decided.scores, rtol=1e-5)
    np.testing.assert_array_equal(chunks, policy.act(observations, seed=5, extraction=BestOf(6)))
    assert policy.act(observations[:0]).shape == (0, 2, 2)
    one = policy.act(observations[0], seed=5, extraction=Prior())
    assert one.shape == (3, 2)
    with pytest.raises(EvorError, match="Guided moves actions, and those of a base policy of your own stay"):
        policy.act(observations, extraction=Guided())


def test_a_controller_plays_the_actions_that_are_scored(run):
    calls = []

    def counted(observations, num, seed):
        calls.append(observations)
        return random(observations, num, seed)

    controller = evor.Controller(run.policy(base=counted))
    observation = user_arrays()["observations"][0]
    actions = [controller.act(observation) for _ in range(4)]
    assert len(calls) == 2
    assert {tuple(one) for one in calls} == {("observation",)}
    assert not np.array_equal(actions[0], actions[2])


def test_an_observation_with_more_than_the_value_knows_passes_through(run):
    seen = []

    def looking(observations, num, seed):
        seen.append(observations)
        return random(observations, num, seed)

    observation = user_arrays()["observations"][0]
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    given = {"observation": observation, "image": image, "prompt": "pick"}
    policy = run.policy(base=looking)
    np.testing.assert_array_equal(policy.act(given, seed=3), policy.act(observation, seed=3))
    evor.Controller(policy).act(given)
    for one in (seen[0], seen[2]):
        np.testing.assert_array_equal(one["image"], image[None])
        assert one["prompt"] == ["pick"]
    assert seen[1].keys() == {"observation"}
    batch = {"observation": np.stack([observation] * 2), "image": np.stack([image] * 2)}
    assert policy.act(batch, seed=3).shape == (2, 3, 2)
    assert seen[3]["image"].shape == (2, 2, 2, 3)


def test_actions_beyond_the_bounds_are_clipped_and_told_once(run, capsys):
    policy = run.policy(base=lambda observations, num, seed: 3 * random(observations, num, seed))
    for seed in range(2):
        assert np.abs(policy.act(np.zeros(3), seed=seed)).max() <= 1
    assert capsys.readouterr().err.count("they are clipped") == 1


def test_an_evaluation_over_a_base_policy_has_rows_of_its_own(run):
    with pytest.raises(EvorError, match="a value alone, which proposes no actions"):
        evaluate(run.folder, env="own_environment:Line", episodes=1)
    options = {"env": "own_environment:Line", "episodes": 2, "parallel": 2}
    rows = evaluate(run.folder, base="python:test_over_base:random", **options)
    assert {row["base"] for row in rows} == {"python:test_over_base:random"}
    assert {row["num_candidates"] for row in rows} == {8}  # the default over a base policy
    (path,) = (run.folder / "evaluations").glob("*.csv")
    assert path.stem.endswith("_python-test_over_base-random")
    assert rows == evaluate(run.folder, base="python:test_over_base:random", **options)
    assert [row["return"] for row in read_rows(path)] == [row["return"] for row in rows]
    result = evor.evaluate(run.policy(base=random), own_environment.Line, episodes=2, quiet=True)
    assert result.total_reward.tolist() == pytest.approx([row["return"] for row in rows], abs=1e-5)
