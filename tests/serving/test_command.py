"""`evor serve` as a command: what it refuses, and its process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import evor
from conftest import ended
from evor.cli.main import main

EXPORT = Path(__file__).parents[1] / "version_0_1_0" / "export"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 lets other machines connect"),
        ("--key-file none", "the key file none can't be read"),
        ("--num-candidates 65", "--num-candidates is 65, above --max-candidates 64"),
        ("--observation-keys a b c", "--observation-keys has 3 names without widths"),
        ("--budget-ms 0", "budget_ms is 0.0; it must be above 0"),
        ("--decision-seed -1 --port 99999", "decision_seed is -1; it must be at least 0"),
        ("--port 99999", "--port is 99999; give one from 1 to 65535"),
        ("--task 7", "holds task 1, not 7"),
        ("--base python:nowhere_at_all:propose", "nowhere_at_all can't be imported"),
    ],
)
def test_what_can_not_be_served_ends_with_2(options, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", str(EXPORT), *options.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_a_port_in_use_ends_with_2(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["serve", str(EXPORT), "--port", str(other.getsockname()[1])]) == 2
    assert "stop its server, or choose another --port" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_answers_the_request_in_flight_and_ends_well(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import pathlib\nimport numpy as np\n"
        "def propose(observations, num, seed):\n"
        "    print('no line of the log')\n"
        "    if 'slow' in observations:\n"
        "        pathlib.Path('began').touch()\n"
        "        open('go').read(1)\n"
        "    return np.full((1, num, 1, 2), 0.25)\n"
    )
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)  # waits for no reader
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o600)
    words = [
        "--base",
        "python:mine:propose",
        "--port",
        "0",
        "--num-candidates",
        "2",
        "--key-file",
        "key",
        "--host",
        "0.0.0.0",
        "--record",
        "seen",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "evor", "serve", str(EXPORT), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    told = json.loads(process.stdout.readline())
    assert told["event"] == "listening"
    got = []
    client = evor.Client(f"ws://127.0.0.1:{told['port']}", "secret")
    assert client.act([0.0, 0.0]).tolist() == [0.25, 0.25]
    asking = threading.Thread(target=lambda: got.append(client.act({"observation": np.zeros(2), "slow": 1})))
    asking.start()
    while not (tmp_path / "began").exists():
        assert not ended(process)
    process.send_signal(signal.SIGTERM)
    os.write(go, b"!")
    asking.join(60)
    assert got[0].tolist() == [0.25, 0.25]
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "stopped"
    assert "serving at ws://0.0.0.0:" in err
    assert "no line of the log" in err
    (path,) = (tmp_path / "seen").glob("*.npz")
    assert len(np.load(path)["actions"]) == 2
    client.close()
    os.close(go)
