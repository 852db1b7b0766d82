"""A user's own data: one npz file, or a folder of them. Nothing is ever unpickled."""

import difflib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from evor.errors import EvorError
from evor.types import Episodes, Spec

REQUIRED = ("observations", "actions", "rewards", "terminations", "truncations")
ACTION_TOLERANCE = 1e-6  # rounding a float64 action to float32 may leave [-1, 1] by this much


def read_npz(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The named arrays of one npz file, checked: real numbers, finite, not empty. Raises EvorError."""
    if not path.is_file():
        raise EvorError(f"{path} does not exist; give an npz file or a folder of them.")
    if not zipfile.is_zipfile(path):
        raise EvorError(f"{path} is not an npz file or is truncated; write it again with numpy.savez.")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in required if name not in file]
            if missing:
                raise EvorError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(file.files) or 'nothing'}.")
            for name in file.files:
                (close,) = difflib.get_close_matches(name, (*required, *optional), n=1, cutoff=0.85) or (name,)
                if close not in file:
                    raise EvorError(f"{path} holds {name}, which nothing reads; did you mean {close}?")
            for name in (*required, *optional):
                if name in file:
                    arrays[name] = file[name]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise EvorError(f"{path} can't be read ({error}); write it again with numpy.savez.") from error
        raise EvorError(f"{path} holds pickled objects, which evor never opens; save plain numeric arrays.") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise EvorError(f"{path} is truncated or damaged ({error}); copy or write it again.") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise EvorError(f"{path}: {name} has dtype {array.dtype}, not real numbers; convert it to float32.")
        # Beyond float32's range counts as infinite: that is what training would see.
        bad = np.argwhere(~(np.abs(array) <= np.finfo(np.float32).max)) if array.dtype.kind == "f" else ()
        if len(bad):
            place = ", ".join(map(str, bad[0]))
            raise EvorError(
                f"{path}: {name}[{place}] is {array[tuple(bad[0])]}, the first of {len(bad)} values that are not "
                "finite in float32; remove or repair these rows."
            )
    return arrays


def check_actions(path: Path, actions: np.ndarray) -> None:
    """Raise EvorError unless actions are [N, A] with A > 0 and lie in [-1, 1]."""
    if actions.ndim != 2 or actions.shape[1] == 0:
        raise EvorError(f"{path}: actions have shape {list(actions.shape)}; [N, A] with A of at least 1 is needed.")
    outside = np.argwhere(np.abs(actions) > 1 + ACTION_TOLERANCE)
    if len(outside):
        row, column = outside[0]
        raise EvorError(
            f"{path}: actions[{row}, {column}] is {actions[row, column]:g}, outside [-1, 1]; rescale the actions."
        )


def check_rows(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise EvorError unless every array has the rows of `observations` [N, O]."""
    observations = arrays["observations"]
    if observations.ndim != 2 or observations.shape[1] == 0:
        raise EvorError(f"{path}: observations have shape {list(observations.shape)}; [N, O] is needed.")
    if len(observations) == 0:
        raise EvorError(f"{path}: the data is empty (0 rows); record at least one episode.")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(observations):
            raise EvorError(
                f"{path}: {name} has shape {list(array.shape)} but observations have {len(observations)} rows; "
                "every array needs one row per step."
            )


def find_files(path: Path) -> list[Path]:
    """The npz files meant by `path`: itself, or a folder's, without validation files (`*-val.npz`)."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.npz") if not file.stem.endswith("-val"))
    if not files:
        raise EvorError(f"{path} holds no training npz file (*-val.npz is validation); put the data there.")
    return files


def load_files(path: Path) -> Episodes:
    """Read a user's npz file or folder as one task, numbered 1. Raises EvorError on anything it can't trust."""
    files = find_files(path)
    episodes = join([read_episodes(file) for file in files], files)
    return episodes._replace(notes=episodes.notes + describe_oddities(episodes))


def check_sizes(path: Path, spec: Spec, first: Path, wanted: Spec) -> None:
    """Raise EvorError unless a file has the sizes of the first one."""
    if spec != wanted:
        raise EvorError(
            f"{path} has sizes {tuple(spec)} (of an observation, of an action), {first} {tuple(wanted)}; "
            "the files of one folder need the same."
        )


def join(parts: list[Episodes], files: list[Path]) -> Episodes:
    """Parts of the same tasks, read from `files`, end to end. Raises EvorError where their sizes differ."""
    if len(parts) == 1:
        return parts[0]
    for part, file in zip(parts, files, strict=True):
        check_sizes(file, part.spec, files[0], parts[0].spec)
    across = {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in ("rewards", "masks")}
    along = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("observations", "actions", "ends", "bootstrap_only", "action_known")
    }
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Episodes(**across, **along, tasks=parts[0].tasks, notes=notes)


def describe_oddities(episodes: Episodes) -> tuple[str, ...]:
    """What is legal but worth saying about data."""
    notes = []
    constant = np.flatnonzero(np.ptp(episodes.observations, axis=0) == 0)
    if len(constant):
        notes.append(f"observation columns {constant.tolist()} are constant")
    for task, masks in zip(episodes.tasks, episodes.masks, strict=True):
        if masks.all():
            notes.append(f"task {task} is never finished in the data: its value will be flat where rewards are equal")
    return tuple(notes)


def read_episodes(path: Path) -> Episodes:
    """One file, checked. Raises EvorError."""
    arrays = read_npz(path, REQUIRED, ("next_observations",))
    check_rows(path, arrays)
    check_actions(path, arrays["actions"])
    for name in ("rewards", "terminations", "truncations"):
        if arrays[name].ndim != 1:
            raise EvorError(f"{path}: {name} has shape {list(arrays[name].shape)}; [N] is needed.")
    for name in ("terminations", "truncations"):
        odd = np.flatnonzero(~np.isin(arrays[name], (0, 1)))
        if len(odd):
            raise EvorError(f"{path}: {name}[{odd[0]}] is {arrays[name][odd[0]]}; only 0 and 1 are allowed.")
    notes = tuple(
        f"{name} converted from {array.dtype} to float32"
        for name, array in arrays.items()
        if name in ("observations", "actions", "rewards", "next_observations") and array.dtype != np.float32
    )
    observations = arrays["observations"].astype(np.float32)
    actions = np.clip(arrays["actions"].astype(np.float32), -1, 1)
    rewards = arrays["rewards"].astype(np.float32)
    terminated = arrays["terminations"].astype(bool)
    cut = arrays["truncations"].astype(bool) & ~terminated
    cut[-1] |= not terminated[-1]  # the last row counts as truncated
    if "next_observations" not in arrays:
        return Episodes(
            observations,
            actions,
            rewards[None],
            1.0 - terminated.astype(np.float32)[None],
            ends=terminated | cut,
            bootstrap_only=cut,
            action_known=np.ones(len(cut), bool),
            tasks=(1,),
            notes=notes,
        )
    # With next_observations, every row is a transition. Where the successor is not the next row (a cut, or rows that
    # don't follow each other) it becomes a row of its own: a state to bootstrap from whose action nobody recorded.
    next_observations = arrays["next_observations"].astype(np.float32)
    if next_observations.shape != observations.shape:
        raise EvorError(
            f"{path}: next_observations have shape {list(next_observations.shape)}, "
            f"observations {list(observations.shape)}; they must agree."
        )
    follows = np.append((next_observations[:-1] == observations[1:]).all(axis=1), False)
    breaks = int((~follows & ~cut & ~terminated).sum())
    if breaks:
        notes += (f"{breaks} rows are not followed by their next_observations: treated as cuts",)
    cut |= ~follows & ~terminated
    after = np.flatnonzero(cut) + 1

    def insert(array: np.ndarray, value: np.ndarray | float | bool) -> np.ndarray:
        return np.insert(array, after, value, axis=0)

    return Episodes(
        insert(observations, next_observations[cut]),
        insert(actions, 0.0),
        insert(rewards, 0.0)[None],
        insert(1.0 - terminated.astype(np.float32), 1.0)[None],
        ends=insert(terminated, True),
        bootstrap_only=insert(np.zeros(len(cut), bool), True),
        action_known=insert(np.ones(len(cut), bool), False),
        tasks=(1,),
        notes=notes,
    )
