"""Records of a server, what it saw and chose, as npz files that `evor data check` and `evor data import` read.

A row is one decision. Its action is what is executed of it: the actions of a chunk lie side by side. An episode ends where a
connection ends, where its client says `evor/reset`, and where it grows too long. Rewards are not known to a server, so there
are none, and no row is a termination: every episode ends in a truncation.
"""

import math
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from evor.errors import EvorError
from evor.runtime.files import check_ours, read_json, write_json, write_npz
from evor.runtime.locks import hold
from evor.serving.decider import Decided
from evor.serving.log import Log
from evor.types import ActionBounds

MARK, LOCK = "record.json", ".lock"
ROWS = 2000  # of a shard, about; and of an episode, at most
SECONDS = 60.0  # after which an episode that has ended is on disk

Episode = list[dict[str, Any]]  # rows under way


class Recorder:
    """A folder that episodes are written into, a file at a time, each whole or not there.

    A process that is killed loses the episodes under way, and those that ended in the last minute. Where the disk is full, rows
    are dropped and the server goes on. Raises EvorError where the folder holds something else, or records of other sizes.
    """

    def __init__(self, folder: Path, log: Log, *, bounds: ActionBounds, keys: Any, executed: int):
        self._folder, self._log, self._bounds, self._executed = folder, log, bounds, executed
        check_ours(folder, folder / MARK, kind="recording of evor serve")
        folder.mkdir(parents=True, exist_ok=True)
        self._held = hold(folder / LOCK, "evor serve --record")
        about = {
            "observations": [list(key) for key in keys],
            "action_low": list(bounds.low),
            "action_high": list(bounds.high),
            "executed": executed,
        }
        if (folder / MARK).exists():
            stored = read_json(folder / MARK)
            if other := [name for name in about if stored.get(name) != about[name]]:
                raise EvorError(
                    f"{folder} holds records of another policy (its {other[0]} differ); choose another folder."
                )
        write_json(folder / MARK, about)
        self._started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._shards = 0
        self._lock = threading.Lock()  # of the finished episodes
        self._writing = threading.Lock()  # one file at a time
        self._finished: list[Episode] = []
        self._oldest = math.inf  # when the first of them was finished

    def add(self, episode: Episode, decided: Decided, *, number: int) -> None:
        """Add a decision to an episode under way, and end the episode where it has grown too long."""
        episode.append(
            {
                "observations": decided.row,
                "actions": decided.actions[: self._executed].ravel().astype(np.float32),
                "values": np.float32(math.nan if decided.value is None else decided.value),
                "num_candidates": np.int32(number),
                "times": time.time(),
            }
        )
        if len(episode) >= ROWS:
            self.end(episode)

    def end(self, episode: Episode) -> None:
        """Take over an episode that has ended, and leave its list empty for the next one."""
        if episode:
            with self._lock:
                self._finished.append(list(episode))
                self._oldest = min(self._oldest, time.monotonic())
            episode.clear()

    def due(self) -> bool:
        """Whether there is enough to write, or something that has waited for long."""
        with self._lock:
            rows = sum(map(len, self._finished))
            return rows >= ROWS or time.monotonic() - self._oldest >= SECONDS

    def flush(self) -> None:
        """Write the episodes that are over into a file."""
        with self._writing:
            with self._lock:
                episodes, self._finished, self._oldest = self._finished, [], math.inf
            if not episodes:
                return
            path = self._path()
            rows = sum(map(len, episodes))
            try:
                write_npz(path, self._arrays(episodes))
            except EvorError as error:
                self._log.write("record failed", error=str(error), rows_lost=rows)
                return
            self._shards += 1
            self._log.write("recorded", file=path.name, episodes=len(episodes), rows=rows)

    def _path(self) -> Path:
        """The next file: a server that starts again within a second goes on with the numbers of the one before."""
        while (path := self._folder / f"served-{self._started}-{self._shards:05d}.npz").exists():
            self._shards += 1
        return path

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._held.release()

    def _arrays(self, episodes: list[Episode]) -> dict[str, np.ndarray]:
        lengths = [len(episode) for episode in episodes]
        ends = np.zeros(sum(lengths), bool)
        ends[np.cumsum(lengths) - 1] = True
        low, high = (np.tile(side, self._executed) for side in self._bounds.sides)
        arrays = {name: np.array([row[name] for episode in episodes for row in episode]) for name in episodes[0][0]}
        return arrays | {
            "terminations": np.zeros(len(ends), bool),
            "truncations": ends,
            "action_low": low,
            "action_high": high,
        }
