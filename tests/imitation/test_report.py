"""The page of imitation runs, and the ledge's results at full length."""

import html
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from documents import ROOT
from evor.cli.main import main
from evor.imitation.demonstrations import Demonstrations
from evor.imitation.ledge import demonstrated
from evor.imitation.page import read_run, write_report
from evor.report.config import is_imitation
from evor.report.figures import figure_html
from evor.runtime.files import write_json, write_npz


def a_run(folder, method, returns, reward="Bounded", env="ledge", body=None, random=10.0):
    """A run folder with one evaluation at 0 and one at 100 steps for each seed."""
    folder.mkdir()
    config = {"method": {"type": method}, "reward": {"type": reward}, "steps": 100}
    write_json(folder / "config.json", {"kind": "imitation", "env": env, "body": body or {}, "config": config})
    write_json(folder / "provenance.json", {"versions": {"evor": "0"}, "hardware": {}, "commit": None})
    write_json(folder / "references.json", {"random": random, "expert": 150.0})
    for seed, final in enumerate(returns):
        lines = [
            {"step": step, "seed": seed, "all_steps": 2 * step, "returns": [mean - 1, mean + 1], "lengths": [3, 150]}
            for step, mean in ((0, 10.0), (100, final))
        ]
        (folder / f"seed{seed}").mkdir()
        (folder / f"seed{seed}/evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        positions = np.cumsum(np.full((150, 2, 2), [0.1, 0.0], np.float32), axis=0)
        write_npz(folder / f"seed{seed}/positions.npz", {"positions": positions, "lengths": np.array([3, 150])})
    return folder


@pytest.mark.slow
def test_the_page_compares_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evor.imitation.page.FRAMES", 3)
    folders = [
        a_run(tmp_path / "g", "Guitar", [90.0, 100.0, 95.0]),
        a_run(tmp_path / "f", "Filter", [15.0, 16.0]),
        a_run(tmp_path / "o", "Guitar", [110.0], reward="TrueReward"),
    ]
    write_json(tmp_path / "o/seed0/index.json", {"expert": 0.1, "offline": 0.95, "steps": 100, "states": 200})
    assert main(["report", *map(str, folders)]) == 0
    page = (tmp_path / "g/report/index.html").read_text()
    rows = {
        row[0]: row[1:]
        for row in (re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in page.split("<tr>"))
        if row
    }
    assert rows["GUITAR (g)"][1:] == ["90.0, 100.0, 95.0", "0.85", "100", "200"]
    assert rows["GUITAR (g)"][0].startswith("95.0 [")
    assert rows["oracle, GUITAR (o)"][2] == "1.00"
    assert rows["expert"][0] == "150.0"
    assert "A seed of GUITAR beats a seed of FILTER with probability 1.00." in page
    page = html.unescape(page)
    assert "survives 100 steps from 10% of the expert's states, and from 95% of the offline states (200 of each" in page
    assert page.count("data:image/gif") == 1
    assert set(re.findall(r'<h2 id="([^"]*)"', page)) == {"returns", "the-tightrope-index", "learning", "the-ledge"}


def test_a_run_is_scored_in_its_own_body(tmp_path):
    """The oracle of a stronger body, and its random actions, say nothing of a weaker one."""
    weak = {"body": {"gear": 0.5}, "env": "Hopper-v5", "random": 0.0}
    runs = [
        a_run(tmp_path / "g", "Guitar", [60.0, 60.0], env="Hopper-v5"),
        a_run(tmp_path / "o", "Mm", [110.0], reward="TrueReward", env="Hopper-v5"),
        a_run(tmp_path / "weak", "Guitar", [20.0, 30.0], **weak),
        a_run(tmp_path / "filter", "Filter", [25.0, 25.0], **weak),
        a_run(tmp_path / "weak-o", "Mm", [50.0], reward="TrueReward", **weak),
        a_run(tmp_path / "alone", "Mm", [50.0], env="Hopper-v5", body={"mass": 2.0}),
    ]
    page = html.unescape(write_report(runs).read_text())
    rows = dict(re.findall(r"<tr><t[hd][^>]*>([^<]*)</t[hd]>(.*?)</tr>", page))
    told = {name: re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", cells) for name, cells in rows.items()}
    scores = {name: told[name][2] for name in ("GUITAR (g)", "GUITAR (weak)", "oracle, MM (weak-o)", "MM (alone)")}
    assert scores == {"GUITAR (g)": "0.50", "GUITAR (weak)": "0.50", "oracle, MM (weak-o)": "1.00", "MM (alone)": ""}
    assert told["random (gear 0.5)"][0] == "0.0"
    assert told["random (the expert's body)"][0] == "10.0"
    assert "A seed of GUITAR beats a seed of FILTER with probability 0.50 (gear 0.5)." in page


def test_of_several_runs_of_a_method_each_is_compared_by_its_name(tmp_path, monkeypatch):
    """A page of GUITAR and of a GUITAR that was broken compared the first alone, and did not say which. Nor did its curves."""
    figures = []
    draw = lambda figure, *rest, **options: figures.append(figure) or figure_html(figure, *rest, **options)  # noqa: E731
    monkeypatch.setattr("evor.imitation.page.figure_html", draw)
    runs = [
        a_run(tmp_path / "broken", "Guitar", [1.0, 2.0], env="Hopper-v5"),
        a_run(tmp_path / "whole", "Guitar", [60.0, 70.0], env="Hopper-v5"),
        a_run(tmp_path / "f", "Filter", [15.0, 65.0], env="Hopper-v5"),
    ]
    page = write_report(runs).read_text()
    chances = re.findall(r"A seed of (.*?) beats a seed of (.*?) with probability (\S+)\.<", page)
    assert chances == [("GUITAR (broken)", "FILTER (f)", "0.00"), ("GUITAR (whole)", "FILTER (f)", "0.75")]
    (figure,) = figures
    for axis in figure.axes:
        lines = axis.lines[:6]  # two seeds of each run
        looks = [(line.get_color(), str(line.get_linestyle()), line.is_dashed()) for line in lines]
        assert len(set(looks)) == 3
        assert looks[0::2] == looks[1::2]


def test_runs_of_two_worlds_or_kinds_are_refused(tmp_path, capsys):
    named = [a_run(tmp_path / str(n), "Mm", [1.0], env=env) for n, env in enumerate(("mine-v0", "module:mine-v0"))]
    assert main(["report", *map(str, named)]) == 0  # one environment, whoever registered it
    capsys.readouterr()
    folders = [a_run(tmp_path / "g", "Guitar", [90.0]), a_run(tmp_path / "h", "Mm", [1.0], env="Hopper-v5")]
    assert main(["report", *map(str, folders)]) == 2
    assert "the runs are in Hopper-v5 and ledge; give runs of one environment" in capsys.readouterr().err
    (tmp_path / "offline").mkdir()
    write_json(tmp_path / "offline/config.json", {"config": {}})
    assert main(["report", str(folders[0]), str(tmp_path / "offline")]) == 2
    assert "some of the runs are imitations and some are not" in capsys.readouterr().err
    assert is_imitation(folders[0])
    assert not is_imitation(tmp_path / "offline")


def test_a_run_is_shown_and_nothing_else_opens_it(tmp_path, capsys):
    folder = a_run(tmp_path / "g", "Guitar", [90.0, 96.0])
    assert main(["show", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "return 96.0 after 100 of 100 steps, 200 in all" in said.replace(" │ │ │ ", " ")
    assert main(["show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"]["0"] == {"step": 100, "all_steps": 200, "return": 90.0}
    for words in (["evaluate", str(folder)], ["export", str(folder), "--out", str(tmp_path / "e")]):
        assert main(words) == 2
        assert "g is an imitation; `evor show` and `evor report` read it" in " ".join(capsys.readouterr().err.split())


def test_a_run_without_evaluations_is_told(tmp_path, capsys):
    folder = a_run(tmp_path / "g", "Guitar", [])
    assert main(["report", str(folder)]) == 2
    assert "has no evaluation yet; let `evor imitate` go on first" in capsys.readouterr().err


def test_the_mean_return_is_of_whole_episodes():
    steps = {"observations": np.zeros((7, 1)), "actions": None, "states": None}
    rewards, ends = np.arange(7.0), np.array([False, True, False, False, False, False, False])
    cuts = np.array([False, False, False, True, False, False, False])
    elapsed = np.array([0, 1, 3, 4, 0, 1, 2])  # the second began elsewhere, and the third has no end
    data = Demonstrations(env="", elapsed=elapsed, rewards=rewards, terminations=ends, truncations=cuts, **steps)
    assert data.mean_return() == 1.0
    assert demonstrated("ledge", episodes=1, tremble=0.0).mean_return() == pytest.approx(150)


# Results.


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledge")
    for words in ("ledge --episodes 2 --out e.npz", "ledge-bridge --episodes 45 --tremble 0.3 --out o.npz"):
        *words, out = words.split()
        assert main(["imitate", "demos", *words, str(folder / out)]) == 0
    return folder


def final(folder, words, *seeds):
    """Mean returns of the last evaluation of each seed. Tests compile little and run slowly, so it is a process without that."""
    out = folder / "-".join([*words.split(), *map(str, seeds)])
    files = ["--demos", str(folder / "e.npz"), "--out", str(out)]
    files += ["--offline", str(folder / "o.npz")] if "guitar" in words else []
    command = [sys.executable, "-m", "evor", "imitate", "ledge", "--seeds", *map(str, seeds), *files, *words.split()]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_"))}
    environment |= {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return read_run(out).final


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_guitar_alone_crosses_the_ledge(seed, recorded):
    assert final(recorded, "--method guitar", seed) >= 80
    assert final(recorded, "--method filter", seed) <= 25
    assert final(recorded, "--method mm", seed) <= 25


@pytest.mark.slow
def test_a_clone_of_the_expert_falls(recorded):
    words = "--method bc --method.hidden 64 64 --method.batch-size 128"
    assert final(recorded, words, 0, 1, 2).max() <= 25


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--discriminator-sees everything", "--reward free --reward.pairs 512"])
def test_guitar_breaks_in_two_ways(words, recorded):
    """A discriminator that sees too much, and a reward of either sign."""
    assert final(recorded, f"--method guitar {words}", 0) <= 25
