"""What moved in a fleet, asked in SQL and judged series by series: slow, and what the fast answer is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from dmasync.harness.judge.nights.series import judge_series
from dmasync.harness.store.parquet_files import quoted
from dmasync.harness.store.queries import KIND, Answer, StoreReader
from dmasync.harness.store.schema import TOGETHER

WEEKS = 13
"""Shown, and looked at for what crept."""
BEFORE = 4
"""How many times as long as the days that are looked at are the days that they are compared with."""
FEWEST_BEFORE = 5
"""Nights, by the wall clock: fewer do not tell their noise."""
_SIGMAS = 5.0
"""Of the difference of both medians: a fleet has a hundred thousand rows, and each is a chance to be wrong."""
_OF_A_MEDIAN = 1.2533
"""How much wider a median spreads than a mean."""
_RANGE = 1.128
"""The mean difference of two neighbours, in standard deviations."""

_KEY = f"board, kernel, row, {KIND}"
_NIGHTS = f"""
    SELECT {_KEY}, moment, ln(value) AS cost, moment >= {{middle}} AS late,
        abs(ln(value) - lag(ln(value)) OVER series) AS step, row_number() OVER series AS place,
        count(*) OVER (PARTITION BY {_KEY}) AS nights
    FROM {{table}} WHERE {{where}} AND value > 0
    WINDOW series AS (PARTITION BY {_KEY} ORDER BY moment)
"""  # noqa: S608  # a template
# By the wall clock a busy week is noise, which the quartiles hold. The exact clock has no busy weeks: there the
# quartiles of a row that creeps are its creep, and the differences from night to night are not.
RECENT = f"""
WITH nights AS ({_NIGHTS}), compared AS (
    SELECT {_KEY},
        quantile_cont(cost, [0.25, 0.5, 0.75]) FILTER (NOT late) AS quarters, median(cost) FILTER (late) AS after,
        avg(step) FILTER (NOT late) / {_RANGE} AS ranged,
        count(*) FILTER (NOT late) AS nights_before, count(*) FILTER (late) AS nights_after
    FROM nights GROUP BY ALL
), spread AS (
    SELECT *, quarters[2] AS before, (quarters[3] - quarters[1]) / 1.349 AS wide FROM compared
), own AS (
    SELECT *, CASE WHEN clock = 'exact' THEN least(wide, ranged) ELSE wide END AS noise FROM spread
), others AS (
    SELECT board, kernel, clock, median(noise) AS usual FROM own GROUP BY ALL
), alike AS (
    SELECT own.*, greatest(noise, usual) AS least FROM own JOIN others USING (board, kernel, clock)
)
SELECT {_KEY}, exp(before) AS before, exp(after) AS after, exp(after - before) AS ratio, nights_before, nights_after
FROM alike
WHERE nights_before > 0 AND nights_after > 0
    AND abs(after - before) > CASE WHEN clock = 'exact' THEN ln({{exact_factor}}) ELSE ln({{factor}}) END + 1e-9
    AND (clock = 'exact' OR nights_before >= {FEWEST_BEFORE})
    AND abs(after - before) > {_SIGMAS} * {_OF_A_MEDIAN} * least * sqrt(1 / nights_before + 1 / nights_after)
