"""The matrix: what is in it, that it resumes to the byte, and what it refuses."""

import contextlib
import csv
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import DATASET
from evor.agents.evor import Evor
from evor.errors import EvorError
from evor.experiments.reproduce import datasets, job, rows, runner
from evor.experiments.reproduce.folder import locked
from evor.experiments.reproduce.job import JobResult
from evor.experiments.reproduce.ledger import Ledger
from evor.experiments.reproduce.matrices import PAPER as MATRIX
from evor.experiments.reproduce.matrices import Part, Plan
from evor.experiments.reproduce.page import write_paper_report
from evor.experiments.reproduce.rows import TIMES
from evor.experiments.reproduce.runner import reproduce
from evor.experiments.reproduce.scales import SMOKE, Scale
from evor.experiments.reproduce.suite import SUITES
from evor.policies.load import open_run
from evor.runtime.files import read_json, write_csv, write_json
from evor.runtime.parallel import Local
from evor.runtime.progress import console
from evor.training.checkpoint import steps
from faults import filling_disk

TINY = Scale(  # of seconds
    name="tiny",
    seeds=1,
    updates=8,
    evaluate_every=2,
    episodes=1,
    hidden=(8, 8),
    transitions=4000,
    batch_size=16,
)
PLAN = Plan((Part(dataset=DATASET, tasks=(1, 4), agents=("evor", "bc")),))


def tiny(name, **changes):
    """A suite with a matrix of seconds."""
    suite = SUITES[name]
    plans = suite.matrix.plans | {"tiny": PLAN, "wider": PLAN}
    return suite._replace(matrix=suite.matrix._replace(**({"plans": plans} | changes)))


PAPER = tiny("paper")


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_folder):
    """The tiny matrix in one go."""
    out = tmp_path_factory.mktemp("reproduction") / "whole"
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    return out


def test_every_score_is_there_once(whole):
    rows = read(whole / "results.csv")
    found = {(row["agent"], row["task"], row["updates"]) for row in rows}
    assert found == {(agent, task, updates) for agent in ("evor", "bc") for task in "14" for updates in ("4", "6", "8")}
    assert len(rows) == len(found)
    assert {row["extraction"] for row in rows if row["agent"] == "bc"} == {"Prior"}
    assert all(row["data"] == "generated, 4000 transitions, seed 0" and row["episodes"] == "1" for row in rows)
    assert set(read(whole / "timings.csv")[0]) == set(TIMES)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["scored"] == {DATASET: [4, 6, 8]}
    assert [cell["agent"] for cell in manifest["cells"]] == ["evor", "bc"]


