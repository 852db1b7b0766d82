"""Drive one robot or environment with a trained policy: python examples/control_loop.py POLICY [STEPS]

POLICY is a run folder or an exported policy. Replace Robot with your own.
"""

import sys
import time

import numpy as np

import evor


class Robot:
    """Stands for your robot: a state, and what an action does to it."""

    def __init__(self, observation_dim: int):
        self.state = np.zeros(observation_dim, np.float32)

    def step(self, action: np.ndarray) -> np.ndarray:
        self.state[: len(action)] += 0.1 * action[: len(self.state)]
        return self.state


policy = evor.load(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__))
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100
search = policy.default_search  # or a cheaper one, such as evor.SoftmaxOf(8)

robot = Robot(policy.spec.observation_dim)
controller = evor.Controller(policy, extraction=search)
controller.act(robot.state)  # compiles, before the robot waits for it
controller.reset(seed=0)  # at the beginning of every episode
observation, slowest = robot.state, 0.0
for _ in range(steps):
    started = time.perf_counter()
    action = controller.act(observation)  # in the units of the data; a chunk is played to its end
    slowest = max(slowest, time.perf_counter() - started)
    observation = robot.step(action)
print(f"{steps} steps, the slowest decision took {1000 * slowest:.1f} ms")
