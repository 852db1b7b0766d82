"""The page of a run: what it says of rows whose numbers are known, and that anybody can read it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evor.errors import EvorError
from evor.report.about import followed
from evor.report.calibration import Predictions, calibration
from evor.report.evaluations import COLUMNS, RETURNS
from evor.report.grid import grid_section, grids
from evor.report.held_out import HeldOut, Trajectory, held_out_sections, place, read, store
from evor.report.learning import ACTORS, learning_section
from evor.report.maze import arrived
from evor.report.predictions import numbers, predictions
from evor.report.run import write_report
from evor.report.success import candidates_section, group, label
from evor.runtime.files import write_csv, write_npz

DATASET = "cube-single-play-v0"  # no maze: nothing is drawn of it
SEARCH = ("SoftmaxOf", 4, 1.0, 1e-3, "Quadrature-10", 10, "", "", "", "")
GUIDED = ("Guided", 4, 1.0, 0.0, "Quadrature-10", 10, "", "InsideFlow", 0.3, "")
BASE = ("Prior", 1, "", "", "", 10, "", "", "", "")
AGENT = {"type": "Evor", "next_action": {"type": "DatasetAction"}, "batch_size": 32, "discount": 0.99}


def row(setting=SEARCH, **changes):
    """A row; `told` are its RETURNS: realised, predicted mean, and quantiles at 10, 25, 50, 75 and 90 per cent."""
    told = changes.pop("told", (-3.0, -4.0, -8.0, -6.0, -4.0, -2.0, 0.0))
    names = list(COLUMNS)[5:15]
    cell = {"dataset": DATASET, "task": 1, "seed": 0, "updates": 20, "episode": 0, "evaluation_seed": 0}
    rest = {"success": 1, "return": -3.25, "length": 40, "max_episode_steps": "", "reward_rule": "pre"}
    origin = {"ogbench": "1.2", "mujoco": "3.3.1", "commit": "c"}
    line = cell | rest | origin | dict(zip(names, setting, strict=True)) | dict(zip(RETURNS, told, strict=True))
    return {name: (line | changes)[name] for name in COLUMNS}


def write_run(run, rows, columns=tuple(COLUMNS), **changes):
    """A run folder with these rows of evaluations and no networks."""
    (run / "evaluations").mkdir(parents=True)
    config = {"dataset": DATASET, "data": None, "tasks": [1], "seed": 0, "seeds": 1, "agent": AGENT} | changes
    (run / "config.json").write_text(json.dumps({"config": config}))
    origin = {"versions": {"evor": "0"}, "hardware": {"cpu": "c", "device": "d"}, "commit": None}
    (run / "provenance.json").write_text(json.dumps(origin))
    losses = [{"step": step, "seed": 0, "task": 1, "policy/loss": 1 / step, "value/loss": 1.0} for step in (10, 20)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    for index, (_, played) in enumerate(group(rows).items() if rows else ()):
        lines = [{name: each[name] for name in columns} for each in played]
        write_csv(run / "evaluations" / f"{index}.csv", columns, rows=lines)
    return run


def page(*runs):
    return write_report(list(runs)).read_text(encoding="utf-8")


# Calibration.


def test_counts_are_those_of_the_rows():
    """Four returns: below all, in the outer interval, on the edge of the inner one, above all."""
    quantiles = np.tile([-8.0, -6.0, -4.0, -2.0, 0.0], (4, 1))
    told = Predictions(mean=np.full(4, -4.0), quantiles=quantiles, realised=np.array([-9.0, -7.0, -2.0, 1.0]))
    counted = calibration(told)
    assert (counted.count, counted.above, counted.inside) == (4, 2, {50: 1, 80: 2})
    assert (counted.predicted, counted.realised) == (-4.0, -17 / 4)
    line = ["a", "4", "-4.00", "-4.25", "2 of 4 (50 %)", "1 of 4 (25 %)", "2 of 4 (50 %)"]
    assert numbers("a", told) == line


def test_a_value_that_knows_the_law_covers_what_it_says():
    """Normal returns around known means: 50 % and 80 % of 20,000, to four standard errors."""
    generator = np.random.default_rng(0)
    mean = generator.normal(size=20_000)
    levels = np.array([-1.2815516, -0.6744898, 0.0, 0.6744898, 1.2815516])
    realised = mean + generator.normal(size=len(mean))
    counted = calibration(Predictions(mean=mean, quantiles=mean[:, None] + levels, realised=realised))
    assert counted.inside[50] / counted.count == pytest.approx(0.5, abs=0.015)
    assert counted.inside[80] / counted.count == pytest.approx(0.8, abs=0.012)
    assert counted.above / counted.count == pytest.approx(0.5, abs=0.015)


def test_rows_without_predictions_are_left_out():
    nothing = dict.fromkeys(RETURNS, "")
    rows = [row(), row(episode=1) | nothing, row(episode=2, told=(-5.0, *[-1.0] * 6))]
    told = predictions(rows)
    np.testing.assert_array_equal(told.realised, [-3, -5])
    np.testing.assert_array_equal(told.mean, [-4, -1])
    np.testing.assert_array_equal(told.quantiles[0], [-8, -6, -4, -2, 0])
    assert predictions([row() | nothing]) is None


def test_one_number_as_a_prediction_has_no_intervals():
    told = predictions([row(told=(-3.0, *[-4.0] * 6))])
    assert numbers("a", told)[-2:] == ["–", "–"]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ({"type": "Evor", "next_action": {"type": "DatasetAction"}}, "the behaviour policy"),
        ({"type": "Evor", "next_action": {"type": "PolicyAction"}}, "the base policy"),
        ({"type": "Evor", "next_action": {"type": "Searched"}}, "a small search"),
        ({"type": "Qc"}, "a small search"),
        ({"type": "Scalar"}, "the behaviour policy"),
        ({"type": "Sorl"}, "the actor"),
        ({"type": "Own"}, "the policy that its targets bootstrap from"),
        ({"type": "Own", "next_action": {"type": "PolicyAction"}}, "the base policy"),
        ({"type": "Evor", "objective": {"type": "MonteCarlo"}, "next_action": {"type": "BestAction"}}, "the behaviour"),
        ({"type": "Evor", "objective": {"type": "FlowTd"}, "next_action": {"type": "BestAction"}}, "a small search"),
    ],
)
def test_the_page_says_whose_return_is_predicted(agent, told):
    assert followed({"agent": agent}).startswith(told)


@pytest.mark.parametrize(
    ("rule", "success", "told"),
    [
        ("pre", 0, "1 of 2 (50 %) episodes were cut at the time limit"),
        ("own", 0, "1 of 2 (50 %) episodes ended without a success"),
        ("own", np.nan, "1 of 2 (50 %) episodes ended without a success"),
    ],
)
def test_a_failure_is_a_cut_where_an_environment_ends_no_other_way(rule, success, told, tmp_path):
    rows = [row(length=40, success=1, reward_rule=rule), row(length=40, success=success, episode=1, reward_rule=rule)]
    assert told in page(write_run(tmp_path / "run", rows))


@pytest.mark.parametrize("agent", [AGENT | {"next_action": {"type": "BestAction"}}, {"type": "Fql"}])
def test_the_page_holds_no_policy_for_the_data_s_that_is_not(agent, tmp_path):
    """A value of searched targets is not that of the base policy, and FQL's actor does not imitate the data."""
    text = page(write_run(tmp_path / "run", [row(BASE), row(SEARCH)], agent=agent))
    assert "base policy, which imitates the data" not in text
    assert "The base policy imitates the data" not in text
    assert "Where both play alike, the returns show how well the value is calibrated." in text


