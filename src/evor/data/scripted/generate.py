"""Scripted data in OGBench's own format, made by the behaviour of OGBench's generation scripts.

Every episode has a seed of its own, so a file depends on the seed alone and not on the number of processes. A job plays some
episodes into a piece on disk, and files are put together from pieces: rows never travel between processes.
"""

import contextlib
import functools
import json
import math
import shutil
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.scripted.manipulation import play_manipulation
from evor.data.scripted.mazes import EXPERT, glide, load_expert, play_maze, walk_ant
from evor.data.scripted.pieces import File, Piece, join_pieces, join_shard
from evor.envs import randomness
from evor.envs.ogbench import check_installed, environment_name, make
from evor.errors import EvorError, at_least, nearest
from evor.runtime.files import write_json, write_npz
from evor.runtime.locks import hold
from evor.runtime.parallel import Local, Ray, default_workers, parallel_map
from evor.runtime.progress import progress_bar
from evor.runtime.provenance import commit, processor, provenance, versions

Rows = dict[str, np.ndarray]

PIECE = 1000, 100_000  # transitions of a piece, at least and at most: an interruption may cost a process as many
PIECES = 1000  # of a dataset, where they are neither the smallest nor the largest
SHARDED = 10_000_000  # transitions from which on a dataset is a folder of shards
HERE = Local(1)  # this process alone
SHARD = 1_000_000  # transitions of a shard, as in OGBench's own large datasets
DTYPES = {"terminals": bool, "button_states": np.int64}  # else float32


