"""What is kept, for people and for programs: from the index, so that ten thousand runs take less than a second."""

from __future__ import annotations

import json

from rich.text import Text

from dmasync.harness import old_names
from dmasync.harness.console import Column, console, print_table
from dmasync.harness.runs.kept import KeptRun
from dmasync.harness.runs.reading import printable
from dmasync.harness.runs.storage import Storage

SCHEMA_VERSION = 1
_COLUMNS = ("date", "host", "kernel", "target", "clock", "rows", "standing", "file")


def print_kept(storage: Storage, *, as_json: bool) -> None:
    """Every run of *storage*, oldest first, then the damaged files."""
    kept = storage.kept()
    if as_json:
        runs = [_described(one) for one in kept]
        print(json.dumps({"schema_version": SCHEMA_VERSION, "runs": runs}, indent=1))  # noqa: T201
        return
    shown = console()
    rows = [_cells(_described(one)) for one in kept if one.summary is not None]
    if rows:
        print_table(shown, [Column(name, number=name == "rows") for name in _COLUMNS], rows)
    for one in kept:
        if one.summary is None:
            shown.print(Text(f"damaged, left alone: {printable(one.path)}: {one.damage}"), soft_wrap=True)
    if not kept:
        shown.print(Text(f"no runs are kept in {printable(storage.folder)}"), soft_wrap=True)


def _cells(told: dict[str, object]) -> list[str]:
    return [printable(told[name] if told[name] is not None else "") for name in _COLUMNS]


def _described(one: KeptRun) -> dict[str, object]:
    told: dict[str, object] = {"file": str(one.path), "standing": one.standing.value, "damage": one.damage or None}
    if one.summary is not None:
        kind, moment = one.summary.kind, one.summary.moment
        told |= {
            "date": moment.isoformat(timespec="seconds") if moment else None,
            "host": kind.host,
            "kernel": one.summary.kernel,
            "arch": kind.arch,
            "target": kind.target,
            old_names.TARGET: kind.target,
            "clock": kind.clock,
            "python": kind.python,
            "rows": one.summary.rows,
        }
    return told
