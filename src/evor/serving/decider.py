"""A policy as a server asks it: one observation by its keys, a number of candidates, a seed; and what comes back."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from evor.envs.observations import Keys, flat_observation
from evor.errors import EvorError
from evor.policies.base_policy import OBSERVATION, BasePolicy
from evor.policies.policy import Policy
from evor.policies.searched import SearchedPolicy
from evor.report.calibration import LEVELS
from evor.runtime import arguments
from evor.search.extraction import Extraction, Prior, return_steps
from evor.serving.pace import sizes
from evor.types import ActionBounds

NODES = 10  # quantiles of the return distribution that are read: as many as a search reads


class Decided(NamedTuple):
    """One decision: all actions of the chunk, and what the value says of those that are executed.

    Without a search there are no value and no quantiles. `base_seconds` is what a base policy of the user's own took.
    """

    row: Float[np.ndarray, " O"]  # the observation, as the value sees it
    actions: Float[np.ndarray, "horizon A"]
    value: float | None
    quantiles: list[float] | None  # at LEVELS
    base_seconds: float = 0.0


class Decider(Protocol):
    """The part of a policy that a server needs."""

    keys: Keys
    action_bounds: ActionBounds
    sizes: tuple[int, ...]  # numbers of candidates, each of which is compiled before it serves
    executed: int  # actions of a chunk that are executed
    horizon: int | None  # actions of a chunk; None where no base policy has told yet

    def decide(self, observation: Mapping[str, Any], *, number: int, seed: int) -> Decided:
        """Decide with so many candidates. Raises EvorError on an observation that is none."""
        ...


class PolicyDecider:
    """A `Policy` and a search. `names` are the keys of an observation where they are not those of the policy.

    A name may tell its width, "gripper:1", which is needed where there are several and the data named none.
    """

    def __init__(
        self, policy: Policy, search: Extraction | None, *, most: int | None = None, names: Sequence[str] = ()
    ):
        self.policy, self.search = policy, policy._search(search)
        self.keys = policy.observation_keys = _keys(policy, names)
        self.action_bounds = policy.action_bounds
        self.executed = policy.config.chunk_length
        self._base: _Timed | None = None
        if isinstance(policy, SearchedPolicy):
            self._base = policy.base = _Timed(policy.require_base())
        self.horizon: int | None = None if self._base else self.executed
        most = self.search.num_candidates if most is None else most
        self.sizes = (1,) if isinstance(self.search, Prior) else sizes(most, halves=self._base is not None)

    def decide(self, observation: Mapping[str, Any], *, number: int, seed: int) -> Decided:
        """Decide with so many candidates. Keys that the value does not know reach a base policy, and nothing else."""
        row = flat(observation, self.keys)
        search: Any = self.search if isinstance(self.search, Prior) else replace(self.search, num_candidates=number)
        if self._base is not None:
            assert isinstance(self.policy, SearchedPolicy)
            self._base.seconds = 0.0
            decided, chunk = self.policy.decide_whole(observation, seed, extraction=search)
            self.horizon = len(chunk)
        else:
            decided = self.policy.decide(row, seed, extraction=search)
            chunk = decided.action.reshape(-1, len(self.action_bounds.low))
        value = quantiles = None
        if decided.scores is not None:
            value = float(decided.scores[decided.index])
            returns = self.policy.quantiles(row, decided.action, num_nodes=NODES, flow_steps=return_steps(search))
            quantiles = [float(q) for q in np.quantile(returns, LEVELS, method="hazen")]
        seconds = self._base.seconds if self._base else 0.0
        return Decided(row=row, actions=chunk, value=value, quantiles=quantiles, base_seconds=seconds)

    @property
    def has_base(self) -> bool:
        """Whether a base policy of the user's own proposes."""
        return self._base is not None

    def choose_only(self, *, number: int) -> Decided:
        """Choose among so many equal candidates, where the base policy can't be asked: what the value alone takes."""
        row = np.zeros(self.policy.spec.observation_dim, np.float32)
        low, high = self.action_bounds.sides
        chunk = np.tile((low + high) / 2, (self.executed, 1))
        one = chunk if self.executed > 1 else chunk[0]
        if not isinstance(self.search, Prior):
            self.policy.choose(row, np.stack([one] * number), seed=0, extraction=self.search)
            self.policy.quantiles(row, one, num_nodes=NODES, flow_steps=return_steps(self.search))
        return Decided(row=row, actions=chunk, value=None, quantiles=None)


class _Timed:
    """A base policy that remembers how long it took."""

    def __init__(self, base: BasePolicy):
        self._base, self.seconds = base, 0.0
        self.name, self.seeded = base.name, base.seeded

    def sample(self, observations: Mapping[str, Any], num: int, *, seed: int) -> Any:
        """Draw proposals."""
        started = time.perf_counter()
        try:
            return self._base.sample(observations, num, seed=seed)
        finally:
            self.seconds += time.perf_counter() - started


def example(keys: Keys) -> dict[str, Float[np.ndarray, " width"]]:
    """An observation of zeros."""
    return {key: np.zeros(width, np.float32) for key, width in keys}


def flat(observation: Mapping[str, Any], keys: Keys) -> Float[np.ndarray, " O"]:
    """One observation [O] of its parts by these keys. Raises EvorError, naming the key that is missing or has another shape."""
    parts = []
    for key, width in keys:
        part = flat_observation(observation, ((key, width),))
        if part.ndim != 1:
            raise EvorError(f"observation[{key!r}] has shape {list(part.shape)}; [{width}] is needed: one observation.")
        parts.append(part)
    return np.concatenate(parts)


def _keys(policy: Policy, names: Sequence[str]) -> Keys:
    """The keys of an observation and their widths. Raises EvorError where the names don't make one."""
    width = policy.spec.observation_dim
    own = policy.observation_keys or ((OBSERVATION, width),)
    if not names:
        return own
    pairs = [name.partition(":")[::2] for name in names]
    if not all(text for text, _ in pairs) or len(dict(pairs)) < len(pairs):
        raise EvorError(f"--observation-keys is {arguments.shown(' '.join(names), str)}; give different names.")
    if any(number for _, number in pairs):
        if not all(number.isdecimal() and int(number) for _, number in pairs):
            raise EvorError("--observation-keys needs a width with each name or with none, such as state:7 gripper:1.")
        keys = tuple((name, int(number)) for name, number in pairs)
    elif len(pairs) == 1:
        keys = ((pairs[0][0], width),)
    elif len(pairs) == len(own):
        keys = tuple((name, wide) for (name, _), (_, wide) in zip(pairs, own, strict=True))
    else:
        raise EvorError(
            f"--observation-keys has {len(pairs)} names without widths, and the data had {len(own)}; give each its width, such "
            "as state:7 gripper:1."
        )
    if sum(wide for _, wide in keys) != width:
        told = " + ".join(str(wide) for _, wide in keys)
        raise EvorError(
            f"--observation-keys has {told} numbers, and the policy was trained on {width}; correct the widths."
        )
    return keys
