"""What a run says about the sync's overhead, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from dmasync.harness.bench.targets import VM, WALL_IN_EMULATOR
from dmasync.harness.console import Column, console, counted, print_table
from dmasync.harness.runs.facts import FIRST_START, INSTRUCTIONS, NULL_STEP, PAIR
from dmasync.harness.runs.reading import Row, Run, printable

TABLE_SIZE = 1 << 20
"""The table's buffers; the file has the other sizes."""
_STEPS = ("start", "end", PAIR, FIRST_START)
_PROVIDERS = ("udmabuf", "system", "cma")
_WIDTH_OF_A_FILE = 120

Key = tuple[str, bool, str]


def print_summary(
    run: Run,
    stream: TextIO | None = None,
    *,
    verbose: bool = False,
    kept: bool = True,
    is_temporary: bool = False,
) -> None:
    """Print the table, how many rows are not exact, what could not be measured and why, and where the file is.

    *verbose*: each row that is not exact, with its quartiles. Without *kept* no file has the rows. A
    file that *is_temporary* is not named: whoever keeps its rows tells where.
    """
    shown = console(stream, file_width=_WIDTH_OF_A_FILE)
    rows = list(run.rows.values())
    unit = "instructions" if rows and rows[0].is_exact_clock else "ns"
    shown.print(Text(_headline(run, unit)), soft_wrap=True)
    _print_overhead(shown, rows)
    told = [_reading(rows, unit), *(_inexact(rows) if verbose else _inexact_counted(rows)), *_missing(run)]
    where = "measured" if is_temporary else f"in {run.path}" if kept else "measured, and in no file"
    for line in [*told, f"{counted(len(rows), 'row')} {where}"]:
        shown.print(Text(line), soft_wrap=True)


def _headline(run: Run, unit: str) -> str:
    facts = next(iter(run.rows.values())).facts
    where = {"vm": "virtual machine", "hardware": "this machine", "fake": "the fake kernel"}
    kernel = "" if facts.target == "fake" else f", kernel {facts.kernel}"
    return printable(
        f"sync overhead on {where.get(facts.target or '', 'unknown')}{kernel}, {facts.arch}, Python {facts.python}, "
        f"in {unit} per call, 1 MiB buffers"
    )


def _print_overhead(shown: Console, rows: Sequence[Row]) -> None:
    columns = [Column(name) for name in ("provider", "importer", "access")]
    columns += [
        Column(name, number=True)
        for name in ("START", "END", "pair", "first START", "kernel's part of a pair", "DmaSyncer pair")
    ]
    null = next((row for row in rows if row.facts.step == NULL_STEP), None)
    table = []
    for (provider, attached, access), cells in sorted(_by_buffer(rows).items(), key=lambda item: _order(item[0])):
        if not any(step in cells for step in _STEPS):
            continue
        pair = cells.get(PAIR)
        kernel = None if pair is None or null is None else max(0.0, pair.median - 2 * null.median)
        table.append(
            (
                provider,
                "vgem" if attached else "none",
                access,
                *(_shown(cells[step].median) if step in cells else "" for step in _STEPS),
                "" if kernel is None else _shown(kernel),
                _shown(cells["DmaSyncer"].median) if "DmaSyncer" in cells else "",
            )
        )
    if table:
        print_table(shown, columns, table)


def _order(key: Key) -> tuple[object, ...]:
    provider, attached, access = key
    return (_PROVIDERS.index(provider) if provider in _PROVIDERS else len(_PROVIDERS), provider, attached, len(access))


def _by_buffer(rows: Iterable[Row]) -> Mapping[Key, dict[str, Row]]:
    found: dict[Key, dict[str, Row]] = {}
    for row in rows:
        facts = row.facts
        if facts.provider is None or facts.size != TABLE_SIZE or facts.access is None:
            continue
        cells = found.setdefault((facts.provider, bool(facts.attached), facts.access), {})
        if facts.api == "fcntl" and facts.step in _STEPS:
            cells[facts.step] = row
        elif facts.api == "DmaSyncer-reused" and facts.step == PAIR:
            cells["DmaSyncer"] = row
    return found


def _shown(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f}"


def _reading(rows: Sequence[Row], unit: str) -> str:
    null = next((row for row in rows if row.facts.step == NULL_STEP), None)
    floor = "" if null is None else f"; a null ioctl costs {_shown(null.median)}"
    what = "what an emulated CPU executed, not board time" if unit == INSTRUCTIONS else "medians of wall time"
    hint = f"; {WALL_IN_EMULATOR}" if _is_wall_in_emulator(rows) else ""
    return f"through fcntl.ioctl from Python, net of the loop; {unit}: {what}{floor}{hint}"


def _is_wall_in_emulator(rows: Iterable[Row]) -> bool:
    """The suites never ask a machine for KVM."""
    return any(row.facts.target == VM and not row.is_exact_clock for row in rows)


def _inexact_counted(rows: Iterable[Row]) -> list[str]:
    """One line a reason: how many rows have it."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.is_exact_clock and not row.facts.exact:
            reason = _why_inexact(row)
            counts[reason] = counts.get(reason, 0) + 1
    more = " (-v lists them)"
    return [f"not exact: {counted(count, 'row')}: {reason}{more}" for reason, count in counts.items()]


def _why_inexact(row: Row) -> str:
    step = row.facts.step or ""
    if not row.facts.resolution:
        return "some rounds took another number of instructions"
    if "threads" in step:
        return "threads take turns at other places in every run"
    if "EINTR" in step:
        return "signals arrive at other places in every run"
    if step.startswith("recorded"):
        return "Python's memory grows while it records"
    return "pages are allocated or mapped, other ones each time"


def _inexact(rows: Iterable[Row]) -> list[str]:
    return [
        f"not exact: {printable(row.fullname)}: {_why_inexact(row)}: {_shown(row.median)}, quartiles {_shown(row.q1)} "
        f"to {_shown(row.q3)}"
        + (f", from boot to boot up to {row.facts.resolution:g} %" if row.facts.resolution else "")
        for row in rows
        if row.is_exact_clock and not row.facts.exact
    ]


def _missing(run: Run) -> list[str]:
    reasons: dict[str, int] = {}
    for row in run.facts.not_measured:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    return [f"not measured: {counted(count, 'row')}: {printable(reason)}" for reason, count in reasons.items()]
