"""One run on several devices: how it is split, and what four simulated devices train (four_devices.py)."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, ended
from evor.cli.main import main
from evor.errors import EvorError
from evor.runtime.files import read_json
from evor.runtime.records import replace
from evor.training import checkpoint
from evor.training.config import RunConfig
from evor.training.sharding import Devices, Split, mesh_of, split_of

FOUR = "--xla_force_host_platform_device_count=4"


def config_of(seeds: int, tasks: int, batch: int = 256) -> RunConfig:
    return RunConfig(
        dataset="x", num_seeds=seeds, tasks=tuple(range(1, tasks + 1)), agent=replace(TINY, batch_size=batch)
    )


@pytest.mark.parametrize(
    ("networks", "available", "devices", "expected"),
    [
        ((3, 5), 8, Devices(), Split(1, 5)),  # 3, 5 or 15, never 8
        ((3, 5), 16, Devices(), Split(3, 5)),
        ((3, 5), 4, Devices(), Split(3)),
        ((3, 5), 2, Devices(), Split()),
        ((4, 4), 4, Devices(), Split(4)),  # seeds first: tasks would train each base again
        ((4, 6), 8, Devices(), Split(4, 2)),
        ((4, 6), 8, Devices(6), Split(2, 3)),
        ((4, 4), 8, Devices(None, 4), Split(2, 1, 4)),
        ((4, 4), 8, Devices(2, 4), Split(2, 1, 4)),
        ((1, 1), 8, Devices(), Split()),
        ((2**30, 1), 8, Devices(), Split(8)),  # soon
    ],
)
def test_seeds_are_split_before_tasks_over_the_most_devices(networks, available, devices, expected):
    assert split_of(config_of(*networks), devices, available=available) == expected


@pytest.mark.parametrize(
    ("networks", "available", "devices", "told"),
    [
        (
            (3, 5),
            8,
            Devices(8),
            "devices is 8, and 3 seeds x 5 tasks can't be split into so many equal parts; give 1, 3 or 5.",
        ),
        ((1, 1), 8, Devices(2), "devices is 2, and 1 seed x 1 task can't be split into so many equal parts; give 1."),
        ((4, 1), 2, Devices(4), "devices is 4, and JAX finds 2 devices here; ask for no more."),
        ((4, 1), 4, Devices(4, 2), "devices is 4 and batch_devices 2, and JAX finds 4 devices here; ask for no more."),
        (
            (1, 1),
            1,
            Devices(None, 2),
            "devices is 1 and batch_devices 2, and JAX finds 1 device here; ask for no more.",
        ),
        (
            (1, 1),
            4,
            Devices(None, 3),
            "batch_devices is 3, and a batch of 256 can't be split into so many equal parts; give 1, 2 or 4.",
        ),
        ((4, 1), 4, Devices(0), "devices is 0; it must be at least 1, a whole number."),
        ((4, 1), 4, Devices(None, 0), "batch_devices is 0; it must be at least 1, a whole number."),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused_with_what_does(networks, available, devices, told):
    with pytest.raises(EvorError, match=f"^{re.escape(told)}$"):
        split_of(config_of(*networks), devices, available=available)


def test_one_device_has_no_mesh():
    assert mesh_of(Split()) is None


def test_the_command_refuses_before_anything_is_written(here, capsys):
    options = ["train", "--data", "mine.npz", "--out", "run"]
    assert main([*options, "--devices", "2"]) == 2
    assert (
        "devices is 2, and 1 seed x 1 task can't be split into so many equal parts; give 1." in capsys.readouterr().err
    )
    assert main([*options, "--batch-devices", "2"]) == 2
    assert "JAX finds 1 device here" in capsys.readouterr().err
    assert not (here / "run").exists()


# On four simulated devices.


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FOUR}"} | variables


@pytest.mark.slow
def test_four_simulated_devices():
    file = Path(__file__).with_name("four_devices.py")
    # As many threads as devices: those that share a batch wait for one another.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", str(file)],
        capture_output=True,
        text=True,
        env=environment(PJRT_NPROC="4"),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def command(out: Path, data: Path, *options: str) -> list[str]:
    sizes = "--updates 600 --checkpoint-every 100 --log-every 50 --agent.hidden 16 16 --agent.batch-size 32"
    source = ["--data", str(data), "--out", str(out), "--num-seeds", "4", "--agent.next-action", "dataset-action"]
    return [sys.executable, "-m", "evor.cli.main", "train", *source, *sizes.split(), *options]


def arrays_of(out: Path) -> dict[str, np.ndarray]:
    return checkpoint.load_arrays(checkpoint.checkpoint_path(out / "checkpoints", 600))[0]


@pytest.mark.slow
def test_killed_and_resumed_on_the_same_devices_ends_bit_identical(tmp_path, user_file):
    """The default is all four devices of the machine, and provenance tells of them."""
    data, whole, out = user_file(), tmp_path / "whole", tmp_path / "run"
    subprocess.run(command(whole, data), env=environment(), check=True, capture_output=True)
    killed = subprocess.Popen(command(out, data, "--devices", "4"), env=environment(), stderr=subprocess.DEVNULL)
    while not ended(killed):
        if any((out / "checkpoints").glob("step_*")):
            killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.newest(out / "checkpoints")[1]["step"] < 600
    subprocess.run(command(out, data, "--resume"), env=environment(), check=True, capture_output=True)
    one, other = arrays_of(whole), arrays_of(out)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one | other)
    assert (whole / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()
    assert len({line["seed"] for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())}) == 4
    assert read_json(out / "provenance.json")["devices"] == {"seeds": 4, "tasks": 1, "batch": 1}
