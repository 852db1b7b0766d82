"""Four rooms where everything is exact: a policy that recorded data, another one that proposes, and what choosing gains.

Five moves (four and staying), of which one in ten slips to a random one; -1 per step until the goal; discount 0.99. The
data go round the rooms clockwise, the proposals the other way.
"""

import functools
from collections import deque

import numpy as np

MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # rows, columns; divided by nothing, they lie in [-1, 1]
DISCOUNT, SLIP, CANDIDATES = 0.99, 0.1, 8
MAP = [
    "xxxxxxxxxxxxx",
    "x     x     x",
    "x     x     x",
    "x           x",
    "x     x     x",
    "x     x     x",
    "xx xxxx     x",
    "x     xxx xxx",
    "x     x     x",
    "x     x     x",
    "x           x",
    "x     x     x",
    "xxxxxxxxxxxxx",
]
CELLS = [(i, j) for i, row in enumerate(MAP) for j, letter in enumerate(row) if letter == " "]
NUMBER = {cell: number for number, cell in enumerate(CELLS)}
DOORS = [(3, 6), (7, 9), (10, 6), (6, 2)]  # out of the rooms top left, top right, bottom right, bottom left: clockwise
GOALS = (0, 27, 54, 81)


def step(cell, move):
    """The cell after a move; walls stop it."""
    there = (cell[0] + int(move[0]), cell[1] + int(move[1]))
    return NUMBER[there if there in NUMBER else cell]


NEXT = np.array([[step(cell, move) for move in MOVES] for cell in CELLS])  # [S, 5]


@functools.cache
def transitions():
    """[S, 5, S]: probabilities of the next cell."""
    exact = np.eye(len(CELLS))[NEXT]
    return (1 - SLIP) * exact + SLIP * exact.mean(axis=1, keepdims=True)


def next_cells(policy):
    """[S, S]: probabilities of the next cell by a policy."""
    return (policy[:, None] @ transitions())[:, 0]


def distances(target):
    """Steps from every cell to a target."""
    steps, waiting = {NUMBER[target]: 0}, deque([NUMBER[target]])
    while waiting:
        here = waiting.popleft()
        for other in np.flatnonzero((here == NEXT).any(axis=1)):
            if other not in steps:
                steps[int(other)] = steps[here] + 1
                waiting.append(int(other))
    return np.array([steps[number] for number in range(len(CELLS))])


def room(cell):
    """The room of a cell, clockwise from top left. A door belongs to the room that it leads to."""
    i, j = cell
    if j < 6:
        return 0 if i < 6 or cell == DOORS[3] else 3
    if j == 6:
        return 1 if i < 6 else 3
    return 1 if i < 7 else 2


def round_policy(direction, noise):
    """[S, 5]: heads for the door to the next room, 1 for clockwise, and moves anyhow with probability `noise`."""
    policy = np.full((len(CELLS), 5), noise / 5)
    for number, cell in enumerate(CELLS):
        here = room(cell)
        door = DOORS[here if direction == 1 else (here - 1) % 4]
        after = distances(door)[NEXT[number]].astype(float)
        if cell == door:  # through it, into the next room
            outside = [room(CELLS[n]) == (here if direction == 1 else (here - 1) % 4) for n in NEXT[number]]
            after = np.where(np.array(outside) & (NEXT[number] != number), 0.0, 1.0)
        policy[number, after.argmin()] += 1 - noise
    return policy


DATA, PROPOSING = round_policy(1, 0.3), round_policy(-1, 0.8)


def values(policy, goal):
    """Q [S, 5] of a policy."""
    return learned(policy, policy, goal, steps=1)


def learned(data, proposing, goal, *, steps, choose=1):
    """Q [S, 5] that n-step targets lead to: one move, n - 1 moves of the data's policy, and then the value of the best of
    `choose` proposals. Solved for a choice, which is improved until it stays.
    """
    move, alive = transitions(), (np.arange(len(CELLS)) != goal).astype(float)
    by_data, eye = next_cells(data), np.eye(len(CELLS))
    shift, slope = np.zeros(len(CELLS)), eye  # of the value after n - 1 moves of the data's policy: shift + slope v
    for _ in range(steps - 1):
        shift, slope = alive * (-1 + DISCOUNT * by_data @ shift), DISCOUNT * alive[:, None] * (by_data @ slope)
    q = np.zeros((len(CELLS), 5))
    for _ in range(100):
        acting = best_of(proposing, q, choose)
        chosen = next_cells(acting)
        v = np.linalg.solve(
            eye - DISCOUNT * alive[:, None] * (chosen @ slope), alive * (-1 + DISCOUNT * chosen @ shift)
        )
        before, q = q, alive[:, None] * (-1 + DISCOUNT * move @ (shift + slope @ v))
        if choose == 1 or np.abs(q - before).max() < 1e-6:
            break
    return q


def best_of(policy, q, number=CANDIDATES):
    """[S, 5]: the best of some draws of a policy, by q; equal values are taken in the order of the moves."""
    order = np.argsort(q, axis=1, kind="stable")
    below = np.cumsum(np.take_along_axis(policy, order, axis=1), axis=1) ** number
    best = np.zeros_like(policy)
    np.put_along_axis(best, order, np.diff(below, axis=1, prepend=0), axis=1)
    return best


def mean_return(policy, goal):
    """Mean discounted return over all cells where an episode may begin."""
    return (policy * values(policy, goal)).sum(axis=1).sum() / (len(CELLS) - 1)


@functools.cache
def ends_of_the_scale(goal):
    """Mean return of the proposing policy itself, and of the best choice among its draws."""
    ideal = learned(PROPOSING, PROPOSING, goal, steps=1, choose=CANDIDATES)
    return mean_return(PROPOSING, goal), mean_return(best_of(PROPOSING, ideal), goal)


def share(q, goal):
    """The part of the possible gain that choosing by q reaches: 0 is a draw of the policy, 1 the best choice of all."""
    own, best = ends_of_the_scale(goal)
    return float((mean_return(best_of(PROPOSING, q), goal) - own) / (best - own))


def recipes(goal):
    """Q of each way to learn it, by name."""
    return {
        "dataset action, n = 1": values(DATA, goal),
        "policy action, n = 1": values(PROPOSING, goal),
        "best action, n = 1": learned(DATA, PROPOSING, goal, steps=1, choose=CANDIDATES),
        "policy action, n = 5": learned(DATA, PROPOSING, goal, steps=5),
        "policy action, n = 20": learned(DATA, PROPOSING, goal, steps=20),
        "best action, n = 5": learned(DATA, PROPOSING, goal, steps=5, choose=CANDIDATES),
    }


def table():
    """Mean share over the goals, and the least, of each way."""
    shares = [{name: share(q, goal) for name, q in recipes(goal).items()} for goal in GOALS]
    return {name: (float(np.mean([s[name] for s in shares])), min(s[name] for s in shares)) for name in shares[0]}
