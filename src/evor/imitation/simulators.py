"""Gymnasium environments as worlds: MuJoCo's, whose states are known, and any other that can save and restore its own."""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from evor.errors import EvorError, nearest, why
from evor.imitation.bodies import Body, changed_model
from evor.imitation.worlds import Stepped
from evor.runtime.user_code import blamed, import_own
from evor.types import Spec

SAME = Body()
MEND = "fix the environment"


@runtime_checkable
class Restorable(Protocol):
    """Methods that a gymnasium environment must add, so that learners can be reset to its states.

    A state holds everything that later steps depend on, random generators included. It is an array of one axis and of the
    same length always.
    """

    def save_state(self) -> Float[np.ndarray, " S"]:
        """Return the state as it is now."""
        ...

    def restore_state(
        self, state: Float[np.ndarray, " S"], observation: Float[np.ndarray, " O"]
    ) -> Float[np.ndarray, " O"]:
        """Go to a state that was saved, and return what is observed there. `observation` is what was observed then."""
        ...


class Simulator:
    """Copies of a registered gymnasium environment, without its time limit, which `horizon` tells.

    `env` is its id, after `module:` where a module of the user's registers it.
    """

    def __init__(self, env: str, count: int, *, body: Body = SAME, xml: Path | None = None):
        self.name, self.count, self._body = env, count, body
        self._envs = [_make(env, xml=xml) for _ in range(count)]
        first = self._envs[0]
        self.spec = _spec(first, env)
        for one in () if _is_mujoco(first) else self._envs:  # before its first reset an environment may have no state
            with blamed(env, mend=MEND):
                one.reset(seed=0)
        self.version = _version(first)
        limit = first.spec.max_episode_steps
        if limit is None:
            raise EvorError(f"{env} has no time limit; register it with max_episode_steps.")
        self.horizon = int(limit)
        for entry in body.hidden:
            if entry >= self.spec.observation_dim:
                raise EvorError(
                    f"--body.hidden names entry {entry}, and {env} observes entries 0 to {self.spec.observation_dim - 1}."
                )
        low, high = first.action_space.low, first.action_space.high
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self._waiting = np.zeros((count, body.delay, self.spec.action_dim))
        self._last = np.zeros((count, self.spec.observation_dim))  # what was observed
        self._ended = np.full(count, False)  # copies that stay as they are until they begin anew
        self._touched = not body.changes_model  # a model as it is shipped needs no watching

    @property
    def touched(self) -> bool:
        """Whether a changed body has touched the ground. True, too, where the usual body does not either."""
        self._touched = self._touched or not _touches_ground(self.name)
        return self._touched

    @property
    def state_width(self) -> int:
        """Entries of a state that demonstrations store."""
        return len(_save(self._envs[0], self.name))

    def reset(self, copies: Int[np.ndarray, " k"], generator: np.random.Generator) -> Float[np.ndarray, "k O"]:
        self._waiting[copies], self._ended[copies] = 0, False
        return np.stack([self._reset(int(copy), int(generator.integers(2**31))) for copy in copies])

    def restore(
        self,
        copies: Int[np.ndarray, " k"],
        states: Float[np.ndarray, "k S"],
        *,
        observations: Float[np.ndarray, "k O"],
    ) -> Float[np.ndarray, "k O"]:
        """Put copies into states of demonstrations. Where the shape of the body differs, a pose is lifted out of the ground."""
        self._waiting[copies], self._ended[copies] = 0, False
        rows = zip(copies, states, observations, strict=True)
        seen = [self._restore(int(copy), state, observation=seen) for copy, state, seen in rows]
        if self._body.changes_shape:
            seen = [self._seen(_lifted(self._envs[int(copy)])) for copy in copies]
        return np.stack(seen)

    def resume(self, states: Float[np.ndarray, "n S"], *, observations: Float[np.ndarray, "n O"]) -> None:
        """Go on from states that `states` returned, exactly."""
        self._waiting = states[:, self.state_width :].reshape(self._waiting.shape).copy()
        self._ended[:] = False
        for copy, (state, seen) in enumerate(zip(states[:, : self.state_width], observations, strict=True)):
            self._restore(copy, state, observation=seen)

    def step(self, actions: Float[np.ndarray, "n A"], generator: np.random.Generator) -> Stepped:
        """Take one action in every copy. A user's environment that has ended is not asked: it need not know what follows."""
        body = self._body
        actions = np.clip(actions, -body.action_range, body.action_range)
        if body.tremble:
            trembles = generator.random(self.count) < body.tremble
            actions = np.where(trembles[:, None], generator.uniform(-1, 1, actions.shape), actions)
        if body.delay:
            waiting = np.concatenate([self._waiting, actions[:, None]], axis=1)
            actions, self._waiting = waiting[:, 0], waiting[:, 1:].copy()
        rows = zip(self._envs, self._middle + self._half * actions, self._ended, strict=True)
        with blamed(self.name, mend=MEND):
            taken = [(None, 0, True) if ended else env.step(row) for env, row, ended in rows]
        self._touched = self._touched or any(_stands(env) for env in self._envs)
        seen = zip(taken, self._last, self._ended, strict=True)
        self._last = np.stack([last if ended else self._seen(answer[0]) for answer, last, ended in seen])
        terminated = np.array([bool(answer[2]) for answer in taken])
        self._ended = terminated & (not _is_mujoco(self._envs[0]))
        return Stepped(
            observations=self._last.copy(),
            rewards=np.array([float(answer[1]) for answer in taken]),
            terminated=terminated,
            executed=actions,
        )

    def states(self) -> Float[np.ndarray, "n S"]:
        """States of the environments, and the actions that still wait."""
        saved = [_save(env, self.name) for env in self._envs]
        if len(lengths := {len(state) for state in saved}) > 1:
            raise EvorError(f"save_state of {self.name} returned {sorted(lengths)} numbers; return as many every time.")
        states = np.stack(saved)
        return np.concatenate([states, self._waiting.reshape(self.count, -1)], axis=1)

    def _reset(self, copy: int, seed: int) -> Float[np.ndarray, " O"]:
        env = self._envs[copy]
        with blamed(self.name, mend=MEND):
            observation, _ = env.reset(seed=seed)
        return self._seen(_lifted(env) if self._body.changes_shape else observation)

    def _restore(self, copy: int, state: Any, *, observation: Any) -> Float[np.ndarray, " O"]:
        env = self._envs[copy]
        if _is_mujoco(env):
            mujoco = _mujoco()
            mujoco.mj_setState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
            # Without mj_forward: it would overwrite the solver's warm start, and later steps would differ.
            return self._seen(observation)
        with blamed(self.name, mend=MEND):
            observation = env.restore_state(state, observation)
        return self._seen(observation)

    def _seen(self, observation: Any) -> Float[np.ndarray, " O"]:
        with blamed(self.name, mend=MEND):
            seen = np.array(observation, np.float64)
        if seen.shape != (self.spec.observation_dim,):
            raise EvorError(
                f"{self.name} returned an observation of shape {list(seen.shape)}, and its observation_space has "
                f"{[self.spec.observation_dim]}; {MEND}."
            )
        seen[list(self._body.hidden)] = 0
        return seen


