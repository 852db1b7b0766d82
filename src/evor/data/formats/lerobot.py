"""LeRobot datasets, versions 2.0, 2.1 and 3.0: the numbers in `data/*/*.parquet`. Videos are not read.

Row t holds the state, the action and the reward after it. `next.done` marks the last row of an episode, finished or cut,
so it is no termination; recordings rarely hold rewards or success.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evor.data.formats.arrow import Parquet
from evor.data.formats.recording import (
    FEATURES,
    Episode,
    Recording,
    Wanted,
    check_actions,
    matrix,
    pick,
    stitched,
    vector,
)
from evor.errors import EvorError
from evor.runtime.files import listed, read_json
from evor.runtime.words import counted

STATES = (
    ("observation.state", "observation.environment_state"),
    ("state",),
)  # first names that are there are the default
ACTIONS = ("action", "actions")
INDEX = ("episode_index", "frame_index")
REWARD = "next.reward"
TIME = "timestamp"
TASK = "task_index"
IMAGES = ("video", "image")
NAMED = 5  # episodes in a note


class Part(NamedTuple):
    """One data file: its episodes, and how to read its rows in their order."""

    file: Parquet
    numbers: tuple[int, ...]  # of the episodes
    lengths: tuple[int, ...]
    firsts: tuple[int, ...]  # first frames of the episodes
    last: int  # frame of the last row
    gaps: tuple[tuple[int, ...], ...]  # of each episode: rows after which frames are missing
    order: np.ndarray | None  # of the rows, None where they lie in order
    odd_times: tuple[int, ...]  # episodes whose timestamps are not those of their frames


class Span(NamedTuple):
    """An episode, and where its rows begin; they may go on in the next files."""

    number: int
    length: int
    first: int  # frame
    gaps: tuple[int, ...]
    part: int
    row: int  # in that part


def open_lerobot(folder: Path, wanted: Wanted) -> Recording:
    """Open a dataset's folder. Raises EvorError on what can't be read."""
    info = _info(folder)
    files = listed(folder, "data/*/*.parquet")
    if not files:
        raise EvorError(f"{folder} has no data/*/*.parquet; copy the whole dataset.")
    fps = float(info["fps"]) if isinstance(info.get("fps"), int | float) else 0.0
    parts = [part for path in files if (part := _part(Parquet(path, max_gb=wanted.max_gb), fps)).numbers]
    parts.sort(key=lambda part: (part.numbers[0], part.firsts[0]))
    spans = _spans(folder, parts)
    _check_counts(folder, info, spans=spans)
    features, there = info["features"], parts[0].file.names
    images = [name for name, feature in features.items() if feature.get("dtype") in IMAGES]
    keys, action_key = _keys(folder, wanted, there=there, images=images)
    one = next(parts[0].file.pieces(list(dict.fromkeys([*keys, action_key]))))
    others = [name for name in [*there, *images] if name.startswith(("observation", "state", "image"))]
    odd_times = sorted({number for part in parts for number in part.odd_times})
    return Recording(
        kind=f"LeRobot {info['codebase_version']}",
        path=folder,
        files=(folder / "meta/info.json", *(part.file.path for part in parts)),
        keys=tuple((key, matrix(one[key], f"{folder}: {key}").shape[1]) for key in keys),
        not_read=tuple(name for name in dict.fromkeys(others) if name not in keys),
        action_key=action_key,
        action_dim=check_actions(one[action_key], f"{folder}: {action_key}").shape[1],
        bounds=None,
        reward_key=REWARD if REWARD in there else None,
        has_terminations=False,
        names=tuple(str(span.number) for span in spans),
        lengths=tuple(span.length for span in spans),
        episodes=lambda start, columns: _episodes(
            parts, spans[start:], keys=keys, action_key=action_key, columns=columns
        ),
        actions=lambda: _actions(parts, action_key),
        action_names=_names(features.get(action_key, {}).get("names")),
        notes=(*_notes(spans, odd_times), *_of_tasks(info, keys=keys, there=there)),
    )


def _info(folder: Path) -> dict[str, Any]:
    """The content of meta/info.json. Raises EvorError on another version."""
    path = folder / "meta" / "info.json"
    if not path.is_file():
        raise EvorError(f"{path} is missing; copy the whole dataset, with its folder meta.")
    info = read_json(path, codebase_version=str, features={str: dict})
    if not info["codebase_version"].startswith(("v2.", "v3.")):
        raise EvorError(
            f"{folder} is of LeRobot's format {info['codebase_version']}; 2.0, 2.1 and 3.0 are read. Convert it with LeRobot."
        )
    return info


def _keys(folder: Path, wanted: Wanted, *, there: Sequence[str], images: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The columns of observations and of actions."""
    for key in wanted.observation_keys:
        if key in images:
            raise EvorError(f"{folder}: {key} is a video or an image: {FEATURES}.")
    defaults = ([name for name in names if name in there] for names in STATES)
    keys = wanted.observation_keys or tuple(next(filter(None, defaults), ()))
    if not keys:
        raise EvorError(
            f"{folder} has no column observation.state (it has {', '.join(there)}); name columns of numbers in "
            f"observation_keys (--observation-keys). {'I' + FEATURES[1:] + '.' if images else ''}".rstrip()
        )
    action_key = wanted.action_key or next((name for name in ACTIONS if name in there), ACTIONS[0])
    pick(folder, [action_key], there=there, what="action column")
    return pick(folder, keys, there=there, what="observation"), action_key


