"""Made by version 0.1.0 (commit 52b5d25): a run of pointmaze with evaluations, an export, and what it did."""

from pathlib import Path

import numpy as np
from evor.config import RunConfig
from evor.data.generate import generate
from evor.evaluate import evaluate
from evor.train import train

import evor
from evor.agents.evor import Evor
from evor.data import ogbench

generate("pointmaze-medium-navigate-v0", 4000, 0, 1, Path("data"))
ogbench._gymnasium().registry["pointmaze-medium-singletask-task1-v0"].max_episode_steps = 50
agent = Evor(hidden=(8, 8), batch_size=32)
config = RunConfig(
    dataset="pointmaze-medium-navigate-v0",
    data="data",
    tasks=(1, 4),
    seeds=2,
    steps=20,
    checkpoint_every=10,
    log_every=4,
    agent=agent,
)
out = Path("run")
train(config, out)
evaluate(out, evor.SoftmaxOf(2), 2, tasks=(1,), seeds=(0,))
policy = evor.load(out, task=1, seed=0)
policy.export("export")
o = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
a = policy.act(o, np.array([1, 2, 3]), evor.Prior())
np.savez(
    "known.npz",
    observations=o,
    prior=a,
    softmax=policy.act(o, 7, evor.SoftmaxOf(8)),
    best=policy.act(o[0], 5, evor.BestOf(4)),
    value=policy.value(o, a),
    returns=policy.returns(o, a, 5, seed=2),
    quantiles=policy.quantiles(o, a, 4),
)