def body_model(env: str, body: Body) -> str | None:
    """The XML of the learner's model, None where it is the expert's. Raises EvorError where there is no model to change."""
    if not body.changes_model:
        return None
    made = _make(env, xml=None)
    if not _is_mujoco(made):
        raise EvorError(f"{env} has no MuJoCo model; leave --body.gear, --body.limb and --body.mass out.")
    return changed_model(Path(made.fullpath), body)


def _make(env: str, *, xml: Path | None) -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise EvorError(
            "imitation in simulators needs the package gymnasium; `pip install 'evor[ogbench]'` gets it."
        ) from error
    if env.startswith(("antmaze", "pointmaze", "humanoidmaze")):
        import ogbench  # noqa: F401 - registers its mazes
    module, _, name = env.rpartition(":")
    if module:
        import_own(module, given=env)  # it registers its environments
    if name not in gymnasium.registry:
        raise EvorError(f"there is no environment {name!r}; {nearest(name, ['ledge', *gymnasium.registry])}")
    options: dict[str, Any] = {} if xml is None else {"xml_file": str(xml)}
    if env.startswith("Ant-"):
        options["include_cfrc_ext_in_observation"] = False  # it is no part of the state
    try:
        with blamed(env if module else "", mend=MEND):
            made = gymnasium.make(name, **options)
    except TypeError as error:
        raise EvorError(
            f"{env} takes no model of your own ({why(error)}); leave --body.gear, .limb and .mass out."
        ) from error
    spec, bare = made.spec, made.unwrapped
    bare.spec = spec
    if not _is_mujoco(bare) and not isinstance(bare, Restorable):
        raise EvorError(
            f"{env} can't restore a state; give it save_state and restore_state (evor.imitation.simulators.Restorable)."
        )
    return bare


