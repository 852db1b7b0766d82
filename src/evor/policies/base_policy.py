"""Base policies of the user's own: whatever proposes actions, and is never changed. evor's value chooses among them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from evor.envs.observations import Keys
from evor.errors import EvorError, above, nearest
from evor.runtime import arguments
from evor.runtime.user_code import blamed, import_function, within

TIMEOUT = 120.0  # seconds of one call: the first one may compile
NO_NUMBERS = "cUSmM"  # kinds of arrays: complex numbers, texts and dates become float32 with a loss, or by luck
OBSERVATION = "observation"  # key of an observation that has no keys of its own
KINDS = {"python": "python:module:function", "openpi": "openpi:ws://host:8000", "lerobot": "lerobot:FOLDER"}


@runtime_checkable
class BasePolicy(Protocol):
    """A policy of the user's own."""

    @property
    def name(self) -> str:
        """Name in files and messages: the text that opens it again, where there is one."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether equal observations and seeds give equal proposals."""
        ...

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Float[np.ndarray, "B num horizon A"]:
        """Draw `num` chunks of actions for each of B observations, in the units of the user's data.

        Observations are arrays [B, ...] or lists of B by their keys, as they came: images and prompts are untouched. An
        observation without keys of its own is under "observation".
        """
        ...


class PythonPolicy:
    """A base policy that is a Python function: `function(observations, num, seed)`, as `BasePolicy.sample`.

    Raises EvorError, which names the file and line, where the function raises, and where it takes longer than `timeout`
    seconds.
    """

    seeded = True

    def __init__(self, function: Callable[..., Any], *, name: str | None = None, timeout: float = TIMEOUT):
        if not callable(function):
            raise EvorError(
                f"base is {arguments.shown(function)}; give a function, or a text such as {KINDS['python']}."
            )
        self.name = (
            name or f"python:{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', 'function')}"
        )
        self._function, self._timeout = function, timeout

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Any:
        """Call the function."""

        def call() -> Any:
            with blamed(f"the base policy {self.name}", mend="fix it"):
                return self._function(observations, num, seed)

        try:
            return within(self._timeout, call)
        except TimeoutError as error:
            raise EvorError(
                f"the base policy {self.name} has not answered within {self._timeout:g} s; fix it, or give it more time "
                "(--base-timeout, base_timeout=)."
            ) from error


def open_base(given: Any, *, timeout: float = TIMEOUT) -> BasePolicy:
    """Open a base policy: by a text (see `KINDS`), from a Python function, or one that is open already.

    Raises EvorError where there is no such policy, or it can't be reached.
    """
    above(0, timeout=timeout)
    if isinstance(given, type | BasePolicy) or (hasattr(given, "sample") and not callable(given)):
        return _object(given)
    if not isinstance(given, str):
        return PythonPolicy(given, timeout=timeout)
    kind, _, rest = given.partition(":")
    if kind == "python":
        function = import_function(rest, option="base python:", example="my_policy:propose")
        return PythonPolicy(function, name=given, timeout=timeout)
    if kind == "openpi":
        from evor.policies.openpi import OpenpiPolicy

        return OpenpiPolicy(rest, timeout=timeout)
    if kind == "lerobot":
        from evor.policies.lerobot import LerobotPolicy

        return LerobotPolicy(rest, timeout=timeout)
    hint = nearest(kind, KINDS)
    give = f"{hint} Give" if hint.endswith("?") else "give"
    raise EvorError(f"base {given!r} is of no known kind; {give} {' or '.join(KINDS.values())}.")


def _object(given: Any) -> BasePolicy:
    """A base policy that is an object. Raises EvorError where it is a class, or lacks an attribute."""
    if isinstance(given, type):
        raise EvorError(f"base is the class {given.__name__}; make an object of it, and give that.")
    if lacking := [name for name in ("name", "seeded") if not hasattr(given, name)]:
        raise EvorError(
            f"base is {arguments.shown(given)}, whose attribute {lacking[0]} is missing; give it name, a text, and seeded, whether "
            "equal seeds give equal proposals."
        )
    return given


