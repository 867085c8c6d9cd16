"""The nights of all series of a store, as its files have them: read as arrays, and written once more for that.

``nights/MONTH/FILE.npy`` holds what is needed of the merged file ``summaries/MONTH/FILE.parquet``, whose name tells
what is in it: the moment and cost of each night, series behind series, each in order of time. It is mapped, which takes
a fraction of the time. ``FILE.parquet`` beside it has a row a board and kernel: where its nights begin, a list of its
series, and as arrays the hash of each and how many nights it has. What is missing, damaged or of another version of
DuckDB, whose hashes differ, costs time and nothing else: then the summaries are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from dmasync.harness.runs.writing import made_folder
from dmasync.harness.store.bucket import arriving_whole, in_bucket
from dmasync.harness.store.nights import KEY, Floats, Integers, StoredNights
from dmasync.harness.store.parquet_files import MERGED, Found, quoted, write_rows
from dmasync.harness.store.queries import StoreReader, reading

if TYPE_CHECKING:
    import duckdb

MONTHS = 5
"""The newest, which have such files: more than what the fleet's page looks back on."""
FOLDER = "nights"
_LISTED = tuple(KEY.split(", ")[2:])
_COLUMNS = {
    "board": "VARCHAR", "kernel": "VARCHAR", "first": "BIGINT", "last": "BIGINT",
    **{name.strip('"'): "BOOLEAN[]" if name == "compiled" else "VARCHAR[]" for name in _LISTED},
    "begin": "BIGINT", "hashes": "BLOB", "counts": "BLOB",
}  # fmt: skip
_NONE = numpy.empty(0, dtype=numpy.int64)
_NIGHT = numpy.dtype([("moment", "<i8"), ("cost", "<f8")])
_THERE = "read_parquet([{files}], filename = true) WHERE last > {since} AND first <= {until}"
# The names of ten million nights would take longer to read than all the rest: each night carries its series' hash.
_HASH = f"hash({{salt}}, {KEY})"
# Most months of a board have the same series.
_NAMED = f"""
CREATE OR REPLACE TEMP TABLE named AS
SELECT *, {_HASH} AS hash FROM (SELECT board, kernel, {", ".join(f"unnest({name}) AS {name}" for name in _LISTED)}
FROM (SELECT board, kernel, {", ".join(f"any_value({name}) AS {name}" for name in _LISTED)}
      FROM {_THERE} GROUP BY board, kernel, hashes))
"""  # noqa: S608  # a template
_UNNAMED = "DELETE FROM named WHERE hash IN (SELECT unnest(?::UBIGINT[]))"
_NIGHTS = f"SELECT {_HASH} AS hash, epoch_us(moment) AS moment, ln(value) AS cost FROM {{table}} WHERE {{where}}"  # noqa: S608
_SERIES = f"""
CREATE OR REPLACE TEMP TABLE series AS
SELECT *, {_HASH} AS hash, row_number() OVER following - 1 AS number,
    board IS DISTINCT FROM lag(board) OVER following OR kernel IS DISTINCT FROM lag(kernel) OVER following AS new_cell,
    "row" IS DISTINCT FROM lag("row") OVER following AS new_row
FROM (SELECT {KEY} FROM {{source}} GROUP BY ALL) WINDOW following AS (ORDER BY {KEY})
"""  # noqa: S608
_NUMBERED = (
    "SELECT hash, new_cell, new_cell OR new_row AS new_name, clock = 'exact' AS exact FROM series ORDER BY number"
)


class _UnusableError(Exception):
    """The written nights are damaged, or have hashes of another version of DuckDB."""


@dataclass(frozen=True)
class _Runs:
    """Parts of series in order of time: where each begins, how long it is, and its series' hash."""

    costs: Floats
    moments: Integers
    begins: Integers
    lengths: Integers
    hashes: Integers

    def without_empty(self) -> _Runs:
        there = self.lengths > 0
        return replace(self, begins=self.begins[there], lengths=self.lengths[there], hashes=self.hashes[there])


@dataclass(frozen=True)
class _Asked:
    """What is to be read: nights after *since*, to *until*, of *written* files and of *summaries*."""

    since: datetime
    until: datetime
    written: tuple[Path, ...]
    summaries: tuple[Path, ...]
    distinct: bool

    @property
    def bounds(self) -> dict[str, int]:
        return {"since": microseconds(self.since), "until": microseconds(self.until)}

    @property
    def there(self) -> dict[str, str | int]:
        """For the templates over the written files."""
        return {"files": ", ".join(map(quoted, self.written)), **self.bounds}

    @property
    def table(self) -> str:
        return reading(self.summaries, distinct=self.distinct)

    @property
    def where(self) -> str:
        bounds = (f"TIMESTAMP {quoted(moment.isoformat(sep=' '))}" for moment in (self.since, self.until))
        return "moment > {} AND moment <= {} AND value > 0 AND isfinite(value)".format(*bounds)


