"""Calibration on held-out trajectories: every objective, and two heads of the same network size for comparison.

`make calibration` writes docs/results/calibration.json and calibration.md. Rows of the validation file whose
reward-to-go is complete (the tail rule) are scored by CRPS and by the histogram of the probability-integral transform.
Each method is a run folder (or, for a head, one file) in runs/calibration; finished ones are kept.

The heads bootstrap exactly as SampleBackup's default does (same n, dataset action, moving average, schedule):
`gaussian` fits mean and deviation by likelihood to sampled backups, `categorical` is C51's projection on 51 atoms.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from evor.agents.evor import Evor
from evor.agents.next_action import DatasetAction
from evor.data.formats.ogbench import load_dataset
from evor.data.returns import Returns
from evor.data.sampler import sample
from evor.data.scripted.generate import generate_once
from evor.distributions.measures import crps, midpoints, pit
from evor.nn.learner import Learner, Progress, track
from evor.nn.nets import Mlp
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo, Objective, SampleBackup
from evor.policies.load import load
from evor.runtime.files import read_arrays, write_json, write_npz, write_text
from evor.runtime.parallel import Local, default_workers, parallel_map
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import provenance
from evor.training.config import RunConfig
from evor.training.data import load_episodes, prepare
from evor.training.train import train

DATASETS = {"pointmaze-medium-navigate-v0": 1_000_000, "cube-double-play-v0": 200_000}
DATA, RUNS, RESULTS = Path("data/results"), Path("runs/calibration"), Path("docs/results")
OBJECTIVES: dict[str, Objective] = {
    "FlowTd": FlowTd(),
    "FlowTd, dataset z1": FlowTd(z1=DatasetReturn()),
    "MonteCarlo": MonteCarlo(),
    "SampleBackup n = 1": SampleBackup(1),
    "SampleBackup n = 20": SampleBackup(20),
    "SampleBackup n = 50": SampleBackup(50),
}
QUANTILES = 256
TASK = 1


# The heads.


class Gaussian(NamedTuple):
    """Normal(mean, deviation^2) of the standardised return."""

    outputs: int = 2

    def loss(self, out: Any, outcome: Any, after: Any, noise: Any) -> Any:
        z = outcome.reward + outcome.discount * (after[0] + jnp.exp(after[1]) * noise)
        return out[1] + 0.5 * ((z - out[0]) / jnp.exp(out[1])) ** 2

    def quantiles(self, out: np.ndarray) -> np.ndarray:
        return out[:, :1] + np.exp(out[:, 1:]) * norm.ppf(midpoints(QUANTILES))


class Categorical(NamedTuple):
    """51 atoms from `low` to `high` (Bellemare, Dabney & Munos 2017)."""

    low: float
    high: float
    outputs: int = 51

    def atoms(self) -> Any:
        return jnp.linspace(self.low, self.high, self.outputs)

    def loss(self, out: Any, outcome: Any, after: Any, noise: Any) -> Any:
        z = jnp.clip(outcome.reward + outcome.discount * self.atoms(), self.low, self.high)
        place = (z - self.low) / (self.high - self.low) * (self.outputs - 1)
        share = jnp.maximum(0, 1 - jnp.abs(place[:, None] - jnp.arange(self.outputs)[None]))
        return -(jax.nn.softmax(after) @ share) @ jax.nn.log_softmax(out)

    def quantiles(self, out: np.ndarray) -> np.ndarray:
        cumulative = np.cumsum(np.asarray(jax.nn.softmax(jnp.asarray(out))), axis=1)
        index = (midpoints(QUANTILES)[None, :, None] > cumulative[:, None]).sum(axis=-1)
        return np.asarray(self.atoms())[np.minimum(index, self.outputs - 1)]


def train_head(config: RunConfig, gaussian: Gaussian | None, inputs: Any) -> np.ndarray:
    """Train a head on the config's data, a categorical one for None. Returns its quantiles at (observations, actions)."""
    episodes = load_episodes(config)
    columns, scale = prepare(config, episodes)
    head = Categorical(*columns_range(columns)) if gaussian is None else gaussian
    columns = jax.tree.map(jnp.asarray, columns)
    spec, agent = episodes.spec, config.agent
    assert isinstance(agent, Evor)
    key = jax.random.key(config.seed)
    network = Mlp(
        spec.observation_dim + spec.action_dim,
        agent.learning.hidden,
        head.outputs,
        layer_norm=True,
        precision=agent.learning.precision,
        key=key,
    )

    def step(index: Any, carry: Any) -> Any:
        learner, target = carry
        sample_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
        batch, outcomes = sample(columns, sample_key, batch_size=agent.learning.batch_size, chunk_length=1)
        outcome = jax.tree.map(lambda leaf: leaf[0], outcomes)
        noise = jax.random.normal(noise_key, (agent.learning.batch_size,))
        after = jax.vmap(target)(jnp.concatenate([batch.next_observation, batch.next_action], axis=1))

        def loss(network: Any) -> Any:
            out = jax.vmap(network)(jnp.concatenate([batch.observation, batch.action], axis=1))
            losses = jax.vmap(head.loss)(out, outcome, after, noise)
            return (outcome.weight * losses).sum() / outcome.weight.sum()

        learner, _ = learner.step(loss, learning=agent.learning, progress=Progress(index, config.updates))
        return learner, track(target, learner.network, agent.target_rate)

    _, target = jax.jit(lambda carry: jax.lax.fori_loop(0, config.updates, step, carry))((Learner(network), network))
    observations, actions = inputs
    rows = np.concatenate([(observations - scale.observation_mean) / scale.observation_std, actions], axis=1)
    out = np.asarray(jax.jit(jax.vmap(target))(jnp.asarray(rows, jnp.float32)))
    return np.asarray(scale.return_mean[0] + scale.return_std[0] * head.quantiles(out))