# The page.


def test_columns_of_guidance_stand_where_a_search_is_guided(tmp_path):
    weak, strong = ((*GUIDED[:-2], weight, "") for weight in (0.3, 1.0))
    plain = page(write_run(tmp_path / "plain", [row(setting) for setting in (BASE, SEARCH)]))
    guided = page(write_run(tmp_path / "guided", [row(setting) for setting in (BASE, weak, strong)]))
    for words in (">guidance</th>", ">weight</th>", "the root mean square of its entries"):
        assert words in guided
        assert words not in plain
    assert ">max return</th>" not in plain + guided
    assert "Guided, 4 candidates, weight 0.3: 1.00; Guided, 4 candidates, weight 1.0: 1.00" in guided


def test_one_guided_candidate_is_not_the_base_policy(tmp_path, monkeypatch):
    """A line of guided searches does not begin at the base policy; one without guidance does."""
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axis, x, *_, **__: drawn.append(list(x)))
    for setting in (SEARCH, GUIDED):
        settings = [BASE, *((setting[0], count, *setting[2:]) for count in (2, 8))]
        candidates_section(group([row(each) for each in settings]))
    assert drawn == [[1, 2, 8], [2, 8]]


def test_a_line_begins_at_the_base_policy_of_its_own_flow_steps(monkeypatch):
    """Where a sweep plays other flow steps, one candidate in those is another base policy."""
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axis, x, y, *_, **__: drawn.append((list(x), list(y))))

    def settings(steps):
        return [(*each[:5], steps, *each[6:]) for each in (BASE, *((SEARCH[0], n, *SEARCH[2:]) for n in (2, 8)))]

    rows = [row(each, success=int(steps == 8)) for steps in (2, 8) for each in settings(steps)]
    candidates_section(group(rows))
    assert sorted(drawn) == [([1, 2, 8], [0, 0, 0]), ([1, 2, 8], [1, 1, 1])]


