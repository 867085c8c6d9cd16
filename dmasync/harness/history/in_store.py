"""``dmasync history`` over a store of Parquet files: store, merge, series, board, moved."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmasync.harness.console import Column, console, counted, print_table
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.judge.words import in_days
from dmasync.harness.option_types import given_text
from dmasync.harness.runs.given_files import files_in
from dmasync.harness.runs.reading import printable
from dmasync.harness.runs.storage import Storage
from dmasync.harness.store.bucket import answering, left_as_found, store_folder, writable
from dmasync.harness.store.schema import TOGETHER

if TYPE_CHECKING:
    from dmasync.harness.store.queries import Answer, StoreReader

ACTIONS = ("store", "merge", "series", "board", "moved")
SCHEMA_VERSION = 1
_MOST_SHOWN = 40
_WEEK = 7.0
_PERCENT = 5.0
"""By the wall clock; on the exact clock every integer is a move."""
_NUMBERS = {"value", "q1", "q3", "before", "after", "ratio", "nights_before", "nights_after"}
_SHOWN = {
    "series": ("moment", "board", "kernel", "row", "value", "q1", "q3", "unit"),
    "board": ("moment", "kernel", "row", "value", "unit"),
    "moved": ("ratio", "over", "board", "kernel", "row", "before", "after", "unit"),
}


def configure(actions: Any, add_storage: Callable[[argparse.ArgumentParser], None]) -> list[argparse.ArgumentParser]:
    """Add the actions; *add_storage* adds the option ``--storage`` to the one that reads kept runs."""
    storing = actions.add_parser("store", help="add kept runs to a store of Parquet files, for a fleet of boards")
    _add_store(storing, "the folder of the store, made if it is not there")
    storing.add_argument(
        "runs",
        metavar="RUN",
        type=given_text,
        nargs="*",
        help="the run files to add, or folders of them (default: all of the storage)",
    )
    add_storage(storing)
    merging = actions.add_parser(
        "merge", help="put each month of a store into one file: do that once a week, it makes the answers fast"
    )
    series = actions.add_parser("series", help="from a store: every value of a row, oldest first")
    board = actions.add_parser("board", help="from a store: the last value of each row of a board")
    moved = actions.add_parser("moved", help="from a store: which rows are off what they were the days or weeks before")
    for action in (merging, series, board, moved):
        _add_store(action, "the folder of the store")
    series.add_argument(
        "row", metavar="ROW", type=given_text, help="the row's full name, or a glob: * and ? are special"
    )
    series.add_argument("--board", metavar="GLOB", type=given_text, help="only of these boards (default: all)")
    series.add_argument("--kernel", metavar="GLOB", type=given_text, help="only on these kernels (default: all)")
    board.add_argument("board", metavar="BOARD", type=given_text, help="the board's host name, as the runs tell it")
    moved.add_argument(
        "--days",
        metavar="N",
        type=float,
        default=_WEEK,
        help="compare the last N days with the 4 N before (default: 7); what crept over 13 weeks is told as well",
    )
    moved.add_argument(
        "--percent",
        metavar="PCT",
        type=float,
        help=f"leave out what moved by less (default: {_PERCENT:g}; on the exact clock nothing is left out)",
    )
    for action in (series, board, moved):
        action.add_argument("--json", action="store_true", help="for a program")
    return [storing, merging, series, board, moved]


def _add_store(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("store", metavar="STORE", type=given_text, help=f"{what}; also in a bucket: s3://BUCKET/FOLDER")


def run(options: argparse.Namespace, storage: Storage) -> int:
    """Carry out one of the actions above."""
    folder = store_folder(options.store)
    with answering(folder):
        if options.action == "store":
            return _store(folder, options.runs, storage)
        return _asked(folder, options)


def _asked(folder: Path, options: argparse.Namespace) -> int:
    from dmasync.harness.store.queries import StoreReader

    reader = StoreReader(folder)
    if options.action == "merge":
        from dmasync.harness.store.parquet_store import ParquetStore

        store = ParquetStore(folder)
        gone = store.drop_rounds(_now())
        print(f"merged {counted(store.merge(), 'month')}{_dropped(gone)}")  # noqa: T201
        return ExitStatus.GOOD
    return _print_answer(_answer(reader, options), options)


def check(store: Path) -> None:
    """CommandError where no run could be added to *store*: nothing is installed for it, or nothing can be written."""
    from dmasync.harness.store.parquet_store import ParquetStore

    with answering(store):
        ParquetStore(store)
        writable(store)


def add_run(store: Path, path: Path) -> None:
    """Add the run of one file to *store*; CommandError if that fails."""
    from dmasync.harness.store.parquet_store import ParquetStore

    with answering(store):
        place = ParquetStore(store)
        for sentence in place.add([path], _now()).left_out:
            raise CommandError(sentence)
        place.drop_rounds(_now())


def _store(folder: Path, files: list[str], storage: Storage) -> int:
    from dmasync.harness.store.parquet_store import ParquetStore

    if not files and not storage.folder.is_dir():
        raise CommandError(f"{printable(storage.folder)}: no such folder: name it with --storage, or name run files")
    named = [inside for name in files for inside in _files(Path(name))]
    store = ParquetStore(folder)
    with left_as_found(folder):
        writable(folder)
        added = store.add(named if files else (one.path for one in storage.kept()), _now())
    gone = store.drop_rounds(_now())
    print(f"added {counted(added.new, 'run')}, {added.known} were there{_dropped(gone)}")  # noqa: T201
    for sentence in added.left_out:
        print(f"left out: {sentence}", file=sys.stderr)  # noqa: T201
    return ExitStatus.UNUSABLE if files and added.left_out else ExitStatus.GOOD


def _files(path: Path) -> list[Path]:
    return files_in(path) if path.is_dir() else [path]


def _dropped(runs: int) -> str:
    return f"; dropped the old rounds of {counted(runs, 'run')}" if runs else ""


def _answer(reader: StoreReader, options: argparse.Namespace) -> Answer:
    if options.action == "series":
        return reader.series(options.row, options.board, options.kernel)
    if options.action == "board":
        return reader.last_values(options.board)
    from dmasync.harness.store.fleet_moves import moves

    if not 0 < options.days < 1e5:
        raise CommandError(f"--days is {options.days}, expected a number of days above 0")
    if options.percent is None:
        return moves(reader, options.days, _PERCENT).told
    if not 0 <= options.percent < 1e6:
        raise CommandError(f"--percent is {options.percent}, expected percent, at least 0")
    return moves(reader, options.days, options.percent, options.percent).told


def _print_answer(answer: Answer, options: argparse.Namespace) -> int:
    for path, reason in answer.damaged:
        print(f"damaged, passed over: {printable(path)}: {printable(reason)}", file=sys.stderr)  # noqa: T201
    if options.json:
        told = {"schema_version": SCHEMA_VERSION, "rows": answer.as_objects()}
        print(json.dumps(told, indent=1))  # noqa: T201
        return ExitStatus.GOOD
    if not answer.rows:
        nothing = "nothing moved" if options.action == "moved" else "no such row or board is in the store"
        print(nothing)  # noqa: T201
        return ExitStatus.GOOD if options.action == "moved" else ExitStatus.CANNOT_JUDGE
    names = _SHOWN[options.action]
    most = _MOST_SHOWN if options.action == "moved" else len(answer.rows)
    rows = [[_cell(name, told) for name in names] for told in answer.as_objects()[:most]]
    print_table(console(), [Column(name.replace("_", " "), name in _NUMBERS) for name in names], rows)
    if len(answer.rows) > most:
        print(f"and {len(answer.rows) - most} more: --json has all of them")  # noqa: T201
    return ExitStatus.GOOD


def _cell(name: str, told: dict[str, Any]) -> str:
    if name == "over":
        return in_days(told["over_days"])
    value = told[name]
    if name == "row" and value == TOGETHER:
        return "all rows together"
    if name == "ratio":
        return f"x{value:,.3f}"
    if isinstance(value, float):
        # A number of instructions is told whole, as everywhere else.
        return f"{value:,.0f}" if value.is_integer() or value >= 1e5 else f"{value:,.6g}"
    return printable("" if value is None else value)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)
