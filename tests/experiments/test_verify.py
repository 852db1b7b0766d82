"""`evor verify`: its measures and bounds on laws that are known, and the command at reduced size."""

import json
import re

import numpy as np
import pytest
from scipy.stats import norm

from evor.cli.main import main
from evor.distributions.measures import log_mean_exp_of_quantiles, midpoints
from evor.errors import EvorError
from evor.experiments.verify.bounds import BACKUPS, TABULAR, check_bounds
from evor.experiments.verify.measure import QUANTILES, measure_probe, temperatures
from evor.experiments.verify.methods import METHODS, answerable, probes, representative
from evor.experiments.verify.page import write_page
from evor.experiments.verify.problems import PROBLEMS
from evor.experiments.verify.runner import VerifySettings, verify
from evor.runtime.parallel import Local

U = midpoints(QUANTILES)


def cell(problem, method, learned):
    """A cell whose learned quantiles are learned(probe)."""

    def measured(probe):
        quantiles = np.sort(learned(probe))
        q = [log_mean_exp_of_quantiles(quantiles, temperature) for temperature in temperatures(probe.distribution, 1.0)]
        return measure_probe(probe, quantiles, q=np.array(q), data_std=1.0)

    return {"problem": problem, "method": method, "probes": [measured(probe) for probe in probes(problem, method)]}


def exact(probe):
    return probe.distribution.quantile(U)


def test_nothing_to_verify_is_refused(tmp_path):
    with pytest.raises(EvorError, match="problems is 0"):
        verify((), ("default",), settings=VerifySettings(), machines=Local(1), out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_the_exact_distribution_has_no_error():
    for problem in TABULAR:
        for probe in cell(problem, "sample-backup-5", exact)["probes"]:
            assert probe["wasserstein"] < 0.01
            assert abs(probe["mean_error"]) < 0.01
            assert max(map(abs, probe["q_error"][2:])) < 0.02
            assert np.ptp(probe["pit"]) < 0.02


def test_a_shift_is_an_error_of_its_size():
    shifted = cell("gaussian", "monte-carlo", lambda probe: exact(probe) + 0.3 * probe.distribution.std)["probes"][0]
    assert shifted["wasserstein"] == pytest.approx(0.3, abs=1e-3)
    assert shifted["mean_error"] == pytest.approx(0.3, abs=0.01)
    assert shifted["pit"][0] > 0.15  # the truth lies low in a law shifted up


def test_every_bound_holds_for_exact_distributions_and_their_limits():
    cells = [cell(problem, method, exact) for problem in PROBLEMS for method in (*BACKUPS, "monte-carlo", "default")]
    cells += [cell(problem, "flow-td", lambda probe: probe.distribution.mean + norm.ppf(U)) for problem in PROBLEMS]
    found = check_bounds(cells)
    assert {check["problem"] for check in found} == set(PROBLEMS)
    assert all(check["holds"] for check in found)


def test_bounds_fail_where_the_distribution_is_wrong():
    cells = [
        cell(problem, method, lambda probe: exact(probe) + 0.2)
        for problem in TABULAR
        for method in (*BACKUPS, "default")
    ]
    failed = {check["name"] for check in check_bounds(cells) if not check["holds"]}
    assert {
        f"{name}: {measure}" for name in ("best backup", "default") for measure in ("W1", "mean", "Q* at 1 sd and more")
    } <= failed


def test_an_expectation_learner_misses_the_forks_upper_tail():
    (check,) = (
        check
        for check in check_bounds([cell("fork", "monte-carlo", lambda probe: probe.distribution.mean + norm.ppf(U))])
        if check["name"].startswith("fork")
    )
    assert check["measured"] == 3  # the mean is right, the three temperatures are not


def test_heads_of_the_pages_tables_say_what_they_are_of(tmp_path):
    """Who hears the page read aloud needs it."""
    cells = [cell("coin", method, exact) for method in (*BACKUPS, "default")]
    report = {"cells": cells, "checks": check_bounds(cells), "settings": {"seed": 0}, "versions": {"evor": "0"}}
    write_page(report | {"hardware": {"cpu": "c"}, "commit": None}, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert set(re.findall(r"<th\b[^>]*>", page)) == {'<th scope="col">', '<th scope="row">'}
    assert page.count("<caption>") == page.count("<table>") == 2
    assert page.count("<tr>") == 2 + len(report["checks"]) + 1
    assert "sample-backup-5" in page


@pytest.mark.slow
def test_verify_writes_a_report_and_resumes(tmp_path, capsys):
    out = tmp_path / "verify"
    command = ["verify", "--problems", "coin", "--methods", "sample-backup-1", "--episodes", "50"]
    command += ["--updates", "4", "--hidden", "8", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "does not hold" in said.out
    assert "verify: 1/1 cells" in said.err
    report = json.loads((out / "verify.json").read_text())
    assert [cell["method"] for cell in report["cells"]] == [
        name for name in METHODS if name.startswith("sample-backup") and answerable("coin", name)
    ]  # all the same training: one step is the episode
    assert "<img" in (out / "index.html").read_text()
    trained = (out / "cells/coin/sample-backup-1/config.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "cells/coin/sample-backup-1/config.json").stat().st_mtime_ns == trained
    assert json.loads((out / "verify.json").read_text())["cells"] == report["cells"]
    assert main([*command, "--seed", "1"]) == 2
    assert "seed: 0 -> 1" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "name", "hint"), [("--problems", "coni", "coin"), ("--methods", "flow", "flow-td")])
def test_unknown_names_are_refused(flag, name, hint, tmp_path, capsys):
    assert main(["verify", flag, name, "--out", str(tmp_path / "v")]) == 2
    assert f"did you mean '{hint}" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--hidden", "-3"], "hidden is -3"), (["--hidden"], "hidden"), (["--target-rate", "2"], "target_rate")],
)
def test_what_cannot_be_trained_claims_no_folder(options, named, tmp_path, capsys):
    assert main(["verify", *options, "--out", str(tmp_path / "v")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_methods_skip_what_they_can_not_be_held_to():
    whole, searched = {"flow-td-dataset-return", "monte-carlo"}, {"sample-backup-1-best-action"}
    for problem, refused in {
        "cut-corridor": whole | searched,
        "corridor": searched,
        "fork": searched,
        "slippery-tree": set(),
    }.items():
        assert {name for name in METHODS if not answerable(problem, name)} == refused


def test_sums_past_the_longest_episode_are_trained_once():
    assert [representative("coin", name) for name in BACKUPS] == ["sample-backup-1"] * 3
    assert [representative("hidden-intent", name) for name in BACKUPS] == ["sample-backup-1", *["sample-backup-5"] * 2]
    assert [representative("corridor", name) for name in BACKUPS] == list(BACKUPS)
    assert representative("coin", "monte-carlo") == "monte-carlo"
    assert representative("fork", "flow-td-policy-action") == "flow-td"
    assert representative("chain-2", "flow-td-policy-action") == "flow-td"  # there is one action
    for problem in ("slippery-tree", "cut-corridor"):
        assert representative(problem, "flow-td-policy-action") == "flow-td-policy-action"
