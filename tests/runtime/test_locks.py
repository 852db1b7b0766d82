"""A lock that is waited for."""

import threading

import pytest

from evor.errors import EvorError
from evor.report.evaluations import SettingFiles
from evor.runtime.files import append_text, hold_own, write_text
from evor.runtime.locks import hold, staying, waited_for


def test_who_comes_second_waits_and_then_holds_it(tmp_path):
    order, begun = [], threading.Event()

    def second():
        begun.set()
        with waited_for(tmp_path / ".lock"):
            order.append("second")

    with waited_for(tmp_path / ".lock"):
        other = threading.Thread(target=second)
        other.start()
        begun.wait()
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_was_replaced_is_not_written_into(tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()
    with hold(folder / ".lock", "evor train"):
        write_text(folder / "log", "of the first\n")
        folder.rename(moved)
        folder.mkdir()
        with hold(folder / ".lock", "evor train"):
            write_text(tmp_path / "elsewhere", "")
            for write in (write_text, append_text):
                with pytest.raises(EvorError, match=r"run was replaced while evor train wrote into it"):
                    write(folder / "log", "more\n")
    assert [path.name for path in folder.iterdir()] == []
    assert (moved / "log").read_text() == "of the first\n"


def test_a_lock_of_another_process_stays(tmp_path):
    first = hold(tmp_path / ".lock", "evor train")
    (tmp_path / ".lock").unlink()
    with hold(tmp_path / ".lock", "evor train"):
        with pytest.raises(EvorError, match="its lock"):
            write_text(tmp_path / "log", "")
        first.release()
        assert (tmp_path / ".lock").exists()
        write_text(tmp_path / "log", "")


def test_only_who_holds_a_folder_of_its_own_tidies_it(tmp_path):
    left = tmp_path / ".audit.json.elsewhere-1-ab.partial"
    left.touch()
    with hold_own(tmp_path, "evor audit"):
        assert not left.exists()
        left.touch()  # that is being written
        with pytest.raises(EvorError, match="in use by evor audit"):
            hold_own(tmp_path, "evor audit")
        assert left.exists()


def test_a_folder_that_others_write_into_is_the_same_one_or_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with staying(run, "evor evaluate"):
        files = SettingFiles(run / "evaluations", "x")
        assert files.open() == []
        run.rename(tmp_path / "moved")
        run.mkdir()
        with pytest.raises(EvorError, match="run was replaced while evor evaluate"):
            files.append({})
    assert list(run.iterdir()) == []
    assert SettingFiles(run / "evaluations", "x").open() == []
