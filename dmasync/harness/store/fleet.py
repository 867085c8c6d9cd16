"""What the page of a fleet shows: each board on each kernel, what moved there, and its last weeks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dmasync.harness.store.fleet_moves import WEEKS, moves
from dmasync.harness.store.parquet_files import quoted
from dmasync.harness.store.queries import KIND, StoreReader
from dmasync.harness.store.schema import TOGETHER

_MOST_ROWS = 3
"""Of a cell, whose nights are drawn one by one."""

NIGHTS = f"""
SELECT board, kernel, row, {KIND}, floor(epoch({{until}} - moment) / 86400)::INTEGER AS age, median(value) AS value
FROM {{table}} WHERE {{where}} AND value > 0 AND (board, kernel, row) IN (VALUES {{wanted}})
GROUP BY ALL ORDER BY age DESC
"""  # noqa: S608
_KIND = tuple(KIND.replace('"', "").split(", "))


@dataclass(frozen=True)
class MovedRow:
    """A row of a cell that is off what it was. ``nights`` are (days before the page's date, value).

    ``apart`` says what tells it from a row of the same name that moved as well: another clock, another Python.
    """

    name: str
    unit: str
    before: float
    after: float
    over_days: float
    nights: tuple[tuple[int, float], ...] = ()
    apart: str = ""

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass
class Cell:
    """A board on a kernel. ``nights`` are (days before the page's date, cost of all rows relative to their mean)."""

    board: str
    kernel: str
    nights: list[tuple[int, float]] = field(default_factory=list)
    rows: int = 0
    last: datetime | None = None
    moved: list[MovedRow] = field(default_factory=list)
    together: MovedRow | None = None
    """All rows, where they moved together and none shows it by itself."""

    @property
    def slower(self) -> int:
        return sum(row.ratio > 1 for row in self.moved)

    @property
    def faster(self) -> int:
        return sum(row.ratio < 1 for row in self.moved)

    @property
    def worst(self) -> float:
        """The ratio that is furthest from 1, slower ones first; 1 where nothing moved."""
        rising = [row.ratio for row in self.moved if row.ratio > 1]
        return max(rising) if rising else min((row.ratio for row in self.moved), default=1.0)


@dataclass(frozen=True)
class Fleet:
    """All cells, the newest moment of the store, and the files that were passed over."""

    until: datetime
    days: float
    cells: Mapping[tuple[str, str], Cell]
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def boards(self) -> list[str]:
        return sorted({board for board, _ in self.cells})

    @property
    def kernels(self) -> list[str]:
        return sorted({kernel for _, kernel in self.cells}, key=_version)

    def is_silent(self, cell: Cell) -> bool:
        """Whether nothing was measured in the days that the page is about."""
        return cell.last is None or self.until - cell.last > timedelta(days=self.days)


def _version(kernel: str) -> list[tuple[int, str]]:
    """6.9 before 6.12."""
    parts = kernel.replace("-", ".").replace("+", ".").split(".")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def fleet(reader: StoreReader, days: float, percent: float, exact_percent: float = 0.0) -> Fleet | None:
    """The fleet as it was in the last :data:`WEEKS` weeks of the store; None where that is empty."""
    until = reader.newest()
    if until is None:
        return None
    moment = f"TIMESTAMP {quoted(until.isoformat(sep=' '))}"
    recent = f"moment > {moment} - INTERVAL {WEEKS * 7} DAY"
    cells: dict[tuple[str, str], Cell] = {}
    looked = moves(reader, days, percent, exact_percent, until)
    for place, line in looked.lines.items():
        cells[place] = Cell(*place, list(line.nights), line.rows, line.last)
    answered = [told for told in looked.told.as_objects() if (told["board"], told["kernel"]) in cells]
    moved = [told for told in answered if told["row"] != TOGETHER]
    for told in answered:
        if told["row"] == TOGETHER:
            cells[told["board"], told["kernel"]].together = _moved_row(told)
    wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for told in moved:  # the furthest first
        names = wanted[(told["board"], told["kernel"])]
        if len(names) < _MOST_ROWS and told["row"] not in names:
            names.append(told["row"])
    nights = _nights(reader, recent, moment, wanted)
    same_name: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for told in moved:
        same_name[_name(told)].append(told)
    for told in moved:
        own = tuple(nights.get((*_name(told), *_kind(told)), ()))
        row = _moved_row(told, own, _apart(told, same_name[_name(told)]))
        cells[told["board"], told["kernel"]].moved.append(row)
    for cell in cells.values():
        cell.moved.sort(key=lambda row: (row.ratio < 1, -abs(math.log(row.ratio))))
    return Fleet(until, days, cells, looked.told.damaged)


def _moved_row(told: Mapping[str, Any], nights: tuple[tuple[int, float], ...] = (), apart: str = "") -> MovedRow:
    levels = told["before"], told["after"]
    return MovedRow(told["row"], told["unit"] or "", *levels, told["over_days"], nights, apart)


def _name(told: Mapping[str, Any]) -> tuple[str, ...]:
    return told["board"], told["kernel"], told["row"]


def _kind(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(told[name] for name in _KIND)


def _apart(told: Mapping[str, Any], same_name: Sequence[Mapping[str, Any]]) -> str:
    words = {
        "clock": f"{told['clock']} clock",
        "python": f"Python {told['python']}",
        "compiled": "compiled core" if told["compiled"] else "plain core",
        "arch": told["arch"],
        "target": told["target"],
    }
    return ", ".join(str(word) for name, word in words.items() if len({other[name] for other in same_name}) > 1)


def _nights(
    reader: StoreReader, recent: str, until: str, wanted: Mapping[tuple[str, str], Sequence[str]]
) -> dict[tuple[Any, ...], list[tuple[int, float]]]:
    """By board, kernel, row and kind."""
    triples: Iterable[str] = (
        f"({quoted(board)}, {quoted(kernel)}, {quoted(row)})"
        for (board, kernel), rows in wanted.items()
        for row in rows
    )
    found: dict[tuple[Any, ...], list[tuple[int, float]]] = defaultdict(list)
    if listed := ", ".join(triples):
        for told in reader.ask(NIGHTS, recent, until=until, wanted=listed).as_objects():
            found[(*_name(told), *_kind(told))].append((told["age"], told["value"]))
    return found
