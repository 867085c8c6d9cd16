"""The nights of all series of a store, as arrays: numpy judges thousands of series at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from dmasync.harness.store.queries import KIND

if TYPE_CHECKING:
    import duckdb

Floats = NDArray[numpy.float64]
Integers = NDArray[numpy.int64]
Flags = NDArray[numpy.bool_]

KEY = f"board, kernel, row, {KIND}"
_AT_ONCE = 200_000
"""Nights of a part, about: its arrays stay near the processor, and the next part's take the same place. Threads, each
with memory of its own, took longer on two processors."""


@dataclass(frozen=True)
class Nights:
    """Series, one behind the other, each in order of time. A series has a number, by board, kernel and row.

    ``costs`` are logarithms, ``moments`` microseconds since 1970. The others have an element a series: its number,
    where it begins, how many nights it has, its cell (a number of a board and kernel), a number of its board, kernel
    and row, and whether the exact clock measured it.
    """

    costs: Floats
    moments: Integers
    numbers: Integers
    begins: Integers
    counts: Integers
    cells: Integers
    names: Integers
    exact: Flags

    @property
    def last_moments(self) -> Integers:
        last: Integers = self.moments[self.begins + self.counts - 1]
        return last

    def since(self, moment: int) -> Nights:
        """The nights after *moment*, and the series that have one."""
        inside = self.moments > moment
        if inside.all():
            return self
        counts = self.counted(inside)
        there = counts > 0
        left = counts[there]
        of_series = {name: getattr(self, name)[there] for name in ("numbers", "cells", "names", "exact")}
        begins = numpy.cumsum(left) - left
        return replace(
            self, costs=self.costs[inside], moments=self.moments[inside], begins=begins, counts=left, **of_series
        )

    def counted(self, flags: Flags) -> Integers:
        """How many nights of each series have the flag."""
        return numpy.add.reduceat(flags, self.begins, dtype=numpy.int64) if len(flags) else self.counts

    def blocks(self, begins: Integers, counts: Integers) -> Iterator[tuple[Integers, Floats]]:
        """The costs of *counts* nights of each series from *begins* on: series of one length together, as a matrix."""
        for length in numpy.unique(counts[counts > 0]).tolist():
            which = numpy.flatnonzero(counts == length)
            yield which, self.costs[begins[which, None] + numpy.arange(length)]


@dataclass(frozen=True)
class StoredNights:
    """All nights as the files have them: in runs, each a part of a series in order of time.

    ``arrays`` are moments and costs of each file. Merged files hold a month of each series in a run. ``sources`` (whose
    arrays they lie in), ``begins``, ``lengths`` and ``numbers`` have an element a run, ordered by the number of its
    series.
    """

    arrays: tuple[tuple[Integers, Floats], ...]
    sources: Integers
    begins: Integers
    lengths: Integers
    numbers: Integers
    cells: Integers
    names: Integers
    exact: Flags
    damaged: tuple[tuple[Path, str], ...]
    connection: duckdb.DuckDBPyConnection

    def parts(self) -> list[slice]:
        """The numbers of the series by parts that can be looked at by themselves: a cell is whole in its part."""
        ends = numpy.cumsum(numpy.bincount(self.numbers, weights=self.lengths)).astype(numpy.int64)
        last_of_cell = numpy.flatnonzero(numpy.append(self.cells[1:] != self.cells[:-1], [True]))
        last_of_part = last_of_cell[numpy.append(numpy.diff(ends[last_of_cell] // _AT_ONCE) > 0, [True])]
        return [slice(first, last) for first, last in itertools.pairwise([0, *(last_of_part + 1).tolist()])]

    def part(self, series: slice) -> Nights:
        """The nights of the series of these numbers."""
        runs = slice(*numpy.searchsorted(self.numbers, [series.start, series.stop]).tolist())
        lengths = self.lengths[runs]
        numbers = self.numbers[runs] - series.start
        moments, costs = self._taken(runs)
        counts = numpy.bincount(numbers, weights=lengths).astype(numpy.int64)
        begins = numpy.cumsum(counts) - counts
        first = numpy.zeros(len(moments), dtype=numpy.bool_)
        first[begins] = True
        if not numpy.all((moments[1:] >= moments[:-1]) | first[1:]):
            order = numpy.lexsort((moments, numpy.repeat(numpy.arange(len(counts)), counts)))
            moments, costs = moments[order], costs[order]
        return Nights(
            costs, moments, numpy.arange(series.start, series.stop), begins, counts,
            self.cells[series], self.names[series], self.exact[series],
        )  # fmt: skip

    def _taken(self, runs: slice) -> tuple[Integers, Floats]:
        """The moments and costs of *runs*, one behind the other."""
        sources, begins, lengths = self.sources[runs], self.begins[runs], self.lengths[runs]
        places = numpy.cumsum(lengths) - lengths
        total = int(lengths.sum())
        moments, costs = numpy.empty(total, dtype=numpy.int64), numpy.empty(total)
        for number in numpy.unique(sources).tolist():
            own = sources == number
            counts = lengths[own]
            within = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
            place, at = (within + numpy.repeat(first[own], counts) for first in (places, begins))
            moments[place], costs[place] = (array[at] for array in self.arrays[number])
        return moments, costs

    def keys(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the series of these numbers are called, by column."""
        names = KEY.replace('"', "").split(", ")
        query = f"SELECT number, {KEY} FROM series WHERE list_contains(?, number)"  # noqa: S608
        rows = self.connection.execute(query, [list(numbers)]).fetchall() if len(numbers) else []
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}

    def all_keys(self) -> tuple[list[tuple[Any, ...]], Integers]:
        """What all series are called, and their hashes, by number."""
        rows = self.connection.execute(f"SELECT {KEY} FROM series ORDER BY number").fetchall()  # noqa: S608
        return rows, self.connection.execute("SELECT hash FROM series ORDER BY number").fetchnumpy()["hash"]

    def cell_names(self) -> list[tuple[str, str]]:
        """Board and kernel of each cell."""
        query = "SELECT DISTINCT board, kernel FROM series ORDER BY board, kernel"
        return [(board, kernel) for board, kernel in self.connection.execute(query).fetchall()]