@pytest.mark.slow
def test_a_killed_and_restarted_matrix_ends_with_the_same_bytes(whole, tmp_path, data_folder, monkeypatch):
    played = 0
    play = job.play

    def dying(*arguments, **keywords):
        nonlocal played
        played += 1
        if played in (2, 5, 8):
            raise KeyboardInterrupt
        return play(*arguments, **keywords)

    monkeypatch.setattr(job, "play", dying)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            reproduce(PAPER, TINY, out=tmp_path / "cut", data=data_folder, machines=Local(1))
        assert (tmp_path / "cut" / "results.md").exists()
    reproduce(PAPER, TINY, out=tmp_path / "cut", data=data_folder, machines=Local(1))
    assert (tmp_path / "cut" / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_matrix_goes_on_from_its_csv_files_alone(whole, tmp_path, data_folder):
    """As on another machine, which has what was committed and no run folder."""
    out = tmp_path / "moved"
    out.mkdir()
    for name in ("manifest.json", "timings.csv", "results.csv"):
        shutil.copy(whole / name, out)
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert not (out / "cells").exists()
    lines = (whole / "results.csv").read_text().splitlines(keepends=True)
    (out / "results.csv").write_text("".join(line for line in lines if ",evor,0,6," not in line))
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert [path.parent.name for path in (out / "cells").glob("*/*/*")] == ["evor"]
    for name in ("results.csv", "timings.csv"):
        key = slice(0, 2 if name == "timings.csv" else None)
        assert [list(row.values())[key] for row in read(out / name)] == [
            list(row.values())[key] for row in read(whole / name)
        ]


def test_a_lost_manifest_is_made_again(whole, tmp_path, data_folder, monkeypatch):
    """From rows of today's protocol and recipes, and of no others."""
    out = tmp_path / "lost"
    out.mkdir()
    shutil.copy(whole / "results.csv", out)
    wider = TINY._replace(name="wider", hidden=(16,))
    with pytest.raises(
        EvorError, match=r"results\.csv holds rows of another protocol \(8 updates, nets 8x8 .*nets 16 in"
    ):
        reproduce(PAPER, wider, out=out, data=data_folder, machines=Local(1))
    assert not (out / "manifest.json").exists()
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert not (out / "cells").exists()
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert (
        json.loads((out / "manifest.json").read_text())["recipes"]
        == json.loads((whole / "manifest.json").read_text())["recipes"]
    )


def test_a_folder_from_before_there_were_several_matrices_goes_on(whole, tmp_path, data_folder):
    """Its manifest names no matrix and no lead, and its cells have no `longer`."""
    out = tmp_path / "older"
    out.mkdir()
    for name in ("timings.csv", "results.csv"):
        shutil.copy(whole / name, out)
    manifest = json.loads((whole / "manifest.json").read_text())
    cells = [{name: value for name, value in cell.items() if name != "longer"} for cell in manifest["cells"]]
    older = {name: value for name, value in manifest.items() if name not in ("matrix", "lead")} | {"cells": cells}
    (out / "manifest.json").write_text(json.dumps(older))
    assert write_paper_report(out).read_text() == (whole / "results.md").read_text()
    with pytest.raises(EvorError, match="is a reproduction of paper at scale tiny"):
        reproduce(tiny("sorl"), TINY, out=out, data=data_folder, machines=Local(1))
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert not (out / "cells").exists()
    assert json.loads((out / "manifest.json").read_text()) == manifest


def test_cells_without_data_are_not_promised(tmp_path, monkeypatch, capsys):
    """An ant without its navigation policy: the same command would find nothing either."""
    ants = Part(dataset="antmaze-large-navigate-v0", tasks=(1,), agents=("bc",))
    ant = TINY._replace(name="ant")
    monkeypatch.setattr(datasets, "official_folders", lambda: [tmp_path])
    assert (
        reproduce(
            tiny("paper", plans={"ant": Plan((ants,))}),
            ant,
            out=tmp_path / "out",
            data=tmp_path / "data",
            machines=Local(1),
        )
        == []
    )
    said = capsys.readouterr().err
    assert "give the ant's locomotion policy with --expert FILE.npz" in said
    assert "0 of 1 cells are finished; the others lack data, as told above." in said


def test_results_of_another_version_are_refused(whole, tmp_path, data_folder):
    out = tmp_path / "older"
    out.mkdir()
    shutil.copy(whole / "manifest.json", out)
    (out / "results.csv").write_text("suite,dataset,score\npaper,maze,1.0\n")
    with pytest.raises(EvorError, match=r"results\.csv has other columns.*another --out"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_text().endswith("paper,maze,1.0\n")


def test_hours_stop_cleanly(tmp_path, data_folder):
    """What is past its time opens no cell, trains nothing and plays nothing."""
    assert reproduce(PAPER, TINY, out=tmp_path / "late", data=data_folder, hours=1e-9, machines=Local(1)) == []
    assert not (tmp_path / "late" / "cells").exists()


@pytest.mark.slow
def test_processes_that_share_a_gpu_leave_every_row_and_their_driver_reserves_nothing(whole, tmp_path):
    """As on a GPU: one process trains while the other plays, and datasets are generated meanwhile."""
    script = """
from pathlib import Path
from jax._src import xla_bridge
from test_reproduce import PAPER, TINY, Local, reproduce
if __name__ == "__main__":
    reproduce(PAPER, TINY._replace(together=True), out=Path("out"), data=Path("data"), machines=Local(2))
    assert not xla_bridge.backends_are_initialized()
"""
    (tmp_path / "script.py").write_text(script)
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests / "experiments"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=True, timeout=600
    )
    mine, theirs = read(tmp_path / "out" / "results.csv"), read(whole / "results.csv")
    assert [row["task"] + row["agent"] + row["updates"] for row in mine] == [
        row["task"] + row["agent"] + row["updates"] for row in theirs
    ]


def test_time_that_runs_out_in_training_costs_no_number(whole, tmp_path, data_folder, monkeypatch):
    """Training stops after the compiled call at hand and saves; the rest follows as after a kill."""
    advance = job.Training.advance
    monkeypatch.setattr(job.Training, "advance", lambda self, until, deadline: advance(self, until, 0.0))
    out = tmp_path / "late"
    reproduce(PAPER, TINY, out=out, data=data_folder, only=("bc",), machines=Local(1))
    (checkpoint,) = (out / "cells").glob("*/bc/*/checkpoints/*")
    assert "step_000000001" in checkpoint.name
    monkeypatch.setattr(job.Training, "advance", advance)
    reproduce(PAPER, TINY, out=out, data=data_folder, only=("bc",), machines=Local(1))
    assert read(out / "results.csv") == [row for row in read(whole / "results.csv") if row["agent"] == "bc"]


def test_no_episode_begins_that_could_not_end_in_time(tmp_path, data_folder, monkeypatch):
    """Playing takes a thousand seconds, and there are fifteen hundred."""
    now = time.monotonic()
    play = job.play

    class Clock:
        @staticmethod
        def monotonic():
            return now

        time = monotonic

    def long(*arguments, **options):
        nonlocal now
        now += 1000
        return play(*arguments, **options)

    monkeypatch.setattr(runner, "time", Clock)
    monkeypatch.setattr(job, "time", Clock)
    monkeypatch.setattr(job, "play", long)
    rows = reproduce(
        PAPER, TINY, out=tmp_path / "out", data=data_folder, only=("bc",), hours=1500 / 3600, machines=Local(1)
    )
    assert len(rows) == 1


def test_workers_share_the_memory_for_environments(tmp_path, data_folder, monkeypatch):
    jobs, asked = [], []

    def note(function, given, machines, **_):
        jobs.extend(each for (each,) in given)
        yield from ()

    monkeypatch.setattr(runner, "parallel_map", note)
    reproduce(PAPER, TINY, out=tmp_path / "out", data=data_folder, machines=Local(2))
    assert [each.processes for each in jobs] == [2, 2]
    monkeypatch.setattr(job, "fitting", lambda *found: asked.append(found) or 1.0)

    def refuse(*_, parallel, **__):
        raise EvorError(f"{parallel} at once")

    monkeypatch.setattr(job, "play", refuse)
    trained = job.run_job(jobs[1])
    assert (trained.why, [each.updates for each in trained.then]) == ("", [4, 6, 8])
    assert job.run_job(trained.then[0]).why == "1.0 at once"
    assert asked == [(DATASET, 2)]


@pytest.fixture
def jobs(tmp_path, data_folder, monkeypatch):
    """The jobs of the tiny matrix as they would go to processes, from relative paths."""
    given = []

    def note(function, jobs, machines, **_):
        given.extend(each for (each,) in jobs)
        yield from ()

    monkeypatch.setattr(runner, "parallel_map", note)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_folder)
    reproduce(PAPER, TINY, out=Path("out"), data=Path("data"), machines=Local(2), hours=1)
    return given