def test_only_episodes_that_end_at_the_goal_have_arrived():
    maze = {"goal": np.array([1.0, 0.0]), "goal_tolerance": np.array(0.5)}
    there, elsewhere = np.array([[0.0, 0.0], [0.5, 0.0], [1.2, 0.0]]), np.zeros((3, 2))
    assert arrived(maze, [there, elsewhere]) == 1
    assert arrived(maze, [there, elsewhere], by=2) == 1
    assert arrived(maze, [there, elsewhere], by=1) == 0


def test_a_grid_of_steps_and_candidates_is_drawn_with_its_numbers():
    """Of four cells one was not played; another reading, played once, makes no grid."""
    settings = {
        (steps, count): ("BestOf", count, 1.0, 0.0, "Quadrature-1", steps, "", "", "", "")
        for steps in (1, 8)
        for count in (1, 4)
    }
    other = ("BestOf", 4, 1.0, 0.0, "Quadrature-16", 8, "", "", "", "")
    del settings[8, 4]
    rows = [row(setting, success=int(steps == 8)) for (steps, _), setting in settings.items()]
    rows += [row(settings[1, 4], episode=1, success=1), row(other)]
    (grid,) = grids(group(rows))
    assert (grid.name, grid.candidates, grid.steps) == ("BestOf", [1, 4], [1, 8])
    np.testing.assert_array_equal(grid.success, [[0.0, 0.5], [1.0, np.nan]])
    assert (grid.low[0] <= grid.success[0]).all()
    assert grid.high[0, 1] == pytest.approx(1 - grid.low[0, 1])
    told = grid_section(group(rows))
    for words in (
        "1 steps, 4 candidates: 0.50",
        "8 steps, 1 candidates: 1.00",
        "Success over flow steps and candidates",
    ):
        assert words in told
    assert "8 steps, 4 candidates" not in told
    assert grid_section(group([row(settings[1, 1]), row(settings[1, 4])])) == ""
    assert grid_section(group([row(setting, success=np.nan) for setting in settings.values()])) == ""


def test_a_page_explains_what_it_shows(tmp_path):
    rows = [row(setting, episode=episode) for setting in (BASE, SEARCH) for episode in range(4)]
    text = page(write_run(tmp_path / "run", rows))
    for words in (
        "This run learned a flow-matching policy and the distribution of its returns",
        "1 task x 1 seed, 20 updates (gradient steps on batches of 32 transitions)",
        "Return temperature, in standard deviations",
        "Action temperature, in the same unit",
        "Candidates: actions that the base policy proposes",
        "Wilson&#x27;s interval",
        "policy/loss",
        "followed by the behaviour policy that recorded the data",
        "expected above the line",
        "4 of 4 (100 %)",
        "SoftmaxOf, 4 candidates",
        "reward and success of a step are computed from the state before it (reward rule pre).",
        '<th scope="row">base policy</th>',
        "<caption><span>Episodes played by the newest checkpoint",  # the span stays in sight where the table scrolls
    ):
        assert words in text, words
    assert "Prior" not in text
    headings = re.findall(r"<h2[^>]*>([^<]*)", text)
    assert headings == [
        "Success",
        "Success against number of candidates",
        "Learning curve",
        "Predicted against realised returns",
        "Where these numbers come from",
    ]
    assert "IQM" not in text


def test_a_loss_is_explained_as_that_of_its_agent():
    lines = [{"step": step, "seed": 0, "task": 1, "actor/loss": 1.0} for step in (1, 2)]
    assert "log-density of the data" in learning_section(lines, {}, agent="Iql")
    assert "from the flow" in learning_section(lines, {}, agent="Fql")
    pages = (Path(__file__).parents[2] / "docs" / "agents").glob("*.md")
    assert {page.stem for page in pages if "`actor/loss`" in page.read_text()} == {name.lower() for name in ACTORS}


def test_episodes_that_were_cut_early_are_told(tmp_path):
    rows = [row(episode=0), row(episode=1, success=0, length=50), row(episode=2, success=0, length=1000)]
    assert "1 of 3 (33 %) episodes were cut at the time limit" in page(write_run(tmp_path / "run", rows))


