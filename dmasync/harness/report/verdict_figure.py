"""The picture of the verdicts: candidate over base per row, what moved most on top."""

from __future__ import annotations

import math

from dmasync.harness.judge.moved_together import alike, moved
from dmasync.harness.judge.verdict import Judgement, Verdict
from dmasync.harness.judge.words import factor
from dmasync.harness.report.drawing import drawing, label, ratio_axis, svg

MOST_VERDICTS = 30
_NARROW_LABEL = 24
_LOOKS = {
    Verdict.REGRESSED: ("^", "#b34700", "full"),
    Verdict.IMPROVED: ("v", "#3b7a3b", "full"),
    Verdict.SAME: ("o", "#2b2b2b", "none"),
    Verdict.CANNOT_TELL: ("X", "#8a6d00", "none"),
}


def verdict_figure(judgement: Judgement, *, is_narrow: bool = False) -> str | None:
    """Ratios with their intervals, rows that moved alike as one; None when no row was judged.

    *is_narrow*: for a telephone, which shows all of it with its words as large as those around it.
    """
    drawn = [row for row in judgement.rows if math.isfinite(row.ratio) and row.ratio > 0]
    groups = [
        group for verdict in _LOOKS for group in alike((row for row in drawn if row.verdict is verdict), judgement.rows)
    ]
    groups = sorted(groups, key=lambda group: moved(group.rows[0]), reverse=True)[:MOST_VERDICTS]
    if not groups:
        return None
    names = [label(group.name, _NARROW_LABEL) if is_narrow else label(group.name) for group in groups]
    most_lines = max(name.count("\n") for name in names) + 1
    height = len(groups) * max(0.26, 0.1 + 0.15 * most_lines)
    with drawing(4.2 if is_narrow else 10, 1.3 + height) as (figure, (axes,)):
        for verdict, (marker, colour, fill) in _LOOKS.items():
            places = [index for index, group in enumerate(groups) if group.rows[0].verdict is verdict]
            rows = sum(len(groups[index].rows) for index in places)
            axes.plot(
                [groups[index].rows[0].ratio for index in places],
                places,
                marker,
                color=colour,
                fillstyle=fill,
                markersize=8,
                linestyle="none",
                label=f"{verdict.value} ({rows} {'row' if rows == 1 else 'rows'} shown)",
            )
        for index, group in enumerate(groups):
            first = group.rows[0]
            low = max(min(row.low for row in group.rows), first.ratio / 100)
            high = min(max(row.high for row in group.rows), first.ratio * 100)
            axes.plot([low, high], [index, index], color="#2b2b2b", linewidth=1)
            axes.annotate(
                factor(first),
                (first.ratio, index),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.axvline(1.0, color="#2b2b2b", linewidth=1)
        axes.set_yticks(range(len(groups)), names)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xscale("log")
        ratios = [1.0, *(group.rows[0].ratio for group in groups)]
        ratio_axis(axes.xaxis, min(ratios), max(ratios))
        axes.margins(x=0.45 if is_narrow else 0.15)
        axes.set_xlabel(f"candidate / base{'' if is_narrow else ' (1 is no change; to the right costs more)'}")
        figure.legend(loc="outside upper center", ncols=1 if is_narrow else 4, frameon=False)
        return svg(figure, "narrow" if is_narrow else "verdicts")
