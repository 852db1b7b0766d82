"""A policy without networks, and a server of it in a thread."""

import contextlib
import io
import json
import threading

import numpy as np

from evor.serving.decider import Decided, flat
from evor.serving.log import Log
from evor.serving.pace import Pace, Timing
from evor.serving.server import Server, bind
from evor.serving.service import Service
from evor.types import ActionBounds

STATE = {"state": np.array([0.5, -0.5], np.float32)}


class StandIn:
    """Actions hold the number of candidates, and the seed of the decision or what `answer` makes of the observation."""

    keys = (("state", 2),)
    action_bounds = ActionBounds((-100.0,) * 2, (100.0,) * 2)
    sizes = (1, 2, 4, 8)

    def __init__(self, horizon=1, answer=None):
        self.horizon = self.executed = horizon
        self.seen = []
        self._answer = answer

    def decide(self, observation, *, number, seed):
        row = flat(observation, self.keys)
        self.seen.append(observation)
        told = seed if self._answer is None else self._answer(observation)
        actions = np.zeros((self.horizon, 2), np.float32)
        actions[:] = number, told
        return Decided(row=row, actions=actions, value=-2.5, quantiles=[-4.0, -3.0, -2.0, -1.0, 0.0])


def service_of(decider, *, budget_ms=None, timings=None, stream=None, **options):
    """A service whose decisions take no time, as its table says."""
    timings = timings or [Timing(size, 0.0, 0.1 * size, 0.2 * size) for size in decider.sizes]
    log = Log(stream or io.StringIO(), every=3600)
    return Service(decider, Pace(timings, budget_ms=budget_ms), log=log, **options)


class Served:
    """A server in a thread."""

    def __init__(self, service, *, port=0, **options):
        self._sock = bind("127.0.0.1", port)
        self.uri = f"ws://127.0.0.1:{self._sock.getsockname()[1]}"
        self.server, ready = Server(service, **options), threading.Event()
        options = {"target": self.server.serve, "args": (self._sock,), "kwargs": {"ready": ready.set}}
        self._thread = threading.Thread(**options, daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self):
        """Stop, and wait until it has ended."""
        self.server.stop()
        self._thread.join(10)
        self._sock.close()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def serving(service, **options):
    """Serve in a thread. Yields the uri; at the end the server has ended."""
    served = Served(service, **options)
    try:
        yield served.uri
    finally:
        served.stop()


def lines(stream, event=None):
    """The lines of a log."""
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in told if event in (None, line["event"])]
