"""The documentation: the site that it makes, and that no agent, metric or command is left out."""

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
import typing
from importlib import import_module

import pytest

from conftest import TINY, user_arrays
from documents import DOCS, ROOT, sentences
from evor.agents.registry import AGENTS, ALL, PRESETS
from evor.cli.flags import flags_of
from evor.cli.main import VERBS
from evor.cli.rules import Prefix
from evor.data.formats.npz import load_files
from evor.runtime.records import replace, union_members
from evor.training.config import RunConfig
from evor.training.data import prepare
from evor.training.update import initial_state, make_runner

LONGEST_MEAN = 18  # words of a sentence, of any page
COLUMNS = 80  # of code, in the text column of a wide page


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Dead links, and pages and names that are missing, are errors: with --quiet they would not be."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_whole_and_its_search_finds_what_is_in_it(site):
    index = json.loads((site / "search" / "search_index.json").read_text())
    text = {entry["location"]: entry["title"] + " " + entry["text"] for entry in index["docs"]}

    def found(words: str) -> set[str]:
        return {location.split("#")[0] for location, content in text.items() if words in content}

    assert "agents/qc.html" in found("Q-chunking")
    assert "reference/python.html" in found("warm_up")  # from a docstring
    assert "reference/cli.html" in found("--checkpoint-every")  # from --help
    assert "agents/evor.html" in found("--agent.target-rate")
    assert "tutorials/own-data.html" in found("terminations")
    assert (site / "search" / "search_index.js").exists()  # search without a server


def test_pages_ask_no_other_site(site):
    """The offline plugin would load a script of the search from the network, without which a page in a file has no search."""
    for path in site.rglob("*.html"):
        asked = re.findall(
            r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="?((?:https?:)?//[^"\s>]*)', path.read_text()
        )
        assert asked == [], path
    scripts = re.findall(r'<script src="([^"]*)"', (site / "agents" / "evor.html").read_text())
    assert scripts[0] == "../javascripts/iframe-worker.js"
    assert all((site / "agents" / script).is_file() for script in scripts)


def test_code_fits_into_the_column(site):
    for path in site.rglob("*.html"):
        for block in re.findall(r"<pre>.*?</pre>", path.read_text(), flags=re.DOTALL):
            lines = html.unescape(re.sub(r"<[^>]*>", "", block)).splitlines()
            assert all(len(line) <= COLUMNS for line in lines), (path, max(lines, key=len))


def test_options_stay_in_one_line_and_pictures_open(site):
    page = (site / "agents" / "index.html").read_text()
    assert '<code><span class="option">--agent</span> NAME</code>' in page
    assert (site / "stylesheets" / "site.css").read_text().count(".option {") == 1
    assert 'href="../stylesheets/site.css"' in page
    page = (site / "results" / "verify.html").read_text()
    assert re.search(r'<a href="verify.png"><img [^>]*src="verify.png"', page)


def test_every_command_has_its_help(site):
    page = (site / "reference" / "cli.html").read_text()
    for verb in VERBS:
        assert f'id="evor-{verb.replace(" ", "-")}"' in page, verb
    assert "<!-- help -->" not in page
    assert "make docs" not in page  # which is for readers of the repository


def test_every_public_name_has_its_reference(site):
    import evor

    page = (site / "reference" / "python.html").read_text()
    for name in set(evor.__all__) - {"__version__"}:
        assert re.search(rf'id="evor\.[\w.]*\b{name}"', page), name
    assert "default_agent()" in re.sub(r"<[^>]*>", "", page)
    assert "lambda:</span> PRESETS" not in page


@pytest.mark.parametrize("agent", ALL, ids=lambda agent: agent.config.__name__)
def test_every_agent_has_a_page(agent):
    name = agent.config.__module__.rsplit(".", 1)[1]
    page = (DOCS / "agents" / f"{name}.md").read_text()
    for heading in ("What it does", "When to use it", "Its options", "Its metrics", "Its source"):
        assert f"\n## {heading}\n" in page, heading
    assert f"<!-- options {name} -->" in page
    overview = (DOCS / "agents" / "index.md").read_text()
    assert f"]({name}.md)" in overview
    assert all(f"`{preset}`" in overview for preset in agent.presets)


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in ("default", "sorl") else pytest.mark.slow) for name in PRESETS]
)
def test_every_logged_metric_is_explained(preset, user_file):
    agent = replace(PRESETS[preset], learning=TINY.learning)
    config = RunConfig(data="-", agent=agent)
    episodes = load_files(user_file())
    columns, _ = prepare(config, episodes)
    state, _ = make_runner(config, columns, initial_state(config, episodes.spec))
    logged = {f"`{name}`" for name in (*state.base_sums, *state.head_sums)}
    explained = set(re.findall(r"^\| (`\w+/\w+`) \|", (DOCS / "concepts/metrics.md").read_text(), flags=re.MULTILINE))
    assert logged <= explained
    if (first := AGENTS[type(agent)].base_first(agent)) is not None:  # whose metrics are in the log of its own run
        alone = RunConfig(data="-", agent=first.agent)
        columns, _ = prepare(alone, episodes)
        logged |= {
            f"`{name}`" for name in make_runner(alone, columns, initial_state(alone, episodes.spec))[0].base_sums
        }
    module = AGENTS[type(agent)].config.__module__.rsplit(".", 1)[1]
    assert (
        set(re.findall(r"`\w+/\w+`", (DOCS / "agents" / f"{module}.md").read_text().split("## Its metrics")[1]))
        == logged
    )


def _options(value, prefix):
    """The options of a record, whatever types are chosen below it."""
    options, hints = set(flags_of(value, prefix)), typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        chosen = [kind() for kind in union_members(hints[item.name])] or [inner] * dataclasses.is_dataclass(inner)
        for one in chosen:
            options |= _options(one, prefix.below(value, item.name))
    return options


def test_options_that_pages_name_are_there():
    known = {"--debug", "--help", "--quiet", "--exclusive", "--requeue"}  # the last two are Slurm's
    for verb, (file, *_) in VERBS.items():
        known |= _options(getattr(import_module(f"evor.cli.{file}"), f"{verb.replace(' ', '_')}_options")(), Prefix())
    for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for code in re.findall(r"`((?:--|evor )[^`]*)`", text):
            assert set(re.findall(r"--[a-z][\w.-]*\w(?![\w.*-])", code)) <= known, (page, code)


def test_the_npz_table_names_what_is_read(user_file):
    page = (DOCS / "tutorials/own-data.md").read_text()
    assert set(user_arrays()) <= set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_pages_are_plain(page):
    text = page.read_text()
    lengths = [len(sentence) for sentence in sentences(text)]
    assert not lengths or sum(lengths) / len(lengths) <= LONGEST_MEAN
    if page.name == "math.md":  # the word belongs to the proofs
        text = re.sub(r"(?s)## The fixed point.*?(?=\n## What follows)", "", text)
    assert re.findall(r"\blaws?\b", re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)) == []


def test_the_citation_is_of_this_version():
    import evor

    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {evor.__version__}\n" in text
    assert text.count("url: https://arxiv.org/abs/") == 3


def test_the_workflow_runs_what_the_project_calls_its_tests():
    assert "- run: .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)
