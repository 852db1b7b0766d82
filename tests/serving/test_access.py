"""Who may talk to a server."""

import re

import pytest

from evor.errors import EvorError
from evor.serving.access import check_host, is_allowed, is_loopback, read_key


@pytest.fixture
def key_file(tmp_path):
    def write(content, mode=0o600):
        path = tmp_path / "key"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return write


def test_a_key_is_one_word_in_a_file_of_ones_own(key_file, tmp_path):
    assert read_key(key_file(b"  s3cret-KEY\n")) == "s3cret-KEY"
    assert read_key(key_file(b"secret", 0o440)) == "secret"
    for mode in (0o644, 0o604, 0o602):
        with pytest.raises(EvorError, match="is open to everybody on this machine; run: chmod 600 "):
            read_key(key_file(b"secret", mode))
    for content, sentence in (
        (b" \n", "is empty; write a key into it"),
        (b"two words", "holds no key: one line"),
        (b"two\nlines", "holds no key"),
        ("schlüssel".encode(), "holds no key"),
        (b"a" * 2000, "holds no key"),
        (b"\xff", "can't be read"),
    ):
        with pytest.raises(EvorError, match=re.escape(sentence)):
            read_key(key_file(content))
    with pytest.raises(EvorError, match=r"can't be read \(No such file"):
        read_key(tmp_path / "none")
    with pytest.raises(EvorError, match=r"is no file; give a text file"):
        read_key(tmp_path)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.0.7", False),
        ("robot.local", False),
    ],
)
def test_other_machines_need_a_key_unless_the_user_insists(host, loopback):
    assert is_loopback(host) == loopback
    check_host(host, has_key=True, is_open=False)
    check_host(host, has_key=False, is_open=True)
    if not loopback:
        with pytest.raises(
            EvorError, match="lets other machines connect, and there is no key; give --key-file FILE, or --open"
        ):
            check_host(host, has_key=False, is_open=False)


def test_only_the_key_is_allowed():
    assert is_allowed(None, None)
    assert is_allowed("Api-Key a", "a")
    for header in (
        None,
        "",
        "a",
        "Api-Key",
        "Api-Key b",
        "api-key a",
        "Api-Key a ",
        "Api-Key \u00fc",
        "Api-Key \udcff",
    ):
        assert not is_allowed(header, "a")
