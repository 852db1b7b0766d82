"""Options say what they are: a sentence, the alternatives and the default; the names of earlier versions are told the new one."""

import dataclasses
import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from evor.agents.next_action import PolicyAction
from evor.agents.registry import AGENTS, PRESETS, preset
from evor.cli.completion import options_of
from evor.cli.evaluate import evaluate_options, sweep_options
from evor.cli.imitate import _own_defaults, imitate_options
from evor.cli.main import VERBS, main
from evor.cli.options import MARKS, options
from evor.cli.rules import kebab, rules
from evor.cli.train import train_options
from evor.errors import EvorError
from evor.nn.objectives import DatasetReturn, FlowTd, MonteCarlo
from evor.rollouts.evaluate import file_name
from evor.runtime.records import union_members
from evor.search.extraction import BestOf, Guided, Prior, SoftmaxOf
from evor.search.guidance import AfterChoice, InsideFlow
from evor.search.readings import Quadrature, RandomSamples

SMALL = ["--updates", "2", "--agent.hidden", "8", "8", "--agent.batch-size", "8"]


def actions(defaults):
    """The options of a command as argparse knows them."""
    parser = tyro.extras.get_parser(type(defaults), default=defaults, config=MARKS, registry=rules(defaults))
    return [action for action in parser._actions if action.dest != "help"]


def with_every_choice():
    """Every command, and `train` and `evaluate` with every type that an option chooses."""
    records = {verb: options_of(verb) for verb in VERBS}
    records |= {f"train --preset {name}": train_options(name) for name in PRESETS}
    train = train_options()
    for name in ("objective", "next_action", "acting_value", "solver"):
        (kinds,) = (item.type for item in dataclasses.fields(train.agent) if item.name == name)
        for kind in union_members(kinds):
            agent = dataclasses.replace(train.agent, **{name: kind()})
            records[f"train, {kind.__name__}"] = dataclasses.replace(train, agent=agent)
    records["train, return"] = dataclasses.replace(
        train, agent=dataclasses.replace(train.agent, objective=FlowTd(z1=DatasetReturn()))
    )
    for search in (Prior(), BestOf(reading=RandomSamples()), SoftmaxOf(), Guided(), Guided(guidance=AfterChoice())):
        records[f"evaluate, {search}"] = evaluate_options(search)
    return records


RECORDS = with_every_choice()


