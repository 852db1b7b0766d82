"""Settings by environment: what is published, what is looked up, and that options come first."""

import re

import pytest

import evor
from conftest import user_arrays
from documents import DOCS
from evor.agents.environments import ELSEWHERE, ENVIRONMENTS, _shown, row_of, told
from evor.agents.fql import Raw
from evor.agents.registry import PRESETS, preset
from evor.cli.main import main
from evor.nn.critics import Mean, Minimum
from evor.runtime.records import replace

GIANT = "antmaze-giant-navigate-v0"


def test_every_row_fits_its_preset():
    for rows in (*ENVIRONMENTS.values(), ELSEWHERE):
        for name, row in rows.items():
            assert row.settings
            assert row.source in ("published", "unverified", "ours")
            assert isinstance(replace(PRESETS[name], **row.settings), type(PRESETS[name]))


def test_a_preset_takes_the_row_of_its_environment():
    giant = preset("sorl", GIANT)
    assert (giant.improvement_weight, giant.discount, giant.aggregation) == (500.0, 0.995, Minimum())
    assert giant.learning == PRESETS["sorl"].learning
    assert preset("sorl", "antmaze-giant-navigate-v1") == giant
    assert evor.preset("sorl", dataset="cube-single-play-v0").improvement_weight == 10.0
    for dataset in (None, "pointmaze-medium-navigate-v0", "antmaze-large-stitch-v0", "puzzle-3x3-play-v0"):
        found = preset("sorl", dataset)
        assert (found.improvement_weight, found.discount, found.aggregation) == (100.0, 0.99, Mean())


def test_a_baseline_takes_its_row_and_elsewhere_a_unit_free_one():
    """FQL's alpha is per unit of reward where it is published. IFQL and Value Flows have settings for all other data."""
    assert preset("fql", "scene-play-v0") == replace(PRESETS["fql"], alpha=300.0, q_scale=Raw())
    assert preset("fql", None) == preset("fql", "pointmaze-medium-navigate-v0") == PRESETS["fql"]
    assert preset("rebrac", GIANT).actor_penalty == 0.003
    assert row_of("rebrac", GIANT).source == "unverified"
    assert preset("value-flows", "puzzle-4x4-play-v0").choice_aggregation == Minimum()
    for name in ("ifql", "value-flows"):
        assert preset(name, "pointmaze-medium-navigate-v0") is PRESETS[name]
    line = "fql on scene-play-v0: alpha 300, q_scale Raw, discount 0.99, aggregation Mean (published)."
    assert told("fql", "scene-play-v0", config=preset("fql", "scene-play-v0")) == line
    # Of sparse rewards nothing is published here: their unit is another, and FQL's alpha is per unit.
    sparse = told("fql", "scene-play-v0", config=preset("fql", "scene-play-v0"), sparse_rewards=True)
    assert sparse == line.replace("(published)", "(published for its default rewards)")


def test_a_preset_without_rows_is_the_same_everywhere():
    assert preset("default", GIANT) is PRESETS["default"]
    assert row_of("default", GIANT) is None
    assert told("default", GIANT, config=PRESETS["default"]) == ""


def test_the_line_tells_what_was_looked_up_and_is_still_there():
    config = preset("sorl", GIANT)
    line = "sorl on antmaze-giant-navigate-v0: improvement_weight 500, discount 0.995, aggregation Minimum (published)."
    assert told("sorl", GIANT, config=config) == line
    line = "sorl on antmaze-giant-navigate-v0: discount 0.995 (published)."
    assert told("sorl", GIANT, config=replace(config, improvement_weight=1.0, aggregation=Mean())) == line
    nothing = replace(config, improvement_weight=1.0, aggregation=Mean(), discount=0.5)
    assert told("sorl", GIANT, config=nothing) == ""
    line = "sorl on your own data: improvement_weight 100, discount 0.99, aggregation Mean (ours)."
    assert told("sorl", None, config=preset("sorl")) == line
    assert told("sorl", None, config=preset("sorl"), sparse_rewards=True) == line


