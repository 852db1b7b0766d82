"""Environments of a user's own: any gymnasium environment with Box actions, checked at every step."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evor.envs.observations import REMEDY, Keys, fitting_keys, flat_observation
from evor.envs.vector import Environments, InProcess, World
from evor.errors import EvorError
from evor.runtime import arguments
from evor.runtime.progress import console
from evor.runtime.user_code import blamed
from evor.types import ActionBounds, Spec

PARALLEL = 16  # episodes that are played at once where the caller does not say
MEND = "fix the environment"


class OwnEnvironments:
    """Environments of a user's for policies of these sizes: `given` is one, or a function that makes one.

    As many are made as are played at once, when they are first needed; `close` closes them. Observations of a Dict or a
    Tuple space become one vector: the columns `observation_keys`, or all of them, side by side.

    What they raise passes through. Where a command names them, as "module:function", it becomes an EvorError with the
    user's file and line: it is no fault of evor. Raises EvorError, too, where they are none, have other spaces, or can't
    be seeded. Action bounds that differ from the policy's are noted.
    """

    def __init__(
        self,
        given: Any,
        *,
        spec: Spec,
        action_bounds: ActionBounds,
        observation_keys: Keys = (),
        num_envs: int | None = None,
        command: str = "",
    ):
        self._spec, self._keys, self._command = spec, observation_keys, command
        self._make: Callable[[], Any] | None = None if _is_environment(given) else given
        if self._make is not None and not callable(given):
            raise EvorError(
                f"environment is {arguments.shown(given)}; give a gymnasium environment, a function that makes one, or the "
                "name of an OGBench dataset."
            )
        if self._make is not None:
            _check_maker(self._make, command)
        if self._make is None and num_envs not in (None, 1):
            raise EvorError(
                f"num_envs is {num_envs}, and one environment plays one episode at a time; give a function that makes one."
            )
        self.parallel = 1 if self._make is None else num_envs or PARALLEL
        first = self._made() if self._make else given
        self._raw = [first]
        try:
            self.name = _name_of(first)
            keys = self._fitting(first)
            self._worlds = [self._world(first, keys)]
        except BaseException:
            self.close()
            raise
        if note := _bounds_note(first.action_space, self.name, ours=action_bounds):
            console.print(f"note: {note}")
        if keys:
            columns = ", ".join(f"{key} [{width}]" for key, width in keys)
            console.print(f"observations of {self.name}: {columns}, side by side in this order")

    def hold(self, count: int) -> Environments:
        """The first `count` environments. Raises EvorError where one can't be played."""
        while len(self._worlds) < count:
            made = self._made()
            if any(made is other for other in self._raw):
                raise EvorError(
                    f"the function that makes {self.name} returned the same one twice; make a new one each time."
                )
            self._raw.append(made)
            self._worlds.append(self._world(made, self._fitting(made)))
        return InProcess(self._worlds[:count])

    def close(self) -> None:
        """Close what was made here; the environment of a caller stays open."""
        while self._make is not None and self._raw:
            with blamed(self._command, mend=MEND):
                self._raw.pop().close()

    def _made(self) -> Any:
        with blamed(self._command, mend=MEND):
            made = self._make() if self._make else None
        if not _is_environment(made):
            raise EvorError(
                f"the function that makes environments returned {arguments.shown(made)}, which is no gymnasium environment."
            )
        return made

    def _fitting(self, environment: Any) -> Keys:
        """Keys of the observations, () of a Box. Raises EvorError where its spaces are not the policy's."""
        try:
            import gymnasium  # noqa: F401
        except ModuleNotFoundError as error:
            raise EvorError(
                "environments of your own need the package gymnasium; `pip install gymnasium` gets it."
            ) from error
        space, spec = environment.observation_space, self._spec
        keys = fitting_keys(space, self._keys, width=spec.observation_dim, name=self.name)
        _check_actions(environment.action_space, spec.action_dim, name=self.name)
        return keys

    def _world(self, environment: Any, keys: Keys) -> World:
        _check_reset(environment, self.name)
        return World(_Checked(environment, keys=keys, name=self.name, command=self._command), np.random.MT19937(0))


