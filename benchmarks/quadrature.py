"""Error of few nodes that read Q* = tau log E exp(Z / tau): four quadrature rules beside random samples, on exact distributions.

`make quadrature` writes docs/results/quadrature.{json,md,png}. No network takes part: the distributions are those of
`evor.experiments.verify.problems`, whose quantile functions are exact. Errors are in standard deviations of the distribution. A
decision is 16 candidates, each a distribution of the problem, moved and stretched at random; a reading agrees where it picks the
exact best. How readings act on learned distributions is in docs/results/acting-study.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from evor.distributions.exact import Atoms, ReturnDistribution
from evor.distributions.measures import midpoints
from evor.experiments.verify.problems import PROBLEMS
from evor.report.figures import ACCENT, BASE, MUTED, WALL, look, save_figure, subplots
from evor.runtime.files import write_json, write_text
from evor.runtime.progress import progress_bar
from evor.runtime.provenance import provenance
from evor.search.readings import Quadrature

RESULTS = Path("docs/results")
NODES = (1, 2, 4, 8, 10, 12, 16, 32)
SAMPLES = (1, 10, 50, 200)
TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)  # in standard deviations
REPEATS, DECISIONS, CANDIDATES = 1000, 500, 16
RARE = (0.25, 0.07, 0.03)  # chances of a success that nothing aligns with tenths


def graded(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """The package's own nodes, as quantiles: midpoints that crowd towards the top at temperatures below 1."""
    nodes = Quadrature(count).nodes(jax.random.key(0), temperature)
    return norm.cdf(np.asarray(nodes.noises, np.float64)), np.asarray(nodes.weights, np.float64)


