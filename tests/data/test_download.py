"""Downloads are whole or not there, whatever the network does. The server is this process's own."""

import hashlib
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


def fetch(*words: str) -> int:
    return main(["data", "download", NAME, *words])


def there(server) -> list[str]:
    """Names in the official folder."""
    return sorted(path.name for path in server.folder.iterdir())


def test_both_files_are_fetched_and_kept(server, capsys):
    assert fetch() == 0
    assert server.asked == [f"/{NAME}.npz", f"/{NAME}-val.npz"]
    assert there(server) == ["SHA256SUMS", f"{NAME}-val.npz", f"{NAME}.npz"]
    digest = hashlib.sha256(server.body).hexdigest()
    sums = (server.folder / "SHA256SUMS").read_text()
    assert sums == f"{digest}  {NAME}.npz\n{digest}  {NAME}-val.npz\n"
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
    assert not [name for name in there(server) if not name.startswith(".")]
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
    said = capsys.readouterr().err
    assert f"{NAME}.npz could not be downloaded (127.0.0.1:1: Connection refused); try again, name a mirror" in said
    assert there(server) == []


def rest(request):
    """Answer with what is asked for by a Range."""
    body, first = request.server.body, int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
    request.server.ranges.append(first)
    if first >= len(body):
        request.send_error(416)
        return
    request.send_response(206)
    request.send_header("Content-Length", str(len(body) - first))
    request.end_headers()
    request.wfile.write(body[first:])


def test_what_broke_off_goes_on_where_it_stopped(server, capsys):
    whole, server.answer, server.ranges = server.answer, half, []
    assert fetch() == 2
    assert "the next call goes on there" in capsys.readouterr().err
    assert there(server) == [f".{NAME}.npz.download"]
    server.answer = lambda request: (rest if "Range" in request.headers else whole)(request)
    assert fetch() == 0
    assert server.ranges == [len(server.body) // 2]
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body
    # All of it came, but for the last step.
    (server.folder / f"{NAME}.npz").rename(server.folder / f".{NAME}.npz.download")
    assert fetch() == 0
    assert server.ranges[-1] == len(server.body)
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body


def test_a_host_that_knows_no_ranges_begins_anew(server):
    server.folder.mkdir()
    (server.folder / f".{NAME}.npz.download").write_bytes(b"of another file")
    assert fetch() == 0
    assert (server.folder / f"{NAME}.npz").read_bytes() == server.body


def test_mirrors_are_asked_first_and_in_turn(server, capsys, monkeypatch):
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(ogbench.utils, "DATASET_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EVOR_MIRRORS", f"http://127.0.0.1:2 {here}/copies/")
    assert fetch() == 0
    assert server.asked == [f"/copies/{NAME}.npz", f"/copies/{NAME}-val.npz"]
    (server.folder / f"{NAME}.npz").unlink()
    assert fetch("--mirrors", f"{here}/mine") == 0
    assert server.asked[2:] == [f"/mine/{NAME}.npz"]
    (server.folder / f"{NAME}.npz").unlink()
    monkeypatch.setenv("EVOR_MIRRORS", "http://127.0.0.1:2")
    assert fetch() == 2
    said = capsys.readouterr().err
    assert "(127.0.0.1:2: Connection refused; 127.0.0.1:1: Connection refused); try again" in said
    assert fetch("--mirrors", "my-server") == 2
    assert "the mirror is 'my-server'; give addresses such as https://" in capsys.readouterr().err


def test_another_sum_is_refused(server, capsys):
    server.folder.mkdir()
    (server.folder / "SHA256SUMS").write_text(f"{'0' * 64}  {NAME}.npz\n")
    assert fetch() == 2
    assert "its SHA-256 is not the one in" in capsys.readouterr().err
    assert there(server) == ["SHA256SUMS"]


def test_the_list_of_files_asks_no_network(server, capsys):
    assert fetch("--list", "--mirrors", "https://example.org/copies") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"https://example.org/copies/{NAME}.npz {server.folder / f'{NAME}.npz'}"
    assert len(lines) == 4
    assert server.asked == []
