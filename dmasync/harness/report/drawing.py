"""What all pictures have in common: inline SVG, no colour that carries meaning alone, names taken as plain text."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

# Distinct in grey too: each line has a marker and a dash of its own, each area a hatch.
COLOURS = ("#0b4f8a", "#b34700", "#2b2b2b", "#5b3f8c", "#3b7a3b", "#8a6d00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", "--", "-.", ":")

_LONGEST_LABEL = 62
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and needs no font in the page
    "svg.hashsalt": "dmasync",  # the same runs give the same page
    "text.parse_math": False,  # a dollar in a row's name is a dollar
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#cccccc",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
}


@contextmanager
def drawing(width: float, height: float, columns: int = 1, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of *width* by *height* inches and its axes in reading order."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="matplotlib")
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # No pyplot: it would choose a backend for the whole process and keep the figure.
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def svg(figure: Figure, name: str) -> str:
    """*figure* as an ``<svg>`` element for the page; *name* (a word) keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{name}-", text)


def label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """A row's name, on several lines where it is too long for an axis: what is cut off cannot be read."""
    return "\n".join(textwrap.wrap(text, longest, break_on_hyphens=False))


def ratio_axis(axis: Axis, lowest: float, highest: float) -> None:
    """Ticks of a logarithmic *axis* as factors: x1, x10; in between too where it spans less than a factor of 5."""
    words = FuncFormatter(lambda value, _: f"x{value:g}")
    axis.set_major_formatter(words)
    axis.set_minor_formatter(NullFormatter() if highest / lowest > 5 else words)