def test_paths_hold_where_the_working_folder_is_another(jobs, tmp_path, monkeypatch):
    assert [each.cell.agent for each in jobs] == ["evor", "bc"]
    monkeypatch.chdir("/")
    assert job.run_job(jobs[1]).why == ""
    assert steps(tmp_path / "out" / "cells" / jobs[1].cell.name / "checkpoints") == [4, 6, 8]
    assert open_run(jobs[1].folder).config.data == "data"  # as from anywhere else


def test_data_under_a_cap_are_laid_out_once_for_all_cells(jobs, tmp_path, monkeypatch):
    laid_out = []
    monkeypatch.setattr(
        runner, "lay_out", lambda config, machines: laid_out.append((config.data, config.agent, machines))
    )
    capped = [each._replace(memory_gb=1.0) for each in jobs]
    assert runner._laid_out([*capped, *capped], Local(2)) == [*capped, *capped]
    assert [data for data, _, _ in laid_out] == [str(tmp_path / "data")] * 2
    assert [type(agent).__name__ for _, agent, _ in laid_out] == ["Evor", "Bc"]  # they ask for other columns


def test_a_job_that_is_tried_again_sees_its_own_rows(jobs, whole):
    """results.csv has none of them yet: the driver writes it after a job's end."""
    shutil.copytree(whole / "cells", jobs[0].folder.parents[2])
    for checkpoint in (jobs[0].folder / "checkpoints").glob("*[46].*"):
        checkpoint.unlink()
    again = job.run_job(jobs[0])
    assert (again.why, again.then) == ("", ())
    (lost,) = (jobs[0].folder / "rows").glob("*8_softmax*task4-seed0.json")
    lost.unlink()
    again = job.run_job(jobs[0])
    assert (again.why, [each.updates for each in again.then]) == ("", [8])
    for row in (jobs[0].folder / "rows").glob("*6_*.json"):
        row.unlink()
    assert "has passed 6 updates without their evaluation" in job.run_job(jobs[0]).why


