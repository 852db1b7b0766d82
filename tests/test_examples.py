"""The programs of examples/, at reduced size."""

import os
import re
import runpy
import subprocess
import sys

import pytest

from documents import DOCS, ROOT
from evor.cli.main import main

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXPORT = ROOT / "tests/version_0_1_0/export"


def run(name, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_explained_and_shown(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert f"python examples/{path.name}" in text.splitlines()[0]
    assert any(f"examples/{path.name}" in page.read_text() for page in DOCS.rglob("*.md"))
    compile(text, path.name, "exec")


def test_every_example_that_the_documents_name_is_there():
    named = {name for page in DOCS.rglob("*.md") for name in re.findall(r"examples/(\w+\.py)", page.read_text())}
    assert named == {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_without_its_arguments_says_what_it_needs(path, monkeypatch):
    if path.name != "own_data.py":  # which needs none
        with pytest.raises(SystemExit, match=f"python examples/{path.name} [A-Z]+"):
            run(path.name, monkeypatch)


def test_a_control_loop(monkeypatch, capsys):
    run("control_loop.py", monkeypatch, EXPORT, 3)
    assert capsys.readouterr().out.startswith("3 steps")


def test_scoring_candidates(monkeypatch, capsys):
    run("score_my_candidates.py", monkeypatch, EXPORT)
    assert "best of the policy's own" in capsys.readouterr().out


@pytest.mark.slow
def test_own_data(tmp_path, monkeypatch, capsys):
    run("own_data.py", monkeypatch, tmp_path / "run", 2)
    assert capsys.readouterr().out.count("value of moving") == 2


@pytest.mark.slow
def test_own_environment_from_python_and_from_the_command_line(tmp_path, monkeypatch, capsys):
    run("own_environment.py", monkeypatch, tmp_path / "run", 2, 1)
    assert "SoftmaxOf" in capsys.readouterr().out
    command = [sys.executable, "-m", "evor", "evaluate", str(tmp_path / "run"), "--episodes", "1"]
    command += ["--env", "own_environment:make_env", "--num-candidates", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "examples")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_choosing_the_search(tiny_run, tmp_path, monkeypatch, capsys):
    import evor

    evor.load(tiny_run, task=1, seed=0).export(tmp_path / "policy")
    run("choose_the_search.py", monkeypatch, tmp_path / "policy", 1)
    assert capsys.readouterr().out.count("softmax") == 3


@pytest.mark.slow
def test_an_own_simulator_is_imitated_from_both(tmp_path, monkeypatch, capsys):
    small = ["--steps", "5120", "--learner.hidden", "8", "--learner.batch-size", "8"]
    with pytest.raises(SystemExit) as done:
        run("own_simulator.py", monkeypatch, tmp_path / "x", *small)
    assert not done.value.code
    assert "demos.npz: " in capsys.readouterr().err
    monkeypatch.syspath_prepend(ROOT / "examples")
    assert main(["imitate", "expert", "own_simulator:Swing-v0", "--out", str(tmp_path / "y"), *small]) == 0
    evaluations = [(tmp_path / name / "seed0/evaluations.jsonl").read_text() for name in "xy"]
    assert evaluations[0] == evaluations[1]
