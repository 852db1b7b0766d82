"""What the documents say: their commands, their programs and their sentences."""

import importlib
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
FILE = re.compile(r"# (\w+\.py)\n")
# Pages whose commands and programs are run.
PAGES = [
    ROOT / "README.md",
    DOCS / "getting-started.md",
    *sorted(DOCS.glob("tutorials/*.md")),
    *sorted(DOCS.glob("how-to/*.md")),
]


def commands(text: str) -> list[list[str]]:
    """The words of every `evor` command in a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("evor ")]


def programs(text: str) -> list[str]:
    """A page's Python blocks, without those that are files."""
    return [block for block in _blocks(text) if not FILE.match(block)]


def files(text: str) -> dict[str, str]:
    """Python blocks that begin with the name of a file to save them in: `# my_robot.py`."""
    return {match[1]: block for block in _blocks(text) if (match := FILE.match(block))}


def _blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def sentences(text: str) -> list[list[str]]:
    """The words of every sentence outside code blocks, tables, headings, pictures and comments."""
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "    ", "!!!"))]
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[*-]|\d+\.) ", "\n" + "\n".join(lines))
    parts = [part for paragraph in paragraphs for part in re.split(r"(?<=[.?!])[*)\"]*\s+", paragraph.strip())]
    words = [re.findall(r"[^\s*`|]*\w[^\s*`|]*", part) for part in parts]
    return [sentence for sentence in words if sentence]


def benchmark(name, monkeypatch):
    """A program of benchmarks/ as a module, in the folder that it is started in."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    for path in (ROOT / "benchmarks").glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return importlib.import_module(name)
