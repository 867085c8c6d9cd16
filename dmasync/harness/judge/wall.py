"""Judge wall rows: a confidence interval of the ratio of medians, honest about a machine that drifts.

The unit that is resampled is the block, not the round: the rounds of one run all saw the machine's mood of that
minute, so that a thousand of them say no more about the next run than one. Two ways, by what was measured:

- **Interleaved** (A B B A, at least four neighbouring pairs, as many A first as B first): each pair of
  neighbours gives one log ratio; drift that is slow against a run cancels within the pair, a trend
  cancels over the pairs.
- **Few runs** (a file a side is the usual case): the spread of the segments of a run tells the drift *within*
  it; drift *between* the runs shows in no number of that row. How far the other rows of these runs moved
  stands for it, and where there are not enough of them, ``drift_percent`` does.

Intervals are the hull of a bootstrap's and Student's t: with few blocks the first is too narrow.
Levels follow Holm over all rows of the comparison, so that ``false_alarms`` holds for all of them together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from dmasync.harness.judge.blocks import Timed, few_runs, interleaved
from dmasync.harness.judge.settings import GateSettings
from dmasync.harness.judge.verdict import JudgedRow, Verdict

_NEIGHBOURS = 3
"""Other rows needed before their movement can stand for the machine's drift."""
_MOST_ROWS = 0.9
"""The part of the rows whose swing within a run stays below the drift that is assumed between runs."""
_MAD_TO_SIGMA = 1.4826
_DRAWS = 4999
"""Of a bootstrap."""


def _above(distance: float, freedom: float) -> float:
    """The probability of more than *distance* in Student's distribution."""
    # Here, as it takes time to load and the exact clock needs none; scipy.stats, with the same numbers, takes a second.
    from scipy import special  # type: ignore[import-untyped]

    return float(special.stdtr(freedom, -distance))


def _reach(chance: float, freedom: float) -> float:
    """The distance that Student's distribution exceeds with probability *chance*."""
    from scipy import special

    return -float(special.stdtrit(freedom, chance))


@dataclass(frozen=True)
class WallRow:
    """One row on both sides, each run with its place in the order of measurement."""

    base: Sequence[Timed]
    candidate: Sequence[Timed]

    @property
    def fullname(self) -> str:
        return self.base[0].row.fullname


@dataclass(frozen=True)
class Estimate:
    """The log of the ratio of medians, its standard error, and the bootstrap's draws of it."""

    log_ratio: float
    error: float
    freedom: float
    draws: NDArray[numpy.float64]
    drift_cancels: bool
    swing: float = 0.0
    """How far the row moved within its runs, as a log: the larger of both sides."""

    def chance(self) -> float:
        """The probability of a ratio this far from 1 where nothing changed; the larger of both methods'."""
        if self.error == 0.0:
            return 0.0 if self.log_ratio else 1.0
        student = 2 * _above(abs(self.log_ratio) / self.error, self.freedom)
        below = float(numpy.mean(self.draws <= 0)) if self.draws.size else 0.0
        above = float(numpy.mean(self.draws >= 0)) if self.draws.size else 0.0
        return min(1.0, max(student, 2 * min(below, above)))

    def interval(self, level: float) -> tuple[float, float]:
        """Bounds of the log ratio that miss it with probability *level*."""
        reach = _reach(level / 2, self.freedom) * self.error
        low, high = self.log_ratio - reach, self.log_ratio + reach
        if self.draws.size:
            quantiles = numpy.quantile(self.draws, (level / 2, 1 - level / 2))
            low, high = min(low, float(quantiles[0])), max(high, float(quantiles[1]))
        return low, high


def judge_wall(rows: Sequence[WallRow], settings: GateSettings) -> list[JudgedRow]:
    """Judge all wall rows of one comparison together; in their order."""
    estimates = [estimate(row) for row in rows]
    levels = holm([one.chance() if one else 1.0 for one in estimates], settings.false_alarms)
    assumed = _assumed_drift([one.swing for one in estimates if one], settings)
    judged = []
    for index, (row, one) in enumerate(zip(rows, estimates, strict=True)):
        if one is None:
            judged.append(_unjudged(row, settings))
            continue
        others = [other.log_ratio for at, other in enumerate(estimates) if other and at != index]
        drift = (0.0, 0.0) if one.drift_cancels else _drift(others, levels[index], max(assumed, one.swing))
        judged.append(_judged(row, one, levels[index], drift, settings))
    return judged


def estimate(row: WallRow) -> Estimate | None:
    """The ratio of one row, None when nothing was measured (a median of zero, one round)."""
    if any(timed.row.median <= 0 for timed in (*row.base, *row.candidate)):
        return None
    paired = interleaved(row.base, row.candidate)
    if paired is not None:
        return _from_pairs(paired)
    a, b = few_runs(row.base), few_runs(row.candidate)
    if a is None or b is None:
        return None
    log_ratio = b.log_median - a.log_median
    error = math.hypot(a.error, b.error)
    draws = log_ratio + _draws_of_means(b.segments) - _draws_of_means(a.segments)
    return Estimate(log_ratio, error, a.freedom + b.freedom, draws, drift_cancels=False, swing=max(a.swing, b.swing))


