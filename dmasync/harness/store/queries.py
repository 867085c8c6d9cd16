"""What a store answers: a row's series, a board's last values. Damaged files are passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.reading import printable
from dmasync.harness.store.parquet_files import Found, connected, found, quoted

if TYPE_CHECKING:
    import duckdb

KIND = 'arch, target, clock, "python", compiled, unit'
"""What must be equal, besides board and kernel, for values of a row to be one series."""
_ATTEMPTS = 5
Taken = TypeVar("Taken")

SERIES = f"""
SELECT board, kernel, row, {KIND}, moment, value, q1, q3 FROM {{table}}
WHERE {{where}} ORDER BY board, kernel, row, {KIND}, moment
"""  # noqa: S608  # a template
LAST_VALUES = f"""
SELECT kernel, row, {KIND}, max(moment) AS moment, arg_max(value, moment) AS value FROM {{table}}
WHERE {{where}} GROUP BY kernel, row, {KIND} ORDER BY kernel, row, {KIND}
"""  # noqa: S608


@dataclass(frozen=True)
class Answer:
    """The rows of an answer by column, and the files that were passed over, each with the reason."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    damaged: tuple[tuple[Path, str], ...]

    def as_objects(self) -> list[dict[str, Any]]:
        """For JSON: moments as text, in UTC."""

        def plain(value: Any) -> Any:
            return f"{value.isoformat(timespec='seconds')}+00:00" if isinstance(value, datetime) else value

        return [dict(zip(self.columns, map(plain, row), strict=True)) for row in self.rows]


class StoreReader:
    """Asks the summaries of the store in *folder*. CommandError where there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "summaries").is_dir():
            raise CommandError(f"{printable(folder)}: no store is there: 'dmasync history store' makes one")
        self.connection = connected(folder)

    def series(self, row: str, board: str | None = None, kernel: str | None = None) -> Answer:
        """The values of the rows that the glob *row* names, in order of time."""
        return self.ask(SERIES, _where(row=_glob(row), board=_glob(board), kernel=_glob(kernel)))

    def last_values(self, board: str) -> Answer:
        """The newest value of each row and kernel of *board*."""
        return self.ask(LAST_VALUES, f"board = {quoted(board)}")

    def newest(self) -> datetime | None:
        """When the newest run was taken."""
        rows = self.ask("SELECT max(moment) AS moment FROM {table} WHERE {where}", "true", last_month=True).rows
        moment = rows[0][0] if rows else None
        return moment if isinstance(moment, datetime) else None

    def ask(self, query: str, where: str, *, last_month: bool = False, **parts: str) -> Answer:
        """The answer to a *query*, which has ``{table}`` where the summaries belong, ``{where}``, and *parts*.

        With *last_month* only that month's summaries are there.
        """

        def take(connection: duckdb.DuckDBPyConnection, there: Found) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
            last = max(path.parent.name for path in there.files)
            files = [path for path in there.files if not last_month or path.parent.name == last]
            table = reading(files, distinct=there.overlapping)
            asked = connection.execute(query.format(table=table, where=where, **parts))
            return tuple(str(one[0]) for one in asked.description or ()), asked.fetchall()

        taken, damaged = self.take(take)
        return Answer(*(taken or ((), [])), damaged)

    def take(
        self, take: Callable[[duckdb.DuckDBPyConnection, Found], Taken]
    ) -> tuple[Taken | None, tuple[tuple[Path, str], ...]]:
        """What *take* gets from the files of the summaries; None where there are none. And the damaged files.

        It is called again where a file went away or turned out to be damaged meanwhile.
        """
        import duckdb

        damaged: dict[Path, str] = {}
        for _ in range(_ATTEMPTS):
            there = found(self.folder / "summaries", self.connection).without(damaged)
            if not there.files:
                return None, there.damaged
            try:
                return take(self.connection, there), there.damaged
            except duckdb.Error as error:
                # One of the files: it was merged away since, or is damaged inside.
                worse = _damaged_inside(there, self.connection)
                if not worse and all(path.exists() for path in there.files):
                    raise CommandError(f"{printable(self.folder)}: {printable(str(error))}") from None
                damaged |= worse
        raise CommandError(
            f"{printable(self.folder)}: its files keep changing: ask again later", ExitStatus.CANNOT_JUDGE
        )


def reading(files: Sequence[Path], *, distinct: bool = False) -> str:
    """*files* as a table of SQL."""
    table = f"read_parquet([{', '.join(map(quoted, files))}], union_by_name = true)"
    return f"(SELECT DISTINCT * FROM {table})" if distinct else table  # noqa: S608  # quoted


def _damaged_inside(there: Found, connection: duckdb.DuckDBPyConnection) -> dict[Path, str]:
    """Which files cannot be read to their end; slow, and only done where a query failed."""
    import duckdb

    worse = {}
    for path in there.files:
        try:
            connection.execute(
                f"SELECT max(moment), max(value), max(row), max(board), max(kernel) FROM {reading([path])}"  # noqa: S608
            ).fetchall()
        except duckdb.Error as error:
            if path.exists():
                worse[path] = str(error).splitlines()[0].replace(f"'{path}'", "it").replace(str(path), "it")
    return worse


def _where(**globs: str | None) -> str:
    return " AND ".join(f"{name} GLOB {quoted(glob)}" for name, glob in globs.items() if glob is not None) or "true"


def _glob(pattern: str | None) -> str | None:
    """As the gate's globs are: ``*`` and ``?`` are special, brackets, of which names are full, are not."""
    return None if pattern is None else pattern.replace("[", "[[]")
