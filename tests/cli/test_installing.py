"""What `evor` takes from the system: its own module, the environment of a program around it, and OGBench only where asked."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import evor
from evor.cli.main import main
from evor.envs import ogbench
from evor.errors import EvorError

EXPORT = Path(__file__).parents[1] / "version_0_1_0" / "export"
SMALL = ["--updates", "2", "--agent.hidden", "8", "8", "--agent.batch-size", "8"]


def test_python_m_evor(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evor", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("evor", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"evor {evor.__version__}\n"


@pytest.fixture
def imported_anew():
    ogbench._gymnasium.cache_clear()
    yield
    ogbench._gymnasium.cache_clear()


@pytest.mark.usefixtures("imported_anew")
def test_a_program_keeps_its_mujoco_gl(monkeypatch):
    inside = []
    read = ogbench.import_module
    monkeypatch.setattr(ogbench, "import_module", lambda name: (inside.append(os.environ["MUJOCO_GL"]), read(name)))
    monkeypatch.delenv("MUJOCO_GL")
    ogbench.make_environment("pointmaze-medium-navigate-v0", 1)
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setenv("MUJOCO_GL", "egl")
    ogbench._gymnasium.cache_clear()
    ogbench.dataset_names()
    assert os.environ["MUJOCO_GL"] == "egl"
    assert inside == ["disable"] * 3 + ["egl"] * 3


@pytest.mark.parametrize(
    "module",
    [
        "cli.main",
        "cli.train",
        "envs.ogbench",
        "data.formats.ogbench",
        "data.scripted.generate",
        "training.train",
        "rollouts.evaluate",
        "experiments.demo",
    ],
)
def test_importing_changes_nothing_around(module, monkeypatch):
    for name in ("MUJOCO_GL", "PJRT_NPROC"):
        monkeypatch.delenv(name)
    environment, filters = dict(os.environ), list(warnings.filters)
    runpy.run_path(str(Path(evor.__file__).parent / f"{module.replace('.', '/')}.py"))
    assert dict(os.environ) == environment
    assert list(warnings.filters) == filters


@pytest.mark.slow
def test_acting_needs_no_command_line_no_pages_and_no_environments():
    """On a robot: what `evor.load` and `act` import, and what they leave of the process around them."""
    code = f"""
import os, sys, warnings
import numpy as np
environment, filters = dict(os.environ), list(warnings.filters)
import evor
assert "jax" not in sys.modules
evor.load({str(EXPORT)!r}).act(np.zeros(2))
assert dict(os.environ) == environment
assert warnings.filters[-len(filters):] == filters
assert [kind for kind in warnings.filters if kind[0] == "ignore" and kind not in filters] == []
print(*{{"tyro", "matplotlib", "imageio", "mujoco", "dm_control", "ogbench", "gymnasium", "evor.cli"}} & set(sys.modules))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PJRT_NPROC")}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "\n"


@pytest.mark.usefixtures("imported_anew")
def test_a_renderer_that_cannot_be_loaded_is_told(monkeypatch):
    """What importing mujoco raises where MUJOCO_GL names a library that is not there."""

    def read(name):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(ogbench, "import_module", read)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(EvorError, match=r"with MUJOCO_GL=osmesa \('NoneType'.*glGetError'\); .* set MUJOCO_GL=disable"):
        ogbench.dataset_names()


def test_the_command_line_needs_no_renderer(monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    assert main(["data", "check", "pointmaze-medum-navigate-v0"]) == 2
    assert "did you mean 'pointmaze-medium-navigate-v0'" in capsys.readouterr().err
    assert os.environ["MUJOCO_GL"] == "disable"


@pytest.mark.slow
def test_environments_warn_of_nothing_and_leave_the_filters_alone():
    """Manipulation environments warn of float64 whenever they make an action space."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        environment = ogbench.make_environment("cube-single-play-v0", 1)
        environment.action_space.seed(1)
        environment.reset(seed=1)
        environment.step(np.zeros(environment.action_space.shape, np.float32))
        assert list(warnings.filters) == before


@pytest.mark.slow
@pytest.mark.usefixtures("imported_anew")
def test_own_data_need_no_ogbench(here, monkeypatch, capsys):
    for name in ("ogbench", "mujoco", "dm_control", "dm_control.mjcf", "gymnasium"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError
    assert main(["data", "check", "--data", "mine.npz"]) == 0
    assert main(["train", "--data", "mine.npz", "--out", "run", *SMALL]) == 0
    assert main(["report", "run"]) == 0
    evor.load("run").export("robot")
    assert evor.load("robot").act(np.zeros(3)).shape == (2,)
    kept = Path("runs/demo/demo.txt")
    kept.parent.mkdir(parents=True)
    kept.touch()
    there = {path.name for path in here.iterdir()}
    for command in (
        "train pointmaze-medium-navigate-v0 --out never",
        "data check pointmaze-medium-navigate-v0",
        "data generate pointmaze-medium-navigate-v0 --out never",
        "data download pointmaze-medium-navigate-v0",
        "reproduce paper --scale smoke --out never",
        "bench --parts worlds --out never",
        "demo",
    ):
        capsys.readouterr()
        assert main(command.split()) == 2
        said = capsys.readouterr().err
        assert "need the package ogbench, which is missing. In a clone of evor, `" in said
        assert ("make setup" if sys.version_info >= (3, 13) else "pip install '.[ogbench]'") in said
    assert kept.exists()
    assert {path.name for path in here.iterdir()} == there


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_says_what_it_downloads_before_it_does(tmp_path):
    """pip is quiet, and takes minutes."""
    root = Path(__file__).parents[2]
    told = subprocess.run(
        ["make", "--dry-run", "-C", str(root), "demo", f"VENV={tmp_path / 'venv'}"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert re.search(r"(?s)echo \"Installing .*MB to download.*\n.* -m pip install .*requirements\.lock", told.stdout)
