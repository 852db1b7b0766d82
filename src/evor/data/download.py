"""OGBench's official files from the network: whole, or not there. What broke off goes on where it stopped."""

import errno
import http.client
import math
import os
import urllib.request
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from evor.data.formats.archive import is_whole
from evor.data.formats.ogbench import OFFICIAL_FOLDER
from evor.envs.ogbench import check_name
from evor.errors import EvorError, why
from evor.runtime.files import FULL, expand, write_text
from evor.runtime.locks import waited_for
from evor.runtime.progress import console, progress_bar

SILENCE = 60  # seconds without a byte after which a download has failed
PIECE = 2**20  # bytes between two steps of its progress bar
MIRRORS = "EVOR_MIRRORS"  # environment variable: addresses that are asked before the official one
SUMS = "SHA256SUMS"  # in the folder of the files, as `sha256sum` writes and checks it
SCHEMES = ("http", "https", "file")
PARTIAL = ".download"  # ending of a file that is not whole yet


def download(dataset: str, *, mirrors: Sequence[str] = ()) -> Path:
    """Fetch the official files, whole, into OGBench's own folder; what lies there whole already stays.

    Hosts are asked in turn: `mirrors`, those of EVOR_MIRRORS, the official one. A file that broke off goes on at the next
    call. Every file is compared with its sum in SHA256SUMS, where that has one, which is noted there otherwise. Raises
    EvorError where no host answers.
    """
    check_name(dataset)
    folder, hosts = expand(OFFICIAL_FOLDER), find_hosts(mirrors)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _names(dataset):
        if is_whole(folder / name):
            console.print(f"{folder / name} is there already.")
        else:
            _fetch_from_any(hosts, folder / name)
    return folder / f"{dataset}.npz"


def list_files(dataset: str, *, mirrors: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """Address and place of every file, for who copies them by hand. Asks no network."""
    check_name(dataset)
    folder = expand(OFFICIAL_FOLDER)
    return [(f"{host}/{name}", folder / name) for name in _names(dataset) for host in find_hosts(mirrors)]


def find_hosts(mirrors: Sequence[str]) -> list[str]:
    """Addresses that are asked, in order. Raises EvorError on one that is none."""
    import ogbench.utils

    given = [*mirrors, *os.environ.get(MIRRORS, "").split()]
    for address in given:
        if urlparse(address).scheme not in SCHEMES:
            raise EvorError(
                f"the mirror is {address!r}; give addresses such as https://example.org/ogbench (--mirrors, {MIRRORS})."
            )
    return [address.rstrip("/") for address in dict.fromkeys([*given, ogbench.utils.DATASET_URL])]


def _names(dataset: str) -> tuple[str, str]:
    return f"{dataset}.npz", f"{dataset}-val.npz"


def _fetch_from_any(hosts: Sequence[str], path: Path) -> None:
    """Write a whole file from the first host that gives it. Raises EvorError where none does."""
    reasons = []
    for host in hosts:
        try:
            _fetch(f"{host}/{path.name}", path)
            return
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{urlparse(host).netloc or host}: {_reason(error)}")
            if isinstance(error, OSError) and error.errno in FULL:
                raise EvorError(
                    f"{path.name} could not be downloaded ({why(error)}); free some space, then try again."
                ) from error
    raise EvorError(
        f"{path.name} could not be downloaded ({'; '.join(reasons)}); try again, name a mirror (--mirrors), or copy the files that "
        "`evor data download --list` names."
    )


def _reason(error: Exception) -> str:
    """Message of the network; what urllib wraps is unwrapped."""
    inner = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    return why(inner) if isinstance(inner, BaseException) else str(inner)


def _fetch(url: str, path: Path) -> None:
    """Write a whole npz file from the network, or keep what came for the next call."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with waited_for(path.with_name(f".{path.name}.lock")):
        if is_whole(path):  # another process was faster
            return
        _receive(url, partial)
        if not is_whole(partial):
            size = partial.stat().st_size
            partial.unlink()
            raise OSError(errno.EBADMSG, f"{url} sent {size:,} bytes that are no whole npz file; download it again")
        _compare(partial, path)
        os.replace(partial, path)


def _receive(url: str, partial: Path) -> None:
    """Append what is missing to a file that broke off. Raises OSError where it breaks off again."""
    there = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    except HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()  # all of it is there already, or it is another file
        return
    with response:
        goes_on = there > 0 and response.status == http.client.PARTIAL_CONTENT
        received = there if goes_on else 0
        length = response.headers.get("Content-Length") or ""
        size = received + int(length) if length.isdecimal() else 0  # unknown
        if goes_on:
            console.print(f"{partial.name}: going on after {received:,} bytes.")
        title, pieces = f"download {partial.name[1 : -len(PARTIAL)]}", math.ceil(size / PIECE)
        with (
            open(partial, "ab" if goes_on else "wb") as file,
            progress_bar(title, pieces, done=received // PIECE, unit="MiB") as advance,
        ):
            while part := response.read(PIECE):
                file.write(part)
                received += len(part)
                advance(1)
            file.flush()
            os.fsync(file.fileno())
    if size and received != size:
        raise OSError(
            errno.EPIPE, f"broke off after {received:,} of {size:,} bytes; the next call goes on there, try again"
        )


def _compare(partial: Path, path: Path) -> None:
    """Compare a file with its sum, or note the sum. Raises OSError on another one, which is removed."""
    with open(partial, "rb") as file:
        digest = sha256()
        while part := file.read(PIECE):
            digest.update(part)
    sums = path.with_name(SUMS)
    with waited_for(path.with_name(f".{SUMS}.lock")):
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
        known = {words[1].lstrip("*"): words[0] for line in lines if len(words := line.split(maxsplit=1)) == 2}
        wanted = known.get(path.name)
        if wanted is None:
            write_text(sums, "\n".join([*lines, f"{digest.hexdigest()}  {path.name}", ""]))
        elif wanted.lower() != digest.hexdigest():
            partial.unlink()
            raise OSError(
                errno.EBADMSG, f"its SHA-256 is not the one in {sums}; ask another host again, or correct the line"
            )