class Plan(NamedTuple):
    """Everything that a dataset's files depend on: equal plans are equal files."""

    dataset: str
    seed: int
    num_train: int  # episodes of NAME.npz
    num_episodes: int  # with those of NAME-val.npz
    episode_transitions: int
    expert: Path | None

    @property
    def transitions(self) -> int:
        """Transitions of the training data."""
        return self.num_train * self.episode_transitions

    @property
    def num_shards(self) -> int:
        """Shards of the training data, and as many of the validation data; 0 where each is one file."""
        return -(-self.transitions // SHARD) if self.transitions >= SHARDED else 0

    @property
    def piece_episodes(self) -> int:
        """Episodes of a piece."""
        least, most = PIECE
        return max(1, min(max(self.transitions // PIECES, least), most) // self.episode_transitions)


class GeneratorRecipe(NamedTuple):
    """Recipe of one dataset: transitions per episode, and the function that plays one episode."""

    episode_transitions: int
    play: Any  # (environment, kind, generator, walk) -> Rows


def generate(
    dataset: str,
    transitions: int,
    *,
    seed: int,
    folder: Path,
    expert: Path | None = None,
    machines: Local | Ray = HERE,
    deadline: float = math.inf,
) -> Path:
    """Write NAME.npz (at least `transitions` transitions), NAME-val.npz (a tenth of the episodes, at least one) and
    NAME.json (how they were made).

    From SHARDED transitions on they are a folder NAME: shards NAME-000.npz, ..., each with its NAME-000-val.npz, and
    NAME.json. All appear under their final names only when complete; interrupted, the same call goes on. An ant needs
    `expert`, the npz of a locomotion policy (`load_expert`). Returns the path of NAME.npz, or of the folder. Raises
    EvorError, and TimeoutError where `deadline` (of time.monotonic()) came first.
    """
    recipe = _generator_recipe(dataset)
    check_installed()
    if is_ant(dataset) != (expert is not None):
        raise EvorError(
            f"{dataset} needs a locomotion policy, --expert FILE.npz with the arrays {', '.join(EXPERT)}."
            if expert is None
            else f"{dataset} has no use for an expert; leave --expert out."
        )
    if expert is not None:
        load_expert(expert)
    at_least(1, transitions=transitions)
    at_least(0, seed=seed)
    if folder.exists() and not folder.is_dir():
        raise EvorError(f"{folder} is a file; choose a folder for --out.")
    num_train = -(-transitions // recipe.episode_transitions)
    plan = Plan(
        dataset=dataset,
        seed=seed,
        num_train=num_train,
        num_episodes=num_train + max(1, num_train // 10),
        episode_transitions=recipe.episode_transitions,
        expert=None if expert is None else expert.absolute(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path, origin = folder / (dataset if plan.num_shards else f"{dataset}.npz"), _origin(plan)
    key = sha256(json.dumps([origin, versions(), commit()], sort_keys=True).encode()).hexdigest()[:8]
    partial = folder.absolute() / f".{dataset}-{key}.partial"  # what is there of the very same file
    with hold(folder / f".{dataset}.lock", "evor data generate"):
        there = dataset_path(dataset, folder)
        if there is None:
            _write(plan, origin, folder=folder, partial=partial, machines=machines, deadline=deadline)
        elif not partial.exists():  # else this very call was killed after its last file was there
            raise EvorError(f"{there} exists already; remove it or choose another --out.")
        for leftover in folder.glob(
            f".{dataset}*.partial"
        ):  # of other seeds, too: they can't be finished here any more
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path


def _origin(plan: Plan) -> dict[str, Any]:
    """Content of NAME.json: how the files were made."""
    origin = {"dataset": plan.dataset, "transitions": plan.transitions, "seed": plan.seed}
    if plan.expert is None:
        return origin
    return origin | {"expert": sha256(plan.expert.read_bytes()).hexdigest()}


def _write(
    plan: Plan, origin: dict[str, Any], *, folder: Path, partial: Path, machines: Local | Ray, deadline: float
) -> None:
    """Play what is missing in `partial`, and put the dataset's files together."""
    partial.mkdir(exist_ok=True)
    content = {"made by": "evor data generate", **origin, **provenance(processor)}
    if not plan.num_shards:
        files = _files(plan, folder, pieces=partial)
        _play(plan, files, machines=machines, shared=partial, deadline=deadline)
        train, validation = files
        join_pieces(validation)
        write_json(folder / f"{plan.dataset}.json", content)
        join_pieces(train)  # the last one: where it is there, all are
        return
    shards = partial / plan.dataset
    shards.mkdir(exist_ok=True)
    files = [file for file in _files(plan, shards, pieces=partial) if not file.path.exists()]
    _play(plan, files, machines=machines, shared=partial, deadline=deadline)
    with progress_bar(f"join {plan.dataset}", len(files), unit="files") as advance:
        for _ in parallel_map(join_shard, [(file,) for file in files], machines, shared=partial):
            advance(1)
    write_json(shards / f"{plan.dataset}.json", content)
    shards.rename(folder / plan.dataset)


def _play(plan: Plan, files: list[File], *, machines: Local | Ray, shared: Path, deadline: float) -> None:
    """Play the pieces that are missing."""
    missing = [piece for file in files for piece in file.pieces if not piece.path.exists()]
    left = sum(len(piece.episodes) for piece in missing)
    _check_time(plan, deadline if left else math.inf)
    with (
        progress_bar(
            f"generate {plan.dataset}", plan.num_episodes, done=plan.num_episodes - left, unit="episodes"
        ) as advance,
        contextlib.closing(
            parallel_map(play_piece, [(plan, piece) for piece in missing], machines, shared=shared)
        ) as played,
    ):
        for episodes in played:
            advance(episodes)
            left -= episodes
            _check_time(plan, deadline if left else math.inf)


def _check_time(plan: Plan, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"{plan.dataset} is not complete; the same call goes on")


def _files(plan: Plan, folder: Path, *, pieces: Path) -> list[File]:
    """Files of the dataset, those of the training data first, and their pieces in the folder `pieces`."""
    number, files = max(plan.num_shards, 1), []
    digits = max(3, len(str(number - 1)))
    for first, end, suffix in ((0, plan.num_train, ""), (plan.num_train, plan.num_episodes, "-val")):
        for index in range(number):
            low, high = (first + (end - first) * edge // number for edge in (index, index + 1))
            shard = f"-{index:0{digits}d}" if plan.num_shards else ""
            parts = tuple(
                Piece(pieces / f"{start:06d}.npz", range(start, min(start + plan.piece_episodes, high)))
                for start in range(low, high, plan.piece_episodes)
            )
            files += [File(folder / f"{plan.dataset}{shard}{suffix}.npz", parts)] if parts else []
    return files


def dataset_path(dataset: str, folder: Path) -> Path | None:
    """The file or the folder of shards that holds a dataset in `folder`; None where there is neither."""
    return next((path for path in (folder / f"{dataset}.npz", folder / dataset) if path.exists()), None)


def generate_once(
    dataset: str,
    transitions: int,
    *,
    seed: int,
    folder: Path,
    expert: Path | None = None,
    machines: Local | Ray | None = None,
    deadline: float = math.inf,
) -> Path:
    """Generate, with every core where no machines are given, unless `folder` holds the dataset already."""
    if there := dataset_path(dataset, folder):
        return there
    machines = Local(default_workers()) if machines is None else machines
    return generate(dataset, transitions, seed=seed, folder=folder, expert=expert, machines=machines, deadline=deadline)


def generatable() -> list[str]:
    """Names of the datasets this file can make."""
    mazes = [f"pointmaze-{size}-{kind}-v0" for size in ("medium", "large") for kind in ("navigate", "stitch")]
    mazes += [f"antmaze-{size}-{kind}-v0" for size in ("medium", "large") for kind in ("navigate", "stitch")]
    return [*mazes, "cube-single-play-v0", "cube-double-play-v0", "scene-play-v0", "puzzle-3x3-play-v0"]


def _generator_recipe(dataset: str) -> GeneratorRecipe:
    if dataset not in generatable():
        raise EvorError(f"{dataset!r} can't be generated; {nearest(dataset, generatable())}")
    if "maze" in dataset:
        return GeneratorRecipe(200 if "stitch" in dataset else 1000, play_maze)
    return GeneratorRecipe(1000, play_manipulation)


def _concatenate(episodes: list[Rows]) -> Rows:
    return {name: np.concatenate([rows[name] for rows in episodes]) for name in episodes[0]}


def is_ant(dataset: str) -> bool:
    """Whether a dataset's robot is the ant."""
    return dataset.startswith("antmaze")


def play_piece(plan: Plan, piece: Piece) -> int:
    """Play the episodes of a piece into its file. Returns their number."""
    played = [play_one(plan.dataset, plan.seed, episode, plan.expert) for episode in piece.episodes]
    write_npz(piece.path, _concatenate(played))
    return len(played)


def play_one(dataset: str, seed: int, episode: int, expert: Path | None) -> Rows:
    recipe = _generator_recipe(dataset)
    environment = _environment(dataset, recipe.episode_transitions + 1)  # the last row has no successor
    state = np.random.SeedSequence([seed, episode]).generate_state(3)
    walk = glide if expert is None else functools.partial(walk_ant, load_expert(expert))
    with randomness.own_generator():
        np.random.seed(state[0])  # OGBench's environments and oracles draw from numpy's global generator
        environment.action_space.seed(int(state[1]))
        rows = recipe.play(environment, dataset.split("-")[-2], np.random.default_rng(state[2]), walk)
    return {name: np.asarray(values).astype(DTYPES.get(name, np.float32)) for name, values in rows.items()}


@functools.cache
def _environment(dataset: str, max_episode_steps: int) -> Any:
    """One environment per process and dataset."""
    options = {} if "maze" in dataset else {"mode": "data_collection"}
    return make(environment_name(dataset), terminate_at_goal=False, max_episode_steps=max_episode_steps, **options)
