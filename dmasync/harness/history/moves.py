"""What no single night shows: rows whose level rose over the nights since the anchor, by the wall clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median

from dmasync.harness.judge.match import comparable_facts
from dmasync.harness.judge.nights.series import Move, SeriesJudgement, judge_series
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.runs.reading import Row, Run

MOST_NIGHTS = 120


def with_moves(
    judgement: Judgement,
    nights: Sequence[Run],
    settings: GateSettings,
    since: Mapping[str, datetime] | None = None,
) -> Judgement:
    """*judgement* of the last of *nights*, with the rows whose level rose over them as regressed.

    *since* has, by full name, the moment from which a row is looked at, where that is later than the first night. As
    the anchor, a series only adds regressions: a level that nobody can tell leaves the night's own verdict as it is.
    """
    tonight = nights[-1]
    blind: list[float] = []

    def judged(row: JudgedRow) -> JudgedRow:
        last = tonight.rows[row.fullname]
        if last.is_exact_clock or row.verdict is Verdict.REGRESSED:
            return row
        series = _series(last, nights, (since or {}).get(row.fullname))
        percent = settings.wall(row.fullname).percent
        told = judge_series([one.median for _, one in series], percent)
        growth = 1 + percent / 100
        if told.unjudged:
            return row
        if told.visible > 2 * percent / 100 + 1:
            blind.append(told.visible)
        rises = [move for move in told.moves if move.ratio > 1]
        # Off the first level, or off a lower one that it had since; also by steps each of which is too small to tell.
        base = min([told.first_level, *(move.before for move in rises[-1:])])
        if told.level < base * growth:
            return row
        return _risen(row, told, base, rises[-1] if rises else None, [run for run, _ in series])

    rows = [judged(row) for row in judgement.rows]
    warnings = list(judgement.warnings)
    if blind:
        warnings.append(
            f"{len(blind)} rows are noisy from night to night: their history would not show a rise below "
            f"{(median(blind) - 1) * 100:.0f} % within a week"
        )
    return replace(judgement, rows=rows, warnings=warnings)


def _series(last: Row, nights: Sequence[Run], since: datetime | None) -> list[tuple[Run, Row]]:
    """The nights that have the row of *last* with the same facts, from *since* on."""
    facts = comparable_facts(last.facts)
    return [
        (run, row)
        for run in nights
        if (row := run.rows.get(last.fullname)) is not None
        and comparable_facts(row.facts) == facts
        and not (since is not None and run.moment is not None and run.moment < since)
    ]


def _risen(row: JudgedRow, told: SeriesJudgement, base: float, rise: Move | None, runs: Sequence[Run]) -> JudgedRow:
    ratio = told.level / base
    if rise is None:
        how = f"rose since {_date(runs[0])} in steps too small to tell"
    elif rise.is_creep:
        how = f"crept from {_date(runs[rise.begin])} to {_date(runs[rise.end])} and stayed"
    else:
        how = f"rose on {_date(runs[rise.begin])} and stayed"
    return replace(
        row,
        verdict=Verdict.REGRESSED,
        base=base * 1e9,
        candidate=told.level * 1e9,
        ratio=ratio,
        low=ratio / told.visible,
        high=ratio * told.visible,
        reason=f"{how}, over {len(runs)} nights",
    )


def _date(run: Run) -> str:
    return run.moment.date().isoformat() if run.moment else "an unknown date"
