"""A plain control loop does what `evor evaluate` does."""

import json
import os
import subprocess
import sys

import pytest
from scipy.stats import fisher_exact

# The demo on less data and with fewer updates; then the loop of README's quick start.
PROGRAM = """
import json
from pathlib import Path

import numpy as np
import ogbench

import evor
from evor.cli.main import main
from evor.rollouts.evaluate import evaluate

dataset = "pointmaze-medium-navigate-v0"
assert main(["data", "generate", dataset, "--transitions", "300000", "--out", "data"]) == 0
recipe = ["--agent.next-action", "dataset-action", "--agent.objective.n-steps", "20"]  # it arrives after few updates
assert main(["train", dataset, "--data", "data", "--updates", "4000", "--out", "run", *recipe]) == 0
search = evor.SoftmaxOf(4)
rows = evaluate(Path("run"), search, episodes=20)
policy = evor.load("run")
environment = ogbench.make_env_and_datasets(dataset.replace("-v0", "-singletask-task1-v0"), env_only=True)
np.random.seed(0)  # OGBench draws from it


def play(episode, **seed):
    observation, _ = environment.reset(seed=episode)
    ended = False
    while not ended:
        action = policy.act(observation, extraction=search, **seed)
        observation, _, terminated, truncated, info = environment.step(action)
        ended = terminated or truncated
    return bool(info["success"])


print(json.dumps({
    "evaluated": [row["success"] for row in rows],
    "played": [play(episode) for episode in range(20)],
    "one seed": [play(episode, seed=0) for episode in range(8)],
}))
"""


@pytest.mark.slow
def test_a_plain_loop_arrives_as_often_as_the_evaluation(tmp_path):
    """With few candidates, where a draw that repeats itself gets stuck. In a process that compiles as users' do."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout.splitlines()[-1])
    success = {name: sum(episodes) / len(episodes) for name, episodes in results.items()}

    def chance(name):  # of a difference as large as this where both are alike: both have few episodes (Fisher's test)
        table = [(sum(episodes), len(episodes) - sum(episodes)) for episodes in (results["evaluated"], results[name])]
        return fisher_exact(table).pvalue

    assert chance("played") > 0.05, success
    assert chance("one seed") < 0.01, success
    assert success["one seed"] < success["evaluated"], success
