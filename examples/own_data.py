"""Train on arrays and act: python examples/own_data.py [OUT] [UPDATES]

A point robot moves in the plane, and the task is to reach the origin. The data are noisy attempts.
"""

import sys

import numpy as np

import evor

out = sys.argv[1] if len(sys.argv) > 1 else "runs/own-data"
updates = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
random = np.random.default_rng(0)

rows: dict[str, list] = {name: [] for name in ("observations", "actions", "rewards", "terminations", "truncations")}
for _ in range(300):
    position = random.uniform(-1, 1, 2)
    for step in range(50):
        action = np.clip(random.normal(-position, 0.8), -1, 1)  # towards the origin, with much noise
        rows["observations"].append(position)
        rows["actions"].append(action)
        position = np.clip(position + 0.1 * action, -1, 1)
        reached = np.linalg.norm(position) < 0.1
        rows["rewards"].append(0.0 if reached else -1.0)  # -1 per step until the goal
        rows["terminations"].append(reached)
        rows["truncations"].append(step == 49 and not reached)
        if reached:
            break
arrays = {name: np.array(values, np.float32) for name, values in rows.items()}

policy = evor.train(arrays, out=out, updates=updates).policy(task=1, seed=0)
search = evor.SoftmaxOf(num_candidates=16)
for position in ([0.8, 0.8], [-0.8, 0.3]):
    action, value = policy.act(position, extraction=search), policy.value(position, np.negative(position))
    print(f"at {position}: action {action.round(2)}; value of moving to the origin {value:.1f}")
