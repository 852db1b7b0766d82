"""Failures of commands: one sentence and an exit code for each exception. Imports nothing heavy."""

import errno
import re
import traceback
from pathlib import Path
from typing import NamedTuple

from evor.errors import EvorError, Terminated

PACKAGE = Path(__file__).parents[1]
REFUSED = 2  # a request that can't be met, here or anywhere
FAULT = 1  # a bug of evor
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
TERMINATED = 143  # 128 + SIGTERM
PIPE = 141  # 128 + SIGPIPE: the reader of the output has gone

MEMORY = "use smaller data or a cap on it (--memory-gb), smaller networks, or fewer seeds, episodes or workers at once"
REMEDIES = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`), or use fewer --workers",
    errno.EACCES: "check the permissions of it and of the folders above it",
    errno.EPERM: "check the permissions of it and of the folders above it",
    errno.EEXIST: "a file is in the way; choose another path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: "close other programs, or use fewer --workers",
}


class Failure(NamedTuple):
    """Sentence for stderr ("" for none), and the exit code."""

    sentence: str
    code: int


def explain(error: BaseException) -> Failure:
    """Explain an exception that ended a command. One that nothing else explains is a bug of evor."""
    if isinstance(error, EvorError):
        return Failure(str(error), REFUSED)
    if isinstance(error, Terminated):
        return Failure("terminated; what was saved before stays.", TERMINATED)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted; what was saved before stays.", INTERRUPTED)
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        return Failure(
            "a worker process was killed, most likely for lack of memory; run the same command again with fewer --workers.",
            REFUSED,
        )
    sentence = _of_device(error) or _of_system(error)
    return Failure(sentence, REFUSED) if sentence else Failure(_of_bug(error), FAULT)


def _of_device(error: BaseException) -> str:
    """Explain JAX's errors about the memory of its device, and about a device that fails. "" for anything else."""
    if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
        return ""
    import jax

    device, first = jax.devices()[0].device_kind, _first_line(error)
    if re.search("RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY", str(error), flags=re.IGNORECASE):
        return (
            f"the memory of {device} does not suffice ({first}); choose a smaller --agent.batch-size, a smaller --num-seeds, fewer "
            "--tasks, or fewer --episodes at once. Where other programs use the device, XLA_PYTHON_CLIENT_MEM_FRACTION and "
            "XLA_PYTHON_CLIENT_PREALLOCATE=false set JAX's share."
        )
    if jax.default_backend() != "cpu" and re.match("INTERNAL|UNAVAILABLE|ABORTED|DATA_LOSS|UNKNOWN", str(error)):
        return f"{device} failed ({first}); check its driver, or set JAX_PLATFORMS=cpu to do without."
    return ""


def _of_system(error: BaseException) -> str:
    """Explain what the system lacks: memory, space, files, encodings, packages. "" for anything else."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({_first_line(error) or 'the system gave none'}); {MEMORY}."
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        full = re.search(
            r"^\d+ requested and \d+ written", str(error)
        )  # numpy's words for a full disk, without a number
        number = errno.ENOSPC if full else error.errno
        remedy = REMEDIES.get(number or 0, "check that the path exists and can be written")
        return f"{file}{error.strerror or ('No space left on device' if full else error)}; {remedy}."
    if isinstance(error, UnicodeError):
        return f"the locale can't express a name or text ({_first_line(error)}); set PYTHONUTF8=1 or LC_ALL=C.UTF-8."
    if isinstance(error, OverflowError):
        return f"a number is too large ({_first_line(error)}); give a smaller one."
    if isinstance(error, ModuleNotFoundError) and not (error.name or "evor").startswith("evor"):
        return f"the package {error.name} is not installed; install it with pip, or evor anew."
    return ""


def _of_bug(error: BaseException) -> str:
    what = ": ".join(filter(None, (type(error).__name__, _first_line(error))))
    return (
        f"this is a fault of evor itself: {what} ({_raised_at(error)}). "
        "Please run the same command with --debug and report what it prints."
    )


def _raised_at(error: BaseException) -> str:
    """`FILE:LINE`, of evor where possible; in a worker process where it was raised there."""
    remote = type(error.__cause__).__name__ == "RemoteTraceback"
    text = str(error.__cause__) if remote else "".join(traceback.format_tb(error.__traceback__))
    frames = re.findall(r'File "(.*?)", line (\d+)', text)
    ours = [frame for frame in frames if Path(frame[0]).is_relative_to(PACKAGE)]
    path, line = (ours or frames or [("unknown", "0")])[-1]
    return f"{Path(path).name}:{line}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
