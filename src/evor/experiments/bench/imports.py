"""Timings of `evor data import`, beside plain reading by the format's own library and writing by numpy."""

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from evor.data.importing import import_data
from evor.data.request import Request
from evor.runtime.progress import hushed

ROWS, OBSERVATION, ACTION = 1_000_000, 42, 8  # 50 numbers per row
EPISODE = 500  # rows
FILES = 4  # of a LeRobot dataset
FORMATS = ("parquet", "hdf5")
MEMORY, NEEDED = Path("/dev/shm"), 400  # bytes of a row in a file, at most


def installed() -> bool:
    """Whether the packages of the extra `data` are there."""
    return find_spec("h5py") is not None and find_spec("pyarrow") is not None


def time_import(kind: str, *, repeats: int, rows: int = ROWS) -> dict[str, Any]:
    """Seconds of an import of one format, and of plain reading and numpy.savez of the same files.

    The files lie in memory where there is room: an import waits until its files are on a disk, and numpy.savez does not.
    """
    write, plain = {"parquet": (_lerobot, _plain_parquet), "hdf5": (_d4rl, _plain_hdf5)}[kind]
    room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED * (1 + 2 * repeats) * rows
    with tempfile.TemporaryDirectory(dir=MEMORY if room else None) as name, hushed():
        folder = Path(name)
        source, outs = write(folder / "source", rows), map(str, itertools.count())
        seconds: dict[str, list[float]] = {"evor": [], "plain": []}
        for _ in range(repeats):
            out = folder / next(outs)
            request = Request(sources=(str(source),), out=out, success="none", reward="steps")
            seconds["plain"].append(_seconds(lambda: plain(source, folder / f"plain{next(outs)}.npz")))
            seconds["evor"].append(_seconds(lambda request=request: import_data(request)))
    ours, theirs = (float(np.median(seconds[name])) for name in ("evor", "plain"))
    return {"rows": rows, "seconds": ours, "plain_seconds": theirs, "times": ours / theirs}


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _arrays(rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal((rows, OBSERVATION), np.float32),
        generator.uniform(-1, 1, (rows, ACTION)).astype(np.float32),
    )


def _lerobot(folder: Path, rows: int) -> Path:
    """A LeRobot dataset of version 3.0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    observations, actions = _arrays(rows)
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    info = {"codebase_version": "v3.0", "fps": 30, "features": {"action": {"dtype": "float32", "shape": [ACTION]}}}
    (folder / "meta/info.json").write_text(json.dumps(info))
    edges = np.linspace(0, rows // EPISODE, FILES + 1).astype(int) * EPISODE
    for index, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        number = np.arange(low, high)
        columns = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(array[low:high].reshape(-1)), array.shape[1])
            for name, array in (("observation.state", observations), ("action", actions))
        }
        columns |= {
            "timestamp": pa.array((number % EPISODE / 30).astype(np.float32)),
            "frame_index": pa.array(number % EPISODE),
            "episode_index": pa.array(number // EPISODE),
        }
        pq.write_table(pa.table(columns), folder / f"data/chunk-000/file-{index:03d}.parquet")
    return folder


def _plain_parquet(folder: Path, out: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "data")
    arrays = {}
    for name in ("observation.state", "action"):
        column = table[name].combine_chunks()
        arrays[name] = np.asarray(column.flatten()).reshape(len(column), -1)
    arrays |= {name: np.asarray(table[name]) for name in ("frame_index", "episode_index")}
    np.savez(out, allow_pickle=False, **arrays)


def _d4rl(folder: Path, rows: int) -> Path:
    """A file as D4RL writes it."""
    import h5py

    observations, actions = _arrays(rows)
    folder.mkdir()
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["observations"], file["actions"] = observations, actions
        file["rewards"], file["terminals"] = np.zeros(rows, np.float32), np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % EPISODE == EPISODE - 1
    return folder / "data.hdf5"


def _plain_hdf5(path: Path, out: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        np.savez(out, allow_pickle=False, **{name: file[name][()] for name in file})
