"""A user's own code: imported by name, and blamed by file and line where it raises or takes too long."""

import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from evor.errors import EvorError, why
from evor.runtime import arguments

INSTALLED = [Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]


def import_function(text: str, *, option: str, example: str) -> Callable[..., Any]:
    """The function that "module:function" names; its module is looked for in the current folder, too.

    Raises EvorError, in words of the `option` that gave the text, where there is no such module or function.
    """
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise EvorError(f"{option} is {arguments.shown(text)}; give module:function, such as {example}.")
    imported = import_own(module, given=f"{option} {text}")
    if not callable(function := getattr(imported, name, None)):
        raise EvorError(f"{option} {text}: {module} has no function {name}; {imported.__file__} was imported.")
    return function


def import_own(module: str, *, given: str) -> ModuleType:
    """A module of the user's, looked for in the current folder, too. Raises EvorError, which names what was `given`."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # and left there: the module may import its neighbours later
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        if isinstance(error, ModuleNotFoundError) and error.name and not f"{module}.".startswith(f"{error.name}."):
            raise EvorError(
                f"{given}: {module} imports {error.name}, which is not installed; install it with pip."
            ) from error
        raise EvorError(
            f"{given}: {module} can't be imported ({why(error)}); fix it, or see the traceback with --debug."
        ) from error


@contextmanager
def blamed(command: str, *, mend: str) -> Generator[None]:
    """Raise what a user's code raises inside as an EvorError that names the command and the place; `mend` is the remedy.

    Without a command it passes through: a program sees what it would see without evor.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if not command or isinstance(error, EvorError):
            raise
        raise EvorError(
            f"{command} raised {type(error).__name__}: {why(error)} ({_place(error)}); {mend}, or see the "
            "traceback with --debug (that of a server is in its log)."
        ) from error


def traceback_inside(error: BaseException) -> str:
    """The traceback of what a user's code raised, where `blamed` made this error of it; "" for any other error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or error.__cause__ is None or (frames[-1].filename, frames[-1].name) != (__file__, blamed.__name__):
        return ""
    return "".join(traceback.format_exception(error.__cause__))


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return or raise what a call does. Raises TimeoutError where it takes longer: its thread then goes on by itself."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


def _place(error: BaseException) -> str:
    """`FILE:LINE` where it was raised, in a file of the user's where possible."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(path) for path in INSTALLED)]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
