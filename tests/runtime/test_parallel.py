"""Jobs in processes: results as they end, and a process that dies takes no other job along."""

import os
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evor.errors import EvorError
from evor.runtime import parallel, processes
from evor.runtime.parallel import TRIES, Ended, Local, parallel_map


def wait_for(path: Path) -> None:
    """Until a file or pipe is there."""
    descriptor = os.open(path, os.O_RDONLY)  # of a named pipe: until somebody opens it to write
    os.close(descriptor)


def in_turn(name: str, waits: Path | None, wakes: Path | None) -> str:
    """Ends after the job that wakes it."""
    if waits is not None:
        wait_for(waits)
    if wakes is not None:
        os.close(os.open(wakes, os.O_WRONLY))
    return name


def dying(tries: Path, times: int) -> str:
    """Dies so often."""
    with open(tries, "ab") as file:
        file.write(b".")
    if tries.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


def told(ready: Path, said: Path) -> None:
    """Waits for SIGINT, and says so."""
    try:
        os.close(os.open(ready, os.O_WRONLY))
        signal.pause()
    except KeyboardInterrupt:
        said.write_text("saved")
        raise


def threads(_: int) -> tuple[str | None, int]:
    return os.environ.get("PJRT_NPROC"), os.getpid()


def failing() -> None:
    raise ValueError("odd")


