"""The page of a fleet: boards by kernels, what moved on top, and each cell's nights below."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dmasync.harness.console import counted
from dmasync.harness.judge.words import amount, in_days
from dmasync.harness.report.html import template
from dmasync.harness.runs.facts import INSTRUCTIONS
from dmasync.harness.store.fleet import Cell, Fleet, MovedRow
from dmasync.harness.store.fleet_moves import WEEKS

_MOST_WORST = 5
_MOST_ROWS = 8
_WIDTH, _HEIGHT, _LEFT = 300, 44, 34


@dataclass(frozen=True)
class Mark:
    """A place on the page that leads to another: its class, what stands in it, what it says in words."""

    kind: str
    text: str
    anchor: str
    told: str


@dataclass(frozen=True)
class Line:
    """A board's line in the table."""

    name: str
    anchor: str
    cells: tuple[Mark | None, ...]
    worth: tuple[int, float]
    """What it is sorted by: the least first."""


@dataclass(frozen=True)
class Looked:
    """A cell, and what the page says of it."""

    cell: Cell
    state: int

    @property
    def together(self) -> MovedRow | None:
        """All its rows as one, where that says more than its single rows."""
        one = self.cell.together
        return one if one is not None and (one.ratio > 1 or not self.cell.moved) else None

    @property
    def worst(self) -> float:
        return self.together.ratio if self.together else self.cell.worst


def _looked(fleet: Fleet, cell: Cell) -> Looked:
    together = cell.together.ratio if cell.together else 1.0
    if cell.slower or together > 1:
        state = _SLOWER
    elif fleet.is_silent(cell):
        state = _SILENT
    else:
        state = _FASTER if cell.faster or together < 1 else _CALM
    return Looked(cell, state)


def sentence(fleet: Fleet) -> str:
    """What the page says first, for those who do not open it."""
    return _answer(_lines(fleet))["text"]


def _lines(fleet: Fleet) -> list[Line]:
    anchors, places = _anchors(fleet)
    looked = {place: _looked(fleet, cell) for place, cell in fleet.cells.items()}
    return [_line(looked, board, fleet.kernels, anchors[board], places) for board in fleet.boards]


