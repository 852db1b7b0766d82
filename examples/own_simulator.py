"""`python examples/own_simulator.py FOLDER`: an environment that restores its states, and demonstrations of an expert in it."""

import sys

import gymnasium
import numpy as np

from evor.cli.main import main


class Swing(gymnasium.Env):
    """Keep a swing at rest. It has no random numbers; an environment that has some saves its generator, too."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.normal(size=2)
        return self.at.copy(), {}

    def step(self, action):
        angle, speed = self.at
        self.at = np.array([angle + 0.1 * speed, speed + 0.1 * (action[0] - np.sin(angle))])
        return self.at.copy(), float(np.exp(-(angle**2))), bool(abs(angle) > 3), False, {}

    def save_state(self):
        return self.at.copy()

    def restore_state(self, state, observation):
        self.at = state.copy()
        return self.at.copy()


gymnasium.register("Swing-v0", Swing, max_episode_steps=100)  # ty: ignore[invalid-argument-type] - gymnasium takes classes, too
if __name__ == "__main__":
    folder, *more = sys.argv[1:] or sys.exit("python examples/own_simulator.py FOLDER")
    expert = ["imitate", "expert", "Swing-v0", "--steps", "20480", "--learner.hidden", "64", "64", "--out", folder]
    sys.exit(main(expert + more) or main(["imitate", "demos", folder, "--out", f"{folder}/demos.npz"]))
