"""Downloads are whole or not there, whatever the network does. The server is this process's own."""

import http.server
import threading

import numpy as np
import ogbench.utils
import pytest

from evor.cli.main import main
from evor.data import download as source

NAME = "pointmaze-medium-navigate-v0"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of OGBench's files; `answer` is what it does with a request, `asked` what it was asked for."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            server.answer(self)

        def log_message(self, *_):
            pass

    np.savez(tmp_path / "sent.npz", observations=np.random.default_rng(0).normal(size=(100, 2)))
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    server.asked, server.body = [], (tmp_path / "sent.npz").read_bytes()
    server.answer = lambda request: send(request, server.body)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.folder = tmp_path / "official"
    monkeypatch.setattr(source, "OFFICIAL_FOLDER", server.folder)
    monkeypatch.setattr(ogbench.utils, "DATASET_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def send(request, body: bytes, length: int | None = None) -> None:
    """Answer with a body; `length` is what is said of it."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def fetch() -> int:
    return main(["data", "download", NAME])


def test_both_files_are_fetched_and_kept(server, capsys):
    assert fetch() == 0
    assert server.asked == [f"/{NAME}.npz", f"/{NAME}-val.npz"]
    assert sorted(path.name for path in server.folder.iterdir()) == [f"{NAME}-val.npz", f"{NAME}.npz"]
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body
    assert fetch() == 0
    assert len(server.asked) == 2
    assert "is there already" in capsys.readouterr().err


def half(request):
    send(request, request.server.body[: len(request.server.body) // 2], len(request.server.body))


def half_in_chunks(request):
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"400\r\n" + request.server.body[:500])
    request.close_connection = True


def damaged(request):
    body = bytearray(request.server.body)
    body[500:600] = bytes(100)
    send(request, body)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (half, "broke off after"),
        (half_in_chunks, "could not be downloaded"),
        (damaged, "no whole npz file"),
        (lambda request: send(request, b"<html>sign in</html>"), "no whole npz file"),
        (lambda request: request.send_error(404), "404"),
        (lambda request: request.wfile.write(b"no HTTP\r\n\r\n"), "could not be downloaded"),
        (lambda request: request.connection.close(), "could not be downloaded"),
    ],
    ids=["half", "chunks", "damaged", "page", "404", "nonsense", "closed"],
)
def test_what_is_not_whole_is_told_and_not_there(server, capsys, answer, words):
    whole, server.answer = server.answer, answer
    assert fetch() == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("evor: ")
    assert words in said
    assert "again" in said
    assert not any(server.folder.iterdir())
    server.answer = whole
    assert fetch() == 0
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body


def test_a_broken_file_that_lies_there_is_fetched_again(server):
    server.folder.mkdir()
    (server.folder / f"{NAME}.npz").write_bytes(server.body[:700])
    (server.folder / f"{NAME}-val.npz").write_bytes(server.body)
    assert fetch() == 0
    assert server.asked == [f"/{NAME}.npz"]
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body


def test_a_network_that_is_not_there(server, capsys, monkeypatch):
    monkeypatch.setattr(ogbench.utils, "DATASET_URL", "http://127.0.0.1:1")
    assert fetch() == 2
    assert "could not be downloaded" in capsys.readouterr().err
    assert not any(server.folder.iterdir())
