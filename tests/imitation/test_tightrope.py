"""The tightrope: every number that theory gives in closed form, and the command."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evor.cli.main import main
from evor.errors import EvorError
from evor.imitation.tightrope.sampled import NoResets, sampled_search
from evor.imitation.tightrope.search import (
    ROUNDS,
    EveryState,
    ExpertAndOfflineStates,
    ExpertStates,
    completeness_errors,
    play,
    search,
)
from evor.imitation.tightrope.study import measure
from evor.imitation.tightrope.world import (
    BRIDGE,
    HIDDEN_BIT,
    PLATFORM,
    SEEN_BIT,
    TRUE_U,
    Settings,
    Tightrope,
    check_world,
    completeness_error,
    constant,
    crossing,
    expected_return,
    expert,
    make,
    on_the_rope,
    over_the_bridge,
    recorded,
    threshold,
    values,
)

EXACT = {"abs": 1e-9, "rel": 0}
METHODS = ("expert", "bc", "bc_union", "bc_offline", "filter", "guitar", "mm")


def some_policies(world, number, seed=0):
    """Random deterministic policies of the learner's class."""
    generator = np.random.default_rng(seed)
    for _ in range(number):
        choice = generator.integers(0, 2, (world.horizon, 4))
        yield np.eye(2)[choice[:, HIDDEN_BIT]]


def all_policies(world):
    """Every policy of the learner's class, as far as it matters: an action per time for platform, rope and bridge."""
    for platform in (0, 1):
        for rest in itertools.product((0, 1), repeat=2 * (world.horizon - 1)):
            choice = np.zeros((world.horizon, 4), int)
            choice[0, 0] = platform
            choice[1:, 1:3] = np.array(rest).reshape(-1, 2)
            yield np.eye(2)[choice[:, HIDDEN_BIT]]