def microseconds(moment: datetime) -> int:
    """Since 1970, as Parquet has it."""
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def read_nights(reader: StoreReader, since: datetime, until: datetime) -> StoredNights | None:
    """The nights after *since*, to *until*, that have a cost above 0; None where there are none."""
    import duckdb

    def take(connection: duckdb.DuckDBPyConnection, there: Found) -> StoredNights | None:
        written = {} if there.overlapping else _written(there.files, reader.folder)
        left = tuple(path for path in there.files if path not in written)
        try:
            asked = _Asked(since, until, tuple(written.values()), left, there.overlapping)
            return _read(connection, asked, there.damaged)
        except (duckdb.Error, _UnusableError):
            if not written:
                raise
            return _read(connection, _Asked(since, until, (), there.files, there.overlapping), there.damaged)

    return reader.take(take)[0]


def _written(files: Sequence[Path], store: Path) -> dict[Path, Path]:
    """The merged files whose nights are written, and where."""
    there = set((store / FOLDER).glob("*/*.parquet"))
    beside = {path: store / FOLDER / path.parent.name / path.name for path in files if path.name.startswith(MERGED)}
    return {path: place for path, place in beside.items() if place in there}


def _read(
    connection: duckdb.DuckDBPyConnection, asked: _Asked, damaged: tuple[tuple[Path, str], ...]
) -> StoredNights | None:
    for salt in itertools.count():  # two series may have one hash: once in a thousand million fleets
        if salt and asked.written:
            raise _UnusableError
        series, parts = _series_and_runs(connection, asked, salt)
        if len(numpy.unique(series["hash"])) == len(series["hash"]):
            break
    parts = [part for part in parts if len(part.begins)]
    if not parts:
        return None
    begins, lengths, hashes = (
        numpy.concatenate([getattr(part, name) for part in parts]) for name in ("begins", "lengths", "hashes")
    )
    sources = numpy.repeat(numpy.arange(len(parts)), [len(part.begins) for part in parts])
    by_hash = numpy.argsort(series["hash"])
    places = numpy.searchsorted(series["hash"], hashes, sorter=by_hash)
    numbers = by_hash[numpy.minimum(places, len(by_hash) - 1)]
    if asked.written and not numpy.array_equal(series["hash"][numbers], hashes):
        raise _UnusableError
    order = numpy.argsort(numbers, kind="stable")  # months are in order of time; what is not is seen to in each part
    return StoredNights(
        tuple((part.moments, part.costs) for part in parts),
        sources[order], begins[order], lengths[order], numbers[order],
        numpy.cumsum(series["new_cell"]) - 1, numpy.cumsum(series["new_name"]) - 1, series["exact"],
        damaged, connection,
    )  # fmt: skip


def _series_and_runs(
    connection: duckdb.DuckDBPyConnection, asked: _Asked, salt: int
) -> tuple[dict[str, Any], list[_Runs]]:
    """Nights are made into arrays, on one processor, while their names are asked for on another."""
    parts: list[_Runs] = []
    sources: list[str] = []
    with connection.cursor() as cursor, ThreadPoolExecutor(1) as other:
        arrays = other.submit(_mapped, cursor, asked) if asked.written else None
        nights = other.submit(_nights, cursor, asked, salt) if asked.summaries else None
        if arrays is not None:
            connection.execute(_NAMED.format(salt=salt, **asked.there))
            mapped, gone = arrays.result()
            if len(gone):
                connection.execute(_UNNAMED, [gone.tolist()])
            parts += mapped
            sources.append(f"SELECT {KEY} FROM named")  # noqa: S608
        if nights is not None:
            sources.append(f"SELECT {KEY} FROM {asked.table} WHERE {asked.where}")  # noqa: S608
        connection.execute(_SERIES.format(salt=salt, source=f"({' UNION ALL '.join(sources)})"))
        series = connection.execute(_NUMBERED).fetchnumpy()
        if nights is not None:
            parts.append(nights.result())
    return {name: numpy.asarray(column) for name, column in series.items()}, parts


def _nights(cursor: duckdb.DuckDBPyConnection, asked: _Asked, salt: int) -> _Runs:
    """From the summaries, one behind the other as they stand there."""
    told = cursor.execute(_NIGHTS.format(salt=salt, table=asked.table, where=asked.where)).fetchnumpy()
    hashes, moments, costs = (numpy.asarray(told[name]) for name in ("hash", "moment", "cost"))
    begins = numpy.flatnonzero(numpy.append([len(hashes) > 0], hashes[1:] != hashes[:-1])[: len(hashes)])
    return _Runs(costs, moments, begins, numpy.diff(begins, append=len(hashes)), hashes[begins])


