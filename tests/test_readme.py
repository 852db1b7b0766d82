"""The commands and programs of README and documentation run, at reduced size, and their numbers are what docs/results says."""

import functools
import json
import re
import runpy
import shlex
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY
from documents import DOCS, PAGES, ROOT, benchmark, commands, files, programs, sentences
from evor.cli.main import VERBS, main
from evor.experiments import demo
from evor.serving import start as serving
from evor.training.config import RunConfig
from recordings import write_all

README = (ROOT / "README.md").read_text()
MEAN_SENTENCE = 18  # words, of README
# What a reduced run overrides; of an option given twice the last one counts.
SMALL_NETWORKS = "--agent.hidden 16 16 --agent.batch-size 32"
SMALLER = {
    "data generate": "--transitions 2000 --workers 1",
    "imitate tightrope": "--repeats 0",
    "imitate expert": "--steps 10240 --learner.hidden 8 --learner.batch-size 8",
    "imitate demos": "--episodes 1",
    "imitate": "--steps 480 --copies 4 --update-every 96 --reward-every 480 --evaluate-every 480 --warm-up 96 --rollouts 1 "
    "--evaluation-episodes 1 --learner.hidden 8 --learner.batch-size 8",
    "train": f"--updates 4 --checkpoint-every 2 {SMALL_NETWORKS}",
    "reproduce": "--scale smoke --only pointmaze-medium-navigate-v0 bc task1 --workers 1",
    "serve": "--max-candidates 2 --num-candidates 2",
    "evaluate": "--episodes 1 --tasks 1 --seeds 0 --flow-steps 1",
    "audit": "--decisions 20 --num-candidates 2",
    "sweep": "--episodes 1 --tasks 1 --seeds 0 --num-candidates 2 --return-temperature 0 inf",
}
# What can't run here: the network, and an environment that the reader writes.
NOT_RUN = ("data download",)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_folders_are_those_of_the_source():
    """CONTRIBUTING names every room, and every file that the documents name is there."""
    source, text = ROOT / "src/evor", (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| folder | what is in it |") :].split("\n\n", 1)[0]
    named = set(re.findall(r"^\| `(\w+)/`", table, flags=re.MULTILINE))
    assert named == {path.name for path in source.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for row in table.splitlines()[2:]:
        folder = match[1] if (match := re.match(r"\| `(\w+)/`", row)) else ""
        for file in re.findall(r"`(\w+\.py)`", row):
            assert (source / folder / file).exists(), f"{folder}/{file}"
    for document in (*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"):
        for file in re.findall(r"`((?:src/evor/)?\w+/[\w/]+\.py)`", document.read_text()):
            if file.endswith("/NAME.py"):
                continue
            assert (ROOT / file).exists() or (source / file).exists(), f"{document}: {file}"


def test_links_of_files_outside_the_site_lead_somewhere():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            assert link.startswith("https://") or (ROOT / link).exists(), link


def test_readme_is_short_and_so_are_its_sentences():
    lengths = [len(sentence) for sentence in sentences(README)]
    assert len(lengths) > 30
    assert np.mean(lengths) <= MEAN_SENTENCE


def test_the_documents_show_the_verbs_that_users_need():
    shown = {" ".join(words) for page in PAGES for words in commands(page.read_text())}
    for verb in ("data generate", "data check", "train", "evaluate", "sweep", "report", "reproduce"):
        assert any(command.startswith(f"{verb} ") for command in shown), verb


SLOW = (
    "getting-started.md",
    "choose-the-search.md",
    "imitate.md",
    "import-recordings.md",
    "larger-than-memory.md",
    "many-machines.md",
    "reproduce-the-paper.md",
    "serve-a-policy.md",
    "your-own-policy.md",
)


def _of_page(page):
    return pytest.param(page, id=name_of(page), marks=pytest.mark.slow if page.name in SLOW else ())


class Background:
    """`evor serve` in a thread: until the next one starts, or the test ends."""

    def __init__(self, monkeypatch):
        self._thread, background = None, self

        class Server(serving.Server):
            def serve(self, sock, *, ready):
                background._server = self
                super().serve(sock, ready=lambda: (ready(), background._ready.set()))

        monkeypatch.setattr(serving, "Server", Server)

    def serve(self, words):
        self.stop()
        self._ready, codes = threading.Event(), []
        self._thread = threading.Thread(target=lambda: (codes.append(main(words)), self._ready.set()), daemon=True)
        self._thread.start()
        assert self._ready.wait(120)
        assert codes == [], words

    def stop(self):
        if self._thread:
            self._server.stop()
            self._thread.join(30)


@pytest.fixture
def background(monkeypatch):
    background = Background(monkeypatch)
    yield background
    background.stop()


def _alone(words, folder):
    """A command for a cluster as one for this machine: without --ray, and with a folder of its own as the shared one."""
    if "--ray" not in words:
        return words
    at = words.index("--ray")
    return [word.replace("/shared", str(folder / "shared")) for word in words[:at] + words[at + 2 :]]


@pytest.mark.parametrize("page", [_of_page(page) for page in PAGES if commands(page.read_text())])
def test_the_commands_of_a_page_run_in_order(page, here, monkeypatch, background):
    """Then its programs, in their order."""
    text = page.read_text()
    if page.name == "import-recordings.md":
        write_all(here, reach=programs(text)[0])
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(here / "minari"))
        monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.syspath_prepend(here)
    for name, code in files(text).items():
        Path(name).write_text(code)
        if f"\npython {name}\n" in text:
            runpy.run_path(name, run_name="__main__")
    for words in commands(text):
        verb = next(verb for verb in VERBS if f"{' '.join(words)} ".startswith(f"{verb} "))
        words = [*_alone(words, here), *shlex.split(SMALLER.get(verb, ""))]
        if verb == "serve":
            background.serve(words)
        elif verb not in NOT_RUN:
            assert main(words) == 0, words
    for code in programs(text):
        if "runs/demo" not in code:
            exec(code.replace("20_000", "4"), {})


@pytest.mark.slow
def test_the_quick_start_runs_on_the_demo(tmp_path, monkeypatch):
    """`make demo` at reduced size, then the Python of Getting started as it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "RunConfig", functools.partial(RunConfig, agent=TINY))
    Path("runs/demo/checkpoints").mkdir(parents=True)  # left by an earlier demo, which this one replaces
    Path("runs/demo/demo.txt").touch()
    assert main(shlex.split("demo --transitions 2000 --updates 4 --episodes 1 --seed 1 --num-candidates 3 2")) == 0
    assert {path.name for path in Path("runs/demo").iterdir()} <= {demo.MARK, *demo.MADE}
    summary = json.loads(Path("runs/demo/summary.json").read_text())
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
    (code,) = programs((DOCS / "getting-started.md").read_text())
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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_make_targets_exist(page):
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/concepts/imitation.md", "docs/results/index.md"])
def test_numbers_come_from_the_results(page, monkeypatch):
    tables, text = benchmark("readme", monkeypatch), (ROOT / page).read_text()
    assert all(f"<!-- {name} -->" in text for name in tables.PAGES[page])
    assert tables.filled(page, text) == text
