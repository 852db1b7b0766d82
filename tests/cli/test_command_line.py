"""The command line when something goes wrong around it: one sentence, its exit code, and a traceback only where asked."""

import errno
import io
import os
import pwd
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import evor
from evor.cli import report as of_report
from evor.cli.main import entry, main
from evor.data.download import download
from evor.data.formats import ogbench
from evor.errors import EvorError
from evor.runtime.failures import explain
from evor.runtime.files import expand, write_text
from evor.runtime.parallel import RemoteTraceback
from evor.runtime.provenance import hardware

SMALL = ["--updates", "2", "--agent.hidden", "8", "8", "--agent.batch-size", "8"]


@pytest.fixture
def failing(monkeypatch):
    """Let `evor report` do something else."""

    def replace(action) -> None:
        monkeypatch.setattr(of_report, "report", lambda arguments: action())

    return replace


def throw(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 9 EiB"), ["not enough memory (Unable to allocate 9 EiB)", "--memory-gb"]),
        (OSError(errno.ENOSPC, "No space left on device", "run/a"), ["run/a: No space left", "free some space"]),
        (OSError("800 requested and 16 written"), ["No space left on device; free some space"]),
        (OSError(errno.EMFILE, "Too many open files"), ["Too many open files", "ulimit"]),
        (PermissionError(errno.EACCES, "Permission denied", "run"), ["run: Permission denied; check the permissions"]),
        (OverflowError("Python integer 2147483648 out of bounds for int32"), ["too large", "2147483648", "smaller"]),
        (UnicodeEncodeError("ascii", "τ", 0, 1, "ordinal not in range(128)"), ["locale", "PYTHONUTF8=1"]),
        (EOFError(), ["a worker process was killed", "--workers"]),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ["a worker process was killed", "--workers"]),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), ["the package rich is not installed"]),
        (EvorError("no [b] here."), ["no [b] here."]),
    ],
)
def test_what_the_system_lacks_is_one_sentence(failing, capsys, error, words):
    failing(throw(error))
    assert main(["report"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("evor: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_the_memory_of_a_device(failing, capsys):
    failing(lambda: jax.block_until_ready(jnp.zeros(2**48, jnp.int8)))
    assert main(["report"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("evor: the memory of cpu does not suffice (RESOURCE_EXHAUSTED")
    assert "281474976710656 bytes" in said
    assert "--agent.batch-size" in said
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in said


def test_a_device_that_fails_is_no_fault_of_evor(monkeypatch):
    error = jax.errors.JaxRuntimeError("INTERNAL: the GPU has fallen off the bus\nmore")
    assert explain(error).code == 1  # on a CPU: XLA failed on what evor gave it
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert explain(error) == (
        "cpu failed (INTERNAL: the GPU has fallen off the bus); check its driver, or set JAX_PLATFORMS=cpu to do without.",
        2,
    )


def test_a_fault_of_evor_names_its_place(here, monkeypatch, capsys):
    monkeypatch.setattr("evor.data.inspect.survey", lambda *dataset, **cap: {}["episodes"])
    assert main(["data", "check", "--data", "mine.npz"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"evor: this is a fault of evor itself: KeyError: 'episodes' \(inspect.py:\d+\). .* --debug .*\n", said
    )


def test_a_fault_in_a_worker_process_names_its_place_there():
    error = ValueError("odd")
    package = Path(evor.__file__).parent
    frames = [f'File "{package}/verify.py", line 7, in f', 'File "/site/numpy/core.py", line 9, in g']
    error.__cause__ = RemoteTraceback("\n".join(frames))
    assert "ValueError: odd (verify.py:7)" in explain(error).sentence


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_debug_shows_the_traceback(place, here, monkeypatch, capsys):
    words = ["report", "never"]
    if place is None:
        monkeypatch.setenv("EVOR_DEBUG", "1")
    else:
        words.insert(place, "--debug")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("evor: never does not exist; give a run folder")
    monkeypatch.setenv("EVOR_DEBUG", "0")
    assert main(["report", "never"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_overview_names_debug(capsys):
    assert main(["--help"]) == 0
    assert "--debug" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "--memory-gb" in capsys.readouterr().out


# The device.


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")])
def test_a_device_that_is_not_there_is_told_before_anything_is_written(error, here, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", lambda: throw(error)())
    for verb in (["train", "--data", "mine.npz"], ["demo"], ["reproduce", "paper"], ["bench"], ["verify"]):
        assert main([*verb, "--out", "never"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            "evor: JAX_PLATFORMS is 'cuda', and JAX finds no such device here; set JAX_PLATFORMS=cpu"
        )
        assert said.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["mine.npz"]
    assert main(["train", "--help"]) == 0
    assert main(["data", "check", "--data", "mine.npz"]) == 0
    assert hardware()["device"] == "none"


def test_jobs_find_the_memory_of_a_gpu_free(here, monkeypatch):
    """The process that starts them begins with JAX, and reserves nothing."""
    reserved = []

    def note():
        reserved.append(os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))
        raise RuntimeError("no device")

    monkeypatch.setattr(jax, "devices", note)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert main(["reproduce", "paper", "--out", "never"]) == 2
    assert reserved[0] == "false"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ
    reserved.clear()
    assert main(["train", "--data", "mine.npz", "--out", "never"]) == 2
    assert set(reserved) == {None}


# Options.


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "train --data mine.npz --out never --updates x",
            "evor: --updates takes a whole number, such as --updates 100000; got 'x'.",
        ),
        (
            "train --data mine.npz --out never --agent.learning-rate x",
            "evor: --agent.learning-rate takes a number, such as --agent.learning-rate 0.0003; got 'x'.",
        ),
        ("train --data mine.npz", "evor: evor train needs --out FOLDER (see `evor train --help`)"),
        (
            "reproduce",
            "evor: evor reproduce needs SUITE (One of paper, ablations, sorl) and --out FOLDER (see `evor reproduce --help`)",
        ),
        (
            "train --data mine.npz --out never --agent.hidden wide",
            "evor: --agent.hidden takes whole numbers, such as --agent.hidden 256 256 256; got 'wide'.",
        ),
        ("train --data mine.npz --out never --agent.hidden 8 8.5", "got '8.5'."),
        ("train --data mine.npz --out never --agent.hidden= --updates 2", "got ''."),
        ("train --data mine.npz --out never --agent.value_hidden y", "such as --agent.value-hidden 1 2; got 'y'."),
        (
            "train --data mine.npz --out never --agent.hidden --updates 2",
            "evor: --agent.hidden needs at least one value; leave it out for its default.",
        ),
        ("train --data mine.npz --out never --agent.value-hidden", "--agent.value-hidden needs at least one value"),
        ("train --data mine.npz --out never --agent.hidden 0", "hidden is 0; it must be at least 1"),
        ("train --data mine.npz --out never --memory-gb much", "--memory-gb takes a number, such as --memory-gb 0.5;"),
        (
            "train --data mine.npz --out never --agent.objective.n-steps x",
            "such as --agent.objective.n-steps 10; got 'x'",
        ),
        (
            "sweep never --num-candidates many",
            "evor: --num-candidates takes whole numbers, such as --num-candidates 1 2 4",
        ),
        ("sweep never --return-temperature", "evor: --return-temperature needs at least one value"),
        ("train --data mine.npz --out never --agent.precision float16", "'float32', 'tensorfloat32', 'bfloat16'"),
        ("train --data mine.npz --out never --updates", "--updates 100000; got nothing."),
        ("train --data mine.npz --out", "evor: --out needs a value (see `evor train --help`)"),
        ("evaluate", "evor evaluate needs RUN (The run folder that `evor train --out` wrote)"),
        ("report", "no run given"),
        ("evaluate never --base-timeout 5", "--base-timeout goes with --base, which is not given; leave it out"),
        ("serve never --base-timeout 5", "--base-timeout goes with --base"),
        ("label never --data mine.npz --out v.parquet --base-timeout 5", "--base-timeout goes with --base"),
        ("audit never --data mine.npz --base-timeout 5", "--base-timeout goes with --base"),
        ("data propose mine.npz --out never --base-timeout 5", "--base-timeout goes with --base"),
        ("demo more", "unexpected argument 'more' (see `evor demo --help`)"),
    ],
)
def test_options_are_refused_in_one_line(command, words, here, capsys):
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not set("│╭╰─") & set(said)
    assert not Path("never").exists()


# Paths.


@pytest.mark.slow
def test_the_home_folder_in_every_path(here, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(here))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["data", "check", "--data", "~/mine.npz"]) == 0
    assert main(["train", "--data=~/mine.npz", "--out=~/run", *SMALL]) == 0
    assert main(["report", "~/run"]) == 0
    assert (here / "run/report/index.html").exists()
    evor.load("~/run").export("~/robot")
    assert (here / "robot/policy.json").exists()
    evor.load("~/robot")
    assert not any(Path().iterdir())


def test_no_home_folder_is_told(here, monkeypatch, capsys):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", throw_key_error)
    assert main(["report", "~/run"]) == 2
    said = capsys.readouterr().err
    assert said == "evor: ~/run: the system knows no such home folder; set HOME, or give the path without ~.\n"
    with pytest.raises(EvorError, match=r"is not in data; make it with"):
        ogbench.find_shards("pointmaze-medium-navigate-v0", None)
    with pytest.raises(EvorError, match="set HOME"):
        download("pointmaze-medium-navigate-v0")
    assert expand("a~b") == Path("a~b")


def throw_key_error(*_):
    raise KeyError("uid not found")


@pytest.mark.parametrize(
    "name",
    ["r[/b]", *(pytest.param(name, marks=pytest.mark.slow) for name in ("runs[exp]", "lr=[a,b]", ":heart:", "{task}"))],
)
def test_paths_are_shown_as_they_are(name, here, capsys):
    assert main(["train", "--data", "mine.npz", "--out", name, *SMALL]) == 0
    assert f"-> {name}\n" in capsys.readouterr().err
    Path(f"d{name}").mkdir(parents=True)
    Path("mine.npz").rename(f"d{name}/mine.npz")
    assert main(["data", "check", "--data", f"d{name}/mine.npz"]) == 0
    assert capsys.readouterr().out.splitlines()[0].strip() == f"d{name}/mine.npz"


def test_a_bar_shows_its_notes_as_they_are(monkeypatch):
    from evor.runtime import progress

    terminal = progress._Plain(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "console", terminal)
    with progress.progress_bar("d[exp] :heart:", 1, unit="[u]") as advance:
        advance(1, "b[/b].npz")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.file.getvalue())
    assert re.search(r"d\[exp\] :heart: .* 1/1 \[u\] .* b\[/b\]\.npz", shown)


# Streams.


@pytest.fixture
def broken():
    """A pipe without a reader, and a file on a full disk; what is left in them goes nowhere at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = os.fdopen(writer, "w"), open("/dev/full", "w")  # noqa: SIM115
    yield streams
    for stream in streams:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        stream.close()


@pytest.mark.parametrize("command", ["--help", "train --help", "data check --data mine.npz"])
def test_a_pipe_that_is_read_no_more_ends_quietly(command, here, broken, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", broken[0])
    assert main(command.split()) == 141
    assert "evor: " not in capsys.readouterr().err


def test_output_onto_a_full_disk(broken, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", broken[1])
    assert main(["--help"]) == 2
    assert "No space left on device; free some space" in capsys.readouterr().err


def test_a_terminal_that_lacks_a_character(here, monkeypatch):
    Path("mine.npz").rename("τ.npz")
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for words, code in ((["data", "check", "--data", "τ.npz"], 0), (["report", "τ"], 2)):
        monkeypatch.setattr(sys, "argv", ["evor", *words])
        with pytest.raises(SystemExit) as end:
            entry()
        assert end.value.code == code
    assert rb"\u03c4.npz" in out.buffer.getvalue()
    assert rb"evor: \u03c4 does not exist" in err.buffer.getvalue()


def test_names_that_are_no_text_are_spelled(tmp_path):
    """The file stays UTF-8, as it says of itself."""
    name = os.fsdecode(b"r\xfcn \xcf\x84")  # a folder of another encoding, and a letter that is text
    write_text(tmp_path / "page.html", name)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "r\\udcfcn \u03c4"