def _mapped(cursor: duckdb.DuckDBPyConnection, asked: _Asked) -> tuple[list[_Runs], Integers]:
    """The written nights that were asked for, and the hashes of series that have no others."""
    query = f"SELECT filename, begin, first, last, hashes, counts FROM {_THERE}".format(**asked.there)  # noqa: S608
    rows: dict[tuple[str, ...], list[Any]] = {}
    for name, *row in cursor.execute(query).fetchall():
        rows.setdefault(tuple(name.split("/")[-2:]), []).append(row)  # a bucket's address has several forms
    files = {path.parts[-2:]: path for path in asked.written}
    if not rows.keys() <= files.keys():
        raise _UnusableError
    parts = [_mapped_file(files[ends], own, asked) for ends, own in rows.items()]
    left = [part.without_empty() for part in parts]
    if all(len(part.hashes) == len(whole.hashes) for part, whole in zip(left, parts, strict=True)):
        return left, _NONE
    named, there = (numpy.concatenate([part.hashes for part in some]) for some in (parts, left))
    return left, numpy.setdiff1d(named, there)


def _mapped_file(path: Path, rows: Sequence[Any], asked: _Asked) -> _Runs:
    begins, firsts, lasts, hashes, counts = zip(*rows, strict=True)
    by_row = [numpy.frombuffer(array, "<i8") for array in counts]
    try:
        nights = _loaded(path.with_suffix(".npy"))
    except (OSError, ValueError) as error:
        raise _UnusableError from error
    if nights.dtype != _NIGHT or any(begin + sum(own) > len(nights) for begin, own in zip(begins, by_row, strict=True)):
        raise _UnusableError
    lengths = numpy.concatenate(by_row)
    starts = numpy.concatenate([begin + numpy.cumsum(own) - own for begin, own in zip(begins, by_row, strict=True)])
    since, until = asked.bounds.values()
    if min(firsts) <= since or max(lasts) > until:
        at = numpy.repeat(starts - (numpy.cumsum(lengths) - lengths), lengths) + numpy.arange(lengths.sum())
        moments = nights["moment"][at]
        own = numpy.cumsum(lengths) - lengths
        early = numpy.add.reduceat(moments <= since, own, dtype=numpy.int64)
        late = numpy.add.reduceat(moments > until, own, dtype=numpy.int64)
        starts, lengths = starts + early, lengths - early - late
    return _Runs(nights["cost"], nights["moment"], starts, lengths, numpy.frombuffer(b"".join(hashes), "<u8"))


def _loaded(path: Path) -> Any:
    if not in_bucket(path):
        return numpy.load(path, mmap_mode="r")
    with path.open("rb") as file:
        return numpy.load(file)


def write_nights(store: Path, there: Found, connection: duckdb.DuckDBPyConnection) -> None:
    """Write the nights of the merged files of the newest :data:`MONTHS`; remove those of files that are gone."""
    months = sorted({path.parent.name for path in there.files})[-MONTHS:]
    merged = [path for path in there.files if path.name.startswith(MERGED) and path.parent.name in months]
    wanted = {store / FOLDER / path.parent.name / path.name: path for path in merged}
    have = set((store / FOLDER).glob("*/*.parquet"))
    for place in wanted.keys() - have:
        whole = _Asked(datetime.min, datetime.max, (), (wanted[place],), distinct=False)
        if stored := _read(connection, whole, ()):
            _write(place, stored, connection)
    for place in have - wanted.keys():
        place.unlink(missing_ok=True)
        place.with_suffix(".npy").unlink(missing_ok=True)


def _write(place: Path, stored: StoredNights, connection: duckdb.DuckDBPyConnection) -> None:
    keys, hashes = stored.all_keys()
    ends = numpy.flatnonzero(numpy.append(stored.cells[1:] != stored.cells[:-1], [True])) + 1
    written, rows, begin = [], [], 0
    for first, last in itertools.pairwise([0, *ends.tolist()]):
        nights = stored.part(slice(first, last))
        own = numpy.empty(len(nights.costs), _NIGHT)
        own["moment"], own["cost"] = nights.moments, nights.costs
        listed = zip(*(key[2:] for key in keys[first:last]), strict=True)
        rows.append(
            (*keys[first][:2], int(nights.moments.min()), int(nights.moments.max()), *map(list, listed), begin,
             hashes[first:last].astype("<u8").tobytes(), nights.counts.astype("<i8").tobytes())
        )  # fmt: skip
        written.append(own)
        begin += len(own)
    if not in_bucket(place):
        made_folder(place.parent)
    with arriving_whole(place.with_suffix(".npy")) as file, file.open("wb") as stream:
        numpy.save(stream, numpy.concatenate(written))
    write_rows(place, _COLUMNS, rows, connection)
