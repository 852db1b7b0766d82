"""The command line: one file per verb. Nothing heavy is imported before a verb is known."""

import contextlib
import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple


class Verb(NamedTuple):
    """The file of this folder that holds its function (`data_check` of "data check"), what it does, whether it computes.

    What computes in jobs leaves a GPU's memory to them.
    """

    file: str
    text: str
    computes: bool = False
    in_jobs: bool = False


VERBS = {  # in the order of the pipeline
    "data generate": Verb("data", "make a dataset with OGBench's own scripted policies"),
    "data download": Verb("data", "download an official OGBench dataset"),
    "data import": Verb("data", "make npz files from LeRobot, Minari or HDF5 recordings"),
    "data check": Verb("data", "summarise a dataset and list its problems"),
    "data propose": Verb("data", "draw proposals of a base policy of your own", computes=True),
    "train": Verb("train", "train an agent, for several seeds and tasks at once", computes=True),
    "evaluate": Verb("evaluate", "play a run's tasks with one search", computes=True),
    "sweep": Verb("evaluate", "play a run's tasks with many searches", computes=True),
    "label": Verb("label", "write the value of every recorded frame into a table", computes=True),
    "audit": Verb("audit", "check on held-out episodes whether a value ranks", computes=True),
    "serve": Verb("serve", "serve a policy to robots", computes=True),
    "report": Verb("report", "write a page with the results of runs"),
    "show": Verb("show", "show what is in a run or an exported policy"),
    "export": Verb("export", "export one policy of a run", computes=True),
    "demo": Verb("demo", "data, training, search and report in a few minutes", computes=True),
    "verify": Verb("verify", "compare learned return distributions with exact ones", computes=True, in_jobs=True),
    "reproduce": Verb("reproduce", "run the paper's experiments, resumable", computes=True, in_jobs=True),
    "imitate expert": Verb("imitate", "train an expert to imitate", computes=True),
    "imitate demos": Verb("imitate", "record demonstrations to imitate"),
    "imitate tightrope": Verb("imitate", "imitation under misspecification where it is exact"),
    "imitate": Verb("imitate", "imitate an expert that the learner can't follow", computes=True),
    "bench": Verb("bench", "time updates and decisions on this machine", computes=True),
}
WHAT = "evor trains policies from logged data, and searches for better actions\nwhen they act."
COMPLETION = {  # where shells look for completions
    "bash": "~/.local/share/bash-completion/completions/evor",
    "zsh": "~/.zfunc/_evor\n        (first in .zshrc: fpath+=~/.zfunc; autoload -U compinit; compinit)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or what evor.runtime.failures gives with its one sentence on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("EVOR_DEBUG", "") not in ("", "0")
    try:
        code = _run([word for word in arguments if word != "--debug"])
        sys.stdout.flush()
        return code
    except BaseException as error:
        return _tell(error, debug)


def entry() -> None:
    """The process: main's code is its own. After a signal it ends at once, for XLA may still be compiling in a thread."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks is spelled, never an error
            stream.reconfigure(errors="backslashreplace")
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader has gone: what is left must not be tried again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    from evor.runtime.failures import INTERRUPTED, TERMINATED

    if code in (INTERRUPTED, TERMINATED):
        os._exit(code)
    raise SystemExit(code)


def _run(arguments: list[str]) -> int:
    if "--version" in arguments and all(word.startswith("-") for word in arguments):
        from evor import __version__

        sys.stdout.write(f"evor {__version__}\n")
        return 0
    if arguments and arguments[0].split("=", 1)[0] == "--print-completion":
        from evor.cli.completion import print_completion

        print_completion(arguments, list(COMPLETION))
        return 0
    verb, rest = _find_verb(arguments)
    if verb is None:
        from evor.errors import EvorError, nearest

        wanted = [word for word in arguments if not word.startswith("-")]
        if unknown := [word for word in arguments if word not in (*wanted, "-h", "--help", "--quiet", "--version")]:
            raise EvorError(f"unknown option {unknown[0]!r}; {nearest(unknown[0], ['--help', '--quiet', '--version'])}")
        if not wanted or (len(wanted) == 1 and any(verb.startswith(f"{wanted[0]} ") for verb in VERBS)):
            sys.stdout.write(_overview(wanted))
            return 0
        words = " ".join(wanted[: 1 + any(verb.startswith(f"{wanted[0]} ") for verb in VERBS)])
        raise EvorError(f"unknown command {words!r}; {nearest(words, VERBS)}")
    from evor.runtime.parallel import one_thread
    from evor.runtime.progress import deferred_interrupts, unsilenced

    one_thread()
    os.environ["MUJOCO_GL"] = "disable"  # evor never renders with MuJoCo; worker processes inherit it
    with deferred_interrupts(), unsilenced():
        if VERBS[verb].computes and not {"-h", "--help"} & set(rest):
            from evor.runtime.provenance import check_device, leave_memory

            if VERBS[verb].in_jobs:
                leave_memory()
            check_device()  # before anything is read or written
        command: Callable[[list[str]], None] = getattr(
            import_module(f"evor.cli.{VERBS[verb].file}"), verb.replace(" ", "_")
        )
        try:
            command(list(map(_dashed, rest)))
        except SystemExit as end:  # of --help
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _tell(error: BaseException, debug: bool) -> int:
    """Write the sentence on what ended a command, and its traceback where asked. Returns the exit code."""
    from evor.runtime.failures import PIPE, explain

    if isinstance(error, BrokenPipeError) and _reader_gone():
        return PIPE
    sentence, code = explain(error)
    with contextlib.suppress(OSError):
        if debug:
            traceback.print_exception(error, file=sys.stderr)
        sys.stderr.write(f"evor: {sentence}\n")
    return code


def _reader_gone() -> bool:
    """Whether stdout or stderr is a pipe that is read no more, as of `evor ... | head`."""
    watch = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a stream without a file
            watch.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _find_verb(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The verb, None where there is none, and its arguments: also those before it, as in `evor --quiet train`."""
    first = next((index for index, word in enumerate(arguments) if not word.startswith("-")), 0)
    before, words = arguments[:first], arguments[first:]
    for length in (2, 1):
        verb = " ".join(words[:length])
        if len(words) >= length and verb in VERBS:
            return verb, [*before, *words[length:]]
    return None, arguments


def _dashed(word: str) -> str:
    """The word, an option with dashes in its name, as all options are called: `--num_candidates=4` has one meaning."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _overview(words: list[str]) -> str:
    """The verbs, or those that begin with the words."""
    verbs = {name: verb.text for name, verb in VERBS.items() if name.split()[: len(words)] == words}
    width = max(map(len, verbs))
    lines = [
        "usage: evor COMMAND ... (see `evor COMMAND --help`)",
        "",
        *([] if words else [WHAT, ""]),
        *(f"  evor {verb:<{width}}  {text}" for verb, text in verbs.items()),
        "",
        "Options of every command: --help, --quiet, and --debug (or EVOR_DEBUG=1), which",
        "shows the traceback of an error. `evor --version` prints the version.",
        "",
        "Shell completion: `evor --print-completion SHELL > FILE`.",
        "The SHELL looks for it in this FILE:",
        *(f"  {shell:<4}  {path}" for shell, path in COMPLETION.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    entry()
