"""A user's own data: one npz file, a folder of them, or arrays in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.formats.archive import check_finite, read_npz, take_arrays, unfinite
from evor.data.load import load
from evor.data.summary import NO_REWARDS, Precision, Reading, Remark
from evor.errors import EvorError
from evor.runtime.files import listed
from evor.types import ActionBounds, Episodes

# Rewards are required, too, but where nothing learns from them.
REQUIRED = ("observations", "actions", "rewards", "terminations", "truncations")
BOUNDS = ("action_low", "action_high")  # [A] each
OPTIONAL = ("next_observations", *BOUNDS)
UNCHECKED = ("rewards", "next_observations")  # of which some rows are never read
_ROWS = "one row of numbers per step is needed"


def check_actions(path: Path | str, actions: np.ndarray, *, declared: ActionBounds | None = None) -> None:
    """Raise EvorError unless actions are [N, A] with A > 0 and lie inside the declared bounds, else in [-1, 1]."""
    if actions.ndim != 2 or actions.shape[1] == 0:
        raise EvorError(
            f"{path}: actions have shape {list(actions.shape)}; {_ROWS}, [N, A] (discrete actions are not supported)."
        )
    width = actions.shape[1]
    if declared and len(declared.low) != width:
        raise EvorError(
            f"{path}: actions have {width} columns, action_low and action_high {len(declared.low)}; give one bound per column."
        )
    bounds = declared or ActionBounds.unit(width)
    if first := bounds.outside(actions):
        place = f"{path}: actions[{first[0]}, {first[1]}] is {actions[first]:g}, outside {bounds.of_entry(first[1])}"
        if declared:
            raise EvorError(f"{place}; correct action_low and action_high, or clip the actions.")
        raise EvorError(
            f"{place}; give their bounds in the arrays action_low and action_high, [{width}] each, or import the data with "
            f"`evor data import`{'' if actions.dtype.kind == 'f' else ' (discrete actions are not supported)'}."
        )


def check_rows(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    """Raise EvorError unless every array has the rows of `observations` [N, O]."""
    observations = arrays["observations"]
    if observations.ndim != 2 or observations.shape[1] == 0:
        raise EvorError(
            f"{path}: observations have shape {list(observations.shape)}; {_ROWS}, [N, O] (images are not supported)."
        )
    if len(observations) == 0:
        raise EvorError(f"{path}: the data is empty (0 rows); record at least one episode.")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(observations):
            raise EvorError(
                f"{path}: {name} has shape {list(array.shape)} but observations have {len(observations)} rows; "
                "every array needs one row per step."
            )


def check_flags(path: Path | str, arrays: dict[str, np.ndarray], *names: str) -> None:
    """Raise EvorError unless these arrays are [N] and hold only 0 and 1."""
    for name in names:
        if arrays[name].ndim != 1:
            raise EvorError(_not_flat(path, name, array=arrays[name]))
        odd = np.flatnonzero(~np.isin(arrays[name], (0, 1)))
        if len(odd):
            raise EvorError(f"{path}: {name}[{odd[0]}] is {arrays[name][odd[0]]}; only 0 and 1 are allowed.")


def _not_flat(path: Path | str, name: str, *, array: np.ndarray) -> str:
    """A sentence on an array that holds more than one number per row, or none."""
    remedy = f": give {name}[:, 0]" if array.ndim == 2 and array.shape[1] == 1 else ""
    return f"{path}: {name} has shape {list(array.shape)}; one number per step is needed, [N]{remedy}."


def find_files(path: Path) -> list[Path]:
    """The npz files meant by `path`: itself, or a folder's, without validation files (`*-val.npz`)."""
    if not path.is_dir():
        return [path]
    files = [file for file in listed(path, "*.npz") if not file.stem.endswith("-val")]
    if not files:
        raise EvorError(f"{path} holds no training npz file (*-val.npz is validation); put the data there.")
    return files


