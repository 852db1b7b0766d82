"""Compare searches on one trained policy: python examples/choose_the_search.py RUN [EPISODES]

RUN is a run folder of an OGBench dataset, for example runs/demo.
"""

import sys

import evor

policy = evor.load(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__))
episodes = int(sys.argv[2]) if len(sys.argv) > 2 else 20

searches = {
    "base policy": evor.Prior(),
    "best of 8, by the mean": evor.BestOf(8),
    "softmax of 8": evor.SoftmaxOf(8),
    "softmax of 32": evor.SoftmaxOf(32),
    "softmax of 32, optimistic": evor.SoftmaxOf(32, return_temperature=0.3),
}
for label, search in searches.items():
    evaluation = evor.evaluate(policy, policy.origin["dataset"], episodes=episodes, seed=0, extraction=search)
    print(f"{label:<30} {evaluation}")
