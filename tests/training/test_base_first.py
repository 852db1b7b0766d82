"""A base policy that is trained first, and draws of it that targets look up."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evor
from conftest import DATASET, TINY
from evor.agents.evor import Evor
from evor.agents.next_action import BestAction
from evor.agents.registry import AGENTS
from evor.errors import EvorError
from evor.nn.objectives import MonteCarlo
from evor.policies.load import open_run
from evor.runtime.records import replace
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.proposals import ProposalStore, visited
from evor.training.train import Training, train

SEARCHED = replace(TINY, next_action=BestAction(2, num_stored=3))
UPDATES = {"updates": 6, "checkpoint_every": 3, "log_every": 2}


def config_of(data_folder, **changes) -> RunConfig:
    options = {"dataset": DATASET, "data": str(data_folder), "tasks": (1, 2), "agent": SEARCHED, **UPDATES}
    return RunConfig(**(options | changes))


@pytest.fixture(scope="module", autouse=True)
def _few_rows_at_a_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evor.training.proposals.ROWS", 8)
        yield


@pytest.fixture(scope="module")
def run(data_folder, tmp_path_factory):
    """A run of two seeds and two tasks."""
    out = tmp_path_factory.mktemp("base-first") / "run"
    train(config_of(data_folder, num_seeds=2), out)
    return out


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def proposals(run, seed):
    """The draws so far: of a file that still grows, fewer than its header says."""
    path = run / "base" / "proposals" / "block0" / f"seed{seed}.npy"
    return np.fromfile(path, np.float32, offset=128).reshape(-1, 3, 2)


def test_the_base_is_a_run_of_its_own_and_does_not_move_again(run):
    whole, alone = open_run(run), open_run(run / "base")
    assert type(alone.config.agent) is evor.Bc
    assert same(whole.base, alone.base)
    early = open_run(run, 3)
    assert same(whole.base, early.base)
    assert not same(whole.head, early.head)
    evor.load(run / "base", 1, seed=1).act(np.zeros(2, np.float32))


def test_stored_draws_are_the_base_policys(run, data_folder):
    """Each lies where the policy's own draws lie, and each seed has its own."""
    drawn = [proposals(run, seed) for seed in (0, 1)]
    assert drawn[0].shape == drawn[1].shape
    assert np.abs(drawn[0]).max() <= 1
    assert not np.array_equal(*drawn)
    opened = open_run(run / "base")
    config = config_of(data_folder)
    data = open_data(config)
    columns = visited(config, data.columns(0), block=0, total=data.num_rows)
    observations = columns.observations[columns.bootstrap[columns.sampled_rows]]
    assert len(observations) == len(drawn[0]) == 6 * 32 // 8  # rows that are visited eight times
    agent, key = opened.config.agent, jax.random.key(1)
    for part in (2, 0, 5):  # the stream, the block, the row
        key = jax.random.fold_in(key, part)
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), opened.base).network
    for index in range(3):
        one = AGENTS[evor.Bc].propose(
            network, jnp.asarray(observations[5]), flow_steps=agent.flow_steps, key=jax.random.fold_in(key, index)
        )
        np.testing.assert_allclose(drawn[1][5, index], one, atol=1e-5)


