"""What is in a run or an export, told from its files; and a policy on its way out of a run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evor
from conftest import TINY, user_arrays
from evor.agents.next_action import DatasetAction
from evor.cli.main import main
from evor.runtime.records import replace

OLD = Path(__file__).parents[1] / "version_0_1_0"


def test_a_run_is_shown(tiny_run, capsys):
    assert main(["show", str(tiny_run)]) == 0
    said = capsys.readouterr().out
    for words in ("SampleBackup", "digest", "return std", "20 of 20", "last metrics", "evor.load(", "evor evaluate"):
        assert words in said
    assert main(["show", str(tiny_run), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["kind"], content["tasks"], content["seeds"]) == ("run", [1, 4], [0, 1])
    assert (content["config"]["updates"], content["checkpoints"]) == (20, [10, 20])
    assert content["data"]["digest"]
    assert set(content["return_std"]) == {"1", "4"}
    assert content["trained_with"]["versions"]["evor"] == evor.__version__
    assert content["metrics"]["updates"] == 20
    assert content["evaluations"] == []
    assert any("evor export" in line for line in content["use"])


def test_the_commands_that_it_names_can_be_copied(tiny_run, tmp_path, capsys):
    spaced = tmp_path / "a run of mine"
    shutil.copytree(tiny_run, spaced)
    assert main(["show", str(spaced), "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["use"][1]
    commands = [shlex.split(command) for command in re.findall(r"`(.*?)`", line)]
    assert [command[:3] for command in commands] == [["evor", "evaluate", str(spaced)], ["evor", "export", str(spaced)]]


def test_what_version_0_1_0_wrote_is_shown(capsys):
    assert main(["show", str(OLD / "run"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["config"]["updates"] == 20
    assert content["trained_with"]["versions"]["evor"] == "0.1.0"
    assert content["evaluations"][0]["episodes"] == 2
    assert main(["show", str(OLD / "export"), "--json"]) == 0
    export = json.loads(capsys.readouterr().out)
    assert (export["kind"], export["tasks"], export["checkpoints"]) == ("export", [1], [20])
    assert export["return_std"]["1"] == pytest.approx(content["return_std"]["1"])


def test_a_run_without_checkpoints_and_a_damaged_one(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    last = tmp_path / "run/checkpoints/step_000000020.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    assert main(["show", str(tmp_path / "run")]) == 2
    assert "cut or damaged" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "There is no checkpoint yet" in capsys.readouterr().out
    assert main(["show", str(tmp_path)]) == 2
    assert "is no run and no exported policy" in capsys.readouterr().err


def test_showing_needs_no_jax(tiny_run):
    code = f"import sys; from evor.cli.main import main; main(['show', {str(tiny_run)!r}, '--quiet']); "
    code += "print(*{'jax', 'equinox', 'optax', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stderr == "\n"


def test_a_policy_is_exported(tiny_run, tmp_path, capsys):
    out = tmp_path / "robot"
    command = ["export", str(tiny_run), "--out", str(out)]
    assert main(command) == 2
    assert "several tasks" in (said := capsys.readouterr().err)
    assert "choose a task (--task)" in said
    assert main([*command, "--task", "4", "--seed", "1", "--checkpoint", "10", "--json", "--quiet"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["task"], content["seed"], content["updates"]) == (4, 1, 10)
    assert evor.load(out).origin["updates"] == 10
    assert main([*command, "--task", "4", "--seed", "1"]) == 2
    assert "already holds a policy" in capsys.readouterr().err
    assert main(["show", str(out)]) == 0


def still(observations, num, seed):
    """A base policy that does nothing."""
    return np.zeros((len(observations["observation"]), num, 2))


def test_a_value_over_a_base_policy_is_shown_and_exported_with_it(tmp_path, monkeypatch, capsys):
    """What is printed opens a policy that acts: without the base policy, a value proposes nothing."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    base, data = "python:test_show:still", user_arrays()
    evor.propose(data, base=base, num=2, out=tmp_path / "P", quiet=True)
    agent = replace(TINY, base=evor.Frozen(), objective=replace(TINY.objective, n_steps=1))
    run = evor.train(data, agent=agent, proposals=tmp_path / "P", out=tmp_path / "run", updates=1, quiet=True)
    assert main(["export", str(run.folder), "--out", str(tmp_path / "robot")]) == 0
    assert f"robot', base='{base}')" in capsys.readouterr().err
    for folder in (run.folder, tmp_path / "robot"):
        assert main(["show", str(folder), "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["base"] == base
        line = content["use"][0].removeprefix("In Python: ")
        found = {"evor": evor, "observation": np.zeros(3)}
        exec(line, found)
        assert found["action"].tolist() == [0, 0]
    taught = replace(agent, next_action=DatasetAction())  # by the data alone: nothing says which base policy will act
    own = evor.train(data, agent=taught, out=tmp_path / "own", updates=1, quiet=True)
    assert main(["show", str(own.folder), "--json"]) == 0
    assert "base=POLICY" in json.loads(capsys.readouterr().out)["use"][0]


# Completion.


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.slow)])
def test_a_completion_script_names_commands_and_options(shell, capsys):
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (
        "evaluate",
        "generate",
        "--updates",
        "--agent.objective",
        "sample-backup",
        "--num-candidates",
        "smoke",
    ):
        assert word in script
    if shell == "bash" and shutil.which("bash"):
        asked = 'COMP_WORDS=(evor train --agent.objective ""); COMP_CWORD=3; _tyro_evor; echo "${COMPREPLY[@]}"'
        told = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True)
        assert told.stdout.split() == ["flow-td", "monte-carlo", "sample-backup"], told.stderr


def test_completion_of_an_unknown_shell(capsys):
    assert main(["--print-completion"]) == 2
    assert "--print-completion needs the name of a shell; known: bash, zsh" in capsys.readouterr().err
    assert main(["--print-completion=fsh"]) == 2


def test_the_overview_says_what_evor_is_and_how_to_complete(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "evor trains policies" in said
    assert max(map(len, said.splitlines())) <= 80  # columns of a terminal
    assert "see `evor COMMAND --help`" in said
    assert "--print-completion" in said