def holm(chances: Sequence[float], false_alarms: float) -> list[float]:
    """Holm's step-down: the level at which each row's interval is taken, in the rows' order.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    levels = [0.0] * len(chances)
    level, rejecting = 0.0, True
    for rank, index in enumerate(order):
        if rejecting:
            level = false_alarms / (len(chances) - rank)
            rejecting = chances[index] <= level
        levels[index] = level
    return levels


def _from_pairs(log_ratios: NDArray[numpy.float64]) -> Estimate:
    count = log_ratios.size
    middle = float(log_ratios.mean())
    error = float(log_ratios.std(ddof=1)) / math.sqrt(count)
    return Estimate(middle, error, count - 1, middle + _draws_of_means(log_ratios), drift_cancels=True)


def _draws_of_means(sample: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Bootstrap draws of the mean of *sample*, about zero; none where it has no spread."""
    if sample.size < 2 or not numpy.ptp(sample):
        return numpy.zeros(1)
    centred = sample - sample.mean()
    chosen = _choices(sample.size)
    return numpy.asarray(centred[chosen].mean(axis=1), dtype=numpy.float64)


@functools.lru_cache(maxsize=4)
def _choices(size: int) -> NDArray[numpy.int64]:
    """Which of *size* numbers each draw takes, with replacement: always the same, so that files have one verdict."""
    return numpy.random.default_rng(1).integers(0, size, (_DRAWS, size))


def _assumed_drift(swings: Sequence[float], settings: GateSettings) -> float:
    """The log of how far the machine may have moved between two runs: what is assumed, more where it is seen.

    A machine that changes its speed by half within the rows' runs does so between them too.
    """
    assumed = -math.log1p(-settings.drift_percent / 100)  # slowed by it and not, either way round
    return max(assumed, float(numpy.quantile(swings, _MOST_ROWS))) if swings else assumed


def _drift(others: Sequence[float], level: float, assumed: float) -> tuple[float, float]:
    """How far drift between the runs may have moved a row, as logs: (to be sure it changed, it did not)."""
    if len(others) < _NEIGHBOURS:
        return assumed, 0.0
    common = float(numpy.median(others))
    apart = numpy.abs(numpy.subtract(others, common))
    shift = min(assumed, abs(common))
    freedom = len(others) - 1
    # Rows that really changed are among the others too: they must not make a quiet row doubtful, so that
    # "same" asks the middle of them, while an alarm asks them all. The assumed drift bounds both.
    typical = _MAD_TO_SIGMA * float(numpy.median(apart))
    overall = float(numpy.sqrt(numpy.sum(apart**2) / freedom))
    changed = shift + min(assumed, _reach(level / 2, freedom) * overall)
    unchanged = shift + min(assumed, _reach(0.05, freedom) * typical)
    return changed, unchanged


def _judged(row: WallRow, one: Estimate, level: float, drift: tuple[float, float], settings: GateSettings) -> JudgedRow:
    allowance = math.log1p(settings.wall(row.fullname).percent / 100)
    low, high = one.interval(level)
    changed, unchanged = drift
    reason = ""
    if low > changed and one.log_ratio > allowance:
        verdict = Verdict.REGRESSED
    elif high < -changed and one.log_ratio < -allowance:
        verdict = Verdict.IMPROVED
    elif -allowance <= low - unchanged and high + unchanged <= allowance:
        verdict = Verdict.SAME
    else:
        verdict = Verdict.CANNOT_TELL
        reason = _why(row, one, (low, high), changed, allowance)
    base = _median_ns(row.base)
    return JudgedRow(
        row.fullname,
        row.base[0].row.facts,
        verdict,
        base,
        _median_ns(row.candidate),
        math.exp(one.log_ratio),
        math.exp(low),
        math.exp(high),
        math.exp(allowance),
        reason,
        _iqr_ns(row.base),
        _iqr_ns(row.candidate),
    )


def _why(row: WallRow, one: Estimate, interval: tuple[float, float], drift: float, allowance: float) -> str:
    low, high = interval
    moved = low > 0 or high < 0
    if moved and abs(one.log_ratio) <= allowance:
        return "it moved, but whether by more than the allowance is open"
    if moved and drift:
        return (
            f"drift between the runs (up to {math.expm1(drift):.0%}) cannot be excluded: "
            "give four or more runs a side, taken A B B A"
        )
    if drift and low - drift < 0 < high + drift and high - low <= 2 * allowance:
        return "the other rows moved as much: give four or more runs a side, taken A B B A"
    return "the interval is wider than the allowance: take more runs, interleaved A B B A"


def _unjudged(row: WallRow, settings: GateSettings) -> JudgedRow:
    allowance = 1 + settings.wall(row.fullname).percent / 100
    base, candidate = _median_ns(row.base), _median_ns(row.candidate)
    ratio = candidate / base if base else 1.0
    return JudgedRow(
        row.fullname,
        row.base[0].row.facts,
        Verdict.CANNOT_TELL,
        base,
        candidate,
        ratio,
        0.0,
        math.inf,
        allowance,
        "too few rounds to tell noise from change, or a time of zero",
    )


def _median_ns(side: Sequence[Timed]) -> float:
    return 1e9 * float(numpy.median([timed.row.median for timed in side]))


def _iqr_ns(side: Sequence[Timed]) -> float:
    return 1e9 * float(numpy.median([timed.row.iqr for timed in side]))
