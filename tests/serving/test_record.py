"""What a server saw and chose, on disk: whole files, which the data commands read."""

import io

import numpy as np
import pytest
from stand_in import STATE, StandIn, lines, service_of, serving

import evor
from evor.cli.main import main
from evor.data.formats.npz import load_files
from evor.errors import EvorError
from evor.runtime import files, wire
from evor.serving import record
from evor.serving.log import Log
from evor.serving.record import Recorder
from evor.serving.service import Session


@pytest.fixture
def recorder(tmp_path):
    made = []

    def make(decider=None, folder=tmp_path / "served", stream=None):
        decider = decider or StandIn()
        log = Log(stream or io.StringIO())
        made.append(Recorder(folder, log, bounds=decider.action_bounds, keys=decider.keys, executed=decider.executed))
        return made[-1]

    yield make
    for one in made:
        one.close()


def stored(folder):
    (path,) = folder.glob("*.npz")
    return dict(np.load(path))


def ask(service, session, number=1, **options):
    for value in range(number):
        state = {"state": np.array([value, -value], np.float32)}
        assert isinstance(service.answer(wire.pack(state | options), session), bytes)


def test_connections_and_resets_are_episodes(recorder, tmp_path, capsys):
    service = service_of(StandIn(), recorder=recorder())
    first, second = Session(), Session()
    ask(service, first, 3)
    ask(service, second, 2)
    ask(service, first, 1, **{"evor/reset": True})
    assert isinstance(service.answer(wire.pack({"image": 1}), first), str)  # nothing was chosen
    service.end(first)
    service.end(first)  # there is nothing left
    service.end(second)
    service.recorder.flush()
    arrays = stored(tmp_path / "served")
    assert "rewards" not in arrays
    np.testing.assert_array_equal(np.flatnonzero(arrays["truncations"]), [2, 3, 5])
    assert not arrays["terminations"].any()
    np.testing.assert_array_equal(arrays["observations"][:, 0], [0, 1, 2, 0, 0, 1])
    np.testing.assert_array_equal(arrays["actions"], [[8, 0], [8, 1], [8, 2], [8, 3], [8, 0], [8, 1]])
    np.testing.assert_array_equal(arrays["num_candidates"], [8] * 6)
    np.testing.assert_array_equal(arrays["values"], [-2.5] * 6)
    assert main(["data", "check", "--data", str(tmp_path / "served")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "[-100, 100]" in told
    assert "there are no rewards, so only behaviour cloning trains on these data (--preset bc)" in told
    assert "all rewards of task 1 are 0" not in told
    (path,) = (tmp_path / "served").glob("*.npz")
    labels = ["--observation-keys", "observations", "--action-key", "actions", "--reward", "steps", "--success", "all"]
    assert main(["data", "import", str(path), *labels, "--out", str(tmp_path / "labelled")]) == 0
    episodes = load_files(tmp_path / "labelled")
    np.testing.assert_array_equal(episodes.rewards[0], [-1, -1, 0, 0, -1, 0])


def test_the_actions_of_a_chunk_lie_side_by_side(recorder, tmp_path):
    decider = StandIn(horizon=3)
    decider.executed = 2
    service, session = service_of(decider, recorder=recorder(decider)), Session()
    ask(service, session, 2)
    service.end(session)
    service.recorder.flush()
    arrays = stored(tmp_path / "served")
    assert arrays["actions"].shape == (2, 4)
    np.testing.assert_array_equal(arrays["action_high"], [100] * 4)


def test_memory_and_files_are_bounded(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROWS", 5)
    service, session = service_of(StandIn(), recorder=recorder()), Session()
    ask(service, session, 4)
    assert not service.recorder.due()
    ask(service, session, 1)  # the episode is cut
    assert service.recorder.due()
    assert session.episode == []
    service.recorder.flush()
    assert not service.recorder.due()
    ask(service, session, 1)
    service.end(session)
    assert not service.recorder.due()
    monkeypatch.setattr(record, "SECONDS", 0.0)
    assert service.recorder.due()


def test_a_full_disk_loses_rows_and_nothing_else(recorder, tmp_path, monkeypatch):
    stream = io.StringIO()
    service, session = service_of(StandIn(), recorder=recorder(stream=stream)), Session()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.np, "savez_compressed", full)
        ask(service, session, 3)
        service.end(session)
        service.recorder.flush()
    (told,) = lines(stream, "record failed")
    assert told["rows_lost"] == 3
    assert "No space left on device" in told["error"]
    assert list((tmp_path / "served").glob("*.npz")) == list((tmp_path / "served").glob(".*.partial")) == []
    ask(service, session, 2)
    service.end(session)
    service.recorder.flush()
    assert len(stored(tmp_path / "served")["times"]) == 2


def test_a_server_that_starts_again_at_once_keeps_what_was_written(recorder, tmp_path):
    for value in range(3):
        one = recorder()
        one._started = "20261128T000003"  # within one second
        service, session = service_of(StandIn(), recorder=one), Session()
        ask(service, session, 1 + value)
        service.end(session)
        one.close()
    rows = [len(np.load(path)["actions"]) for path in sorted((tmp_path / "served").glob("*.npz"))]
    assert rows == [1, 2, 3]


def test_a_server_that_stops_writes_what_is_left(recorder, tmp_path):
    with serving(service_of(StandIn(), recorder=recorder())) as uri, evor.Client(uri) as client:
        client.act(STATE)
        client.reset()
        client.act(STATE)
    assert stored(tmp_path / "served")["truncations"].tolist() == [True, True]


def test_a_folder_of_something_else_is_refused(recorder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(EvorError, match="holds something that is no recording of evor serve"):
        recorder(folder=tmp_path / "thesis")
    first = recorder()
    with pytest.raises(EvorError, match="is in use by evor serve --record"):
        recorder()
    first.close()
    other = StandIn()
    other.keys = (("state", 3),)
    with pytest.raises(EvorError, match=r"holds records of another policy .its observations differ"):
        recorder(other)
    recorder().close()  # of the same policy