"""  # noqa: S608
# Half of the least that is told will do here: the thirds of a row that creeps are two thirds of its rise apart.
OVER_WEEKS = f"""
WITH nights AS ({_NIGHTS}), compared AS (
    SELECT {_KEY}, any_value(nights) AS nights, max(moment) AS last, list(cost ORDER BY place) AS costs,
        (epoch(max(moment)) - epoch(min(moment))) / 86400 AS over_days, avg(step) / {_RANGE} AS noise,
        median(cost) FILTER (place <= nights // 3) AS early,
        median(cost) FILTER (place > nights - nights // 3) AS later
    FROM nights GROUP BY {_KEY}
), others AS (
    SELECT board, kernel, clock, median(noise) AS usual FROM compared GROUP BY ALL
)
SELECT {_KEY}, costs, over_days, later > early AS rose
FROM compared JOIN others USING (board, kernel, clock)
WHERE nights >= 3 AND last >= {{middle}}
    AND abs(later - early) > CASE WHEN clock = 'exact' THEN 0 ELSE ln({{factor}}) / 2 END + 1e-9
    AND abs(later - early) > {_SIGMAS} * {_OF_A_MEDIAN} * greatest(noise, usual) * sqrt(2 / (nights // 3))
"""  # noqa: S608
CELLS = f"""
WITH nights AS (
    SELECT board, kernel, row, {KIND}, moment, ln(value) AS cost,
        floor(epoch({{until}} - moment) / 86400)::INTEGER AS age
    FROM {{table}} WHERE {{where}} AND value > 0
), based AS (SELECT board, kernel, row, {KIND}, avg(cost) AS base FROM nights GROUP BY ALL)
SELECT board, kernel, age, exp(avg(cost - base)) AS cost, count(DISTINCT row) AS rows, max(moment) AS moment
FROM nights JOIN based USING (board, kernel, row, {KIND}) GROUP BY board, kernel, age ORDER BY board, kernel, age DESC
"""  # noqa: S608


@dataclass(frozen=True)
class Moves:
    """``told`` is what moved, the furthest first, and ``cells`` are each board's and kernel's nights."""

    told: Answer
    cells: Answer


_COLUMNS = (
    "board", "kernel", "row", *KIND.replace('"', "").split(", "), "before", "after", "ratio",
    "nights_before", "nights_after", "over_days",
)  # fmt: skip


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
    if newest is None:
        return Moves(Answer((), [], ()), Answer((), [], ()))
    middle = f"({_moment(newest - timedelta(days=days))} + INTERVAL 1 MICROSECOND)"
    factor, exact_factor = (str(1 + least / 100) for least in (percent, exact_percent))
    recent = reader.ask(
        RECENT, _since(newest, (1 + BEFORE) * days), middle=middle, factor=factor, exact_factor=exact_factor
    )
    shown = _since(newest, WEEKS * 7)
    crept = reader.ask(OVER_WEEKS, shown, middle=middle, factor=factor)
    cells = reader.ask(CELLS, shown, until=_moment(newest))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for told in [
        *({**one, "over_days": days} for one in recent.as_objects()),
        *filter(None, (_over_weeks(one, days, percent, exact_percent) for one in crept.as_objects())),
    ]:
        key = tuple(told[name] for name in _COLUMNS[:9])
        if key not in found or _weight(told) > _weight(found[key]):
            found[key] = told
    together = _together(cells, list(found.values()), days, percent)
    ordered = sorted([*found.values(), *together], key=_order)
    rows = [tuple(told[name] for name in _COLUMNS) for told in ordered]
    damaged = tuple(dict.fromkeys([*recent.damaged, *crept.damaged, *cells.damaged]))
    return Moves(Answer(_COLUMNS, rows, damaged), cells)


def _over_weeks(told: Mapping[str, Any], days: float, percent: float, exact_percent: float) -> dict[str, Any] | None:
    """A row's move over the weeks; None where its nights do not show one, or it is too small."""
    costs, exact = [math.exp(cost) for cost in told["costs"]], told["clock"] == "exact"
    ends = _ends(costs, days)
    if exact:
        first_and_last = (costs[0], costs[-1], 1)
        # Each night is the truth there, unless the last one alone is off.
        ends = first_and_last if (costs[-1] > costs[0]) == told["rose"] and costs[-1] != costs[0] else ends
    else:
        series = judge_series(costs, percent)
        if series.unjudged or not (
            series.level > series.first_level if told["rose"] else series.level < series.first_level
        ):
            return None
    before, after, nights = ends
    least = 1 + (exact_percent if exact else percent) / 100
    if (after > before) != told["rose"] or max(after / before, before / after) <= least + 1e-9:
        return None
    return {
        **told, "before": before, "after": after, "ratio": after / before, "nights_before": nights,
        "nights_after": nights, "over_days": told["over_days"],
    }  # fmt: skip


def _ends(costs: Sequence[float], days: float) -> tuple[float, float, int]:
    """The level of the first nights and of the last, and how many nights each is the median of."""
    nights = max(1, min(round(days), len(costs) // 3))
    return median(costs[:nights]), median(costs[-nights:]), nights


def _together(cells: Answer, found: Sequence[Mapping[str, Any]], days: float, percent: float) -> list[dict[str, Any]]:
    """The boards and kernels all rows of which moved together over the weeks, where no row shows it by itself."""
    nights: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for told in cells.as_objects():
        nights.setdefault((told["board"], told["kernel"]), []).append((told["age"], told["cost"]))
    moved = {(one["board"], one["kernel"]) for one in found}
    slower = {(one["board"], one["kernel"]) for one in found if one["ratio"] > 1}
    together = []
    for (board, kernel), line in nights.items():
        costs = [cost for _, cost in line]
        series = judge_series(costs, percent)
        ratio = math.nan if series.unjudged else series.level / series.first_level
        if not max(ratio, 1 / ratio) > 1 + percent / 100 or (board, kernel) in (slower if ratio > 1 else moved):
            continue
        before, after, count = _ends(costs, days)
        if (after > before) != (ratio > 1):
            before, after = series.first_level, series.level
        own = (board, kernel, TOGETHER, *[None] * 6, before, after, after / before, count, count)
        together.append(dict(zip(_COLUMNS, (*own, float(line[0][0] - line[-1][0])), strict=True)))
    return together


def _weight(told: Mapping[str, Any]) -> tuple[bool, float]:
    return told["ratio"] > 1, round(abs(math.log(told["ratio"])), 9)


def _order(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return -abs(math.log(told["ratio"])), told["board"], told["kernel"], told["row"]


def _since(newest: datetime, days: float) -> str:
    return f"moment > {_moment(newest - timedelta(days=days))} AND moment <= {_moment(newest)}"


def _moment(moment: datetime) -> str:
    return f"TIMESTAMP {quoted(moment.isoformat(sep=' '))}"