def _anchors(fleet: Fleet) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The ids on the page of each board, and of each cell."""
    return (
        {name: f"b{number}" for number, name in enumerate(fleet.boards)},
        {place: f"c{number}" for number, place in enumerate(sorted(fleet.cells))},
    )


def fleet_page(fleet: Fleet, percent: float) -> str:
    """The HTML of *fleet*; it needs nothing else."""
    boards, kernels = fleet.boards, fleet.kernels
    anchors, places = _anchors(fleet)
    lines = _lines(fleet)
    moved = sorted((line for line in lines if line.worth[0] < _CALM), key=lambda line: (line.worth, line.name))
    order = sorted((_looked(fleet, cell) for cell in fleet.cells.values()), key=_how_bad)
    return template("fleet.html").render(
        title=f"dma-buf sync cost on {counted(len(boards), 'board')}, {fleet.until:%Y-%m-%d}",
        answer=_answer(lines),
        worst=_worst(order, places),
        days=_whole(fleet.days),
        percent=f"{percent:g}",
        until=f"{fleet.until:%Y-%m-%d %H:%M}",
        rows=counted(sum(cell.rows for cell in fleet.cells.values()), "row"),
        boards=counted(len(boards), "board"),
        kernels=kernels,
        kernels_told=counted(len(kernels), "kernel"),
        weeks=WEEKS,
        damaged=[f"{path}: {reason}" for path, reason in fleet.damaged],
        strip=[_square(line) for line in lines],
        moved_lines=moved,
        calm_lines=[line for line in lines if line.worth[0] >= _CALM],
        cells=[_section(fleet, one, places, anchors) for one in order],
    )


_SLOWER, _SILENT, _FASTER, _CALM = range(4)
_MARKS = {_SLOWER: ("slower", "▲"), _SILENT: ("silent", "\N{EN DASH}"), _FASTER: ("faster", "▼"), _CALM: ("calm", "")}


def _how_bad(one: Looked) -> tuple[int, float, str, str]:
    return one.state, -abs(math.log(one.worst)), one.cell.board, one.cell.kernel


def _line(
    looked: dict[tuple[str, str], Looked],
    board: str,
    kernels: Sequence[str],
    anchor: str,
    places: dict[tuple[str, str], str],
) -> Line:
    cells = [looked.get((board, kernel)) for kernel in kernels]
    worst = min(_how_bad(one)[:2] for one in cells if one is not None)
    marks = tuple(None if one is None else _mark(one, places[board, one.cell.kernel]) for one in cells)
    return Line(board, anchor, marks, worst)


def _mark(one: Looked, anchor: str) -> Mark:
    cell = one.cell
    kind, sign = _MARKS[one.state]
    if one.state == _SILENT:
        last = f"{cell.last:%Y-%m-%d}" if cell.last else "never"
        return Mark(kind, f"{sign} {last[5:]}", anchor, f"last measured {last}")
    if one.state == _CALM:
        return Mark(kind, "=", anchor, f"nothing moved, {counted(cell.rows, 'row')}")
    if one.together:
        told = f"all rows together, over {in_days(one.together.over_days)}"
        return Mark(kind, f"{sign}all {_percent(one.together.ratio)}", anchor, told)
    count = cell.slower if one.state == _SLOWER else cell.faster
    also = f", {counted(cell.faster, 'row')} faster" if one.state == _SLOWER and cell.faster else ""
    number = "all" if count == cell.rows > 1 else count
    return Mark(kind, f"{sign}{number} {_percent(cell.worst)}", anchor, f"{counted(count, 'row')} {kind}{also}")


def _square(line: Line) -> dict[str, str]:
    kind, sign = _MARKS[line.worth[0]]
    told = {"calm": "nothing moved", "silent": "not measured in these days"}.get(kind, f"something got {kind}")
    return {"kind": kind, "mark": sign, "anchor": line.anchor, "name": line.name, "told": told}


def _answer(lines: Sequence[Line]) -> dict[str, str]:
    slower, silent, faster = (
        [line.name for line in sorted(lines, key=lambda line: (line.worth, line.name)) if line.worth[0] == state]
        for state in (_SLOWER, _SILENT, _FASTER)
    )
    told = []
    if slower:
        told.append(f"{len(slower)} of {counted(len(lines), 'board')} got slower: {_some(slower)}")
    if faster:
        told.append(f"{counted(len(faster), 'board')} only got faster: {_some(faster)}")
    if silent:
        told.append(f"{counted(len(silent), 'board')} did not measure everything: {_some(silent)}")
    kind, mark = ("bad", "✘") if slower else ("unknown", "?") if silent else ("good", "✔")
    return {"kind": kind, "mark": mark, "text": ". ".join(told) + "." if told else "Nothing moved on the fleet."}


def _some(names: Sequence[str]) -> str:
    shown = names[: _few(names)]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _few(names: Collection[str]) -> int:
    """How many of *names* are shown: a single one is never "1 more"."""
    return len(names) if len(names) <= _MOST_WORST + 1 else _MOST_WORST


def _worst(order: Sequence[Looked], places: dict[tuple[str, str], str]) -> list[dict[str, str]]:
    """A sentence for each of the boards that got slower most, with the cell that leads there."""
    boards: dict[str, list[Looked]] = {}
    for one in order:
        if one.state == _SLOWER:
            boards.setdefault(one.cell.board, []).append(one)
    lines = []
    for board, cells in list(boards.items())[: _few(boards)]:
        first = cells[0].cell
        kernels = f"on {first.kernel}" if len(cells) == 1 else f"on {len(cells)} kernels"
        together = cells[0].together
        if together:
            over = in_days(together.over_days)
            text = f"all rows together {_percent(together.ratio)} over {over}, {kernels}"
        else:
            rows = sum(one.cell.slower for one in cells)
            row = first.moved[0]
            where = f" on {first.kernel}" if len(cells) > 1 else ""
            furthest = f"{_named(row)} {_percent(row.ratio)} over {in_days(row.over_days)}{where}"
            text = f"{counted(rows, 'row')} slower {kernels}, the furthest {furthest}"
        lines.append({"anchor": places[board, first.kernel], "place": board, "text": text})
    return lines


def _section(
    fleet: Fleet, one: Looked, places: dict[tuple[str, str], str], anchors: dict[str, str]
) -> dict[str, object]:
    cell = one.cell
    rows = [
        {
            "name": _named(row),
            "before": amount(row.before, row.unit),
            "after": f"{amount(row.after, row.unit)}{f' {INSTRUCTIONS}' if row.unit == INSTRUCTIONS else ''}",
            "change": _percent(row.ratio),
            "over": in_days(row.over_days),
            "svg": _row_line(fleet, row),
        }
        for row in cell.moved[:_MOST_ROWS]
    ]
    return {
        "anchor": places[cell.board, cell.kernel],
        "board_anchor": anchors[cell.board],
        "name": f"{cell.board} on {cell.kernel}",
        "rows": rows,
        "more": len(cell.moved) - len(rows),
        "svg": "" if rows else _svg(fleet, cell.nights),
    }


def _row_line(fleet: Fleet, row: MovedRow) -> Markup:
    return _svg(fleet, [(age, value / row.before) for age, value in row.nights]) if row.nights else Markup()


def _svg(fleet: Fleet, nights: Sequence[tuple[int, float]]) -> Markup:
    """A line of *nights* (days before the page's date, factor), at least 5 % high on either side of 1."""
    factors = [factor for _, factor in nights]
    low, high = min(0.95, *factors, 0.95), max(1.05, *factors, 1.05)
    scale = WEEKS * 7

    def x(age: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 4) * (1 - age / scale)

    def y(factor: float) -> float:
        return 4 + (_HEIGHT - 8) * (high - factor) / (high - low)

    points = " ".join(f"{x(age):.0f},{y(factor):.1f}" for age, factor in nights)
    return Markup(  # noqa: S704  # numbers alone
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_percent(low)} to {_percent(high)}">'
        f'<rect class="week" x="{x(fleet.days):.0f}" y="0" width="{x(0) - x(fleet.days) + 4:.0f}" height="{_HEIGHT}"/>'
        f'<line class="base" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(1):.1f}" y2="{y(1):.1f}"/>'
        f'<text x="0" y="11">{_percent(high)}</text><text x="0" y="{_HEIGHT - 3}">{_percent(low)}</text>'
        f'<polyline class="dots" points="{points}"/></svg>'
    )


def _percent(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"x{ratio:.3g}" if ratio >= 2 else f"{percent:+.{0 if abs(percent) >= 1 or not percent else 2}f} %"


def _named(row: MovedRow) -> str:
    short = row.name.rpartition("::")[2] or row.name
    return f"{short} ({row.apart})" if row.apart else short


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number
