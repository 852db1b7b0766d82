"""Play the checkpoints of a run: one CSV row per episode, and the arrays that the report draws."""

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.envs import randomness  # noqa: F401 - first, for it imports JAX
from evor.envs.own import OwnEnvironments
from evor.envs.vector import fitting, trim
from evor.errors import EvorError, integer
from evor.policies.base_policy import open_base
from evor.policies.load import Run, open_run
from evor.policies.policy import Policy
from evor.policies.searched import SearchedPolicy
from evor.report.evaluations import (
    COLUMNS,
    KEPT,
    ORIGIN,
    EvaluationCell,
    Row,
    SettingFiles,
    cell_of,
    changing,
    drawings,
    stem_of,
)
from evor.rollouts.environment import dataset_played, environment_of, origin_of
from evor.rollouts.maze import draw_maze, is_maze
from evor.rollouts.play import Episode, play
from evor.rollouts.returns import returns_of
from evor.runtime.locks import staying
from evor.runtime.progress import console, progress_bar
from evor.search.extraction import Extraction, in_steps_of
from evor.search.labels import describe, search_settings
from evor.training.config import RunConfig

DRAWN_EPISODES = 20  # trajectories kept for the report, of the first seed


class Plan(NamedTuple):
    """Plan of an evaluation, whatever the search."""

    folder: Path  # of the evaluations
    environment: str | OwnEnvironments  # of an OGBench dataset, or a user's own
    config: RunConfig
    policies: dict[EvaluationCell, Policy]  # in the order of playing
    episodes: int
    parallel: float | None
    max_episode_steps: float
    resume: bool
    base: str  # name of a base policy of the user's own, "" for the run's
    origin: Row  # provenance, the same in every row

    @property
    def limit(self) -> int | str:
        """The column max_episode_steps of every row; "" for the environment's own limit."""
        return "" if math.isinf(self.max_episode_steps) else int(self.max_episode_steps)

    @property
    def first_seed(self) -> int:
        """The one whose trajectories the report draws."""
        return min(cell.seed for cell in self.policies)

    @property
    def has_maze(self) -> bool:
        """Whether the report draws a maze."""
        return isinstance(self.environment, str) and is_maze(self.environment)


def evaluate(folder: Path, extraction: Extraction | None = None, **options: Any) -> list[Row]:
    """Play tasks and seeds of a run with one search, the agent's own where none is given. Returns a row per episode.

    The options, what is written and what is raised are those of `sweep`.
    """
    return sweep(folder, [extraction], **options)[0]


