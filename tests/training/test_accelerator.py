"""What an accelerator runs in place of a CPU's loops, on this CPU: networks side by side are networks one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import DATASET, TINY
from evor.agents.next_action import BestAction
from evor.agents.qc import Qc
from evor.policies.load import Run
from evor.runtime.records import replace
from evor.search.extraction import SoftmaxOf
from evor.training.config import RunConfig
from evor.training.data import open_data
from evor.training.update import initial_state, make_runner


@pytest.mark.slow
@pytest.mark.parametrize(
    "agent",
    [
        replace(TINY, next_action=BestAction(2), precision="bfloat16"),
        replace(Qc(num_candidates=4), hidden=(16, 16), batch_size=32, precision="tensorfloat32"),
    ],
    ids=["evor", "qc"],
)
@pytest.mark.usefixtures("compiled_anew")
def test_side_by_side_is_one_by_one(agent, data_folder, monkeypatch):
    """Two seeds of two tasks: 40 updates, more than a policy is ahead of its values, then decisions of a batch."""
    config = RunConfig(dataset=DATASET, data=str(data_folder), tasks=(1, 4), num_seeds=2, updates=40, agent=agent)
    data = open_data(config)
    observations = np.asarray(data.columns(0).observations[:8])
    start = initial_state(config, data.spec)

    def learned_and_chosen():
        state, run = make_runner(config, data.at(0), start)
        state = run(state, data.at(0), config.updates)
        policy = Run(
            config=config,
            spec=data.spec,
            step=config.updates,
            base=state.base,
            head=state.head,
            standardisation=data.scale,
        ).policy(task=4, seed=1)
        return (state.base, state.head), policy.act(observations, 0, extraction=SoftmaxOf(4))

    one_by_one, chosen = learned_and_chosen()
    jax.clear_caches()  # updates and decisions are compiled once per process
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    side_by_side, chosen_there = learned_and_chosen()
    before = (start.base, start.head)
    apart, moved = (
        np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)))
        for pair in ((one_by_one, side_by_side), (one_by_one, before))
    )
    assert apart < 1e-4 * moved
    np.testing.assert_allclose(chosen, chosen_there, atol=1e-5)
