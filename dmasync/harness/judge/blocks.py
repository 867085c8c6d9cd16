"""What is resampled: pairs of neighbouring runs, or the segments of a single run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from dmasync.harness.runs.reading import Row

_FEWEST_PAIRS = 4
_SEGMENTS = 20
_FEWEST_ROUNDS = 3
_IQR_TO_SIGMA = 0.7413  # of a normal distribution


@dataclass(frozen=True)
class Timed:
    """A row of one run, with the run's place in the order of measurement."""

    place: int
    row: Row


@dataclass(frozen=True)
class SideEstimate:
    """One side's log median, how sure it is, and the segments' logs about their mean."""

    log_median: float
    error: float
    freedom: float
    segments: NDArray[numpy.float64]
    swing: float
    """From the slow segments to the fast ones (the outer twentieths left out), as a log."""


def interleaved(base: Sequence[Timed], candidate: Sequence[Timed]) -> NDArray[numpy.float64] | None:
    """Log ratios of neighbouring runs; None unless there are enough and drift cancels over them.

    Drift that goes one way adds to a pair measured A B what it takes from one measured B A.
    """
    sequence = sorted(
        [(timed.place, 0, timed.row) for timed in base] + [(timed.place, 1, timed.row) for timed in candidate],
        key=lambda item: item[:2],
    )
    waiting: list[tuple[int, Row]] = []
    log_ratios, base_first = [], 0
    for _, side, row in sequence:
        if waiting and waiting[-1][0] != side:
            _, other = waiting.pop()
            before, after = (other, row) if side else (row, other)
            log_ratios.append(math.log(after.median / before.median))
            base_first += side
        else:
            waiting.append((side, row))
    pairs = len(log_ratios)
    if pairs < _FEWEST_PAIRS or abs(2 * base_first - pairs) > 1:
        return None
    return numpy.asarray(log_ratios)


def few_runs(side: Sequence[Timed]) -> SideEstimate | None:
    """One side's estimate out of the segments of its runs; None where the rounds are too few to tell."""
    singles = [single for timed in side if (single := _single(timed.row)) is not None]
    if len(singles) != len(side):
        return None
    logs = numpy.array([single.log_median for single in singles])
    within = math.sqrt(sum(single.error**2 for single in singles)) / len(singles)
    between = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    segments = numpy.concatenate([single.segments for single in singles]) / math.sqrt(len(singles))
    return SideEstimate(
        float(logs.mean()),
        max(within, between),
        sum(single.freedom for single in singles),
        segments,
        max(single.swing for single in singles),
    )


def _single(row: Row) -> SideEstimate | None:
    if row.rounds < _FEWEST_ROUNDS:
        return None
    if not row.data:
        # Saved without its rounds: their order is lost, and with it what would tell drift from noise.
        count = min(row.rounds, _SEGMENTS)
        sigma = _IQR_TO_SIGMA * row.iqr / row.median
        return SideEstimate(math.log(row.median), 1.25 * sigma / math.sqrt(count), count - 1, numpy.zeros(1), 0.0)
    count = min(_SEGMENTS, row.rounds)
    medians = numpy.array([numpy.median(part) for part in numpy.array_split(numpy.array(row.data), count)])
    if medians.min() <= 0:
        return None
    segments = numpy.log(medians)
    total = float(segments.var(ddof=1))
    # Von Neumann: successive differences see the noise alone, the variance sees noise and drift. Noise
    # averages out over the segments, drift does not: the whole run has one draw of it.
    noise = min(total, float(numpy.mean(numpy.diff(segments) ** 2)) / 2)
    error = math.sqrt(noise / count + (total - noise))
    slow, fast = numpy.quantile(segments, (0.95, 0.05))
    return SideEstimate(math.log(row.median), error, count - 1, segments - segments.mean(), float(slow - fast))
