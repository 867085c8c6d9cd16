"""The nights of all series of a store, as arrays: DuckDB reads them, numpy judges thousands of series at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from dmasync.harness.store.queries import KIND, StoreReader

if TYPE_CHECKING:
    import duckdb

Floats = NDArray[numpy.float64]
Integers = NDArray[numpy.int64]
Flags = NDArray[numpy.bool_]

KEY = f"board, kernel, row, {KIND}"
# The names of ten million nights would take longer to read than all the rest: each night carries its series' hash.
_HASH = f"hash({{salt}}, {KEY})"
_SERIES = f"""
CREATE OR REPLACE TEMP TABLE series AS
SELECT *, {_HASH} AS hash, row_number() OVER (ORDER BY {KEY}) - 1 AS number,
    dense_rank() OVER (ORDER BY board, kernel) - 1 AS cell, dense_rank() OVER (ORDER BY board, kernel, row) - 1 AS name
FROM (SELECT {KEY} FROM {{table}} WHERE {{where}} GROUP BY ALL)
"""  # noqa: S608  # a template
_NUMBERED = "SELECT hash, cell, name, clock = 'exact' AS exact FROM series ORDER BY number"
_NIGHTS = f"SELECT {_HASH} AS hash, epoch_us(moment) AS moment, ln(value) AS cost FROM {{table}} WHERE {{where}}"  # noqa: S608
_AT_ONCE = 400_000
"""Nights of a part, about: its arrays stay near the processor, and there are parts enough for all processors."""


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

    Merged files hold a month of each series in a run. ``begins``, ``lengths`` and ``numbers`` have an element a run,
    ordered by the number of its series and by time.
    """

    costs: Floats
    moments: Integers
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
        ends = numpy.cumsum(lengths)
        at = numpy.repeat(self.begins[runs] - (ends - lengths), lengths) + numpy.arange(ends[-1])
        counts = numpy.bincount(numbers, weights=lengths).astype(numpy.int64)
        begins = numpy.cumsum(counts) - counts
        moments = self.moments[at]
        first = numpy.zeros(len(at), dtype=numpy.bool_)
        first[begins] = True
        if not numpy.all((moments[1:] >= moments[:-1]) | first[1:]):
            order = numpy.lexsort((moments, numpy.repeat(numpy.arange(len(counts)), counts)))
            at, moments = at[order], moments[order]
        return Nights(
            self.costs[at], moments, numpy.arange(series.start, series.stop), begins, counts,
            self.cells[series], self.names[series], self.exact[series],
        )  # fmt: skip

    def keys(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the series of these numbers are called, by column."""
        names = KEY.replace('"', "").split(", ")
        query = f"SELECT number, {KEY} FROM series WHERE list_contains(?, number)"  # noqa: S608
        rows = self.connection.execute(query, [list(numbers)]).fetchall() if len(numbers) else []
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}

    def cell_names(self) -> list[tuple[str, str]]:
        """Board and kernel of each cell."""
        query = "SELECT board, kernel FROM series GROUP BY cell, board, kernel ORDER BY cell"
        return [(board, kernel) for board, kernel in self.connection.execute(query).fetchall()]


def read_nights(reader: StoreReader, where: str) -> StoredNights | None:
    """The nights that *where* names and that have a cost above 0; None where there are none."""
    where = f"{where} AND value > 0 AND isfinite(value)"

    def take(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[dict[str, Any], dict[str, Any]]:
        for salt in itertools.count():  # two series may have one hash: once in a thousand million fleets
            series, nights = _series_and_nights(connection, salt=salt, table=table, where=where)
            if len(numpy.unique(series["hash"])) == len(series["hash"]):
                return series, nights
        raise AssertionError

    taken, damaged = reader.take(take)
    if taken is None or not len(taken[0]["hash"]):
        return None
    series, nights = ({name: numpy.asarray(column) for name, column in one.items()} for one in taken)
    hashes, moments = nights["hash"], nights["moment"]
    begins = numpy.flatnonzero(numpy.append([True], hashes[1:] != hashes[:-1]))
    lengths = numpy.diff(begins, append=len(hashes))
    by_hash = numpy.argsort(series["hash"])
    numbers = by_hash[numpy.searchsorted(series["hash"], hashes[begins], sorter=by_hash)]
    order = numpy.lexsort((moments[begins], numbers))
    return StoredNights(
        nights["cost"], moments, begins[order], lengths[order], numbers[order],
        series["cell"], series["name"], series["exact"], damaged, reader.connection,
    )  # fmt: skip


def _series_and_nights(connection: duckdb.DuckDBPyConnection, **parts: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both at once: the second is then being made into arrays, on one processor, while the first is still asked."""
    with connection.cursor() as cursor, ThreadPoolExecutor(1) as other:
        nights = other.submit(lambda: cursor.execute(_NIGHTS.format(**parts)).fetchnumpy())
        connection.execute(_SERIES.format(**parts))
        return connection.execute(_NUMBERED).fetchnumpy(), nights.result()
