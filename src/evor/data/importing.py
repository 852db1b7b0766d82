"""`evor data import`: recordings of other programs become npz shards that train as they are."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evor.data.checksums import Checksums
from evor.data.formats.detect import open_recording
from evor.data.formats.recording import Episode, Recording
from evor.data.labels import Labelled, LabelRule, NoReward, label, label_rule
from evor.data.request import Request, check_alike, check_rules, find_units
from evor.data.shards import Chunk, Shard
from evor.data.source import IMPORT
from evor.errors import EvorError
from evor.runtime.files import read_json, sweep, write_json
from evor.runtime.locks import hold
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import versions
from evor.runtime.words import counted
from evor.types import ActionBounds

PROGRESS = "progress.json"  # in the folder of an import that is not finished
COUNTS = ("episodes", "rows", "finished_episodes", "dropped_rows", "empty_episodes", "clipped_rows")


def import_data(request: Request) -> dict[str, Any]:
    """Import the sources into the folder `out`, and return what its import.json says.

    The same request continues one that was interrupted. Raises EvorError, in one sentence, on what can't be read or is
    not said.
    """
    recordings = [open_recording(source, request.wanted) for source in request.sources]
    check_alike(recordings)
    rules = [label_rule(one, reward=request.reward, success=request.success) for one in recordings]
    check_rules(recordings, rules)
    for recording, rule in zip(recordings, rules, strict=True):
        _say(recording, rule)
    staging = request.out.with_name(f".{request.out.name}.import")
    asked = {"request": _plain(request), "files": _files(recordings)}
    if request.out.is_dir() and (request.out / IMPORT).is_file():
        return _there_already(request.out, asked)
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise EvorError(f"{request.out} holds something else; choose another folder (--out).")
    staging.mkdir(parents=True, exist_ok=True)
    with hold(staging / ".lock", "evor data import"), Checksums([Path(one["file"]) for one in asked["files"]]) as sums:
        work = _Work(request, recordings, rules=rules, staging=staging, asked=asked)
        content = work.run()
        files = [one | {"sha256": digest} for one, digest in zip(asked["files"], sums.wait(), strict=True)]
        _check_unchanged(asked["files"], _files(recordings))
        write_json(staging / IMPORT, content | {"files": files})
    if request.out.is_dir():
        request.out.rmdir()
    staging.rename(request.out)
    (request.out / PROGRESS).unlink()
    return content | {"files": files}


def _say(recording: Recording, rule: LabelRule) -> None:
    """Say what is read, in which order, and how it is labelled."""
    keys = ", ".join(f"{key} [{width}]" for key, width in recording.keys)
    console.print(f"{recording.path}: {recording.kind}, {counted(len(recording.names), 'episode')}")
    console.print(f"  observations: {keys}")
    if recording.not_read:
        console.print(f"  not read: {', '.join(recording.not_read)}")
    console.print(f"  actions: {recording.action_key} [{recording.action_dim}]")
    console.print(f"  {rule}")
    for note in recording.notes:
        console.print(f"note: {note}")


def _plain(request: Request) -> dict[str, Any]:
    plain = asdict(replace(request, out=Path())) | {"sources": [str(Path(source)) for source in request.sources]}
    del plain["out"]
    return json.loads(json.dumps(plain))


def _files(recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """Name, size and time of change of every file that is read."""
    files = dict.fromkeys(file for recording in recordings for file in recording.files)
    stats = {file: file.stat() for file in files}
    return [{"file": str(file), "bytes": of.st_size, "modified": of.st_mtime_ns} for file, of in stats.items()]


def _check_unchanged(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for one, now in zip(before, after, strict=True):
        if one != now:
            raise EvorError(f"{one['file']} was changed while it was imported; run the same command again.")


def _there_already(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Read what an earlier import left. Raises EvorError where it was another one."""
    content = read_json(out / IMPORT, request=dict, files=list)
    if content["request"] != asked["request"] or not _are_same(content["files"], asked["files"]):
        raise EvorError(f"{out} holds another import; choose another folder (--out), or remove it.")
    (out / PROGRESS).unlink(missing_ok=True)  # where it was killed at its last step
    console.print(f"{out} is imported already.")
    return content


def _are_same(stored: list[dict[str, Any]], now: list[dict[str, Any]]) -> bool:
    """Whether the files are those of an earlier import. Checksums tell where one was written again."""
    if [(one["file"], one["bytes"]) for one in stored] != [(one["file"], one["bytes"]) for one in now]:
        return False
    again = [pair for pair in zip(stored, now, strict=True) if pair[0].get("modified") != pair[1]["modified"]]
    with Checksums([Path(one["file"]) for _, one in again]) as sums:
        return [one["sha256"] for one, _ in again] == sums.wait()