def test_evaluations_of_an_older_version_make_a_page(tmp_path):
    columns = tuple(name for name in COLUMNS if name not in RETURNS)
    text = page(write_run(tmp_path / "run", [row()], columns))
    assert "store no predicted returns" in text
    assert "Success against number of candidates" in text


def test_several_seeds_have_an_interquartile_mean(tmp_path):
    """Tasks and seeds with success 0, 0, 1, 1: the middle half is 0 and 1. A seed that lacks a task has none."""
    rows = [row(task=task, seed=seed, success=int(task == 2)) for task in (1, 2) for seed in (0, 1)]
    whole = page(write_run(tmp_path / "whole", rows))
    assert ">0.50 [0.50, 0.50]<" in whole
    assert "Interquartile mean" in whole
    assert '<th scope="col">IQM</th>' in whole
    assert re.search(r"<td>–</td><td>[^<]+</td><td>3</td><td>40</td>", page(write_run(tmp_path / "part", rows[:-1])))


def test_success_over_checkpoints_is_drawn_where_several_played(tmp_path):
    rows = [row(updates=updates, success=int(updates > 5)) for updates in (5, 10, 20)]
    text = page(write_run(tmp_path / "run", rows))
    assert "SoftmaxOf, 4 candidates: 0.00 at 5, 1.00 at 10, 1.00 at 20." in text
    assert (
        "Earlier checkpoints were played too, see evaluations/: 10 updates (1 episode), 5 updates (1 episode)." in text
    )
    assert "Success over updates" not in page(write_run(tmp_path / "one", rows[-1:]))


def test_searches_are_told_apart_by_what_differs():
    one, other = (tuple(map(str, (*SEARCH[:3], temperature, *SEARCH[4:]))) for temperature in (0.001, 1.0))
    assert label(one) == "SoftmaxOf, 4 candidates"
    assert label(one, among=[one, other]) == "SoftmaxOf, 4 candidates, τ_Q 0.001"
    assert label(tuple(map(str, BASE)), among=[one]) == "base policy"


# Anybody can read it.