def _notes(spans: Sequence[Span], odd_times: Sequence[int]) -> tuple[str, ...]:
    """Say what is odd in frames and timestamps, and in which episodes."""
    cut = [span.number for span in spans if span.gaps]
    gaps = counted(sum(len(span.gaps) for span in spans), "gap")
    notes = [f"missing frames: {gaps} in frame_index in {_some(cut)}; an episode is cut there"] if cut else []
    if late := [span.number for span in spans if span.first]:
        notes.append(f"missing frames: frame_index does not begin at 0 in {_some(late)}")
    if odd_times:
        notes.append(f"timestamps jump in {_some(odd_times)}: they are not frame_index / fps; look at these recordings")
    return tuple(notes)


def _of_tasks(info: dict[str, Any], *, keys: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """Say where episodes of several tasks are mixed, and the observation does not tell which."""
    number = info.get("total_tasks")
    if not isinstance(number, int) or number < 2 or TASK not in there or TASK in keys:
        return ()
    return (
        f"there are {number} tasks, and the observation does not tell which one an episode is about; import the episodes of one "
        f"task (--episodes), or name {TASK} in observation_keys (--observation-keys), too",
    )


def _some(numbers: Sequence[int]) -> str:
    """Name the first few of some episodes."""
    named = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    return f"{counted(len(numbers), 'episode')} ({named})"


def _part(file: Parquet, fps: float) -> Part:
    """Look at a file's index. Raises EvorError where frames are there twice."""
    index = {name: vector(column, f"{file.path}: {name}").astype(np.int64) for name, column in file.read(INDEX).items()}
    odd = _odd_times(file, index, fps=fps)
    episode, frame = (index[name] for name in INDEX)
    step = np.diff(episode)
    order = None
    if (step < 0).any() or (np.diff(frame)[step == 0] < 0).any():
        order = np.lexsort((frame, episode))
        episode, frame = episode[order], frame[order]
    starts = np.flatnonzero(np.diff(episode, prepend=episode[:1] - 1))
    inside = np.diff(episode, prepend=episode[:1] - 1) == 0
    jumps = np.diff(frame, prepend=frame[:1])
    if (twice := np.flatnonzero(inside & (jumps == 0))).size:
        row = twice[0]
        raise EvorError(f"{file.path}: episode {episode[row]} has frame {frame[row]} twice; remove one of them.")
    ends = np.append(starts[1:], len(episode))
    missing = np.flatnonzero(inside & (jumps > 1))
    edges = np.searchsorted(missing, np.append(starts, len(episode)))
    return Part(
        file=file,
        numbers=tuple(episode[starts].tolist()),
        lengths=tuple((ends - starts).tolist()),
        firsts=tuple(frame[starts].tolist()),
        last=int(frame[-1]) if len(frame) else 0,
        gaps=tuple(
            tuple((missing[low:high] - 1 - start).tolist())
            for (low, high), start in zip(itertools.pairwise(edges), starts.tolist(), strict=True)
        ),
        order=order,
        odd_times=odd,
    )


def _odd_times(file: Parquet, index: dict[str, np.ndarray], *, fps: float) -> tuple[int, ...]:
    """Episodes with a timestamp that is further from frame_index / fps than half a frame."""
    if fps <= 0 or TIME not in file.names:
        return ()
    time = vector(file.read([TIME])[TIME], f"{file.path}: {TIME}").astype(np.float64)
    odd = ~(np.abs(time * fps - index["frame_index"]) <= 0.5)
    return tuple(np.unique(index["episode_index"][odd]).tolist())


def _spans(folder: Path, parts: Sequence[Part]) -> list[Span]:
    """The episodes of all files. Raises EvorError where files overlap."""
    spans: list[Span] = []
    for index, part in enumerate(parts):
        row = 0
        for number, length, first, gaps in zip(part.numbers, part.lengths, part.firsts, part.gaps, strict=True):
            before = spans[-1] if spans else None
            step = first - parts[index - 1].last
            if before is not None and before.number == number and row == 0 and step > 0:  # it goes on in this file
                rows = (*([before.length - 1] if step > 1 else ()), *(before.length + gap for gap in gaps))
                spans[-1] = before._replace(length=before.length + length, gaps=before.gaps + rows)
            elif before is not None and before.number >= number:
                raise EvorError(
                    f"{folder}: episode {number} lies in several files, and their frames overlap; remove one of them "
                    f"({part.file.path.name})."
                )
            else:
                spans.append(Span(number=number, length=length, first=first, gaps=gaps, part=index, row=row))
            row += length
    return spans


def _check_counts(folder: Path, info: dict[str, Any], *, spans: Sequence[Span]) -> None:
    """Raise EvorError where episodes are missing."""
    if not spans:
        raise EvorError(f"{folder} holds no rows; record at least one episode.")
    frames = sum(span.length for span in spans)
    for name, there in (("total_episodes", len(spans)), ("total_frames", frames)):
        if isinstance(info.get(name), int) and info[name] != there:
            raise EvorError(
                f"{folder}: meta/info.json names {name} {info[name]}, and the data hold {there}; copy all of data/."
            )


def _names(stored: Any) -> tuple[str, ...]:
    """Names of a feature's entries, as info.json has them: a list, or an object of lists."""
    if isinstance(stored, dict):
        stored = [name for names in stored.values() for name in (names if isinstance(names, list) else ())]
    return tuple(map(str, stored)) if isinstance(stored, list) else ()


def _actions(parts: Sequence[Part], action_key: str) -> Iterator[np.ndarray]:
    for piece in _pieces(parts, [action_key]):
        yield check_actions(piece[action_key], f"{parts[0].file.path.parents[2]}: {action_key}")


def _pieces(parts: Sequence[Part], names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """Rows of consecutive files in the order of their index. Raises EvorError where their rows have different lengths."""
    first: dict[str, tuple[int, ...]] = {}  # shapes of a row
    for part in parts:
        ordered = part.order is None
        for piece in part.file.pieces(names) if ordered else [part.file.read(names)]:
            for name, column in piece.items():
                if (shape := column.shape[1:]) != first.setdefault(name, shape):
                    raise EvorError(
                        f"{part.file.path}: {name} holds {_numbers(shape)}, and the files before {_numbers(first[name])}; repair "
                        "or remove these episodes."
                    )
            yield piece if ordered else {name: column[part.order] for name, column in piece.items()}


def _numbers(shape: tuple[int, ...]) -> str:
    """The length of a row in words."""
    return f"lists of {counted(shape[0], 'number')}" if shape else "plain numbers"


def _episodes(
    parts: Sequence[Part], spans: Sequence[Span], *, keys: tuple[str, ...], action_key: str, columns: tuple[str, ...]
) -> Iterator[Episode]:
    """These consecutive episodes."""
    if not spans:
        return
    pieces = _pieces(parts[spans[0].part :], list(dict.fromkeys([*keys, action_key, *columns])))
    before = [spans[0].row] if spans[0].row else []
    whole = stitched(pieces, [*before, *(span.length for span in spans)])
    for span, rows in zip(spans, itertools.islice(whole, len(before), None), strict=True):
        place = f"{parts[span.part].file.path}, episode {span.number}"
        yield Episode(
            name=str(span.number),
            observations=tuple(matrix(rows[key], f"{place}: {key}") for key in keys),
            actions=check_actions(rows[action_key], f"{place}: {action_key}"),
            columns={name: vector(rows[name], f"{place}: {name}") for name in columns},
            gaps=span.gaps,
        )