@pytest.fixture
def pipe(tmp_path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_long_first_job_holds_back_no_other(pipe):
    jobs = [("first", pipe, None), ("second", None, pipe)]
    assert set(parallel_map(in_turn, jobs, Local(2))) == {"first", "second"}
    results = parallel_map(in_turn, [("first", pipe, None), ("second", None, None)], Local(2))
    assert next(results) == "second"  # while the first waits
    with ThreadPoolExecutor(1) as other:
        other.submit(in_turn, "", None, pipe)
        assert list(results) == ["first"]


def test_a_process_that_dies_takes_no_other_job_along(tmp_path, monkeypatch):
    jobs = [(tmp_path / "twice", TRIES - 1), (tmp_path / "never", 0), (tmp_path / "always", 99)]
    lost = []

    def note(why: str, path: Path, times: int) -> str:
        lost.append((why, path.name, times))
        return "lost"

    found = sorted(parallel_map(dying, jobs, Local(1, pin_cores=True), lost=note))
    assert found == ["lived", "lived", "lost"]
    assert lost == [("killed by signal 9", "always", 99)]
    assert (tmp_path / "always").stat().st_size == TRIES
    monkeypatch.setattr(parallel, "TRIES", 1)
    with pytest.raises(EvorError, match=r"lost 1 times \(killed by signal 9\)"):
        list(parallel_map(dying, [(tmp_path / "again", 99)], Local(2)))


@pytest.fixture
def listens_to_ctrl_c():
    """Ctrl-C is an exception, also where this process was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_who_stops_early_lets_jobs_save(pipe, tmp_path):
    results = parallel_map(told, [(pipe, tmp_path / "said"), (pipe, tmp_path / "never")], Local(1, pin_cores=True))
    with ThreadPoolExecutor(1) as other:
        other.submit(wait_for, pipe).add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert (tmp_path / "said").read_text() == "saved"
    assert not (tmp_path / "never").exists()


def test_workers_compute_on_one_thread_whoever_started_them(monkeypatch):
    monkeypatch.delenv("PJRT_NPROC")
    found = list(parallel_map(threads, [(1,), (2,)], Local(1, pin_cores=True)))
    assert [number for number, _ in found] == ["1", "1"]
    assert {process for _, process in found} - {os.getpid()} == {process for _, process in found}


def test_an_exception_in_a_worker_is_raised_here_with_its_place():
    with pytest.raises(ValueError, match="odd") as raised:
        list(parallel_map(failing, [()], Local(1, pin_cores=True)))
    assert "test_parallel.py" in str(raised.value.__cause__)


class Scripted:
    """A pool that ends jobs as a script says: a line per call of `ended`, of tickets."""

    def __init__(self, script):
        self.script, self.submitted, self.killed = script, [], []

    def submit(self, ticket, job, *, after=None):
        self.submitted.append((ticket, job, after))

    def full(self):
        return False

    def ended(self, seconds):
        assert seconds == parallel.POLL
        return self.script.pop(0)()

    def kill(self, ticket, why):
        self.killed.append((ticket, why))

    def close(self, *, interrupt):
        self.submitted.append(interrupt)


def test_a_job_without_news_is_ended_and_tried_again(monkeypatch):
    """It is watched from its first news on: before, it waits for a machine."""
    now, news = [0.0], {"hangs": 0, "works": 0}
    monkeypatch.setattr(parallel.time, "monotonic", lambda: now[0])

    def after(seconds, *ended, **told):
        def step():
            now[0] += seconds
            news.update(told)
            return list(ended)

        return step

    late = parallel.SILENCE + 1
    script = [
        after(late),  # both wait
        after(parallel.POLL, hangs=1, works=1),
        after(late, works=2),
        after(1, Ended(0, died="no news")),  # too soon for another look
        after(late, works=3),  # the first waits again
        after(1, Ended(1, "worked")),
        after(1, Ended(0, "lived"), hangs=2),
    ]
    pool = Scripted(script)
    options = {"lost": parallel._refuse, "follow": lambda result: [("more",)] if result == "lived" else ()}
    found = parallel._results(pool, [("hangs",), ("works",)], news=lambda name: news.get(name), **options)
    assert [next(found), next(found)] == ["worked", "lived"]
    assert pool.killed == [(0, "no news for 30 minutes")]
    assert pool.submitted == [
        (0, ("hangs",), None),
        (1, ("works",), None),
        (0, ("hangs",), 0),
        (2, ("more",), 0),
    ]


def test_what_follows_a_job_in_this_process_comes_before_the_next():
    jobs = parallel_map(
        lambda number: number, [(0,), (10,)], Local(1), follow=lambda n: [(n + 1,)] if n % 10 < 2 else ()
    )
    assert list(jobs) == [0, 1, 2, 10, 11, 12]


class Slot:
    """Room for a process that ends its job when it is told to."""

    def __init__(self, function, core, *, variables):
        self.own, self.given = deque(), []

    def give(self, job):
        self.pipe = object()  # as of a process
        self.given.append(*job)

    def answer(self):
        return None, None, ""


@pytest.fixture
def pool_of_two(monkeypatch):
    """A function that makes such a pool: itself, its two slots, and a function that ends the jobs of some."""

    def made(machines, **options):
        monkeypatch.setattr(processes, "_Slot", Slot)
        pool = processes.Processes(None, machines, **options)

        def end(*slots):
            monkeypatch.setattr(processes.connection, "wait", lambda pipes, seconds: [slot.pipe for slot in slots])
            return [ended.ticket for ended in pool.ended(None)]

        return (pool, *pool._all[:2], end)

    return made


def test_what_follows_a_job_stays_in_its_process_while_the_others_have_work(pool_of_two):
    """There everything is compiled. A process without work takes it over."""
    pool, first, second, end = pool_of_two(Local(2), light=lambda job: False)

    for ticket, job in enumerate("abcd"):
        pool.submit(ticket, (job,))
    assert end(first) == [0]
    for ticket, job in enumerate(("a1", "a2", "a3"), start=4):
        pool.submit(ticket, (job,), after=0)
    assert end(second) == [1]
    assert (first.given, second.given) == (["a", "a1"], ["b"])
    end(first, second)
    assert (first.given, second.given) == (["a", "a1"], ["b", "c"])
    end(second)
    assert (first.given, second.given) == (["a", "a1", "a2"], ["b", "c", "d"])
    end(second)
    assert (first.given, second.given) == (["a", "a1", "a2"], ["b", "c", "d", "a3"])


def test_a_gpu_has_one_heavy_job_at_a_time_which_waits_for_no_light_one(pool_of_two):
    """Capitals are heavy. The second waits while the first runs, and goes before what follows that."""
    pool, first, second, end = pool_of_two(Local(2, one_gpu=True), light=str.islower)
    pool.submit(0, ("A",))
    assert not pool.full()  # it has begun
    pool.submit(1, ("B",))
    assert pool.full()
    assert (first.given, second.given) == (["A"], [])
    assert end(first) == [0]
    for ticket, job in enumerate(("a1", "a2"), start=2):
        pool.submit(ticket, (job,), after=0)
    assert not pool.full()
    assert (first.given, second.given) == (["A", "B"], ["a1"])
    end(second)
    assert not pool.full()
    assert (first.given, second.given) == (["A", "B"], ["a1", "a2"])


def test_processes_that_share_a_gpu_divide_its_memory(monkeypatch):
    monkeypatch.setattr(parallel, "usable_cores", lambda: list(range(16)))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert parallel.variables_of(Local(2, one_gpu=True)) == {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450",
        "EVOR_CORES": "15",  # one process plays, and the other trains
    }
    assert parallel.variables_of(Local(4, one_gpu=True))["EVOR_CORES"] == "5"
    assert parallel.variables_of(Local(2, pin_cores=True)) == {}
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    found = list(parallel_map(os.getenv, [("XLA_PYTHON_CLIENT_MEM_FRACTION",)], Local(2, one_gpu=True)))
    assert found == ["0.2"]


def test_one_job_is_made_ahead():
    """Here a job waits for its data: the next one's are made while it runs."""
    made = []

    def jobs():
        for number in range(4):
            made.append(number)
            yield (number,)

    results = parallel_map(abs, jobs(), Local(1, pin_cores=True))
    next(results)
    assert made == [0, 1]
    assert list(results) == [1, 2, 3]


def test_a_process_knows_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(parallel, "usable_cores", lambda: list(range(8)))
    assert (parallel.default_workers(), parallel.neighbours()) == (8, 1)
    monkeypatch.setenv("EVOR_CORES", "3")
    assert (parallel.default_workers(), parallel.neighbours()) == (3, 2)
