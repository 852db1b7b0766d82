"""One source of an import becomes shards in a folder of its own: a job, which goes on where it was interrupted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evor.data.formats.detect import open_recording
from evor.data.formats.recording import Episode, Recording
from evor.data.labels import Labelled, LabelRule, NoReward, label, label_rule
from evor.data.request import Request
from evor.data.shards import Chunk, Shard
from evor.runtime.files import read_json, write_json
from evor.types import ActionBounds

PROGRESS = "progress.json"  # in a folder that is not finished
COUNTS = ("episodes", "rows", "finished_episodes", "dropped_rows", "empty_episodes", "clipped_rows")


class Opened(NamedTuple):
    """A source that is open, and how it is labelled."""

    recording: Recording
    rule: LabelRule


def open_source(request: Request, index: int) -> Opened:
    """Open a source of a request. Raises EvorError."""
    recording = open_recording(request.sources[index], request.wanted)
    return Opened(recording, label_rule(recording, reward=request.reward, success=request.success))


class Conversion(NamedTuple):
    """A source of a request, the bounds of its actions, and the folder of its shards."""

    request: Request
    index: int
    bounds: ActionBounds
    folder: Path

    def shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.npz"


def state_in(folder: Path) -> dict[str, Any]:
    """Tell how far the conversion in a folder came."""
    fresh = {"shards": 0, "episode": 0, "row": 0, "read": 0, "lost": [], "is_complete": False} | dict.fromkeys(
        COUNTS, 0
    )
    path = folder / PROGRESS
    return read_json(path, *fresh) if path.is_file() else fresh


def convert(
    conversion: Conversion, opened: Opened | None = None, *, advance: Callable[[int], object] = lambda rows: None
) -> tuple[int, dict[str, Any]]:
    """Write the shards that are missing; `advance` is told of rows that were read. Returns the source, and its last state."""
    conversion.folder.mkdir(exist_ok=True)
    state = state_in(conversion.folder)
    if not state["is_complete"]:
        _Converter(conversion, opened or open_source(conversion.request, conversion.index), state=state).run(advance)
    return conversion.index, state


class _Converter:
    """A conversion on its way. `state` is what is on disk."""

    def __init__(self, conversion: Conversion, opened: Opened, *, state: dict[str, Any]):
        self._conversion, self._opened, self._state = conversion, opened, state

    def run(self, advance: Callable[[int], object]) -> None:
        """Write shards from where the state stands, and note in it what was done."""
        recording, rule = self._opened
        first = next(one for one in recording.episodes(0, rule.columns) if len(one.actions))
        shard = Shard(
            recording,
            self._conversion.bounds,
            with_rewards=not isinstance(rule.reward, NoReward),
            with_next=first.next_observations is not None,
        )
        start = self._state["episode"]
        after = dict(self._state)
        for number, episode in enumerate(recording.episodes(start, rule.columns), start=start):
            labels = label(rule, episode)
            for chunk in _chunks(episode, labels, start=after["row"], most=shard.most):
                if shard.rows + chunk.high - chunk.low > shard.most:
                    self._write(shard, after | {"episode": number, "row": chunk.low})
                    after = dict(self._state)
                shard.add(chunk)
                after["rows"] += chunk.high - chunk.low
            after["row"] = 0
            after["read"] += len(episode.actions)
            after["episodes"] += labels.rows > 0
            after["empty_episodes"] += labels.rows == 0
            after["finished_episodes"] += labels.is_finished
            after["dropped_rows"] += labels.dropped
            advance(len(episode.actions))
        self._write(shard, after | {"is_complete": True})

    def _write(self, shard: Shard, after: dict[str, Any]) -> None:
        """Write a shard, then how far the conversion is."""
        if shard.rows:
            after["lost"] = sorted({*after["lost"], *shard.lost()})
            if self._conversion.request.clip_actions:
                after["clipped_rows"] += shard.clip()
            shard.check()
            shard.write(self._conversion.shard(after["shards"]))
            after["shards"] += 1
        write_json(self._conversion.folder / PROGRESS, after)
        self._state.update(after)


def _chunks(episode: Episode, labels: Labelled, *, start: int, most: int) -> Iterator[Chunk]:
    """The rows of an episode that are kept, from `start` on, in pieces that a shard holds."""
    for low in range(start, labels.rows, most):
        yield Chunk(episode, labels, low, min(low + most, labels.rows))
