"""Files and folders of another user: no damage, and no empty folder."""

import builtins
import os

import numpy as np
import pytest

from evor.data.formats.archive import contents
from evor.data.parts import undamaged
from evor.runtime.failures import explain
from evor.runtime.files import listed, numbered
from evor.training.checkpoint import load_arrays, save_arrays


def refuse(path, *_, **__):
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    assert listed(tmp_path / "nowhere", "*.npz") == []
    monkeypatch.setattr(os, "scandir", refuse)  # for root may read everything
    for look in (lambda: listed(tmp_path, "*.npz"), lambda: numbered(tmp_path, "step_")):
        with pytest.raises(PermissionError):
            look()


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", rewards=np.zeros(3))
    save_arrays(tmp_path / "step_1", {"weights": np.zeros(3)}, metadata={})
    monkeypatch.setattr(builtins, "open", refuse)
    for read in (lambda: contents(tmp_path / "data.npz"), lambda: load_arrays(tmp_path / "step_1")):
        with pytest.raises(PermissionError) as raised, undamaged(tmp_path):
            read()
        sentence = explain(raised.value).sentence
        assert "Permission denied; check the permissions of it and of the folders above it." in sentence
