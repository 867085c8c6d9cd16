"""Judge a row's series of nights: where its level moved, which nights stand alone, how small a move would be seen.

A series is one number a night (the row's median), by the wall clock. Four things make it harder than a list of
independent numbers, and each has its answer here:

- **Single bad nights** are no new level: a night far off those around it is a *spike*, and counts no further off than
  noise reaches.
- **Nights resemble their neighbours** (autocorrelation): a busy week is five high numbers and one observation. The
  long-run variance, from the differences of nights one to four apart, stands for the plain one; the effective number of
  nights says what that leaves.
- **A level that creeps** passes any comparison with the night before. Levels are fitted to the whole series at once:
  the best cut into pieces of constant level, where each further cut must earn its price (optimal partitioning, which
  PELT and ruptures' ``KernelCPD`` compute as well).
- **A small series of noisy nights** shows nothing. ``visible`` is the least move that would have been seen.

Costs are compared as logarithms: a row that doubles moves as far as one that halves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

FEWEST_NIGHTS = 14
"""A shorter series is not judged: it does not tell its own noise."""
SHORTEST_LEVEL = 5
"""Nights that a new level must last."""
PRICE = 16.0
"""Of a cut, in long-run variances; tools/series_figures.py prints what it finds and how often it is wrong."""
_SPIKE = 5.0
"""Standard deviations off the nights around it."""
_CLIP = 2.5
"""Standard deviations beyond which a night counts as that far off."""
_AROUND = 9
"""Nights whose median is what a night is compared with."""
_MAD_TO_SIGMA = 1.4826
_LEAST_SIGMA = 1e-4
"""Relative; a row that never moves is not infinitely well known."""
_LAGS = 4

Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class Move:
    """The level changed for good. ``begin`` is the first night off the old level, ``end`` the first at the new one.

    They are the same for a step, and further apart for a creep: several cuts in one direction, close together.
    """

    begin: int
    end: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def is_creep(self) -> bool:
        return self.end > self.begin


@dataclass(frozen=True)
class SeriesJudgement:
    """What a series of nights shows; places are indices of it.

    ``noise`` is the relative standard deviation of a night, ``autocorrelation`` that of neighbouring nights,
    ``effective`` how many independent nights the series is worth, ``visible`` the least ratio of a move that a week of
    nights at a new level would show. ``level`` is the present one. All but the first are NaN where ``unjudged`` says
    why nothing was judged.
    """

    moves: tuple[Move, ...] = ()
    spikes: tuple[int, ...] = ()
    level: float = math.nan
    first_level: float = math.nan
    noise: float = math.nan
    autocorrelation: float = math.nan
    effective: float = math.nan
    visible: float = math.nan
    unjudged: str = ""


def judge_series(values: Sequence[float], least_percent: float = 5.0) -> SeriesJudgement:
    """Judge *values*, a cost above 0 a night, oldest first. Moves of less than *least_percent* are not told."""
    if len(values) < FEWEST_NIGHTS:
        return SeriesJudgement(unjudged=f"{len(values)} nights, at least {FEWEST_NIGHTS} are needed")
    if not all(value > 0 and math.isfinite(value) for value in values):
        return SeriesJudgement(unjudged="a night's cost is not above 0")
    logs = numpy.log(numpy.asarray(values, dtype=numpy.float64))
    sigma, long_run = _noise(logs)
    around = _running_median(logs)
    limit = max(_SPIKE * sigma, math.log1p(least_percent / 100))
    clipped = numpy.clip(logs, around - _CLIP * sigma, around + _CLIP * sigma)
    cuts = _partition(clipped, PRICE * long_run)
    bounds = [0, *cuts, len(logs)]
    levels = [float(numpy.median(logs[start:end])) for start, end in itertools.pairwise(bounds)]
    fitted = numpy.repeat(levels, numpy.diff(bounds))
    # The last nights may be a new level that is too young to be told from spikes: they are none.
    spikes = [at for at in range(len(logs) - 1) if min(abs(logs[at] - around[at]), abs(logs[at] - fitted[at])) > limit]
    week = 7
    rest = max(1, len(logs) - week)
    visible = math.sqrt(PRICE * long_run * (week + rest) / (week * rest))
    ratio = long_run / sigma**2
    return SeriesJudgement(
        _moves(cuts, levels, math.log1p(least_percent / 100)),
        tuple(spikes),
        math.exp(levels[-1]),
        math.exp(levels[0]),
        sigma,
        (ratio - 1) / (ratio + 1),
        len(logs) / ratio,
        math.exp(visible),
    )


def _noise(logs: Floats) -> tuple[float, float]:
    """The standard deviation of a night, and the long-run variance: what the mean of many nights varies by, times many.

    From differences, which neither a step nor a slow drift moves: the variance of nights k apart is twice what they
    do not have in common. A drift that is not slow is no noise either: it is taken off where that leaves less.
    """
    third = len(logs) // 3
    drift = float(numpy.median(logs[-third:]) - numpy.median(logs[:third])) / (len(logs) - third)

    def variance_apart(lag: int) -> float:
        differences = logs[lag:] - logs[:-lag]
        return min(_spread(differences), _spread(differences - lag * drift)) ** 2 / 2

    apart = [variance_apart(lag) for lag in range(1, 2 * _LAGS + 1)]
    variance = max(float(numpy.median(apart[_LAGS:])), apart[0], _LEAST_SIGMA**2)
    common = [max(0.0, variance - one) for one in apart[:_LAGS]]
    return math.sqrt(variance), variance + 2 * sum(common)


def _spread(differences: Floats) -> float:
    return float(_MAD_TO_SIGMA * numpy.median(numpy.abs(differences)))


def _running_median(logs: Floats) -> Floats:
    """The median of the :data:`_AROUND` nights around each; of as many at the ends."""
    windows = numpy.lib.stride_tricks.sliding_window_view(logs, _AROUND)
    medians = numpy.median(windows, axis=1)
    half = _AROUND // 2
    return numpy.concatenate([numpy.full(half, medians[0]), medians, numpy.full(half, medians[-1])])


def _partition(values: Floats, price: float) -> list[int]:
    """Where to cut *values* so that squares about the pieces' means, and *price* a cut, sum up to the least."""
    count = len(values)
    sums = numpy.concatenate([[0.0], numpy.cumsum(values - values[0])])
    squares = numpy.concatenate([[0.0], numpy.cumsum((values - values[0]) ** 2)])
    best = numpy.full(count + 1, numpy.inf)
    best[0] = -price
    last = numpy.zeros(count + 1, dtype=numpy.int64)
    for end in range(SHORTEST_LEVEL, count + 1):
        starts = numpy.arange(0, end - SHORTEST_LEVEL + 1)
        within = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / (end - starts)
        costs = best[starts] + within + price
        at = int(numpy.argmin(costs))
        best[end], last[end] = costs[at], starts[at]
    cuts: list[int] = []
    end = int(last[count])
    while end > 0:
        cuts.append(end)
        end = int(last[end])
    return cuts[::-1]


_CLOSE = 30
"""Nights between two cuts in one direction that are still one creep."""


def _moves(cuts: Sequence[int], levels: Sequence[float], least: float) -> tuple[Move, ...]:
    """The cuts as moves: those in one direction that follow closely are one; what stays below *least* is left out."""
    joined: list[list[int]] = []
    for index in range(len(cuts)):
        rises = levels[index + 1] > levels[index]
        if joined:
            before = joined[-1][-1]
            same_way = (levels[before + 1] > levels[before]) == rises
            if same_way and cuts[index] - cuts[before] <= _CLOSE:
                joined[-1].append(index)
                continue
        joined.append([index])
    moves = [
        Move(cuts[group[0]], cuts[group[-1]], math.exp(levels[group[0]]), math.exp(levels[group[-1] + 1]))
        for group in joined
    ]
    return tuple(move for move in moves if abs(math.log(move.ratio)) >= least)
