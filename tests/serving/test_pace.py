"""How many candidates a decision may have: what fits a budget, under load and after it."""

import pytest

from evor.serving.pace import RECENT, Pace, Timing, measure, sizes

TIMINGS = [Timing(size, 1.0, 0.5 * size, 1.0 * size) for size in (1, 2, 4, 8, 16)]


def test_sizes_are_powers_of_two_and_the_largest():
    assert sizes(1, halves=True) == (1,)
    assert sizes(8, halves=False) == (1, 2, 4, 8)
    assert sizes(10, halves=False) == (1, 2, 4, 8, 10)
    assert sizes(16, halves=True) == (1, 2, 3, 4, 6, 8, 12, 16)


@pytest.mark.parametrize(("budget", "number"), [(None, 16), (100, 16), (16, 16), (15.9, 8), (4, 4), (1, 1), (0.1, 1)])
def test_the_largest_number_whose_p99_fits_is_chosen(budget, number):
    assert Pace(TIMINGS, budget_ms=budget).number == number


def run(pace, milliseconds, replies=RECENT):
    """The changes of so many replies."""
    return [change for _ in range(replies) if (change := pace.note(pace.number, milliseconds))]


def test_load_takes_candidates_and_calm_gives_them_back():
    pace = Pace(TIMINGS, budget_ms=10)
    assert run(pace, 4.0, replies=1000) == []  # no more than at the start
    assert run(pace, 11.0, replies=2) == []  # 1 % may be late
    assert run(pace, 11.0, replies=1) == [(8, 4)]
    assert run(pace, 30.0, replies=9) == [(4, 2), (2, 1)]  # and never less than one
    assert run(pace, 0.5, replies=4 * RECENT) == [(1, 2), (2, 4), (4, 8)]
    assert pace.number == 8


def test_what_would_be_late_again_is_not_tried():
    pace = Pace(TIMINGS, budget_ms=10)
    assert run(pace, 11.0, replies=3) == [(8, 4)]
    assert run(pace, 9.0, replies=2000) == []  # replies take 7 ms longer than at the start, and 8 + 7 > 11
    assert run(pace, 2.0, replies=2 * RECENT) == [(4, 8)]


def test_tries_that_fail_become_rarer():
    pace, gaps = Pace(TIMINGS, budget_ms=10), []
    for _ in range(4):
        assert run(pace, 11.0, replies=3) == [(8, 4)]
        replies = 0
        while pace.number == 4:
            pace.note(4, 2.0)
            replies += 1
        gaps.append(replies)
    assert gaps == [RECENT, 2 * RECENT, 4 * RECENT, 8 * RECENT]


def test_replies_of_fewer_candidates_tell_nothing_unless_they_are_late():
    pace = Pace(TIMINGS, budget_ms=10)
    assert [pace.note(1, 0.1) for _ in range(1000)] == [None] * 1000
    assert [pace.note(1, 20.0) for _ in range(3)] == [None, None, (8, 4)]


def test_a_client_lowers_and_never_raises():
    pace = Pace(TIMINGS, budget_ms=10)
    assert [pace.lowered(n, None) for n in (None, 1, 3, 8, 16)] == [8, 1, 2, 8, 8]
    assert [pace.lowered(None, ms) for ms in (0.1, 2.5, 8, 1000)] == [1, 2, 8, 8]
    assert pace.lowered(4, 1.0) == 1


def test_a_base_policy_that_could_not_be_timed_is_tried_from_one_candidate_on():
    pace = Pace(TIMINGS, budget_ms=100, knows_base=False)
    assert pace.number == 1
    notes = [pace.note(pace.number, 20.0 * pace.number) for _ in range(10 * RECENT)]
    assert [change for change in notes if change] == [(1, 2), (2, 4)]  # 8 would take 160 ms
    assert pace.lowered(None, 45.0) == 2


def test_decisions_are_timed_after_the_one_that_compiles():
    now, taken = [0.0], iter([5.0] + [0.001] * 98 + [0.003] * 2)

    def decide():
        now[0] += next(taken)
        return 0.0005

    timing = measure(decide, candidates=4, clock=lambda: now[0])
    assert timing.candidates == 4
    assert timing.compile_s == pytest.approx(5)
    assert timing.p50 == pytest.approx(1)
    assert 1 < timing.p99 <= 3.01
    assert timing.base_p99 == pytest.approx(0.5)


def test_slow_decisions_are_timed_less_often():
    now, calls = [0.0], []

    def decide():
        calls.append(now[0])
        now[0] += 1.0
        return 0.0

    measure(decide, candidates=1, clock=lambda: now[0], seconds=3.0)
    assert len(calls) == 11


def test_a_decision_is_quick_where_the_longest_is_and_no_base_policy_takes_part():
    def quick(*p99, base_p99=0.0, **options):
        timings = [Timing(number, 0.0, 0.1, ms, base_p99) for number, ms in enumerate(p99, 1)]
        return Pace(timings, budget_ms=None, **options).is_quick

    assert quick(0.1, 0.9)
    assert not quick(0.1, 1.1)
    assert not quick(0.1, base_p99=0.01)
    assert not quick(0.1, knows_base=False)
