"""One look for every picture."""

import base64
import html
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from evor.files import atomic_path

ACCENT = "#1769c4"  # the search
BASE = "#d9822b"  # the base policy
MUTED = "#8492a3"
WALL = "#2d3a4a"
FLOOR = "#ffffff"

plt.rcParams.update(
    {
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
        "figure.max_open_warning": 0,
    }
)


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, the same bytes for the same picture, whole or not at all; closes it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def figure_html(figure: Figure, caption: str) -> str:
    """A figure as an HTML <figure> with the picture inside the page; closes it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170)
    plt.close(figure)
    return image_html(stream.getvalue(), "png", caption)


def image_html(content: bytes, kind: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/{kind};base64,{data}"><figcaption>{text}</figcaption></figure>'
