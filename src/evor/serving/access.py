"""Access to a server: the addresses that it listens at, and its key."""

import hmac
import ipaddress
import stat
from pathlib import Path

from evor.errors import EvorError, why

LONGEST_KEY = 1024
SCHEME = "Api-Key "  # of the header Authorization, as openpi's client sends it


def read_key(path: Path) -> str:
    """Read the key in a file. Raises EvorError where others may read it too, and where it holds no key."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise EvorError(f"the key file {path} is no file; give a text file with one key.")
        text = path.read_bytes()[: LONGEST_KEY + 2].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EvorError(f"the key file {path} can't be read ({why(error)}); give a text file with one key.") from error
    if mode & stat.S_IRWXO:
        raise EvorError(f"the key file {path} is open to everybody on this machine; run: chmod 600 {path}")
    if not text:
        raise EvorError(f"the key file {path} is empty; write a key into it, such as `openssl rand -hex 32` prints.")
    if len(text) > LONGEST_KEY or not text.isascii() or not text.isprintable() or " " in text:
        raise EvorError(
            f"the key file {path} holds no key: one line of at most {LONGEST_KEY} letters, digits and signs is needed."
        )
    return text


def check_host(host: str, *, has_key: bool, is_open: bool) -> None:
    """Raise EvorError where other machines could connect and no key keeps them out, unless the user insists."""
    if not (has_key or is_open or is_loopback(host)):
        raise EvorError(
            f"--host {host or repr(host)} lets other machines connect, and there is no key; give --key-file FILE, or --open "
            "where the network is yours alone."
        )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can connect at this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_allowed(header: str | None, key: str | None) -> bool:
    """Whether a header Authorization holds the key. The comparison takes as long whatever is wrong."""
    given = (header or "").encode("utf-8", "surrogateescape")
    return key is None or hmac.compare_digest(given, f"{SCHEME}{key}".encode())
