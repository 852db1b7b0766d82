"""OGBench's official files from the network: whole, or not there."""

import errno
import http.client
import math
import urllib.request
from pathlib import Path

from evor.data.formats.archive import is_whole
from evor.data.formats.ogbench import OFFICIAL_FOLDER
from evor.envs.ogbench import check_name
from evor.errors import EvorError, why
from evor.runtime.files import atomic_path, expand, sweep
from evor.runtime.progress import console, progress_bar

SILENCE = 60  # seconds without a byte after which a download has failed
PIECE = 2**20  # bytes between two steps of its progress bar


def download(dataset: str) -> Path:
    """Fetch the official files, whole, into OGBench's own folder; what lies there whole already stays.

    Raises EvorError where the network fails. Then nothing of that file is left behind.
    """
    check_name(dataset)
    folder = expand(OFFICIAL_FOLDER)
    import ogbench.utils

    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    for name in (f"{dataset}.npz", f"{dataset}-val.npz"):
        if is_whole(folder / name):
            console.print(f"{folder / name} is there already.")
            continue
        try:
            _fetch(f"{ogbench.utils.DATASET_URL}/{name}", folder / name)
        except (OSError, http.client.HTTPException) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space, then try again" if full else "try again or copy the file yourself"
            raise EvorError(f"{name} could not be downloaded ({why(error)}); {remedy}.") from error
    return folder / f"{dataset}.npz"


def _fetch(url: str, path: Path) -> None:
    """Write a whole npz file from the network, or nothing."""
    with urllib.request.urlopen(url, timeout=SILENCE) as response, atomic_path(path) as temporary:
        length, received = response.headers.get("Content-Length") or "", 0
        size = int(length) if length.isdecimal() else 0  # unknown
        with (
            open(temporary, "wb") as file,
            progress_bar(f"download {path.name}", math.ceil(size / PIECE), unit="MiB") as advance,
        ):
            while part := response.read(PIECE):
                file.write(part)
                received += len(part)
                advance(1)
        if size and received != size:
            raise EvorError(f"{path.name} broke off after {received:,} of {size:,} bytes; download it again.")
        if not is_whole(temporary):
            raise EvorError(f"{url} sent {received:,} bytes that are no whole npz file; download it again.")
