"""Results of a GPU: bounds and tables from what scripts/gpu.sh left in docs/results/gpu-SCALE -> docs/results/gpu.md.

`make gpu-page` measures nothing.
"""

import sys
from pathlib import Path
from typing import Any

from bench import Bound, verdict

from evor.errors import EvorError
from evor.experiments.reproduce.scores import Scores, read_reproduction, square
from evor.report.statistics import Estimate, estimate, interquartile_mean
from evor.runtime.files import read_json, write_text
from evor.search.readings import Quadrature

RESULTS = Path("docs/results")
SCALES = ("full", "full-300k")  # the paper's protocol, the best first
OTHER_PRECISION = "full-300k-tf32"
MAZE, CUBE = "pointmaze-medium-navigate-v0", "cube-double-play-v0"
WANTED = 15  # tasks x seeds
FAST = "paper bfloat16"


def speed_bounds(report: dict[str, Any]) -> list[Bound]:
    """Bounds on the numbers of bench.json. What was not measured is called so."""

    def ratio(above: dict[str, Any] | None, below: dict[str, Any] | None) -> float | None:
        return above["median_ms"] / below["median_ms"] if above and below else None

    networks, unshared = report["networks"].get(FAST, {}), report["unshared"]
    updates = report["updates"].get("paper", {})
    most = networks.get("75")
    decisions = [
        1e3 * row["median"]
        for row in report["decisions"].get("paper", [])
        if (row["batch"], row["candidates"], row["reading"]) == (1, 32, repr(Quadrature()))
    ]
    return [
        Bound("15 networks against one, cost of an update", ratio(networks.get("15"), networks.get("1")), 3.0, False),
        Bound("75 runs x 1M updates, hours", most["median_ms"] / 3.6 if most else None, 1.0, False),
        Bound("decision, 32 candidates, batch 1, ms", min(decisions, default=None), 2.0, False),
        Bound(
            "QC-1 against EVOR without search in targets, 15 networks that share nothing",
            ratio(unshared.get("qc-1 paper"), unshared.get("without-search paper")),
            10.0,
            True,
        ),
        Bound(
            "QC-1 against EVOR without search in targets, one network (reported)",
            ratio(updates.get("qc-1 bfloat16"), updates.get("without-search bfloat16")),
            0.0,
            True,
        ),
    ]


def scores_of(scale: str) -> Scores:
    """Scores of a committed reproduction, empty where there is none."""
    folder = RESULTS / f"gpu-{scale}"
    if not (folder / "results.csv").exists():
        return {}
    return read_reproduction(folder).scores()


def agree(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates lie within each other's intervals."""
    return first.low <= second.value <= first.high and second.low <= first.value <= second.high


def success_bounds(scores: dict[str, Scores]) -> list[str]:
    """Complete cells of evor, and both precisions within each other's intervals."""
    lines = []
    for dataset in (MAZE, CUBE):
        found = {scale: sum(map(len, scores[scale].get(dataset, {}).get("evor", {}).values())) for scale in SCALES}
        told = ", ".join(f"{count} of {WANTED} at scale {scale}" for scale, count in found.items())
        lines.append(f"evor on {dataset}, tasks x seeds: {told}: {verdict(max(found.values()) == WANTED)}")
    both = [scores[scale].get(MAZE, {}).get("evor") for scale in ("full-300k", OTHER_PRECISION)]
    if not all(both):
        return [*lines, "bfloat16 against tensorfloat32 on the maze: not measured"]
    first, second = (estimate(interquartile_mean, square(by_task, by_task)) for by_task in both if by_task)
    return [
        *lines,
        f"bfloat16 against tensorfloat32 on the maze, interquartile means within each other's intervals: {first}, "
        f"{second}: {verdict(agree(first, second))}",
    ]


def networks_table(report: dict[str, Any]) -> list[str]:
    """Updates per second of ever more networks, and their share of what products that fill the GPU reach."""
    full = report["limits"].get("card", {})
    lines = [
        "| nets, precision | networks | ms per update | updates/s of all | GFLOP/s | share of the GPU's products |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, by_count in report["networks"].items():
        precision = name.split()[-1]
        for count, found in by_count.items():
            rate = found["gflop"] / found["median_ms"] * 1e3
            share = f"{rate / full[precision]:.1%}" if precision in full else ""
            each = 1e3 * int(count) / found["median_ms"]
            lines.append(f"| {name} | {count} | {found['median_ms']:.3f} | {each:,.0f} | {rate:,.0f} | {share} |")
    return lines


def profile_tables(report: dict[str, Any]) -> list[str]:
    """Times of the kernels of an update."""
    lines = []
    for name, by_count in report["profile"].items():
        for count, found in by_count.items():
            lines += [
                "",
                f"{name}, {count} networks: {1e3 * found['seconds']:.3f} ms per update under the profiler, kernels run "
                f"{found['busy']:.0%} of it, {found['kernels']:.0f} in an update.",
                "",
                "| kernel | us per update |",
                "| --- | --- |",
                *(f"| `{kernel[:80]}` | {1e6 * seconds:.1f} |" for kernel, seconds in found["longest"].items()),
            ]
    return lines


def page() -> str:
    """The page. Raises EvorError where no GPU has been measured."""
    measured = [path for scale in SCALES if (path := RESULTS / f"gpu-{scale}" / "bench.json").exists()]
    if not measured:
        raise EvorError(f"no bench.json in {RESULTS}/gpu-*; run scripts/gpu.sh on a machine with a GPU first.")
    report = read_json(measured[0], "networks", "updates", "decisions", "unshared", "profile", "limits", "hardware")
    scores = {scale: scores_of(scale) for scale in (*SCALES, OTHER_PRECISION)}
    versions = report["versions"]
    return "\n".join(
        [
            "# On a GPU",
            "",
            f"`scripts/gpu.sh` on {report['hardware']['device']} ({report['hardware']['cpu']}), jax {versions['jax']}, "
            f"python {versions['python']}, commit {report['commit']}; this page by `make gpu-page`.",
            "",
            *(f"* {bound}" for bound in (*speed_bounds(report), *success_bounds(scores))),
            "",
            "Success, cell by cell: " + ", ".join(f"[{s}](gpu-{s}/results.md)" for s in scores if scores[s]) + ".",
            "",
            "## Networks side by side",
            "",
            *networks_table(report),
            "",
            "## Where an update's time goes",
            *profile_tables(report),
        ]
    )


def main() -> None:
    try:
        text = page()
    except EvorError as error:
        sys.exit(str(error))
    write_text(RESULTS / "gpu.md", text + "\n")


if __name__ == "__main__":
    main()