class _Work:
    """An import on its way, in the folder `staging`."""

    def __init__(
        self,
        request: Request,
        recordings: Sequence[Recording],
        *,
        rules: Sequence[LabelRule],
        staging: Path,
        asked: dict[str, Any],
    ):
        self._request, self._recordings, self._rules = request, recordings, rules
        self._staging, self._asked = staging, asked

    def run(self) -> dict[str, Any]:
        """Write all shards that are missing. Returns the content of import.json."""
        state = self._state()
        if state["units"] is None:
            units = find_units(self._request, self._recordings)
            state["units"] = {"action_low": units.bounds.low, "action_high": units.bounds.high, "origin": units.origin}
            write_json(self._staging / PROGRESS, state)
        bounds = ActionBounds.read(state["units"]["action_low"], state["units"]["action_high"])
        console.print(f"  bounds of actions: {bounds} ({state['units']['origin']})")
        total = sum(sum(one.lengths) for one in self._recordings)
        with progress_bar("import", total, done=state["read"], unit="rows") as advance:
            for index in range(state["source"], len(self._recordings)):
                self._import(index, state, bounds=bounds, advance=advance)
        counts = {name: state[name] for name in COUNTS}
        if not counts["rows"]:
            raise EvorError("the sources hold no rows; record at least one episode.")
        notes = []
        if state["lost"]:
            notes.append(
                f"float32 can't tell the values of {', '.join(state['lost'])} apart; subtract an offset before recording"
            )
            console.print(f"note: {notes[0]}")
        return self._asked | {
            "version": versions()["evor"],
            "sources": [_about(*pair) for pair in zip(self._recordings, self._rules, strict=True)],
            "labels": "; ".join(dict.fromkeys(map(str, self._rules))),
            "observations": [list(key) for key in self._recordings[0].keys],
            "actions": {"key": self._recordings[0].action_key, "names": list(self._recordings[0].action_names)},
            "units": state["units"],
            "counts": counts,
            "shards": state["shards"],
            "notes": notes,
        }

    def _state(self) -> dict[str, Any]:
        """Tell how far an earlier call came; of another request nothing is kept."""
        fresh = self._asked | {"units": None, "shards": 0, "source": 0, "episode": 0, "row": 0, "read": 0, "lost": []}
        fresh |= dict.fromkeys(COUNTS, 0)
        path = self._staging / PROGRESS
        if path.is_file():
            state = read_json(path, *fresh)
            if {name: state[name] for name in self._asked} == self._asked:
                if state["read"]:
                    console.print(f"going on after {state['rows']:,} rows.")
                sweep(self._staging, seconds=0)
                return state
        for file in self._staging.iterdir():
            if file.name != ".lock":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        return fresh

    def _import(self, index: int, state: dict[str, Any], *, bounds: ActionBounds, advance: Any) -> None:
        """Write the shards of one source from where `state` stands, and note in it what was done."""
        recording, rule = self._recordings[index], self._rules[index]
        first = next(one for one in recording.episodes(0, rule.columns) if len(one.actions))
        shard = Shard(
            recording,
            bounds,
            with_rewards=not isinstance(rule.reward, NoReward),
            with_next=first.next_observations is not None,
        )
        after = dict(state)
        for number, episode in enumerate(recording.episodes(state["episode"], rule.columns), start=state["episode"]):
            labels = label(rule, episode)
            for chunk in _chunks(episode, labels, start=after["row"], most=shard.most):
                if shard.rows + chunk.high - chunk.low > shard.most:
                    self._write(shard, state, after=after | {"source": index, "episode": number, "row": chunk.low})
                    after = dict(state)
                shard.add(chunk)
                after["rows"] += chunk.high - chunk.low
            after["row"] = 0
            after["read"] += len(episode.actions)
            after["episodes"] += labels.rows > 0
            after["empty_episodes"] += labels.rows == 0
            after["finished_episodes"] += labels.is_finished
            after["dropped_rows"] += labels.dropped
            advance(len(episode.actions))
        self._write(shard, state, after=after | {"source": index + 1, "episode": 0, "row": 0})

    def _write(self, shard: Shard, state: dict[str, Any], *, after: dict[str, Any]) -> None:
        """Write a shard, then how far the import is."""
        if shard.rows:
            after["lost"] = sorted({*after["lost"], *shard.lost()})
            if self._request.clip_actions:
                after["clipped_rows"] += shard.clip()
            shard.check()
            shard.write(self._staging / f"shard-{after['shards']:05d}.npz")
            after["shards"] += 1
        write_json(self._staging / PROGRESS, after)
        state.update(after)


def _chunks(episode: Episode, labels: Labelled, *, start: int, most: int) -> Iterator[Chunk]:
    """The rows of an episode that are kept, from `start` on, in pieces that a shard holds."""
    for low in range(start, labels.rows, most):
        yield Chunk(episode, labels, low, min(low + most, labels.rows))


def _about(recording: Recording, rule: LabelRule) -> dict[str, Any]:
    return {
        "path": str(recording.path),
        "kind": recording.kind,
        "observations": [list(key) for key in recording.keys],
        "not_read": list(recording.not_read),
        "labels": str(rule),
        "episodes": len(recording.names),
        "rows": sum(recording.lengths),
        "notes": list(recording.notes),
    }
