"""Proposals of a base policy as jobs: each draws those of some rows into a file of its own, on any machine."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from evor.errors import EvorError
from evor.policies.base_policy import BasePolicy, by_keys, draw, open_base
from evor.runtime.files import atomic_path
from evor.runtime.parallel import Local, Ray, parallel_map
from evor.training.drawn import append_rows, npy_header

BLOCK = 32  # observations that a base policy gets at once
PIECE = 8 * BLOCK  # rows of a job: an interruption may cost a process as many

Drawn = Float[np.ndarray, "B K h A"]


class Request(NamedTuple):
    """Everything about a base policy that its proposals depend on, besides the rows."""

    base: Any  # a text, where it travels to other processes
    timeout: float
    keys: tuple[tuple[str, int], ...]  # parts of an observation by their names, and their widths
    num: int
    chunk_length: int
    width: int

    def at(self, policy: BasePolicy, observations: np.ndarray, *, seed: int) -> Drawn:
        """Proposals at some observations."""
        drawn = draw(
            policy,
            by_keys(observations, self.keys),
            rows=len(observations),
            num=self.num,
            seed=seed,
            chunk_length=self.chunk_length,
            width=self.width,
        )
        return drawn[:, :, : self.chunk_length]


class Job(NamedTuple):
    """Rows to draw for: from `start` to `stop` of the observations in a file, into the folder `pieces`."""

    request: Request
    observations: Path
    pieces: Path
    start: int
    stop: int

    @property
    def path(self) -> Path:
        return self.pieces / f"{self.start:09d}.npy"


def draw_piece(job: Job) -> None:
    """Draw block by block, as one process draws all rows, and write what was drawn; what is there already stays."""
    if job.path.exists():
        return
    policy = _opened(job.request.base, job.request.timeout)
    observations = np.load(job.observations, mmap_mode="r", allow_pickle=False)
    blocks = [
        job.request.at(policy, np.array(observations[row : min(row + BLOCK, job.stop)]), seed=row)
        for row in range(job.start, job.stop, BLOCK)
    ]
    with atomic_path(job.path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, np.concatenate(blocks), allow_pickle=False)


@functools.cache
def _opened(base: str, timeout: float) -> BasePolicy:
    """A base policy, once per process."""
    return open_base(base, timeout=timeout)


@contextmanager
def drawn_on(
    machines: Local | Ray, request: Request, *, work: Path, total: int, rows: Callable[[int, int], np.ndarray]
) -> Generator[Callable[[int, int], Drawn]]:
    """Yield a function that returns the block of proposals from a row on; it is asked for one block after the other.

    `rows(start, stop)` are observations. They and the pieces lie in the folder `work`.
    """
    pieces = _Pieces(machines, request, work=work, total=total, rows=rows)
    with closing(pieces):
        yield pieces.block


class _Pieces:
    """Pieces in the order of the rows, drawn in whichever order they end."""

    def __init__(
        self,
        machines: Local | Ray,
        request: Request,
        *,
        work: Path,
        total: int,
        rows: Callable[[int, int], np.ndarray],
    ):
        self._machines, self._request, self._work, self._total, self._rows = machines, request, work, total, rows
        self._jobs: deque[Job] = deque()  # whose rows were not all asked for yet
        self._results: Any = None

    def block(self, index: int, row: int) -> Drawn:
        """Wait for the piece of a row, and take a block of it."""
        if self._results is None:
            self._begin(row)
        job = self._jobs[0]
        while not job.path.exists():
            if next(self._results, self) is self:
                raise EvorError(f"{job.path} is gone; run the same command again.")
        block = np.load(job.path, allow_pickle=False)[row - job.start : row - job.start + BLOCK]
        if row + len(block) >= job.stop:
            self._jobs.popleft()
            job.path.unlink()
        return block

    def _begin(self, first: int) -> None:
        """Write the observations, and start with the piece of the first row that is asked for."""
        self._work.mkdir(exist_ok=True)
        path = self._work / "observations.npy"
        if not path.exists():
            shape = self._total, self._rows(0, 1).shape[1]
            # Written, not mapped: a full disk would kill the process.
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                file.write(npy_header(shape))
                for start in range(0, self._total, PIECE):
                    append_rows(file, self._rows(start, min(start + PIECE, self._total)))
        edges = [first, *range(first - first % PIECE + PIECE, self._total, PIECE), self._total]
        self._jobs.extend(
            Job(self._request, path, self._work, start, stop) for start, stop in itertools.pairwise(edges)
        )
        jobs = [(job,) for job in self._jobs]
        self._results = parallel_map(draw_piece, jobs, self._machines, shared=self._work)

    def close(self) -> None:
        """End the jobs that run."""
        if self._results is not None:
            self._results.close()
