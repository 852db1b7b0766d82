"""The page of a reproduction: the paper's tables and figures, with intervals, from its files. Imports no JAX."""

from pathlib import Path

from evor.errors import EvorError
from evor.experiments.reproduce.ablations import option_figures
from evor.experiments.reproduce.comparison import comparison
from evor.experiments.reproduce.costs import costs
from evor.experiments.reproduce.scores import SCORED, Results, read_reproduction
from evor.experiments.reproduce.tables import dataset_tables
from evor.report.figures import look
from evor.runtime.files import write_text


@look()
def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    results = read_reproduction(out)
    if not results.rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    parts = [
        _head(results),
        *_agents(results),
        *dataset_tables(results),
        *comparison(results, out),
        *option_figures(results, out),
        *costs(results),
    ]
    path = out / "results.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _head(results: Results) -> str:
    """Head of the page: what the numbers mean, and where they come from."""
    manifest, scores = results.manifest, results.scores()

    def every(name: str) -> str:
        return "; ".join(sorted({row[name] for row in results.rows}))

    whole = sum(
        len(by_seed) for by_agent in scores.values() for by_task in by_agent.values() for by_seed in by_task.values()
    )
    wanted = sum(len(cell["tasks"]) * len(cell["seeds"]) for cell in manifest["cells"])
    remark = f"{manifest['remark']}\n\n" if manifest["remark"] else ""
    return (
        f"# Reproduction of the paper's experiment\n\n{remark}"
        "`evor` is this library's default recipe; the paper's own is `evor-paper`, the one to hold against its published "
        "numbers. What its objective learns instead of the return distribution is in docs/math.md of evor's repository, and what "
        "that costs in a maze in docs/results/law-or-mean.md. "
        f"{whole} of {wanted} scores (dataset x agent x task x seed) are there.\n\n"
        f"A score is the success in percent over the last {SCORED} evaluations of a run; tables give its mean ± standard deviation "
        "over seeds (of n - 1; in rows of means, of the seeds' means). Every evaluation starts from the same states, whatever the "
        "checkpoint, seed or agent; their range is the highest less the lowest of a run, averaged over runs. Episodes of one network start alike and often "
        "succeed or fail together, so that a score tells less than their number says. **Bold** is within 95 % of the best of ours, whatever their numbers of seeds. "
        '"unfinished": scores are missing, and the same command goes on. Published columns are the paper\'s, under the '
        "conditions above each table, and compare to nothing else here.\n\n"
        f"Ours: {every('protocol')}. Success from the state before the step (reward rule {every('reward_rule')!r}). "
        f"evor {every('evor')}, jax {every('jax')}, ogbench {every('ogbench')}, mujoco {every('mujoco')}, "
        f"python {every('python')}; {every('hardware')}."
    )


def _agents(results: Results) -> list[str]:
    """Table of the agents: what each is, how it acts, and the commits that evaluated it."""
    parts = ["\n## Agents\n", "| agent | what it is | acts by | played at commits |", "| --- | --- | --- | --- |"]
    for agent, about in results.manifest["agents"].items():
        commits = ", ".join(sorted({row["commit"] for row in results.rows if row["agent"] == agent} - {""}))
        kind = f"`--preset {about['preset']}`. {about['about']} {about['options']}"
        parts.append(f"| {agent} | {kind} | {about['search']} | {commits} |")
    return parts
