"""The agent contract: a base learned without rewards, what it hands over, and a head learned with them.

    base      once per seed                  observations and actions
    hand_over once per seed and step         the base on this batch; any pytree
    head      once per seed and task         rewards, too

What needs no reward is learned once per seed and shared by all tasks. A head never changes a base. Either may be empty:
an agent that only imitates has no head, and one whose actor is trained through its critic has no base. Both are trained
at the same time, unless `base_first` asks for a trained base and for stored draws of its policy.

The config is a frozen dataclass of numbers, strings, tuples and other such dataclasses: it is hashed, and stored as JSON.
Its class name is the name of the agent, `Td3Bc` becoming `--agent td3-bc`; its `learning` field has `metadata=INLINED`.
Rewards, returns and observations are standardised as the data specification asks. An update keeps the structure, shapes
and types of what it is given. It returns a metric NETWORK/loss for each network, which training watches for values that
are not finite. Losses honour `outcomes.weight` (0: no value target) and `action_mask` (0: no recorded action).
`nn.learner` holds what most agents need: `Learner`, `Tracked` (with a moving average), `weighted_mean`, `named`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from evor.nn.learner import Learning, Metrics, Progress
from evor.search.extraction import Extraction
from evor.types import DataSpec, NoBounds, Outcome, Spec, Transition


@runtime_checkable
class Config(Protocol):
    """Settings that every agent has."""

    @property
    def learning(self) -> Learning: ...
    @property
    def chunk_length(self) -> int: ...


C = TypeVar("C")  # a Config
C_contra = TypeVar("C_contra", contravariant=True)


@runtime_checkable
class GetDataSpec(Protocol[C_contra]):
    """Say how the data must be laid out for a config."""

    def __call__(self, config: C_contra, /) -> DataSpec: ...


@runtime_checkable
class Init(Protocol[C_contra]):
    """Make an untrained base or head."""

    def __call__(self, config: C_contra, spec: Spec, /, *, key: PRNGKeyArray) -> PyTree:
        """Return a pytree of arrays. `spec` holds the widths of observations and actions."""
        ...


@runtime_checkable
class UpdateBase(Protocol[C_contra]):
    """Train a base by one gradient step for each of its networks."""

    def __call__(
        self, base: Any, batch: Transition, /, *, config: C_contra, progress: Progress, key: PRNGKeyArray
    ) -> tuple[PyTree, Metrics]:
        """Return the base after the step, and metrics named NETWORK/METRIC (`policy/loss`), each a scalar.

        `batch` holds standardised transitions [B, ...]. `progress` says how far the run is, for schedules.
        """
        ...


@runtime_checkable
class HandOver(Protocol[C_contra]):
    """Compute what the heads of all tasks need of the base on one batch."""

    def __call__(self, base: Any, batch: Transition, /, *, config: C_contra, key: PRNGKeyArray) -> PyTree:
        """Return any pytree. It is computed once for all tasks, with the base as it is before its own step."""
        ...


@runtime_checkable
class UpdateHead(Protocol[C_contra]):
    """Train the head of one task by one gradient step for each of its networks."""

    def __call__(
        self,
        head: Any,
        batch: Transition,
        /,
        *,
        handed: Any,
        outcomes: Outcome,
        config: C_contra,
        progress: Progress,
        key: PRNGKeyArray,
    ) -> tuple[PyTree, Metrics]:
        """Return the head after the step, and metrics named NETWORK/METRIC (`value/loss`), each a scalar.

        `batch` [B, ...] is the base's own batch, `handed` is what `hand_over` returned on it, and `outcomes` [B] is what
        this task makes of it.
        """
        ...


@runtime_checkable
class InferenceNetworks(Protocol[C_contra]):
    """Take what acts out of what was trained."""

    def __call__(self, base: Any, head: Any, /, *, config: C_contra) -> tuple[PyTree, PyTree]:
        """Return the network that proposes actions and the one that scores them; `()` where there is none."""
        ...


@runtime_checkable
class Propose(Protocol):
    """Draw one action."""

    def __call__(
        self, policy: Any, observation: Float[Array, " O"], /, *, flow_steps: int, key: PRNGKeyArray
    ) -> Float[Array, " H"]:
        """Return an action in [-1, 1]; a policy refuses another. `flow_steps` is the number of velocity evaluations, where there are any."""
        ...


@runtime_checkable
class ProposeGuided(Protocol):
    """Draw one action by a flow whose velocity is changed at each of its steps."""

    def __call__(
        self,
        policy: Any,
        observation: Float[Array, " O"],
        /,
        *,
        guide: Callable[[Float[Array, " H"]], Float[Array, " H"]],
        flow_steps: int,
        key: PRNGKeyArray,
    ) -> Float[Array, " H"]:
        """Return an action in [-1, 1]. `guide(clean)` is what a step adds to its velocity.

        `clean` is the action that the step foresees, clipped to [-1, 1]: where the flow would end at its own velocity.
        """
        ...


@runtime_checkable
class Returns(Protocol[C_contra]):
    """Read returns of an action."""

    def __call__(
        self,
        value: Any,
        observation: Float[Array, " O"],
        /,
        *,
        action: Float[Array, " H"],
        noises: Float[Array, " Z"],
        config: C_contra,
        flow_steps: int,
    ) -> Float[Array, " Z"]:
        """Return a standardised return for each standard normal noise."""
        ...


class PolicySteps(NamedTuple):
    """Numbers of flow steps of a policy that can't act in any number. Its value is one of acting in so many."""

    allowed: tuple[int, ...]
    valued: int  # the largest that the value was trained on; it stands for those above it


