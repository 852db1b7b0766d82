"""The command line: one verb per station. Nothing heavy is imported before a verb is known."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

INTERRUPTED = 130
VERBS = {
    "data generate": ("generate_data", "make an OGBench data set with OGBench's own scripted policies"),
    "data check": ("check_data", "say what is in a data set, and what is wrong with it"),
    "data download": ("download_data", "fetch an official OGBench data set"),
    "train": ("train", "train a policy and its value, for several seeds and tasks at once"),
    "evaluate": ("evaluate", "play a run's tasks with one search setting"),
    "sweep": ("sweep", "play a run's tasks across candidates and temperatures, without retraining"),
    "report": ("report", "draw a page from the evaluations of runs"),
    "verify": ("verify", "train every objective on problems whose return law is known, and compare"),
    "reproduce": ("reproduce", "the paper's experiment: agents x data sets x seeds, resumable, one table"),
    "bench": ("bench", "seconds per update and per decision, against this machine's own limit"),
    "demo": ("demo", "data, training, search and report in a few minutes"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0, or 2 after a request that can't be met (one sentence on stderr)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"evor {version('evor')}\n")
        return 0
    verb, rest = _find_verb(arguments)
    if verb is None:
        wanted = [word for word in arguments if not word.startswith("-")]
        if not wanted or (len(wanted) == 1 and any(verb.startswith(f"{wanted[0]} ") for verb in VERBS)):
            sys.stdout.write(_overview(wanted))
            return 0
        from evor.errors import nearest

        sys.stderr.write(f"evor: unknown command {' '.join(wanted[:2])!r}; {nearest(' '.join(wanted[:2]), VERBS)}\n")
        return 2
    from evor.errors import EvorError
    from evor.parallel import one_thread
    from evor.progress import unswallowed_interrupts

    one_thread()
    try:
        with unswallowed_interrupts():
            command: Callable[[list[str]], None] = getattr(import_module("evor.commands"), VERBS[verb][0])
            command(rest)
    except EvorError as error:
        sys.stderr.write(f"evor: {error}\n")
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"evor: {place}{error.strerror or error}; check that the path exists and can be written.\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("evor: interrupted; what was saved before stays.\n")
        return INTERRUPTED
    return 0


def entry() -> None:
    """The process: main's code is its own. After Ctrl-C it ends at once, for XLA may still be compiling in a thread."""
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _find_verb(arguments: list[str]) -> tuple[str | None, list[str]]:
    for length in (2, 1):
        verb = " ".join(arguments[:length])
        if len(arguments) >= length and verb in VERBS:
            return verb, arguments[length:]
    return None, arguments


def _overview(words: list[str]) -> str:
    """The verbs, or those that begin with the words."""
    verbs = {verb: text for verb, (_, text) in VERBS.items() if verb.split()[: len(words)] == words}
    width = max(map(len, verbs))
    lines = [f"  evor {verb:<{width}}  {text}" for verb, text in verbs.items()]
    return "\n".join(["usage: evor COMMAND ... (evor COMMAND --help tells its options)", "", *lines, ""])


if __name__ == "__main__":
    entry()