@pytest.mark.slow
def test_a_seed_among_others_learns_as_it_does_alone(run, data_folder, tmp_path):
    train(config_of(data_folder, seed=1, tasks=(1, 2)), tmp_path / "alone")
    one = jax.tree.map(lambda leaf: leaf[1:], open_run(run)[3:5])
    for a, b in zip(leaves(one), leaves(open_run(tmp_path / "alone")[3:5]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", ["base", "proposals", "value"])
def test_a_run_that_was_stopped_anywhere_ends_the_same(run, data_folder, tmp_path, monkeypatch, stopped_in):
    config, out = config_of(data_folder, num_seeds=2), tmp_path / "run"
    if stopped_in == "value":
        with Training.open(config, out, resume=False) as training:
            training.advance(3)
    else:
        with Training.open(config, out, resume=False) as training:
            if stopped_in == "proposals":
                draw = ProposalStore.draw
                asked = iter([False, False, True])
                monkeypatch.setattr(ProposalStore, "draw", lambda store, stop: draw(store, lambda: next(asked)))
                assert not training.advance(6)
                monkeypatch.setattr(ProposalStore, "draw", draw)
                assert 0 < len(proposals(out, 0)) < len(proposals(run, 0))
                killed = out / "base" / "proposals" / "block0" / ".proposals.json.elsewhere-1-ab.partial"
                killed.touch()
            else:
                assert not training.advance(6, deadline=0.0)
                assert open_run(out / "base").step < 6
    train(config, out, resume=True)
    assert list(out.rglob(".*.partial")) == []
    assert same(open_run(run)[3:5], open_run(out)[3:5])
    for seed in (0, 1):
        np.testing.assert_array_equal(proposals(run, seed), proposals(out, seed))


@pytest.mark.slow
def test_more_updates_leave_the_base_as_it_is(data_folder, tmp_path):
    config = config_of(data_folder)
    train(config, tmp_path / "run")
    before = open_run(tmp_path / "run")
    stored = proposals(tmp_path / "run", 0)
    train(replace_updates(config, 9), tmp_path / "run", resume=True)
    after = open_run(tmp_path / "run")
    assert after.step == 9
    assert same(before.base, after.base)
    longer = proposals(tmp_path / "run", 0)
    assert len(longer) == 9 * 32 // 8
    np.testing.assert_array_equal(stored, longer[: len(stored)])


def replace_updates(config, updates):
    return RunConfig(**{**{f: getattr(config, f) for f in config.__dataclass_fields__}, "updates": updates})


@pytest.mark.slow
def test_lost_draws_are_made_again(run, data_folder, tmp_path):
    """From the base in the checkpoint; the same ones."""
    config, out = config_of(data_folder, num_seeds=2), tmp_path / "run"
    with Training.open(config, out, resume=False) as training:
        training.advance(3)
    for path in (out / "base" / "proposals" / "block0").iterdir():
        path.unlink()
    train(config, out, resume=True)
    assert list(out.rglob(".*.partial")) == []
    assert same(open_run(run)[3:5], open_run(out)[3:5])


def test_draws_of_another_base_are_not_taken(tmp_path):
    agent = evor.Bc(learning=TINY.learning)
    observations = jnp.ones((5, 3))

    def base(seed):
        init = AGENTS[evor.Bc].base.init(agent, evor.types.Spec(3, 2), key=jax.random.key(seed))
        return jax.tree.map(lambda leaf: leaf[None], init)

    def drawn(base, number=2):
        store = ProposalStore(
            tmp_path / "drawn", agent=agent, base=base, seeds=(0,), observations=observations, number=number
        )
        assert store.draw(lambda: False)
        return store.read()

    one = drawn(base(0))
    assert one.shape == (1, 5, 2, 2)
    assert not same(one, drawn(base(1)))
    assert same(one, drawn(base(0)))
    assert drawn(base(0), 3).shape == (1, 5, 3, 2)


@pytest.mark.slow
def test_the_base_has_updates_of_its_own(data_folder, tmp_path):
    given = {"tasks": (1, 2), "agent": SEARCHED, "base_updates": 2, **UPDATES}
    evor.train(DATASET, data_folder=data_folder, out=tmp_path / "run", quiet=True, **given)
    assert open_run(tmp_path / "run" / "base").step == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "policy/loss" not in lines[0]
    assert "value/loss" in lines[0]


def test_too_few_stored_draws_are_refused():
    with pytest.raises(EvorError, match="num_stored is 2, fewer than num_candidates, 4"):
        BestAction(4, num_stored=2)


def test_the_candidates_of_a_target_are_the_rows_own():
    stored = jnp.arange(2 * 5 * 1.0).reshape(2, 5, 1)
    batch = evor.types.Transition(
        *(jnp.zeros((2, 1)) for _ in range(4)), next_action=jnp.full((2, 1), -1.0), next_proposals=stored
    )
    chosen = BestAction(3, num_stored=5, dataset_action=True)
    policy = AGENTS[evor.Bc].base.init(evor.Bc(learning=TINY.learning), evor.types.Spec(1, 1), key=jax.random.key(0))
    seen = set()
    for seed in range(40):
        candidates = chosen.candidates(policy, batch, config=TINY, key=jax.random.key(seed))
        assert candidates.shape == (2, 4, 1)
        assert (candidates[:, 0] == -1).all()
        for row in range(2):
            values = candidates[row, 1:, 0].tolist()
            assert len(set(values)) == 3
            assert set(values) <= set(stored[row, :, 0].tolist())
            seen |= set(values)
    assert seen == set(range(10))


@pytest.mark.slow
def test_draws_of_data_in_blocks(tmp_path):
    """Rows of every block are visited, each with draws for its own observation."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        rows = 4000
        ends = np.arange(rows) % 20 == 19
        np.savez(
            tmp_path / f"{name}.npz",
            observations=generator.normal(size=(rows, 3)).astype(np.float32),
            actions=generator.uniform(-1, 1, (rows, 2)).astype(np.float32),
            rewards=np.full(rows, -1.0, np.float32),
            terminations=np.zeros(rows, bool),
            truncations=ends,
        )
    agent = replace(SEARCHED, objective=replace(TINY.objective, n_steps=3))
    options = {
        "data": str(tmp_path),
        "agent": agent,
        "updates": 12,
        "checkpoint_every": 6,
        "num_seeds": 2,
        "memory_gb": 1e-3,
    }
    config = RunConfig(**options)
    data = open_data(config)
    assert data.num_blocks > 1
    train(config, tmp_path / "run")
    with Training.open(config, tmp_path / "again", resume=False) as training:
        training.advance(5)
    with Training.open(config, tmp_path / "again", resume=True) as training:
        training.advance(12)
        blocks = [training._data._read(index) for index in range(data.num_blocks)]
        base = training._state.base
    assert same(open_run(tmp_path / "run")[3:5], open_run(tmp_path / "again")[3:5])
    assert sum(int(block.count) for block in blocks) >= 12 * 32 / 8
    for index, block in enumerate(blocks):
        rows = block.sampled_rows[: int(block.count)]
        store = ProposalStore(
            tmp_path / f"anew{index}",
            agent=evor.Bc(learning=TINY.learning),
            base=base,
            seeds=(0, 1),
            observations=block.observations[block.bootstrap[rows]],
            number=3,
            block=index,
        )
        assert store.draw(lambda: False)
        np.testing.assert_array_equal(store.read(), block.proposals[:, : len(rows)])


def test_what_never_bootstraps_draws_nothing(data_folder, tmp_path):
    """MonteCarlo's targets are whole returns: its base policy trains beside it, and its batches need no next action."""
    agent = replace(Evor(objective=MonteCarlo()), hidden=(8, 8), batch_size=32)
    train(RunConfig(dataset=DATASET, data=str(data_folder), tasks=(1,), updates=2, agent=agent), tmp_path / "run")
    assert not (tmp_path / "run" / "base").exists()
    policy = open_run(tmp_path / "run").policy(task=1, seed=0)
    assert np.isfinite(policy.value(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))).all()
