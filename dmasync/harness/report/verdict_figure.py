"""The picture of the verdicts: candidate over base per row, what moved most on top."""

from __future__ import annotations

import math

from dmasync.harness.judge.verdict import JudgedRow, Judgement, Verdict
from dmasync.harness.judge.words import described, factor
from dmasync.harness.report.drawing import drawing, label, ratio_axis, svg

MOST_VERDICTS = 30
_LOOKS = {
    Verdict.REGRESSED: ("^", "#b34700", "full"),
    Verdict.IMPROVED: ("v", "#3b7a3b", "full"),
    Verdict.SAME: ("o", "#2b2b2b", "none"),
    Verdict.CANNOT_TELL: ("X", "#8a6d00", "none"),
}


def verdict_figure(judgement: Judgement) -> str | None:
    """Ratios with their intervals; None when no row was judged."""
    rows = sorted(
        (row for row in judgement.rows if math.isfinite(row.ratio) and row.ratio > 0), key=_moved, reverse=True
    )
    rows = rows[:MOST_VERDICTS]
    if not rows:
        return None
    with drawing(10, 1.1 + 0.26 * len(rows)) as (figure, (axes,)):
        for verdict, (marker, colour, fill) in _LOOKS.items():
            places = [index for index, row in enumerate(rows) if row.verdict is verdict]
            axes.plot(
                [rows[index].ratio for index in places],
                places,
                marker,
                color=colour,
                fillstyle=fill,
                markersize=8,
                linestyle="none",
                label=f"{verdict.value} ({len(places)} shown)",
            )
        for index, row in enumerate(rows):
            low, high = max(row.low, row.ratio / 100), min(row.high, row.ratio * 100)
            axes.plot([low, high], [index, index], color="#2b2b2b", linewidth=1)
            axes.annotate(
                factor(row),
                (row.ratio, index),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.axvline(1.0, color="#2b2b2b", linewidth=1)
        axes.set_yticks(range(len(rows)), [label(described(row)) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xscale("log")
        ratios = [1.0, *(row.ratio for row in rows)]
        ratio_axis(axes.xaxis, min(ratios), max(ratios))
        axes.margins(x=0.15)
        axes.set_xlabel("candidate / base (1 is no change; to the right costs more)")
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        return svg(figure, "verdicts")


def _moved(row: JudgedRow) -> float:
    return abs(math.log(row.ratio))