@settings(max_examples=6, deadline=None)
@given(
    horizon=st.integers(2, 16),
    u_max=st.floats(0, 1),
    tremble=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_every_return_is_its_closed_form(horizon, u_max, tremble, seed):
    if abs(u_max - threshold(horizon)) < 1e-3:
        return  # where rope and bridge are equal, rounding chooses
    report = measure(Settings(horizon=horizon, u_max=u_max, tremble=tremble, seed=seed))
    for name in METHODS:
        assert report[name] == pytest.approx(report["closed_form"][name], **EXACT), name
    for name, mean in report["mean_over_rounds"].items():
        assert mean == pytest.approx(report["closed_form"]["mean_over_rounds"][name], **EXACT), name
    assert report["completeness"]["sum"] == pytest.approx(report["completeness"]["expert_minus_filter"], **EXACT)
    assert report["realisable"] == pytest.approx(dict.fromkeys(("bc", "filter", "guitar", "mm"), horizon), **EXACT)


def test_the_numbers_at_ten_steps():
    report = measure(Settings())
    expected = {"expert": 10, "bc": 2.99609375, "filter": 2.99609375, "guitar": 5.5, "mm": 5.5}
    assert {name: report[name] for name in expected} == pytest.approx(expected, **EXACT)
    assert report["threshold"] == pytest.approx(0.60078125, **EXACT)
    assert report["bc_union"] == pytest.approx(2.43, abs=0.005)
    assert report["bc_offline"] == pytest.approx(1.87, abs=0.005)


@pytest.mark.parametrize("horizon", [2, 3, 5, 10, 21])
def test_the_completeness_error_is_attained_by_filter(horizon):
    """Whatever policy of the class follows, and whatever reward of the class: so it is the largest, too."""
    world = make(Settings(horizon=horizon))
    closed = [completeness_error(horizon, time) for time in range(horizon)]
    for policy in some_policies(world, 20):
        for u in (0.0, 0.3, 1.0):
            errors = completeness_errors(world, recorded(world, expert(world)), policy=policy, rewards=world.rewards(u))
            assert errors[1:] == pytest.approx(closed[1:], **EXACT)
    learned = play(world, ExpertStates(), u_max=0.5, true_u=TRUE_U).last
    assert sum(closed) == pytest.approx(horizon - expected_return(world, learned, u=TRUE_U), **EXACT)
    seen = completeness_errors(
        world, recorded(world, expert(world)), policy=expert(world), rewards=world.rewards(0.3), sees=SEEN_BIT
    )
    assert seen == pytest.approx(np.zeros(horizon), **EXACT)


@pytest.mark.parametrize("horizon", [2, 3, 4, 5])
def test_mm_and_guitar_are_the_best_of_all_policies(horizon):
    """By enumeration. The offline data cover the bridge, so GUITAR's search is as good as a search over everything."""
    world = make(Settings(horizon=horizon))
    for u in (0.0, 0.2, 0.9):
        best = max(expected_return(world, policy, u=u) for policy in all_policies(world))
        for resets in (EveryState(), ExpertAndOfflineStates(0.5)):
            found = search(world, resets.states(world), rewards=world.rewards(u))
            assert expected_return(world, found, u=u) == pytest.approx(best, **EXACT)
        assert best == pytest.approx(max(on_the_rope(horizon), over_the_bridge(horizon, u)), **EXACT)


@pytest.mark.parametrize("elsewhere", [0, 1])
@pytest.mark.parametrize("horizon", [2, 3, 4, 10])
def test_filter_stays_on_the_rope_whatever_it_does_off_it(horizon, elsewhere):
    game = play(make(Settings(horizon=horizon)), ExpertStates(), u_max=0.5, true_u=TRUE_U, elsewhere=elsewhere)
    assert game.mean_return == pytest.approx(on_the_rope(horizon), **EXACT)


@pytest.mark.parametrize("u_max", [0.2, 0.6, 0.61, 1.0])
def test_the_gap_of_guitar_is_that_of_the_best_covered_policy_up_to_regret(u_max):
    world = make(Settings())
    game = play(world, ExpertAndOfflineStates(0.5), u_max=u_max, true_u=TRUE_U)
    rope, bridge = 10 - on_the_rope(10), 10 - over_the_bridge(10, u_max)
    assert 0 <= game.regret <= 10 * np.sqrt(np.log(2) / (2 * ROUNDS))  # Hedge's bound
    if u_max <= threshold(10):
        assert game.ipm == pytest.approx(bridge, **EXACT)
    assert min(rope, bridge) - 1e-9 <= game.ipm <= min(rope, bridge) + game.regret + 1e-9


def test_a_discriminator_that_sees_too_much_makes_the_fall_the_better_imitation():
    world, limit = make(Settings()), threshold(10)
    for resets in (EveryState(), ExpertAndOfflineStates(0.5)):
        below, above = (play(world, resets, u_max=limit + by, true_u=TRUE_U).last for by in (-0.01, 0.01))
        assert expected_return(world, below, u=TRUE_U) == pytest.approx(5.5, **EXACT)
        assert expected_return(world, above, u=TRUE_U) == pytest.approx(on_the_rope(10), **EXACT)


def test_values_are_what_episodes_return():
    """Simulated returns of a random policy scatter around the exact one."""
    world, generator = make(Settings(horizon=6)), np.random.default_rng(0)
    (policy,) = some_policies(world, 1, seed=3)
    policy = 0.7 * policy + 0.15
    p, rewards = world.transitions(), world.rewards(0.3)
    returns = []
    for _ in range(4000):
        state, total = PLATFORM, 0.0
        for time in range(6):
            total += rewards[time][state]
            action = generator.choice(2, p=policy[time, state])
            state = generator.choice(5, p=p[time, state, action])
        returns.append(total)
    exact = values(world, policy, rewards=rewards)[1][0, PLATFORM]
    assert abs(np.mean(returns) - exact) < 4 * np.std(returns) / 4000**0.5


def test_offline_data_hold_no_state_after_a_fall():
    world = make(Settings())
    states = recorded(world, crossing(world, 0.5))
    assert states[1:, BRIDGE] == pytest.approx(np.ones(9), **EXACT)


def test_sampled_searches_cross_with_offline_resets_alone():
    world = make(Settings(horizon=14))

    def crosses(resets, episodes):
        found = sampled_search(
            world,
            resets,
            rewards=world.rewards(TRUE_U),
            episodes=episodes,
            generator=np.random.default_rng(1),
        )
        return found.crosses(world), found.steps

    guided, steps = crosses(ExpertAndOfflineStates(0.5), 200)
    assert guided
    assert 200 * 14 <= steps <= 200 * sum(range(1, 15))
    assert not crosses(ExpertStates(), 200)[0]
    blind, many = crosses(NoResets(), 200)
    assert not blind
    assert many > 200 * 14 * 2


def test_a_code_that_a_constant_guess_crosses_is_refused():
    assert all(make(Settings(seed=seed)).code[1:3] == (1, 0) for seed in range(5))
    check_world(make(Settings()))
    with pytest.raises(EvorError, match="bits 1 and 2 must differ"):
        check_world(Tightrope(4, (0, 1, 1, 0)))
    with pytest.raises(EvorError, match="a bit for each of the 4 steps"):
        check_world(Tightrope(4, (0, 1)))
    equal = Tightrope(10, (1,) * 10)
    assert expected_return(equal, constant(equal, 1), u=TRUE_U) == pytest.approx(5.5, **EXACT)


# The command.


def test_the_command_prints_the_returns(tmp_path, capsys):
    out = tmp_path / "tightrope"
    command = ["imitate", "tightrope", "--horizon", "8", "--u-max", "0.3", "--repeats", "0", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    named = {name: report[name] for name in ("expert", "bc", "filter", "guitar", "mm")}
    bridge, rope = over_the_bridge(8, 0.1), on_the_rope(8)
    assert named == pytest.approx({"expert": 8, "bc": rope, "filter": rope, "guitar": bridge, "mm": bridge}, **EXACT)
    assert json.loads((out / "tightrope.json").read_text()) == report
    page = (out / "index.html").read_text()
    assert page.count("<img") == 3
    assert page.count("<table>") == 1
    assert f"{bridge:.4f}" in page
    assert re.findall(r'<h2 id="([^"]*)"', page)[:2] == ["the-world", "returns"]


@pytest.mark.slow
def test_the_page_counts_the_steps_of_sampled_searches(tmp_path, capsys):
    command = ["imitate", "tightrope", "--repeats", "1", "--out", str(tmp_path / "t")]
    for _ in range(2):  # it replaces itself
        assert main(command) == 0
        assert "The bound is attained." in " ".join(capsys.readouterr().out.split())
    rows = json.loads((tmp_path / "t/tightrope.json").read_text())["sampled"]
    assert {(row["method"], row["crosses"]) for row in rows if row["horizon"] == 20} == {
        ("guitar", 1.0),
        ("filter", 0.0),
        ("mm", 0.0),
    }
    assert (tmp_path / "t/index.html").read_text().count("<table>") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--horizon 1", "horizon is 1; it must be at least 2, a whole number."),
        ("--u-max 1.5", "u_max is 1.5; it must lie between 0 and 1."),
        ("--tremble -1", "tremble is -1.0; it must lie between 0 and 1."),
        ("--repeats -1", "repeats is -1; it must be at least 0, a whole number."),
        ("--horizon x", "--horizon takes a whole number, such as --horizon 10; got 'x'."),
    ],
)
def test_what_has_no_meaning_is_refused(words, told, tmp_path, capsys):
    assert main(["imitate", "tightrope", *words.split(), "--out", str(tmp_path / "t")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_a_folder_of_something_else_is_kept(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["imitate", "tightrope", "--out", str(tmp_path)]) == 2
    assert "no study of the tightrope" in capsys.readouterr().err
