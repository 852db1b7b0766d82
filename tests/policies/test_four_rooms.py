"""A base policy that contradicts the data: which targets lead to a value that ranks its proposals."""

import re

import numpy as np
import pytest

import evor
import four_rooms
from documents import DOCS
from evor.agents.base import Frozen
from evor.agents.next_action import PolicyAction
from evor.nn.learner import Learning
from evor.search.extraction import BestOf
from four_rooms import CELLS, DATA, MOVES, NEXT, PROPOSING


def test_one_step_of_the_proposing_policy_ranks_its_proposals():
    shares = four_rooms.table()
    mean, worst = shares["policy action, n = 1"]
    assert mean >= 0.9
    assert worst >= 0.9
    assert shares["best action, n = 1"] == pytest.approx((1, 1), abs=1e-3)
    for refused in ("policy action, n = 5", "policy action, n = 20", "best action, n = 5"):
        assert shares[refused][0] < 0.9, refused
    assert shares["policy action, n = 5"][1] < 0  # worse than no search
    page = (DOCS / "tutorials" / "your-own-policy.md").read_text()
    shown = dict(re.findall(r"^\| ((?:policy|best|dataset) action, n = \d+) \| (.*) \|$", page, flags=re.MULTILINE))
    assert shown == {name: f"{100 * of[0]:.0f} % | {100 * of[1]:.0f} %" for name, of in shares.items()}


GOAL = 27


def observations(cells):
    """One number for each cell: a table that a network can hold."""
    return 4.0 * np.eye(len(CELLS), dtype=np.float32)[cells]


def cells_of(given):
    return given.argmax(axis=-1)


def proposals(given, num, seed):
    """Moves of the policy that goes the other way."""
    generator = np.random.default_rng(seed)
    cumulative = PROPOSING[cells_of(given["observation"])].cumsum(axis=1)
    drawn = (generator.random((len(cumulative), num, 1)) > cumulative[:, None]).sum(axis=-1)
    return MOVES[np.minimum(drawn, len(MOVES) - 1)][:, :, None].astype(float)


def record(rows=100_000):
    """Episodes of 10 steps by the data's policy, from anywhere: it would seldom leave its round by itself."""
    generator = np.random.default_rng(0)
    cumulative = DATA.cumsum(axis=1)
    cells, moves, ends = np.zeros(rows, int), np.zeros(rows, int), np.zeros(rows, bool)
    after = np.zeros(rows, int)
    cell, age = int(generator.integers(len(CELLS))), 0
    for row in range(rows):
        move = min(int((generator.random() > cumulative[cell]).sum()), len(MOVES) - 1)
        made = int(generator.integers(len(MOVES))) if generator.random() < four_rooms.SLIP else move
        cells[row], moves[row], after[row], age = cell, move, NEXT[cell, made], age + 1
        ends[row] = age == 10 or after[row] == GOAL
        cell, age = (int(generator.integers(len(CELLS))), 0) if ends[row] else (int(after[row]), age)
        cell = cell if cell != GOAL else 0
    finished = after == GOAL
    return {
        "observations": observations(cells),
        "next_observations": observations(after),
        "actions": MOVES[moves].astype(np.float32),
        "rewards": np.full(rows, -1.0, np.float32),
        "terminations": finished,
        "truncations": ends & ~finished,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "is_cloned"), [(1, False), (5, True)])
def test_a_learned_value_reaches_what_the_exact_one_does(tmp_path, steps, is_cloned):
    """Over n = 5 the option that lifts the refusal is a lie here, and the value pays for it."""
    data = record()
    evor.propose(data, base=proposals, out=tmp_path / "P", quiet=True)
    agent = evor.Scalar(
        base=Frozen(cloned_this_data=is_cloned),
        n_steps=steps,
        next_action=PolicyAction(),
        standardise_observations=False,
        target_rate=0.05,
        learning=Learning(hidden=(256,), learning_rate=1e-3),
    )
    run = evor.train(data, agent=agent, proposals=tmp_path / "P", out=tmp_path / "run", updates=8000, quiet=True)
    policy, every = run.policy(base=proposals), observations(np.arange(len(CELLS)))
    moves = np.repeat(MOVES[None].astype(np.float32), len(CELLS), axis=0)
    q = policy.choose(every, moves, seed=0, extraction=BestOf()).scores
    share = four_rooms.share(q.astype(float), GOAL)
    assert (share >= 0.9) if steps == 1 else (share < 0.5), share