def find_validation(path: Path) -> list[Path]:
    """The validation files of data at `path`: NAME-val.npz beside NAME.npz, or those of a folder."""
    beside = listed(path, "*-val.npz") if path.is_dir() else [path.with_name(f"{path.stem}-val.npz")]
    return sorted(file for file in beside if file.is_file())


def load_files(path: Path) -> Episodes:
    """Read a user's npz file or folder as one task, numbered 1. Raises EvorError on anything it can't trust."""
    return load(find_files(path), read_episodes).episodes


def read_episodes(path: Path, *, needs_rewards: bool = True) -> Reading:
    """Read and check one file. Where rewards are not needed, zeros stand for those that are not there. Raises EvorError."""
    required, optional = _names(needs_rewards)
    return _reading(path, read_npz(path, required, optional=optional, unchecked=UNCHECKED))


def read_arrays(arrays: Mapping[str, Any], name: str, *, needs_rewards: bool = True) -> Reading:
    """Check arrays in memory as those of a file of the same names. Raises EvorError, which calls them `name`."""
    required, optional = _names(needs_rewards)
    taken = take_arrays(name, arrays, required=required, optional=optional, unchecked=UNCHECKED)
    # A copy: what a caller changes later changes nothing here.
    return _reading(name, taken | {"observations": taken["observations"].copy()})


