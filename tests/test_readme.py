"""README's commands run, at reduced size, and its numbers are what docs/results says."""

import functools
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from conftest import TINY
from evor.cli.main import VERBS, main
from evor.experiments import demo
from evor.training.config import RunConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("evor")
]
# What a reduced run overrides; of an option given twice the last one counts.
SMALLER = {
    "data generate": "--transitions 2000 --workers 1",
    "train": "--updates 4 --checkpoint-every 2 --agent.hidden 16 16 --agent.batch-size 32",
    "verify": "--problems coin --methods monte-carlo --episodes 50 --updates 4 --hidden 8 --workers 1",
    "reproduce": "--only pointmaze-medium-navigate-v0 bc task1 --workers 1",
    "evaluate": "--episodes 1 --tasks 1 --seeds 0 --flow-steps 1",
    "sweep": "--episodes 1 --tasks 1 --seeds 0 --num-candidates 1 --return-temperature 0 inf",
}


def test_the_folders_are_those_of_the_source():
    """README names every room, and every file that it or the other documents name is there."""
    source = ROOT / "src/evor"
    table = TEXT[TEXT.index("| folder | what is in it |") :].split("\n\n", 1)[0]
    named = set(re.findall(r"^\| `(\w+)/`", table, flags=re.MULTILINE))
    assert named == {path.name for path in source.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for row in table.splitlines()[2:]:
        folder = match[1] if (match := re.match(r"\| `(\w+)/`", row)) else ""
        for file in re.findall(r"`(\w+\.py)`", row):
            assert (source / folder / file).exists(), f"{folder}/{file}"
    for document in ("docs/math.md", "CONTRIBUTING.md"):
        for file in re.findall(r"`((?:src/evor/)?\w+/[\w/]+\.py)`", (ROOT / document).read_text()):
            places = (ROOT / file, source / file)
            assert any(place.exists() for place in places), f"{document}: {file}"


def test_the_commands_are_found():
    assert len(COMMANDS) == 12
    assert {verb for verb in VERBS if any(f"evor {verb} " in f"{c} " for c in COMMANDS)} == {
        "data generate", "data check", "train", "evaluate", "sweep", "report", "verify", "reproduce"
    }  # fmt: skip


def test_readme_commands_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    import numpy as np

    from conftest import user_arrays

    np.savez("mine.npz", **user_arrays())
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        verb = next(verb for verb in VERBS if " ".join(words).startswith(verb))
        assert main([*words, *SMALLER.get(verb, "").split()]) == 0, command
    assert (tmp_path / "runs/medium/report/index.html").exists()
    assert (tmp_path / "runs/mine/checkpoints").exists()
    assert "no environment here to play" in (tmp_path / "runs/mine/report/index.html").read_text()


def test_the_quick_start_runs_on_the_demo(tmp_path, monkeypatch):
    """`make demo` at reduced size, then README's Python as it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "RunConfig", functools.partial(RunConfig, agent=TINY))
    Path("runs/demo/robot").mkdir(parents=True)  # left by an earlier demo, which this one replaces
    Path("runs/demo/demo.txt").touch()
    assert main(shlex.split("demo --transitions 2000 --updates 4 --episodes 1 --seed 1 --num-candidates 3 2")) == 0
    summary = __import__("json").loads(Path("runs/demo/summary.json").read_text())
    assert {"dataset", "transitions", "task", "seed", "updates", "train_seconds", "total_seconds", "versions"} <= set(
        summary
    )
    assert [row["num_candidates"] for row in summary["evaluations"]] == [1, 2, 3]
    keys = [
        "extraction",
        "num_candidates",
        "return_temperature",
        "action_temperature",
        "episodes",
        "success",
        "mean_length",
    ]
    assert all(list(row) == keys for row in summary["evaluations"])
    assert summary["seed"] == 1
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    assert scope["ended"]
    assert scope["action"].shape == (2,)
    assert scope["returns"].shape == (50,)
    assert Path("runs/robot/policy.json").exists()


def test_the_demo_never_replaces_what_is_no_demo(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path / "thesis")]) == 2
    assert "no demo" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.txt").exists()


@pytest.mark.parametrize("target", re.findall(r"`make ([a-z-]+)", TEXT))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_gpu_script_imports_what_there_is():
    found = re.findall(r"^from (evor\S*) import (\w+)$", (ROOT / "scripts/gpu.sh").read_text(), flags=re.MULTILINE)
    assert found
    for module, name in found:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_readme_numbers_come_from_the_results():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.filled(TEXT) == TEXT
