"""An environment whose episodes can be written out by hand, and a user's data of it."""

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    """A point on a line starts between 0 and 1, moves by action 0, and is paid its place; the fourth step ends it.

    Observations are [place, its square, steps]. Success is a place above the start's.
    """

    made, closed = 0, 0
    steps_to_the_end = 4

    def __init__(self, bounds=(-1.0, 1.0), success=True):
        Line.made += 1
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(*np.array(bounds, np.float32), (2,), np.float32)
        self._success, self._observed = success, np.zeros(3)
        self.taken, self.seeds = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self._start = self._place = float(self.np_random.uniform())
        self._step = 0
        return self._observe(), {}

    def step(self, action):
        self.taken.append(np.array(action))
        self._place += float(action[0])
        action[:] = np.nan  # it may do with it what it likes
        self._step += 1
        told = {"success": self._place > self._start} if self._success else {}
        return self._observe(), self._place, self._step == self.steps_to_the_end, False, told

    def _observe(self):
        self._observed[:] = self._place, self._place**2, self._step  # the same array each time
        return self._observed

    def close(self):
        Line.closed += 1


def make_line():
    """What `--env own_environment:make_line` names."""
    return Line()


def make_without_success():
    return Line(success=False)


class Endless(Line):
    """A line without a time limit."""

    steps_to_the_end = None


class Parted(Line):
    """A line whose observations are a Dict in a Dict, with an image beside."""

    def __init__(self, **changes):
        super().__init__(**changes)
        box = gymnasium.spaces.Box
        inner = gymnasium.spaces.Dict(steps=box(0, 9, (1,)), square=box(0, 9, (1,)))
        self.observation_space = gymnasium.spaces.Dict(
            place=box(-9, 9, ()), rest=inner, view=box(0, 255, (4, 4, 3), np.uint8)
        )

    def _observe(self):
        place, square, steps = super()._observe()
        view = np.zeros((4, 4, 3), np.uint8)
        return {"view": view, "rest": {"square": np.array([square]), "steps": np.array([steps])}, "place": place}


class Paired(Line):
    """A line whose observations are a Tuple: steps, then place and square."""

    def __init__(self, **changes):
        super().__init__(**changes)
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Tuple((box(-9, 9, (1,)), box(-9, 9, (2,))))

    def _observe(self):
        place, square, steps = super()._observe()
        return np.array([steps]), np.array([place, square])
