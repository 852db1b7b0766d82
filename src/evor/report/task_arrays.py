"""An npz file of arrays by task, TASK/NAME, to which several processes add. Imports no JAX."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from evor.errors import EvorError
from evor.runtime.files import read_arrays, write_npz

Arrays = dict[str, np.ndarray]
Mark = tuple[int, ...]  # where arrays come from: the checkpoint's updates first


class TaskArrays:
    """The best arrays of every task, all of the newest checkpoint; to be changed under a lock.

    The array TASK/`name` is their mark; of two marks the one of the higher `rank` is better, and ranks begin with updates.
    """

    def __init__(self, path: Path, name: str, *, rank: Callable[[Mark], Mark]):
        self.path, self.name, self.rank = path, name, rank

    def read(self) -> dict[int, Arrays]:
        """Arrays by task, none where there is no file. Raises EvorError where it is damaged."""
        by_task: dict[int, Arrays] = defaultdict(dict)
        for name, array in (read_arrays(self.path) if self.path.exists() else {}).items():
            task, _, rest = name.partition("/")
            odd = rest == self.name and (array.dtype.kind not in "iu" or array.shape not in ((2,), (3,)))
            if odd or not (task.isdecimal() and rest):
                raise EvorError(f"{self.path} holds {name!r}, which evor does not write there; remove the file.")
            by_task[int(task)][rest] = array
        return dict(by_task)

    def mark(self, task: int) -> Mark | None:
        """The mark of a task's arrays, None where there are none."""
        return self._marks().get(task)

    def mark_old(self, mark: Callable[[int], Mark]) -> None:
        """Give arrays without a mark, which version 0.1.0 wrote, that of their task."""
        stored = self.read()
        if any(self.name not in arrays for arrays in stored.values()):
            self._write({task: {self.name: np.array(mark(task))} | arrays for task, arrays in stored.items()})

    def wants(self, task: int, mark: Mark) -> bool:
        """Whether arrays of this mark are better than those of the task that are there, and of no older checkpoint."""
        marks = self._marks()
        newest = max((other[0] for other in marks.values()), default=0)
        return mark[0] >= newest and (task not in marks or self.rank(mark) > self.rank(marks[task]))

    def keep(self, new: dict[int, Arrays]) -> None:
        """Store arrays with their marks, of each task unless better ones are there; drop those of older checkpoints."""
        merged = self.read()
        for task, arrays in new.items():
            if task not in merged or self._rank(arrays) >= self._rank(merged[task]):
                merged[task] = arrays
        newest = max(self._rank(arrays)[0] for arrays in merged.values())
        self._write({task: arrays for task, arrays in merged.items() if self._rank(arrays)[0] == newest})

    def _marks(self) -> dict[int, Mark]:
        return {task: _mark(arrays[self.name]) for task, arrays in self.read().items() if self.name in arrays}

    def _rank(self, arrays: Arrays) -> Mark:
        return self.rank(_mark(arrays[self.name])) if self.name in arrays else (-1,)

    def _write(self, by_task: dict[int, Arrays]) -> None:
        names = {f"{task}/{name}": array for task, arrays in by_task.items() for name, array in arrays.items()}
        write_npz(self.path, dict(sorted(names.items())))


def _mark(array: np.ndarray) -> Mark:
    return tuple(int(number) for number in array)