def test_a_deadline_holds_on_a_machine_with_another_clock(jobs, monkeypatch):
    """time.monotonic() begins anew with every machine."""
    seen = []

    class Clock:
        @staticmethod
        def time():
            return 1000.0

        @staticmethod
        def monotonic():
            return 5.0

    monkeypatch.setattr(job, "time", Clock)
    monkeypatch.setattr(job.Training, "advance", lambda self, until, deadline: seen.append((until, deadline)))
    assert job.run_job(jobs[1]._replace(deadline=1100.0)).then == ()
    assert seen == [(8, 105.0)]
    assert job.run_job(jobs[1]._replace(deadline=999.0)).then == ()
    assert len(seen) == 1


def test_a_cell_is_waited_for_while_another_process_holds_it(jobs, monkeypatch):
    held = []

    @contextlib.contextmanager
    def note(path):
        held.append(path)
        yield
        held.append(None)

    monkeypatch.setattr(job, "waited_for", note)
    monkeypatch.setattr(job.Training, "advance", lambda self, until, deadline: held.append(until))
    job.run_job(jobs[1])
    assert held == [jobs[1].folder / ".cell.lock", 8, None]


def test_checkpoints_wait_for_their_evaluations(jobs, monkeypatch):
    """However many there are; played, the newest three stay, as in a run that is played while it trains."""
    many = jobs[1]._replace(scale=TINY._replace(evaluate_every=1, played=6))
    played = job.run_job(many).then
    assert [each.updates for each in played] == [3, 4, 5, 6, 7, 8]
    assert steps(many.folder / "checkpoints") == [3, 4, 5, 6, 7, 8]
    monkeypatch.setattr(job, "_play", lambda evaluation, wanted: None)
    assert job.run_job(played[0]).why == ""
    assert steps(many.folder / "checkpoints") == [3, 4, 5, 6, 7, 8]
    monkeypatch.setattr(job, "_remaining", lambda job: [(6, [])])
    job.run_job(played[0])
    assert steps(many.folder / "checkpoints") == [6, 7, 8]


def test_a_full_disk_on_one_machine_fails_its_cell_alone(jobs):
    """A job's result tells of it, and the driver goes on with the others."""
    with filling_disk(jobs[1].folder, fills=3) as disk:
        result = job.run_logged(jobs[1])
    assert disk.events >= 3
    assert result.cell == jobs[1].cell.name
    assert "No space left on device" in result.why
    assert not console.quiet
    result = job.run_logged(jobs[1])  # there is room again
    assert (result.why, [each.updates for each in result.then]) == ("", [4, 6, 8])
    told = jobs[1].log.read_text()
    assert told.count(f"process {os.getpid()}") >= 1
    assert "train: 8/8 updates" in told


