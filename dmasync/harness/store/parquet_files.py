"""The Parquet files of a store: which there are, which of them are whole, and how one is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.runs.writing import made_folder
from dmasync.harness.store.bucket import arriving_whole, file_system, in_bucket

if TYPE_CHECKING:
    import duckdb

_MAGIC = b"PAR1"
MERGED = "merged-"
"""How the name of a file of many runs begins; a file of one run has the run's id for a name."""
_RUNS_KEY = "runs"
"""In the file's metadata: the ids of the runs that it holds, parted by commas."""


def connected(folder: Path | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB, in memory, which reads *folder* where that is in a bucket; CommandError (4) where it is not installed."""
    try:
        import duckdb
    except ModuleNotFoundError:
        raise CommandError(
            "a store needs the package 'duckdb': python3 -m pip install duckdb, or '.[store]' in a clone",
            ExitStatus.SKIPPED,
        ) from None
    # It would look for extensions on the network; what is asked here needs none.
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET enable_progress_bar = false")
    if folder is not None and in_bucket(folder):
        connection.register_filesystem(file_system(folder))
    return connection


@dataclass(frozen=True)
class Found:
    """The files of a table that a query reads, and those that it passes over with the reason."""

    files: tuple[Path, ...]
    damaged: tuple[tuple[Path, str], ...] = ()
    overlapping: bool = False
    """Whether two merged files have runs in common: then a row may come twice."""

    def without(self, damaged: Mapping[Path, str]) -> Found:
        left = tuple(path for path in self.files if path not in damaged)
        return Found(left, (*self.damaged, *damaged.items()), self.overlapping)


def found(folder: Path, connection: duckdb.DuckDBPyConnection) -> Found:
    """The files below *folder*: each run once, also while another process merges them.

    A file of one run that a merged file holds too is passed over without a word: whoever merged it has not removed it
    yet, or was interrupted.
    """
    damaged: list[tuple[Path, str]] = []
    folders: dict[Path, list[Path]] = {}
    for path in _listed(folder):
        if reason := damage(path):
            damaged.append((path, reason))
        else:
            folders.setdefault(path.parent, []).append(path)
    chosen: list[Path] = []
    overlapping = False
    for files in folders.values():
        if len(files) == 1:  # a run has one month: nothing else can hold what is in here
            chosen += files
            continue
        inside: set[str] = set()
        merged = [path for path in files if path.name.startswith(MERGED)]
        for path, ids in sorted(_ids(merged, connection).items(), key=lambda item: (-len(item[1]), item[0])):
            if not ids:
                damaged.append((path, "does not tell which runs it holds"))
            elif not ids <= inside:
                overlapping = overlapping or bool(ids & inside)
                inside |= ids
                chosen.append(path)
        chosen += [path for path in files if path not in merged and path.stem not in inside]
    return Found(tuple(sorted(chosen)), tuple(damaged), overlapping)


def _listed(folder: Path) -> list[Path]:
    """The files by name. Listed until nothing changes: one that moves while a folder is read could be missed."""
    before: list[Path] | None = None
    while True:
        now = sorted(path for path in folder.glob("*/*.parquet") if path.name[0] != ".")
        if now == before:
            return now
        before = now


def damage(path: Path) -> str:
    """Why the file cannot be Parquet, as its first and last bytes tell; empty where they are right.

    In a bucket, where to look at each file takes longer than the answer, that is left to the query.
    """
    if in_bucket(path):
        return ""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(4)
            file.seek(max(0, size - 8))
            last = file.read(8)
    except FileNotFoundError:
        return "" if not os.path.lexists(path) else "is a link to nothing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if first != _MAGIC or last[4:] != _MAGIC or int.from_bytes(last[:4], "little") > size - 12:
        return "is not a Parquet file, or was cut off"
    return ""


def run_ids(files: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The ids of the runs that *files* hold."""
    merged = [path for path in files if path.name.startswith(MERGED)]
    inside = set().union(*_ids(merged, connection).values())
    return inside | {path.stem for path in files if not path.name.startswith(MERGED)}


def _ids(merged: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> dict[Path, frozenset[str]]:
    if not merged:
        return {}
    ids: dict[Path, frozenset[str]] = {path: frozenset() for path in merged}
    for path in merged:
        with suppress(Exception):  # what is wrong with it, a query will say
            told = connection.execute(
                "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?", [str(path), _RUNS_KEY]
            ).fetchone()
            ids[path] = frozenset(told[0].split(",")) if told else ids[path]
    return ids


def write_rows(
    path: Path,
    columns: Mapping[str, str],
    rows: Iterable[tuple[Any, ...]],
    connection: duckdb.DuckDBPyConnection,
    compression: str = "zstd",
) -> None:
    """Write *rows* of *columns* to *path*, whole or not at all."""
    names = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE written ({names})")
    if listed := [list(column) for column in zip(*rows, strict=True)]:
        # Whole columns: a placeholder for each value takes DuckDB thirty times as long.
        values = ", ".join(f"unnest(?::{kind}[])" for kind in columns.values())
        connection.execute(f"INSERT INTO written SELECT {values}", listed)
    write_query(path, "SELECT * FROM written", [], connection, compression)


def write_query(
    path: Path, query: str, runs: Sequence[str], connection: duckdb.DuckDBPyConnection, compression: str = "zstd"
) -> None:
    """Write what *query* answers to *path*, whole or not at all, with the ids of the *runs* that it holds."""
    import duckdb

    if not in_bucket(path):
        made_folder(path.parent)
    told = f", KV_METADATA {{{_RUNS_KEY}: {quoted(','.join(runs))}}}" if runs else ""
    try:
        with arriving_whole(path) as place:
            connection.execute(
                f"COPY ({query}) TO {quoted(place)} "
                f"(FORMAT parquet, COMPRESSION {compression}, USE_TMP_FILE false{told})"
            )
    except duckdb.Error as error:
        raise CommandError(f"{str(path)!r} cannot be written: {str(error).splitlines()[0]}") from None


def quoted(text: object) -> str:
    """*text* as a literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"
