"""The page of a reproduction: a paper's tables and figures, with intervals, from its files. Imports no JAX."""

from pathlib import Path

from evor.errors import EvorError
from evor.experiments.reproduce.ablations import option_figures
from evor.experiments.reproduce.comparison import comparison
from evor.experiments.reproduce.costs import costs
from evor.experiments.reproduce.scaling import scaling_figures
from evor.experiments.reproduce.scores import SCORED, Results, read_reproduction
from evor.experiments.reproduce.tables import dataset_tables
from evor.report.figures import look
from evor.runtime.files import write_text

HEADS = {  # of a matrix
    "paper": "# Reproduction of the paper's experiment\n\n",
    "sorl": "# Reproduction of SORL's experiment\n\n",
}
ABOUT = {
    "paper": "`evor` is this library's default recipe. `evor-paper` has the paper's settings: compare it with the published numbers. "
    "Its objective learns only the mean of the return distribution (`docs/math.md` of evor's repository), and "
    "`docs/results/law-or-mean.md` shows what that costs in a maze. ",
    "sorl": "`sorl` and the other agents have their papers' settings for each environment, where these are known. `sorl-1`, `sorl-2` "
    "and `sorl-4` are `sorl` whose gradient passes through fewer steps. `evor` is this library's default recipe. The paper's table has "
    "all five tasks of a dataset. ",
}


@look()
def write_paper_report(out: Path) -> Path:
    """Write results.md and its pictures beside results.csv. Raises EvorError where rows can't be compared."""
    results = read_reproduction(out)
    if not results.rows:
        raise EvorError(f"{out / 'results.csv'} holds no row yet; let `evor reproduce` finish an evaluation.")
    if results.manifest["matrix"] not in HEADS:
        raise EvorError(
            f"{out / 'manifest.json'} is of the matrix {results.manifest['matrix']!r}, which this version does not know; update evor."
        )
    parts = [
        _head(results),
        *_agents(results),
        *dataset_tables(results),
        *comparison(results, out),
        *option_figures(results, out),
        *scaling_figures(results, out),
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

    there = {
        (dataset, agent, task, seed)
        for dataset, by_agent in scores.items()
        for agent, by_task in by_agent.items()
        for task, by_seed in by_task.items()
        for seed in by_seed
    }
    wanted = {
        (cell["dataset"], cell["agent"], task, seed)
        for cell in manifest["cells"]
        for task in cell["tasks"]
        for seed in cell["seeds"]
    }
    more = f", and {len(there - wanted)} of more seeds" if there - wanted else ""
    remark = f"{manifest['remark']}\n\n" if manifest["remark"] else ""
    return (
        f"{HEADS[manifest['matrix']]}{remark}{ABOUT[manifest['matrix']]}"
        f"{len(there & wanted)} of {len(wanted)} scores (dataset x agent x task x seed) are there{more}.\n\n"
        f"* **Score.** The success in percent, as a mean over the last {SCORED} evaluations of a run. Tables give the mean of scores ± "
        "their standard deviation over seeds (n - 1). In rows of means, it is the deviation of the seeds' means.\n"
        "* **Bold.** Within 95 % of the best of ours, whatever the numbers of seeds.\n"
        "* **Evaluations.** All start from the same states, whatever the checkpoint, seed or agent. Episodes of one network start "
        "alike, and often succeed or fail together. So a score says less than its number of episodes suggests.\n"
        "* **Range over the evaluations.** The highest minus the lowest of a run, averaged over runs.\n"
        '* **"unfinished".** Scores are missing. The same command continues.\n'
        "* **Published.** The papers' numbers, under the conditions above each table. They compare to nothing else here.\n\n"
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