def test_the_page_has_the_table():
    lines = (DOCS / "agents" / "sorl.md").read_text().splitlines()
    there = {}
    for line in lines:
        if match := re.fullmatch(r"\| (\S+) \| (\d+) \| ([\d.]+) \| (mean|minimum) \| published \|", line):
            name, weight, discount, aggregation = match.groups()
            kind = {"mean": Mean(), "minimum": Minimum()}[aggregation]
            there[name] = {"improvement_weight": float(weight), "discount": float(discount), "aggregation": kind}
    assert there == {name: rows["sorl"].settings for name, rows in ENVIRONMENTS.items() if "sorl" in rows}
    assert len(there) == 8


def table(name):
    """The rows of a preset as its page has them; what a row leaves out is the preset's."""
    rows = {environment: rows[name] for environment, rows in ENVIRONMENTS.items() if name in rows}
    fields = list(dict.fromkeys(field for row in rows.values() for field in row.settings))
    if name in ELSEWHERE:
        rows["any other, and your own data"] = ELSEWHERE[name]
    lines = [
        f"| Environment | {' | '.join(f'`{field}`' for field in fields)} | Source |",
        "| --- |" + " --- |" * (len(fields) + 1),
    ]
    for environment, row in rows.items():
        values = [_shown(row.settings.get(field, getattr(PRESETS[name], field))) for field in fields]
        lines.append(f"| {' | '.join([environment, *values, row.source])} |")
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["fql", "ifql", "iql", "rebrac", "value-flows"])
def test_a_baselines_page_has_its_table(name):
    assert table(name) in (DOCS / "agents" / f"{name.replace('-', '_')}.md").read_text()


# Where they are looked up.


@pytest.fixture
def trained(monkeypatch):
    """The configs that would be trained."""
    configs = []
    monkeypatch.setattr("evor.training.train.train", lambda config, out, **_: configs.append(config))
    monkeypatch.setattr("evor.policies.train._train", lambda config, folder, **_: configs.append(config))
    return configs


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_the_command_line_looks_them_up_and_options_come_first(trained, here, capsys):
    command = ["train", GIANT, "--preset", "sorl", "--out", "run"]
    assert main(command) == 0
    assert trained[-1].agent == preset("sorl", GIANT)
    assert "note: sorl on antmaze-giant-navigate-v0: improvement_weight 500, discount 0.995, aggregation" in said(
        capsys
    )
    assert main([*command, "--agent.improvement-weight", "7", "--agent.aggregation", "mean"]) == 0
    agent = trained[-1].agent
    assert (agent.improvement_weight, agent.aggregation, agent.discount) == (7.0, Mean(), 0.995)
    assert "note: sorl on antmaze-giant-navigate-v0: discount 0.995 (published)." in said(capsys)
    assert main(["train", "--data", "mine.npz", "--preset", "sorl", "--out", "run"]) == 0
    assert trained[-1].agent == PRESETS["sorl"]
    assert "note: sorl on your own data: improvement_weight 100" in said(capsys)
    assert main(["train", GIANT, "--agent", "sorl", "--out", "run"]) == 0  # a kind of agent, and no preset
    assert trained[-1].agent == PRESETS["sorl"]
    assert main(["train", GIANT, "--out", "run"]) == 0
    assert trained[-1].agent == PRESETS["default"]
    assert "note" not in said(capsys)


def test_python_looks_them_up_and_takes_a_config_as_it_is(trained, tmp_path, capsys):
    evor.train(user_arrays(), out=tmp_path / "run", agent="sorl")
    assert trained[-1].agent == PRESETS["sorl"]
    assert "note: sorl on your own data: improvement_weight 100" in said(capsys)
    evor.train(GIANT, out=tmp_path / "run", agent="sorl", quiet=True)
    assert trained[-1].agent == preset("sorl", GIANT)
    assert said(capsys) == ""
    evor.train(GIANT, out=tmp_path / "run", agent=PRESETS["sorl"])
    assert trained[-1].agent == PRESETS["sorl"]
    assert said(capsys) == ""
