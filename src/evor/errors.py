"""The one exception, and the hint that goes with an unknown name. Imports nothing."""

import difflib
import errno
import numbers
import os
import re
from collections.abc import Iterable

LISTED = 12  # names in a hint


class EvorError(Exception):
    """A request that can't be met, in one sentence that names the thing and the remedy.

    The sentence is one line. Characters that can't be printed are escaped: the end of a line is a backslash and an n.
    """

    def __init__(self, sentence: str):
        super().__init__(
            "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in sentence)
        )


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C is: what was saved before stays."""


def at_least(minimum: float, **values: float) -> None:
    """Raise EvorError, naming the first value below `minimum` (or not a number)."""
    for name, value in values.items():
        if not isinstance(value, numbers.Real) or not value >= minimum:
            raise EvorError(f"{name} is {value!r}; it must be at least {minimum}.")


def above(minimum: float, **values: float) -> None:
    """Raise EvorError, naming the first value not above `minimum`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Real) or not value > minimum:
            raise EvorError(f"{name} is {value!r}; it must be above {minimum}.")


def integer(minimum: int, **values: int) -> None:
    """Raise EvorError, naming the first value that is no whole number of at least `minimum`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < minimum:
            raise EvorError(f"{name} is {value!r}; it must be at least {minimum}, a whole number.")


def widths(**values: tuple[int, ...]) -> None:
    """Raise EvorError, naming the first value that is no tuple of widths of layers."""
    for name, value in values.items():
        if not isinstance(value, tuple) or not value:
            raise EvorError(f"{name} is {value!r}; it must be a tuple of whole numbers, such as (256, 256).")
        for width in value:
            integer(1, **{name: width})


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for an unknown name: the known name most like it, or the first of the list where none is much like it."""
    names = sorted(names)
    by_lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    if close:
        return f"did you mean {by_lower[close[0]]!r}?"
    return f"known: {', '.join(names[:LISTED])}" + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def fraction(**values: float) -> None:
    """Raise EvorError unless every named value lies between 0 and 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise EvorError(f"{name} is {value}; it must lie between 0 and 1.")


def why(error: BaseException) -> str:
    """Message of another library's exception, in one line of at most 200 characters: some quote what they read."""
    text = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError):
        full = re.match(r"\d+ requested and \d+ written", text)  # numpy's words for a full disk, without a number
        text = error.strerror or (os.strerror(errno.ENOSPC) if full else text)
    return text if len(text) <= 200 else f"{text[:200]}..."