@runtime_checkable
class GetPolicySteps(Protocol[C_contra]):
    """Say in how many flow steps a policy of a config can act."""

    def __call__(self, config: C_contra, /) -> PolicySteps: ...


@runtime_checkable
class DefaultSearch(Protocol[C_contra]):
    """Say how a policy of a config acts when its caller names no extraction."""

    def __call__(self, config: C_contra, /) -> Extraction: ...


class BaseFirst(NamedTuple):
    """Train the base before the head, as an agent of its own, and store draws of its policy for the rows of the head.

    The base of `agent` has the structure of this agent's base. The head trains on as many rows as it visits `visits`
    times on average, if there are so many.
    """

    agent: Any  # a config of an agent without a head
    num_proposals: int  # draws of each row, in `Transition.next_proposals`
    visits: int


@runtime_checkable
class GetBaseFirst(Protocol[C_contra]):
    """Say whether the base is trained before the head."""

    def __call__(self, config: C_contra, /) -> BaseFirst | None:
        """Return None where both are trained at the same time."""
        ...


class _OfRewards(Config, Protocol):
    """Settings of an agent that learns from rewards."""

    @property
    def discount(self) -> float: ...
    @property
    def standardise_observations(self) -> bool: ...
    @property
    def standardise_returns(self) -> bool: ...


def one_chunk(config: _OfRewards, /) -> DataSpec:
    """Ask for sums over one chunk, which bootstrap from a state whose action need not be known."""
    return DataSpec(
        discount=config.discount,
        num_steps=config.chunk_length,
        chunk_length=config.chunk_length,
        next_action_known=False,
        full_returns=False,
        standardise_observations=config.standardise_observations,
        standardise_returns=config.standardise_returns,
        return_bounds=NoBounds(),
    )


def _together(config: Any, /) -> None:
    return None


def _nothing(config: Any, spec: Spec, /, *, key: PRNGKeyArray) -> tuple[()]:
    return ()


def _nothing_handed(base: Any, batch: Transition, /, *, config: Any, key: PRNGKeyArray) -> tuple[()]:
    return ()


def _same_base(
    base: Any, batch: Transition, /, *, config: Any, progress: Progress, key: PRNGKeyArray
) -> tuple[Any, Metrics]:
    return base, {}


def _same_head(
    head: Any,
    batch: Transition,
    /,
    *,
    handed: Any,
    outcomes: Outcome,
    config: Any,
    progress: Progress,
    key: PRNGKeyArray,
) -> tuple[Any, Metrics]:
    return head, {}


@dataclass(frozen=True)
class Base(Generic[C_contra]):
    """The part learned from observations and actions, once per seed. Without arguments it is empty, `()`."""

    init: Init[C_contra] = _nothing
    update: UpdateBase[C_contra] = _same_base


@dataclass(frozen=True)
class Head(Generic[C_contra]):
    """The part learned from rewards, once per seed and task. It may hold an actor. Without arguments it is empty, `()`."""

    init: Init[C_contra] = _nothing
    update: UpdateHead[C_contra] = _same_head


@dataclass(frozen=True, kw_only=True)
class Agent(Generic[C]):
    """An algorithm, as pure functions. Losses see one transition; these functions see a batch [B, ...]."""

    config: type[C]
    data_spec: GetDataSpec[C]
    base: Base[C] = Base()
    base_first: GetBaseFirst[C] = _together
    hand_over: HandOver[C] = _nothing_handed
    head: Head[C] = Head()
    inference_networks: InferenceNetworks[C]
    propose: Propose
    propose_guided: ProposeGuided | None = None  # None: the base policy is no flow, and nothing guides it inside
    returns: Returns[C] | None = None  # None: there is no value, and no search
    policy_steps: GetPolicySteps[C] | None = None  # None: it acts in any number, of which its value knows nothing
    default_search: DefaultSearch[C]
    presets: Mapping[str, C]
