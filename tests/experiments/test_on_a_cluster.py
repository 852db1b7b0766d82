"""A small matrix on a Ray cluster of two nodes, all on this machine: whatever is killed, it ends with the bytes of one process."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusters import PATIENCE, Machines

pytestmark = pytest.mark.slow

# The command of a driver: two cells of one task, long enough to be killed in.
DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore Ctrl-C, and hand that down
from pathlib import Path
from evor.cli.main import main
from evor.experiments.reproduce.matrices import PAPER, Part, Plan
from evor.experiments.reproduce.scales import SCALES, Scale
SCALES["tiny"] = Scale(name="tiny", seeds=1, updates=6000, evaluate_every=2000, episodes=1, hidden=(16, 16),
                       transitions=4000, batch_size=16, max_episode_steps=20)
PAPER.plans["tiny"] = Plan((Part("pointmaze-medium-navigate-v0", (1,), ("evor", "bc")),))
sys.exit(main(sys.argv[1:]))
"""
REPRODUCE = ["reproduce", "paper", "--scale", "tiny"]
VERIFY = [
    "verify",
    "--problems",
    "coin",
    "--methods",
    "monte-carlo",
    "flow-td",
    "--episodes",
    "2000",
    "--updates",
    "20",
    "--hidden",
    "8",
]


def start(out: Path, data: Path, *words: str) -> subprocess.Popen:
    return command(*REPRODUCE, "--out", str(out), "--data", str(data), *words)


def command(*words: str) -> subprocess.Popen:
    program = [sys.executable, "-c", DRIVER, *words]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and last words."""
    try:
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, said


def contents(out: Path) -> dict[str, bytes]:
    """What must be equal."""
    paths = [out / "results.csv", *sorted(out.glob("cells/*/*/*/checkpoints/*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_folder) -> dict[str, bytes]:
    """The files of one local process."""
    out = tmp_path_factory.mktemp("local") / "out"
    code, said = finish(start(out, data_folder, "--workers", "1"))
    assert code == 0, said
    return contents(out)


def until(process: subprocess.Popen, out: Path, pattern: str) -> Path:
    """Wait until the driver has made a file."""
    for _ in range(PATIENCE * 10):
        if found := sorted(out.glob(pattern)):
            return found[0]
        try:
            code = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended with {code} before there was {pattern}: {process.stderr.read()}")
    raise AssertionError(f"there is no {pattern}")


def worker_of(cell: Path) -> int:
    """The process that trains a cell, as its log tells."""
    return int(re.findall(r"process (\d+)", (cell / "log.txt").read_text())[-1])


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def on(machines: Machines) -> list[str]:
    return ["--ray", machines.address]


@pytest.fixture(params=["cluster", "processes"])
def where(request) -> list[str]:
    """Options of a command that runs two jobs at once."""
    return on(request.getfixturevalue("machines")) if request.param == "cluster" else ["--workers", "2"]


def test_two_nodes_end_with_the_bytes_of_one_process(machines, whole, tmp_path, data_folder):
    out = tmp_path / "out"
    code, said = finish(start(out, data_folder, *on(machines)))
    assert code == 0, said
    assert contents(out) == whole
    assert not list(out.glob(".*"))  # neither a lock nor what every machine had to see


def test_what_a_killed_process_did_is_done_again(where, whole, tmp_path, data_folder):
    """The same call goes on, from the last checkpoint."""
    out = tmp_path / "out"
    driver = start(out, data_folder, *where)
    cell = until(driver, out, "cells/*/*/*/checkpoints/step_000002000.*").parents[1]
    os.kill(worker_of(cell), signal.SIGKILL)
    check_second_try(driver, cell, whole, out=out)


def test_what_a_killed_node_did_is_done_elsewhere(machines, whole, tmp_path, data_folder):
    out = tmp_path / "out"
    driver = start(out, data_folder, *on(machines))
    cell = until(driver, out, "cells/*/*/*/checkpoints/step_000002000.*").parents[1]
    worker = worker_of(cell)
    os.kill(parent_of(worker), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    check_second_try(driver, cell, whole, out=out)
    machines.mend()


def check_second_try(driver: subprocess.Popen, cell: Path, whole: dict[str, bytes], *, out: Path) -> None:
    """The driver ends as if nothing had been, and another process has gone on with the cell."""
    code, said = finish(driver)
    assert code == 0, said
    assert contents(out) == whole
    assert [line["step"] for line in lines(cell)][-1] == 6000
    tries = re.findall(r"process (\d+)", (cell / "log.txt").read_text())
    assert len(tries) == 2
    assert tries[0] != tries[1]


def lines(cell: Path) -> list[dict]:
    from evor.runtime.files import read_json_lines

    return read_json_lines(cell / "timings.jsonl")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_is_started_again(how, where, whole, tmp_path, data_folder):
    out = tmp_path / "out"
    driver = start(out, data_folder, *where)
    cell = until(driver, out, "cells/*/*/*/checkpoints/step_000002000.*").parents[1]
    worker = worker_of(cell)
    driver.send_signal(how)
    code, said = finish(driver)
    assert code == (130 if how == signal.SIGINT else -9), said
    gone(worker)
    saved = max(int(path.stem[5:]) for path in cell.glob("checkpoints/step_*"))
    assert saved >= 2000
    if how == signal.SIGINT:
        assert "interrupted at" in (cell / "log.txt").read_text()  # and saved
        assert (out / "results.md").exists() == bool(list(out.glob("cells/*/*/*/rows/*[0-9].json")))
    code, said = finish(start(out, data_folder, *where))
    assert code == 0, said
    assert contents(out) == whole


def gone(process: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    try:
        ended = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([ended], [], [], PATIENCE)[0], f"process {process} lives"
    finally:
        os.close(ended)


def test_what_the_cluster_lacks_is_said_at_once(machines, tmp_path, data_folder):
    code, said = finish(start(tmp_path / "out", data_folder, *on(machines), "--gpus", "1"))
    assert code == 2
    assert not (tmp_path / "out").exists()
    assert re.search(
        r"no machine of the cluster has 1 GPUs and 1 CPUs; they have 0 GPUs and 0 CPUs, 0 GPUs and 1 CPUs\.", said
    )


def test_verify_measures_the_same(machines, tmp_path):
    measured = []
    for name, words in (("local", ["--workers", "1"]), ("cluster", on(machines))):
        code, said = finish(command(*VERIFY, "--out", str(tmp_path / name), *words))
        assert code == 0, said
        measured.append([path.read_bytes() for path in sorted((tmp_path / name).glob("cells/*/*/measures.json"))])
    assert len(measured[0]) == 2
    assert measured[0] == measured[1]
