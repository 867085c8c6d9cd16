"""The line of each board and kernel: what a night cost there, all rows together, relative to their own mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy

from dmasync.harness.store.nights import Nights

_DAY = 86_400_000_000
"""In microseconds."""


@dataclass(frozen=True)
class Line:
    """``nights`` are (whole days before the page's date, factor), oldest first; ``rows`` were measured in the last."""

    nights: tuple[tuple[int, float], ...]
    rows: int
    last: datetime


def lines(nights: Nights, until: int) -> Iterator[tuple[int, Line]]:
    """Each cell and its line. *until* is in microseconds since 1970."""
    if not len(nights.costs):
        return
    cells = nights.cells - nights.cells[0]
    ages = (until - nights.moments) // _DAY
    shape = (int(cells[-1]) + 1, int(ages.max()) + 1)
    off = nights.costs - numpy.repeat(numpy.add.reduceat(nights.costs, nights.begins) / nights.counts, nights.counts)
    places = numpy.repeat(cells * shape[1], nights.counts) + ages
    count = numpy.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
    costs = numpy.bincount(places, weights=off, minlength=shape[0] * shape[1]).reshape(shape)
    last_moments = nights.last_moments
    for cell in numpy.unique(cells).tolist():
        there = numpy.flatnonzero(count[cell])[::-1]
        factors = numpy.exp(costs[cell, there] / count[cell, there])
        own = cells == cell
        # A row that two clocks or Pythons measured is two series and one row.
        rows = numpy.unique(nights.names[own & ((until - last_moments) // _DAY == there[-1])])
        last = datetime(1970, 1, 1) + timedelta(microseconds=int(last_moments[own].max()))
        told = Line(tuple(zip(there.tolist(), factors.tolist(), strict=True)), len(rows), last)
        yield cell + int(nights.cells[0]), told