class _Checked:
    """A user's environment, whose observations are copied, flattened and checked, and whose actions are clipped to its bounds."""

    def __init__(self, environment: Any, *, keys: Keys, name: str, command: str):
        self._environment, self._keys, self._name, self._command = environment, keys, name, command
        self.action_space = environment.action_space
        self._shape = (sum(width for _, width in keys),) if keys else environment.observation_space.shape
        self._steps = 0

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self._steps = 0
        with blamed(self._command, mend=MEND):
            answer = self._environment.reset(seed=seed)
        self._check_answer("reset", answer, parts="(observation, info)")
        return self._observation(answer[0]), answer[1]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        space = self.action_space
        with blamed(self._command, mend=MEND):
            answer = self._environment.step(np.clip(action, space.low, space.high).astype(space.dtype))
        self._check_answer("step", answer, parts="(observation, reward, terminated, truncated, info)")
        observation, reward, terminated, truncated, info = answer
        if not np.isfinite(total := arguments.real(reward=reward)):
            raise EvorError(f"{self._name} gave the reward {total} at step {self._steps}; it must be finite.")
        told = {"success": bool(np.all(info["success"]))} if "success" in info else {}
        return self._observation(observation), total, bool(terminated), bool(truncated), told

    def _check_answer(self, method: str, answer: Any, *, parts: str) -> None:
        if not isinstance(answer, tuple) or len(answer) != len(parts.split(",")):
            raise EvorError(
                f"{self._name}.{method} returned {arguments.shown(answer)}; a gymnasium environment returns {parts}."
            )

    def _observation(self, given: Any) -> np.ndarray:
        place = f"the observation of {self._name} at step {self._steps}"
        if self._keys and not isinstance(given, Mapping | tuple):
            raise EvorError(
                f"{place} is {arguments.shown(given)}; its observation space is a {type(self._environment.observation_space).__name__}, so give the columns "
                f"{', '.join(key for key, _ in self._keys)}."
            )
        observation = np.array(flat_observation(given, self._keys, place=place) if self._keys else given)
        if observation.shape != self._shape:
            raise EvorError(
                f"{self._name} gave an observation of shape {list(observation.shape)} at step {self._steps}; its observation "
                f"space says {list(self._shape)}."
            )
        arguments.array(**{place: observation})
        return observation


def _check_maker(make: Callable[[], Any], command: str) -> None:
    """Raise EvorError where the function that makes environments can't be called without arguments."""
    if complaint := _refusal(make):
        title = command or getattr(make, "__name__", arguments.shown(make))
        raise EvorError(f"{title} can't be called without arguments ({complaint}); give a function that takes none.")


def _check_reset(environment: Any, name: str) -> None:
    """Raise EvorError where `reset` takes no seed. Gymnasium's wrappers pass options on, too."""
    inside = getattr(environment, "unwrapped", environment)
    options = {} if inside is environment else {"options": None}
    if _refusal(environment.reset, seed=0) or _refusal(inside.reset, seed=0, **options):
        raise EvorError(f"{name}.reset must accept seed= and options=: def reset(self, *, seed=None, options=None).")


def _refusal(function: Callable[..., Any], **given: Any) -> str:
    """Say why a function does not take these arguments, "" where it does or where it can't be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a compiled function
        return ""
    try:
        signature.bind(**given)
    except TypeError as error:
        return str(error)
    return ""


def _is_environment(given: Any) -> bool:
    """Whether it has what a gymnasium environment has. (A class of environments is a function that makes one.)"""
    names = ("reset", "step", "observation_space", "action_space")
    return not isinstance(given, type) and all(hasattr(given, name) for name in names)


def _name_of(environment: Any) -> str:
    registered = getattr(getattr(environment, "spec", None), "id", None)
    return registered or type(getattr(environment, "unwrapped", environment)).__name__


def _check_actions(space: Any, width: int, *, name: str) -> None:
    """Raise EvorError unless actions are a Box [A] of floats, as the policy's are."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box) or space.shape != (width,):
        shown = f"a Box of shape {list(space.shape)}" if isinstance(space, Box) else type(space).__name__
        raise EvorError(
            f"the action space of {name} is {shown}, and the policy needs a Box of shape [{width}]; {REMEDY}"
        )
    if space.dtype.kind != "f":
        raise EvorError(f"actions of {name} are {space.dtype}, and the policy's are floats; {REMEDY}")


def _bounds_note(space: Any, name: str, *, ours: ActionBounds) -> str:
    """Note on action bounds that are not the policy's; "" where they are."""
    theirs = ActionBounds.read(space.low, space.high)
    if theirs == ours:
        return ""
    narrow = (np.array(theirs.low) > ours.low).any() or (np.array(theirs.high) < ours.high).any()
    how = "are clipped to its bounds" if narrow else "are not rescaled"
    bounds, others = (arguments.shown(str(one), str) for one in (theirs, ours))
    return f"{name} takes actions in {bounds}, and the policy's lie in {others}; they {how}."
