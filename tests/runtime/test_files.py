"""Readers believe nothing before they have counted; what can't be written says which file and what to do."""

import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest

from conftest import TINY
from evor.data.scripted import generate as generation
from evor.data.scripted.generate import generate
from evor.errors import EvorError
from evor.runtime import npz
from evor.runtime.files import (
    append_text,
    listed,
    read_arrays,
    read_json,
    read_json_lines,
    write_json,
    write_npz,
    write_text,
)
from evor.runtime.npz import open_npz
from evor.training import checkpoint
from evor.training.config import RunConfig, from_json, to_json
from evor.training.train import Training, train
from faults import filling_disk

# npz files.


def pack(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape, size, descr="<f4"):
    """A header of this shape, before so many bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(size)


@pytest.mark.parametrize(
    ("members", "options", "told"),
    [
        ({"a.npy": npy((10**12,), 40)}, {}, "a has 168 bytes, and its header tells of 4000000000128"),
        ({"a.npy": npy((9,), 40)}, {}, "its header tells of 164"),  # numpy reads 9 numbers and no checksum
        ({"a.npy": npy((2,), 0, "|O")}, {}, "holds pickled objects"),
        ({"a.npy": b"\x93NUMPY\x01\x00\x04\x00((((\n"}, {}, "damaged"),  # a TokenError of Python's own parser
        ({"a.npy": npy((10,), 40)}, {"compression": zipfile.ZIP_LZMA}, "packed in a way that numpy does not use"),
        ({"a.npy": npy((10,), 40), "b": b"text"}, {}, "b is no array"),
        ({}, {}, "some of its arrays are lost"),
    ],
)
def test_an_npz_file_that_lies_is_refused(members, options, told, tmp_path):
    path = pack(tmp_path / "x.npz", members, **options)
    with pytest.raises(EvorError, match=rf"x\.npz .*{told}"):
        read_arrays(path)


def test_a_directory_that_hides_an_array_is_refused(tmp_path):
    """The comment of the first entry swallows the second one: zipfile finds one array where there are two."""
    path = tmp_path / "x.npz"
    write_npz(path, {"a": np.arange(3), "b": np.arange(4)})
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 1)
    content[first + 32 : first + 34] = (content.index(b"PK\x05\x06") - second).to_bytes(2, "little")
    path.write_bytes(content)
    with np.load(path) as believed:
        assert believed.files == ["a"]
    with pytest.raises(EvorError, match=r"x\.npz is truncated or damaged \(some of its arrays are lost\)"):
        read_arrays(path)


def test_honest_npz_files_are_read_whoever_wrote_them(tmp_path):
    class Pipe(io.RawIOBase):
        """Written without going back, which puts the sizes behind each array."""

        content = b""

        def writable(self):
            return True

        def write(self, content):
            self.content += bytes(content)
            return len(content)

    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.zeros(10**6, np.int8),
        "c": np.array(True),
        "d": np.zeros((0, 3)),
    }
    pipe = Pipe()
    np.savez_compressed(pipe, **arrays)
    (tmp_path / "piped.npz").write_bytes(pipe.content)
    np.savez(tmp_path / "plain.npz", **arrays)
    write_npz(tmp_path / "ours.npz", arrays)
    for name in ("piped", "plain", "ours"):
        found = read_arrays(tmp_path / f"{name}.npz")
        assert list(found) == list(arrays)
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array, strict=True)
    with open_npz(tmp_path / "ours.npz", "") as opened:
        assert opened.header("a") == ((2, 3), np.dtype(float))


# JSON, logs and sentences.


@pytest.mark.parametrize(
    "text", ['{"a": ' + "[" * 10**5, '{"a": ' + "1" * 5000 + "}", "\0", '{"a": "x', "[]", '{"b": 1}', '{"a": "1"}']
)
def test_damaged_json_is_one_sentence(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EvorError, match=r"^.*x\.json is damaged \(.*\); restore it or start anew\.$"):
        read_json(tmp_path / "x.json", a=int)


def test_kinds_reach_into_json(tmp_path):
    path = tmp_path / "x.json"
    kind = {"cells": [{"name": str}], "notes": {str: str | None}}
    write_json(path, {"cells": [{"name": "a", "more": 1}], "notes": {"x": None}})
    assert read_json(path, **kind)["notes"] == {"x": None}
    for wrong, told in (
        ({"cells": [{}]}, "lacks 'name'"),
        ({"cells": [{"name": 1}]}, "'name' is no str"),
        ({"notes": {"x": 1}}, "'x' is no"),
    ):
        write_json(path, {"cells": [], "notes": {}} | wrong)
        with pytest.raises(EvorError, match=told):
            read_json(path, **kind)


def test_copies_beside_checkpoints_are_none(tmp_path):
    for name in ("step_000000020", "step_000000003", "step_000000020 copy", "step_old"):
        (tmp_path / f"{name}.safetensors").touch()
    assert checkpoint.steps(tmp_path) == [3, 20]
    assert [path.stem for path in checkpoint.checkpoints(tmp_path)] == ["step_000000003", "step_000000020"]


def test_only_the_end_of_a_log_may_be_half_written(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in read_json_lines(path, step=int)] == [1, 2]
    for damaged in ('{"step": 1}\n{"st\n{"step": 3}\n', '{"step": "1"}\n', "3\n", '{"step": 1}\n\n'):
        path.write_text(damaged)
        with pytest.raises(EvorError, match=r"log\.jsonl is damaged"):
            read_json_lines(path, step=int)


def test_a_sentence_is_one_line_whatever_it_names():
    assert str(EvorError("no a\nb\x1b[31m\ud800\u2028c.")) == r"no a\nb\x1b[31m\ud800\u2028c."
    assert str(EvorError("no ä/日本 here.")) == "no ä/日本 here."


# Configs and checkpoints.


@pytest.mark.parametrize(
    ("name", "value"),
    [("updates", 3.9), ("updates", "3"), ("updates", True), ("sparse_rewards", "false"), ("data", 1), ("tasks", "12")],
)
def test_a_stored_config_is_of_the_types_that_were_written(name, value):
    """cattrs makes 3 of 3.9, and True of "false"."""
    stored = to_json(RunConfig(data="x"))
    assert from_json(stored, RunConfig) == RunConfig(data="x")
    with pytest.raises(EvorError, match=f"does not fit this version of evor, .*{name}"):
        from_json(stored | {name: value}, RunConfig)


def test_a_checkpoint_s_digest_holds_its_metadata_shapes_and_types(tmp_path):
    path, array = tmp_path / "x.safetensors", np.arange(6, dtype=np.float32).reshape(2, 3)
    checkpoint.save_arrays(path, {"a": array}, metadata={"step": 20})
    content = path.read_bytes()
    np.testing.assert_array_equal(checkpoint.load_arrays(path)[0]["a"], array)
    for old, new in ((b'\\"step\\": 20', b'\\"step\\": 21'), (b"[2,3]", b"[3,2]"), (b'"F32"', b'"I32"')):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(EvorError, match="do not match its digest"):
            checkpoint.load_arrays(path)


# A full disk, and what a kill leaves.


def test_a_file_that_can_not_be_written_is_named_and_the_old_one_stays(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with (
        filling_disk(tmp_path, 2),
        pytest.raises(EvorError, match=r"x\.json could not be written .*Free some space") as told,
    ):
        write_text(path, "new")
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno == errno.ENOSPC
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
    with filling_disk(tmp_path, 1), pytest.raises(EvorError, match=r"x\.json could not be written"):
        append_text(path, "er")
    with pytest.raises(EvorError, match=r"Check that the folder exists and can be written"):
        write_text(tmp_path / "missing" / "x.json", "new")


def test_a_disk_that_is_full_at_the_first_checkpoint_leaves_a_run_that_resumes(user_file, tmp_path):
    """Its log tells of more updates than a checkpoint holds, as that of a run of version 0.1.0 which lost its checkpoints."""
    config = RunConfig(data=str(user_file()), updates=4, checkpoint_every=2, log_every=1, agent=TINY)
    out = tmp_path / "run"
    told = r"step_000000002\.safetensors could not be written"
    with (
        Training.open(config, out, resume=False) as run,
        filling_disk(out / "checkpoints", 1),
        pytest.raises(EvorError, match=told),
    ):
        run.advance(4)
    assert len(read_json_lines(out / "metrics.jsonl")) == 2
    for folder in (out, out / "checkpoints"):
        (folder / ".x.safetensors.host-1-2.partial").touch()  # of a process that was killed
    train(config, out, resume=True)
    assert [path.name for path in checkpoint.checkpoints(out / "checkpoints")] == [
        "step_000000002.safetensors",
        "step_000000004.safetensors",
    ]
    assert list(out.rglob("*.partial")) == []


def test_a_generation_that_was_killed_at_its_very_end_goes_on(tmp_path, monkeypatch):
    name = "pointmaze-medium-stitch-v0"

    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(generation.shutil, "rmtree", kill)
        with pytest.raises(Killed):
            generate(name, 200, seed=0, folder=tmp_path)
    before = (tmp_path / f"{name}.npz").read_bytes()
    assert generate(name, 200, seed=0, folder=tmp_path).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [f"{name}-val.npz", f"{name}.json", f"{name}.npz"]
    assert json.loads((tmp_path / f"{name}.json").read_text())["seed"] == 0
    with pytest.raises(EvorError, match="exists already"):
        generate(name, 200, seed=0, folder=tmp_path)


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("b.npz", "a.npz", "._a.npz", ".c.npz", "d.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in listed(tmp_path, "*.npz")] == ["a.npz", "b.npz"]


def test_more_than_the_free_memory_is_not_read(tmp_path, monkeypatch):
    """A file of kilobytes may hold gigabytes of zeros."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, zeros=np.zeros(2**25, np.float32))
    assert path.stat().st_size < 2**18
    with open_npz(path, "copy it again.") as stored:
        monkeypatch.setattr(npz, "free_memory", lambda: 2**27 + 2**10)
        assert stored["zeros"].shape == (2**25,)
        with pytest.raises(
            EvorError,
            match=r"zeros\.npz holds 128 MiB of arrays, and 128 MiB of memory are free, of which 50% may be taken",
        ):
            read_arrays(path)
        monkeypatch.setattr(npz, "free_memory", lambda: 2**20)
        with pytest.raises(EvorError, match=r"and 1\.0 MiB of memory are free"):
            stored["zeros"]
