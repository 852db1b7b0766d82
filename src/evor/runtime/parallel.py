"""The same function on many jobs, in processes of their own; results in the order of the jobs."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from typing import Any


def one_thread() -> None:
    """Ask XLA for one thread on the CPU, unless PJRT_NPROC says otherwise; to be called before JAX's first computation.

    Networks of this size lose more by passing work between threads than they gain (docs/performance.md): what there is
    to do at once goes to processes.
    """
    os.environ.setdefault("PJRT_NPROC", "1")


def default_workers() -> int:
    """One process per core this process may use."""
    return len(usable_cores())


def parallel_map(
    function: Callable[..., Any], jobs: Sequence[tuple], *, workers: int, pin_cores: bool = False
) -> Generator[Any]:
    """Yield function(*job) for every job. With `pin_cores` each process keeps to one core."""
    workers = min(workers, len(jobs))
    if not workers:
        return
    if workers <= 1 and not pin_cores:
        yield from (function(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for index in range(workers):
        cores.put(usable_cores()[index % len(usable_cores())] if pin_cores else None)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_init_worker, initargs=(cores,)) as pool:
        try:
            yield from pool.map(function, *zip(*jobs, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _init_worker(cores: Queue) -> None:
    exit_with_parent()
    core = cores.get()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def exit_with_parent() -> None:
    """End this process with its parent, however that ends, so that a restarted run never races an orphaned worker."""

    def wait(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=wait, args=(parent,), daemon=True).start()


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
