"""Record in your own environment, train, evaluate: python examples/own_environment.py OUT UPDATES EPISODES"""

import sys

import numpy as np
from gymnasium import Env, spaces

import evor


# A point robot that must reach the origin within 50 steps. A function that makes one would do as well as the class.
class make_env(Env):  # noqa: N801
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self.position, {}

    def step(self, action):
        self.position, self.steps = np.clip(self.position + 0.1 * action, -1, 1), self.steps + 1
        reached = bool(np.linalg.norm(self.position) < 0.1)
        return self.position, float(reached) - 1, reached, self.steps == 50 and not reached, {"success": reached}


if __name__ == "__main__":
    _, out, updates, episodes = sys.argv if len(sys.argv) == 4 else sys.exit(__doc__)
    rows, environment, random = [], make_env(), np.random.default_rng(0)
    for episode in range(300):
        (observation, _), ended = environment.reset(seed=episode), False
        while not ended:
            action = np.clip(random.normal(-observation, 0.8), -1, 1)  # a noisy attempt
            after, reward, terminated, truncated, _ = environment.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation, ended = after, terminated or truncated
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    arrays = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    policy = evor.train(arrays, out=out, updates=int(updates)).policy(task=1, seed=0)
    for search in (evor.Prior(), evor.SoftmaxOf(16)):
        print(search, evor.evaluate(policy, make_env(), episodes=int(episodes), seed=0, extraction=search))
