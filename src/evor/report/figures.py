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
BASE = "#b35f0c"  # the base policy
MUTED = "#5f6e7e"
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


def figure_html(figure: Figure, caption: str, *, alt: str | None = None) -> str:
    """A figure as an HTML <figure> with the picture inside the page. `alt` is said where it can't be seen, else the caption."""
    return image_html(png(figure), "png", caption=caption, alt=alt)


def pictures_html(pictures: dict[str, Figure], caption: str) -> str:
    """Several pictures, side by side where there is room, above one caption; each with the text that stands for it."""
    images = "".join(_image(png(figure), "png", alt=alt) for alt, figure in pictures.items())
    return f'<figure><div class="cards">{images}</div><figcaption>{html.escape(caption)}</figcaption></figure>'


def image_html(content: bytes, kind: str, *, caption: str, alt: str | None = None, still: bytes = b"") -> str:
    """A picture as an HTML <figure>; `still` is a PNG for those who want nothing to move."""
    image = _image(content, kind, alt=caption if alt is None else alt)
    if still:
        source = f"data:image/png;base64,{base64.b64encode(still).decode()}"
        image = f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{source}">{image}</picture>'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def png(figure: Figure) -> bytes:
    """A figure as a PNG for a page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _image(content: bytes, kind: str, *, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'