def test_the_end_of_a_cell_costs_what_it_wrote(whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    ledger, opened, text = Ledger(out), [], (out / "results.csv").read_text()
    assert ledger.rows == {rows.key_of(row): row for row in read(out / "results.csv")}
    monkeypatch.setattr(rows, "read_json", lambda path, *keys: opened.append(path) or read_json(path, *keys))
    cell = f"{DATASET}/bc/tasks14-seed0"
    (old,) = (out / "cells" / cell / "rows").glob("*8_prior*task1-seed0.json")
    write_json(old.with_name("000000009_prior_task1-seed0.json"), read_json(old) | {"updates": 9})
    ledger.enter(JobResult(cell))
    assert [path.name for path in opened] == ["000000009_prior_task1-seed0.json"]
    added = (out / "results.csv").read_text().removeprefix(text)
    assert added.startswith(f"paper,{DATASET},1,bc,0,9,Prior,")
    assert added.count("\n") == 1
    (out / "results.csv").write_text(text + added[:-5])  # killed while it was appended
    again = Ledger(out)
    again.write()
    assert [row["updates"] for row in read(out / "results.csv")].count("9") == 1
    assert (out / "results.csv").read_text() != text + added  # in order


def let_evor_fail(monkeypatch, error):
    """Training of `evor` raises; the other agents train."""
    advance = job.Training.advance

    def failing(self, until, deadline):
        if isinstance(self._config.agent, Evor):
            raise error
        return advance(self, until, deadline)

    monkeypatch.setattr(job.Training, "advance", failing)


def test_a_cell_that_fails_leaves_its_reason_and_the_others_go_on(whole, tmp_path, data_folder, monkeypatch):
    advance = job.Training.advance
    let_evor_fail(monkeypatch, EvorError("the value's loss is not finite"))
    out = tmp_path / "half"
    with pytest.raises(EvorError, match=r"1 of 2 cells failed; the others are kept\. First: .*/evor/.*not finite"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert read(out / "results.csv") == [row for row in read(whole / "results.csv") if row["agent"] == "bc"]
    told = "evor, tasks14-seed0: the value's loss is not finite."
    assert told in (out / "results.md").read_text()
    reproduce(PAPER, TINY, out=out, data=data_folder, hours=1e-9, machines=Local(1))  # no time to try: the reason stays
    assert told in (out / "results.md").read_text()
    monkeypatch.setattr(job.Training, "advance", advance)
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert "not finite" not in (out / "results.md").read_text()


def test_a_cell_that_fails_in_an_unforeseen_way_does_not_stop_the_others(whole, tmp_path, data_folder, monkeypatch):
    """As a card without memory does."""
    let_evor_fail(monkeypatch, RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a long tale"))
    told = r"/evor/.*: RuntimeError: RESOURCE_EXHAUSTED: Out of memory \(test_reproduce\.py:\d+\)$"
    with pytest.raises(EvorError, match=told):
        reproduce(PAPER, TINY, out=tmp_path / "half", data=data_folder, machines=Local(1))
    assert read(tmp_path / "half" / "results.csv") == [
        row for row in read(whole / "results.csv") if row["agent"] == "bc"
    ]


def test_a_killed_process_is_told_and_what_is_finished_stays(whole, tmp_path, data_folder, monkeypatch):
    def killed(function, jobs, machines, *, lost, **_):
        return (lost("killed by signal 9", *job) for job in jobs)

    out = tmp_path / "half"
    reproduce(PAPER, TINY, out=out, data=data_folder, only=("bc",), machines=Local(1))
    monkeypatch.setattr(runner, "parallel_map", killed)
    with pytest.raises(
        EvorError,
        match=r"^1 of 2 cells failed; .*/evor/.*its process was lost 3 times \(killed by signal 9\); is there memory.* Fewer --workers",
    ):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(2))
    assert "bc" in (out / "results.md").read_text()
    assert read(out / "results.csv") == [row for row in read(whole / "results.csv") if row["agent"] == "bc"]


def test_rows_that_could_not_be_averaged_are_not_even_trained(whole, tmp_path, data_folder):
    out = tmp_path / "older"
    out.mkdir()
    shutil.copy(whole / "manifest.json", out)
    rows = [row | {"mujoco": "3.2.0"} for row in read(whole / "results.csv") if row["agent"] == "bc"]
    write_csv(out / "results.csv", tuple(rows[0]), rows=rows)
    before = (out / "results.csv").read_bytes()
    with pytest.raises(EvorError, match=r"mujoco '3\.2\.0'; here it would be '.*can't be averaged\. Use the same"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert not (out / "cells").exists()
    assert (out / "results.csv").read_bytes() == before


def test_a_manifest_that_is_no_object_is_refused_and_left(whole, tmp_path, data_folder):
    out = tmp_path / "listed"
    shutil.copytree(whole, out)
    (out / "manifest.json").write_text("[]")
    with pytest.raises(EvorError, match=r"manifest\.json is damaged \(it holds no object\)"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "manifest.json").read_text() == "[]"


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        (
            "manifest.json",
            lambda text: text.replace('"recipes": {', '"recipes": [], "then": {'),
            "'recipes' is no dict",
        ),
        (
            "timings.csv",
            lambda text: re.sub(r",\d+,0,20", ",much,0,20", text),
            r"line 2 of .*could not convert.*'much'",
        ),
        (
            "results.csv",
            lambda text: re.sub(r",1,[01]\.0,", ",1,7.0,", text),
            r"line 2 of .*success '7\.0' is no share",
        ),
    ],
)
def test_what_could_not_be_tabulated_is_not_even_trained(file, damage, told, whole, tmp_path, data_folder):
    out = tmp_path / "damaged"
    out.mkdir()
    for name in ("manifest.json", "timings.csv", "results.csv"):
        shutil.copy(whole / name, out)
    (out / file).write_text(damage((whole / file).read_text()))
    assert (out / file).read_text() != (whole / file).read_text()
    with pytest.raises(EvorError, match=told):
        reproduce(PAPER, TINY, out=out, data=data_folder, seeds=2, machines=Local(1))
    assert not (out / "cells").exists()


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-40] + b"\n", lambda text: text[:-1] + b",3\n", lambda text: text + b"\xff"]
)
def test_a_damaged_csv_is_refused_and_left_as_it_is(damage, whole, tmp_path, data_folder):
    out = tmp_path / "damaged"
    shutil.copytree(whole, out)
    broken = damage((out / "results.csv").read_bytes())
    (out / "results.csv").write_bytes(broken)
    with pytest.raises(EvorError, match=r"results\.csv is damaged.*gathered again from cells/"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_bytes() == broken
    (out / "results.csv").unlink()  # as it says
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_a_row_that_contradicts_another_is_refused(whole, tmp_path, data_folder):
    """The same row twice says nothing new."""
    out = tmp_path / "twice"
    shutil.copytree(whole, out)
    rows = read(out / "results.csv")
    write_csv(out / "results.csv", tuple(rows[0]), rows=[*rows, rows[0]])
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    write_csv(out / "results.csv", tuple(rows[0]), rows=[*rows, rows[0] | {"success": "0.5"}])
    with pytest.raises(
        EvorError, match=rf"line {len(rows) + 2} of .*results\.csv contradicts one before it; restore it"
    ):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))