def midpoint(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    del temperature
    return midpoints(count), np.full(count, 1 / count)


def hermite(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    del temperature
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return np.clip(norm.cdf(points), 1e-12, 1 - 1e-12), weights / weights.sum()  # the outermost round to 0 and 1


def legendre(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    del temperature
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


RULES = {"graded": graded, "midpoint": midpoint, "Gauss-Legendre": legendre, "Gauss-Hermite": hermite}


def exact_distributions() -> dict[str, list[ReturnDistribution]]:
    """Distributions by problem, then failure (-1) or, rarely, success (0), which is no problem of `evor verify`."""
    distributions = {name: [probe.distribution for probe in problem.probes(None)] for name, problem in PROBLEMS.items()}
    distributions |= {
        f"success {chance:.0%}": [Atoms(np.array([-1.0, 0.0]), np.array([1 - chance, chance]))] for chance in RARE
    }
    return {
        name: [distribution for distribution in found if distribution.std > 1e-6]
        for name, found in distributions.items()
    }


def q_star(returns: np.ndarray, weights: np.ndarray | float, temperature: np.ndarray | float) -> np.ndarray:
    return temperature * logsumexp(returns / temperature, b=weights, axis=-1)


def errors(distributions: list[ReturnDistribution], generator: np.random.Generator) -> dict[str, dict[str, float]]:
    """Mean |error of Q*| over distributions (and, for random samples, over repetitions), by reading and temperature."""
    found: dict[str, dict[str, float]] = {}
    for temperature in TEMPERATURES:
        exact = np.array([distribution.log_mean_exp(temperature * distribution.std) for distribution in distributions])
        unit = np.array([distribution.std for distribution in distributions])
        for rule, nodes in RULES.items():
            for count in NODES:
                u, weights = nodes(count, temperature)
                read = [
                    q_star(distribution.quantile(u), weights, temperature * distribution.std)
                    for distribution in distributions
                ]
                found.setdefault(f"{rule} {count}", {})[f"{temperature:g}"] = float(np.mean(abs(read - exact) / unit))
        for count in SAMPLES:
            u = generator.uniform(size=(REPEATS, count))
            read = [
                q_star(distribution.quantile(u.ravel()).reshape(u.shape), 1 / count, temperature * distribution.std)
                for distribution in distributions
            ]
            error = abs(np.array(read) - exact[:, None]) / unit[:, None]
            found.setdefault(f"random {count}", {})[f"{temperature:g}"] = float(error.mean())
    return found


def agreement(distributions: list[ReturnDistribution], generator: np.random.Generator) -> dict[str, dict[str, float]]:
    """Share of decisions in which a reading's best candidate is the exact best one."""
    found: dict[str, dict[str, float]] = {}
    shape = (DECISIONS, CANDIDATES)
    which = generator.integers(len(distributions), size=shape)
    unit = np.array([distribution.std for distribution in distributions])[which]
    scale = np.exp(generator.normal(0, 0.2, shape))
    shift = generator.normal(0, 0.2, shape) * unit
    for temperature in TEMPERATURES:
        tau = temperature * unit.mean()
        exact = np.empty(shape)
        for row in np.ndindex(shape):
            exact[row] = shift[row] + scale[row] * distributions[which[row]].log_mean_exp(tau / scale[row])
        best = exact.argmax(axis=1)

        def share(u: np.ndarray, weights: np.ndarray | float, best: np.ndarray = best, tau: float = tau) -> float:
            """Share for quantiles u [D, Z], the same for all candidates of a decision."""
            quantiles = np.array(
                [distribution.quantile(u.ravel()).reshape(u.shape) for distribution in distributions]
            )  # [L, D, Z]
            returns = quantiles[which, np.arange(DECISIONS)[:, None]] * scale[..., None] + shift[..., None]
            return float(np.mean(q_star(returns, weights, tau).argmax(axis=1) == best))

        for rule, nodes in RULES.items():
            for count in NODES:
                u, weights = nodes(count, temperature)
                found.setdefault(f"{rule} {count}", {})[f"{temperature:g}"] = share(np.tile(u, (DECISIONS, 1)), weights)
        for count in SAMPLES:
            u = generator.uniform(size=(DECISIONS, count))
            found.setdefault(f"random {count}", {})[f"{temperature:g}"] = share(u, 1 / count)
    return found


def ratios_to_random(problems: dict[str, Any]) -> list[dict[str, Any]]:
    """Errors of the default and of the fixed rules over that of 50 random samples, at temperatures of 0.3 sd and more."""
    readings = tuple(f"{rule} {Quadrature().num_nodes}" for rule in RULES)
    picked = [f"{temperature:g}" for temperature in TEMPERATURES if temperature >= 0.3]
    return [
        {
            "problem": name,
            "reading": reading,
            **{t: found["error"][reading][t] / found["error"]["random 50"][t] for t in picked},
        }
        for name, found in problems.items()
        for reading in readings
    ]


def table(problems: dict[str, Any], kind: str, digits: int) -> list[str]:
    """Mean over problems, by reading and temperature."""
    lines = ["| reading | " + " | ".join(f"tau_R = {t:g} sd" for t in TEMPERATURES) + " |", "| --- |" + " --- |" * 5]
    for reading in next(iter(problems.values()))[kind]:
        means = [np.mean([found[kind][reading][f"{t:g}"] for found in problems.values()]) for t in TEMPERATURES]
        lines.append(f"| {reading} | " + " | ".join(f"{mean:.{digits}f}" for mean in means) + " |")
    return lines


def page(report: dict[str, Any]) -> str:
    """The page, from what quadrature.json holds."""
    problems, ratios = report["problems"], ratios_to_random(report["problems"])
    picked = [key for key in ratios[0] if key not in ("problem", "reading")]
    kinds: dict[str, dict[str, Any]] = {"Smooth": {}, "Atomic": {}}
    for name, distributions in exact_distributions().items():
        kinds["Atomic" if isinstance(distributions[0], Atoms) else "Smooth"][name] = problems[name]
    worse = [
        f"{row['problem']} at {key} sd ({row[key]:.2f})"
        for row in ratios
        for key in picked
        if row["reading"] == f"graded {Quadrature().num_nodes}" and row[key] >= 1
    ]
    return "\n".join(
        [
            "# Reading Q* from a return distribution with few evaluations",
            "",
            "To score a candidate, a search reads Q\\* = tau_R log E exp(Z / tau_R) from its return distribution Z. It does so from a "
            "few values of the quantile function (the nodes), or from random samples. How many evaluations does this need?",
            "",
            f"`make quadrature`; commit {report['commit']}, numpy {report['versions']['numpy']}. The distributions are those of "
            "[`evor verify`](verify.md), and exact: no network takes part. Errors are in standard deviations of the distribution, and "
            "means over a problem's distributions.",
            "",
            '"Graded" is the rule of `Quadrature`, the default. At temperatures below 1 sd its quantiles crowd towards the top of the '
            "distribution. From there on, they are midpoints of equal intervals.",
            "",
            "![error of Q* against the number of evaluations](quadrature.png)",
            "",
            f"## Error over that of 50 random samples (the default is graded {Quadrature().num_nodes})",
            "",
            "| problem | reading | " + " | ".join(f"tau_R = {key} sd" for key in picked) + " |",
            "| --- | --- |" + " --- |" * len(picked),
            *(
                f"| {row['problem']} | {row['reading']} | " + " | ".join(f"{row[key]:.2f}" for key in picked) + " |"
                for row in ratios
            ),
            "",
            f"The default errs as much as 50 random samples, or more: {', '.join(worse) or 'nowhere'}. In many problems, atoms have "
            "masses of tenths or halves, which ten equal intervals meet exactly. The last distributions, failure or a rare "
            "success, show what is lost elsewhere: a chance of a few percent lies between two nodes. What few nodes cost on "
            "learned distributions is measured in [how should a trained policy act](acting-study.md).",
            "",
            "## Mean error of Q*",
            *(
                line
                for kind, names in kinds.items()
                for line in ("", f"{kind} distributions:", "", *table(names, "error", 3))
            ),
            "",
            f"## Share of decisions between {CANDIDATES} candidates in which the exact best is chosen",
            "",
            "Each candidate has a distribution of the problem, moved and stretched at random.",
            "",
            *table(problems, "agreement", 2),
            "",
        ]
    )


@look()
def draw(problems: dict[str, Any], path: Path) -> None:
    """Error against evaluations, one panel per temperature."""
    figure, axes = subplots(1, len(TEMPERATURES), figsize=(14, 3), sharey=True)
    styles = {"graded": (ACCENT, NODES), "midpoint": (BASE, NODES), "Gauss-Legendre": (MUTED, NODES)}
    styles["Gauss-Hermite"] = (WALL, NODES)
    styles["random"] = ("0.6", SAMPLES)
    for axis, temperature in zip(axes, TEMPERATURES, strict=True):
        for name, (colour, counts) in styles.items():
            means = [
                np.mean([found["error"][f"{name} {count}"][f"{temperature:g}"] for found in problems.values()])
                for count in counts
            ]
            axis.loglog(counts, means, marker="o", markersize=3, color=colour, label=name)
        axis.set(title=f"τ_R = {temperature:g} sd", xlabel="evaluations")
    axes[0].set_ylabel("mean |error of Q*| / sd")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored numbers")
    if parser.parse_args().page_only:
        write_text(RESULTS / "quadrature.md", page(json.loads((RESULTS / "quadrature.json").read_text())))
    else:
        measure()


def measure() -> None:
    """Read every distribution by every rule."""
    problems, known = {}, exact_distributions()
    with progress_bar("quadrature", len(known), unit="problems") as advance:
        for index, (name, distributions) in enumerate(known.items()):
            generator = np.random.default_rng(index)
            problems[name] = {
                "error": errors(distributions, generator),
                "agreement": agreement(distributions, generator),
            }
            advance(1, name)
    draw(problems, RESULTS / "quadrature.png")
    report = {**provenance(), "problems": problems}
    write_json(RESULTS / "quadrature.json", report)
    write_text(RESULTS / "quadrature.md", page(report))


if __name__ == "__main__":
    main()
