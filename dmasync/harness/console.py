"""What is printed for people: colour and bold on a terminal that wants them, plain text elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text


def console(stream: TextIO | None = None, *, file_width: int = 240) -> Console:
    """A console on *stream* (default: standard output), as wide as its terminal; *file_width* columns where it is none.

    ``NO_COLOR`` takes bold away, too: whoever sets it wants no escape sequences.
    """
    chosen = stream or sys.stdout
    return Console(
        file=chosen,
        highlight=False,
        width=None if chosen.isatty() else file_width,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


def counted(number: int, word: str) -> str:
    """``1 run``, ``2,000 runs``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


_GAP = "  "
_INDENT = "    "
_LEAST_NAME = 24
"""Columns that the names of rows need, if most of them are to stand beside their numbers."""


@dataclass(frozen=True)
class Column:
    """A column of :func:`print_table`: names to the left, numbers to the right."""

    name: str
    number: bool = False


def print_table(
    shown: Console, columns: Sequence[Column], rows: Sequence[Sequence[str] | str], styles: Sequence[str] = ()
) -> None:
    """Print *rows* below the names of *columns*, each row in its style; a text among them is a heading.

    Nothing is ever cut. Where the terminal is too narrow, the columns' names break at blanks; then a long name of a row
    has a line of its own; and where that is not enough, each number stands behind the name of its column.
    """
    cells = [row for row in rows if not isinstance(row, str)]
    used = [at for at in range(len(columns)) if not cells or any(row[at] for row in cells)]
    columns = [columns[at] for at in used]
    kept = [row if isinstance(row, str) else [row[at] for at in used] for row in rows]
    styles = styles or [""] * len(rows)
    heads = next((heads for heads in _heads(columns) if fits(shown, columns, kept, heads)), None)
    widths = _widths(columns, kept, heads) if heads else []
    if not heads and (room := _room_for_names(shown, columns, kept)) >= _LEAST_NAME:
        heads = _heads(columns)[-1]
        widths = [room, *_widths(columns, kept, heads)[1:]]
        if cell_len(columns[0].name) <= room:
            heads[0] = [columns[0].name]
    if heads:
        for at in range(max(map(len, heads))):
            lines = [[""] * (max(map(len, heads)) - len(head)) + head for head in heads]
            shown.print(Text(_line([line[at] for line in lines], columns, widths), style="bold"), soft_wrap=True)
    for row, style in zip(kept, styles, strict=True):
        if isinstance(row, str):
            shown.print(Text(row, style=style), soft_wrap=True)
        elif heads:
            if cell_len(row[0]) > widths[0]:
                shown.print(Text(row[0], style=style), soft_wrap=True)
                row = ["", *row[1:]]
            _print_line(shown, _line(row, columns, widths), style)
        else:
            _print_stacked(shown, columns, row, style)


def _print_line(shown: Console, line: str, style: str) -> None:
    """Plain text goes past rich, which takes 40 microseconds a line: much, where there are ten thousand rows."""
    if style or not line.isprintable():
        shown.print(Text(line, style=style), soft_wrap=True)
    else:
        shown.file.write(f"{line}\n")


def fits(
    shown: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str] | str],
    heads: Sequence[Sequence[str]] | None = None,
) -> bool:
    """Whether each of *rows* has room on one line; where there is no terminal they always have."""
    if not shown.is_terminal:
        return True
    widths = _widths(columns, rows, heads or _heads(columns)[-1])
    return sum(widths) + len(_GAP) * (len(widths) - 1) <= shown.width


def _room_for_names(shown: Console, columns: Sequence[Column], rows: Sequence[Sequence[str] | str]) -> int:
    """How wide the first column may be beside the others."""
    others = _widths(columns, rows, _heads(columns)[-1])[1:]
    return shown.width - sum(others) - len(_GAP) * len(others)


def _heads(columns: Sequence[Column]) -> tuple[list[list[str]], list[list[str]]]:
    """The columns' names on one line, and a word a line."""
    return [[column.name] for column in columns], [column.name.split() or [""] for column in columns]


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str] | str], heads: Sequence[Sequence[str]]
) -> list[int]:
    cells = [row for row in rows if not isinstance(row, str)]
    return [
        max([*map(cell_len, heads[at]), *(cell_len(row[at]) for row in cells)], default=0) for at in range(len(columns))
    ]


def _line(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts = []
    for text, column, width in zip(texts, columns, widths, strict=True):
        blanks = " " * (width - cell_len(text))
        parts.append(blanks + text if column.number else text + blanks)
    return _GAP.join(parts).rstrip()


def _print_stacked(shown: Console, columns: Sequence[Column], row: Sequence[str], style: str) -> None:
    names = ", ".join(text for text, column in zip(row, columns, strict=True) if text and not column.number)
    shown.print(Text(names, style=style), soft_wrap=True)
    line = ""
    for text, column in zip(row, columns, strict=True):
        if not (text and column.number):
            continue
        told = f"{column.name} {text}".strip()
        if line and cell_len(_INDENT + line + _GAP + told) > shown.width:
            shown.print(Text(_INDENT + line, style=style), soft_wrap=True)
            line = ""
        line = f"{line}{_GAP}{told}" if line else told
    if line:
        shown.print(Text(_INDENT + line, style=style), soft_wrap=True)
