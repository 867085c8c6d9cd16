"""Judge a row of the exact clock: integers are compared, no statistics.

A row whose rounds differ has no exact number. Its quartiles then stand for what it may be: it has changed when they
are apart, and is the same when the middle stayed within the spread that the base has itself. That is said with the
verdict, since smaller changes stay unseen. Where the base spreads widely, or the candidate much more than the base,
the verdict is ``cannot tell``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from dmasync.harness.judge.settings import Allowance
from dmasync.harness.judge.verdict import JudgedRow, Verdict
from dmasync.harness.runs.reading import Row

_USUAL_SPREAD = 3
"""How much more than the base a candidate may spread without being a change of its own."""


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
    told = [row.instructions for row in rows]
    middles = sorted(one.middle for one in told)
    return Counted(
        middles[len(middles) // 2],
        min(middles[0], *(one.q1 for one in told)),
        max(middles[-1], *(one.q3 for one in told)),
    )


def judge_exact(base: Sequence[Row], candidate: Sequence[Row], allowance: Allowance, noisy: float = 0.0) -> JudgedRow:
    """Compare instructions per operation; the rows are one row's runs on either side.

    *noisy* is how much of its cost, in percent, a row may spread and still be judged by its middle.
    """
    a, b = counted(base), counted(candidate)
    allowed = max(a.middle * Fraction(allowance.percent) / 100, Fraction(allowance.instructions))
    verdict, reason = _verdict(a, b, allowed, a.middle * Fraction(noisy) / 100)
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


def _verdict(a: Counted, b: Counted, allowed: Fraction, noisy: Fraction) -> tuple[Verdict, str]:
    least, most = b.least - a.most, b.most - a.least
    if a.middle <= 0 or b.middle <= 0:
        return Verdict.CANNOT_TELL, "nothing was counted"
    if least > allowed:
        return Verdict.REGRESSED, ""
    if most < -allowed:
        return Verdict.IMPROVED, ""
    if -allowed <= least and most <= allowed:
        return Verdict.SAME, ""
    spreads = f"not exact, spread {float(a.spread):,.6g} and {float(b.spread):,.6g} instructions"
    # The base's own spread is what the row is known to do. A candidate that spreads more is a change of its own.
    usual = a.spread <= noisy and b.spread <= allowed + _USUAL_SPREAD * a.spread
    if usual and abs(b.middle - a.middle) <= allowed + a.spread:
        return Verdict.SAME, f"{spreads}: less than that stays unseen"
    return Verdict.CANNOT_TELL, spreads


def _ratio(numerator: Fraction, denominator: Fraction) -> float:
    return float(numerator / denominator) if denominator else float("inf") if numerator else 1.0
