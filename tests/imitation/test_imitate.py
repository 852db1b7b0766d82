"""The loop and its run folder: counts, resets, resuming, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import user_arrays
from evor.agents.bc import Bc
from evor.agents.sac import Sac
from evor.cli.main import main
from evor.errors import EvorError
from evor.imitation import demonstrations
from evor.imitation.actor import Actor
from evor.imitation.config import ImitationConfig
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.discriminator import Bounded, Entries, Free, TrueReward
from evor.imitation.folder import KIND, Task
from evor.imitation.guitar import Imitation, Played
from evor.imitation.index import STATES, STEPS, tightrope_index
from evor.imitation.learning import Pairs, Rows, update_learner
from evor.imitation.ledge import HORIZON, Ledge, demonstrated
from evor.imitation.replay import Replay
from evor.imitation.resets import ExpertStates, Filter, Guitar, Mm, OfflineStates, RollIn, Start, resets_of
from evor.imitation.run import imitate
from evor.nn.learner import Learning
from evor.runtime.records import replace

SMALL = Learning(hidden=(8, 8), batch_size=8)
CONFIG = ImitationConfig(
    steps=192,
    discriminator_sees=Entries((0,), (0,)),
    reward=Bounded(steps=2, pairs=16),
    learner=Sac(learning=SMALL),
    discriminator_hidden=(8,),
    copies=4,
    warm_up=16,
    update_every=16,
    reward_every=48,
    rollouts=2,
    evaluate_every=96,
    evaluation_episodes=2,
)


@pytest.fixture(scope="module")
def expert():
    return demonstrated("ledge", episodes=1, tremble=0.0)


@pytest.fixture(scope="module")
def offline():
    return demonstrated("ledge-bridge", episodes=3, tremble=0.3)


def task_of(expert, offline=None, make_world=Ledge):
    return Task(env="ledge", make_world=make_world, expert=expert, offline=offline, body={})


class Asked(Ledge):
    """A ledge that remembers where it was put."""

    def __init__(self, count):
        super().__init__(count)
        self.restored, self.started = [], 0

    def restore(self, copies, states, *, observations):
        self.restored += [tuple(state) for state in states]
        return super().restore(copies, states, observations=observations)

    def reset(self, copies, generator):
        self.started += len(copies)
        return super().reset(copies, generator)


# Resets.


def test_methods_are_mixtures_of_resets():
    assert resets_of(Mm()) == (Start(1.0),)
    assert resets_of(Filter()) == (Start(0.5), ExpertStates(0.5))
    assert resets_of(Guitar()) == (Start(0.5), ExpertStates(0.25), OfflineStates(0.25))
    rolled = Guitar(expert=0.0, offline=0.0, roll_in=0.5, most_steps=7)
    assert resets_of(rolled) == (Start(0.5), RollIn(0.5, 7))
    assert resets_of(Bc()) == ()
    with pytest.raises(EvorError, match=r"shares of resets sum to 1\.5"):
        Guitar(expert=1.0, offline=0.5)


def test_episodes_begin_where_the_method_says(expert, offline):
    """Shares, states and clocks, of the episodes of an untrained learner, which are short after a reset."""
    config = replace(CONFIG, method=Guitar(expert=0.3, offline=0.5), copies=16, steps=9600, search_horizon=3)
    imitation = Imitation(config, make_world=Asked, expert=expert, offline=offline, seed=0)
    generator = np.random.default_rng(0)
    for _ in range(60):
        imitation._step(generator)
    world, known = (
        imitation.world,
        {name: {tuple(state) for state in data.states} for name, data in (("e", expert), ("o", offline))},
    )
    assert set(world.restored) <= known["e"] | known["o"]
    total = imitation.counts.resets
    assert total == world.started + len(world.restored)
    shares = [sum(state in known[name] for state in world.restored) / total for name in "eo"]
    assert shares == pytest.approx([0.3, 0.5], abs=4 * (0.25 / total) ** 0.5)
    elsewhere = imitation.copies.elsewhere
    assert (imitation.copies.age[elsewhere] < 3).all()
    assert (imitation.copies.elapsed >= imitation.copies.age).all()


def test_a_search_horizon_counts_from_where_a_clone_got_to(expert):
    def clone(observations, generator):
        return np.zeros((len(observations), 2))

    method = Guitar(expert=0.0, offline=0.0, roll_in=1.0, most_steps=7)
    config = replace(CONFIG, method=method, copies=16, steps=9600, search_horizon=2)
    imitation = Imitation(config, make_world=Ledge, expert=expert, offline=None, clone=clone, seed=0)
    generator, latest = np.random.default_rng(0), 0
    for _ in range(30):
        imitation._step(generator)
        copies = imitation.copies
        assert (copies.age[copies.rolling > 0] == 0).all()
        assert (copies.age < 2).all()
        latest = max(latest, int(copies.elapsed.max()))
    assert latest == 8  # seven steps of a clone, and one before the second


def test_beyond_its_steps_a_run_learns_at_its_final_rate(expert):
    """The last round may end beyond them. At a rate below 0 a network would climb its loss."""
    learner = Sac(learning=replace(SMALL, learning_rate=1e-2, final_learning_rate=0.0))
    imitation = Imitation(replace(CONFIG, learner=learner), make_world=Ledge, expert=expert, offline=expert, seed=0)
    before = imitation.networks._replace(updates=jnp.asarray(10_000))
    spec = imitation.world.spec
    widths = (spec.observation_dim, spec.action_dim, spec.observation_dim)
    rows = Rows(*(np.ones((1, 8, width), np.float32) for width in widths), np.zeros((1, 8)), np.zeros((1, 8)))
    after, _ = update_learner(
        before, rows, scale=imitation.scale, config=imitation.config, entries=imitation.entries, key=jax.random.key(0)
    )
    for old, new in ((before.learner.actor, after.learner.actor), (before.learner.critics, after.learner.critics)):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(old, "learner", old).network, getattr(new, "learner", new).network
        )


@pytest.mark.slow
def test_every_step_of_the_simulator_is_counted(expert, offline):
    class Counting(Ledge):
        steps = 0

        def step(self, actions, generator):
            Counting.steps += len(actions)
            return super().step(actions, generator)

    def clone(observations, generator):
        return np.zeros((len(observations), 2))

    config = replace(CONFIG, method=Guitar(expert=0.0, offline=0.0, roll_in=0.8, most_steps=5), rollouts=1)
    imitation = Imitation(config, make_world=Counting, expert=expert, offline=offline, clone=clone, seed=0)
    imitation.advance()
    counts = imitation.counts
    assert counts.learner >= 48
    assert counts.roll_in > 0
    assert counts.all == Counting.steps == counts.learner + counts.rollouts + counts.roll_in
    assert imitation.replay.size == counts.learner  # a clone's steps are not learned from


@pytest.mark.slow
def test_rounds_that_a_clone_prolongs_are_kept_and_evaluated(expert, offline, tmp_path):
    """Where a clone acts in some copies, a round ends beyond a multiple of its steps."""
    config = replace(
        CONFIG,
        method=Guitar(expert=0.0, offline=0.0, roll_in=0.7, most_steps=5),
        copies=16,
        update_every=48,
        warm_up=10_000,
        steps=480,
    )

    def clone(observations, generator):
        return np.zeros((len(observations), 2))

    def made(steps):
        changed = replace(config, steps=steps)
        return Imitation(changed, make_world=Ledge, expert=expert, offline=offline, clone=clone, seed=0)

    imitation, ends = made(480), [0]
    while ends[-1] < 400:
        imitation.advance()
        ends.append(imitation.counts.learner)
    longest = int(np.argmax(np.diff(ends)))
    assert ends[longest + 1] - ends[longest] > 48 + 1
    last = made(ends[longest] + 1)  # its last round is the longest
    for _ in range(longest + 1):
        last.advance()
    assert last.replay.size == ends[longest + 1]

    imitate(replace(config, steps=288), task_of(expert, offline), out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/seed0/evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] // 96 for line in lines] == [0, 1, 2, 3]


def test_a_replay_returns_what_was_put_in():
    replay = Replay(10, observation=2, action=1)
    rows = np.arange(4, dtype=np.float32)
    given = Rows(np.stack([rows, -rows], 1), rows[:, None] / 10, np.stack([rows + 1, rows], 1), 5 * rows, rows == 3)
    replay.add(given)
    drawn = replay.batches(3, 50, generator=np.random.default_rng(0))
    assert drawn.observation.shape == (3, 50, 2)
    number = drawn.observation[..., 0]
    assert set(number.ravel()) == {0, 1, 2, 3}
    assert np.array_equal(drawn.reward, 5 * number)
    assert np.array_equal(drawn.terminated, number == 3)
    assert drawn.action[..., 0] == pytest.approx(number / 10)
    assert np.array_equal(drawn.next_observation[..., 0], number + 1)


# The run folder.


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_that_is_interrupted_ends_bit_identical(expert, offline, tmp_path, monkeypatch):
    config, task = replace(CONFIG, seeds=(0, 1)), task_of(expert, offline)
    imitate(config, task, out=tmp_path / "whole")
    advance, calls = Imitation.advance, 0

    def failing(self):
        nonlocal calls
        calls += 1
        if calls in (1, 5, 8):  # before any checkpoint, after one, and in the second seed
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(Imitation, "advance", failing)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            imitate(config, task, out=tmp_path / "cut")
    imitate(config, task, out=tmp_path / "cut")
    assert calls == 3 + 8 + 1  # one round was made twice
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole/seed1/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [48, 96, 144, 192]
    assert {"discriminator/loss", "actor/entropy", "rollouts/length"} <= set(lines[-1])

    replay = tmp_path / "whole/seed1/replay.bin"
    steps = bytearray(replay.read_bytes())
    steps[9] ^= 1
    replay.write_bytes(steps)
    with pytest.raises(EvorError, match=r"replay.bin is damaged: its steps are not those that were saved"):
        imitate(config, task, out=tmp_path / "whole")


@pytest.mark.slow
def test_other_settings_are_refused(expert, tmp_path):
    config = replace(CONFIG, method=Mm(), steps=48, evaluate_every=48)
    imitate(config, task_of(expert), out=tmp_path / "run")
    with pytest.raises(EvorError, match=r"was started differently \(config.steps: 48 -> 96\)"):
        imitate(replace(config, steps=96), task_of(expert), out=tmp_path / "run")
    other = demonstrated("ledge", episodes=1, tremble=0.0, seed=5)
    with pytest.raises(EvorError, match=r"was started differently \(expert: "):
        imitate(config, task_of(other), out=tmp_path / "run")


@pytest.mark.slow
def test_a_body_that_explodes_stops_and_keeps_its_checkpoint(expert, tmp_path):
    class Exploding(Ledge):
        steps = 0

        def step(self, actions, generator):
            self.steps += 1
            stepped = super().step(actions, generator)
            if self.count == CONFIG.copies and self.steps > 24:
                stepped.observations[0, 1] = np.nan
            return stepped

    with pytest.raises(EvorError, match=r"not finite at step 96 of the learner.*The last checkpoint is kept"):
        imitate(replace(CONFIG, method=Mm()), task_of(expert, make_world=Exploding), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/seed0/checkpoints").iterdir()] == ["step_000000096.safetensors"]


@pytest.mark.slow
def test_a_body_that_never_touches_the_ground_stops_and_keeps_its_checkpoint(expert, tmp_path):
    class Floating(Ledge):
        steps = 0

        def step(self, actions, generator):
            self.steps += 1
            return super().step(actions, generator)

        @property
        def touched(self):
            return self.steps <= 24

    with pytest.raises(
        EvorError, match=r"touched the ground until step 144 of the learner.*The last checkpoint is kept"
    ):
        imitate(replace(CONFIG, method=Mm()), task_of(expert, make_world=Floating), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/seed0/checkpoints").iterdir()] == ["step_000000096.safetensors"]


@pytest.mark.slow
def test_cloning_and_the_true_reward_need_no_discriminator(expert, tmp_path):
    clone = replace(CONFIG, method=Bc(learning=SMALL, flow_steps=2))
    imitate(clone, task_of(expert), out=tmp_path / "bc")
    (line,) = (tmp_path / "bc/seed0/evaluations.jsonl").read_text().splitlines()
    assert len(json.loads(line)["returns"]) == 2
    oracle = replace(CONFIG, method=Mm(), reward=TrueReward(), steps=48, evaluate_every=48)
    imitate(oracle, task_of(None), out=tmp_path / "oracle")
    line = json.loads((tmp_path / "oracle/seed0/evaluations.jsonl").read_text().splitlines()[-1])
    assert line["counts"]["rollouts"] == 0
    assert not (tmp_path / "oracle/seed0/index.json").exists()  # it has no states to compare


@pytest.mark.slow
def test_an_oracle_keeps_its_best_policy_and_tells_where_it_survives(expert, offline, tmp_path, monkeypatch):
    played = [11.0, 13.0, 12.0]  # the returns of its evaluations

    def evaluated(self, world, episodes):
        returns = np.full(episodes, played[self.counts.learner // 96])
        return Played(Pairs(None, None), returns=returns, lengths=np.full(episodes, 3))

    monkeypatch.setattr(Imitation, "evaluate", evaluated)
    config = replace(CONFIG, reward=TrueReward(), method=Guitar())
    imitate(config, task_of(expert, offline), out=tmp_path / "run")
    assert Actor.read(tmp_path / "run/seed0/actor.safetensors")[1]["step"] == 96
    index = json.loads((tmp_path / "run/seed0/index.json").read_text())
    assert (index["steps"], index["states"]) == (100, 200)
    assert 0 <= index["expert"] < 0.2  # hardly anybody stays on the beam for long
    with pytest.raises(EvorError, match="--offline: states have 2 entries, and those of ledge have 3"):
        imitate(config, task_of(expert, changed(offline, states=offline.states[:, :2])), out=tmp_path / "never")


def test_the_index_is_the_share_that_survives(expert):
    class Clock(Ledge):
        """A state says how many steps are left."""

        def restore(self, copies, states, *, observations):
            self.left = states[:, 0].copy()
            return observations

        def step(self, actions, generator):
            self.left -= 1
            return super().step(actions, generator)._replace(terminated=self.left <= 0)

    def of(*lives):
        return changed(expert, states=np.tile(np.resize(lives, (len(expert), 1)), 3))

    found = tightrope_index(
        Clock(7), lambda o: np.zeros((len(o), 2)), expert=of(STEPS, STEPS + 1), offline=of(STEPS + 1), seed=0
    )
    assert found["offline"] == 1.0  # a step more than is asked for
    assert found["expert"] == pytest.approx(0.5, abs=4 * (0.25 / STATES) ** 0.5)


@pytest.mark.slow
def test_the_released_reward_runs(expert, offline, tmp_path):
    config = replace(CONFIG, reward=Free(pairs=16), steps=48, evaluate_every=48)
    imitate(config, task_of(expert, offline), out=tmp_path / "run")
    assert (tmp_path / "run/seed0/evaluations.jsonl").exists()


# Demonstrations.


def test_demonstrations_survive_a_file(expert, tmp_path):
    demonstrations.write(expert, tmp_path / "e.npz")
    back = demonstrations.read(tmp_path / "e.npz")
    assert back.env == "ledge"
    for name in demonstrations.ARRAYS:
        assert np.array_equal(getattr(back, name), getattr(expert, name)), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"elapsed": None}, "lacks elapsed, so it holds no demonstrations"),
        ({"states": np.zeros(3)}, "states has 1 axes, and 2 are needed"),
        ({"rewards": np.zeros(3)}, "rewards has 3 rows, and observations 150"),
        ({"actions": np.full((150, 2), 2.0)}, r"actions reach 2, and they must lie in \[-1, 1\]"),
        ({"observations": np.full((150, 4), np.nan)}, "observations in row 0 is not finite"),
        ({"observations": np.full((150, 4), "a")}, "observations has type <U1, and real numbers are needed"),
        ({"actions": np.zeros((150, 2), complex)}, "actions has type complex128, and real numbers are needed"),
    ],
)
def test_files_that_hold_something_else_are_refused(change, told, expert, tmp_path):
    arrays = {name: getattr(expert, name) for name in demonstrations.ARRAYS} | change
    np.savez(tmp_path / "e.npz", env="ledge", **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(EvorError, match=told):
        demonstrations.read(tmp_path / "e.npz")


def changed(data: Demonstrations, **changes) -> Demonstrations:
    return replace(data, **changes)


@pytest.mark.parametrize(
    ("expert_changes", "offline_changes", "method", "told"),
    [
        ({"env": "Hopper-v5"}, {}, Guitar(), "--demos holds demonstrations in 'Hopper-v5', and the learner lives in 'ledge'"),
        ({"observations": np.zeros((150, 3), np.float32)}, {}, Guitar(), "--demos: observations have 3 entries"),
        ({"states": None}, {}, Guitar(), "--demos holds no states, and this method resets to them"),
        ({"states": np.zeros((150, 7))}, {}, Filter(), "--demos: states have 7 entries, and those of ledge have 3"),
        ({"actions": None}, {}, Mm(), "--demos holds no actions, and they are what is imitated"),
        ({}, {"states": None}, Guitar(), "--offline holds no states"),
        ({}, None, Guitar(), "there are none; give --offline FILE, or --method filter"),
    ],
)  # fmt: skip
def test_demonstrations_that_do_not_fit_are_refused(
    expert_changes, offline_changes, method, told, expert, offline, tmp_path
):
    data = None if offline_changes is None else changed(offline, **offline_changes)
    task = task_of(changed(expert, **expert_changes), data)
    with pytest.raises(EvorError, match=told):
        imitate(replace(CONFIG, method=method), task, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("has_states", [True, False])
def test_a_clone_needs_actions_of_somebody(has_states, offline, tmp_path):
    """An oracle may do without demonstrations, and offline data without actions; together they leave nothing to clone."""
    method = Guitar(expert=0.0, offline=0.0, roll_in=0.5)
    task = task_of(None, changed(offline, actions=None) if has_states else None)
    with pytest.raises(EvorError, match=r"no actions to clone; give --demos FILE, .* or leave --method\.roll-in out"):
        imitate(replace(CONFIG, method=method, reward=TrueReward()), task, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_offline_data_without_actions_are_welcome_where_states_are_used(expert, offline, tmp_path):
    config = replace(CONFIG, steps=48, evaluate_every=48)
    imitate(config, task_of(expert, changed(offline, actions=None, rewards=None)), out=tmp_path / "run")
    without = changed(expert, states=None)
    imitate(replace(config, method=Mm()), task_of(without), out=tmp_path / "mm")  # it resets to no state


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seeds": (1, 1)}, "seeds are .1, 1.; name different"),
        ({"update_every": 18}, "update_every is 18 and copies is 4; the first must be a multiple"),
        ({"reward_every": 50}, "reward_every is 50 and update_every is 16"),
        ({"steps": 0}, "steps is 0"),
        ({"search_horizon": 0}, "search_horizon is 0"),
        ({"discriminator_hidden": (0,)}, "discriminator_hidden is 0; it must be at least 1"),
        ({"method": Bc(chunk_length=3)}, "chunk_length is 3; an imitation clones single actions"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, told):
    with pytest.raises(EvorError, match=told):
        replace(CONFIG, **wrong)


# The command.


def test_demonstrations_replace_demonstrations_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["imitate", "demos", "ledge", "--episodes", "1", "--out"]
    assert [main([*command, "demos.npz"]) for _ in range(2)] == [0, 0]
    np.savez("mine.npz", **user_arrays())
    before = Path("mine.npz").read_bytes()
    assert main([*command, "mine.npz"]) == 2
    assert "--out mine.npz exists and holds no demonstrations; give another file" in capsys.readouterr().err
    assert Path("mine.npz").read_bytes() == before


@pytest.mark.slow
def test_the_commands_imitate_on_the_ledge(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["imitate", "demos", "ledge", "--episodes", "1", "--out", "e.npz"]) == 0
    assert "wrote e.npz: 150 steps" in capsys.readouterr().err
    small = "--steps 480 --evaluate-every 480 --rollouts 1 --evaluation-episodes 1 --learner.hidden 8 --learner.batch-size 8"
    assert main(f"imitate ledge --demos e.npz --method filter --method.expert 0.2 --out run {small}".split()) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["config"]["method"] == {"type": "Filter", "expert": 0.2}
    assert config["config"]["discriminator_sees"] == {"type": "Entries", "observation": [0], "action": [0]}
    assert config["config"]["copies"] == 32
    assert Path("run/seed0/checkpoints/step_000000480.safetensors").exists()
    for words, told in (
        ("imitate lege --demos e.npz --out x", "there is no environment 'lege'; did you mean 'ledge'?"),
        ("imitate demos ledge --seed -1 --out x.npz", "seed is -1; it must be at least 0"),
        ("imitate ledge --out x", "there are no demonstrations to imitate; give --demos FILE"),
        (
            "imitate demos nobody --out x.npz",
            "nobody is no demonstrator and holds no actor.safetensors; give ledge or ledge-bridge",
        ),
        ("imitate ledge --demos e.npz --method guita --out x", "--method 'guita' is unknown; did you mean 'guitar'?"),
        ("imitate ledge --demos e.npz --method mm --method.expert 0.2 --out x", "goes with --method guitar or filter"),
    ):
        assert main(words.split()) == 2, words
        assert told in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.mark.slow
def test_an_expert_is_trained_and_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--steps", "480", "--learner.hidden", "8", "--learner.batch-size", "8"]
    assert main(["imitate", "expert", "ledge", "--out", "x", *small]) == 0
    config = json.loads(Path("x/config.json").read_text())
    assert (config["config"]["reward"], config["config"]["method"]) == ({"type": "TrueReward"}, {"type": "Mm"})
    assert Path("x/seed0/actor.safetensors").stat().st_size < 10_000
    for given in ("x", "x/seed0/actor.safetensors"):
        assert main(["imitate", "demos", given, "--episodes", "1", "--out", "d.npz"]) == 0
        recorded = demonstrations.read(Path("d.npz"))
        assert recorded.env == "ledge"
        assert recorded.elapsed[0] == 0
    capsys.readouterr()
    Path("empty").mkdir()
    assert main(["imitate", "demos", "empty", "--out", "e.npz"]) == 2
    assert "empty is no demonstrator and holds no actor.safetensors" in capsys.readouterr().err
    assert main(["imitate", "ledge", "--body.gear", "0.5", "--demos", "d.npz", "--out", "y"]) == 2
    assert "the ledge has no body to change (gear); leave --body out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mujoco_body_is_imitated_and_resumed(tmp_path, monkeypatch, capsys):
    """Two halves of the steps are killed between; what is left is that of a run in one go, on another body."""
    monkeypatch.chdir(tmp_path)
    small = ["--learner.hidden", "8", "--learner.batch-size", "8"]
    assert main(["imitate", "expert", "Hopper-v5", "--out", "x", "--steps", "10240", *small]) == 0
    assert main(["imitate", "demos", "x", "--episodes", "2", "--out", "h.npz"]) == 0
    command = ["imitate", "Hopper-v5", "--demos", "h.npz", "--offline", "h.npz", *small, "--steps", "960"]
    command += ["--reward-every", "192", "--evaluate-every", "384", "--warm-up", "64", "--rollouts", "1"]
    command += ["--body.limb", "1.2", "--body.gear", "0.7", "--body.delay", "1", "--evaluation-episodes", "2"]
    assert main([*command, "--out", "whole"]) == 0
    assert "<mujoco" in Path("whole/body.xml").read_text()
    config = json.loads(Path("whole/config.json").read_text())
    assert config["body"] == {"gear": 0.7, "limb": 1.2, "delay": 1}
    advance, calls = Imitation.advance, 0

    def failing(self):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(Imitation, "advance", failing)
    assert main([*command, "--out", "cut"]) == 130
    assert main([*command, "--out", "cut"]) == 0
    assert content(Path("cut")) == content(Path("whole"))
    assert main([*command, "--out", "y", "--offline", "x/config.json"]) == 2


def test_states_of_another_simulator_are_refused(expert, tmp_path):
    with pytest.raises(EvorError, match="holds states of mujoco 2, and this is "):
        imitate(replace(CONFIG, method=Filter()), task_of(changed(expert, version="mujoco 2")), out=tmp_path / "never")


def test_lived_shares_tell_falls_from_cuts(expert):
    ends = np.zeros(150, bool)
    ends[59] = True
    fell = changed(expert, terminations=ends, elapsed=np.append(np.arange(60), np.arange(90)))
    assert fell.lived(HORIZON) == pytest.approx((60 / 150 + 1) / 2)  # the second was only cut
    assert KIND == "imitation"
