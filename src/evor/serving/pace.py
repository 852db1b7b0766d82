"""The number of candidates that a decision may have: the sizes that are compiled, their times, and the pace that load allows."""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

RECENT = 200  # replies that tell how fast the server is
LATE = 2  # of them may be over the budget: 1 %
CALMEST = (
    16 * RECENT
)  # replies without a late one before more candidates are tried, where trying failed again and again
QUICK = 1.0  # ms of a decision, below which other clients may wait for it
SLACK = 1.1  # of the budget, when more candidates are tried: a reply that is late after all is noticed


class Timing(NamedTuple):
    """Times of decisions with so many candidates, in ms. `base_p99` is the part of a base policy of the user's own."""

    candidates: int
    compile_s: float
    p50: float
    p99: float
    base_p99: float = 0.0


def sizes(most: int, *, halves: bool) -> tuple[int, ...]:
    """Numbers of candidates up to `most`: powers of two and `most` itself, with `halves` also what lies half-way between.

    The proposals of a base policy are padded to a power of two, so half-way sizes compile nothing more.
    """
    powers = [2**i for i in range(most.bit_length())]
    between = [3 * power // 2 for power in powers if power > 1] if halves else []
    return tuple(sorted({size for size in (*powers, *between) if size <= most} | {most}))


class Pace:
    """The number of candidates of the next decision.

    It starts at the largest size whose p99 fits the budget. When the p99 of the last 200 replies is over the budget it takes
    one size less, and after a calm spell one more, up to where it started. Every try that fails doubles the calm spell.
    Without a budget it stays at the largest size.

    Where the base policy could not be timed (`knows_base` is False), it starts at 1 and assumes that twice the candidates
    take twice the time.
    """

    def __init__(self, timings: Iterable[Timing], *, budget_ms: float | None, knows_base: bool = True):
        self.timings = {timing.candidates: timing for timing in timings}
        self.budget_ms, self._knows_base = budget_ms, knows_base
        everything = tuple(self.timings)
        fitting = everything
        if budget_ms is not None and knows_base:
            fitting = tuple(n for n, timing in self.timings.items() if timing.p99 <= budget_ms) or everything[:1]
        # A size that fits by luck between two that don't is as good as any.
        self._sizes = tuple(size for size in everything if size <= max(fitting))
        self._place = 0 if budget_ms is not None and not knows_base else len(self._sizes) - 1
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._calm, self._since, self._tried = RECENT, 0, False

    @property
    def number(self) -> int:
        """The number of candidates, where a client asks for no less."""
        return self._sizes[self._place]

    @property
    def most(self) -> int:
        """The largest number that it may come to."""
        return self._sizes[-1]

    @property
    def is_quick(self) -> bool:
        """Whether every decision is over in QUICK, and no base policy of the user's own is part of it."""
        of_base = any(timing.base_p99 for timing in self.timings.values()) or not self._knows_base
        return not of_base and max(timing.p99 for timing in self.timings.values()) <= QUICK

    def lowered(self, num_candidates: int | None, budget_ms: float | None) -> int:
        """The number for a client that asks for at most so many candidates or ms; never more than without asking."""
        allowed = self._sizes[: self._place + 1]
        if num_candidates is not None:
            allowed = tuple(size for size in allowed if size <= num_candidates) or allowed[:1]
        if budget_ms is not None:
            allowed = tuple(size for size in allowed if self._expected(size) <= budget_ms) or allowed[:1]
        return allowed[-1]

    def note(self, number: int, milliseconds: float) -> tuple[int, int] | None:
        """Take the time of a reply into account. Returns (old, new) where the number of candidates changes."""
        budget = math.inf if self.budget_ms is None else self.budget_ms
        if number != self.number and milliseconds <= budget:
            return None  # of a client that asked for less: it tells nothing of this number
        self._recent.append(milliseconds)
        self._since += 1
        late = sum(ms > budget for ms in self._recent) if milliseconds > budget else 0
        if late > LATE and self._place > 0:
            if self._tried and self._since <= RECENT:
                self._calm = min(2 * self._calm, CALMEST)
            return self._move(-1)
        if self._since >= self._calm and self._place + 1 < len(self._sizes) and self._may_rise():
            return self._move(+1)
        return None

    def _move(self, by: int) -> tuple[int, int]:
        old = self.number
        self._place += by
        self._recent.clear()
        self._since, self._tried = 0, by > 0
        return old, self.number

    def _may_rise(self) -> bool:
        budget = self.budget_ms or math.inf
        return max(self._recent) <= budget and self._expected(self._sizes[self._place + 1]) <= SLACK * budget

    def _expected(self, size: int) -> float:
        """The p99 that is expected of a size, in ms: that of the start, and what replies take longer now than they did then."""
        timing, now = self.timings[size], self.timings[self.number]
        if not self._recent:
            return timing.p99
        if not self._knows_base:
            return float(np.quantile(self._recent, 0.99)) * size / self.number
        return timing.p99 + max(0.0, statistics.median(self._recent) - now.p50)


def measure(
    decide: Callable[[], float], *, candidates: int, clock: Callable[[], float], number: int = 100, seconds: float = 3.0
) -> Timing:
    """Time decisions with so many candidates after a first one that compiles: `number` of them, fewer if they take long.

    `decide` makes one and returns the seconds that a base policy took of it.
    """
    started = clock()
    decide()
    compiled = clock()
    times, of_base = [], []
    while len(times) < number and (len(times) < 10 or clock() - compiled < seconds):
        before = clock()
        of_base.append(1e3 * decide())
        times.append(1e3 * (clock() - before))
    return Timing(
        candidates=candidates,
        compile_s=compiled - started,
        p50=float(np.quantile(times, 0.5)),
        p99=float(np.quantile(times, 0.99)),
        base_p99=float(np.quantile(of_base, 0.99)),
    )
