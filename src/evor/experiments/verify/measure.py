"""A learned return distribution against the exact one: distances, and errors of what is read of it."""

from typing import Any

import numpy as np
from jaxtyping import Float

from evor.agents.registry import PRESETS
from evor.distributions import measures
from evor.distributions.exact import Normal, ReturnDistribution
from evor.experiments.verify.bounds import TEMPERATURES
from evor.experiments.verify.methods import METHODS, probes
from evor.experiments.verify.process import Probe
from evor.policies.policy import Policy

QUANTILES = 256  # of a learned return distribution
NODES = 2048  # that read its Q*: at 0.3 standard deviations of a normal they reach as far as the integrand does
READ_STEPS = 20  # ten leave a distribution seven times narrower than the noise off by 0.1 of its standard deviation
KEPT = 64  # of these quantiles, in verify.json


def measure(policy: Policy, *, problem: str, method: str) -> dict[str, Any]:
    """The measures of a trained policy at every probe. Errors are in units of the exact standard deviation.

    Where that is none (a certain return), the unit is the standard deviation of the whole dataset's returns.
    """
    found = probes(problem, method)
    inputs = np.stack([probe.observation for probe in found]), np.stack([probe.action for probe in found])
    steps = PRESETS["default"].flow_steps if METHODS[method].shipped else READ_STEPS
    quantiles = np.sort(policy.quantiles(*inputs, num_nodes=QUANTILES, flow_steps=steps).astype(np.float64))
    data_std = policy.return_std
    q = np.array(
        [
            [
                policy.value(
                    probe.observation,
                    probe.action,
                    return_temperature=temperature / data_std,
                    num_nodes=NODES,
                    flow_steps=steps,
                )
                for temperature in temperatures(probe.distribution, data_std)
            ]
            for probe in found
        ],
        np.float64,
    )
    return {
        "problem": problem,
        "method": method,
        "return_std": data_std,
        "probes": [
            measure_probe(probe, learned, q=readings, data_std=data_std)
            for probe, learned, readings in zip(found, quantiles, q, strict=True)
        ],
    }


def _unit(distribution: ReturnDistribution, data_std: float) -> float:
    return distribution.std if distribution.std > 1e-6 * data_std else data_std


def temperatures(distribution: ReturnDistribution, data_std: float) -> list[float]:
    """Temperatures at which Q* is compared, in reward units."""
    return [factor * _unit(distribution, data_std) for factor in TEMPERATURES]


def measure_probe(
    probe: Probe,
    quantiles: Float[np.ndarray, " Z"],
    *,
    q: Float[np.ndarray, " temperatures"],
    data_std: float,
) -> dict[str, Any]:
    """Learned quantiles and readings of Q* against the exact ones of a probe."""
    distribution, unit = probe.distribution, _unit(probe.distribution, data_std)
    exact_q = np.array([distribution.log_mean_exp(temperature) for temperature in temperatures(distribution, data_std)])
    fine = measures.midpoints(8 * QUANTILES)
    outcomes = distribution.quantile(fine)
    limit = Normal(distribution.mean, data_std)  # of FlowTd
    kept = quantiles.reshape(KEPT, -1).mean(axis=1)
    return {
        "observation": probe.observation.tolist(),
        "action": probe.action.tolist(),
        "unit": unit,
        "mean": distribution.mean,
        "std": distribution.std,
        "wasserstein": measures.wasserstein(quantiles, distribution) / unit,
        "excess_crps": measures.excess_crps(quantiles, distribution) / unit,
        "mean_error": (quantiles.mean() - distribution.mean) / unit,
        "std_error": (quantiles.std() - distribution.std) / unit,
        "q": exact_q.tolist(),
        "q_error": ((q - exact_q) / unit).tolist(),
        "pit": measures.pit(np.tile(quantiles, (len(fine), 1)), outcomes, tolerance=0.02 * unit).tolist(),
        "wasserstein_to_unit_normal": measures.wasserstein(quantiles, limit) / data_std,
        "quantiles": kept.tolist(),
        "exact": distribution.quantile(measures.midpoints(KEPT)).tolist(),
    }
