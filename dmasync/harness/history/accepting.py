"""``dmasync history accept`` and ``accepted``: say of a regression that it is known, and list those that are."""

from __future__ import annotations

import argparse
import json
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from dmasync.harness.console import Column, console, print_table
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.history.acceptances import Acceptance, load, run_name, write
from dmasync.harness.option_types import given_text
from dmasync.harness.runs.facts import is_named
from dmasync.harness.runs.kept import KeptRun, Kind
from dmasync.harness.runs.reading import printable
from dmasync.harness.runs.storage import Storage

ACTIONS = ("accept", "accepted")
SCHEMA_VERSION = 1


def configure(actions: Any) -> list[argparse.ArgumentParser]:
    """Add both actions."""
    accepting = actions.add_parser(
        "accept", help="accept what a row costs in the newest run: nightly alarms only when it gets worse than that"
    )
    accepting.add_argument("row", metavar="ROW", type=given_text, help="the row's full name, or a glob of it")
    accepting.add_argument("--reason", metavar="TEXT", type=given_text, required=True, help="why it may cost that much")
    accepting.add_argument("--owner", metavar="WHO", type=given_text, required=True, help="who answers for it")
    accepting.add_argument("--commit", metavar="ID", type=given_text, help="the commit that caused it")
    accepting.add_argument(
        "--until", metavar="DATE", type=_day, help="alarm again after this day, YYYY-MM-DD (default: never)"
    )
    accepting.add_argument(
        "--board",
        metavar="HOST",
        type=given_text,
        help="for this board alone (default: all whose newest run has the row)",
    )
    listing = actions.add_parser("accepted", help="list what was accepted, by whom, why and until when")
    listing.add_argument("--json", action="store_true", help="for a program")
    return [accepting, listing]


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: expected YYYY-MM-DD") from None


def run(options: argparse.Namespace, storage: Storage) -> int:
    """Write acceptances, or list them."""
    if options.action == "accept":
        return _accept(options, storage)
    _print(load(storage.folder), as_json=options.json)
    return ExitStatus.GOOD


def _accept(options: argparse.Namespace, storage: Storage) -> int:
    if options.until and options.until < _today().isoformat():
        raise CommandError(f"--until {options.until} is over already: nothing would be accepted")
    newest: dict[Kind, KeptRun] = {}
    for kept in storage.kept():
        if kept.kind is not None and options.board in (None, kept.kind.host):
            newest[kept.kind] = kept  # oldest first
    written = 0
    for kind, kept in newest.items():
        if kept.run is None or not any(is_named(name, options.row) for name in kept.run.rows):
            continue
        name = run_name(kept.path, storage.folder)
        acceptance = Acceptance(
            options.row, kind.host, name, options.reason, options.owner, options.commit or "", options.until or ""
        )
        path = write(storage.folder, acceptance)
        print(f"accepted on {printable(kind.host)} as in {printable(kept.path)}: {printable(path)}")  # noqa: T201
        written += 1
    if not written:
        where = f"of {options.board} " if options.board else ""
        raise CommandError(f"no newest run {printable(where)}in {printable(storage.folder)} has a row {options.row!r}")
    return ExitStatus.GOOD


def _print(accepted: dict[Path, Acceptance], *, as_json: bool) -> None:
    today = _today()
    if as_json:
        told = [{"file": str(path), **vars(one), "in_force": one.in_force(today)} for path, one in accepted.items()]
        print(json.dumps({"schema_version": SCHEMA_VERSION, "accepted": told}, indent=1))  # noqa: T201
        return
    if not accepted:
        print("nothing was accepted")  # noqa: T201
        return
    columns = [Column(name) for name in ("row", "board", "until", "owner", "commit", "reason", "file")]
    rows = [
        [
            printable(cell)
            for cell in (
                one.row,
                one.board,
                (one.until or "for ever") if one.in_force(today) else f"{one.until} (over)",
                one.owner,
                one.commit,
                one.reason,
                path,
            )
        ]
        for path, one in accepted.items()
    ]
    print_table(console(), columns, rows)


def _today() -> date:
    return datetime.now(timezone.utc).date()
