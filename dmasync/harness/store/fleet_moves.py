"""What moved in a fleet, in one answer for the commands and the page: in the last days, and over the shown weeks.

Two questions, because neither sees all: the last days against those before show a step within a few nights, and are
blind to a row that creeps, because the days before crept as well. Over the weeks, their first third against their last
shows what rose or fell and did not come back. What no row shows, because each is too noisy, all rows of a board and
kernel together may.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import numpy

from dmasync.harness.judge.nights.series import judge_series
from dmasync.harness.store.board_lines import Line, lines
from dmasync.harness.store.compared import FEWEST_BEFORE, over_weeks, recently
from dmasync.harness.store.night_files import microseconds, read_nights
from dmasync.harness.store.nights import KEY, Nights
from dmasync.harness.store.queries import Answer, StoreReader
from dmasync.harness.store.schema import TOGETHER

WEEKS = 13
"""Shown, and looked at for what crept."""
BEFORE = 4
"""How many times as long as the days that are looked at are the days that they are compared with."""
_KEY_COLUMNS = tuple(KEY.replace('"', "").split(", "))
_COLUMNS = (*_KEY_COLUMNS, "before", "after", "ratio", "nights_before", "nights_after", "over_days")


@dataclass(frozen=True)
class Moves:
    """``told`` is what moved, the furthest first, and ``lines`` are each board's and kernel's nights."""

    told: Answer
    lines: Mapping[tuple[str, str], Line]


def moves(
    reader: StoreReader, days: float, percent: float, exact_percent: float = 0.0, until: datetime | None = None
) -> Moves:
    """What is off what it was: the median of the last *days* before *until* off that of the four times as many days
    before, or the level now off that at the begin of the last :data:`WEEKS`; with the wider of both, and a rise before
    a fall.

    Off is: by more than *percent* (on the exact clock *exact_percent*), and by more than its own nights, and those of
    its neighbours, explain. Where no row rose, the row :data:`TOGETHER` stands for all that did so together.
    *until* is the store's newest moment unless given, in UTC and without a zone.
    """
    newest = until or reader.newest()
    since = newest and newest - timedelta(days=max((1 + BEFORE) * days, WEEKS * 7))
    stored = newest and since and read_nights(reader, since, newest)
    if not newest or not stored:
        return Moves(Answer((), [], ()), {})
    asked = _Asked(days, percent, exact_percent, microseconds(newest))
    looked = [asked.of(stored.part(series)) for series in stored.parts()]
    names = stored.cell_names()
    drawn = {names[cell]: line for _, lines in looked for cell, line in lines}
    told = [one for found, _ in looked for one in found]
    keys = stored.keys([number for number, _ in told])
    widest: dict[int, dict[str, Any]] = {}
    for number, one in told:
        if number not in widest or _weight(one) > _weight(widest[number]):
            widest[number] = {**keys[number], **one}
    together = _together(drawn, list(widest.values()), days, percent)
    ordered = sorted([*widest.values(), *together], key=_order)
    rows = [tuple(one[name] for name in _COLUMNS) for one in ordered]
    return Moves(Answer(_COLUMNS, rows, stored.damaged), drawn)


_Told = list[tuple[int, dict[str, Any]]]
"""Numbers of series, and what is told of each."""


@dataclass(frozen=True)
class _Asked:
    """Over how many days, what is told at least, and until when, in microseconds since 1970."""

    days: float
    percent: float
    exact_percent: float
    until: int

    @property
    def middle(self) -> int:
        return self.until - _microseconds_of(self.days)

    def of(self, nights: Nights) -> tuple[_Told, list[tuple[int, Line]]]:
        """What moved in a part of the fleet, and the lines of its cells."""
        shown = nights.since(self.until - _microseconds_of(WEEKS * 7))
        return [*self._recent(nights), *self._over_weeks(shown)], list(lines(shown, self.until))

    def _recent(self, nights: Nights) -> _Told:
        compared = recently(nights, self.until - _microseconds_of((1 + BEFORE) * self.days), self.middle)
        off = compared.is_off(nights, math.log1p(self.exact_percent / 100), math.log1p(self.percent / 100))
        off &= nights.exact | (compared.nights_before >= FEWEST_BEFORE)
        found = []
        for one in numpy.flatnonzero(off):
            before, after = math.exp(compared.before[one]), math.exp(compared.after[one])
            counts = int(compared.nights_before[one]), int(compared.nights_after[one])
            found.append((int(nights.numbers[one]), _told(before, after, *counts, self.days)))
        return found

    def _over_weeks(self, nights: Nights) -> _Told:
        compared = over_weeks(nights)
        # Half of the least that is told will do here: the thirds of a row that creeps are two thirds of its rise apart.
        off = compared.is_off(nights, 0.0, math.log1p(self.percent / 100) / 2)
        found = []
        for one in numpy.flatnonzero(off & (nights.last_moments > self.middle)):
            own = slice(nights.begins[one], nights.begins[one] + nights.counts[one])
            rose = bool(compared.after[one] > compared.before[one])
            ends = self._ends(numpy.exp(nights.costs[own]).tolist(), rose, exact=bool(nights.exact[one]))
            if ends:
                before, after, count = ends
                over_days = float(nights.moments[own][-1] - nights.moments[own][0]) / 86_400e6
                found.append((int(nights.numbers[one]), _told(before, after, count, count, over_days)))
        return found

    def _ends(self, costs: list[float], rose: bool, *, exact: bool) -> tuple[float, float, int] | None:
        """A row's levels over the weeks; None where its nights do not show a move, or it is too small."""
        ends = _ends(costs, self.days)
        if exact:
            # Each night is the truth there, unless the last one alone is off.
            if (costs[-1] > costs[0]) == rose and costs[-1] != costs[0]:
                ends = (costs[0], costs[-1], 1)
        else:
            series = judge_series(costs, self.percent)
            if series.unjudged or not (
                series.level > series.first_level if rose else series.level < series.first_level
            ):
                return None
        before, after, _ = ends
        least = 1 + (self.exact_percent if exact else self.percent) / 100
        is_told = (after > before) == rose and max(after / before, before / after) > least + 1e-9
        return ends if is_told else None