def _spec(env: Any, name: str) -> Spec:
    shapes: list[tuple[int, ...]] = [getattr(env, f"{what}_space").shape or () for what in ("observation", "action")]
    if any(len(shape) != 1 for shape in shapes) or env.action_space.dtype.kind != "f":
        raise EvorError(f"{name} has spaces of shapes {shapes}; flat boxes of floats are needed.")
    if not np.isfinite([env.action_space.low, env.action_space.high]).all():
        raise EvorError(f"actions of {name} have no finite bounds; wrap it in gymnasium's RescaleAction.")
    return Spec(observation_dim=shapes[0][0], action_dim=shapes[1][0])


def _mujoco() -> Any:
    return import_module("mujoco")


def _is_mujoco(env: Any) -> bool:
    return hasattr(env, "model") and hasattr(env, "data") and (hasattr(env, "_get_obs") or hasattr(env, "get_ob"))


def _version(env: Any) -> str:
    if not _is_mujoco(env):
        return ""
    mujoco = _mujoco()
    return f"mujoco {mujoco.__version__}"


def _save(env: Any, name: str) -> Float[np.ndarray, " S"]:
    if not _is_mujoco(env):
        with blamed(name, mend=MEND):
            state = np.asarray(env.save_state(), np.float64)
        if state.ndim != 1:
            raise EvorError(f"save_state of {name} returned {state.ndim} axes; return an array of one axis.")
        return state
    mujoco = _mujoco()
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, state, kind)
    return state


def _lifted(env: Any) -> Any:
    """Lift a MuJoCo body until it touches the ground at most, and observe."""
    mujoco, height = _mujoco(), _height(env.model)
    for _ in range(3):  # the deepest contact of a lifted body may be another one
        mujoco.mj_forward(env.model, env.data)
        deepest = min((contact.dist for contact in env.data.contact if _is_ground(env.model, contact)), default=0.0)
        if deepest >= -1e-9 or height is None:
            break
        env.data.qpos[height] -= deepest
    return env._get_obs() if hasattr(env, "_get_obs") else env.get_ob()  # gymnasium's name, and OGBench's


def _stands(env: Any) -> bool:
    """Whether a MuJoCo body touches the ground now."""
    return any(_is_ground(env.model, contact) for contact in env.data.contact)


def _touches_ground(name: str) -> bool:
    """Whether the usual body touches the ground in an episode of random actions."""
    env = _make(name, xml=None)
    env.reset(seed=0)
    generator, space = np.random.default_rng(0), env.action_space
    for _ in range(env.spec.max_episode_steps):
        env.step(generator.uniform(space.low, space.high))
        if _stands(env):
            return True
    return False


def _is_ground(model: Any, contact: Any) -> bool:
    return any(model.geom_bodyid[geom] == 0 for geom in (contact.geom1, contact.geom2))


def _height(model: Any) -> int | None:
    """The coordinate that moves the root up, None where there is none."""
    mujoco = _mujoco()
    for joint in range(model.njnt):
        address = int(model.jnt_qposadr[joint])
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            return address + 2
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE and abs(model.jnt_axis[joint][2]) > 0.99:
            return address
    return None