def _names(needs_rewards: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the arrays that a file must have, and of those that it may have."""
    if needs_rewards:
        return REQUIRED, OPTIONAL
    return tuple(name for name in REQUIRED if name != "rewards"), ("rewards", *OPTIONAL)


def _reading(path: Path | str, arrays: dict[str, np.ndarray]) -> Reading:
    """Episodes of the arrays, which errors call `path`."""
    has_rewards = "rewards" in arrays
    arrays = {"rewards": np.zeros(len(np.atleast_1d(arrays["observations"])), np.float32)} | arrays
    declared = declared_bounds(path, arrays)
    _check_shapes(path, arrays, declared=declared)
    bounds = declared or ActionBounds.unit(arrays["actions"].shape[1])
    remarks = [
        Remark(f"{name} converted from {array.dtype} to float32")
        for name, array in arrays.items()
        if name in ("observations", "actions", "rewards", "next_observations") and array.dtype != np.float32
    ]
    if not has_rewards:
        remarks.append(Remark(NO_REWARDS))
    precision = Precision.read(arrays["observations"])
    if not arrays["terminations"].any() and not arrays["truncations"].any():
        remarks.append(
            Remark(
                "terminations and truncations are 0 in every row, so that all rows count as one episode; mark the last row of "
                "each episode in truncations"
            )
        )
    if both := int((arrays["terminations"].astype(bool) & arrays["truncations"].astype(bool)).sum()):
        remarks.append(Remark("rows that are both terminated and truncated: {} (they count as terminated)", both))
    terminated = arrays["terminations"].astype(bool)
    cut = arrays["truncations"].astype(bool) & ~terminated
    cut[-1] |= not terminated[-1]  # the last row counts as truncated
    has_next = "next_observations" in arrays
    # What is never read may be anything: the reward of a row that only bootstraps. (And what follows a finish.)
    check_finite(path, "rewards", array=arrays["rewards"], rows=None if has_next else ~cut)
    rewards = np.where(unfinite(arrays["rewards"]), 0, arrays["rewards"]).astype(np.float32)
    episodes = Episodes(
        observations=arrays["observations"].astype(np.float32, copy=False),
        actions=np.clip(arrays["actions"].astype(np.float32, copy=False), *bounds.sides),
        rewards=rewards[None],
        masks=1.0 - terminated.astype(np.float32)[None],
        ends=terminated | cut,
        bootstrap_only=cut,
        action_known=np.ones(len(cut), bool),
        tasks=(1,),
        declared_bounds=None if bounds.is_unit else bounds,
    )
    if has_next:
        check_finite(path, "next_observations", array=arrays["next_observations"], rows=~terminated)
        following = np.where(terminated[:, None], 0, arrays["next_observations"]).astype(np.float32)
        episodes, breaks = _with_successors(episodes, terminated, cut=cut, following=following)
        if breaks:
            remarks.append(
                Remark("rows that are not followed by their next_observations: {} (treated as cuts)", breaks)
            )
    return Reading(episodes=episodes, precision=precision, remarks=tuple(remarks))


def declared_bounds(path: Path | str, arrays: dict[str, np.ndarray]) -> ActionBounds | None:
    """Take the bounds of actions out of the arrays, None where there are none. Raises EvorError where they are no bounds."""
    there = [name for name in BOUNDS if name in arrays]
    if not there:
        return None
    if len(there) == 1:
        (other,) = set(BOUNDS) - set(there)
        raise EvorError(f"{path} has {there[0]} and no {other}; give both, or neither for actions in [-1, 1].")
    low, high = (arrays.pop(name) for name in BOUNDS)
    if low.ndim != 1 or low.shape != high.shape:
        raise EvorError(
            f"{path}: action_low has shape {list(low.shape)}, action_high {list(high.shape)}; give one bound per column "
            "of the actions in each, [A]."
        )
    bounds = ActionBounds.read(low, high)
    if (wrong := np.flatnonzero(low > high)).size:
        raise EvorError(
            f"{path}: action_low[{wrong[0]}] is {low[wrong[0]]:g}, above action_high[{wrong[0]}], {high[wrong[0]]:g}; "
            "exchange them."
        )
    return bounds


def _check_shapes(path: Path | str, arrays: dict[str, np.ndarray], *, declared: ActionBounds | None) -> None:
    """Raise EvorError unless the arrays have the right shapes, actions lie inside their bounds, and flags are 0 or 1."""
    check_rows(path, arrays)
    check_actions(path, arrays["actions"], declared=declared)
    if arrays["rewards"].ndim != 1:
        raise EvorError(_not_flat(path, "rewards", array=arrays["rewards"]))
    check_flags(path, arrays, "terminations", "truncations")
    observations, following = arrays["observations"], arrays.get("next_observations", arrays["observations"])
    if following.shape != observations.shape:
        raise EvorError(
            f"{path}: next_observations have shape {list(following.shape)}, "
            f"observations {list(observations.shape)}; they must agree."
        )


def _with_successors(
    episodes: Episodes, terminated: np.ndarray, *, cut: np.ndarray, following: np.ndarray
) -> tuple[Episodes, int]:
    """Episodes whose every row is a transition to its next observation, and how many rows break off without a flag.

    Where the successor is not the next row (a cut, or rows that don't follow each other) it becomes a row of its own:
    a state to bootstrap from whose action was not recorded.
    """
    follows = np.append((following[:-1] == episodes.observations[1:]).all(axis=1), False)
    breaks = int((~follows & ~cut & ~terminated).sum())
    cut = cut | (~follows & ~terminated)
    after = np.flatnonzero(cut) + 1
    unknown = episodes.action_bounds.unscale(np.zeros(episodes.spec.action_dim, np.float32))

    def insert(array: np.ndarray, value: np.ndarray | float | bool) -> np.ndarray:
        return np.insert(array, after, value, axis=0)

    return Episodes(
        observations=insert(episodes.observations, following[cut]),
        actions=insert(episodes.actions, unknown),
        rewards=insert(episodes.rewards[0], 0.0)[None],
        masks=insert(episodes.masks[0], 1.0)[None],
        ends=insert(terminated, True),
        bootstrap_only=insert(np.zeros(len(cut), bool), True),
        action_known=insert(np.ones(len(cut), bool), False),
        tasks=(1,),
        declared_bounds=episodes.declared_bounds,
    ), breaks
