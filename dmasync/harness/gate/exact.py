"""Judge a row of the exact clock: integers are compared, no statistics.

A row whose rounds differ has no exact number. Its quartiles then stand for what it may be, and the verdict is
``cannot tell`` where they leave both answers open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from dmasync.harness.gate.settings import Allowance
from dmasync.harness.gate.verdict import JudgedRow, Verdict
from dmasync.harness.rows_file import Row


@dataclass(frozen=True)
class Counted:
    """Instructions per operation on one side: the middle, and the span it may lie in."""

    middle: Fraction
    least: Fraction
    most: Fraction

    @property
    def spread(self) -> Fraction:
        return self.most - self.least


def counted(rows: Sequence[Row]) -> Counted:
    """The runs of one side as one count; runs that disagree widen the span."""
    middles = sorted(row.instructions(row.median) for row in rows)
    return Counted(
        middles[len(middles) // 2],
        min(middles[0], *(row.instructions(row.q1) for row in rows)),
        max(middles[-1], *(row.instructions(row.q3) for row in rows)),
    )


def judge_exact(base: Sequence[Row], candidate: Sequence[Row], allowance: Allowance) -> JudgedRow:
    """Compare instructions per operation; the rows are one row's runs on either side."""
    a, b = counted(base), counted(candidate)
    allowed = max(a.middle * Fraction(allowance.percent) / 100, Fraction(allowance.instructions))
    least, most = b.least - a.most, b.most - a.least
    if a.middle <= 0 or b.middle <= 0:
        verdict, reason = Verdict.CANNOT_TELL, "nothing was counted"
    elif least > allowed:
        verdict, reason = Verdict.REGRESSED, ""
    elif most < -allowed:
        verdict, reason = Verdict.IMPROVED, ""
    elif -allowed <= least and most <= allowed:
        verdict, reason = Verdict.SAME, ""
    else:
        verdict = Verdict.CANNOT_TELL
        reason = f"not exact: spread {float(a.spread):g} and {float(b.spread):g} instructions"
    return JudgedRow(
        base[0].fullname,
        base[0].facts,
        verdict,
        float(a.middle),
        float(b.middle),
        _ratio(b.middle, a.middle),
        _ratio(b.least, a.most),
        _ratio(b.most, a.least),
        _ratio(a.middle + allowed, a.middle),
        reason,
        float(a.spread),
        float(b.spread),
    )


def _ratio(numerator: Fraction, denominator: Fraction) -> float:
    return float(numerator / denominator) if denominator else float("inf") if numerator else 1.0
