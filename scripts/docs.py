"""Hooks of mkdocs (mkdocs.yml): pages that quote the program quote it as it is now, and their HTML suits a browser.

`<!-- help -->` in a page becomes the help of every command, `<!-- options NAME -->` the options of the agent NAME, and
`<!-- other names -->` the references of the public names that the page has not named before. What stands before a marker in its
line is for readers of the repository, and goes.
"""

import functools
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WIDTH = "80"  # columns of the help; a page shows as many
QUESTIONS = """
import contextlib, io, json, sys
import evor
from evor.agents.registry import ALL
from evor.cli.main import VERBS, main
from evor.cli.options import kebab

def help_of(words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # no terminal, so no boxes
        code = main([*words, "--help"])
    assert code == 0, words
    return said.getvalue()

names = [kebab(agent.config.__name__) for agent in ALL]
public = {name: getattr(evor, name) for name in evor.__all__ if not name.startswith("_")}
json.dump({
    "public names": {name: f"{value.__module__}.{value.__qualname__}" for name, value in public.items()},
    "": help_of([]),
    **{verb: help_of(verb.split()) for verb in VERBS},
    **{f"agent {name}": help_of(["train", "--agent", name]) for name in names},
}, sys.stdout)
"""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the markers of a page."""
    if "<!-- help -->" in markdown:
        markdown = re.sub(".*<!-- help -->", lambda match: commands(), markdown)
    if "<!-- other names -->" in markdown:
        markdown = re.sub(".*<!-- other names -->", lambda match: other_names(markdown), markdown)
    return re.sub(r"<!-- options (\S+) -->", lambda match: options(match[1]), markdown)


def on_page_content(html: str, **_: object) -> str:
    """Keep options in one line, and let a picture open at its full size."""
    html = re.sub(r"(?<!<span></span>)<code>[^<]*</code>", unbroken, html)
    return re.sub(r'(<img [^>]*src="([^"]*)"[^>]*>)', r'<a href="\2">\1</a>', html)


def unbroken(code: re.Match[str]) -> str:
    """Code whose options have a class. The style sheet keeps them in one line: a browser breaks lines after hyphens."""
    return re.sub(r"(?<![\w-])--[\w.-]+", r'<span class="option">\g<0></span>', code[0])


def commands() -> str:
    """A section for every command."""
    verbs = {
        verb: text
        for verb, text in queried().items()
        if verb and verb != "public names" and not verb.startswith("agent ")
    }
    parts = [fenced(queried()[""])]
    parts += [f"## evor {verb}\n\n{fenced(text)}" for verb, text in verbs.items()]
    return "\n\n".join(parts)


def other_names(markdown: str) -> str:
    """References of what `evor` exports and a page does not name."""
    named = {line.rsplit(".", 1)[1] for line in re.findall(r"^::: (\S+)", markdown, flags=re.MULTILINE)}
    places: dict[str, str] = queried()["public names"]
    return "\n\n".join(f"::: {place}" for name, place in places.items() if name not in named)


def options(agent: str) -> str:
    """The sections of `evor train --agent NAME --help` that are the agent's own."""
    lines = queried()[f"agent {agent.replace('_', '-')}"].splitlines()
    starts = [row for row in range(len(lines) - 1) if re.fullmatch(r" ?-{20,} *", lines[row + 1])]
    sections = [lines[start:end] for start, end in itertools.pairwise([*starts, len(lines)])]
    own = [line.rstrip() for section in sections if re.match(r" *agent\b", section[0]) for line in section]
    return fenced("\n".join(own or lines))


def fenced(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return f"```text\n{lines}\n```"


@functools.cache
def queried() -> dict[str, Any]:
    """The help of every command and agent, as a terminal of WIDTH columns shows it, and where public names live."""
    environment = os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1", "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", QUESTIONS],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the help of a command could not be read:\n{done.stderr}")
    return json.loads(done.stdout)