def _told(before: float, after: float, nights_before: int, nights_after: int, over_days: float) -> dict[str, Any]:
    # Costs were logarithms: what were whole instructions are so again.
    values = (*(float(f"{cost:.12g}") for cost in (before, after)), after / before)
    values = (*values, nights_before, nights_after, over_days)
    return dict(zip(_COLUMNS[len(_KEY_COLUMNS) :], values, strict=True))


def _ends(costs: Sequence[float], days: float) -> tuple[float, float, int]:
    """The level of the first nights and of the last, and how many nights each is the median of."""
    nights = max(1, min(round(days), len(costs) // 3))
    return median(costs[:nights]), median(costs[-nights:]), nights


def _together(
    lines: Mapping[tuple[str, str], Line], found: Sequence[Mapping[str, Any]], days: float, percent: float
) -> list[dict[str, Any]]:
    """The boards and kernels all rows of which moved together over the weeks, where no row shows it by itself."""
    moved = {(one["board"], one["kernel"]) for one in found}
    slower = {(one["board"], one["kernel"]) for one in found if one["ratio"] > 1}
    together = []
    for (board, kernel), line in lines.items():
        costs = [cost for _, cost in line.nights]
        if max(costs) / min(costs) <= 1 + percent / 100:  # no two levels can be further apart
            continue
        series = judge_series(costs, percent)
        ratio = math.nan if series.unjudged else series.level / series.first_level
        if not max(ratio, 1 / ratio) > 1 + percent / 100 or (board, kernel) in (slower if ratio > 1 else moved):
            continue
        before, after, count = _ends(costs, days)
        if (after > before) != (ratio > 1):
            before, after = series.first_level, series.level
        own = (board, kernel, TOGETHER, *[None] * 6, before, after, after / before, count, count)
        together.append(dict(zip(_COLUMNS, (*own, float(line.nights[0][0] - line.nights[-1][0])), strict=True)))
    return together


def _weight(told: Mapping[str, Any]) -> tuple[bool, float]:
    return told["ratio"] > 1, round(abs(math.log(told["ratio"])), 9)


def _order(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return -abs(math.log(told["ratio"])), *(str(told[name]) for name in _KEY_COLUMNS)


def _microseconds_of(days: float) -> int:
    return timedelta(days=days) // timedelta(microseconds=1)
