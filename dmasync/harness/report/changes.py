"""Where a row's history jumps: change points over runs of the same kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dmasync.harness.judge.compare import exact_allowance
from dmasync.harness.judge.exact import judge_exact
from dmasync.harness.judge.nights.series import judge_series
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import Verdict
from dmasync.harness.runs.reading import Row

_FEWEST = 3
"""Runs on either side of a change by the wall clock."""
_LEVEL = 0.05


def change_points(rows: Sequence[Row], settings: GateSettings) -> list[int]:
    """Indices of the runs at which the row *changed* for good: each is the first run of the new level.

    On the exact clock each run is compared with the one before it, as the gate does it. By the wall, many runs are
    judged as a series; of a few, a change is a split that the rank-sum test (Mann and Whitney) tells apart, corrected
    for the splits tried, and larger than the row's allowance; both parts are then searched again.
    """
    if not rows:
        return []
    if rows[0].is_exact_clock:
        pairs = itertools.pairwise(rows)
        moved = (Verdict.REGRESSED, Verdict.IMPROVED)
        allowance = exact_allowance(rows[0], settings)
        return [
            at
            for at, (before, after) in enumerate(pairs, 1)
            if judge_exact([before], [after], allowance, settings.noisy_percent).verdict in moved
        ]
    medians = [row.median for row in rows]
    told = judge_series(medians, settings.wall(rows[0].fullname).percent)
    if not told.unjudged:
        return [move.begin for move in told.moves]
    growth = 1 + settings.wall(rows[0].fullname).percent / 100
    return sorted(_splits(medians, 0, growth))


def _splits(medians: Sequence[float], offset: int, growth: float) -> list[int]:
    candidates = range(_FEWEST, len(medians) - _FEWEST + 1)
    chances = {at: _chance(medians[:at], medians[at:]) for at in candidates}
    if not chances:
        return []
    best = min(chances, key=lambda at: (chances[at], -_factor(medians[:at], medians[at:])))
    if chances[best] * len(chances) > _LEVEL or _factor(medians[:best], medians[best:]) < growth:
        return []
    before = _splits(medians[:best], offset, growth)
    return [*before, offset + best, *_splits(medians[best:], offset + best, growth)]


def _chance(before: Sequence[float], after: Sequence[float]) -> float:
    from scipy import stats  # type: ignore[import-untyped]  # slow to load, and a run of the exact clock needs none

    return float(stats.mannwhitneyu(before, after).pvalue)


def _factor(before: Sequence[float], after: Sequence[float]) -> float:
    low, high = sorted((sorted(before)[len(before) // 2], sorted(after)[len(after) // 2]))
    return high / low if low else float("inf")
