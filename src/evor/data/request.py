"""Requests of `evor data import`, and what must be settled before a row is written: sizes, labels, bounds of actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evor.data.formats.recording import Recording, Wanted
from evor.data.labels import LabelRule, SuccessFile, label
from evor.errors import EvorError, above, integer
from evor.runtime.progress import progress_bar
from evor.types import ActionBounds


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that is asked of an import."""

    sources: tuple[str, ...]
    out: Path
    observation_keys: tuple[str, ...] = ()
    action_key: str | None = None
    reward: str | None = None
    success: str | None = None
    mask: str | None = None
    episodes: str | None = None
    max_episode_steps: int | None = None
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    clip_actions: bool = False
    max_gb: float = 100.0

    def __post_init__(self):
        above(0, max_gb=self.max_gb)
        if self.max_episode_steps is not None:
            integer(1, max_episode_steps=self.max_episode_steps)
        _places(self.episodes)
        if bool(self.action_low) != bool(self.action_high):
            raise EvorError("one of action_low and action_high (--action-low, --action-high) is missing; give both.")
        if not self.sources:
            raise EvorError("no source is given; name a file, a folder, or the id of a Minari dataset.")

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            observation_keys=self.observation_keys,
            action_key=self.action_key,
            mask=self.mask,
            episodes=_places(self.episodes),
            max_episode_steps=self.max_episode_steps,
            max_gb=self.max_gb,
        )


def _places(text: str | None) -> tuple[int, int | None]:
    """The places that "0:40", "40:" or ":40" names. Raises EvorError."""
    first, colon, stop = (text if text is not None else ":").partition(":")
    if not (colon and all(part.isdecimal() or not part for part in (first, stop))) or (
        stop and int(first or 0) >= int(stop)
    ):
        raise EvorError(
            f"episodes (--episodes) is {text!r}; give FROM:TO, such as 0:40, or 40: for those from the 41st on."
        )
    return int(first or 0), int(stop) if stop else None


class Units(NamedTuple):
    """Bounds of the actions, and where they come from."""

    bounds: ActionBounds
    origin: str


def check_alike(recordings: Sequence[Recording]) -> None:
    """Raise EvorError where two sources can't be one dataset, or have a file in common."""
    seen: dict[Path, Path] = {}  # files of the sources before, as they were named
    for recording in recordings:
        files = {file.resolve(): file for file in recording.files}
        if shared := seen.keys() & files.keys():
            raise EvorError(
                f"two sources have the file {seen[min(shared)]}; its episodes would count twice. Name each source once."
            )
        seen |= files
    first = recordings[0]
    for other in recordings[1:]:
        mine, theirs = ((one.observation_dim, one.action_dim) for one in (first, other))
        if mine != theirs:
            raise EvorError(
                f"{other.path} has sizes {theirs} (of an observation, of an action), {first.path} {mine}; sources of one import "
                "need the same. Choose columns with observation_keys (--observation-keys)."
            )
    several = [one for one in recordings if len(one.keys) > 1]  # one column alone may hold the others side by side
    for other in several[1:]:
        if [width for _, width in other.keys] != [width for _, width in several[0].keys]:
            theirs, mine = (", ".join(f"{key} [{width}]" for key, width in one.keys) for one in (other, several[0]))
            raise EvorError(
                f"{other.path} has the observations {theirs}, {several[0].path} {mine}; different columns would lie in the same "
                "places. Choose columns that all sources have with observation_keys (--observation-keys)."
            )


def check_rules(recordings: Sequence[Recording], rules: Sequence[LabelRule]) -> None:
    """Read the first episode of every source with its labels. Raises EvorError where these don't fit."""
    for recording, rule in zip(recordings, rules, strict=True):
        episode = next((one for one in recording.episodes(0, rule.columns) if len(one.actions)), None)
        if episode is not None:
            label(rule, episode)
        if isinstance(rule.success, SuccessFile):
            if len(recordings) > 1:
                raise EvorError("success file:CSV (--success) goes with one source; import the sources one by one.")
            named = {name for name, _ in rule.success.succeeded}
            if strangers := sorted(named - {*recording.names, *recording.others}):
                raise EvorError(
                    f"{rule.success.path} names episode {strangers[0]}, which {recording.path} does not have; its episodes are called "
                    f"{', '.join(recording.names[:3])}, ..."
                )


def find_units(request: Request, recordings: Sequence[Recording]) -> Units:
    """Bounds of the actions: the user's, else those that the sources declare, else those of all data."""
    width = recordings[0].action_dim
    if request.action_low:
        sides = [side * width if len(side) == 1 else side for side in (request.action_low, request.action_high)]
        if any(len(side) != width for side in sides):
            raise EvorError(
                f"actions have {width} entries; give as many numbers in action_low and action_high (--action-low, --action-high), or one "
                "for all."
            )
        low, high = np.array(sides, float)
        if not (np.isfinite(sides).all() and (low <= high).all()):
            raise EvorError(
                "a number of action_low (--action-low) is above that of action_high (--action-high), or not finite; give the lower bound first."
            )
        return Units(ActionBounds.read(low, high), "given")
    declared = {one.bounds for one in recordings}
    if None not in declared:
        if len(declared) > 1:
            raise EvorError(
                f"the sources declare different bounds of actions ({' and '.join(sorted(map(str, declared)))}); give those of both in "
                "action_low and action_high (--action-low, --action-high)."
            )
        (bounds,) = declared
        assert bounds is not None
        return Units(bounds, "declared by the format")
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    with progress_bar("bounds", sum(sum(one.lengths) + one.other_rows for one in recordings), unit="rows") as advance:
        for recording in recordings:
            for actions in recording.actions():
                if len(actions):
                    low, high = np.fmin(low, actions.min(axis=0)), np.fmax(high, actions.max(axis=0))
                advance(len(actions))
    return Units(ActionBounds.read(low, high), "of all data")