def sweep(
    folder: Path,
    extractions: Sequence[Extraction | None],
    *,
    episodes: int = 50,
    evaluation_seed: int = 0,
    tasks: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    step: int | Sequence[int] | None = None,
    parallel: int | None = None,
    max_episode_steps: int | None = None,
    env: str | None = None,
    base: Any = None,
    resume: bool = False,
) -> list[list[Row]]:
    """Play tasks and seeds of a run with each search; write evaluations/*.csv, *.npz and, for mazes, maze.npz.

    `tasks` and `seeds` are all of the run's where they are left out, `step` (the updates of one or several checkpoints)
    is the newest, and `parallel` (episodes played at once) is as many as fit into half of the free memory.
    A run on data of your own plays the environments that `env`, "module:function", makes (16 at once where `parallel` is
    left out); their rows name it as the dataset. Success is NaN where they tell of none, see `evor.evaluate`. An episode
    is cut after `max_episode_steps`, which is a failure; an environment without a time limit needs it. `base` is a policy
    of your own that proposes, see `evor.load`.

    A row is written as its episode ends. Rows of other tasks, seeds, evaluation seeds and checkpoints stay. With `resume`,
    tasks and seeds whose episodes are all there are not played again. Several processes may play one run at a time.
    Repeatable: episode e of a task is reset and acted with seeds derived from (evaluation_seed, task, e) alone.

    Returns, for each search, the rows as they are in the file, numbers parsed.
    Raises EvorError before anything is played: where the run has no environment, no such checkpoint, task or seed, no value
    to search with, or where a file can't be read or written. A disk that fills up later costs the episodes that end then.
    """
    _check_counts(episodes=episodes, parallel=parallel, max_episode_steps=max_episode_steps)
    integer(0, evaluation_seed=evaluation_seed)
    runs = _runs(folder, step)
    config = runs[0].config
    dataset = dataset_played(runs[0], env)
    opened = None if base is None else open_base(base)
    cell = functools.partial(EvaluationCell, dataset=dataset, evaluation_seed=evaluation_seed)
    policies = {
        cell(task=task, seed=seed, updates=run.step): run.policy(task, seed, base=opened)
        for task in tasks or config.tasks  # its environments serve all of its cells
        for run in runs
        for seed in seeds or config.all_seeds
    }
    searches = [_checked(extraction or runs[0].default_search, policies) for extraction in extractions]
    with staying(folder, "evor evaluate"), environment_of(runs[0], env, num_envs=parallel) as environment:
        plan = Plan(
            folder=folder / "evaluations",
            environment=environment,
            config=config,
            policies=policies,
            episodes=episodes,
            parallel=parallel or (fitting(dataset) if env is None else None),
            max_episode_steps=max_episode_steps or math.inf,
            resume=resume,
            base=opened.name if opened else "",
            origin=origin_of(runs[0]),
        )
        return _play_all(plan, searches)


def _check_counts(**counts: int | None) -> None:
    """Raise EvorError where a number that is given is below 1."""
    integer(1, **{name: count for name, count in counts.items() if count is not None})


def _runs(folder: Path, step: int | Sequence[int] | None) -> list[Run]:
    """The run after each number of updates, the newest checkpoint where none is given."""
    steps = list(step) if isinstance(step, Sequence) else [step]
    return [open_run(folder, number) for number in steps or [None]]


def _play_all(plan: Plan, searches: list[Extraction]) -> list[list[Row]]:
    """Play every search, after all their files have been read and written."""
    if plan.has_maze:
        drawings(plan.folder).read()
    files = [SettingFiles(plan.folder, file_name(search, plan.base), base=plan.base) for search in searches]
    there = [file.open() for file in files]
    try:
        return [
            _play(plan, search, files=file, there=rows)
            for search, file, rows in zip(searches, files, there, strict=True)
        ]
    finally:
        trim()


def _checked(extraction: Extraction, policies: dict[EvaluationCell, Policy]) -> Extraction:
    """The search with all its numbers, if every policy can act by it. Raises EvorError otherwise."""
    for policy in policies.values():
        policy._search(extraction)
        extraction = in_steps_of(extraction, policy.default_search)
        if isinstance(policy, SearchedPolicy):
            policy.require_base()
    return extraction


def _play(plan: Plan, extraction: Extraction, *, files: SettingFiles, there: list[Row]) -> list[Row]:
    """Play every cell with one search. Where this stops on the way, the rows of the episodes that ended are in the file."""
    rows_of = {cell: _kept(plan, files, cell=cell, there=there) for cell in plan.policies}
    replaced = sum(cell in rows_of and not rows_of[cell] for cell in map(cell_of, there))
    if replaced and not plan.resume:
        console.print(f"note: {replaced} earlier episodes in {files.csv} are replaced; --resume keeps them.")
    total, done = len(rows_of) * plan.episodes, sum(map(len, rows_of.values()))
    try:
        with progress_bar(f"evaluate {describe(extraction)}", total, done=done, unit="episodes") as advance:
            for cell, rows in rows_of.items():
                rows_of[cell] = rows or _play_cell(plan, cell, extraction=extraction, files=files, advance=advance)
        if plan.has_maze:
            _draw(plan, extraction, files=files)
    except BaseException as error:
        with contextlib.suppress(EvorError):  # the rows are there, only unsorted
            files.settle()
        if isinstance(error, KeyboardInterrupt):
            console.print(
                f"{done + files.added} of {total} episodes are kept in {files.csv}; with --resume, tasks and seeds whose "
                "episodes are all there are not played again.",
            )
        raise
    return [row for rows in rows_of.values() for row in rows]


