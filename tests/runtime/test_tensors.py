"""Safetensors files: the bytes of the library, and no copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from evor.errors import EvorError
from evor.runtime.provenance import forget_peak_memory, peak_memory_mib
from evor.runtime.tensors import TYPES, bytes_of, write_tensors
from evor.training import checkpoint

generator = np.random.default_rng(0)
ARRAYS = {
    **{f"of/{name}": generator.integers(0, 2, (3, 5)).astype(name) for name in TYPES if name != "bfloat16"},
    "scalar": np.array(3.5, np.float32),
    "int": np.array(7, np.int32),
    "empty": np.zeros((0, 4), np.float32),
    "none/0": np.zeros((2, 0), bool),
    'ä "quoted"': np.arange(6, dtype=np.float32),
}


@pytest.mark.parametrize("number", [len(ARRAYS), 1, 0])
def test_the_bytes_are_those_of_the_library(tmp_path, number):
    """Types, shapes, names and the padding of the header, which depends on its length."""
    arrays = dict(list(ARRAYS.items())[:number])
    for length in range(8):
        metadata = {"evor": "x" * length + '"\\ \x01 ü\u2028'}
        write_tensors(tmp_path / "x", arrays, metadata=metadata)
        assert (tmp_path / "x").read_bytes() == save(arrays, metadata=metadata)


def test_an_array_that_lies_otherwise_is_written_row_by_row(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_tensors(tmp_path / "x", {"a": array.T, "b": array[:, ::2]}, metadata={})
    with safe_open(tmp_path / "x", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("a"), array.T)
        np.testing.assert_array_equal(file.get_tensor("b"), array[:, ::2])


def test_bytes_of_an_array_are_not_copied():
    array = np.arange(4, dtype=np.float32)
    seen = bytes_of(array)
    array[0] = 5
    assert bytes(seen) == array.tobytes()


def test_a_file_of_the_library_is_read(tmp_path):
    """What earlier versions wrote, and a digest that tells of one bit."""
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int32)}
    checkpoint.save_arrays(tmp_path / "new", tree, metadata={"step": 3})
    with safe_open(tmp_path / "new", framework="numpy") as file:
        stored = save(tree, metadata=file.metadata())
    (tmp_path / "old").write_bytes(stored)
    arrays, metadata = checkpoint.load_arrays(tmp_path / "old")
    assert metadata == {"step": 3}
    np.testing.assert_array_equal(arrays["a"], tree["a"])
    (tmp_path / "old").write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(EvorError, match="do not match its digest"):
        checkpoint.load_arrays(tmp_path / "old")


@pytest.mark.slow
def test_saving_and_the_digest_copy_no_array(tmp_path):
    """A state on the device, whose size is 256 MiB."""
    state = [jax.block_until_ready(jnp.full((2**22,), float(i))) for i in range(16)]
    forget_peak_memory()
    before = peak_memory_mib()
    checkpoint.save_arrays(tmp_path / "x", state, metadata={})
    assert peak_memory_mib() - before < 0.1 * 256