def columns_range(columns: Any) -> tuple[float, float]:
    """Bounds of the standardised return: all rewards at their smallest or largest for ever."""
    start, keep = np.asarray(columns.rewards[0]), np.asarray(columns.discounts[0])
    bounded = keep < 1
    ends = start[bounded] / (1 - keep[bounded])  # the fixed point of z = reward + discount z
    return float(ends.min()), float(ends.max())


# One method on one dataset.


def held_out(dataset: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions, returns and episode numbers of `count` validation rows with complete rewards-to-go."""
    episodes = load_dataset(dataset, (TASK,), folder=DATA / f"{dataset}-val.npz")
    returns = Returns.read(episodes, Evor().discount)
    rows = np.flatnonzero(returns.complete & ~episodes.bootstrap_only)
    rows = np.sort(np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False))
    number = np.cumsum(episodes.ends) - episodes.ends
    return episodes.observations[rows], episodes.actions[rows], returns.to_go[0, rows], number[rows]


def folder(dataset: str, method: str) -> Path:
    return RUNS / dataset / method.replace(" ", "-").replace(",", "").replace("=", "")


def run(dataset: str, method: str, steps: int, count: int) -> str:
    """Quantiles of one method at the held-out rows, into a file of its own."""
    console.quiet = True
    out = folder(dataset, method)
    path = out / "quantiles.npz"
    made = {"steps": np.array(steps), "rows": np.array(count)}
    if path.exists() and all(read_arrays(path).get(name) == value for name, value in made.items()):
        return f"{dataset} {method}"
    observations, actions, *_ = held_out(dataset, count)
    agent = Evor(OBJECTIVES.get(method, SampleBackup(20)), DatasetAction())
    config = RunConfig(dataset=dataset, data=str(DATA), tasks=(TASK,), updates=steps, agent=agent)
    if method in OBJECTIVES:
        train(config, out, resume=True)
        policy = load(out)
        quantiles = np.concatenate(
            [
                policy.quantiles(observations[i : i + 250], actions[i : i + 250], num_nodes=QUANTILES)
                for i in range(0, len(observations), 250)
            ]
        )
    else:
        out.mkdir(parents=True, exist_ok=True)
        gaussian = Gaussian() if method == "Gaussian head" else None
        quantiles = train_head(config, gaussian, (observations, actions))
    write_npz(path, made | {"quantiles": np.sort(quantiles, axis=1).astype(np.float32)})
    return f"{dataset} {method}"


def score(dataset: str, method: str, count: int) -> dict[str, Any]:
    quantiles = read_arrays(folder(dataset, method) / "quantiles.npz")["quantiles"].astype(np.float64)
    _, _, returns, number = held_out(dataset, count)
    unit = float(returns.std())
    losses = crps(quantiles, returns) / unit
    per_episode = np.array([losses[number == n].mean() for n in np.unique(number)])
    histogram = pit(quantiles, returns, tolerance=1e-3 * unit)
    return {
        "dataset": dataset,
        "method": method,
        "rows": len(returns),
        "episodes": len(per_episode),
        "return_std": unit,
        "at_floor": float((returns < returns.min() + 0.05 * unit).mean()),
        "crps": per_episode.tolist(),
        "error_of_the_mean": float(np.sqrt(np.mean((quantiles.mean(axis=1) - returns) ** 2)) / unit),
        "spread": float(quantiles.std(axis=1).mean() / unit),
        "pit": histogram.tolist(),
        "pit_distance": float(np.abs(histogram - 0.1).sum() / 2),
    }


def over_episodes(values: np.ndarray) -> str:
    """Mean and its standard error, for values [E] of episodes."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def page(report: dict[str, Any]) -> str:
    """The scores as markdown, one table per dataset."""
    scores = report["scores"]
    parts = [
        "# Calibration on held-out trajectories",
        "",
        "How well do learned return distributions predict returns that training did not see?",
        "",
        f"`make calibration`: {report['steps']:,} updates each, task {TASK}, generated data, one seed; "
        f"{report['hardware']['cpu']}, commit {report['commit']}.",
        "",
        "The methods are objectives of [EVOR](../agents/evor.md). With `dataset z1`, FlowTd takes the end of its path from the "
        "dataset ([the mathematics](../math.md#the-fixed-point-of-each-objective)). Two heads are there for comparison. They are "
        "networks of the same size, and bootstrap as SampleBackup n = 20 does. The Gaussian head fits a mean and a deviation to "
        "sampled backups by likelihood. The categorical head is C51's projection on 51 atoms.",
        "",
        "* **CRPS** (the continuous ranked probability score) compares a whole distribution with one return. Lower is better. The "
        "unit is the standard deviation of the held-out returns.",
        "* **Error of the mean** is the root mean square of the learned mean minus the return that was seen. It contains the noise "
        "of that return. The unit is the same.",
        "* **Mean spread** is the learned standard deviation, averaged over rows. The unit is the same.",
        "* **PIT histogram** (probability integral transform, 10 bins) shows where in the learned distribution the returns fell. "
        "It is flat for a calibrated distribution. The PIT distance is the share that would have to move to make it flat.",
        "",
        "In many rows the goal was never reached, and the return is almost the lowest one. There the PIT histogram only shows on "
        "which side of that return a method puts its mass. 51 atoms can't follow it, but a flow or a Gaussian can. CRPS is the "
        "fairer measure there.",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in scores):
        rows = [row for row in scores if row["dataset"] == dataset]
        losses = {row["method"]: np.array(row["crps"]) for row in rows}
        best = min(losses, key=lambda method: losses[method].mean())
        parts += [
            "",
            f"## {dataset}, {DATASETS[dataset]:,} transitions",
            "",
            f"{rows[0]['rows']} rows of {rows[0]['episodes']} episodes with complete rewards-to-go. "
            f"{rows[0]['at_floor']:.0%} of them lie within 0.05 standard deviations of the lowest. CRPS is the mean over episodes "
            f"± its standard error. The next column is the same for the difference to {best}, episode by episode. {best} has the "
            "lowest CRPS.",
            "",
            f"| method | CRPS | difference to {best} | error of the mean | mean spread | PIT distance | PIT histogram, percent |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        parts += [
            f"| {row['method']} | {over_episodes(losses[row['method']])} "
            f"| {'' if row['method'] == best else over_episodes(losses[row['method']] - losses[best])} "
            f"| {row['error_of_the_mean']:.3f} | {row['spread']:.2f} | {row['pit_distance']:.2f} "
            f"| {' '.join(f'{100 * share:.0f}' for share in row['pit'])} |"
            for row in rows
        ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    arguments = parser.parse_args()
    if not arguments.page_only:
        measure(arguments)
    report = json.loads((RESULTS / "calibration.json").read_text())
    write_text(RESULTS / "calibration.md", page(report))


def measure(arguments: argparse.Namespace) -> None:
    """Train every method and write calibration.json."""
    for dataset in arguments.datasets:
        generate_once(dataset, DATASETS[dataset], seed=0, folder=DATA)
    methods = [*OBJECTIVES, "Gaussian head", "categorical head"]
    jobs = [
        (dataset, method, arguments.updates, arguments.rows) for dataset in arguments.datasets for method in methods
    ]
    with progress_bar("calibration", len(jobs), unit="methods") as advance:
        for name in parallel_map(run, jobs, Local(default_workers(), pin_cores=True)):
            advance(1, name)
    scores = [score(dataset, method, arguments.rows) for dataset, method, *_ in jobs]
    write_json(RESULTS / "calibration.json", {"steps": arguments.updates, **provenance(), "scores": scores})


if __name__ == "__main__":
    main()
