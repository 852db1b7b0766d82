"""Simulators: restored states are exact, changed bodies are what they say, and environments of a user's own."""

import gymnasium
import numpy as np
import pytest

from evor.errors import EvorError
from evor.imitation import demonstrations
from evor.imitation.bodies import Body, changed_model
from evor.imitation.config import ImitationConfig
from evor.imitation.demonstrations import record
from evor.imitation.discriminator import Entries
from evor.imitation.guitar import roll_out
from evor.imitation.resets import Mm
from evor.imitation.run import imitate
from evor.imitation.simulators import Restorable, Simulator, body_model
from evor.imitation.tasks import make_task
from evor.runtime.records import replace

MUJOCO = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "antmaze-medium-singletask-task1-v0")


class Pendulum(gymnasium.Env):
    """A swing with random pushes, which saves the state of its generator, too."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-2.0, 4.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.normal(size=2)
        return self.at.copy(), {}

    def step(self, action):
        self.last = action
        angle, speed = self.at
        self.at = np.array([angle + 0.1 * speed, speed - np.sin(angle) + action[0] + 0.1 * self.np_random.normal()])
        return self.at.copy(), float(-(angle**2)), bool(abs(speed) > 50), False, {}

    def save_state(self):
        inner = self.np_random.bit_generator.state["state"]
        words = [int(inner[name]) >> (16 * part) & 0xFFFF for name in ("state", "inc") for part in range(8)]
        return np.array([*self.at, *words])

    def restore_state(self, state, observation):
        self.at = state[:2].copy()
        numbers = [
            sum(int(word) << (16 * part) for part, word in enumerate(state[first : first + 8])) for first in (2, 10)
        ]
        generator = np.random.PCG64()
        generator.state = generator.state | {"state": dict(zip(("state", "inc"), numbers, strict=True))}
        self.np_random = np.random.Generator(generator)
        return self.at.copy()


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("swing-v0", Pendulum, max_episode_steps=30)
    gymnasium.register("endless-v0", Pendulum)
    yield
    for name in ("swing-v0", "endless-v0"):
        del gymnasium.registry[name]


@pytest.mark.parametrize("env", [*MUJOCO, "swing-v0"])
def test_a_restored_state_replays_bit_for_bit(env):
    """From every state of an episode, in another copy that was elsewhere, for ten steps."""
    world, generator = Simulator(env, 2), np.random.default_rng(0)
    spec = world.spec
    first = world.reset(np.arange(2), generator)[0]
    actions = generator.uniform(-1, 1, (40, 2, spec.action_dim))
    seen, states = [first], [world.states()[0]]
    for action in actions:
        stepped = world.step(action, generator)
        seen.append(stepped.observations[0])
        states.append(world.states()[0])
    for start in (0, 3, 17, 30):
        back = world.restore(np.array([1]), states[start][None], observations=seen[start][None])
        assert np.array_equal(back[0], seen[start])
        for step in range(start, start + 10):
            after = world.step(np.stack([actions[step, 1], actions[step, 0]]), generator).observations[1]
            assert np.array_equal(after, seen[step + 1])


def test_actions_fill_the_bounds():
    world = Simulator("swing-v0", 1)
    world.reset(np.array([0]), np.random.default_rng(0))
    for given, taken in ((-1.0, -2.0), (0.0, 1.0), (1.0, 4.0), (3.0, 4.0)):
        world.step(np.array([[given]]), np.random.default_rng(0))
        assert world._envs[0].last == pytest.approx([taken])


def test_a_user_s_environment_is_restorable():
    assert isinstance(Pendulum(), Restorable)
    shown = record(Simulator("swing-v0", 1), lambda world, o: np.zeros((1, 1)), episodes=2, tremble=0.5, seed=0)
    assert len(shown) == 60
    assert shown.truncations.sum() == 2


@pytest.mark.parametrize(
    ("env", "body", "told"),
    [
        ("Hoper-v5", Body(), "there is no environment 'Hoper-v5'; did you mean 'Hopper-v5'"),
        ("CartPole-v1", Body(), "CartPole-v1 can't restore a state; give it save_state and restore_state"),
        ("endless-v0", Body(), "endless-v0 has no time limit; register it with max_episode_steps"),
        ("swing-v0", Body(hidden=(2,)), "--body.hidden names entry 2, and swing-v0 observes entries 0 to 1"),
    ],
)
def test_what_can_not_be_a_world_is_refused(env, body, told):
    with pytest.raises(EvorError, match=told):
        Simulator(env, 1, body=body)


def test_a_state_is_as_wide_before_the_first_reset():
    assert Simulator("swing-v0", 2).state_width == 18


class Ending(Pendulum):
    """Ends after a number of steps of its own, and knows nothing of steps after its end."""

    def reset(self, *, seed=None, options=None):
        answer = super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 5))
        return answer

    def step(self, action):
        assert self.left, "stepped after its end"
        self.left -= 1
        observation, reward, _, _, info = super().step(action)
        return observation, reward, not self.left, False, info


def test_nothing_is_stepped_after_its_end():
    gymnasium.register("ending-v0", Ending, max_episode_steps=30)
    try:
        world, generator = Simulator("ending-v0", 6), np.random.default_rng(0)
        played = roll_out(world, lambda seen: np.zeros((len(seen), 1)), generator=generator, episodes=12)
        assert len(set(played.lengths.tolist())) > 1
        assert (played.lengths <= 4).all()
        before = world.step(np.zeros((6, 1)), generator)
        after = world.step(np.ones((6, 1)), generator)
        assert np.array_equal(before.observations, after.observations)
        assert after.terminated.all()
        assert not after.rewards.any()
        world.reset(np.array([2]), generator)
        after = world.step(np.ones((6, 1)), generator)
        assert (before.observations != after.observations).any(axis=1).tolist() == [index == 2 for index in range(6)]
    finally:
        del gymnasium.registry["ending-v0"]


class Raising(Pendulum):
    def reset(self, *, seed=None, options=None):
        raise ValueError("no scene")


class Breaking(Pendulum):
    def step(self, action):
        return super().step(action) if not self.at[1] else 1 / 0


class Silent(Pendulum):
    def restore_state(self, state, observation):
        super().restore_state(state, observation)


class Longer(Pendulum):
    def save_state(self):
        return np.append(super().save_state(), np.zeros(self.np_random.integers(2) if self.at[0] else 0))


class Wider(Pendulum):
    def reset(self, *, seed=None, options=None):
        return np.append(super().reset(seed=seed)[0], 0), {}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Raising, r"faulty-v0 raised ValueError: no scene \(test_simulators.py:\d+\); fix the environment"),
        (Breaking, r"faulty-v0 raised ZeroDivisionError: .* \(test_simulators.py:\d+\); fix the environment"),
        (Silent, r"faulty-v0 returned an observation of shape \[\], and its observation_space has \[2\]; fix"),
        (Longer, r"save_state of faulty-v0 returned \[18, 19\] numbers; return as many every time"),
        (Wider, r"faulty-v0 returned an observation of shape \[3\], and its observation_space has \[2\]; fix"),
    ],
)
def test_a_fault_of_a_user_s_environment_is_told_with_its_place(kind, told):
    def played():
        world, generator = Simulator("faulty-v0", 8), np.random.default_rng(0)
        seen = world.reset(np.arange(8), generator)
        world.restore(np.arange(8), world.states(), observations=seen)
        world.step(np.zeros((8, 1)), generator)

    gymnasium.register("faulty-v0", kind, max_episode_steps=30)
    try:
        with pytest.raises(EvorError, match=told):
            played()
    finally:
        del gymnasium.registry["faulty-v0"]


def test_a_module_registers_its_environments(tmp_path, monkeypatch):
    (tmp_path / "my_swing.py").write_text(
        "import gymnasium\nfrom imitation.test_simulators import Pendulum\n"
        "gymnasium.register('mine-v0', Pendulum, max_episode_steps=7)\n"
    )
    monkeypatch.chdir(tmp_path)
    world = Simulator("my_swing:mine-v0", 1)
    assert (world.name, world.horizon) == ("my_swing:mine-v0", 7)
    # Demonstrations that the module's own program recorded name no module.
    by_program = record(Simulator("mine-v0", 1), lambda *_: np.zeros((1, 1)), episodes=1, tremble=0.0, seed=0)
    assert by_program.env == "mine-v0"
    demonstrations.check(by_program, world, option="--demos", states=True, actions=True)
    with pytest.raises(
        EvorError, match="demonstrations in 'other:yours-v0', and the learner lives in 'my_swing:mine-v0'"
    ):
        demonstrations.check(
            replace(by_program, env="other:yours-v0"), world, option="--demos", states=True, actions=True
        )
    del gymnasium.registry["mine-v0"]
    with pytest.raises(EvorError, match="your_swing:mine-v0: your_swing can't be imported"):
        Simulator("your_swing:mine-v0", 1)


# Bodies.


def test_a_body_that_never_touches_the_ground_is_noticed(tmp_path):
    """A hopper with very short legs falls out of its healthy range before it lands; a swimmer needs no ground."""

    def touched(env, **changes):
        path = tmp_path / "body.xml"
        path.write_text(body_model(env, Body(**changes)))
        world, generator = Simulator(env, 1, body=Body(**changes), xml=path), np.random.default_rng(0)
        for _ in range(8):
            world.reset(np.array([0]), generator)
            while not world.step(np.zeros((1, world.spec.action_dim)), generator).terminated[0] and env != "Swimmer-v5":
                pass
        return world.touched

    assert not touched("Hopper-v5", limb=0.4)
    assert touched("Hopper-v5", limb=1.2)
    assert touched("Swimmer-v5", gear=0.5)
    assert Simulator("Hopper-v5", 1).touched


def test_a_changed_body_goes_on_exactly(tmp_path):
    """Lifting is for demonstrations alone: a run that goes on stands where it stood, feet in the ground and actions waiting."""
    body, path = Body(limb=1.2, delay=1), tmp_path / "body.xml"
    path.write_text(body_model("Hopper-v5", body))
    world, other = (Simulator("Hopper-v5", 1, body=body, xml=path) for _ in range(2))
    generator = np.random.default_rng(0)
    seen = world.reset(np.array([0]), generator)
    for _ in range(40):
        other.resume(world.states(), observations=seen)
        action = generator.uniform(-1, 1, (1, 3))
        seen, again = (each.step(action, generator).observations for each in (world, other))
        assert np.array_equal(seen, again)
    shown = record(world, lambda world, o: np.zeros((1, 3)), episodes=1, tremble=1.0, seed=0)
    demonstrations.check(shown, Simulator("Hopper-v5", 1), option="--offline", states=True, actions=True)


def test_demonstrations_lack_what_is_hidden_from_the_learner(tmp_path):
    shown = record(Simulator("swing-v0", 1), lambda world, o: np.zeros((1, 1)), episodes=1, tremble=0.5, seed=0)
    demonstrations.write(shown, tmp_path / "d.npz")
    task = make_task("swing-v0", demos=tmp_path / "d.npz", offline=None, body=Body(hidden=(1,)))
    assert np.array_equal(task.expert.observations[:, 0], shown.observations[:, 0])
    assert not task.expert.observations[:, 1].any()
    config = replace(ImitationConfig(method=Mm()), discriminator_sees=Entries((1,), (0,)))
    with pytest.raises(EvorError, match=r"entry 1 of the observation, which --body.hidden takes from the learner"):
        imitate(config, task, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_the_same_body_is_no_other_model():
    assert body_model("Hopper-v5", Body(delay=2, hidden=(1,))) is None
    assert Body(gear=0.5, delay=1).differences == {"gear": 0.5, "delay": 1}
    with pytest.raises(EvorError, match="swing-v0 has no MuJoCo model"):
        body_model("swing-v0", Body(gear=0.5))
    with pytest.raises(EvorError, match=r"gear is 0.0"):
        Body(gear=0.0)


def model(tmp_path, env, **changes):
    import mujoco

    path = tmp_path / "body.xml"
    path.write_text(body_model(env, Body(**changes)))
    return mujoco.MjModel.from_xml_path(str(path)), path


@pytest.mark.parametrize("env", ["Hopper-v5", "Walker2d-v5", "Ant-v5"])
def test_bodies_change_what_they_name(env, tmp_path):
    same = Simulator(env, 1)._envs[0].model
    weak, _ = model(tmp_path, env, gear=0.6)
    assert weak.actuator_gear == pytest.approx(0.6 * same.actuator_gear)
    assert weak.body_mass == pytest.approx(same.body_mass, rel=1e-5)  # XML has six digits
    heavy, _ = model(tmp_path, env, mass=1.5)
    assert heavy.body_mass == pytest.approx(1.5 * same.body_mass, rel=1e-5)
    long, path = model(tmp_path, env, limb=1.2)
    below = [body for body in range(same.nbody) if same.body_parentid[body] > 0]
    assert long.body_pos[below] == pytest.approx(1.2 * same.body_pos[below], rel=1e-5)
    assert long.body_pos[1] == pytest.approx(same.body_pos[1])
    capsules = [geom for geom in range(same.ngeom) if same.geom_bodyid[geom] in below]
    assert long.geom_size[capsules, 1] == pytest.approx(1.2 * same.geom_size[capsules, 1], rel=1e-5)
    assert long.geom_size[capsules, 0] == pytest.approx(same.geom_size[capsules, 0])
    world = Simulator(env, 1, body=Body(limb=1.2), xml=path)
    world.reset(np.array([0]), np.random.default_rng(0))
    stepped = world.step(np.zeros((1, world.spec.action_dim)), np.random.default_rng(0))
    assert np.isfinite(stepped.observations).all()


@pytest.mark.parametrize("env", ["Hopper-v5", pytest.param("Ant-v5", marks=pytest.mark.slow)])
def test_another_body_is_lifted_out_of_the_ground(env, tmp_path):
    shown = record(
        Simulator(env, 1), lambda world, o: np.zeros((1, world.spec.action_dim)), episodes=1, tremble=0, seed=0
    )
    _, path = model(tmp_path, env, limb=1.2)
    world = Simulator(env, 1, body=Body(limb=1.2), xml=path)
    rows = np.linspace(0, len(shown) - 1, 10).astype(int)
    deepest = []
    for row in rows:
        world.restore(np.array([0]), shown.states[row : row + 1], observations=shown.observations[row : row + 1])
        contacts = world._envs[0].data.contact
        deepest.append(min((contact.dist for contact in contacts), default=0.0))
    assert min(deepest) > -1e-6
    plain = Simulator(env, 1, xml=path)  # as if it were the same body
    plain.restore(np.array([0]), shown.states[rows[-1:]], observations=shown.observations[rows[-1:]])
    import mujoco

    inner = plain._envs[0]
    mujoco.mj_forward(inner.model, inner.data)
    assert min(contact.dist for contact in inner.data.contact) < -0.02


def test_delay_range_and_mask():
    def observed(body, actions):
        world = Simulator("Hopper-v5", 1, body=body)
        world.reset(np.array([0]), np.random.default_rng(0))
        return np.stack([world.step(action[None], np.random.default_rng(1)).observations[0] for action in actions])

    actions = np.random.default_rng(2).uniform(-1, 1, (6, 3))
    late = observed(Body(delay=2), actions)
    assert np.array_equal(late, observed(Body(), np.concatenate([np.zeros((2, 3)), actions[:4]])))
    assert np.array_equal(observed(Body(action_range=0.3), actions), observed(Body(), np.clip(actions, -0.3, 0.3)))
    assert (observed(Body(hidden=(0, 5)), actions)[:, [0, 5]] == 0).all()
    assert not np.array_equal(observed(Body(tremble=1.0), actions), observed(Body(), actions))


@pytest.mark.parametrize("body", [Body(action_range=0.3), Body(delay=2), Body(tremble=0.5)])
def test_demonstrations_hold_what_a_body_executed(body):
    """And not what it was told: the same actions lead a usual body through the same states."""
    given = np.random.default_rng(1).uniform(-1, 1, 3)
    shown = record(Simulator("Hopper-v5", 1, body=body), lambda *_: given[None], episodes=1, tremble=0.0, seed=0)
    usual, generator = Simulator("Hopper-v5", 1), np.random.default_rng(0)
    usual.restore(np.array([0]), shown.states[:1], observations=shown.observations[:1])
    for action, after in zip(shown.actions[:-1], shown.observations[1:], strict=True):
        seen = usual.step(action[None].astype(np.float64), generator).observations[0]
        np.testing.assert_allclose(seen, after, atol=1e-4)
    assert not np.allclose(shown.actions, given, atol=1e-3)


def test_actions_that_wait_are_part_of_the_state():
    body, generator = Body(delay=3), np.random.default_rng(0)
    world, other = Simulator("Hopper-v5", 1, body=body), Simulator("Hopper-v5", 1, body=body)
    for each in (world, other):
        each.reset(np.array([0]), generator)
    actions = generator.uniform(-1, 1, (20, 1, 3))
    for action in actions[:5]:
        seen = world.step(action, generator).observations
    other.resume(world.states(), observations=seen)
    for action in actions[5:]:
        assert np.array_equal(*(each.step(action, generator).observations for each in (world, other)))


def test_a_model_without_limbs_is_told(tmp_path):
    path = tmp_path / "flat.xml"
    path.write_text("<mujoco><worldbody><geom type='plane' size='1 1 1'/></worldbody></mujoco>")
    with pytest.raises(EvorError, match="has no body below the world"):
        changed_model(path, Body(limb=2.0))