def draw(
    base: BasePolicy, observations: Mapping[str, Any], *, rows: int, num: int, seed: int, chunk_length: int, width: int
) -> Float[np.ndarray, "B num horizon A"]:
    """Draw proposals and check them: `num` for each of `rows` observations, at least `chunk_length` actions of `width`.

    Raises EvorError on another shape, and on numbers that are not finite.
    """
    if not rows:
        return np.zeros((0, num, chunk_length, width), np.float32)
    given = base.sample(_copied(observations), num, seed=seed)
    array = _numbers(given, base.name)
    if array.ndim == 3 and chunk_length == 1:  # [B, num, A], of a policy that does not chunk
        array = array[:, :, None]
    if array.ndim != 4 or array.shape[:2] != (rows, num) or array.shape[2] < chunk_length or array.shape[3] != width:
        at_least = f"{chunk_length} or more" if chunk_length > 1 else "horizon"
        raise EvorError(
            f"the base policy {base.name} returned an array {list(np.shape(given))}; [{rows}, {num}, {at_least}, {width}] is "
            "needed: observations, proposals, steps and entries of an action."
        )
    if not (finite := np.isfinite(array)).all():
        first = np.argwhere(~finite)[0].tolist()
        raise EvorError(
            f"the base policy {base.name} returned {array[tuple(first)]:g} at {first}; look at the observations that it got."
        )
    return array


def _copied(observations: Mapping[str, Any]) -> dict[str, Any]:
    """Observations in arrays that a user's function may write into: the value, and the caller, see what they were."""

    def one(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _copied(value)
        return value.copy() if isinstance(value, np.ndarray) else value

    return {key: one(value) for key, value in observations.items()}


def _numbers(given: Any, name: str) -> np.ndarray:
    """Proposals of a base policy as float32. Raises EvorError where it is no array of real numbers."""
    problem = None
    try:
        array = np.asarray(given)
        if given is not None and array.dtype.kind not in NO_NUMBERS:
            with np.errstate(over="ignore"):  # an infinity is told by its place
                return array.astype(np.float32)
    except Exception as error:  # whatever an array type of another library raises
        problem = error
    raise EvorError(
        f"the base policy {name} returned {arguments.shown(given)}; an array of numbers is needed."
    ) from problem


def by_keys(rows: Float[np.ndarray, "B O"], keys: tuple[tuple[str, int], ...]) -> dict[str, np.ndarray]:
    """Observations as a base policy gets them: by the keys of imported data, else under "observation"."""
    if not keys:
        return {OBSERVATION: rows}
    edges = np.cumsum([width for _, width in keys])[:-1]
    return dict(zip((key for key, _ in keys), np.split(rows, edges, axis=1), strict=True))


def with_leading_axis(observation: Mapping[str, Any]) -> dict[str, Any]:
    """One observation as a batch of one: arrays get a leading axis, everything else becomes a list."""

    def batched(value: Any) -> Any:
        if isinstance(value, Mapping):
            return with_leading_axis(value)
        return value[None] if isinstance(value, np.ndarray) else [value]

    return {key: batched(value) for key, value in observation.items()}


def with_arrays(observations: Mapping[str, Any], keys: Keys, *, path: str = "") -> dict[str, Any]:
    """Observations whose columns that the value reads are arrays: a caller may give lists. The others are as they came."""
    names = {name for name, _ in keys}

    def one(key: Any, value: Any) -> Any:
        if isinstance(value, Mapping):
            return with_arrays(value, keys, path=f"{path}{key}/")
        return np.asarray(value) if f"{path}{key}" in names else value

    return {key: one(key, value) for key, value in observations.items()}


def row_of(observations: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One observation of a batch, without the leading axis."""
    return {
        key: row_of(value, index) if isinstance(value, Mapping) else value[index] for key, value in observations.items()
    }
