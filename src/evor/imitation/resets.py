"""Resets as types: where a learner's episodes begin. The methods are mixtures of them."""

from dataclasses import dataclass

from evor.agents.bc import Bc
from evor.errors import EvorError, at_least, integer


@dataclass(frozen=True)
class Start:
    """Begin as the environment does."""

    weight: float


@dataclass(frozen=True)
class ExpertStates:
    """Begin at a state of the expert, drawn evenly. The episode's clock goes on from there."""

    weight: float


@dataclass(frozen=True)
class OfflineStates:
    """Begin at a state of the offline data, drawn evenly. The episode's clock goes on from there."""

    weight: float


@dataclass(frozen=True)
class RollIn:
    """Begin where a clone of the demonstrations gets to in some steps. The clone's steps are counted, and not learned from."""

    weight: float
    most_steps: int


Reset = Start | ExpertStates | OfflineStates | RollIn


def _start(*others: float) -> float:
    at_least(0, **{"a share of resets": min(others, default=0.0)})
    if sum(others) > 1 + 1e-9:
        raise EvorError(f"shares of resets sum to {sum(others):g}; they may sum to 1 at most.")
    return max(0.0, 1 - sum(others))


@dataclass(frozen=True)
class Mm:
    """Moment matching: every episode begins at the start."""

    @property
    def resets(self) -> tuple[Reset, ...]:
        return (Start(1.0),)


@dataclass(frozen=True)
class Filter:
    """Resets to expert states, the others to the start."""

    expert: float = 0.5  # Share of episodes that begin at a state of the expert.

    def __post_init__(self):
        _start(self.expert)

    @property
    def resets(self) -> tuple[Reset, ...]:
        return (Start(_start(self.expert)), ExpertStates(self.expert))


@dataclass(frozen=True)
class Guitar:
    """Resets to states of the expert and of offline data, the others to the start."""

    expert: float = 0.25  # Share of episodes that begin at a state of the expert.
    offline: float = 0.25  # Share of episodes that begin at a state of the offline data.
    roll_in: float = 0.0  # Share of episodes that begin where a clone of the data gets to.
    most_steps: int = 100  # Steps of the clone at most. They are drawn evenly from 0 on.

    def __post_init__(self):
        _start(self.expert, self.offline, self.roll_in)
        integer(0, most_steps=self.most_steps)

    @property
    def resets(self) -> tuple[Reset, ...]:
        start = _start(self.expert, self.offline, self.roll_in)
        return (
            Start(start),
            ExpertStates(self.expert),
            OfflineStates(self.offline),
            RollIn(self.roll_in, self.most_steps),
        )


Method = Guitar | Filter | Mm | Bc


def resets_of(method: Method) -> tuple[Reset, ...]:
    """The resets that a method makes, of those with a weight. Cloning makes none."""
    return () if isinstance(method, Bc) else tuple(reset for reset in method.resets if reset.weight > 0)
