"""The shape of the source: sizes of files and functions, and what may be given by position."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "evor"
FILES = {str(path.relative_to(SOURCE)): path.read_text() for path in sorted(SOURCE.rglob("*.py"))}
LINES, FUNCTION_LINES, POSITIONAL = 300, 60, 2
# Mathematics, which JAX maps over its arguments by position.
MATHEMATICS = ("nn/", "agents/")
# Compiled by the positions of their arguments, or called with a job's fields.
BY_POSITION = {
    "policies/decision.py",
    "training/update.py",
    "data/scripted/generate.py:play_one",
    "data/store.py:_lay_out",
    "data/scripted/manipulation.py:play_manipulation",
    "data/scripted/mazes.py:play_maze",
    "data/scripted/mazes.py:walk_ant",
    "runtime/locks.py:_release",
    "runtime/parallel.py:parallel_map",  # reads as `map` does
}


def functions(text: str):
    """Functions of a module and of its classes, each with its name; no nested ones."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def test_files_and_functions_are_short():
    assert [name for name, text in FILES.items() if len(text.splitlines()) > LINES] == []
    long = [
        f"{file}:{name}"
        for file, text in FILES.items()
        for name, function in functions(text)
        if function.end_lineno - function.lineno >= FUNCTION_LINES
    ]
    assert long == []


def test_from_the_third_parameter_on_arguments_are_named():
    wide = []
    for file, text in FILES.items():
        for name, function in functions(text):
            given = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
            if len([argument for argument in given if argument not in ("self", "cls")]) > POSITIONAL:
                wide.append((file, f"{file}:{name}"))
    assert [name for file, name in wide if not file.startswith(MATHEMATICS) and not {file, name} & BY_POSITION] == []
    exempt = {entry for entry in BY_POSITION if any(entry in pair for pair in wide)}
    assert exempt == BY_POSITION  # none that needs no exemption


def test_few_modules_lie_beside_the_folders():
    assert {name for name in FILES if "/" not in name} == {"__init__.py", "__main__.py", "errors.py", "types.py"}
