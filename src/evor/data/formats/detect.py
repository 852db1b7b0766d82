"""Formats of recordings: which one a source has, told by what is in it."""

from pathlib import Path

from evor.data.formats.flat import open_d4rl
from evor.data.formats.hdf5 import Hdf5
from evor.data.formats.lerobot import open_lerobot
from evor.data.formats.minari import MAIN, find_minari, open_minari, root
from evor.data.formats.named import open_named
from evor.data.formats.recording import Recording, Wanted, check_widths, chosen
from evor.data.formats.robomimic import open_robomimic
from evor.errors import EvorError
from evor.runtime.files import expand, listed

HDF5 = (".hdf5", ".h5", ".hdf")
LOOKED_FOR = (
    "meta/info.json (LeRobot), data/metadata.json (Minari), or a file .hdf5 or .h5 with data/demo_0 (robomimic) or observations "
    "(D4RL), or .npz"
)
ONLY = {  # options that belong to some formats
    "mask": ("robomimic HDF5",),
    "max_episode_steps": ("D4RL HDF5", "npz"),
}


def open_recording(source: str, wanted: Wanted) -> Recording:
    """Open a source: a folder, a file, or the id of a Minari dataset. Raises EvorError."""
    recording = check_widths(chosen(_open(source, wanted), wanted.episodes))
    for name, kinds in ONLY.items():
        if getattr(wanted, name) is not None and recording.kind not in kinds:
            raise EvorError(
                f"{source} is {recording.kind}, and {name} (--{name.replace('_', '-')}) goes with {' and '.join(kinds)}; "
                "leave it out."
            )
    return recording


def _open(source: str, wanted: Wanted) -> Recording:
    path = expand(source)
    if path.is_file():
        return _open_file(path, wanted)
    if (path / "meta").is_dir():
        return open_lerobot(path, wanted)
    if (folder := find_minari(str(path) if path.is_dir() else source)) is not None:
        return open_minari(folder, wanted)
    if listed(path, "data/*/*.parquet"):  # LeRobot's data alone, of which it says what is missing
        return open_lerobot(path, wanted)
    if path.exists():
        raise EvorError(f"{source} is none of the formats that are read; looked for {LOOKED_FOR}.")
    raise EvorError(
        f"{source} does not exist, and {root()} holds no Minari dataset of this id; give a file, a folder or an id."
    )


def _open_file(path: Path, wanted: Wanted) -> Recording:
    if path.name == MAIN and (path.parent / "metadata.json").is_file():
        return open_minari(path.parent, wanted)
    if path.suffix == ".npz":
        return open_named(path, wanted)
    if path.suffix not in HDF5:
        raise EvorError(f"{path} is none of the formats that are read; looked for {LOOKED_FOR}.")
    file = Hdf5(path, max_gb=wanted.max_gb)
    if file.is_group("data"):
        return open_robomimic(path, wanted)
    if file.is_dataset("observations") or file.is_dataset("actions"):
        return open_d4rl(path, wanted)
    there = ", ".join(file.names()[:12]) or "nothing"
    raise EvorError(f"{path} holds {there}: none of the formats that are read. Looked for {LOOKED_FOR}.")