class Reader(HTMLParser):
    """What a screen reader meets: headings, images, places, links, cells of heads; and which tags were left open."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.levels, self.alts, self.names, self.links, self.scopes = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img":
            self.alts.append(given.get("alt", ""))
        if tag == "th":
            self.scopes.append(given.get("scope"))
        self.names += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.links += [f"#{given['aria-labelledby']}"] if "aria-labelledby" in given else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_has_landmarks_headings_in_order_and_texts_for_pictures(tmp_path, count):
    """Also of several runs, each a part of the page."""
    rows = [row(setting, episode=episode) for setting in (BASE, SEARCH) for episode in range(2)]
    text = page(*(write_run(tmp_path / f"run{number}", rows) for number in range(count)))
    reader = Reader(text)
    assert reader.open == []
    assert reader.levels[0] == 1
    assert reader.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(reader.levels, reader.levels[1:], strict=False))
    assert all(reader.alts)
    assert set(reader.scopes) == {"col", "row"}
    assert len(set(reader.names)) == len(reader.names)
    assert {link[1:] for link in reader.links} <= set(reader.names)
    assert '<html lang="en">' in text
    assert '<a class="skip" href="#main">' in text
    assert text.count("<main ") == text.count("</main>") == 1
    assert "prefers-color-scheme: dark" in text


def test_what_a_run_is_called_is_text_on_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(write_run(tmp_path / "<b>&", [row()], agent=AGENT | {"type": "<i>"}))
    text = page(Path())  # the folder itself has a name
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<title>evor: &lt;b&gt;&amp;</title>" in text


def test_what_is_not_known_of_the_origin_is_left_out(tmp_path):
    told = page(write_run(tmp_path / "run", [row()]))
    assert "Commit" not in told
    assert "(reward rule pre)" in told
    origin = {"versions": {"evor": "0"}, "hardware": {"cpu": "c", "device": "d"}, "commit": "abc"}
    (tmp_path / "run/provenance.json").write_text(json.dumps(origin))
    assert "evor 0. c, d. Commit abc. In the environment" in page(tmp_path / "run")


def test_every_environment_of_ones_own_is_on_the_page_with_its_predictions(tmp_path):
    """One was played by the newest checkpoint, the other by an earlier one alone; both say what the value predicted."""
    own = {"reward_rule": "own", "length": 40}
    rows = [
        row(dataset="mine:make", updates=20, told=(-3.0, *[-4.0] * 6), **own),
        row(dataset="mine:make", updates=10, success=0, **own),
        row(dataset="mine:other", updates=10, told=(-5.0, *[-6.0] * 6), success=0, **own),
    ]
    text = page(write_run(tmp_path / "run", rows, dataset=None, data="mine.npz"))
    titles = re.findall(r"<h2[^>]*>([^<]*)", text)
    wanted = ("Success in mine:make", "Success in mine:other, after 10 updates")
    assert {title for title in titles if title.startswith("Success in")} == set(wanted)
    wanted = ("in mine:make", "in mine:other, after 10 updates")
    assert {t for t in titles if t.startswith("Predicted")} == {
        f"Predicted against realised returns {w}" for w in wanted
    }
    assert text.count("<td>-4.00</td><td>-3.00</td>") == text.count("<td>-6.00</td><td>-5.00</td>") == 1
    assert text.count("Earlier checkpoints were played too, see evaluations/: 10 updates (1 episode).") == 1
    assert "1 of 1 (100 %) episodes ended without a success" in text  # of the other


@pytest.mark.parametrize(
    ("second", "has_curve"), [({}, True), ({"dataset": "mine:other"}, False), ({"success": np.nan}, False)]
)
def test_success_over_checkpoints_is_of_one_environment_that_tells_of_it(second, has_curve, tmp_path):
    rows = [row(dataset="mine:make", success=0, updates=10), row(**{"dataset": "mine:make", "updates": 20} | second)]
    text = page(write_run(tmp_path / "run", rows, dataset=None, data="mine.npz"))
    assert ("0.00 at 10, 1.00 at 20" in text) == has_curve


@pytest.mark.parametrize(("base", "is_own"), [("Frozen", True), ("OwnFlow", False)])
@pytest.mark.parametrize("agent", ["Evor", "Scalar"])
def test_a_run_over_a_policy_of_ones_own_learned_no_policy(agent, base, is_own, tmp_path):
    run = write_run(tmp_path / "run", [row()], agent=AGENT | {"type": agent, "base": {"type": base}})
    (told,) = re.findall(r"This run learned [^<]*", page(run))
    assert ("a flow-matching policy" in told) == (not is_own)
    assert ("your own base policy" in told) == is_own


# Held-out trajectories.


def trajectory(rows=3, shown=2, complete=True):
    steps = np.arange(rows)
    return Trajectory(
        step=steps,
        mean=np.full(rows, -4.0),
        quantiles=np.tile([-8.0, -6.0, -4.0, -2.0, 0.0], (rows, 1)),
        realised=np.linspace(-7, 1, rows),
        complete=np.full(rows, complete),
        shown=steps[:shown],
        nodes=np.linspace(-9, 1, 8)[None].repeat(shown, 0),
    )


def held_out(*trajectories, unseen=True):
    return HeldOut(updates=20, seed=3, unseen=unseen, trajectories=list(trajectories))


def test_held_out_trajectories_make_three_sections(tmp_path):
    store(tmp_path, held_out(trajectory(), trajectory(shown=0)))
    assert [len(one.step) for one in read(tmp_path).trajectories] == [3, 3]
    text = "".join(held_out_sections(tmp_path, {"agent": AGENT}))
    assert re.findall(r"<h2[^>]*>([^<]*)", text) == [
        "Value along held-out trajectories",
        "Return distributions along held-out trajectories",
        "Predicted against recorded returns",
    ]
    assert "The value of seed 3 after 20 updates" in text
    assert "training never saw" in text
    # Of -7, -3 and 1, twice: the first lies in the 80 % interval alone, the second in both.
    assert text.count("2 of 6 (33 %)") == 1
    assert text.count("4 of 6 (67 %)") == 3  # above the line, twice (in the picture's text), and in the 80 % interval
    assert Reader(text).open == []


def test_recordings_that_end_early_compare_nothing(tmp_path):
    store(tmp_path, held_out(trajectory(complete=False), unseen=False))
    text = "".join(held_out_sections(tmp_path, {"agent": AGENT}, missing="The data are gone."))
    assert "No recording is long enough" in text
    assert "training saw them" in text
    assert "The data are gone." in text


def test_a_damaged_file_of_predictions_is_said(tmp_path):
    store(tmp_path, held_out(trajectory()))
    with np.load(place(tmp_path)) as file:
        arrays = dict(file)
    for change in (
        {"run": np.arange(2)},
        {"0/mean": np.zeros(2)},
        {"0/quantiles": np.zeros((3, 4))},
        {"1/step": np.zeros(1)},
    ):
        write_npz(place(tmp_path), arrays | change)
        with pytest.raises(EvorError, match=r"held_out\.npz is damaged"):
            read(tmp_path)
    place(tmp_path).unlink()
    assert read(tmp_path) is None
