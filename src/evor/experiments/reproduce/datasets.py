"""The dataset of a cell: found or generated, and described in the cell's rows."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

from evor.data.formats.archive import contents
from evor.data.formats.ogbench import official_folders
from evor.data.scripted.generate import dataset_path, generatable, generate_once, is_ant
from evor.data.scripted.mazes import load_expert
from evor.errors import EvorError
from evor.runtime.files import folder_of, listed, read_json
from evor.runtime.parallel import Local, Ray
from evor.runtime.progress import console
from evor.runtime.records import replace

NO_DATA = "no data"  # begins the reason of a cell whose dataset is not there
NO_TIME = f"{NO_DATA}: the time was over"


class Source(NamedTuple):
    """Sources of datasets: a user's folder, OGBench's own folder, or a generator with time until the deadline."""

    data: Path
    transitions: int  # of a generated dataset
    expert: Path | None  # the ant's locomotion policy
    deadline: float
    machines: Local | Ray  # of the reproduction: a cluster generates, too, or else every core of this machine

    def check(self) -> None:
        """Raise EvorError where what the user gave can't be read, before hours of work."""
        if self.data.exists() and not self.data.is_dir():
            raise EvorError(f"--data {self.data} is a file; give the folder it lies in.")
        if self.expert is not None:
            load_expert(self.expert)

    def find(self, dataset: str) -> Path | str:
        """The folder with this dataset, which may be generated now; or why there is none."""
        generated = self.data / f"{self.transitions}-seed0"
        for folder in (self.data, generated, *official_folders()):
            if there := dataset_path(dataset, folder):
                return folder_of(there)
        if dataset not in generatable():
            why = "it can't be generated; put its files into --data"
        elif is_ant(dataset) and self.expert is None:
            why = "give the ant's locomotion policy with --expert FILE.npz to generate it"
        else:
            console.print(
                f"{dataset} is not in {self.data}: {self.transitions} transitions are generated into {generated}.",
            )
            expert = self.expert if is_ant(dataset) else None
            try:
                return folder_of(
                    generate_once(
                        dataset,
                        self.transitions,
                        seed=0,
                        folder=generated,
                        expert=expert,
                        machines=replace(self.machines, gpus=0.0, cpus=1) if isinstance(self.machines, Ray) else None,
                        deadline=self.deadline,
                    )
                )
            except TimeoutError:
                return NO_TIME
        console.print(f"no data for {dataset}, its cells stay empty: {why}.")
        return f"{NO_DATA}: {why}"


def describe(dataset: str, data: Path, *, sparse: bool = False, memory_gb: float | None = None) -> str:
    """`generated, 300000 transitions, seed 0`, or of which files; equal texts are equal data and rewards."""
    share = f", {memory_gb:g} GB of it at a time" if memory_gb is not None else ""
    return _files(dataset, data) + ", sparse rewards" * sparse + share


@functools.cache  # a worker has several cells of a dataset
def _files(dataset: str, data: Path) -> str:
    note = data / f"{dataset}.json"
    if note.exists():
        made = read_json(note)
        policy = f", walker {made['expert'][:8]}" if "expert" in made else ""
        return f"generated, {made['transitions']} transitions, seed {made['seed']}{policy}"
    whole = data / f"{dataset}.npz"
    files = [whole] if whole.exists() else listed(data, "*.npz")
    if not files:
        raise EvorError(f"{data} has no files of {dataset}; restore them, or give --data where they are.")
    kind = "official" if data in official_folders() else "own"
    digest = hashlib.sha256()
    for file in files:
        digest.update((file.name + contents(file, f"restore it or take it out of {data}").checksums).encode())
    return f"{kind}, {len(files)} files, digest {digest.hexdigest()[:8]}"
