"""One look for every picture. Nothing global of matplotlib changes: figures are made without pyplot."""

import base64
import contextlib
import html
import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from evor.runtime.files import atomic_path

ACCENT = "#1769c4"  # the search
BASE = "#d9822b"  # the base policy
MUTED = "#8492a3"
WALL = "#2d3a4a"
FLOOR = "#ffffff"

LOOK: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e8ecf0",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.bbox": "tight",
}


@contextlib.contextmanager
def look() -> Generator[None]:
    """The look inside: of a block or, as a decorator, of a function that draws and writes figures."""
    with matplotlib.rc_context(LOOK):
        yield


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, as pyplot's `subplots` gives them; pyplot knows nothing of it."""
    of_figure = {name: options.pop(name) for name in ("dpi", "layout") if name in options}
    figure = Figure(figsize=figsize, **of_figure)
    return figure, figure.subplots(rows, columns, **options)


def save_figure(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a figure as PNG, the same bytes for the same picture, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def figure_html(figure: Figure, caption: str) -> str:
    """A figure as an HTML <figure> with the picture inside the page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170)
    return image_html(stream.getvalue(), "png", caption=caption)


def image_html(content: bytes, kind: str, *, caption: str) -> str:
    data = base64.b64encode(content).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/{kind};base64,{data}"><figcaption>{text}</figcaption></figure>'