def _kept(plan: Plan, files: SettingFiles, *, cell: EvaluationCell, there: list[Row]) -> list[Row]:
    """The rows of a cell that needn't be played again; none where one of its episodes is missing."""
    if not plan.resume:
        return []
    here = [row for row in there if cell_of(row) == cell and row["episode"] < plan.episodes]
    rows = [row for row in here if row["max_episode_steps"] == plan.limit]
    mixed = len({tuple(row[name] for name in ORIGIN) for row in rows}) > 1  # some were to be played anew
    lacking = cell.seed == plan.first_seed and files.lacks_trajectories(cell, min(plan.episodes, DRAWN_EPISODES))
    return [] if len(rows) < plan.episodes or mixed or lacking else rows


def _play_cell(
    plan: Plan, cell: EvaluationCell, *, extraction: Extraction, files: SettingFiles, advance: Callable[[int], None]
) -> list[Row]:
    rows: dict[int, Row] = {}
    policy, origin = plan.policies[cell], plan.origin | {"max_episode_steps": plan.limit}

    def ended(index: int, episode: Episode) -> None:
        told = returns_of(policy, episode, config=plan.config, extraction=extraction)
        rows[index] = _row(cell, index, episode=episode, extraction=extraction, told=told | origin, base=plan.base)
        files.append(rows[index])
        advance(1)

    played = play(
        policy,
        plan.environment,
        task=cell.task,
        extraction=extraction,
        episodes=plan.episodes,
        evaluation_seed=cell.evaluation_seed,
        ended=ended,
        parallel=plan.parallel,
        max_episode_steps=plan.max_episode_steps,
    )
    ordered = [rows[index] for index in range(plan.episodes)]
    files.settle(cell, ordered)
    if cell.seed == plan.first_seed:
        with _costs_no_rows("Trajectories"):
            files.keep_trajectories(cell, [episode.observations for episode in played[:DRAWN_EPISODES]])
    return ordered


def _draw(plan: Plan, extraction: Extraction, *, files: SettingFiles) -> None:
    """Draw each task for the report: the newest checkpoint, with the most candidates that searched."""
    newest, store = max(cell.updates for cell in plan.policies), drawings(plan.folder)
    for cell, policy in plan.policies.items():
        mark = (cell.updates, extraction.num_candidates, cell.seed)
        drawable = policy.has_value and policy.config.chunk_length == 1 and not plan.base
        if not drawable or cell.seed != plan.first_seed or cell.updates != newest:
            continue
        with _costs_no_rows("Drawings"):
            if store.wants(cell.task, mark) and (along := files.trajectories(cell)):
                arrays = draw_maze(policy, cell.dataset, task=cell.task, trajectory=along[0])
                with changing(plan.folder, KEPT):
                    store.keep({cell.task: arrays | {"drawing": np.array(mark)}})


@contextlib.contextmanager
def _costs_no_rows(what: str) -> Generator[None]:
    """Say what could not be written and go on."""
    try:
        yield
    except EvorError as error:
        console.print(f"{what} for the report are missing: {error}", style="yellow")


# Rows and names.


def _row(cell: EvaluationCell, index: int, *, episode: Episode, extraction: Extraction, told: Row, base: str) -> Row:
    row = {
        **cell._asdict(),
        "episode": index,
        **search_settings(extraction, base),
        "success": episode.success if math.isnan(episode.success) else int(episode.success),
        "return": round(episode.total_reward, 6),
        "length": episode.length,
        **told,
    }
    return {name: row[name] for name in COLUMNS}


def file_name(extraction: Extraction, base: str = "") -> str:
    """The stem of the files of a search: one per setting."""
    return stem_of(search_settings(extraction, base))
