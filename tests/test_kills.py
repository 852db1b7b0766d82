"""SIGKILLs at random moments of training, evaluation, generation and import: what is resumed ends byte for byte as if nothing had been.

130 kills in all. EVOR_TEST_SEED repeats the moments of a failure, as far as the machine repeats its pace.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import recordings
from conftest import DATASET, user_arrays
from evor.imitation.demonstrations import write
from evor.imitation.ledge import demonstrated

pytestmark = pytest.mark.slow

SEED = os.environ.get("EVOR_TEST_SEED") or str(random.randrange(10**6))
TIMES = "timings.jsonl"  # how long it took differs
TINY = ["--agent.hidden", "16", "16", "--agent.batch-size", "32"]
TRAIN = [
    "train",
    *TINY,
    "--updates",
    "1200",
    "--checkpoint-every",
    "40",
    "--log-every",
    "20",
    "--out",
    "run",
    "--resume",
]
STITCH = "pointmaze-medium-stitch-v0"
# The command line, with short episodes and few places to draw.
EVOR = """
import sys, gymnasium, ogbench
from evor.cli import main as cli
from evor.rollouts import maze
maze.CELLS_PER_SIDE = 2
for task in range(1, 6):
    gymnasium.registry[f"pointmaze-medium-singletask-task{task}-v0"].max_episode_steps = 50
sys.exit(cli.main(sys.argv[1:]))
"""

# The command line, with small shards.
IMPORT = """
import sys
from evor.cli import main as cli
from evor.data import shards
shards.MOST_ROWS = 20
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Processes compile once: the reference fills a cache of their own."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}


def kill(
    command: Sequence[str],
    kills: int,
    tmp_path: Path,
    environment: dict[str, str],
    prepare: Callable[[Path], None],
    program: Sequence[str] = (sys.executable, "-m", "evor.cli.main"),
) -> None:
    """Kill `command`, which resumes, so many times, in as many folders as it takes to finish it; compare these with a
    reference that nothing has interrupted. `prepare` fills a new folder with what is there before."""

    def start(folder: Path) -> subprocess.Popen:
        # Into a file: a pipe that is not read would fill, and the process wait.
        with open(tmp_path / "said", "ab") as said:
            return subprocess.Popen([*program, *command], cwd=folder, stdout=said, stderr=said, env=environment)

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        prepare(folder)
        return folder

    assert start(fresh("warm")).wait() == 0
    reference = fresh("reference")
    began = time.monotonic()
    assert start(reference).wait() == 0
    duration = time.monotonic() - began
    wanted = contents(reference)
    generator, finished, folder, killed = random.Random(SEED), 0, fresh("0"), []
    while len(killed) < kills:
        process, moment = start(folder), generator.uniform(0, duration)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code == -9:
            killed.append(f"{moment:.2f} s in {folder.name}")
            continue
        check(folder, code, wanted, killed)
        finished += 1
        folder = fresh(str(finished))
    check(folder, start(folder).wait(), wanted, killed)


def check(folder: Path, code: int, wanted: dict[str, bytes], killed: list[str]) -> None:
    """Assert that a folder is finished, and that all its files are those of the reference."""
    moments = f"EVOR_TEST_SEED={SEED}; killed after {', '.join(killed)}"
    said = (folder.parent / "said").read_text().splitlines()
    assert code == 0 or said[-1].endswith("exists already; remove it or choose another --out."), [moments, *said[-20:]]
    found = contents(folder)
    assert found.keys() == wanted.keys(), moments
    assert [name for name in wanted if found[name] != wanted[name]] == [], moments


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too; of times the steps, and of proposals all but how long they took."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not is_swept_later(path)]
    read = {TIMES: steps, "proposals.json": without_seconds}
    return {str(path.relative_to(folder)): read.get(path.name, Path.read_bytes)(path) for path in paths}


def is_swept_later(path: Path) -> bool:
    """Whether a temporary file may stay for a day: where other processes may write, nothing tells that its own is gone."""
    return any(part.endswith(".partial") for part in path.parts) and bool({".evor", "evaluations"} & set(path.parts))


def without_seconds(path: Path) -> bytes:
    content = json.loads(path.read_bytes())
    return json.dumps({name: value for name, value in content.items() if name != "seconds"}).encode()


def steps(path: Path) -> bytes:
    return b" ".join(str(json.loads(line)["step"]).encode() for line in path.read_bytes().splitlines())


def write_shards(folder: Path) -> None:
    """Three files of other sizes."""
    (folder / "shards").mkdir()
    for index, rows in enumerate((400, 60, 240)):
        np.savez(folder / "shards" / f"{index}.npz", **user_arrays(rows=rows, seed=index))


def test_training(tmp_path, environment):
    kill([*TRAIN, "--data", "shards"], 20, tmp_path, environment, write_shards)


def test_training_under_a_cap_on_memory(tmp_path, environment):
    """The shards are laid out into a cache first, which must be whole too."""
    command = [*TRAIN, "--data", "shards", "--memory-gb", "0.00005"]
    kill(command, 20, tmp_path, environment, write_shards)
    assert (tmp_path / "reference" / "shards" / ".evor").exists()  # the cap is one


def test_evaluation(tmp_path, environment, data_folder):
    run = tmp_path / "trained"
    command = [
        "train",
        DATASET,
        "--data",
        str(data_folder),
        "--tasks",
        "1",
        "4",
        "--num-seeds",
        "2",
        "--updates",
        "20",
        *TINY,
    ]
    program = [sys.executable, "-c", EVOR]
    assert subprocess.run([*program, *command, "--out", str(run)], env=environment).returncode == 0
    command = [
        "evaluate",
        "run",
        "--resume",
        "--episodes",
        "4",
        "--extraction",
        "softmax-of",
        "--num-candidates",
        "2",
    ]
    kill(command, 30, tmp_path, environment, lambda folder: shutil.copytree(run, folder / "run"), program)


@pytest.mark.parametrize(("workers", "kills"), [(1, 20), (2, 10)])
def test_generation(tmp_path, environment, workers, kills):
    command = ["data", "generate", STITCH, "--transitions", "8000", "--workers", str(workers), "--out", "data"]
    kill(command, kills, tmp_path, environment, lambda folder: None)


def test_import(tmp_path, environment):
    """Two sources that become many small shards: killed while it reads, writes, and gives the folder its final name."""
    episodes = recordings.record(60)

    def prepare(folder: Path) -> None:
        recordings.lerobot_v30(folder / "arm", episodes)
        recordings.lerobot_v21(folder / "more", episodes[:20])
        for path in folder.rglob("*"):
            os.utime(path, (0, 0))  # which import.json tells

    command = [
        "data",
        "import",
        "arm",
        "more",
        "--success",
        "column:next.success",
        "--reward",
        "steps",
        "--out",
        "data",
    ]
    kill(command, 20, tmp_path, environment, prepare, [sys.executable, "-c", IMPORT])
    assert len(list((tmp_path / "reference/data").glob("shard-*.npz"))) > 100


def test_imitation(tmp_path, environment):
    def prepare(folder: Path) -> None:
        write(demonstrated("ledge", episodes=2, tremble=0.0), folder / "e.npz")
        write(demonstrated("ledge-bridge", episodes=5, tremble=0.3), folder / "o.npz")

    command = ["imitate", "ledge", "--demos", "e.npz", "--offline", "o.npz", "--out", "run", "--seeds", "0", "1"]
    command += ["--steps", "2400", "--evaluate-every", "480", "--learner.hidden", "8", "--rollouts", "1"]
    kill(command, 10, tmp_path, environment, prepare)
