"""The mechanical part of CONTRIBUTING's language: how docstrings begin, and words that are not the field's."""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src" / "evor").rglob("*.py"))
# Programs that write pages, and the pages: those of results, too.
WRITERS = [path for folder in ("benchmarks", "scripts", "examples") for path in sorted((ROOT / folder).glob("*.*"))]
PAGES = [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "docs").rglob("*.md"))]
FRAGMENT = re.compile(
    r"(?:Of|In|For|Where|Under|Along|At|By|From|To|With|Without|On|Into|As|Between|Behind|Beside|Below|Above|When|If|What|Who"
    r"|How|Which|Nothing|Nobody|There)\b|[a-z]"
)
WORDS = re.compile(
    r"\b(laws?|corridors?|stations?|lessons?|teach(?:es)?|taught|walkers?|errands?|dear(?:er)?|judge[sd]?|twins?|nobody|dials?"
    r"|data sets?|(?<![-.\"])cards?)\b",  # --card and .cards are names in a style sheet
    re.IGNORECASE,
)
ALLOWED = {
    "src/evor/data/parts.py": {"teaches"},  # a key in stored files
    "src/evor/experiments/reproduce/datasets.py": {"walker"},  # stored in the rows of reproductions
    "docs/math.md": {"law", "laws"},  # inside the proofs, see tests/test_docs.py
}
LINKS = re.compile(
    r"law-or-mean|law_or_mean|cut-corridor|[|,`] ?corridor\b"
)  # names of files, and of verification problems


def docstrings():
    for path in [*SOURCE, *(path for path in WRITERS if path.suffix == ".py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


def test_docstrings_begin_with_a_verb_or_a_noun():
    assert [f"{place}: {text.splitlines()[0]}" for place, text in docstrings() if FRAGMENT.match(text)] == []


def prose(path: Path) -> str:
    """The comments and texts of a program, or a page. Texts of one word are names of things."""
    text = path.read_text()
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
        text = "\n".join(token.string for token in tokens if token.type in kinds and " " in token.string)
    return LINKS.sub("", text)


def test_words_are_the_fields():
    private = {}
    for path in [*SOURCE, *WRITERS, *PAGES]:
        place = str(path.relative_to(ROOT))
        words = [word for word in WORDS.findall(prose(path)) if word.lower() not in ALLOWED.get(place, ())]
        private |= {place: words} if words else {}
    assert private == {}


# Sentences that the command line and Python share: an option stands beside the argument of the same name.
SHARED = [
    *(ROOT / "src/evor/training" / name for name in ("folder.py", "checkpoint.py", "config.py", "update.py")),
    *(
        path
        for folder in ("policies", "data/formats", "nn", "search", "agents")
        for path in (ROOT / "src/evor" / folder).glob("*.py")
    ),
    *(ROOT / "src/evor/data" / name for name in ("columns.py", "store.py", "blocks.py", "source.py", "read.py")),
    *(ROOT / "src/evor" / name for name in ("runtime/files.py", "envs/vector.py")),
]
OTHERWISE = {"parallel": "num_envs"}  # named otherwise in Python


def test_shared_sentences_name_what_a_python_user_can_give():
    lone = []
    for path in SHARED:
        tree = ast.parse(path.read_text())
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            for option in re.findall(r"--([a-z][a-z.-]*[a-z])", text):
                name = OTHERWISE.get(option, option.split(".")[-1].replace("-", "_"))
                if not re.search(rf"(?<![-.\w]){name}\b", text):
                    lone.append(f"{path.relative_to(ROOT)}: {text}")
    assert lone == []
