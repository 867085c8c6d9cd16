"""Which series are off what they were, all series of a fleet at once: in the last days, and over the shown weeks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from dmasync.harness.store.nights import Flags, Floats, Integers, Nights

FEWEST_BEFORE = 5
"""Nights, by the wall clock: fewer do not tell their noise."""
_SIGMAS = 5.0
"""Of the difference of both medians: a fleet has a hundred thousand rows, and each is a chance to be wrong."""
_OF_A_MEDIAN = 1.2533
"""How much wider a median spreads than a mean."""
_RANGE = 1.128
"""The mean difference of two neighbours, in standard deviations."""
_QUARTILE_RANGE = 1.349
"""The distance of the quartiles, in standard deviations."""


@dataclass(frozen=True)
class Compared:
    """Two medians of each series, in logarithms; NaN where one of them has no night. Each has an element a series."""

    before: Floats
    after: Floats
    nights_before: Integers
    nights_after: Integers
    noise: Floats

    def is_off(self, nights: Nights, exact_least: float, wall_least: float) -> Flags:
        """Whether both differ by more than the logarithm *exact_least* or *wall_least*, and by more than its own noise
        and the usual one of its board, kernel and clock explain.
        """
        usual = _usual(self.noise, 2 * nights.cells + nights.exact)
        least = numpy.where(nights.exact, exact_least, wall_least) + 1e-9
        with numpy.errstate(divide="ignore", invalid="ignore"):  # of series without nights, whose medians are NaN
            counts = numpy.sqrt(1 / self.nights_before + 1 / self.nights_after)
            explained = _SIGMAS * _OF_A_MEDIAN * numpy.fmax(self.noise, usual) * counts
        off: Flags = numpy.abs(self.after - self.before) > numpy.fmax(least, explained)
        return off


def recently(nights: Nights, since: int, middle: int) -> Compared:
    """The nights after *middle* against those before it and after *since*, in microseconds since 1970.

    By the wall clock a busy week is noise, which the quartiles hold. The exact clock has no busy weeks: there the
    quartiles of a row that creeps are its creep, and the differences from night to night are not.
    """
    inside, late = nights.counted(nights.moments > since), nights.counted(nights.moments > middle)
    early = inside - late
    begins = nights.begins + nights.counts - inside
    before, after, wide, ranged = (numpy.full(len(early), math.nan) for _ in range(4))
    for which, costs in nights.blocks(begins, early):
        ordered = numpy.sort(costs, axis=1)
        before[which] = quantile(ordered, 0.5)
        wide[which] = (quantile(ordered, 0.75) - quantile(ordered, 0.25)) / _QUARTILE_RANGE
        ranged[which] = _ranged(costs)
    for which, costs in nights.blocks(begins + early, late):
        after[which] = quantile(numpy.sort(costs, axis=1), 0.5)
    return Compared(before, after, early, late, numpy.where(nights.exact, numpy.fmin(wide, ranged), wide))


def over_weeks(nights: Nights) -> Compared:
    """The last third of a series' nights against its first third."""
    before, after, noise = (numpy.full(len(nights.counts), math.nan) for _ in range(3))
    third = nights.counts // 3
    for which, costs in nights.blocks(nights.begins, nights.counts):
        noise[which] = _ranged(costs)
        if some := costs.shape[1] // 3:
            before[which] = quantile(numpy.sort(costs[:, :some], axis=1), 0.5)
            after[which] = quantile(numpy.sort(costs[:, -some:], axis=1), 0.5)
    return Compared(before, after, third, third, noise)


def quantile(ordered: Floats, part: float) -> Floats:
    """Of each line of a matrix with its numbers in order, between two of them by their distance."""
    place = part * (ordered.shape[1] - 1)
    low = math.floor(place)
    high = min(low + 1, ordered.shape[1] - 1)
    found: Floats = ordered[:, low] + (ordered[:, high] - ordered[:, low]) * (place - low)
    return found


def _ranged(costs: Floats) -> Floats:
    """The standard deviation of each line, as the differences of neighbours tell it; NaN of a single night."""
    if costs.shape[1] < 2:
        return numpy.full(len(costs), math.nan)
    steps = numpy.diff(costs, axis=1)
    spread: Floats = numpy.abs(steps, out=steps).mean(axis=1) / _RANGE
    return spread


def _usual(noise: Floats, groups: Integers) -> Floats:
    """The median of each series' group; NaN where no series of it has a number."""
    known = numpy.flatnonzero(~numpy.isnan(noise))
    ordered = known[numpy.lexsort((noise[known], groups[known]))]
    found, first, count = numpy.unique(groups[ordered], return_index=True, return_counts=True)
    middle = noise[ordered[first + (count - 1) // 2]], noise[ordered[first + count // 2]]
    medians = numpy.append((middle[0] + middle[1]) / 2, [math.nan])
    # A group that is not found is at the place of another, or behind the last.
    place = numpy.searchsorted(found, groups)
    return numpy.where(numpy.append(found, [-1])[place] == groups, medians[place], math.nan)