def test_a_whole_run_counts_no_resume(whole):
    """Three laps of one process; a second process is one resume (test_train's clock begins anew)."""
    assert {row["resumes"] for row in read(whole / "timings.csv")} == {"0"}


def test_two_at_once_and_results_of_another_recipe_are_refused(whole, tmp_path, data_folder):
    out = tmp_path / "taken"
    shutil.copytree(whole, out)
    with locked(out), pytest.raises(EvorError, match=r"is in use by evor reproduce \(process \d+ on"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    now = (out / "results.csv").read_text()
    recipe = next(row["recipe"] for row in read(out / "results.csv") if row["agent"] == "bc")
    shutil.rmtree(out / "cells")
    (out / "results.csv").write_text(now.replace(recipe, "00000000"))
    manifest = (out / "manifest.json").read_text()
    with pytest.raises(EvorError, match=rf"bc on {DATASET} by recipe 00000000; today's is {recipe}"):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "manifest.json").read_text() == manifest


def test_a_recipe_keeps_its_name_when_an_option_is_added_and_tells_what_changed(whole, tmp_path, data_folder):
    out = tmp_path / "older"
    shutil.copytree(whole, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (name,) = manifest["recipes"]["evor"]
    before = (out / "results.csv").read_text()

    def older(change):
        """As a version wrote it whose recipe went by another name."""
        stored = json.loads(json.dumps(manifest["recipes"]["evor"][name]))
        change(stored["agent"])
        recipes = manifest["recipes"] | {"evor": {"00000000": stored}}
        (out / "manifest.json").write_text(json.dumps(manifest | {"recipes": recipes}))
        shutil.rmtree(out / "cells", ignore_errors=True)
        (out / "results.csv").write_text(before.replace(name, "00000000"))

    older(lambda agent: agent.pop("solver"))  # did not know it: did what its default does
    reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_text() == before.replace(name, "00000000")

    for change, told in (
        (lambda agent: agent.update(batch_size=64), r"agent\.batch_size: 64 -> 16"),
        (lambda agent: agent.update(momentum=0.9), r"agent\.momentum: 0\.9 -> None"),
    ):
        older(change)
        with pytest.raises(EvorError, match=rf"evor on {DATASET} by recipe 00000000; today's is {name} \({told}\)"):
            reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
        assert (out / "results.csv").read_text() == before.replace(name, "00000000")


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_bytes_and_leaves_no_worker_behind(tmp_path, data_folder):
    """Smoke scale, two workers, SIGKILL to the parent: whatever it was doing, restarting changes no number."""
    only = ["pointmaze-medium-navigate-v0", "bc", "evor", "qc-5", "task1"]

    def start(out):
        command = [
            "reproduce",
            "paper",
            "--scale",
            "smoke",
            "--data",
            str(data_folder),
            "--out",
            str(out),
            "--workers",
            "2",
        ]
        return subprocess.Popen([sys.executable, "-m", "evor.cli.main", *command, "--only", *only])

    def check(out, code):
        assert code == 0
        assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()

    started = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    whole, generator = time.monotonic() - started, random.Random(0)
    folders = (tmp_path / f"cut{number}" for number in itertools.count())
    killed, out = 0, next(folders)
    while killed < 3:
        process = start(out)
        try:
            code = process.wait(whole * generator.uniform(0.1, 0.6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        else:  # it was faster this time
            check(out, code)
            out = next(folders)
    check(out, start(out).wait())


@pytest.mark.slow
def test_the_suite_sorl_scales_the_last_checkpoint_by_the_same_command(tmp_path, data_folder):
    """One command trains `sorl` and `sorl-1`, and plays the grid on `sorl` alone; the folder is no other matrix's."""
    parts, out = (Part(DATASET, (1,), ("sorl", "sorl-1")),), tmp_path / "sorl"
    grid = [search for search in SUITES["sorl"].matrix.further if search.num_candidates <= 2 and search.flow_steps > 4]
    suite = tiny("sorl", plans={"tiny": Plan(parts)}, further=tuple(grid))
    rows = reproduce(suite, TINY, out=out, data=data_folder, machines=Local(1))
    played = {(row["suite"], row["agent"], row["updates"], row["flow_steps"], row["num_candidates"]) for row in rows}
    assert played == {
        *(("sorl", agent, updates, "8", "8") for agent in ("sorl", "sorl-1") for updates in "468"),
        *(("scaling", "sorl", "8", "8", count) for count in "12"),
    }
    assert len(rows) == len(played)
    page = (out / "results.md").read_text()
    assert page.startswith("# Reproduction of SORL's experiment")
    assert "trained_steps: 8 -> 1" in page
    assert "## Scaling in training" in page
    with pytest.raises(
        EvorError, match=r"is a reproduction of sorl at scale tiny .*this one is of paper at scale tiny"
    ):
        reproduce(PAPER, TINY, out=out, data=data_folder, machines=Local(1))
    before = (out / "results.csv").read_bytes()
    (out / "results.csv").write_text(
        "".join(line for line in before.decode().splitlines(keepends=True) if "scaling" not in line)
    )
    reproduce(suite, TINY, out=out, data=data_folder, machines=Local(1))
    assert (out / "results.csv").read_bytes() == before


@pytest.mark.slow
def test_only_narrows_and_ablations_reuse_the_trained_cell(whole, tmp_path, data_folder):
    out = tmp_path / "narrow"
    rows = reproduce(PAPER, TINY, out=out, data=data_folder, only=("evor", "task4"), machines=Local(1))
    assert {(row["agent"], row["task"]) for row in rows} == {("evor", "4")}
    few = tiny("ablations", further=MATRIX.further[:2])
    before = (out / "cells").glob("*/evor/*/checkpoints/*")
    stamps = {path: path.stat().st_mtime_ns for path in before}
    rows = reproduce(few, TINY, out=out, data=data_folder, only=("task4",), machines=Local(1))
    assert {(row["num_candidates"], row["updates"]) for row in rows} == {
        ("32", "4"),
        ("32", "6"),
        ("32", "8"),
        ("1", "8"),
        ("2", "8"),
    }
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_what_is_asked_for_must_exist(whole, tmp_path, data_folder):
    with pytest.raises(EvorError, match=r"--only 'evr'.*did you mean"):
        reproduce(PAPER, TINY, out=tmp_path / "a", data=data_folder, only=("evr",))
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(EvorError, match=r"thesis\.txt is a file; give the folder"):
        reproduce(PAPER, TINY, out=tmp_path / "a", data=tmp_path / "thesis.txt")
    with pytest.raises(EvorError, match=r"walker\.npz does not exist"):
        reproduce(PAPER, TINY, out=tmp_path / "a", data=data_folder, expert=tmp_path / "walker.npz")
    assert not (tmp_path / "a").exists()
    with pytest.raises(EvorError, match="hours is 0"):
        reproduce(PAPER, TINY, out=tmp_path / "a", data=data_folder, hours=0)
    with pytest.raises(EvorError, match="reproduction of paper at scale tiny"):
        reproduce(PAPER, SMOKE, out=whole, data=data_folder)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(EvorError, match="holds something"):
        reproduce(PAPER, TINY, out=tmp_path / "a", data=data_folder)
