"""`evor data import`: recordings of other programs become npz shards that train as they are."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evor.data.checksums import Checksums
from evor.data.converting import COUNTS, PROGRESS, Conversion, Opened, convert, state_in
from evor.data.formats.detect import open_recording
from evor.data.formats.recording import Recording
from evor.data.labels import LabelRule, SuccessFile, label_rule
from evor.data.request import Request, check_alike, check_rules, find_units
from evor.data.source import IMPORT
from evor.errors import EvorError
from evor.runtime.files import expand, hold_own, read_json, sweep, write_json
from evor.runtime.parallel import Local, Ray, parallel_map
from evor.runtime.progress import console, progress_bar
from evor.runtime.provenance import versions
from evor.runtime.words import counted
from evor.types import ActionBounds

HERE = Local(1)  # this process alone
FILE = "file:"  # a rule of success, in a file
SOURCE = ".source-"  # folders of sources begin with it


def import_data(request: Request, machines: Local | Ray = HERE) -> dict[str, Any]:
    """Import the sources into the folder `out`, and return what its import.json says.

    With `machines`, each source is a job. The same request continues one that was interrupted. Raises EvorError, in one sentence, on what can't be read or is
    not said.
    """
    if not request.out.name:
        raise EvorError(f"--out {request.out} has no name of its own; give a folder that is not there yet.")
    recordings = [open_recording(source, request.wanted) for source in request.sources]
    check_alike(recordings)
    rules = [label_rule(one, reward=request.reward, success=request.success) for one in recordings]
    check_rules(recordings, rules)
    opened = [Opened(*pair) for pair in zip(recordings, rules, strict=True)]
    for one in opened:
        _say(*one)
    out = request.out.resolve() if request.out.is_symlink() else request.out  # a folder is not renamed to a link
    staging = out.with_name(f".{out.name}.import")
    asked = {"request": _plain(request), "files": _files(opened)}
    if request.out.is_dir() and (request.out / IMPORT).is_file():
        return _there_already(request.out, asked)
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise EvorError(f"{request.out} holds something else; choose another folder (--out).")
    if out.is_mount():
        raise EvorError(
            f"{request.out} is a mounted volume, which can't be replaced; choose a folder inside it (--out)."
        )
    staging.mkdir(parents=True, exist_ok=True)
    with hold_own(staging, "evor data import"), Checksums([Path(one["file"]) for one in asked["files"]]) as sums:
        content = _Work(request, opened, staging=staging.absolute(), asked=asked).run(machines)
        files = [one | {"sha256": digest} for one, digest in zip(asked["files"], sums.wait(), strict=True)]
        _check_unchanged(asked["files"], _files(opened))
        write_json(staging / IMPORT, content | {"files": files})
    if out.is_dir():
        out.rmdir()
    staging.rename(out)
    _tidy(out)
    return content | {"files": files}


def _say(recording: Recording, rule: LabelRule) -> None:
    """Say what is read, in which order, and how it is labelled."""
    keys = ", ".join(f"{key} [{width}]" for key, width in recording.keys)
    chosen = f" of {len(recording.names) + len(recording.others):,}" if recording.others else ""
    console.print(f"{recording.path}: {recording.kind}, {counted(len(recording.names), 'episode')}{chosen}")
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
    if plain["episodes"] is None:  # imports that were made before there was a choice are the same
        del plain["episodes"]
    return json.loads(json.dumps(plain))


def _files(opened: Sequence[Opened]) -> list[dict[str, Any]]:
    """Name, size and time of change of every file that is read: those of the recordings, and of labels."""
    files = dict.fromkeys(file for recording, _ in opened for file in recording.files)
    files |= dict.fromkeys(rule.success.path for _, rule in opened if isinstance(rule.success, SuccessFile))
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
    _tidy(out)  # where it was killed at its last step
    console.print(f"{out} is imported already.")
    return content


def _tidy(out: Path) -> None:
    """Remove what only an interrupted import needs."""
    (out / PROGRESS).unlink(missing_ok=True)
    for folder in out.glob(f"{SOURCE}*"):
        shutil.rmtree(folder)


def _are_same(stored: list[dict[str, Any]], now: list[dict[str, Any]]) -> bool:
    """Whether the files are those of an earlier import. Checksums tell where one was written again."""
    if [(one["file"], one["bytes"]) for one in stored] != [(one["file"], one["bytes"]) for one in now]:
        return False
    again = [pair for pair in zip(stored, now, strict=True) if pair[0].get("modified") != pair[1]["modified"]]
    with Checksums([Path(one["file"]) for _, one in again]) as sums:
        return [one["sha256"] for one, _ in again] == sums.wait()


class _Work:
    """An import on its way, in the folder `staging`: a folder for each source, whose shards are numbered at the end."""

    def __init__(self, request: Request, opened: Sequence[Opened], *, staging: Path, asked: dict[str, Any]):
        self._request, self._opened = request, opened
        self._staging, self._asked = staging, asked

    def run(self, machines: Local | Ray) -> dict[str, Any]:
        """Write all shards that are missing, a job per source. Returns the content of import.json."""
        units = self._units()
        bounds = ActionBounds.read(units["action_low"], units["action_high"])
        console.print(f"  bounds of actions: {bounds} ({units['origin']})")
        conversions = [
            Conversion(_anywhere(self._request), index, bounds=bounds, folder=self._staging / f"{SOURCE}{index:03d}")
            for index in range(len(self._opened))
        ]
        states = self._convert(conversions, machines)
        counts = {name: sum(state[name] for state in states) for name in COUNTS}
        shards = [
            conversion.shard(number)
            for conversion, state in zip(conversions, states, strict=True)
            for number in range(state["shards"])
        ]
        for number, path in enumerate(shards):
            if path.exists():  # else it was renamed before an interruption
                path.rename(self._staging / f"shard-{number:05d}.npz")
        notes = []
        if lost := sorted({key for state in states for key in state["lost"]}):
            notes.append(
                f"float32 can't tell the values of {', '.join(lost)} apart; subtract an offset before recording"
            )
            console.print(f"note: {notes[0]}")
        first = self._opened[0].recording
        return self._asked | {
            "version": versions()["evor"],
            "sources": [_about(*opened) for opened in self._opened],
            "labels": "; ".join(dict.fromkeys(str(opened.rule) for opened in self._opened)),
            "observations": [list(key) for key in first.keys],
            "actions": {"key": first.action_key, "names": list(first.action_names)},
            "units": units,
            "counts": counts,
            "shards": len(shards),
            "notes": notes,
        }

    def _convert(self, conversions: Sequence[Conversion], machines: Local | Ray) -> list[dict[str, Any]]:
        """The last state of every source."""
        states = [state_in(conversion.folder) for conversion in conversions]
        read, total = (
            sum(state["read"] for state in states),
            sum(sum(opened.recording.lengths) for opened in self._opened),
        )
        if read:
            console.print(f"going on after {sum(state['rows'] for state in states):,} rows.")
        with progress_bar("import", total, done=read, unit="rows") as advance:
            if machines == HERE:
                pairs = zip(conversions, self._opened, strict=True)
                return [convert(conversion, opened, advance=advance)[1] for conversion, opened in pairs]
            jobs = [(conversion,) for conversion in conversions]
            for index, state in parallel_map(convert, jobs, machines, shared=self._staging):
                advance(state["read"] - states[index]["read"], Path(self._request.sources[index]).name)
                states[index] = state
        return states

    def _units(self) -> dict[str, Any]:
        """Bounds of the actions, found once. Of another request nothing is kept."""
        path = self._staging / PROGRESS
        if path.is_file():
            state = read_json(path, *self._asked, units=dict)
            if {name: state[name] for name in self._asked} == self._asked:
                for folder in self._staging.glob(f"{SOURCE}*"):
                    sweep(folder, seconds=0)
                return state["units"]
        for file in self._staging.iterdir():
            if file.name != ".lock":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        found = find_units(self._request, [opened.recording for opened in self._opened])
        units = {"action_low": found.bounds.low, "action_high": found.bounds.high, "origin": found.origin}
        write_json(path, self._asked | {"units": units})
        return json.loads(json.dumps(units))


def _anywhere(request: Request) -> Request:
    """A request that is the same from any working folder."""
    paths = [expand(source) for source in request.sources]
    sources = tuple(
        str(path.absolute()) if path.exists() else source for source, path in zip(request.sources, paths, strict=True)
    )
    success = request.success
    if success is not None and success.startswith(FILE):
        success = f"{FILE}{expand(success.removeprefix(FILE)).absolute()}"
    return replace(request, sources=sources, success=success)


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