@pytest.mark.parametrize("name", RECORDS)
def test_every_option_has_a_sentence_and_words_for_its_values(name):
    there = actions(RECORDS[name])
    assert there
    for action in there:
        flag = (action.option_strings or [action.dest])[0]
        text = re.sub(r" ?\((default|required)[^()]*\)$", "", re.sub(r"\x1b\[[0-9;]*m", "", action.help))
        assert re.match(r"[A-Z][^.]+\w.*\.", text), f"{flag}: {action.help}"
        assert action.metavar is None or re.fullmatch(r"\[?[A-Z][A-Z_:]+( \.\.\.)?\]?|\{[\w,-]+\}", action.metavar), (
            f"{flag}: {action.metavar}"
        )
        assert not re.search(r"\b(STR|INT|FLOAT|PATH|None)\b", action.metavar or ""), flag


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "train",
            [
                "--preset {default,flow-td,paper",
                "--agent {evor,scalar,qc,fql,",
                "--agent.objective {flow-td,",
            ],
        ),
        ("train", ["--agent.next-action {", "--agent.acting-value {online-value,ema-value}", "--agent.solver {euler,"]),
        ("train --agent.objective flow-td", ["--agent.objective.z1 {model-return,dataset-return}", "[DATASET]"]),
        (
            "evaluate",
            ["--extraction {prior,best-of,softmax-of,guided}", "--extraction.reading {", "RUN", "--num-candidates"],
        ),
        ("sweep", ["--extraction {prior,best-of,softmax-of,guided}", "--num-candidates NUMBER ...", "1 2 4 8 16 32"]),
        ("reproduce", ["--scale {smoke,small,full", "SUITE", "--num-seeds NUMBER", "--hours HOURS"]),
    ],
)
def test_options_that_choose_stand_in_the_boxes(command, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 200
    for words in shown:
        assert any(words in line for line in said.splitlines()), words


@pytest.mark.parametrize(
    ("defaults", "flag", "metavar"),
    [
        (imitate_options(), "--method.expert", "NUMBER"),
        (options_of("imitate demos"), "expert", "EXPERT"),
        (options_of("reproduce"), "--expert", "FILE"),
        (options_of("data generate"), "--expert", "FILE"),
        (options_of("demo"), "--data", "FOLDER"),
        (options_of("audit"), "--env", "MODULE:FUNCTION"),
        (options_of("imitate"), "env", "ENV"),
    ],
)
def test_a_word_for_values_is_that_of_the_command(defaults, flag, metavar):
    """Fields of one name may hold a share, a file, or a folder."""
    there = {(action.option_strings or [action.dest])[0]: action.metavar for action in actions(defaults)}
    assert there[flag] == metavar


def test_the_default_of_a_search_is_said_to_be_the_agents_own(capsys):
    for verb in ("evaluate", "sweep", "serve"):
        assert main([verb, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert re.search(r"--extraction \{[^(]*\(default: the agent's own\)", said), verb


def test_a_help_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_default_of_a_choice_is_that_of_the_preset(capsys):
    assert main(["train", "--preset", "paper", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--agent.objective {flow-td,monte-carlo,sample-backup}" in said
    assert re.search(r"\(default: flow-td\)", said)
    assert "(default: paper)" in said


def test_choices_below_one_that_is_chosen():
    words = "--data x --out y --agent.objective flow-td --agent.objective.z1 dataset-return --agent.objective.n-steps 3"
    assert options("evor train", words.split(), defaults=train_options()).agent.objective == FlowTd(3, DatasetReturn())
    a = options(
        "evor train",
        ["--data", "x", "--out", "y", "--agent", "qc", "--agent.num-critics", "4"],
        defaults=train_options(),
    )
    assert a.agent == dataclasses.replace(
        next(kind for kind in AGENTS if kebab(kind.__name__) == "qc")(), num_critics=4
    )
    words = "--data x --out=y --agent.objective=monte-carlo --agent.hidden 3 4"
    a = options("evor train", words.split(), defaults=train_options("paper"))
    assert a.agent.objective == MonteCarlo()
    assert a.agent.learning.hidden == (3, 4)
    assert a.agent.discount == preset("paper").discount


# One vocabulary.


@pytest.mark.parametrize(
    ("command", "new"),
    [
        ("train --data mine.npz --out never --steps 3", "--updates"),
        ("train --data mine.npz --out never --steps=3", "--updates"),
        ("train --data mine.npz --out never --seeds 3", "--num-seeds for how many, --seed for the first"),
        ("train --data mine.npz --out never --agent.standardise", "--agent.standardise-observations and "),
        ("train --data mine.npz --out never --agent.no-standardise", "--agent.no-standardise-observations and "),
        ("demo --steps 3", "--updates"),
        ("reproduce paper --out never --seeds 3", "--num-seeds"),
        ("evaluate run --step 3", "--checkpoints"),
        ("sweep run --step 3", "--checkpoints"),
        ("evaluate run --extraction.num-candidates 3", "--num-candidates"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(command, new, here, capsys):
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert f"has another name now: give {new}" in said
    assert said.count("\n") == 1
    assert not Path("never").exists()


def test_an_old_choice_is_refused_with_the_new_one(here, capsys):
    assert main(["train", "--data", "mine.npz", "--out", "never", "--agent.next-action", "searched"]) == 2
    said = capsys.readouterr().err
    assert "--agent.next-action 'searched' is unknown; it has another name now: give best-action." in said
    assert not Path("never").exists()


def test_a_sweep_varies_the_numbers_of_the_agents_own_search():
    """All combinations; what is no number stays, and so does a number that is not given."""
    own = BestOf(8, reading=Quadrature(1, flow_steps=None), flow_steps=8)
    words = ["run", "--flow-steps", "1", "2", "4", "8", "--num-candidates", "1", "4", "16", "64"]
    found = options("evor sweep", words, defaults=sweep_options(own)).extraction.all()
    assert set(found) == {
        dataclasses.replace(own, num_candidates=count, flow_steps=steps)
        for count in (1, 4, 16, 64)
        for steps in (1, 2, 4, 8)
    }
    assert len(found) == 16
    default = options("evor sweep", ["run"], defaults=sweep_options(own)).extraction.all()
    assert default == [dataclasses.replace(own, num_candidates=count) for count in (1, 2, 4, 8, 16, 32)]
    assert options("evor sweep", ["run"], defaults=sweep_options(Prior(4))).extraction.all() == [Prior(4)]
    chosen = options("evor sweep", ["run", "--extraction", "guided"], defaults=sweep_options(own)).extraction.all()
    assert chosen == [Guided()]


def test_evaluate_and_sweep_have_the_same_flags():
    evaluate, sweep = (
        {flag for action in actions(options_of(verb)) for flag in action.option_strings}
        for verb in ("evaluate", "sweep")
    )
    assert evaluate == sweep
    assert {
        "--extraction",
        "--extraction.reading",
        "--num-candidates",
        "--return-temperature",
    } < evaluate


def test_a_search_is_read_from_its_flags():
    words = "run --extraction best-of --num-candidates 8 --return-temperature 1"
    words += " --extraction.reading random-samples --extraction.reading.num-returns 7"
    a = options("evor evaluate", words.split(), defaults=evaluate_options())
    assert a.extraction == BestOf(8, return_temperature=1.0, reading=RandomSamples(7))
    with pytest.raises(
        EvorError, match="--action-temperature goes with --extraction softmax-of, and best-of is chosen"
    ):
        options("evor evaluate", [*words.split(), "--action-temperature", "1"], defaults=evaluate_options())


def test_guidance_is_read_from_its_flags():
    read = functools.partial(options, "evor evaluate", defaults=evaluate_options())
    assert read(["run", "--extraction", "guided"]).extraction == Guided(4, weight=0.3, guidance=InsideFlow())
    words = "run --extraction guided --num-candidates 8 --weight 1 --extraction.reading.num-nodes 5"
    words += " --extraction.guidance after-choice --extraction.guidance.ascent-steps 3"
    expected = Guided(8, weight=1.0, reading=Quadrature(5), guidance=AfterChoice(3))
    assert read(words.split()).extraction == expected
    for words, told in (
        ("run --weight 1", "--weight goes with --extraction guided, and softmax-of is chosen"),
        ("run --extraction guided --weight much", "--weight takes a number, such as --weight 0.3; got 'much'"),
        ("run --extraction guided --weight -1", r"weight is -1.0; it must be a finite number of at least 0"),
        ("run --extraction guided --extraction.guidance choice", "did you mean 'after-choice'"),
        ("run --extraction guided --extraction.guidance.ascent-steps 2", "goes with --extraction.guidance after-"),
    ):
        with pytest.raises(EvorError, match=re.escape(told)):
            read(words.split())


def test_a_sweep_crosses_weights():
    words = "run --extraction guided --num-candidates 1 4 --weight 0 0.1 0.3 --extraction.guidance after-choice"
    grid = options("evor sweep", words.split(), defaults=sweep_options()).extraction.all()
    assert grid == [Guided(n, weight=w, guidance=AfterChoice()) for n in (1, 4) for w in (0.0, 0.1, 0.3)]
    assert len({file_name(search) for search in grid}) == 6
    twice = options(
        "evor sweep", ["run", "--extraction", "best-of", "--num-candidates", "2", "4", "2"], defaults=sweep_options()
    )
    assert twice.extraction.all() == [BestOf(2), BestOf(4)]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "evaluate run --extraction prior --num-candidates 4",
            "--extraction best-of or softmax-of or guided, and prior is chosen",
        ),
        (
            "sweep run --extraction prior --num_candidates=4",
            "--extraction best-of or softmax-of or guided, and prior is chosen",
        ),
        (
            "train --data mine.npz --out never --agent.objective monte-carlo --agent.objective.n-steps 3",
            "--agent.objective.n-steps goes with --agent.objective flow-td or sample-backup, and monte-carlo is chosen",
        ),
        ("train --data mine.npz --out never --agent.num-critics 4", "--agent.num-critics goes with --agent "),
    ],
)
def test_an_option_of_another_choice_is_told_with_its_choice(command, told, here, capsys):
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "unknown" not in said


def test_a_run_without_a_value_has_no_search_among_candidates(here, capsys):
    assert main(["train", "--data", "mine.npz", "--preset", "bc", "--out", "bc", *SMALL]) == 0
    env = ["--env", "own_environment:make_line", "--episodes", "1"]
    assert main(["evaluate", "bc", *env, "--num-candidates", "4"]) == 2
    told = (
        "--num-candidates goes with a search among candidates, and a Bc run has no value to search with; leave it out."
    )
    assert told in capsys.readouterr().err
    assert main(["evaluate", "bc", *env, "--flow-steps", "2"]) == 0


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("reproduce paper --out x --scale smal", "--scale 'smal' is unknown; did you mean 'small'?"),
        ("data check --preset=papr", "--preset 'papr' is unknown; did you mean 'paper'?"),
        ("train --out x --agent.objective flow", "--agent.objective 'flow' is unknown; did you mean 'flow-td'?"),
        ("evaluate run --extraction best", "--extraction 'best' is unknown; did you mean 'best-of'?"),
    ],
)
def test_an_unknown_choice_offers_the_nearest(command, hint, capsys):
    assert main(command.split()) == 2
    assert hint in capsys.readouterr().err


# Scripts.


def test_quiet_shows_no_notes_and_ends_with_the_command(here, capsys):
    command = ["train", "--data", "mine.npz", *SMALL]
    assert main([*command, "--out", "one", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*command, "--out", "two"]) == 0
    assert "-> two" in capsys.readouterr().err
    assert main([*command, "--out", "two", "--quiet"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_data_check_as_json(here, capsys):
    assert main(["data", "check", "--data", "mine.npz", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["title"] == "mine.npz"
    assert content["tasks"][0]["return_std"] > 0
    assert isinstance(content["notes"], list)
    assert main(["data", "check", "--data", "mine.npz"]) == 0
    assert "complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "place", "content"),
    [
        ("bench", "evor.experiments.bench.plan.bench", {"updates": float("inf")}),
        ("demo", "evor.experiments.demo.demo", {"evaluations": []}),
        ("verify", "evor.experiments.verify.runner.verify", {"checks": [], "cells": []}),
    ],
)
def test_reports_as_json(command, place, content, monkeypatch, capsys):
    monkeypatch.setattr(place, lambda *_, **__: content)
    assert main([command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        name: str(value) if isinstance(value, float) else value for name, value in content.items()
    }


def test_the_rows_of_a_reproduction_as_json(monkeypatch, capsys):
    monkeypatch.setattr("evor.experiments.reproduce.runner.reproduce", lambda *_, **given: [given["seeds"]])
    assert main(["reproduce", "paper", "--out", "x", "--num-seeds", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": "x", "results": [2]}


@pytest.mark.slow
def test_evaluations_as_json(here, tiny_run, tmp_path, capsys):
    import shutil

    shutil.copytree(tiny_run, tmp_path / "run")
    words = (
        f"{tmp_path / 'run'} --episodes 1 --tasks 1 --seeds 0 --flow-steps 1 --json --quiet --return-temperature inf"
    )
    assert main(f"evaluate {words} --num-candidates 2".split()) == 0
    said = capsys.readouterr()
    (line,) = json.loads(said.out)["results"]
    assert (line["extraction"], line["num_candidates"], line["seeds"], line["task"]) == ("SoftmaxOf", 2, [0], 1)
    assert line["return_temperature"] == "inf"
    assert said.err == ""
    assert main(f"sweep {words} --num-candidates 1 2 --extraction best-of".split()) == 0
    assert [line["num_candidates"] for line in json.loads(capsys.readouterr().out)["results"]] == [1, 2]
    assert main(f"sweep {words} --num-candidates 2 --extraction guided --weight 0 0.5".split()) == 0
    lines = json.loads(capsys.readouterr().out)["results"]
    assert [(line["guidance"], line["weight"]) for line in lines] == [("InsideFlow", 0.0), ("InsideFlow", 0.5)]
    guided = f"evaluate {words} --num-candidates 2 --extraction guided --weight 0.5 --resume"
    assert main(guided.replace("--json ", "").split()) == 0
    said = capsys.readouterr().out  # cells are broken into lines
    for part in ("Guided 2", "InsideFlow", "weight 0.5"):
        assert part in said
    assert main(["show", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Guided, candidates 2, InsideFlow, weight 0.5, 20 updates, task 1" in said


@pytest.mark.parametrize(
    "words", [["Hopper-v5", "--out", "ledge"], ["--out", "ledge", "Hopper-v5"], ["--out=ledge", "Hopper-v5"]]
)
def test_a_folder_called_ledge_does_not_give_the_defaults_of_the_ledge(words):
    steps = {name: imitate_options(name).steps for name in ("Hopper-v5", "ledge")}
    assert _own_defaults(words, imitate_options).steps == steps["Hopper-v5"] != steps["ledge"]
    assert _own_defaults(["--out", "ledge", "ledge"], imitate_options).steps == steps["ledge"]


def test_underscores_in_the_name_of_an_option_choose_as_dashes_do(tmp_path, monkeypatch):
    trained, played = [], []
    monkeypatch.setattr("evor.training.train.train", lambda config, *_, **__: trained.append(config.agent.next_action))
    words = ["--data", "my_file.npz", "--out", str(tmp_path / "a")]
    assert main(["train", *words, "--agent.next_action=policy-action"]) == 0
    assert trained == [PolicyAction()]
    run = SimpleNamespace(default_search=SoftmaxOf(7), config=SimpleNamespace(agent=PRESETS["default"]))
    monkeypatch.setattr("evor.policies.load.open_run", lambda folder: run)
    monkeypatch.setattr("evor.rollouts.evaluate.evaluate", lambda run, search, **_: played.append(search) or [])
    assert main(["evaluate", "my_run", "--num_candidates", "3"]) == 0
    assert played == [SoftmaxOf(3)]
