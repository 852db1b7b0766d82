"""Let a learned value choose among actions of your own: python examples/score_my_candidates.py POLICY

POLICY is a run folder or an exported policy that has a value. The candidates may come from anywhere: another policy, a planner,
a person. Here they are a grid.
"""

import sys

import numpy as np

import evor

policy = evor.load(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__))
observation = np.zeros(policy.spec.observation_dim)
levels = np.linspace(-1, 1, 5)
candidates = np.repeat(levels[:, None], policy.spec.action_dim, axis=1)  # [C, A]

for temperature in (0.0, 1.0, float("inf")):  # the maximum, in between, the mean of the return distribution
    search = evor.BestOf(return_temperature=temperature)
    choice = policy.choose(observation, candidates, extraction=search)
    print(
        f"return temperature {temperature}: candidate {choice.index} of {len(candidates)}, scores {choice.scores.round(2)}"
    )

# The policy's own candidates, for comparison: are yours better?
decision = policy.decide(observation, extraction=evor.BestOf(16))
print(f"best of the policy's own: {decision.scores.max():.2f}")
